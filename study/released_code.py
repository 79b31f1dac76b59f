"""What the released code computes: the distillation loss of each paper and code base, and Yuan's configurations.

Every loss is an objective of `lsr_core`, so that weights and gradients are computed, never typed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lsr_core.errors import require, require_classes
from lsr_core.losses import cross_entropy
from lsr_core.objectives import METHODS, Batch, Objective, as_label_smoothing, objective
from lsr_core.objectives.hand_made import TfKDRegReleased
from lsr_core.objectives.learned import KD
from lsr_core.teachers import VirtualTeacher

if TYPE_CHECKING:
    import pandas as pd  # a borrowed machine, which makes no table, lacks it


def offset_cross_entropy(targets: Tensor, logits: Tensor) -> Tensor:
    """$-\\sum_k q_k \\ln(p_k + 10^{-8})$ of soft targets `[..., B, K]`; returns `[..., B]`.

    Zhang & Sabuncu's `loss.py` computes $H(q, p)$ this way in self-distillation, Beta smoothing and label smoothing. It
    does not raise a class whose probability is far below 1e-8. Half-precision logits are computed in float32.
    """
    p = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    return -(targets * (p + 1e-8).log()).sum(-1)


@dataclass(frozen=True, kw_only=True)
class SelfDistillationOffset(Objective):
    """`self-distillation-released` with the code's 1e-8 inside the logarithm (`offset_cross_entropy`).

    It is for other training loops: a `Run` trains by the closed form, which has no such constant.
    """

    name = "self-distillation-released, 1e-8"
    alpha: float = 0.4
    temperature: float = 4.0

    @property
    def student_temperature(self) -> float:
        return 1.0

    def soft(self, batch: Batch) -> Tensor:
        dtype = torch.promote_types(batch.logits.dtype, torch.float32)
        scores = self.required_teacher(batch).to(dtype) / self.temperature
        q = scores.softmax(-1)
        return offset_cross_entropy(q, batch.logits) - cross_entropy(q, scores)


@dataclass(frozen=True, kw_only=True)
class _LiangKD(KD):
    """Distillation added to a cross-entropy of weight 1."""

    name = "kd, h = 2 − α"

    def weights(self, classes: int) -> tuple[float, float]:
        return 2 - self.alpha, super().weights(classes)[1]


@dataclass(frozen=True, kw_only=True)
class _LiangTfKDReg(TfKDRegReleased):
    """The released regulariser added to a cross-entropy of weight 1."""

    name = "tf-kd-reg-released, h = 1"

    def weights(self, classes: int) -> tuple[float, float]:
        return 1.0, super().weights(classes)[1]


_METHODS = METHODS | {method.name: method for method in (SelfDistillationOffset, _LiangKD, _LiangTfKDReg)}


@dataclass(frozen=True)
class ReleasedLoss:
    """The distillation loss of a paper or a code base: its place there and its method, which `takes` α, τ, or neither.

    `constants` are those of the method besides, `where` names the equation or file.
    """

    source: str
    where: str
    method: str
    takes: Sequence[str] = ("alpha", "temperature")
    constants: Mapping[str, float] = field(default_factory=dict)

    def at(self, alpha: float, temperature: float) -> Objective:
        """The objective at these constants."""
        given = {"alpha": alpha, "temperature": temperature}
        return _METHODS[self.method](**{name: given[name] for name in self.takes}, **self.constants)


@dataclass(frozen=True)
class Configuration:
    """One of Yuan's released CIFAR-100 configurations (`experiments/**/params.json`).

    `multiplier` None: the key is missing, and the released code stops there. `batch_mean`: the file has this key, which
    nothing in the code reads.
    """

    student: str
    mode: str
    alpha: float
    temperature: float
    multiplier: float | None = 1.0
    batch_mean: bool = False

    @property
    def objective(self) -> Objective:
        """The released loss with these constants; a missing multiplier is 1."""
        return self._loss(self.multiplier or 1.0)

    def readings(self, classes: int) -> dict[str, Objective]:
        """The possible losses by multiplier: a missing one is 1, or also K where the file asks for a batch mean."""
        if self.multiplier is not None:
            return {f"{self.multiplier:g}": self.objective}
        batch_mean = {"missing: K (batch mean)": self._loss(float(classes))} if self.batch_mean else {}
        return {"missing: 1": self.objective, **batch_mean}

    def _loss(self, multiplier: float) -> Objective:
        method = "tf-kd-reg-released" if self.mode == "Tf-KD_reg" else "kd-released"
        return objective(method, alpha=self.alpha, temperature=self.temperature, multiplier=multiplier)


_DATA = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
RELEASED_LOSSES = tuple(ReleasedLoss(**row) for row in _DATA["losses"])
CONFIGURATIONS = tuple(Configuration(**row) for row in _DATA["configurations"])


def soft_gradient_norm(objective: Objective, logits: Tensor, labels: Tensor, teacher_logits: Tensor) -> float:
    """The norm of the gradient of an objective's soft part on a batch."""
    logits = logits.detach().requires_grad_()
    hard_weight, _ = objective.weights(logits.shape[-1])
    hard = hard_weight * torch.nn.functional.cross_entropy(logits, labels)
    (gradient,) = torch.autograd.grad(objective(logits, labels, teacher_logits).total - hard, logits)
    return gradient.norm().item()


