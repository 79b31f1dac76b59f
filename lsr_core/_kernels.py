"""The numerical kernels of `losses`: closed forms of values and gradients that keep their digits.

Shapes are those of `losses`; R rows are all examples of all runs.
"""

import math
from collections.abc import Sequence

import torch
from scipy.special import xlog1py
from torch import Tensor
from torch.nn.functional import log_softmax


class SmoothingLoss(torch.autograd.Function):
    """Value and closed-form gradient of `smoothing_loss`.

    The gradient is computed with the value and handed out once; another backward pass computes it again.
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
        logits, labels = ctx.saved_tensors
        if gradient is None:
            with torch.no_grad():
                gradient, _, _ = _smoothed(logits, labels, *ctx.constants)
        if torch.is_grad_enabled():  # another derivative is to follow
            h, s, tau = logits.new_tensor(ctx.constants[:3])
            slope = (h * logits.softmax(-1) + s / tau * (logits / tau).softmax(-1)) / logits.shape[-2]
            gradient = total[..., None, None] * _with_derivative(gradient, slope)
        elif not may_look(total) or not bool((total == 1).all()):
            gradient.mul_(total[..., None, None])
        return gradient, None, None, None, None, None


_CHUNK = 2**18  # elements, one megabyte in single precision


def _smoothed(
    logits: Tensor, labels: Tensor, hard_weight: float, soft_weight: float, tau: float, share: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient `[..., B, K]`, weighted hard and soft part `[...]`.

    A CPU computes them in chunks of rows that stay in its cache, so that no temporary tensor has the logits' size.
    """
    (batch, classes), shape = logits.shape[-2:], labels.shape
    excess = (classes * share - 1) / (classes - 1)  # of the right class: q = (1 − excess) u + excess e_y
    soft_gradient_weight = soft_weight / tau
    on_label = logits.new_full((), -(hard_weight + soft_gradient_weight * excess) / batch)
    constants = hard_weight / batch, soft_gradient_weight / batch / classes, 1 / tau, excess
    rows, index = logits.reshape(-1, classes), labels.reshape(-1, 1)
    gradient = torch.empty_like(rows)
    size = max(1, _CHUNK // classes) if logits.device.type == "cpu" else len(rows)
    scratch = torch.empty_like(rows[:size])
    chunks = zip(rows.split(size), gradient.split(size), index.split(size), strict=True)
    parts = [_smoothed_rows(*chunk, scratch, on_label, constants) for chunk in chunks]
    right, divergence, lead = (torch.cat(part).view(shape) for part in zip(*parts, strict=True))
    from_uniform = xlog1py(share, (classes - 1) * excess) + xlog1py(1 - share, -excess)  # KL(q‖u)
    hard = times(hard_weight, math.log(classes) - right).mean(-1)
    soft = times(soft_weight, divergence - excess * lead + from_uniform).mean(-1)
    return gradient.view(logits.shape), hard, soft


def _smoothed_rows(
    logits: Tensor, p: Tensor, index: Tensor, scratch: Tensor, on_label: Tensor, constants: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor]:
    """For R rows: $\\ln(p_y/u)$, $D_{KL}(u\\|p_\\tau)$, and what $z_y/\\tau$ has beyond the mean class, each `[R, 1]`.

    `p` becomes the gradient $h\\,(p - e_y) + \\frac{s}{\\tau}(p_\\tau - q)$; `rate` is 1/τ, `k` is s/(τK), `e` the
    teacher's excess on the right class, `on_label` what is added to the gradient of that class.
    """
    h, k, rate, e = constants
    fast = rate >= 1 / 8  # up to τ = 8 the logarithms are large enough for e^x to keep the digits of e^x − 1
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
    odds = odds.exp_() if fast else odds.expm1_()  # which takes three times as long
    mean = odds.mean(-1, keepdim=True)
    whole = mean if fast else 1 + mean
    odds -= mean - e * whole
    p.mul_(h / total).addcmul_(odds, k / whole).scatter_add_(-1, index, on_label.expand(index.shape))
    divergence = (mean.log() if fast else mean.log1p()) - mean_log
    return right, divergence if flat is None else torch.where(flat.isnan(), divergence, flat), lead


def _flat_divergence(odds: Tensor, mean: Tensor, top: Tensor) -> Tensor | None:
    """The divergence from uniform `[R, 1]` of rows so flat that $\\ln E[e^d] - E[d]$ would cancel.

    NaN for other rows; None if a CPU finds no flat row.
    """
    flat = top - odds.amin(-1, keepdim=True) < _SMALL
    if may_look(flat) and not bool(flat.any()):
        return None
    return torch.where(flat, _small_rest(odds - mean).mean(-1, keepdim=True).log1p(), math.nan)


class Divergence(torch.autograd.Function):
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
        # A class that the teacher lacks counts as nothing, however far below the student has it: no −∞ − (−∞) either.
        absent = (scores == -math.inf) | ((teacher <= -_FLOOR) & (student > -math.inf))
        student = torch.where(absent, student.clamp_min(-1e15), student)
        d = student - teacher
        d -= (q * d).sum(-1, keepdim=True)
        finite = d.clamp_max(_FLOOR)
        rest = torch.where(d.abs() < _SMALL, _small_rest(finite), torch.expm1(finite) - finite)  # e^d - 1 - d
        near = torch.log1p((q * rest).sum(-1, keepdim=True))
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
    """The exact gradient, which is differentiated as `slope` is: it may have fewer digits and differ by a constant."""
    return gradient + (slope - slope.detach())


def _small_rest(d: Tensor) -> Tensor:
    """$e^d - 1 - d$ where $|d| < 0.1$, by as many terms of its series as the precision has digits for."""
    terms = 11 if d.dtype == torch.float64 else 6
    rest, part = 1 + d / terms, torch.empty_like(d)
    for n in range(terms - 1, 2, -1):
        rest.mul_(torch.div(d, n, out=part)).add_(1)
    return rest.mul_(torch.mul(d, d, out=part).div_(2))


def times(weight: float, rows: Tensor) -> Tensor:
    """The product; 0 where the weight is 0, even if a row is infinite."""
    return weight * rows if weight else rows.masked_fill(torch.ones_like(rows, dtype=torch.bool), 0)


def may_look(values: Tensor) -> bool:
    """Whether a step may read a number of these values: on a GPU it would wait for them."""
    return values.device.type == "cpu"


def at_least_single(values: Tensor) -> Tensor:
    """The values in single precision at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def in_double(values: Tensor) -> Tensor:
    """The values in double precision, where the device has it (Apple's GPUs do not)."""
    return values.float() if values.device.type == "mps" else values.double()
