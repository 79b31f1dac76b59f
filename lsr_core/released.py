"""What the released code computes: the distillation term of each code base, and Yuan's configurations.

Everything is stated as an objective of this package, so that weights and pulls are computed, never typed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from ._errors import require, require_classes
from .objectives import METHODS, Objective, as_label_smoothing, constants_of, objective
from .teachers import VirtualTeacher


@dataclass(frozen=True)
class Convention:
    """A paper's or a code base's distillation term: where it stands, the method that it is, whether it has a τ."""

    source: str
    where: str
    method: str
    has_temperature: bool = True

    def at(self, alpha: float, tau: float) -> Objective:
        """The term at α and τ, as far as it has them."""
        offered = {"alpha": alpha, "hard_weight": 1 - alpha, "soft_weight": alpha, "multiplier": 1.0}
        offered |= {"temperature": tau} if self.has_temperature else {}
        takes = constants_of(METHODS[self.method])
        return objective(self.method, **{name: value for name, value in offered.items() if name in takes})


_YUAN = "my_loss_function.py, multiplier 1; zipfls has the same"
CONVENTIONS: tuple[Convention, ...] = (
    Convention("Hinton 2015", "torchdistill, KDLoss (its α is the labels' weight)", "kd"),
    Convention("Yuan 2020, paper", "Eq. 4, 7", "kd-unscaled"),
    Convention("Yuan 2020, code", f"Teacher-free-Knowledge-Distillation, {_YUAN}", "kd-released"),
    Convention("Yuan 2020, Tf-KD_reg, paper", "Eq. 9, probabilities softened as powers", "tf-kd-reg"),
    Convention("Yuan 2020, Tf-KD_reg, code", _YUAN, "tf-kd-reg-released"),
    Convention(
        "Zhang & Sabuncu 2020, code", "neurips_2020_distillation, train_distillation.py", "self-distillation-released"
    ),
    Convention("Shen 2021", "Eq. 3, 4: no labels, τ = 1", "soft-only", has_temperature=False),
    Convention("Chandrasegaran 2022, code", "LS-KD-compatibility, imagenet/utils.py: no labels", "soft-only"),
    Convention("Kim 2021, code", "PS-KD-Pytorch, pskd_loss.py, last epoch", "kd-weighted", has_temperature=False),
    Convention("Wang 2020 (reconstructed)", "uniform teacher", "lsrkd"),
)


@dataclass(frozen=True)
class Configuration:
    """One of Yuan's released CIFAR-100 configurations (`experiments/**/params.json`); multiplier None: key missing."""

    student: str
    mode: str
    alpha: float
    temperature: float
    multiplier: float | None = 1.0

    @property
    def objective(self) -> Objective:
        """What it computes, with a multiplier of 1 where none is given."""
        method = "tf-kd-reg-released" if self.mode == "Tf-KD_reg" else "kd-released"
        return objective(
            method, alpha=self.alpha, temperature=self.temperature, multiplier=float(self.multiplier or 1.0)
        )


CONFIGURATIONS: tuple[Configuration, ...] = (
    Configuration("MobileNetV2", "Tf-KD_reg", 0.95, 40.0),
    Configuration("ShuffleNetV2", "Tf-KD_reg", 0.95, 10.0),
    Configuration("ResNet18", "Tf-KD_reg", 0.1, 20.0, 100.0),
    Configuration("GoogLeNet", "Tf-KD_reg", 0.1, 40.0, 50.0),
    Configuration("DenseNet121", "Tf-KD_reg", 0.1, 40.0, None),
    Configuration("ResNeXt29, ResNeXt101", "Tf-KD_reg", 0.5, 40.0, None),
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
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(examples, classes, generator=generator).double() for _ in range(2))
    labels = torch.randint(classes, (examples,), generator=generator)
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
    """A row a released configuration: effective weights, and for Tf-KD_reg the label smoothing that it is."""
    rows = []
    for configuration in CONFIGURATIONS:
        term = configuration.objective
        hard_weight, soft_weight = term.weights(classes)
        row: dict[str, object] = {
            "student": configuration.student,
            "mode": configuration.mode,
            "α": configuration.alpha,
            "τ": configuration.temperature,
            "multiplier": "missing: 1" if configuration.multiplier is None else f"{configuration.multiplier:g}",
            "h": hard_weight,
            "s": soft_weight,
        }
        if configuration.mode == "Tf-KD_reg":
            row["ε"], row["loss scale"] = as_label_smoothing(term, classes)
        rows.append(row)
    return pd.DataFrame(rows).set_index(["student", "mode"])
