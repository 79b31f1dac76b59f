"""Losses between a teacher's distribution and a student's logits.

Every method of the study is one loss with another teacher $q$ and two weights,

$$\\mathcal L = h\\,H(y, p) + s\\,D_{KL}(q\\,\\|\\,p_\\tau), \\qquad p_\\tau = \\mathrm{softmax}(z/\\tau).$$

Shapes: logits `[..., B, K]`, labels int64 `[..., B]`; leading axes hold a stack of runs. Divergences are summed
over the K classes and, where a function says so, averaged over the batch B. Weights, temperatures and shares
are numbers or tensors with the leading axes' shape, one value a run. Everything is computed in float32 at least. A
logit of −∞ is a class that is not there: it has probability zero, and a loss is finite where no teacher wants it.
"""

import math
from typing import Literal, NamedTuple

import torch
from scipy import optimize, special
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot

from .errors import plain, require, require_classes, require_fraction, require_positive, require_temperature

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
    require_fraction("epsilon", plain(epsilon))
    require_classes(classes)
    require(convention in ("K", "K-1"), f"unknown convention {convention!r}; there are 'K' and 'K-1'")
    mass = epsilon if convention == "K" else epsilon_from_wrong_classes(epsilon, classes)
    return (1 - mass) * one_hot(labels, classes).to(dtype) + mass / classes


def epsilon_from_wrong_classes(epsilon: float, classes: int) -> float:
    """The mass ε_K that equals ε_{K−1}: $\\varepsilon_K = \\varepsilon_{K-1}\\,K/(K-1)$, for K `classes`."""
    return epsilon * classes / (classes - 1)


def cross_entropy(targets: Tensor, logits: Tensor) -> Tensor:
    """$H(q, p) = -\\sum_k q_k \\log p_k$ of soft targets `[..., B, K]`; returns `[..., B]`."""
    log_p = log_softmax(_at_least_single(logits), -1)
    return -(targets * log_p.masked_fill(targets == 0, 0)).sum(-1)


