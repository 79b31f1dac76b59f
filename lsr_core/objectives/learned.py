"""Methods whose teacher is another network, a class, or the student itself at this moment."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Self

import torch
from torch import Tensor

from .._kernels import at_least_single
from ..errors import require
from ..losses import divergence, reverse_divergence, without_label
from ..metrics import class_means
from ..teachers import keep_confidence, permute_wrong, softened, zipf_scores
from ._base import Batch, Fixed, Objective


@dataclass(frozen=True, kw_only=True)
class KDWeighted(Fixed):
    """Distillation with every weight and temperature free, $h\\,H(y,p) + s\\,D_{KL}(q_{\\tau_t}\\|p_\\tau)$."""

    name = "kd-weighted"
    takes_teacher = needs_teacher = takes_mixtures = True
    hard_weight: float = 1.0
    soft_weight: float = 1.0
    temperature: float = 1.0
    teacher_temperature: float = 1.0

    def weights(self, classes: int) -> tuple[float, float]:
        return self.hard_weight, self.soft_weight

    def scores(self, batch: Batch) -> Tensor:
        return softened(self.required_teacher(batch), self.teacher_temperature)


@dataclass(frozen=True, kw_only=True)
class KD(Fixed):
    """Distillation, $(1-\\alpha) H(y,p) + \\alpha\\tau^2 D_{KL}(q_\\tau\\|p_\\tau)$ (Hinton 2015).

    Re-KD, De-KD and Tf-KD_self are this loss with a weaker, a badly trained, or an equal teacher (Yuan 2020). The
    defaults are those of Yuan's MobileNetV2.
    """

    name = "kd"
    takes_teacher = needs_teacher = takes_mixtures = True
    alpha: float = 0.95
    temperature: float = 20.0

    def scores(self, batch: Batch) -> Tensor:
        return softened(self.required_teacher(batch), self.temperature)


class KDUnscaled(KD):
    """Distillation without τ², $(1-\\alpha) H(y,p) + \\alpha D_{KL}(q_\\tau\\|p_\\tau)$ (Yuan 2020 Eq. 4, 7)."""

    name = "kd-unscaled"

    def weights(self, classes: int) -> tuple[float, float]:
        return 1 - self.alpha, self.alpha


@dataclass(frozen=True, kw_only=True)
class KDReleased(KD):
    """Distillation as Yuan 2020 released it: the divergence is averaged over classes too, $s = \\alpha\\tau^2 m / K$.

    Tf-KD_self is the same with a multiplier m of 1, 50 or 100 (`my_loss_function.py`).
    """

    name = "kd-released"
    multiplier: float = 1.0

    def weights(self, classes: int) -> tuple[float, float]:
        return 1 - self.alpha, self.alpha * self.temperature**2 * self.multiplier / classes


@dataclass(frozen=True, kw_only=True)
class SoftOnly(KD):
    """Distillation without labels, $\\tau^2 D_{KL}(q_\\tau\\|p_\\tau)$ (Shen 2021 Eq. 3, 4, at τ = 1).

    Shen prints $H(q, p)$, which differs by the teacher's entropy. Chandrasegaran 2022 has it with τ from 1 to 64.
    """

    name = "soft-only"
    alpha: float = field(default=1.0, init=False)
    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SelfDistillation(KD):
    """A generation of self-distillation: the teacher is the same network, trained before (Zhang & Sabuncu 2020).

    With τ² and one temperature for teacher and student, at the released constants.
    """

    name = "self-distillation"
    alpha: float = 0.4
    temperature: float = 4.0


class SelfDistillationReleased(SelfDistillation):
    """Self-distillation as released, $(1-\\alpha) H(y,p) + \\alpha H(q_\\tau, p)$ up to the teacher's entropy.

    Only the teacher is softened, and there is no τ² (Zhang & Sabuncu 2020, `train_distillation.py`). The code takes
    $\\ln(p + 10^{-8})$, this $\\ln p$; `study.released_code.SelfDistillationOffset` is the code's.
    """

    name = "self-distillation-released"
    student_temperature = 1.0


@dataclass(frozen=True, kw_only=True)
class LadderTeacher(KD):
    """Rung 4 of the ladder: the teacher itself (this study)."""

    name = "ladder-teacher"
    alpha: float = 0.9
    temperature: float = 4.0


class LadderConfidence(LadderTeacher):
    """Rung 2 of the ladder: the teacher's softened confidence in the label, the rest uniform (this study)."""

    name = "ladder-confidence"
    takes_mixtures = False

    def scores(self, batch: Batch) -> Tensor:
        return keep_confidence(self.required_teacher(batch), batch.labels, self.temperature)


