"""What the released code computes: the distillation term of each code base, and Yuan's configurations.

Everything is stated as an objective of this package, so that weights and pulls are computed, never typed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from lsr_core.errors import require, require_classes
from lsr_core.losses import cross_entropy
from lsr_core.objectives import Batch, Objective, as_label_smoothing, objective
from lsr_core.objectives.hand_made import TfKDRegReleased
from lsr_core.teachers import VirtualTeacher


def offset_cross_entropy(targets: Tensor, logits: Tensor) -> Tensor:
    """$-\\sum_k q_k \\ln(p_k + 10^{-8})$ of soft targets `[..., B, K]`; returns `[..., B]`.

    What Zhang & Sabuncu's `loss.py` has for $H(q, p)$ in self-distillation, Beta smoothing and label smoothing: a class
    far below 1e-8 is no longer pulled up to its target. Half-precision logits are computed in float32.
    """
    p = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    return -(targets * (p + 1e-8).log()).sum(-1)


@dataclass(frozen=True, kw_only=True)
class SelfDistillationOffset(Objective):
    """`self-distillation-released` with the code's 1e-8 inside the logarithm (`offset_cross_entropy`).

    For a training loop of one's own. A run of this package trains by the closed form, which is without it.
    """

    name = "self-distillation-released, 1e-8"
    alpha: float = 0.4
    temperature: float = 4.0

    @property
    def student_temperature(self) -> float:
        return 1.0

    def soft(self, batch: Batch) -> Tensor:
        scores = self._given(batch).to(torch.promote_types(batch.logits.dtype, torch.float32)) / self.temperature
        q = scores.softmax(-1)
        return offset_cross_entropy(q, batch.logits) - cross_entropy(q, scores)


@dataclass(frozen=True, kw_only=True)
class _TfKDRegBeside(TfKDRegReleased):
    """The released regulariser beside a whole cross-entropy."""

    name = "tf-kd-reg-released, h = 1"

    def weights(self, classes: int) -> tuple[float, float]:
        return 1.0, super().weights(classes)[1]


@dataclass(frozen=True)
class Convention:
    """A paper's or a code base's distillation term: where it stands, and what it is at α and τ if it has them."""

    source: str
    where: str
    at: Callable[[float, float], Objective]


def _of(method: str, **constants: Any) -> Callable[[float, float], Objective]:
    """A method that has both α and τ."""
    return lambda alpha, tau: objective(method, alpha=alpha, temperature=tau, **constants)


def _kd_beside(alpha: float, tau: float) -> Objective:
    """Distillation beside a whole cross-entropy."""
    weights = {"hard_weight": 2 - alpha, "soft_weight": alpha * tau**2}
    return objective("kd-weighted", **weights, temperature=tau, teacher_temperature=tau)


_YUAN = "Teacher-free-Knowledge-Distillation, my_loss_function.py, multiplier 1"
CONVENTIONS: tuple[Convention, ...] = (
    Convention("Hinton 2015", "torchdistill, KDLoss (its α is the labels' weight)", _of("kd")),
    Convention("Yuan 2020, paper", "Eq. 4, 7", _of("kd-unscaled")),
    Convention("Yuan 2020, code", _YUAN, _of("kd-released")),
    Convention("Yuan 2020, Tf-KD_reg, paper", "Eq. 9, probabilities softened as powers", _of("tf-kd-reg")),
    Convention("Yuan 2020, Tf-KD_reg, code", _YUAN, _of("tf-kd-reg-released", multiplier=1.0)),
    Convention("Liang 2022, KD, code", "zipfls, train_self_kd.py, λ = 1, without its Zipf term", _kd_beside),
    Convention(
        "Liang 2022, Tf-KD_reg, code",
        "zipfls, train_methods.py, λ = α, multiplier 1",
        lambda alpha, tau: _TfKDRegBeside(alpha=alpha, temperature=tau, multiplier=1.0),
    ),
    Convention(
        "Zhang & Sabuncu 2020, code",
        "neurips_2020_distillation, train_distillation.py",
        lambda alpha, tau: SelfDistillationOffset(alpha=alpha, temperature=tau),
    ),
    Convention("Shen 2021", "Eq. 3, 4: no labels, τ = 1", lambda _, __: objective("soft-only")),
    Convention(
        "Chandrasegaran 2022, code",
        "LS-KD-compatibility, imagenet/utils.py: no labels",
        lambda _, tau: objective("soft-only", temperature=tau),
    ),
    Convention(
        "Kim 2021, code",
        "PS-KD-Pytorch, pskd_loss.py, last epoch",
        lambda alpha, _: objective("kd-weighted", hard_weight=1 - alpha, soft_weight=alpha),
    ),
    Convention("Wang 2020 (reconstructed)", "uniform teacher", _of("lsrkd")),
)


@dataclass(frozen=True)
class Configuration:
    """One of Yuan's released CIFAR-100 configurations (`experiments/**/params.json`).

    `multiplier` None: the key is missing, and the released code stops at it. `batch_mean`: the file has this key, which
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
        """What it computes, with a multiplier of 1 where none is given."""
        return self._with(self.multiplier or 1.0)

    def readings(self, classes: int) -> dict[str, Objective]:
        """What it may mean, by its multiplier: a missing one is 1, or K where the file asks for a batch mean."""
        if self.multiplier is not None:
            return {f"{self.multiplier:g}": self.objective}
        batch_mean = {"missing: K (batch mean)": self._with(float(classes))} if self.batch_mean else {}
        return {"missing: 1": self.objective} | batch_mean

    def _with(self, multiplier: float) -> Objective:
        method = "tf-kd-reg-released" if self.mode == "Tf-KD_reg" else "kd-released"
        return objective(method, alpha=self.alpha, temperature=self.temperature, multiplier=float(multiplier))