def kl_divergence(teacher: Tensor, logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """$D_{KL}(q \\| p_\\tau)$, summed over classes, of probabilities `[..., B, K]`; returns `[..., B]`."""
    return divergence(_at_least_single(teacher).log(), logits, temperature)


def divergence(
    scores: Tensor,
    logits: Tensor,
    temperature: float | Tensor = 1.0,
    teacher_temperature: float | Tensor = 1.0,
) -> Tensor:
    """$D_{KL}(\\mathrm{softmax}(v/\\tau_t) \\| p_\\tau)$ of a teacher's `scores` $v$ `[..., B, K]`; returns `[..., B]`.

    Scores are the teacher's logits, or the logarithm of its probabilities, −∞ where they are zero. They keep their
    digits where a softened teacher is so flat that its probabilities would not. Value and gradient are closed forms,
    exact to rounding; the gradient can be differentiated again and does not reach the teacher. Raises `InputError` for
    a temperature outside 0.001 to 1e9.
    """
    _require_temperature("temperature", temperature)
    _require_temperature("teacher_temperature", teacher_temperature)
    logits = _at_least_single(logits)
    taus = (_per_row(tau, logits).to(logits)[..., None] for tau in (temperature, teacher_temperature))
    return _Divergence.apply(logits, scores.detach().to(logits), *taus)


def reverse_divergence(logits: Tensor) -> Tensor:
    """$D_{KL}(p \\| u) = \\ln K - H(p)$ of logits `[..., B, K]`: the confidence penalty (Pereyra 2017); `[..., B]`."""
    log_p = log_softmax(_at_least_single(logits), -1)
    log_p = log_p.clamp_min(torch.finfo(log_p.dtype).min)  # a class that is not there: 0 · ln 0 = 0
    return (log_p.exp() * (log_p + math.log(logits.shape[-1]))).sum(-1)


def without_label(values: Tensor, labels: Tensor) -> Tensor:
    """The values `[..., B, K]` of the wrong classes alone, `[..., B, K-1]`, in the order of the classes."""
    classes = torch.arange(values.shape[-1] - 1, device=labels.device)
    wrong = classes + (classes >= labels[..., None])
    return values.gather(-1, wrong.expand(*values.shape[:-1], -1))


def distillation_loss(
    logits: Tensor,
    labels: Tensor,
    scores: Tensor,
    *,
    hard_weight: float | Tensor,
    soft_weight: float | Tensor,
    temperature: float | Tensor = 1.0,
    teacher_temperature: float | Tensor = 1.0,
) -> Loss:
    """The study's loss with any teacher, given by its `scores` as `divergence` takes them (Hinton 2015; Yuan 2020).

    The usual weights are $h = 1-\\alpha$ and $s = \\alpha\\tau^2$. Averaged over the batch.
    """
    soft = divergence(scores, logits, temperature, teacher_temperature)
    return weighted(logits, labels, soft, hard_weight, soft_weight)


def weighted(
    logits: Tensor, labels: Tensor, soft: Tensor, hard_weight: float | Tensor, soft_weight: float | Tensor
) -> Loss:
    """$h\\,H(y,p) + s\\,D$ averaged over the batch, of a divergence $D$ `[..., B]` that is there already.

    Labels may be distributions `[..., B, K]`.
    """
    logits = _at_least_single(logits)
    if labels.is_floating_point():
        rows = cross_entropy(labels, logits)
    else:
        rows = -log_softmax(logits, -1).gather(-1, labels[..., None])[..., 0]
    hard = _times(_per_row(hard_weight, logits).to(logits), rows).mean(-1)
    soft = _times(_per_row(soft_weight, logits).to(logits), soft).mean(-1)
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
    log-sum-exp minus mean minus ln K would lose them all, and can be differentiated again. Raises `InputError` for a
    temperature outside 0.001 to 1e9 or a share outside [0, 1].
    """
    _require_temperature("temperature", temperature)
    if not isinstance(share, Tensor):
        require_fraction("share", plain(share))
    constants = hard_weight, soft_weight, temperature, share
    if any(isinstance(value, Tensor) for value in constants):
        constants = tuple(_per_row(value, logits) for value in constants)
    return Loss(*_SmoothingLoss.apply(_at_least_single(logits), labels, *constants))


def distillation_gradient(
    logits: Tensor,
    labels: Tensor,
    *,
    hard_weight: float | Tensor,
    soft_weight: float | Tensor,
    temperature: float | Tensor = 1.0,
    offsets: Tensor,
) -> Tensor:
    """The gradient by the logits `[..., B, K]` of $h\\,H(y,p) + s\\,D_{KL}(q\\|p_\\tau)$: all that a step needs.

    $h\\,(p - e_y) + \\frac{s}{\\tau}(p_\\tau - q)$ over B, for any fixed teacher by its `offsets` $q - 1/K$
    `[..., B, K]`, so that runs of different methods train side by side. Constants are numbers, or one a run.
    $p_\\tau - 1/K$ is computed as one, exact to rounding also where it is nearly zero. Written for few classes, where
    elementwise passes are faster than softmax kernels.
    """
    logits = _at_least_single(logits)
    hard_weight, soft_weight, tau = (_per_row(value, logits) for value in (hard_weight, soft_weight, temperature))
    constants = [value[..., None].to(logits) for value in (hard_weight, soft_weight / tau, tau)]
    return gradient_from_targets(logits, gradient_targets(labels, offsets.to(logits), *constants[:2]), *constants)


def gradient_targets(labels: Tensor, offsets: Tensor, hard_weight: Tensor, pull: Tensor) -> Tensor:
    """The part of the gradient `[..., B, K]` that the logits do not change, $h\\,e_y + \\frac{s}{\\tau}(q - 1/K)$.

    `pull` is $s/\\tau$; it and h broadcast against `offsets` $q - 1/K$.
    """
    hard = hard_weight.to(offsets).expand(*labels.shape, 1)
    return (pull * offsets).scatter_add_(-1, labels[..., None], hard)


def gradient_from_targets(
    logits: Tensor, targets: Tensor, hard_weight: Tensor, pull: Tensor, temperature: Tensor
) -> Tensor:
    """The gradient of `distillation_gradient` from its `gradient_targets`, which a fixed teacher has once and for all.

    Constants broadcast against the logits.
    """
    logits = _at_least_single(logits)
    odds = logits - logits.amax(-1, keepdim=True)
    soft_odds = (odds / temperature).expm1_()
    mean = soft_odds.mean(-1, keepdim=True)
    odds.exp_()
    gradient = odds.mul_(hard_weight / odds.sum(-1, keepdim=True))
    gradient += soft_odds.sub_(mean).mul_(pull / (logits.shape[-1] * (1 + mean)))
    return gradient.sub_(targets).div_(logits.shape[-2])


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
    """Value and closed-form gradient of `smoothing_loss`; the constants are numbers, or all `[..., 1]` float64.

    The gradient is made with the value and handed out once; another backward pass makes it anew.
    """

    @staticmethod
    def forward(ctx, logits, labels, *constants):  # noqa: ANN001, ANN002, ANN205
        ctx.gradient, hard, soft = _smoothed(logits, labels, *constants)
        ctx.save_for_backward(logits, labels)
        ctx.constants = constants
        ctx.mark_non_differentiable(hard, soft)
        return hard + soft, hard, soft

    @staticmethod
    def backward(ctx, total, hard, soft):  # noqa: ANN001, ANN205, ARG004
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            with torch.no_grad():
                gradient, _, _ = _smoothed(*ctx.saved_tensors, *ctx.constants)
        if torch.is_grad_enabled():  # another derivative is to follow
            logits, _ = ctx.saved_tensors
            h, s, tau = (_per_row(value, logits).to(logits)[..., None] for value in ctx.constants[:3])
            slope = (h * logits.softmax(-1) + s / tau * (logits / tau).softmax(-1)) / logits.shape[-2]
            gradient = total[..., None, None] * _with_derivative(gradient, slope)
        elif total.device.type != "cpu" or not bool((total == 1).all()):
            gradient.mul_(total[..., None, None])
        return gradient, None, None, None, None, None


def _smoothed(
    logits: Tensor,
    labels: Tensor,
    hard_weight: float | Tensor,
    soft_weight: float | Tensor,
    tau: float | Tensor,
    share: float | Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient `[..., B, K]`, weighted hard and soft part `[...]`.

    On a processor the rows are taken in pieces that stay in its cache, so that no temporary has the logits' size.
    """
    (batch, classes), shape = logits.shape[-2:], labels.shape

    def of_rows(constant: float | Tensor) -> Tensor:
        return torch.as_tensor(constant, dtype=torch.float64).to(logits).expand(shape).reshape(-1, 1)

    excess, pull = _excess(share, classes), soft_weight / tau
    fast = bool((tau <= 8).all()) if isinstance(tau, Tensor) else tau <= 8
    constants = [hard_weight / batch, pull / batch / classes, 1 / tau, excess]
    if isinstance(tau, Tensor):
        constants = [of_rows(constant) for constant in constants]
        hard_weight, soft_weight, tau, excess = (c.to(logits) for c in (hard_weight, soft_weight, tau, excess))
    rows, index = logits.reshape(-1, classes), labels.reshape(-1, 1)
    on_label = of_rows(-(hard_weight + pull * excess) / batch)
    gradient = torch.empty_like(rows)
    size = max(1, _PIECE // classes) if logits.device.type == "cpu" else len(rows)
    scratch = torch.empty_like(rows[:size])
    parts = []
    for start in range(0, len(rows), size):
        piece = slice(start, start + size)
        tensors = (rows[piece], gradient[piece], scratch, index[piece], on_label[piece])
        own = [c[piece] if isinstance(c, Tensor) else c for c in constants]
        parts.append(_smoothed_rows(*tensors, *own, fast=fast))
    right, divergence, lead = (torch.cat(part).view(shape) for part in zip(*parts, strict=True))
    constant = _divergence_from_uniform(share, classes)
    constant = constant.to(logits) if isinstance(constant, Tensor) else constant
    hard = _times(hard_weight, math.log(classes) - right).mean(-1)
    soft = _times(soft_weight, divergence - excess * lead + constant).mean(-1)
    return gradient.view(logits.shape), hard, soft


_PIECE = 2**18  # elements: one megabyte


def _smoothed_rows(
    logits: Tensor,
    p: Tensor,
    scratch: Tensor,
    index: Tensor,
    on_label: Tensor,
    h: float | Tensor,
    k: float | Tensor,
    rate: float | Tensor,
    e: float | Tensor,
    *,
    fast: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """For R rows: $\\ln(p_y/u)$, $D_{KL}(u\\|p_\\tau)$, and what $z_y/\\tau$ has beyond the mean class, each `[R, 1]`.

    `p` becomes the gradient $h\\,(p - e_y) + \\frac{s}{\\tau}(p_\\tau - q)$; `rate` is 1/τ, `k` is s/(τK), `e` the
    teacher's excess on the right class, `on_label` what that class gets beside.
    """
    odds = torch.sub(logits, logits.amax(-1, keepdim=True), out=scratch[: len(logits)])
    total = torch.exp(odds, out=p).sum(-1, keepdim=True)
    log_total = (total / logits.shape[-1]).log_()
    right = odds.gather(-1, index) - log_total
    shift = log_total * (rate <= 1)  # to ln(p/u), small where p is near uniform; below τ = 1 it would outgrow e^x
    odds -= shift
    odds *= rate
    mean_log = odds.mean(-1, keepdim=True)
    lead = odds.gather(-1, index) - mean_log
    flat = None if fast else _flat_divergence(odds, mean_log, -shift * rate)
    # Up to τ = 8 the logarithms are large enough for e^x to keep the digits of e^x - 1, at a third of expm1's time.
    odds = odds.exp_() if fast else odds.expm1_()
    mean = odds.mean(-1, keepdim=True)
    whole = mean if fast else 1 + mean
    odds -= mean - e * whole
    p.mul_(h / total).addcmul_(odds, k / whole).scatter_add_(-1, index, on_label)
    divergence = (mean.log() if fast else mean.log1p()) - mean_log
    return right, divergence if flat is None else torch.where(flat.isnan(), divergence, flat), lead


def _flat_divergence(odds: Tensor, mean: Tensor, top: Tensor) -> Tensor | None:
    """The divergence from uniform `[R, 1]` of rows so flat that $\\ln E[e^d] - E[d]$ would cancel.

    NaN for other rows; None where a processor sees no flat one.
    """
    flat = top - odds.amin(-1, keepdim=True) < _SMALL
    if flat.device.type == "cpu" and not bool(flat.any()):
        return None
    return torch.where(flat, _small_rest(odds - mean).mean(-1, keepdim=True).log1p(), math.nan)


class _Divergence(torch.autograd.Function):
    """$D_{KL}(q\\|p)$ from scores, as $\\ln \\mathbb E_q[e^d]$ with $d = \\ln(p/q)$ up to a constant, centred under q.

    Every term of $\\mathbb E_q[e^d - 1 - d]$ is positive, so nothing cancels, and $p - q = q\\,(e^{\\ln(p/q)} - 1)$.
    Where $e^d$ would overflow, the textbook's form has all its digits.
    """

    @staticmethod
    def forward(ctx, logits, scores, tau, teacher_tau):  # noqa: ANN001, ANN205
        teacher = ((scores - scores.amax(-1, keepdim=True)) / teacher_tau).clamp_min(-_FLOOR)
        # log_softmax adds one by one, which a large term among 10,000 small ones makes inexact; sum adds in pairs
        log_q = teacher - teacher.exp().sum(-1, keepdim=True).log()
        q = log_q.exp()
        student = (logits - logits.amax(-1, keepdim=True)) / tau
        absent = scores == -math.inf
        student = torch.where(absent, student.clamp_min(-1e15), student)  # no −∞ − (−∞) where neither has the class
        d = student - teacher
        d -= (q * d).sum(-1, keepdim=True)
        near = torch.log1p((q * _exp_rest(d.clamp_max(_FLOOR))).sum(-1, keepdim=True))
        close, sure = d.amax(-1, keepdim=True) < _FLOOR, log_softmax(student, -1) - log_q
        divergence = torch.where(close, near, -(q * sure).sum(-1, keepdim=True))
        ratio = torch.where(close, d - divergence, sure)
        difference = torch.where(ratio < 1, q * torch.expm1(ratio.clamp_max(1)), (log_q + ratio).exp() - q)
        ctx.save_for_backward(difference / tau, logits, tau)
        return divergence[..., 0]

    @staticmethod
    def backward(ctx, rows):  # noqa: ANN001, ANN205
        gradient, logits, tau = ctx.saved_tensors
        if torch.is_grad_enabled():  # another derivative is to follow
            gradient = _with_derivative(gradient, (logits / tau).softmax(-1) / tau)
        return rows[..., None] * gradient, None, None, None


_FLOOR = 85.0  # e^85 is the largest that float32 holds with room; a probability below e^-85 is none
_SMALL = 0.1


def _with_derivative(gradient: Tensor, slope: Tensor) -> Tensor:
    """The gradient, exact, with the derivative of a `slope` that has fewer digits and may differ by a constant."""
    return gradient + (slope - slope.detach())


def _exp_rest(d: Tensor) -> Tensor:
    """$e^d - 1 - d$, exact to rounding also for small $d$."""
    return torch.where(d.abs() < _SMALL, _small_rest(d), torch.expm1(d) - d)


def _small_rest(d: Tensor) -> Tensor:
    """$e^d - 1 - d$ where $|d| < 0.1$, by as many terms of its series as the precision has digits for."""
    terms = 11 if d.dtype == torch.float64 else 6
    rest, part = 1 + d / terms, torch.empty_like(d)
    for n in range(terms - 1, 2, -1):
        rest.mul_(torch.div(d, n, out=part)).add_(1)
    return rest.mul_(torch.mul(d, d, out=part).div_(2))


def _times(weight: float | Tensor, rows: Tensor) -> Tensor:
    """What a weight of 0 multiplies does not count, infinite or not."""
    if isinstance(weight, Tensor):
        return torch.where(weight == 0, 0.0, weight * rows)
    return weight * rows if weight else torch.zeros_like(rows)


def _require_temperature(name: str, value: float | Tensor) -> None:
    for bound in value.aminmax() if isinstance(value, Tensor) else [value]:
        require_temperature(name, plain(bound))


def _at_least_single(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _excess(share: float | Tensor, classes: int) -> float | Tensor:
    """What the right class has beyond the uniform teacher: $q = (1 - \\text{excess})\\,u + \\text{excess}\\,e_y$."""
    return (classes * share - 1) / (classes - 1)


def _per_row(value: float | Tensor, logits: Tensor) -> Tensor:
    """A number, or one a run, as float64 that broadcasts against `[..., B]`."""
    value = torch.as_tensor(value, dtype=torch.float64)
    return value[..., None] if value.ndim else value.reshape((1,) * (logits.ndim - 1))


def _divergence_from_uniform(share: float | Tensor, classes: int) -> float | Tensor:
    """$D_{KL}(q\\|u)$ of the hand-made teacher."""
    xlog1py = torch.special.xlog1py if isinstance(share, Tensor) else special.xlog1py
    excess = _excess(share, classes)
    return xlog1py(share, (classes - 1) * excess) + xlog1py(1 - share, -excess)
