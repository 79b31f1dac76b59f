"""What is measured on a network's outputs.

Logits are `[..., N, K]`, features `[..., N, D]`, labels int64 `[N]` or `[..., N]`; the result has the leading axes, one
value a run. Entropies and divergences are in nats. Inputs of less than single precision are measured in single.

The prediction is the class with the largest logit, the first of equal ones. An example with a NaN counts as wrong and
makes every other metric nan. A logit of −∞ is a probability of 0. A metric over classes is nan if one has no example.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ._kernels import at_least_single
from .errors import InputError, require, require_count, require_positive

_LOG_RANGE = math.log(100)  # temperatures are searched from 1/100 to 100
_BISECTIONS = 20  # to 1e-5 of the temperature


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of examples whose label is predicted, from 0 to 1; raises `InputError` for a label that is no class."""
    right = _right(logits, labels)
    return right.sum(-1).double() / right.shape[-1]


def nll(logits: Tensor, labels: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """Negative log-likelihood of the labels in nats, averaged over examples, after division by `temperature`."""
    by_class, labels = _by_class(logits, temperature), _fitting(logits, labels)
    of_label = by_class.gather(-2, labels.expand(*by_class.shape[:-2], by_class.shape[-1])[..., None, :])[..., 0, :]
    return (by_class.logsumexp(-2) - of_label).mean(-1, dtype=torch.float64)


def soft_nll(logits: Tensor, teacher_logits: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """Cross-entropy $H(q_τ, p_τ)$ in nats of outputs against a teacher's, both `[..., N, K]` (Shen 2021 Eq. 3, 4)."""
    q, p = (scores.double() / _one_a_run(temperature, scores.double()) for scores in (teacher_logits, logits))
    return -_weighted(q.softmax(-1), p.log_softmax(-1)).sum(-1).mean(-1)


def ece(logits: Tensor, labels: Tensor, bins: int = 15) -> Tensor:
    """Expected calibration error, from 0 to 1, with bins of equal width (Guo 2017 Eq. 3).

    Müller 2019 has 15 bins, Zhang & Sabuncu 2020 have 20. Raises `InputError` for a label that is no class.
    """
    require_count("bins", bins)
    right = _right(logits, labels)
    confidence = 1 / _below_largest(logits).exp().sum(-2)
    gap = confidence.double() - right.double()
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1
    total = gap.new_zeros((*gap.shape[:-1], bins)).scatter_add_(-1, index, gap)
    return total.abs().sum(-1) / gap.shape[-1]


def best_temperature(logits: Tensor, targets: Tensor) -> Tensor:
    """The temperature in [1/100, 100] that minimises the cross-entropy with labels `[..., N]` (Guo 2017).

    Or with distributions `[..., N, K]`, whose rows sum to 1. nan where it is infinite at every temperature.
    """
    has_axis = targets.shape[-2:] == logits.shape[-2:] and targets.shape != logits.shape[:-1]
    if not (has_axis or (isinstance(targets, Tensor) and targets.is_floating_point())):
        targets = one_hot(_fitting(logits, targets), logits.shape[-1])
    below = _below_largest(logits)
    wanted = _weighted(targets.mT, below).sum((-1, -2), dtype=torch.float64)
    below = below.clamp_min(torch.finfo(below.dtype).min)  # −∞ has zero odds: 0 · ∞ is to be 0

    def too_sharp(softened: Tensor) -> Tensor:  # the sign of the slope, which rises with 1/T
        odds = softened.exp()
        return ((odds * below).sum(-2) / odds.sum(-2)).sum(-1, dtype=torch.float64) > wanted

    return _bisect(below, wanted, too_sharp)


def temperature_of_confidence(logits: Tensor, confidence: Tensor | float) -> Tensor:
    """The temperature in [1/100, 100] at which the mean largest probability is `confidence`, one value a run."""
    below = _below_largest(logits)
    wanted = torch.as_tensor(confidence, dtype=torch.float64, device=logits.device).expand(logits.shape[:-2])
    return _bisect(below, wanted, lambda softened: (1 / softened.exp().sum(-2)).double().mean(-1) > wanted)


def kl_to_posterior(posterior: Tensor, logits: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """$D_{KL}$ from the true posterior `[N, K]`, or from votes `[N, K]` in any number, to the network.

    A mean over the examples that have a vote; nan without any.
    """
    by_class = _by_class(logits, temperature)
    return _mean_kl(posterior, by_class, by_class.logsumexp(-2))


def kl_of_wrong_classes(posterior: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """`kl_to_posterior` on the wrong classes alone, both sides renormalised: what is known beyond the label.

    A mean over the examples whose posterior is not zero on all of them; nan without any.
    """
    by_class, label = _by_class(logits), one_hot(labels, logits.shape[-1]).bool()
    wrong = by_class.masked_fill(label.mT, -math.inf).logsumexp(-2)
    return _mean_kl(torch.where(label, 0, posterior), by_class, wrong)


def predictive_uncertainty(logits: Tensor) -> Tensor:
    """The mean entropy of the predicted distributions (Zhang & Sabuncu 2020)."""
    return torch.special.entr(logits.double().softmax(-1)).sum(-1).mean(-1)


def confidence_variance(logits: Tensor, labels: Tensor) -> Tensor:
    """The variance over examples of the probability of the label (Zhang & Sabuncu 2020, author feedback)."""
    return _of_label(logits, labels).var(-1, correction=0)


def confidence_diversity(logits: Tensor, labels: Tensor, neighbours: int = 3) -> Tensor:
    """The differential entropy of the density of the probability of the label (Zhang & Sabuncu 2020, recalled).

    Estimated from the distance to the k-th of `neighbours`, $\\psi(N) - \\psi(k) + \\ln 2 + \\overline{\\ln\\rho_k}$
    (Kozachenko & Leonenko 1987); distances below 1e-12 count as that. Raises `InputError` unless 0 < k < N.
    """
    values = _of_label(logits, labels).sort(-1).values
    count, k = values.shape[-1], neighbours
    require_count("neighbours", k)
    require(k < count, f"neighbours is {k}; with {count} examples it must be below {count}")
    edge = values.new_full((*values.shape[:-1], k), math.inf)
    windows = torch.cat([-edge, values, edge], -1).unfold(-1, k + 1, 1)  # each value is in k + 1 of them
    spans = [
        torch.maximum(values - windows[..., j : j + count, 0], windows[..., j : j + count, -1] - values)
        for j in range(k + 1)
    ]
    nearest = torch.stack(spans).amin(0).clamp_min(1e-12)
    digamma = torch.special.digamma(torch.tensor([count, k], dtype=values.dtype))
    return digamma[0] - digamma[1] + math.log(2) + nearest.log().mean(-1)


def equivalent_smoothing(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """The ε of the label smoothing that leaves as much to the label: $\\frac{K}{K-1}$ times the mean of $1-p_y(T)$.

    Called γ in Müller 2019. Raises `InputError` for a temperature that is not above 0.
    """
    require_positive("temperature", temperature)
    classes = logits.shape[-1]
    return (1 - _of_label(logits.double() / temperature, labels)).mean(-1) * classes / (classes - 1)


def erased_information(logits: Tensor, labels: Tensor, reading: Literal["vector_variance", "std_true_class"]) -> Tensor:
    """Shen 2021's $1 - \\mathcal S$ (Eq. 2): how far outputs spread within a class; the lower, the more is erased.

    What label smoothing erases is the difference between a smoothed and a plain network. `"vector_variance"` is Eq. 2
    as printed, the variance of the distribution; `"std_true_class"`, the standard deviation of the label's probability,
    is the only reading whose size fits Table 1. Variances are divided by n, and all classes count alike; nan if one has
    no example. What is erased beyond shrinkage shows where both networks' logits are
    first divided by their `temperature_of_confidence`.
    """
    known = ("vector_variance", "std_true_class")
    require(reading in known, f"unknown reading {reading!r}; there are {known[0]!r} and {known[1]!r}")
    if reading == "vector_variance":
        labels = _fitting(logits, labels)
        return variance_within_classes(logits.double().softmax(-1), labels, logits.shape[-1]).mean(-1)
    return variance_within_classes(_of_label(logits, labels)[..., None], labels, logits.shape[-1]).sqrt().mean(-1)


def variance_within_classes(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The mean squared distance `[..., K]` of values `[..., N, D]` from the mean of their class; nan if it is empty."""
    own = labels.expand(values.shape[:-1])[..., None].expand(values.shape)
    distances = (values - class_means(values, labels, classes).gather(-2, own)).square().sum(-1, keepdim=True)
    return class_means(distances, labels, classes)[..., 0]


def class_means(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The mean over each class `[..., K, D]` of values `[..., N, D]`; nan for a class without an example."""
    values = at_least_single(values)
    member = one_hot(labels, classes).to(values)
    return member.mT @ values / member.sum(-2)[..., None]


def cluster_distances(features: Tensor, labels: Tensor, superclasses: Tensor) -> tuple[Tensor, Tensor]:
    """Mean distance between the centres of classes of one superclass, and of different ones (Shen 2021 §3).

    `superclasses` `[K]` names each class's group.
    """
    centres = class_means(features.double(), labels, len(superclasses))
    distances = torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist")
    same = superclasses == superclasses[:, None]
    other = ~torch.eye(len(superclasses), dtype=torch.bool, device=same.device)
    return distances[..., same & other].mean(-1), distances[..., ~same].mean(-1)


def mutual_information(differences: Tensor) -> Tensor:
    """Müller 2019's estimate of the information between an example and its logit difference; at most ln N.

    `differences` `[..., N, L]` are of N examples in L augmentations; the difference given the example is Gaussian with
    its mean over augmentations and one common variance.
    """
    mean = differences.double().mean(-1)
    variance = (differences - mean[..., None]).square().mean((-1, -2)).clamp_min(1e-24)[..., None, None, None]
    offsets = (differences[..., None] - mean[..., None, None, :]).square() / (2 * variance)  # [..., N, L, N]
    own = offsets.diagonal(dim1=-3, dim2=-1).mT
    return (math.log(mean.shape[-1]) - own - (-offsets).logsumexp(-1)).mean((-1, -2))


def class_plane(features: Tensor, templates: Tensor) -> Tensor:
    """Project features `[N, D]` on the plane through the `templates` `[3, D]` of three classes: `[N, 2]` (Müller 2019).

    Coordinates are in the orthonormal basis that QR gives for the two differences from the first template, the origin.
    """
    require(templates.shape[-2] == 3, f"templates are {templates.shape[-2]}; a plane needs those of 3 classes")
    features, templates = at_least_single(features), at_least_single(templates)
    basis, size = torch.linalg.qr((templates[1:] - templates[0]).mT)
    return (features - templates[0]) @ (basis * size.diagonal().sign())


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the first of the largest logits is the label's `[..., N]`."""
    classes, labels = logits.shape[-1], _fitting(logits, labels)
    bad = labels[(labels < 0) | (labels >= classes)].tolist()
    if bad:
        raise InputError(f"a label is {bad[0]}; with {classes} classes it must be from 0 to {classes - 1}")
    largest, predicted = logits.max(-1)
    return (predicted == labels) & ~largest.isnan()


def _fitting(logits: Tensor, labels: Tensor) -> Tensor:
    """The labels of logits `[..., N, K]`, int64; raises `InputError` for another shape or type."""
    is_whole = isinstance(labels, Tensor) and not (labels.is_floating_point() or labels.dtype == torch.bool)
    require(is_whole, f"labels are {getattr(labels, 'dtype', type(labels).__name__)}; give a tensor of whole numbers")
    rows, shape = list(logits.shape[:-1]), list(labels.shape)
    fits = bool(shape) and shape[-1] == rows[-1] and shape == rows[len(rows) - len(shape) :]
    require(fits, f"labels have shape {shape}; with logits {list(logits.shape)} they must be {rows}, or {rows[-1:]}")
    return labels.long()


def _mean_kl(truth: Tensor, by_class: Tensor, log_total: Tensor) -> Tensor:
    """The mean KL from `truth` `[..., N, K]`, in any scale, to the network with these logits and their log-sum-exp."""
    whole = truth.double().sum(-1, keepdim=True)
    truth = (truth / whole).to(by_class).mT.contiguous()
    known = whole[..., 0] > 0
    kl = torch.special.xlogy(truth, truth).sum(-2) - _weighted(truth, by_class).sum(-2) + log_total
    return kl.where(known, 0).sum(-1, dtype=torch.float64) / known.sum(-1)


def _weighted(weights: Tensor, values: Tensor) -> Tensor:
    """Their product; 0 where the weight is 0, even if the value is −∞."""
    return (weights * values).where(weights != 0, 0)


def _by_class(logits: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """Logits over a temperature, `[..., K, N]`: with few classes torch is several times faster in this layout."""
    logits = at_least_single(logits)
    return (logits / _one_a_run(temperature, logits)).mT.contiguous()


def _one_a_run(temperature: Tensor | float, like: Tensor) -> Tensor:
    """Temperatures `[...]`, one a run or one for all, to divide logits `[..., N, K]` by."""
    return torch.as_tensor(temperature, dtype=like.dtype, device=like.device)[..., None, None]


def _below_largest(logits: Tensor) -> Tensor:
    """How far each logit `[..., K, N]` is from the largest of its example, 0 or below."""
    by_class = _by_class(logits)
    return by_class - by_class.amax(-2, keepdim=True)


def _bisect(by_class: Tensor, target: Tensor, too_sharp: Callable[[Tensor], Tensor]) -> Tensor:
    """The temperature at which logits `[..., K, N]` stop being too sharp, by bisection of log T.

    nan if a logit is nan or the `target` is not finite.
    """
    low = torch.full_like(target, -_LOG_RANGE)
    high = -low
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        sharp = too_sharp(by_class * torch.exp(-middle)[..., None, None].to(by_class.dtype))
        low, high = torch.where(sharp, middle, low), torch.where(sharp, high, middle)
    known = target.isfinite() & ~by_class.isnan().flatten(-2).any(-1)
    return torch.exp((low + high) / 2).where(known, math.nan)


def _of_label(logits: Tensor, labels: Tensor) -> Tensor:
    """The probability of the label `[..., N]`, in float64."""
    labels = _fitting(logits, labels)
    return logits.double().softmax(-1).gather(-1, labels.expand(logits.shape[:-1])[..., None])[..., 0]
