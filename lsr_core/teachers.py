"""Teachers: where the soft label q of an example comes from.

A hand-made teacher is given by one number, its `share`: the probability of the right class; the rest is uniform. Any
other teacher is given by its *scores* `[..., B, K]`, the logarithms of its distribution up to a constant, as
`losses.divergence` takes them. Labels are int64 `[..., B]`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from ._kernels import at_least_single, in_double
from .errors import hold_plain, require, require_fraction, require_not_negative, require_number, require_positive
from .losses import corrected_share


class Teacher(Protocol):
    """A hand-made teacher, given by its probability of the right class; the rest is uniform."""

    def share(self, classes: int, temperature: float) -> float:
        """The probability of the right class among K `classes` when the student is softened by `temperature`."""


@dataclass(frozen=True)
class Uniform:
    """The uniform teacher of label smoothing, $q_k = 1/K$ (Szegedy 2016; Yuan 2020 Eq. 1)."""

    def share(self, classes: int, temperature: float) -> float:
        return 1 / classes


@dataclass(frozen=True)
class Share:
    """A constant share of the right class; 0 is uniform over the wrong ones, the ε/(K−1) form (Shen 2021 Eq. 1)."""

    constant: float

    def __post_init__(self) -> None:
        hold_plain(self)
        require_fraction("share", self.constant)

    def share(self, classes: int, temperature: float) -> float:
        return self.constant


@dataclass(frozen=True)
class CorrectedUniform(Share):
    """Teacher correction: a constant larger share $\\beta$ of the right class.

    $q_y = \\beta$ and $q_k = (1-\\beta)/(K-1)$ elsewhere (Wang 2020; reconstructed from the abstract). A share of
    1/K is the uniform teacher. Raises `InputError` for a share above 1, and on use for one below 1/K.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("share", self.constant)

    def share(self, classes: int, temperature: float) -> float:
        lowest = 1 / classes
        right = f"with {classes} classes it must be at least 1/{classes} = {lowest:.4g}"
        require(self.constant >= lowest * (1 - 1e-12), f"share is {self.constant!r}; {right}")
        return self.constant


@dataclass(frozen=True)
class TargetGap:
    """Teacher correction by the optimum's logit gap $G$, the same at every temperature.

    $\\beta = e^{G/\\tau} / (e^{G/\\tau} + K - 1)$. (With a constant share the gap grows with τ.) A gap of 0 is the
    uniform teacher. Raises `InputError` for a negative gap.
    """

    gap: float

    def __post_init__(self) -> None:
        hold_plain(self)
        require_not_negative("gap", self.gap)

    def share(self, classes: int, temperature: float) -> float:
        return corrected_share(self.gap, temperature, classes)


@dataclass(frozen=True)
class VirtualTeacher:
    """The virtual teacher of Tf-KD_reg: `correct` on the right class, softened (Yuan 2020 Eq. 8, 9).

    Eq. 9 has two readings. `"power"` softens the probabilities, $q \\propto (p^d)^{1/\\tau}$: the optimum's logit gap
    is $\\ln\\frac{a(K-1)}{1-a}$. `"logits"` passes them to a softmax as if they were logits, as the released code
    does: the gap is $a - \\frac{1-a}{K-1}$, below 1. Raises `InputError` unless `correct` lies between 0 and 1.
    """

    correct: float = 0.99
    reading: Literal["power", "logits"] = "power"

    def __post_init__(self) -> None:
        require(self.reading in ("power", "logits"), f"unknown reading {self.reading!r}; there are power, logits")
        hold_plain(self)
        require_number("correct", self.correct, float, lambda a: 0 < a < 1, "it must be a number between 0 and 1")

    def share(self, classes: int, temperature: float) -> float:
        wrong = (1 - self.correct) / (classes - 1)
        gap = math.log(self.correct / wrong) if self.reading == "power" else self.correct - wrong
        return corrected_share(gap, temperature, classes)