CONFIGURATIONS: tuple[Configuration, ...] = (
    Configuration("MobileNetV2", "Tf-KD_reg", 0.95, 40.0),
    Configuration("ShuffleNetV2", "Tf-KD_reg", 0.95, 10.0),
    Configuration("ResNet18", "Tf-KD_reg", 0.1, 20.0, 100.0),
    Configuration("GoogLeNet", "Tf-KD_reg", 0.1, 40.0, 50.0),
    Configuration("DenseNet121", "Tf-KD_reg", 0.1, 40.0, None, batch_mean=True),
    Configuration("ResNeXt29, ResNeXt101", "Tf-KD_reg", 0.5, 40.0, None, batch_mean=True),
    Configuration("MobileNetV2, ShuffleNetV2", "Tf-KD_self", 0.95, 20.0),
    Configuration("ResNet18", "Tf-KD_self", 0.95, 6.0, 50.0),
    Configuration("ResNet50", "Tf-KD_self", 0.95, 6.0, None),
    Configuration("GoogLeNet", "Tf-KD_self", 0.4, 20.0, 50.0),
    Configuration("DenseNet121", "Tf-KD_self", 0.9, 20.0, 50.0),
    Configuration("ResNeXt29", "Tf-KD_self", 0.9, 20.0, 100.0),
    Configuration("AlexNet", "Tf-KD_self", 0.1, 20.0, None),
    Configuration("MobileNetV2, ShuffleNetV2", "KD", 0.95, 20.0),
    Configuration("ResNet18, ResNet50, DenseNet121, ResNeXt29", "KD, Re-KD", 0.6, 20.0),
    Configuration("ResNet18 from DenseNet121", "KD", 0.95, 6.0),
    Configuration("plain CNN", "KD", 0.9, 20.0),
)


def soft_pull(objective: Objective, logits: Tensor, labels: Tensor, teacher_logits: Tensor) -> float:
    """The norm of the gradient of an objective's soft part on a batch."""
    logits = logits.detach().requires_grad_()
    hard_weight, _ = objective.weights(logits.shape[-1])
    hard = hard_weight * torch.nn.functional.cross_entropy(logits, labels)
    (gradient,) = torch.autograd.grad(objective(logits, labels, teacher_logits).total - hard, logits)
    return gradient.norm().item()


