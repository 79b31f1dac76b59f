"""Teachers: where the soft label $q(\\cdot \\mid x, y)$ comes from.

A teacher made by hand is one number, its `share` for the right class, with the rest spread evenly over the wrong ones.
Any other teacher is given by its *scores* `[..., B, K]`, the logarithm of its distribution up to a constant, as
`losses.divergence` takes them. Labels are int64 `[..., B]`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from .errors import hold_plain, require, require_fraction, require_not_negative, require_positive
from .losses import _at_least_single, corrected_share

Reading = Literal["power", "logits"]


class Teacher(Protocol):
    """A hand-made teacher: one number says it all."""

    def share(self, classes: int, temperature: float) -> float:
        """The probability of the right class among K `classes` when the student is softened by `temperature`."""


@dataclass(frozen=True)
class Uniform:
    """The uniform teacher of label smoothing, $q_k = 1/K$ (Szegedy 2016; Yuan 2020 Eq. 1)."""

    def share(self, classes: int, temperature: float) -> float:
        return 1 / classes


@dataclass(frozen=True)
class Share:
    """A constant share for the right class; 0 is uniform over the wrong ones, the ε/(K−1) form (Shen 2021 Eq. 1)."""

    constant: float

    def __post_init__(self) -> None:
        hold_plain(self)
        require_fraction("share", self.constant)

    def share(self, classes: int, temperature: float) -> float:
        return self.constant


@dataclass(frozen=True)
class CorrectedUniform(Share):
    """Teacher correction: a constant larger share $\\beta$ for the right class.

    $q_y = \\beta$ and $q_k = (1-\\beta)/(K-1)$ elsewhere (Wang 2020; reconstructed from the abstract). A share of
    1/K is the uniform teacher. Raises `InputError` for a share above 1, and on use for one below 1/K.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("share", self.constant)

    def share(self, classes: int, temperature: float) -> float:
        lowest = 1 / classes
        require(
            self.constant >= lowest * (1 - 1e-12),
            f"share is {self.constant!r}; with {classes} classes it must be at least 1/{classes} = {lowest:.4g}",
        )
        return self.constant


@dataclass(frozen=True)
class TargetGap:
    """Teacher correction by the logit gap $G$ that it asks for, at every temperature.

    $\\beta = e^{G/\\tau} / (e^{G/\\tau} + K - 1)$. (A constant share asks for a gap that grows with τ.) A gap of 0
    is the uniform teacher. Raises `InputError` for a negative gap.
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

    Eq. 9 can be read in two ways. `"power"` softens the probabilities, $q \\propto (p^d)^{1/\\tau}$: the gap that it
    asks for is $\\ln\\frac{a(K-1)}{1-a}$. `"logits"` feeds them to a softmax as if they were logits, as the released
    code does: the gap is $a - \\frac{1-a}{K-1}$, below 1. Raises `InputError` unless `correct` lies between 0 and 1.
    """

    correct: float = 0.99
    reading: Reading = "power"

    def __post_init__(self) -> None:
        known = ", ".join(get_args(Reading))
        require(self.reading in get_args(Reading), f"unknown reading {self.reading!r}; there are {known}")
        hold_plain(self)
        between = isinstance(self.correct, float) and 0 < self.correct < 1
        require(between, f"correct is {self.correct!r}; it must be a number between 0 and 1")

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
    """Scores of hand-made teachers with a share of their own for every example, `shares` `[..., B]`."""
    shares = _at_least_single(shares)
    wrong = ((1 - shares) / (classes - 1)).log()[..., None].expand(*shares.shape, classes)
    return wrong.scatter(-1, labels[..., None], shares.log()[..., None])


# Ensembles and corrections of learned teachers.


def softened(logits: Tensor, temperature: float) -> Tensor:
    """Scores $v/\\tau$ of a teacher by its logits `[..., B, K]`, in float32 at least.

    Below τ = 1 the largest is 0: a shift keeps the distribution, and the quotients of the others keep their digits.
    """
    logits = _at_least_single(logits)
    return (logits - logits.amax(-1, keepdim=True) if temperature < 1 else logits) / temperature


def mean_scores(logits: Tensor, temperature: float, labels: Tensor | None = None, share: float | None = None) -> Tensor:
    """Scores of the mean of n softened teachers, from their `logits` `[n, ..., B, K]`.

    The mean of the divergences from n teachers is the divergence from their mean, up to a constant. With `share`, a
    teacher whose prediction is wrong is first replaced by a hand-made one with that share (`replace_wrong`).
    """
    classes = logits.shape[-1]
    log_q = log_softmax(_precise(logits) / temperature, -1)
    if share is not None:
        log_q = replace_wrong(log_q, labels, share)
    return log_q.logsumexp(0) + math.log(classes / len(logits))  # around zero, so that single precision keeps it