def losses_table(alpha: float, temperatures: Sequence[float], classes: int) -> "pd.DataFrame":
    """A row a released loss: s/h at each τ, and its "pull", the norm of its soft gradient over that of Hinton's loss.

    Student and teacher logits are independent normal draws with standard deviation 3, the same for all rows. Raises
    `InputError` for an α, a temperature or a number of classes out of range.
    """
    import pandas as pd

    require_classes(classes)
    some = isinstance(temperatures, Sequence) and not isinstance(temperatures, str) and len(temperatures) > 0
    require(some, f"temperatures is {temperatures!r}; give a list of at least one number")
    batch = _random_batch(3.0, classes)
    rows = []
    for loss in RELEASED_LOSSES:
        row: dict[str, object] = {"source": loss.source}
        for tau in temperatures:
            term, hinton = loss.at(alpha, tau), RELEASED_LOSSES[0].at(alpha, tau)
            hard_weight, soft_weight = term.weights(classes)
            row["method here"] = term.name
            row[f"s/h, τ = {tau:g}"] = soft_weight / hard_weight if hard_weight else float("inf")
            row[f"pull, τ = {tau:g}"] = soft_gradient_norm(term, *batch) / soft_gradient_norm(hinton, *batch)
        rows.append(row | {"where": loss.where})
    return pd.DataFrame(rows).set_index("source")


def offset_difference(deviation: float, classes: int) -> float:
    """The relative change of Zhang & Sabuncu's gradient by the 1e-8 of their code, at its released constants.

    Student and teacher logits are independent normal draws with this standard deviation.
    """
    logits, labels, teacher = _random_batch(deviation, classes)
    logits.requires_grad_()
    terms = objective("self-distillation-released"), SelfDistillationOffset()
    exact, with_offset = (torch.autograd.grad(term(logits, labels, teacher).total, logits)[0] for term in terms)
    return ((with_offset - exact).norm() / exact.norm()).item()


def _random_batch(deviation: float, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random logits, labels and teacher logits of 256 examples."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (deviation * torch.randn(256, classes, generator=generator).double() for _ in range(2))
    return student, torch.randint(classes, (256,), generator=generator), teacher


def virtual_teacher_table(
    classes: Sequence[int], temperatures: Sequence[float], correct: float = 0.99
) -> "pd.DataFrame":
    """The shares of the right class and of each wrong one in the virtual teacher of Tf-KD_reg, in both readings."""
    import pandas as pd

    table = pd.DataFrame(index=pd.MultiIndex.from_product((classes, temperatures), names=("K", "τ")))
    for label, reading in (("released", "logits"), ("power", "power")):
        table[f"{label}: right"] = [VirtualTeacher(correct, reading).share(k, tau) for k, tau in table.index]
        table[f"{label}: wrong"] = (1 - table[f"{label}: right"]) / (table.index.get_level_values("K") - 1)
    return table


def configurations_table(classes: int = 100) -> "pd.DataFrame":
    """A row a reading of a released configuration: its weights, and for Tf-KD_reg the equal label smoothing."""
    import pandas as pd

    rows = []
    for file in CONFIGURATIONS:
        for multiplier, term in file.readings(classes).items():
            row = {"student": file.student, "mode": file.mode, "α": file.alpha, "τ": file.temperature}
            row |= {"multiplier": multiplier, **dict(zip("hs", term.weights(classes), strict=True))}
            if file.mode == "Tf-KD_reg":
                row["ε"], row["loss scale"] = as_label_smoothing(term, classes)
            rows.append(row)
    return pd.DataFrame(rows).set_index(["student", "mode"])
