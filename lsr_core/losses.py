"""Losses between a teacher's distribution and a student's logits.

Every method of the study is one loss with another teacher $q$ and two weights,

$$\\mathcal L = h\\,H(y, p) + s\\,D_{KL}(q\\,\\|\\,p_\\tau), \\qquad p_\\tau = \\mathrm{softmax}(z/\\tau).$$

Shapes: logits `[..., B, K]`, labels int64 `[..., B]`; leading axes hold a stack of runs. Divergences are summed
over the K classes and, where a function says so, averaged over the batch B. Weights, temperatures and shares
are numbers or tensors with the leading axes' shape, one value a run.
"""

import math
from typing import Literal, NamedTuple

import torch
from scipy import optimize, special
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot

from ._errors import require, require_classes, require_fraction, require_positive

Convention = Literal["K", "K-1"]


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
    convention: Convention = "K",
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
    return -(targets * log_softmax(logits, -1)).sum(-1)


def kl_divergence(teacher: Tensor, logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """$D_{KL}(q \\| p_\\tau)$, summed over classes, of probabilities `[..., B, K]`; returns `[..., B]`."""
    if not isinstance(temperature, Tensor):
        require_positive("temperature", temperature)
    tau = _per_row(temperature, logits).to(logits)
    return torch.special.xlogy(teacher, teacher).sum(-1) - (teacher * log_softmax(logits / tau[..., None], -1)).sum(-1)


def distillation_loss(
    logits: Tensor,
    labels: Tensor,
    teacher: Tensor,
    *,
    hard_weight: float | Tensor,
    soft_weight: float | Tensor,
    temperature: float | Tensor = 1.0,
) -> Loss:
    """The study's loss with any teacher's probabilities `[..., B, K]` (Hinton 2015; Yuan 2020 Eq. 4).

    The usual weights are $h = 1-\\alpha$ and $s = \\alpha\\tau^2$. Averaged over the batch.
    """
    rows = -log_softmax(logits, -1).gather(-1, labels[..., None])[..., 0]
    hard = (_per_row(hard_weight, logits).to(logits) * rows).mean(-1)
    soft = (_per_row(soft_weight, logits).to(logits) * kl_divergence(teacher, logits, temperature)).mean(-1)
    return Loss(hard + soft, hard.detach(), soft.detach())


def smoothing_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    hard_weight: float | Tensor,
    soft_weight: float | Tensor,
    temperature: float | Tensor = 1.0,
    share: float | Tensor,
) -> Loss:
    """The study's loss with a hand-made teacher: `share` on the right class, the rest spread evenly.

    A share of 1/K is the uniform teacher of LSR and LsrKD, a larger one is teacher correction (Wang 2020;
    reconstructed from the abstract). Value and gradient are closed forms that keep their digits as τ grows, where
    log-sum-exp minus mean minus ln K would lose them all. Half-precision logits are computed in float32. Raises
    `InputError` for a temperature that is not above 0 or a share outside [0, 1].
    """
    if not isinstance(temperature, Tensor):
        require_positive("temperature", temperature)
    if not isinstance(share, Tensor):
        require_fraction("share", share)
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    constants = (_per_row(value, logits) for value in (hard_weight, soft_weight, temperature, share))
    return Loss(*_SmoothingLoss.apply(logits, labels, *constants))


def smoothing_gradient(
    logits: Tensor,
    labels: Tensor,
    *,
    hard_weight: float | Tensor,
    soft_weight: float | Tensor,
    temperature: float | Tensor = 1.0,
    share: float | Tensor,
) -> Tensor:
    """The gradient of `smoothing_loss`'s total by the logits `[..., B, K]`, all that a training step needs."""
    constants = (_per_row(value, logits) for value in (hard_weight, soft_weight, temperature, share))
    return _smoothing_gradient(logits, labels, *constants)


def corrected_share(gap: float, temperature: float, classes: int) -> float:
    """The share β of the right class whose optimum has the logit gap G: $e^{G/\\tau}/(e^{G/\\tau}+K-1)$."""
    return float(special.expit(gap / temperature - math.log(classes - 1)))


def optimum_gap(
    *, hard_weight: float, soft_weight: float, temperature: float = 1.0, share: float, classes: int
) -> float:
    """The logit gap between the right class and the others at which the loss of one image is least.

    Solves $h\\,(1-p_y) = \\frac{s}{\\tau}(p_{\\tau,y}-\\beta)$ with all wrong classes equal. Infinite where nothing
    holds the gap back: no soft part, or a teacher as sure as the label.
    """
    require_positive("temperature", temperature)
    require_fraction("share", share)
    require_classes(classes)

    def slope(gap: float) -> float:
        wrong = 1 - corrected_share(gap, 1.0, classes)
        return hard_weight * wrong - soft_weight / temperature * (corrected_share(gap, temperature, classes) - share)

    reach = 700 * temperature
    if soft_weight == 0 or share == 1:
        return math.inf
    return float(optimize.brentq(slope, -reach, reach, xtol=1e-12)) if slope(-reach) > 0 else -math.inf