def replace_wrong(scores: Tensor, labels: Tensor, share: float) -> Tensor:
    """Knowledge adjustment by label smoothing: a wrong teacher gives way to `share` on the label, the rest even.

    `scores` are logarithms of probabilities (arXiv:1911.07471, as KD_Lib implements it).
    """
    made = share_scores(torch.full_like(scores[..., 0], share), labels.expand(scores.shape[:-1]), scores.shape[-1])
    wrong = scores.argmax(-1, keepdim=True) != labels[..., None]
    return torch.where(wrong, made, scores)


def shift_wrong(scores: Tensor, labels: Tensor) -> Tensor:
    """Knowledge adjustment by probability shift: the predicted class and the label exchange their scores.

    So the right class has the largest one (arXiv:1911.07471; the correction of MrKD, Sensors 2021).
    """
    index = labels.expand(scores.shape[:-1])[..., None]
    top, predicted = scores.max(-1, keepdim=True)
    return scores.scatter(-1, predicted, scores.gather(-1, index)).scatter(-1, index, top)


# Teachers of classes rather than of examples.


def similarity_prior(similarity: Tensor, temperature: float = 1.0) -> Tensor:
    """Rows of a prior `[K, K]` from a matrix of class similarities: $\\mathrm{softmax}(S_y/T)$ (Camporese 2020)."""
    require_positive("temperature", temperature)
    require(similarity.ndim == 2 and similarity.shape[0] == similarity.shape[1], "similarity must be a square matrix")
    return softened(similarity, temperature).softmax(-1)


# Teachers of Zipf's label smoothing.


def zipf_scores(votes: Tensor) -> Tensor:
    """Scores of $\\tilde p_c \\propto 1/r_c$ with $r_c$ the rank of class c by `votes` `[..., K]` (Liang 2022).

    The largest vote has rank 1; equal votes share the best of their ranks.
    """
    ordered = votes.detach().sort(-1).values
    above = votes.shape[-1] - torch.searchsorted(ordered, votes.detach().contiguous(), right=True)
    return -(above + 1).to(torch.promote_types(votes.dtype, torch.float32)).log()


@torch.no_grad()
def dense_votes(features: Tensor, classifier: nn.Module) -> Tensor:
    """Votes `[B, K]` of the positions of a feature map `[B, C, H, W]`: the classifier's answer at each (Liang 2022)."""
    answers = _at_least_single(classifier(features.flatten(2).mT))  # half precision counts to 256 only
    winners = answers.argmax(-1)
    return torch.zeros_like(answers[:, 0]).scatter_add_(-1, winners, torch.ones_like(winners, dtype=answers.dtype))


# Teachers of Beta smoothing: a share of its own for every example.


def beta_draws(shape: tuple[int, ...], a: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Draws from Beta(a, 1): $b = u^{1/a}$ with uniform $u$, kept 1e-6 away from 0 and 1, whose logarithm fails.

    One generator draws all; of several, each draws its own part of the leading axis.
    """
    if len(generators) > 1:  # each by itself: a power's last bit depends on its place in the vector
        return torch.stack([beta_draws(shape[1:], a, [generator]) for generator in generators])
    return torch.rand(shape, generator=generators[0]).pow_(1 / a).clamp_(1e-6, 1 - 1e-6)


def matched_by_rank(draws: Tensor, confidence: Tensor) -> Tensor:
    """The `draws` `[..., B]` in the order of `confidence`: the largest goes to the most confident (Zhang 2020)."""
    return draws.sort(-1).values.gather(-1, confidence.argsort(-1).argsort(-1))


# Rungs of the ladder, each keeping a part of what one teacher says.


def keep_confidence(logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Rung 2: the softened teacher's probability of the label, the rest spread evenly, as scores."""
    share = log_softmax(_precise(logits) / temperature, -1).gather(-1, labels[..., None])[..., 0].exp()
    return share_scores(share, labels, logits.shape[-1]) + math.log(logits.shape[-1])


def permute_wrong(scores: Tensor, labels: Tensor, index: Tensor) -> Tensor:
    """Rung 3: the wrong classes exchange their scores within each image, in an order fixed by its number in `index`."""
    classes = torch.arange(scores.shape[-1], device=scores.device)
    order = _scrambled(index[..., None] * len(classes) + classes)
    on_label = classes == labels[..., None]
    last = torch.iinfo(torch.int64).max
    to = torch.where(on_label, last, classes.expand_as(on_label)).argsort(-1)
    taken = torch.where(on_label, last, order.expand_as(on_label)).argsort(-1)
    return torch.empty_like(scores).scatter_(-1, to.expand_as(scores), scores.gather(-1, taken.expand_as(scores)))


def _scrambled(numbers: Tensor) -> Tensor:
    """Pseudo-random int64 that depend on nothing but the number: the finaliser of SplitMix64 (Steele 2014)."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
        numbers = (numbers ^ ((numbers >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return numbers


def _precise(values: Tensor) -> Tensor:
    """In float64 where the device has it (Apple's GPUs do not)."""
    return values.float() if values.device.type == "mps" else values.double()
