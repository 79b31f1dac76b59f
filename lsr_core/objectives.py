"""Objectives: each method's name, its teacher and its weights.

An objective is a frozen set of constants that can be called: `loss = objective(logits, labels)`.
"""

from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import ClassVar

from torch import Tensor

from ._errors import require, require_classes, require_fraction, require_positive
from .losses import Loss, smoothing_loss
from .teachers import CorrectedUniform, TargetGap, Teacher, Uniform, WrongClasses


@dataclass(frozen=True, kw_only=True)
class Objective:
    """$\\mathcal L = h\\,H(y,p) + s\\,D_{KL}(q\\|p_\\tau)$ with this method's $h$, $s$, $q$ and τ."""

    name: ClassVar[str]

    @property
    def hard_weight(self) -> float:
        """$h$, the weight of the cross-entropy with the labels."""
        return 1.0

    @property
    def soft_weight(self) -> float:
        """$s$, the weight of the divergence from the teacher."""
        return 0.0

    @property
    def student_temperature(self) -> float:
        """τ, which softens the student in the divergence."""
        return 1.0

    @property
    def teacher(self) -> Teacher:
        """Where the soft label comes from."""
        return Uniform()

    def teacher_share(self, classes: int) -> float:
        """The teacher's probability for the right class among K `classes`; raises `InputError` if there is none."""
        require_classes(classes)
        return self.teacher.share(classes, self.student_temperature)

    def __call__(self, logits: Tensor, labels: Tensor) -> Loss:
        """The loss of logits `[..., B, K]` and int64 labels `[..., B]`, averaged over the batch."""
        return smoothing_loss(
            logits,
            labels,
            hard_weight=self.hard_weight,
            soft_weight=self.soft_weight,
            temperature=self.student_temperature,
            share=self.teacher_share(logits.shape[-1]),
        )


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Objective):
    """$H(y, p)$: the baseline."""

    name = "cross-entropy"


@dataclass(frozen=True, kw_only=True)
class LSR(Objective):
    """Label smoothing, $(1-\\varepsilon) H(y,p) + \\varepsilon D_{KL}(u\\|p)$ (Szegedy 2016; Yuan 2020 Eq. 3).

    The mass ε/K lies on every class.
    """

    name = "lsr"
    epsilon: float = 0.1

    def __post_init__(self) -> None:
        require_fraction("epsilon", self.epsilon)

    @property
    def hard_weight(self) -> float:
        return 1 - self.epsilon

    @property
    def soft_weight(self) -> float:
        return self.epsilon


@dataclass(frozen=True, kw_only=True)
class LSRWrongClasses(LSR):
    """Label smoothing that puts ε/(K−1) on each wrong class (Shen 2021 Eq. 1; Yuan's released code)."""

    name = "lsr-wrong-classes"

    @property
    def teacher(self) -> Teacher:
        return WrongClasses()


@dataclass(frozen=True, kw_only=True)
class LsrKD(Objective):
    """LSR with a softened student, $(1-\\alpha) H(y,p) + \\alpha\\tau^2 D_{KL}(u\\|p_\\tau)$.

    Called LsrKD in Wang 2020 and LSR-OS (output smoothing) in Wang 2021; reconstructed from the abstracts.
    """

    name = "lsrkd"
    alpha: float = 0.1
    temperature: float = 4.0

    def __post_init__(self) -> None:
        require_fraction("alpha", self.alpha)
        require_positive("temperature", self.temperature)

    @property
    def hard_weight(self) -> float:
        return 1 - self.alpha

    @property
    def soft_weight(self) -> float:
        return self.alpha * self.temperature**2

    @property
    def student_temperature(self) -> float:
        return self.temperature


@dataclass(frozen=True, kw_only=True)
class LsrKDTC(LsrKD):
    """LsrKD with teacher correction by target gap: the teacher asks for the logit gap G (`teachers.TargetGap`).

    LSR-OS-TC in Wang 2021; reconstructed from the abstracts, the parameter G is this study's.
    """

    name = "lsrkd-tc"
    gap: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        TargetGap(self.gap)

    @property
    def teacher(self) -> Teacher:
        return TargetGap(self.gap)


@dataclass(frozen=True, kw_only=True)
class LsrKDTCShare(LsrKD):
    """LsrKD with teacher correction by a constant share β of the right class (`teachers.CorrectedUniform`).

    The papers' form, "a constant larger proportion for the right class"; reconstructed from the abstracts.
    """

    name = "lsrkd-tc-share"
    share: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        CorrectedUniform(self.share)

    @property
    def teacher(self) -> Teacher:
        return CorrectedUniform(self.share)


METHODS: dict[str, type[Objective]] = {
    method.name: method for method in (CrossEntropy, LSR, LSRWrongClasses, LsrKD, LsrKDTC, LsrKDTCShare)
}
ALIASES = {"lsr-os": "lsrkd", "lsr-os-tc": "lsrkd-tc"}


def objective(method: str, **constants: float) -> Objective:
    """The objective of a method by its name, with the study's default constants where none are given.

    Raises `InputError` for an unknown method or constant, or a constant out of range.
    """
    known = {**METHODS, **{alias: METHODS[name] for alias, name in ALIASES.items()}}
    hint = "".join(f"; did you mean {close!r}?" for close in get_close_matches(str(method), known, 1))
    require(method in known, f"unknown method {method!r}{hint or '; there are ' + ', '.join(known)}")
    accepted = [field.name for field in fields(known[method])]
    for name in constants:
        takes = ", ".join(accepted) or "no constants"
        require(name in accepted, f"method {method!r} has no constant {name!r}; it takes {takes}")
    return known[method](**constants)


def describe(objective: Objective) -> dict[str, str | float]:
    """The canonical form: the method's name and every constant."""
    return {"method": objective.name, **{name: float(value) for name, value in asdict(objective).items()}}