def conventions_table(alpha: float, temperatures: Sequence[float], classes: int, examples: int = 256) -> pd.DataFrame:
    """A row a convention: s/h at each τ, and the pull of its soft part against Hinton's on the same random logits.

    Student and teacher logits are independent normal draws with standard deviation 3. Raises `InputError` for an α, a
    temperature or a number of classes that cannot be.
    """
    require_classes(classes)
    some = isinstance(temperatures, Sequence) and not isinstance(temperatures, str) and len(temperatures) > 0
    require(some, f"temperatures is {temperatures!r}; give a list of at least one number")
    student, labels, teacher = _drawn(3.0, classes, examples)
    rows = []
    for convention in CONVENTIONS:
        row: dict[str, object] = {"source": convention.source}
        for tau in temperatures:
            term = convention.at(alpha, tau)
            row["method here"] = term.name
            hard_weight, soft_weight = term.weights(classes)
            row[f"s/h, τ = {tau:g}"] = soft_weight / hard_weight if hard_weight else float("inf")
            hinton = soft_pull(CONVENTIONS[0].at(alpha, tau), student, labels, teacher)
            row[f"pull, τ = {tau:g}"] = soft_pull(term, student, labels, teacher) / hinton
        rows.append(row | {"where": convention.where})
    return pd.DataFrame(rows).set_index("source")


def offset_difference(deviation: float, classes: int, examples: int = 256) -> float:
    """How far the 1e-8 of Zhang & Sabuncu's code moves their loss's gradient, relatively, at its released constants.

    Student and teacher logits are independent normal draws with this standard deviation.
    """
    logits, labels, teacher = _drawn(deviation, classes, examples)
    logits.requires_grad_()
    terms = objective("self-distillation-released"), SelfDistillationOffset()
    exact, moved = (torch.autograd.grad(term(logits, labels, teacher).total, logits)[0] for term in terms)
    return ((moved - exact).norm() / exact.norm()).item()


def _drawn(deviation: float, classes: int, examples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random logits, labels and teacher's logits."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (deviation * torch.randn(examples, classes, generator=generator).double() for _ in range(2))
    return student, torch.randint(classes, (examples,), generator=generator), teacher


def virtual_teacher_table(classes: Sequence[int], temperatures: Sequence[float], correct: float = 0.99) -> pd.DataFrame:
    """How uniform the virtual teacher of Tf-KD_reg is, in both readings: its share of the right class times K."""
    rows = []
    for k in classes:
        for tau in temperatures:
            released, power = (VirtualTeacher(correct, reading).share(k, tau) for reading in ("logits", "power"))
            rows.append(
                {
                    "K": k,
                    "τ": tau,
                    "released: right": released,
                    "released: wrong": (1 - released) / (k - 1),
                    "power: right": power,
                    "power: wrong": (1 - power) / (k - 1),
                }
            )
    return pd.DataFrame(rows).set_index(["K", "τ"])


def configurations_table(classes: int = 100) -> pd.DataFrame:
    """A row a reading of a released configuration: its weights, and for Tf-KD_reg the label smoothing that it is."""
    rows = []
    for configuration in CONFIGURATIONS:
        for multiplier, term in configuration.readings(classes).items():
            hard_weight, soft_weight = term.weights(classes)
            row: dict[str, object] = {
                "student": configuration.student,
                "mode": configuration.mode,
                "α": configuration.alpha,
                "τ": configuration.temperature,
                "multiplier": multiplier,
                "h": hard_weight,
                "s": soft_weight,
            }
            if configuration.mode == "Tf-KD_reg":
                row["ε"], row["loss scale"] = as_label_smoothing(term, classes)
            rows.append(row)
    return pd.DataFrame(rows).set_index(["student", "mode"])