class LadderPermuted(LadderTeacher):
    """Rung 3 of the ladder: the teacher with its wrong classes permuted within each image (this study).

    The order is fixed by the image's number in `index`, so that it is the same in every epoch.
    """

    name = "ladder-permuted"
    takes_mixtures = False

    def scores(self, batch: Batch) -> Tensor:
        return permute_wrong(super().scores(batch), batch.labels, self.required_index(batch))


@dataclass(frozen=True, kw_only=True)
class PriorSmoothing(Fixed):
    """Smoothing towards a prior of each class, $\\tilde y = (1-\\alpha) y + \\alpha\\pi_y$ (Camporese 2020).

    `prior` `[K, K]` holds a distribution $\\pi_y$ in each row, as a tensor or nested sequences
    (`teachers.similarity_prior` returns one); None is the uniform prior. Raises `InputError` for other rows.
    """

    name = "prior-smoothing"
    alpha: float = 0.5
    prior: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior is None:
            return
        rows = torch.as_tensor(self.prior, dtype=torch.float64)
        square = rows.ndim == 2 and rows.shape[0] == rows.shape[1]
        require(square, f"prior has shape {list(rows.shape)}; it must be [K, K]")
        total = rows.sum(-1, keepdim=True)
        fits = bool((rows >= 0).all()) and bool(((total - 1).abs() < 1e-4).all())
        require(fits, "prior holds a row that is no distribution; it must be at least 0 and sum to 1")
        rows = torch.where((total - 1).abs() < 1e-12, rows, rows / total)
        object.__setattr__(self, "prior", tuple(map(tuple, rows.tolist())))

    def check(self, classes: int) -> None:
        fits = self.prior is None or len(self.prior) == classes
        require(fits, f"prior has {self.prior and len(self.prior)} classes; it must have the logits' {classes}")

    def scores(self, batch: Batch) -> Tensor:
        self.check(batch.logits.shape[-1])
        logits = at_least_single(batch.logits)
        if self.prior is None:
            return torch.zeros_like(logits)
        return _log_prior(self.prior, logits.dtype, logits.device)[batch.labels]


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _log_prior(prior: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(prior, dtype=dtype, device=device).log()


@dataclass(frozen=True, kw_only=True)
class LadderClassMeans(PriorSmoothing):
    """Rung 1 of the ladder: the mean of the softened teacher over each class, `prior` (this study).

    `fitted` computes it from a teacher's outputs.
    """

    name = "ladder-class-means"
    takes_teacher = takes_constants = True
    alpha: float = 0.9
    temperature: float = 4.0

    def fitted(self, batch: Batch) -> Self:
        q = (self.required_teacher(batch).double() / self.temperature).softmax(-1)
        missing = sorted(set(range(q.shape[-1])) - set(batch.labels.flatten().tolist()))[:1]
        require(not missing, f"no example of class {', '.join(map(str, missing))}; class means need one of each")
        return replace(self, prior=class_means(q, batch.labels, q.shape[-1]))


@dataclass(frozen=True, kw_only=True)
class ConfidencePenalty(Objective):
    """$H(y,p) - \\beta H(p)$, which is $H(y,p) + \\beta D_{KL}(p\\|u)$ up to a constant (Pereyra 2017; Zhang 2020)."""

    name = "confidence-penalty"
    takes_mixtures = True
    beta: float = 0.1

    def weights(self, classes: int) -> tuple[float, float]:
        return 1.0, self.beta

    def soft(self, batch: Batch) -> Tensor:
        return reverse_divergence(batch.logits)


@dataclass(frozen=True, kw_only=True)
class ZipfSmoothing(Objective):
    """Zipf's label smoothing, $H(y,p) + \\lambda D_{KL}(\\tilde p\\|\\hat p)$ over the wrong classes (Liang 2022).

    $\\tilde p_c \\propto 1/r_c$ by rank among all classes. The ranks are those of `teacher_logits`: votes of a feature
    map's positions (`teachers.dense_votes`) as in the paper, or any scores; without them, of the student's logits.
    There are no classifiers on earlier layers, which the released code has.
    """

    name = "zipf"
    weight: float = 0.1

    def weights(self, classes: int) -> tuple[float, float]:
        return 1.0, self.weight

    def soft(self, batch: Batch) -> Tensor:
        ranked = zipf_scores(batch.logits if batch.teacher_logits is None else batch.teacher_logits)
        return divergence(without_label(ranked, batch.labels), without_label(batch.logits, batch.labels))
