"""Losses between a teacher's distribution and a student's logits.

Every method of the study is one loss with another teacher $q$ and two weights,

$$\\mathcal L = h\\,H(y, p) + s\\,D_{KL}(q\\,\\|\\,p_\\tau), \\qquad p_\\tau = \\mathrm{softmax}(z/\\tau).$$

Shapes: logits `[..., B, K]`, labels int64 `[..., B]`; leading axes hold a stack of runs. Divergences are summed
over the K classes and, where a function says so, averaged over the batch B. Everything is computed in float32 at
least. A logit of −∞ masks a class: its probability is zero, and a loss is finite if the teacher's is zero too.
"""

import math
from typing import Literal, NamedTuple

import torch
from scipy import optimize, special
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot

from ._kernels import Divergence, SmoothingLoss, at_least_single, times
from .errors import require, require_classes, require_fraction, require_positive, require_temperature


class Loss(NamedTuple):
    """A loss averaged over the batch, with its weighted parts; each has the logits' leading axes.

    `total` carries the gradient; `hard` is $h\\,H(y,p)$ and `soft` is $s\\,D_{KL}(q\\|p_\\tau)$, both detached.
    """

    total: Tensor
    hard: Tensor
    soft: Tensor


def smoothed_labels(
    labels: Tensor,
    classes: int,
    epsilon: float,
    convention: Literal["K", "K-1"] = "K",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Label smoothing's targets `[..., B, K]` (Szegedy 2016; Müller 2019 §1.1; Shen 2021 Eq. 1).

    `epsilon` in [0, 1] is the smoothing mass. Convention `"K"` puts ε/K on every class, `"K-1"` puts ε/(K−1) on
    each wrong one. Raises `InputError` for another mass or convention.
    """
    require_fraction("epsilon", epsilon)
    require_classes(classes)
    require(convention in ("K", "K-1"), f"unknown convention {convention!r}; there are 'K' and 'K-1'")
    mass = epsilon if convention == "K" else epsilon_from_wrong_classes(epsilon, classes)
    return (1 - mass) * one_hot(labels, classes).to(dtype) + mass / classes


def epsilon_from_wrong_classes(epsilon: float, classes: int) -> float:
    """The mass ε_K that equals ε_{K−1}: $\\varepsilon_K = \\varepsilon_{K-1}\\,K/(K-1)$, for K `classes`."""
    return epsilon * classes / (classes - 1)


def cross_entropy(targets: Tensor, logits: Tensor) -> Tensor:
    """$H(q, p) = -\\sum_k q_k \\log p_k$ of soft targets `[..., B, K]`; returns `[..., B]`."""
    log_p = log_softmax(at_least_single(logits), -1)
    return -(targets * log_p.masked_fill(targets == 0, 0)).sum(-1)


def kl_divergence(teacher: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """$D_{KL}(q \\| p_\\tau)$, summed over classes, of probabilities `[..., B, K]`; returns `[..., B]`."""
    return divergence(at_least_single(teacher).log(), logits, temperature)


def divergence(scores: Tensor, logits: Tensor, temperature: float = 1.0, teacher_temperature: float = 1.0) -> Tensor:
    """$D_{KL}(\\mathrm{softmax}(v/\\tau_t) \\| p_\\tau)$ of a teacher's `scores` $v$ `[..., B, K]`; returns `[..., B]`.

    Scores are the teacher's logits, or the logarithms of its probabilities, −∞ where they are zero. They keep the
    digits that the probabilities of a very flat teacher would lose. Value and gradient are closed forms, exact to
    rounding; the gradient can be differentiated again, and the teacher gets none. Raises `InputError` for a temperature
    outside 0.001 to 1e9.
    """
    require_temperature("temperature", temperature)
    require_temperature("teacher_temperature", teacher_temperature)
    logits = at_least_single(logits)
    taus = logits.new_full((), temperature), logits.new_full((), teacher_temperature)
    return Divergence.apply(logits, scores.detach().to(logits), *taus)


def reverse_divergence(logits: Tensor) -> Tensor:
    """$D_{KL}(p \\| u) = \\ln K - H(p)$ of logits `[..., B, K]`: the confidence penalty (Pereyra 2017); `[..., B]`."""
    log_p = log_softmax(at_least_single(logits), -1)
    log_p = log_p.clamp_min(torch.finfo(log_p.dtype).min)  # a masked class: 0 · ln 0 = 0
    return (log_p.exp() * (log_p + math.log(logits.shape[-1]))).sum(-1)


def without_label(values: Tensor, labels: Tensor) -> Tensor:
    """The values `[..., B, K]` of the wrong classes alone, `[..., B, K-1]`, in the order of the classes."""
    classes = torch.arange(values.shape[-1] - 1, device=labels.device)
    wrong = classes + (classes >= labels[..., None])
    return values.gather(-1, wrong.expand(*values.shape[:-1], -1))


def weighted(logits: Tensor, labels: Tensor, soft: Tensor, hard_weight: float, soft_weight: float) -> Loss:
    """$h\\,H(y,p) + s\\,D$ averaged over the batch, from a divergence `soft`, $D$ `[..., B]`.

    Labels may be distributions `[..., B, K]`. The usual weights are $1-\\alpha$ and $\\alpha\\tau^2$ (Hinton 2015).
    """
    logits = at_least_single(logits)
    if labels.is_floating_point():
        rows = cross_entropy(labels, logits)
    else:
        rows = -log_softmax(logits, -1).gather(-1, labels[..., None])[..., 0]
    hard, soft = times(hard_weight, rows).mean(-1), times(soft_weight, soft).mean(-1)
    return Loss(hard + soft, hard.detach(), soft.detach())


def smoothing_loss(
    logits: Tensor, labels: Tensor, *, hard_weight: float, soft_weight: float, share: float, temperature: float = 1.0
) -> Loss:
    """The study's loss with a hand-made teacher: probability `share` for the right class, the rest is uniform.

    A share of 1/K is the uniform teacher of LSR and LsrKD, a larger one is teacher correction (Wang 2020;
    reconstructed from the abstract). Value and gradient are closed forms that keep their digits as τ grows, unlike
    log-sum-exp minus mean minus ln K, and can be differentiated again. Raises `InputError` for a temperature outside
    0.001 to 1e9 or a share outside [0, 1].
    """
    require_temperature("temperature", temperature)
    require_fraction("share", share)
    return Loss(*SmoothingLoss.apply(at_least_single(logits), labels, hard_weight, soft_weight, temperature, share))


Constant = float | Tensor  # one number, or a tensor that broadcasts against the logits: one value for each run


def gradient_targets(labels: Tensor, offsets: Tensor, hard_weight: Constant, soft_gradient_weight: Constant) -> Tensor:
    """The part of the gradient `[..., B, K]` that does not depend on the logits: $h\\,e_y + \\frac{s}{\\tau}(q - 1/K)$.

    `offsets` are $q - 1/K$ `[..., B, K]` of any teacher, `soft_gradient_weight` is $s/\\tau$.
    """
    hard = torch.as_tensor(hard_weight, dtype=offsets.dtype, device=offsets.device).expand(*labels.shape, 1)
    return (soft_gradient_weight * offsets).scatter_add_(-1, labels[..., None], hard)


def gradient_from_targets(
    logits: Tensor, targets: Tensor, hard_weight: Constant, soft_gradient_weight: Constant, temperature: Constant
) -> Tensor:
    """The gradient `[..., B, K]` of $h\\,H(y,p) + s\\,D_{KL}(q\\|p_\\tau)$ with respect to the logits.

    $h\\,(p - e_y) + \\frac{s}{\\tau}(p_\\tau - q)$ over B. Those targets are computed once for a
    fixed teacher, and runs of different methods train side by side. The difference $p_\\tau - 1/K$ is exact to rounding
    even if it is nearly zero. With few classes its elementwise passes are faster than softmax.
    """
    logits = at_least_single(logits)
    odds = logits - logits.amax(-1, keepdim=True)
    soft_odds = (odds / temperature).expm1_()
    mean = soft_odds.mean(-1, keepdim=True)
    odds.exp_()
    gradient = odds.mul_(hard_weight / odds.sum(-1, keepdim=True))
    gradient += soft_odds.sub_(mean).mul_(soft_gradient_weight / (logits.shape[-1] * (1 + mean)))
    return gradient.sub_(targets).div_(logits.shape[-2])


def corrected_share(gap: float, temperature: float, classes: int) -> float:
    """The share β of the right class whose optimum has the logit gap G: $e^{G/\\tau}/(e^{G/\\tau}+K-1)$."""
    return float(special.expit(gap / temperature - math.log(classes - 1)))


def optimum_gap(
    *, hard_weight: float, soft_weight: float, temperature: float = 1.0, share: float, classes: int
) -> float:
    """The logit gap between the right class and the others at which the loss of one image is least.

    Solves $h\\,(1-p_y) = \\frac{s}{\\tau}(p_{\\tau,y}-\\beta)$ with all wrong classes equal. Infinite without a soft
    part, or with a teacher that is as sure as the label.
    """
    require_positive("temperature", temperature)
    require_fraction("share", share)
    require_classes(classes)

    if soft_weight == 0 or share == 1:
        return math.inf
    reach = 700 * max(temperature, 1.0)

    def slope(gap: float) -> float:
        wrong = 1 - corrected_share(gap, 1.0, classes)
        return hard_weight * wrong - soft_weight / temperature * (corrected_share(gap, temperature, classes) - share)

    return float(optimize.brentq(slope, -reach, reach, xtol=1e-12)) if slope(-reach) > 0 else -math.inf
