"""Teachers: where the soft label $q(\\cdot \\mid x, y)$ comes from.

The teachers here are made by hand: a `share` for the right class, the rest spread evenly over the wrong ones.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ._errors import require, require_positive
from .losses import corrected_share


class Teacher(Protocol):
    """A hand-made teacher: one number says it all."""

    def share(self, classes: int, temperature: float) -> float:
        """The probability of the right class among K `classes` when the student is softened by `temperature`."""


@dataclass(frozen=True)
class Uniform:
    """The uniform teacher of label smoothing, $q_k = 1/K$ (Szegedy 2016; Yuan 2020 Eq. 1)."""

    def share(self, classes: int, temperature: float) -> float:  # noqa: ARG002
        return 1 / classes


@dataclass(frozen=True)
class WrongClasses:
    """Uniform over the wrong classes, nothing for the right one: the ε/(K−1) convention (Shen 2021 Eq. 1)."""

    def share(self, classes: int, temperature: float) -> float:  # noqa: ARG002
        return 0.0


@dataclass(frozen=True)
class CorrectedUniform:
    """Teacher correction: a constant larger share $\\beta$ for the right class.

    $q_y = \\beta$ and $q_k = (1-\\beta)/(K-1)$ elsewhere (Wang 2020; reconstructed from the abstract). A share of
    1/K is the uniform teacher. Raises `InputError` for a share above 1, and on use for one below 1/K.
    """

    constant: float

    def __post_init__(self) -> None:
        require_positive("share", self.constant)
        require(self.constant <= 1, f"share is {self.constant!r}; it must be at most 1")

    def share(self, classes: int, temperature: float) -> float:  # noqa: ARG002
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
        require(0 <= self.gap < float("inf"), f"gap is {self.gap!r}; it must be a finite number, 0 or above")

    def share(self, classes: int, temperature: float) -> float:
        return corrected_share(self.gap, temperature, classes)


def probabilities(
    teacher: Teacher, labels: Tensor, classes: int, temperature: float = 1.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The teacher's distribution `[..., B, K]` for int64 labels `[..., B]`."""
    share = teacher.share(classes, temperature)
    q = torch.full((*labels.shape, classes), (1 - share) / (classes - 1), dtype=dtype)
    return q.scatter(-1, labels[..., None], share)