class _SmoothingLoss(torch.autograd.Function):
    """Value and closed-form gradient of `smoothing_loss`; the constants are `[..., 1]` float64."""

    @staticmethod
    def forward(ctx, logits, labels, *constants):  # noqa: ANN001, ANN002, ANN205
        ctx.save_for_backward(_smoothing_gradient(logits, labels, *constants))
        hard, soft = (part.mean(-1) for part in _smoothing_value(logits, labels, *constants))
        ctx.mark_non_differentiable(hard, soft)
        return hard + soft, hard, soft

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, total, hard, soft):  # noqa: ANN001, ANN205, ARG004
        return total[..., None, None] * ctx.saved_tensors[0], None, None, None, None, None


def _smoothing_value(
    logits: Tensor, labels: Tensor, hard_weight: Tensor, soft_weight: Tensor, tau: Tensor, share: Tensor
) -> tuple[Tensor, Tensor]:
    """The weighted hard and soft parts `[..., B]`."""
    classes = logits.shape[-1]
    centred = logits - logits.mean(-1, keepdim=True)
    index = labels[..., None]
    hard = -log_softmax(centred, -1).gather(-1, index)[..., 0]
    right = centred.gather(-1, index)[..., 0] / tau.to(logits)
    divergence = _log_mean_exp(centred / tau[..., None].to(logits)) - _excess(share, classes).to(logits) * right
    divergence = divergence + _divergence_from_uniform(share, classes).to(logits)
    return hard_weight.to(logits) * hard, soft_weight.to(logits) * divergence


def _smoothing_gradient(
    logits: Tensor, labels: Tensor, hard_weight: Tensor, soft_weight: Tensor, tau: Tensor, share: Tensor
) -> Tensor:
    """$h\\,(p - e_y) + \\frac{s}{\\tau}(p_\\tau - q)$, averaged over the batch.

    $p_\\tau - 1/K$ is computed as one, exact to rounding also where it is nearly zero.
    """
    classes = logits.shape[-1]
    pull = soft_weight / tau
    excess = _excess(share, classes)
    shifted = logits - logits.amax(-1, keepdim=True)
    odds = shifted.exp()
    soft_odds = torch.expm1(shifted / tau[..., None].to(logits))
    mean = soft_odds.mean(-1, keepdim=True)
    gradient = hard_weight[..., None].to(logits) / odds.sum(-1, keepdim=True) * odds
    gradient += pull[..., None].to(logits) / (classes * (1 + mean)) * (soft_odds - mean)
    gradient += (pull * excess / classes)[..., None].to(logits)
    on_label = -(hard_weight + pull * excess).to(logits)
    gradient.scatter_add_(-1, labels[..., None], on_label.expand(labels.shape)[..., None])
    return gradient / logits.shape[-2]


def _excess(share: Tensor, classes: int) -> Tensor:
    """What the right class has beyond the uniform teacher: $q = (1 - \\text{excess})\\,u + \\text{excess}\\,e_y$."""
    return (classes * share - 1) / (classes - 1)


def _per_row(value: float | Tensor, logits: Tensor) -> Tensor:
    """A number, or one a run, as float64 that broadcasts against `[..., B]`."""
    value = torch.as_tensor(value, dtype=torch.float64)
    return value[..., None] if value.ndim else value.reshape((1,) * (logits.ndim - 1))


def _divergence_from_uniform(share: Tensor, classes: int) -> Tensor:
    """$D_{KL}(q\\|u)$ of the hand-made teacher."""
    wrong = (1 - share) / (classes - 1)
    return torch.special.xlogy(share, classes * share) + (classes - 1) * torch.special.xlogy(wrong, classes * wrong)


def _log_mean_exp(centred: Tensor) -> Tensor:
    """$\\log\\frac1K\\sum_k e^{d_k}$ of rows whose mean is zero, exact to rounding also for tiny $d$."""
    small = centred.clamp(-1, 1)
    series = small**2 / 2 * (1 + small / 3 * (1 + small / 4 * (1 + small / 5)))  # e^d - 1 - d for small d
    tail = torch.where(centred.abs() < 0.02, series, torch.expm1(small) - small)
    near = torch.log1p(tail.mean(-1))
    far = centred.logsumexp(-1) - math.log(centred.shape[-1])
    return torch.where(centred.abs().amax(-1) < 1, near, far)
