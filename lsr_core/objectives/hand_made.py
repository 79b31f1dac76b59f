"""Methods with a hand-made teacher, given by its share of the right class; the rest is uniform."""

import warnings
from dataclasses import dataclass, replace
from typing import Self

from ..errors import require_classes
from ..losses import Loss
from ..teachers import CorrectedUniform, Share, TargetGap, VirtualTeacher
from ._base import Batch, HandMade


class CrossEntropy(HandMade):
    """$H(y, p)$: the baseline."""

    name = "cross-entropy"

    def weights(self, classes: int) -> tuple[float, float]:
        return 1.0, 0.0


@dataclass(frozen=True, kw_only=True)
class LSR(HandMade):
    """Label smoothing, $(1-\\varepsilon) H(y,p) + \\varepsilon D_{KL}(u\\|p)$ (Szegedy 2016; Yuan 2020 Eq. 3).

    Every class gets the mass ε/K. It is torch's `cross_entropy(..., label_smoothing=ε)` less the constant ε ln K.
    """

    name = "lsr"
    epsilon: float = 0.1

    def weights(self, classes: int) -> tuple[float, float]:
        return 1 - self.epsilon, self.epsilon


class LSRWrongClasses(LSR):
    """Label smoothing that puts ε/(K−1) on each wrong class (Shen 2021 Eq. 1; Yuan's and Zhang's released code)."""

    name = "lsr-wrong-classes"
    teacher = Share(0.0)


@dataclass(frozen=True, kw_only=True)
class LsrKD(HandMade):
    """LSR with a softened student, $(1-\\alpha) H(y,p) + \\alpha\\tau^2 D_{KL}(u\\|p_\\tau)$.

    Called LsrKD in Wang 2020 and LSR-OS (output smoothing) in Wang 2021; reconstructed from the abstracts.
    """

    name = "lsrkd"
    alpha: float = 0.1
    temperature: float = 4.0


@dataclass(frozen=True, kw_only=True)
class LsrKDTC(LsrKD):
    """LsrKD with teacher correction by the optimum's logit gap G (`teachers.TargetGap`).

    LSR-OS-TC in Wang 2021; reconstructed from the abstracts, the parameter G is this study's.
    """

    name = "lsrkd-tc"
    gap: float = 6.0
    teacher = property(lambda self: TargetGap(self.gap))


@dataclass(frozen=True, kw_only=True)
class LsrKDTCShare(LsrKD):
    """LsrKD with teacher correction by a constant share β of the right class (`teachers.CorrectedUniform`).

    The papers' form, "a constant larger proportion for the right class"; reconstructed from the abstracts.
    """

    name = "lsrkd-tc-share"
    share: float = 0.3
    teacher = property(lambda self: CorrectedUniform(self.share))


@dataclass(frozen=True, kw_only=True)
class TfKDReg(LsrKD):
    """Tf-KD_reg, $(1-\\alpha) H(y,p) + \\alpha D_{KL}(p^d_\\tau\\|p_\\tau)$, without τ² (Yuan 2020 Eq. 8, 9).

    $p^d$ is `correct` on the right class, softened as a power: $p^d_\\tau \\propto (p^d)^{1/\\tau}$.
    """

    name = "tf-kd-reg"
    temperature: float = 20.0
    correct: float = 0.99
    teacher = property(lambda self: VirtualTeacher(self.correct, "power"))

    def weights(self, classes: int) -> tuple[float, float]:
        return 1 - self.alpha, self.alpha


class TfKDRegLogits(TfKDReg):
    """Tf-KD_reg with $p^d$ read as logits: $p^d_\\tau = \\mathrm{softmax}(p^d/\\tau)$ (Yuan 2020 Eq. 9)."""

    name = "tf-kd-reg-logits"
    teacher = property(lambda self: VirtualTeacher(self.correct, "logits"))


@dataclass(frozen=True, kw_only=True)
class TfKDRegReleased(TfKDRegLogits):
    """Tf-KD_reg as released: $(1-\\alpha) H(y,p) + \\frac{\\alpha m}{K} D_{KL}(\\mathrm{softmax}(p^d/\\tau)\\|p)$.

    The student is not softened and the divergence is averaged over classes too (Yuan 2020, `my_loss_function.py`). It
    is label smoothing with its own ε and loss scale (`as_label_smoothing`). The defaults are those of ResNet-18 on 100
    classes; a multiplier of 100 with another number of classes warns.
    """

    name = "tf-kd-reg-released"
    student_temperature = 1.0
    multiplier: float = 100.0

    def teacher_share(self, classes: int) -> float:
        require_classes(classes)
        return self.teacher.share(classes, self.temperature)

    def weights(self, classes: int) -> tuple[float, float]:
        return 1 - self.alpha, self.alpha * self.multiplier / classes

    def _loss(self, batch: Batch) -> Loss:
        classes = batch.logits.shape[-1]
        if self.multiplier == 100 != classes:
            soft_weight = self.weights(classes)[1]
            now = f"multiplier is 100, released for 100 classes; with {classes} the divergence weighs {soft_weight:g}"
            warnings.warn(f"{now}, with multiplier={classes} the released {self.alpha:g}", stacklevel=3)
        return super()._loss(batch)


@dataclass(frozen=True, kw_only=True)
class BetaSmoothingConstant(HandMade):
    """Beta smoothing's control: every draw replaced by its mean $a/(a+1)$, which is label smoothing (this study)."""

    name = "beta-smoothing-constant"
    alpha: float = 0.6
    a: float = 3.0
    teacher = property(lambda self: Share(self.a / (self.a + 1)))


@dataclass(frozen=True, kw_only=True)
class LadderUniform(LsrKD):
    """Rung 0 of the ladder: the teacher's mean probability of the label, `share`; the rest is uniform (this study).

    `fitted` computes it from a teacher's outputs.
    """

    name = "ladder-uniform"
    takes_teacher = takes_constants = True
    alpha: float = 0.9
    share: float = 0.5
    teacher = property(lambda self: Share(self.share))

    def fitted(self, batch: Batch) -> Self:
        q = (self.required_teacher(batch).double() / self.temperature).softmax(-1)
        return replace(self, share=float(q.gather(-1, batch.labels[..., None]).mean()))