def probabilities(
    teacher: Teacher, labels: Tensor, classes: int, temperature: float = 1.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """A hand-made teacher's distribution `[..., B, K]`."""
    share = teacher.share(classes, temperature)
    q = torch.full((*labels.shape, classes), (1 - share) / (classes - 1), dtype=dtype, device=labels.device)
    return q.scatter(-1, labels[..., None], share)


def share_scores(shares: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Scores of hand-made teachers with another share for each example, `shares` `[..., B]`."""
    shares = at_least_single(shares)
    wrong = ((1 - shares) / (classes - 1)).log()[..., None].expand(*shares.shape, classes)
    return wrong.scatter(-1, labels[..., None], shares.log()[..., None])


def softened(logits: Tensor, temperature: float) -> Tensor:
    """Scores $v/\\tau$ of a teacher with these logits `[..., B, K]`, in float32 at least.

    Below τ = 1 they are shifted so that the largest is 0: the distribution stays, and the quotients keep their digits.
    """
    logits = at_least_single(logits)
    return (logits - logits.amax(-1, keepdim=True) if temperature < 1 else logits) / temperature


def mean_scores(logits: Tensor, temperature: float, labels: Tensor | None = None, share: float | None = None) -> Tensor:
    """Scores of the mean of n softened teachers, from their `logits` `[n, ..., B, K]`.

    The mean of the divergences from n teachers is the divergence from their mean, up to a constant. With a `share`,
    `replace_wrong` first replaces a teacher whose prediction is wrong.
    """
    classes = logits.shape[-1]
    log_q = log_softmax(in_double(logits) / temperature, -1)
    if share is not None:
        log_q = replace_wrong(log_q, labels, share)
    return log_q.logsumexp(0) + math.log(classes / len(logits))  # near zero, for the digits in single precision


def replace_wrong(scores: Tensor, labels: Tensor, share: float) -> Tensor:
    """Knowledge adjustment by label smoothing: replace a wrong teacher by a hand-made one with this `share`.

    `scores` are logarithms of probabilities (arXiv:1911.07471, as KD_Lib implements it).
    """
    hand_made = share_scores(torch.full_like(scores[..., 0], share), labels.expand(scores.shape[:-1]), scores.shape[-1])
    wrong = scores.argmax(-1, keepdim=True) != labels[..., None]
    return torch.where(wrong, hand_made, scores)


def shift_wrong(scores: Tensor, labels: Tensor) -> Tensor:
    """Knowledge adjustment by probability shift: exchange the scores of the predicted class and the label.

    The right class then has the largest score (arXiv:1911.07471; the correction of MrKD, Sensors 2021).
    """
    index = labels.expand(scores.shape[:-1])[..., None]
    top, predicted = scores.max(-1, keepdim=True)
    return scores.scatter(-1, predicted, scores.gather(-1, index)).scatter(-1, index, top)


def similarity_prior(similarity: Tensor, temperature: float = 1.0) -> Tensor:
    """Rows of a prior `[K, K]` from a matrix of class similarities: $\\mathrm{softmax}(S_y/T)$ (Camporese 2020)."""
    require_positive("temperature", temperature)
    require(similarity.ndim == 2 and similarity.shape[0] == similarity.shape[1], "similarity must be a square matrix")
    return softened(similarity, temperature).softmax(-1)


def zipf_scores(votes: Tensor) -> Tensor:
    """Scores of $\\tilde p_c \\propto 1/r_c$ with $r_c$ the rank of class c by `votes` `[..., K]` (Liang 2022).

    The largest vote has rank 1; equal votes share the best of their ranks.
    """
    ordered = votes.detach().sort(-1).values
    above = votes.shape[-1] - torch.searchsorted(ordered, votes.detach().contiguous(), right=True)
    return -(above + 1).to(torch.promote_types(votes.dtype, torch.float32)).log()


@torch.no_grad()
def dense_votes(features: Tensor, classifier: nn.Module) -> Tensor:
    """Votes `[B, K]` of the positions of a feature map `[B, C, H, W]`: the classes predicted there (Liang 2022)."""
    logits = at_least_single(classifier(features.flatten(2).mT))  # half precision counts to 256 only
    predicted = logits.argmax(-1)
    return torch.zeros_like(logits[:, 0]).scatter_add_(-1, predicted, torch.ones_like(predicted, dtype=logits.dtype))


def beta_draws(shape: tuple[int, ...], a: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Draws from Beta(a, 1): $b = u^{1/a}$ with uniform $u$, kept 1e-6 away from 0 and 1, where a logarithm is −∞.

    One generator draws them all; of several, each draws for one run of the leading axis.
    """
    if len(generators) > 1:  # one at a time: the last bit of a power depends on its place in the vector
        return torch.stack([beta_draws(shape[1:], a, [generator]) for generator in generators])
    (generator,) = generators
    return torch.rand(shape, generator=generator, device=generator.device).pow_(1 / a).clamp_(1e-6, 1 - 1e-6)


def matched_by_rank(draws: Tensor, confidence: Tensor) -> Tensor:
    """The `draws` `[..., B]` sorted as `confidence` is: the most confident gets the largest (Zhang 2020)."""
    return draws.sort(-1).values.gather(-1, confidence.argsort(-1).argsort(-1))


def keep_confidence(logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Rung 2: the softened teacher's probability of the label, the rest spread evenly, as scores."""
    share = log_softmax(in_double(logits) / temperature, -1).gather(-1, labels[..., None])[..., 0].exp()
    return share_scores(share, labels, logits.shape[-1]) + math.log(logits.shape[-1])


def permute_wrong(scores: Tensor, labels: Tensor, index: Tensor) -> Tensor:
    """Rung 3: permute the scores of the wrong classes in each image, in an order fixed by its number in `index`."""
    classes = torch.arange(scores.shape[-1], device=scores.device)
    order = _hashed(index[..., None] * len(classes) + classes)
    on_label = classes == labels[..., None]
    last = torch.iinfo(torch.int64).max
    places = torch.where(on_label, last, classes.expand_as(on_label)).argsort(-1)
    permuted = torch.where(on_label, last, order.expand_as(on_label)).argsort(-1)
    values = scores.gather(-1, permuted.expand_as(scores))
    return torch.empty_like(scores).scatter_(-1, places.expand_as(scores), values)


def _hashed(numbers: Tensor) -> Tensor:
    """Pseudo-random int64 from the numbers alone: the finaliser of SplitMix64 (Steele 2014)."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
        numbers = (numbers ^ ((numbers >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return numbers
