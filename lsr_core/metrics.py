"""What is measured on a network's outputs.

Logits are `[..., N, K]`, features `[..., N, D]`, labels int64 `[N]` or `[..., N]`; the result has the leading axes, one
value a run. Entropies and divergences are in nats.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot

from ._errors import require, require_count, require_positive

Reading = Literal["vector_variance", "std_true_class"]

_LOG_RANGE = math.log(100)  # temperatures are searched from 1/100 to 100
_HALVINGS = 20  # to 1e-5 of the temperature


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of examples whose label has the largest logit, from 0 to 1; equal logits answer nothing."""
    by_class = logits.mT.contiguous()  # with the classes in front, torch is several times faster for few classes
    largest = by_class.amax(-2)
    right = (_of_label(by_class, labels) == largest) & (largest > by_class.amin(-2))
    return right.sum(-1).double() / right.shape[-1]


def nll(logits: Tensor, labels: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """Negative log-likelihood of the labels in nats, averaged over examples, after division by `temperature`."""
    by_class = _scaled(logits, temperature).mT.contiguous()
    return (by_class.logsumexp(-2) - _of_label(by_class, labels)).mean(-1, dtype=torch.float64)


def brier(logits: Tensor, labels: Tensor) -> Tensor:
    """Brier score, the mean squared distance of the distribution from the label, from 0 to 2 (Brier 1950)."""
    p = _distribution(logits)
    return (p - one_hot(labels, p.shape[-1])).square().sum(-1).mean(-1)


def ece(
    logits: Tensor, labels: Tensor, bins: int = 15, spacing: Literal["equal-width", "equal-mass"] = "equal-width"
) -> Tensor:
    """Expected calibration error, from 0 to 1, with bins of equal width (Guo 2017 Eq. 3) or equally many examples.

    Müller 2019 has 15 bins of equal width, Zhang & Sabuncu 2020 have 20. Raises `InputError` for another spacing.
    """
    require_count("bins", bins)
    require(spacing in ("equal-width", "equal-mass"), f"spacing is {spacing!r}; there are 'equal-width', 'equal-mass'")
    by_class = logits.mT.contiguous()
    largest, predicted = by_class.max(-2)
    confidence = 1 / (by_class - largest[..., None, :]).exp().sum(-2)
    gap = confidence.double() - (predicted == labels).double()
    if spacing == "equal-width":
        index = (confidence * bins).ceil().long().clamp(1, bins) - 1
    else:
        index = confidence.argsort(-1).argsort(-1) * bins // gap.shape[-1]
    total = torch.zeros((*gap.shape[:-1], bins), dtype=gap.dtype, device=gap.device).scatter_add_(-1, index, gap)
    return total.abs().sum(-1) / gap.shape[-1]


def aurc(logits: Tensor, labels: Tensor) -> Tensor:
    """Area under the risk-coverage curve, from 0 to 1: the error among the most confident, over all coverages.

    The mean over n of the error rate among the n most confident examples (Geifman 2019; PS-KD prints it × 1000).
    """
    confidence, predicted = logits.softmax(-1).max(-1)
    order = confidence.argsort(dim=-1, descending=True, stable=True)
    wrong = (predicted != labels).double().gather(-1, order)
    covered = torch.arange(1, wrong.shape[-1] + 1, device=wrong.device)
    return (wrong.cumsum(-1) / covered).mean(-1)


def best_temperature(logits: Tensor, targets: Tensor) -> Tensor:
    """The temperature in [1/100, 100] that minimises the cross-entropy with probabilities `[N, K]` (Guo 2017)."""
    by_class = logits.mT.contiguous()
    below = by_class - by_class.amax(-2, keepdim=True)
    wanted = (below * targets.mT).sum((-1, -2), dtype=torch.float64)

    def too_sharp(softened: Tensor) -> Tensor:  # the sign of the slope, which rises with 1/T
        odds = softened.exp()
        return ((odds * below).sum(-2) / odds.sum(-2)).sum(-1, dtype=torch.float64) > wanted

    return _halved(below, wanted, too_sharp)


def temperature_of_confidence(logits: Tensor, confidence: Tensor | float) -> Tensor:
    """The temperature in [1/100, 100] at which the mean largest probability is `confidence`, one value a run."""
    by_class = logits.mT.contiguous()
    below = by_class - by_class.amax(-2, keepdim=True)
    wanted = torch.as_tensor(confidence, dtype=torch.float64, device=logits.device).expand(logits.shape[:-2])
    return _halved(below, wanted, lambda softened: (1 / softened.exp().sum(-2)).double().mean(-1) > wanted)


def kl_to_posterior(posterior: Tensor, logits: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """$D_{KL}$ from the true posterior `[N, K]`, or from votes `[N, K]` in any number, to the network; a mean."""
    by_class = _scaled(logits, temperature).mT.contiguous()
    return _kl_by_class(posterior.to(by_class).mT.contiguous(), by_class, by_class.logsumexp(-2))


def kl_of_dark_part(posterior: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """The same on the wrong classes alone, both sides renormalised: what is known beyond the label."""
    by_class = logits.mT.contiguous()
    label = labels.expand(logits.shape[:-1])[..., None, :]
    wrong = by_class.scatter(-2, label, -math.inf).logsumexp(-2)
    truth = posterior.to(by_class).scatter(-1, labels[..., None], 0).mT.contiguous()
    return _kl_by_class(truth, by_class, wrong)


def predictive_uncertainty(logits: Tensor) -> Tensor:
    """The mean entropy of the predicted distributions (Zhang & Sabuncu 2020)."""
    log_p = log_softmax(logits.double(), -1)
    return -(log_p.exp() * log_p).sum(-1).mean(-1)


def confidence_variance(logits: Tensor, labels: Tensor) -> Tensor:
    """The variance over examples of the probability of the label (Zhang & Sabuncu 2020, author feedback)."""
    return _of_true_class(logits, labels).var(-1, correction=0)


def confidence_diversity(logits: Tensor, labels: Tensor, neighbours: int = 3) -> Tensor:
    """The differential entropy of the density of the probability of the label (Zhang & Sabuncu 2020, recalled).

    Estimated from the distance to the k-th of `neighbours`, $\\psi(N) - \\psi(k) + \\ln 2 + \\overline{\\ln\\rho_k}$
    (Kozachenko & Leonenko 1987); distances below 1e-12 count as that. Raises `InputError` unless 0 < k < N.
    """
    return differential_entropy(_of_true_class(logits, labels), neighbours)


def differential_entropy(values: Tensor, neighbours: int = 3) -> Tensor:
    """Of the density of `values` `[..., N]` in nats, from the distance to each one's k-th neighbour on the line."""
    values = values.sort(-1).values
    count, k = values.shape[-1], neighbours
    require_count("neighbours", k)
    require(k < count, f"neighbours is {k}; with {count} examples it must be below {count}")
    edge = torch.full((*values.shape[:-1], k), math.inf, dtype=values.dtype, device=values.device)
    padded = torch.cat([-edge, values, edge], -1)
    windows = padded.unfold(-1, k + 1, 1)  # k + 1 neighbours in order; every example is in k + 1 of them
    spans = [
        torch.maximum(values - windows[..., j : j + count, 0], windows[..., j : j + count, -1] - values)
        for j in range(k + 1)
    ]
    nearest = torch.stack(spans).amin(0).clamp_min(1e-12)
    digamma = torch.special.digamma(torch.tensor([count, k], dtype=values.dtype))
    return digamma[0] - digamma[1] + math.log(2) + nearest.log().mean(-1)


def equivalent_smoothing(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """The ε of label smoothing that takes as much from the label: $\\frac{K}{K-1}$ times the mean of $1-p_y(T)$.

    Called γ in Müller 2019. Raises `InputError` for a temperature that is not above 0.
    """
    require_positive("temperature", temperature)
    classes = logits.shape[-1]
    return (1 - _of_true_class(logits / temperature, labels)).mean(-1) * classes / (classes - 1)


def erased_information(
    logits: Tensor,
    labels: Tensor,
    reading: Reading,
    superclasses: Tensor | None = None,
    confidence: Tensor | float | None = None,
) -> Tensor:
    """Shen 2021's $1 - \\mathcal S$ (Eq. 2): how far outputs spread within a class; the lower, the more was erased.

    What label smoothing erased is the difference between a smoothed and a plain network. `"vector_variance"` is Eq. 2
    as printed, the variance of the distribution; `"std_true_class"`, the standard deviation of the label's probability,
    is the only reading whose size fits Table 1. The mean over classes, or over the classes of each superclass, as
    `superclasses` `[K]` numbers them: `[..., G]`. With a `confidence`, the plain network's mean largest probability,
    the logits are first softened by one temperature to have it too: what is erased beyond shrinkage.
    """
    known = ("vector_variance", "std_true_class")
    require(reading in known, f"unknown reading {reading!r}; there are {known[0]!r} and {known[1]!r}")
    classes = logits.shape[-1]
    if confidence is not None:
        logits = _scaled(logits, temperature_of_confidence(logits, confidence))
    values = _distribution(logits) if reading == known[0] else _of_true_class(logits, labels)[..., None]
    by_class = variance_within_classes(values, labels, classes)
    by_class = by_class if reading == known[0] else by_class.sqrt()
    if superclasses is None:
        return by_class.mean(-1)
    return class_means(by_class[..., None], superclasses, int(superclasses.max()) + 1)[..., 0]


def variance_within_classes(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The mean squared distance `[..., K]` of values `[..., N, D]` from the mean of their class.

    Raises `InputError` for a class without an example.
    """
    own = labels.expand(values.shape[:-1])[..., None].expand(values.shape)
    distances = (values - class_means(values, labels, classes).gather(-2, own)).square().sum(-1, keepdim=True)
    return class_means(distances, labels, classes)[..., 0]


def class_means(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The mean over each class `[..., K, D]` of values `[..., N, D]`: what is known of a class, not of an image.

    Raises `InputError` for a class without an example.
    """
    member = one_hot(labels, classes).to(values)
    counts = member.sum(-2)
    missing = (counts == 0).reshape(-1, classes).any(0).nonzero()[:1, 0].tolist()
    require(not missing, f"no example of class {', '.join(map(str, missing))}; class means need one of each")
    return member.mT @ values / counts[..., None]


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
    """Penultimate features `[N, D]` on the plane through three classes' `templates` `[3, D]`: `[N, 2]` (Müller 2019).

    Coordinates are in the orthonormal basis that QR makes of the two differences from the first template, the origin.
    """
    require(templates.shape[-2] == 3, f"templates are {templates.shape[-2]}; a plane needs those of 3 classes")
    basis, size = torch.linalg.qr((templates[1:] - templates[0]).mT)
    return (features - templates[0]) @ (basis * size.diagonal().sign())


def _kl_by_class(truth: Tensor, by_class: Tensor, log_total: Tensor) -> Tensor:
    """The mean KL from `truth` `[..., K, N]`, in any scale, to the network with these logits and their log-sum-exp."""
    truth = truth / truth.sum(-2, keepdim=True).clamp_min(1e-30)
    entropy = torch.special.xlogy(truth, truth).sum(-2)
    return (entropy - (truth * by_class).sum(-2) + log_total).mean(-1, dtype=torch.float64)


def _of_label(by_class: Tensor, labels: Tensor) -> Tensor:
    """The entries `[..., N]` of the labels among `[..., K, N]`."""
    index = labels.expand(*by_class.shape[:-2], by_class.shape[-1])
    return by_class.gather(-2, index[..., None, :])[..., 0, :]


def _scaled(logits: Tensor, temperature: Tensor | float) -> Tensor:
    if isinstance(temperature, float) and temperature == 1:
        return logits
    return logits / torch.as_tensor(temperature, dtype=logits.dtype)[..., None, None]


def _halved(by_class: Tensor, like: Tensor, too_sharp: Callable[[Tensor], Tensor]) -> Tensor:
    """The temperature at which logits `[..., K, N]` stop being too sharp, by halving the interval of log T."""
    low = torch.full_like(like, -_LOG_RANGE)
    high = -low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        sharp = too_sharp(by_class * torch.exp(-middle)[..., None, None].to(by_class.dtype))
        low, high = torch.where(sharp, middle, low), torch.where(sharp, high, middle)
    return torch.exp((low + high) / 2)


def _distribution(logits: Tensor) -> Tensor:
    return logits.double().softmax(-1)


def _of_true_class(logits: Tensor, labels: Tensor) -> Tensor:
    """The probability of the label `[..., N]`, in float64."""
    return _distribution(logits).gather(-1, labels.expand(logits.shape[:-1])[..., None])[..., 0]
