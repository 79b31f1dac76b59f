"""The paper preset: protocol, networks and pairs of Yuan et al. (2020), whose methods stand beside those of Wang et al.

Constants that no source gives were chosen. LsrKD, LsrKD-TC, MrKD and MrKD-TC are reconstructions: one set of constants,
their classes' defaults, serves all networks and data sets. A network's released constants of a method, found on
CIFAR-100, are its constants in the paper's equation and on other data sets too. Where none were released, Tf-KD_reg has
those of the paper on ImageNet, and GoogLeNet distils like the other large networks. Where the released code stops at a
missing multiplier, it is 1 (the other reading: `released_code.Configuration.readings`). The released Tf-KD_reg is the
function for CIFAR-100 on Tiny-ImageNet too, where its authors say that they used the paper's.

Three things differ from the released code. A tenth of the training images is for validation, the rest trains. The batch
is the student network's, so that its arms differ in method alone: there, students of the largest teachers had 64, and
some arms of DenseNet-121 of 100. The plain CNN is trained by this SGD like the others, not by Adam.
"""

from dataclasses import dataclass, field, replace
from itertools import product

from lsr_core.augmentation import Augmentation
from lsr_core.data import dataset
from lsr_core.errors import require
from lsr_core.models import ImageNetwork
from lsr_core.objectives import Objective, objective
from lsr_core.run import Run, TrainedTeacher
from lsr_core.schedule import Schedule

from ..released_code import CONFIGURATIONS, Configuration

SEEDS = range(3)

_Row = dict[str, tuple[str | None, ...]]  # of one student: each method's teachers, None where it needs none


@dataclass(frozen=True)
class _Protocol:
    """The arms of one data set, and what its training has of its own; networks in `halved` have half the batch."""

    students: dict[str, _Row]
    halved: tuple[str, ...] = ("googlenet", "resnext29")
    drop: float = 0.2
    augmentation: Augmentation = field(default_factory=Augmentation)


_OBJECTIVES: dict[str, Objective] = {
    "cross-entropy": objective("cross-entropy"),
    "lsr": objective("lsr", epsilon=0.1),
    "lsrkd": objective("lsrkd", alpha=0.1, temperature=4.0),
    "lsrkd-tc": objective("lsrkd-tc", alpha=0.1, temperature=4.0, gap=6.0),
    "mrkd": objective("mrkd", alpha=0.5, temperature=4.0, copies=3, every=5),
    "mrkd-tc": objective("mrkd-tc", alpha=0.5, temperature=4.0, copies=3, every=5, share=0.9),
}
_MODES = {"tf-kd-reg": "Tf-KD_reg", "kd": "KD", "re-kd": "KD", "de-kd": "KD", "tf-kd-self": "Tf-KD_self"}
_NOT_RELEASED = (Configuration("ResNet50", "Tf-KD_reg", 0.1, 20.0, None), Configuration("GoogLeNet", "KD", 0.6, 20.0))
_ORDER = ("cross-entropy", "lsr", "lsrkd", "lsrkd-tc", *_MODES, "mrkd", "mrkd-tc")
_POOR = {"resnet18": 1, "resnet50": 50, "resnext29": 50}  # epochs of 200 that De-KD's teachers have (section 2.2)

_BASELINE: _Row = {"cross-entropy": (None,)}
_JOURNAL: _Row = dict.fromkeys(("cross-entropy", "lsr", "lsrkd", "lsrkd-tc", "tf-kd-reg", "mrkd"), (None,))
_EVERY: _Row = _JOURNAL | {"mrkd-tc": (None,)}
_SELF: _Row = _EVERY | {"tf-kd-self": (None,)}
_SMALL, _DEEP, _POOREST = ("mobilenetv2", "shufflenetv2"), ("resnet50", "resnext29"), tuple(_POOR)
_PROTOCOLS = {
    "cifar100": _Protocol(  # Tables 1, 4, 5 and 9
        {
            "resnet18": _SELF | {"kd": _DEEP, "re-kd": _SMALL, "de-kd": _DEEP},
            "mobilenetv2": _SELF | {"kd": ("resnet18", "resnet50", "densenet121", "resnext29"), "de-kd": _POOREST},
            "shufflenetv2": _SELF | {"kd": ("resnet18", "resnet50", "densenet121"), "de-kd": _POOREST},
            "googlenet": _SELF | {"kd": ("resnext29",)},
            "resnet50": _EVERY | {"re-kd": _SMALL},
            "densenet121": _SELF | {"kd": ("resnext29",), "re-kd": _SMALL},
            "resnext29": _SELF | {"re-kd": ("mobilenetv2", "resnet18")},
        }
    ),
    "cifar10": _Protocol(  # Table 2
        {
            "resnet18": _EVERY | {"kd": ("resnext29",), "re-kd": ("plain_cnn", "mobilenetv2")},
            "mobilenetv2": _EVERY | {"kd": ("resnet18",), "re-kd": ("plain_cnn",)},
            "plain_cnn": _BASELINE | {"kd": ("resnet18", "mobilenetv2")},
            "resnext29": _BASELINE | {"re-kd": ("resnet18",)},
        }
    ),
    "tiny_imagenet": _Protocol(  # Tables 3, 4, 6 and 10
        {
            "resnet18": _EVERY | {"kd": ("resnet50",), "re-kd": _SMALL},
            **dict.fromkeys(_SMALL, _SELF | dict.fromkeys(("kd", "de-kd"), ("resnet18", "resnet50"))),
            "resnet50": _SELF | {"kd": ("densenet121", "resnext29"), "re-kd": (*_SMALL, "resnet18")},
            "densenet121": _SELF | {"kd": ("resnext29",)},
        },
        halved=("resnet50", "densenet121", "resnext29"),
        drop=0.1,
        augmentation=Augmentation(0, flip=True, rotation=20.0),
    ),
    "cinic10": _Protocol({"resnet18": _JOURNAL, "mobilenetv2": _JOURNAL}),  # of both journal papers
}
DATA = tuple(_PROTOCOLS)


def paper_arms(data: str) -> dict[str, Run]:
    """Every arm of the paper preset on a data set, by name; raises `InputError` for another data set.

    `mobilenetv2 lsr` has no other network for teacher, `resnet18 <- mobilenetv2, re-kd` has one. A method of Yuan et
    al. (2020) stands there in the paper's form (Eq. 4, 7, 9) and, with `released` at the end, in that of their code.
    """
    require(data in _PROTOCOLS, f"unknown data set {data!r}; the paper preset has {', '.join(_PROTOCOLS)}")
    arms = {}
    for student, row in _PROTOCOLS[data].students.items():
        for method in _ORDER:
            for teacher in row.get(method, ()):
                trained = _teacher(data, method, student if method == "tf-kd-self" else teacher)
                name = f"{student} <- {teacher}, {method}" if teacher else f"{student} {method}"
                for form, term in _forms(method, student).items():
                    arms[name + form] = _arm(data, student, term, trained)
    return arms


def paper_grid() -> list[Run]:
    """Every run of the paper preset once, in the order to make them: a teacher stands before its first student.

    ResNet-18 and MobileNetV2 on CIFAR-100 come first, with every method but MrKD-TC and Tf-KD_self; then the rest of
    CIFAR-100, and one data set after the other. In each of these parts all arms have a seed before one has the next.
    """
    parts = [paper_arms(data) for data in _PROTOCOLS]
    first = {name: arm for name, arm in parts[0].items() if _is_first(name, arm)}
    runs: dict[Run, None] = {}
    for part, seed in product((first, *parts), SEEDS):
        for arm in part.values():
            trained = (arm.teacher.run, arm) if arm.teacher else (arm,)
            runs |= dict.fromkeys(run.at(seed) for run in trained)
    return list(runs)


def _is_first(name: str, arm: Run) -> bool:
    networks = {run.network.architecture for run in (arm, arm.teacher.run if arm.teacher else arm)}
    return networks <= {"resnet18", "mobilenetv2"} and not name.split()[1].startswith(("mrkd-tc", "tf-kd-self"))


def _forms(method: str, student: str) -> dict[str, Objective]:
    """A student's objective, or those of the paper's and the released form, by the end of the arm's name."""
    if method in _OBJECTIVES:
        return {"": _OBJECTIVES[method]}
    of_mode = (found for found in (*CONFIGURATIONS, *_NOT_RELEASED) if _MODES[method] in found.mode.split(", "))
    released = next(found for found in of_mode if student.replace("_", " ") in found.student.lower().split(", "))
    equation = "tf-kd-reg" if method == "tf-kd-reg" else "kd-unscaled"
    paper = objective(equation, alpha=released.alpha, temperature=released.temperature)
    return {"": paper, " released": released.objective}


def _arm(data: str, network: str, method: Objective, teacher: TrainedTeacher | None = None) -> Run:
    """A student by the protocol of Yuan et al. (2020), section 5.1 and released code."""
    protocol = _PROTOCOLS[data]
    batch = 64 if network in protocol.halved else 128
    steps = {"curve": "step", "milestones": (60, 120, 160), "drop": protocol.drop, "warmup": 1}
    schedule = Schedule(0.1 * batch / 128, 5e-4, epochs=200, batch_size=batch, **steps)
    train, seen = dataset(data).max_train, protocol.augmentation
    return Run(data, train, method, schedule, None, ImageNetwork(network), teacher=teacher, augmentation=seen)


def _teacher(data: str, method: str, network: str | None) -> TrainedTeacher | None:
    """A network trained by cross-entropy on streams of its own; for De-KD, training stops early."""
    if network is None:
        return None
    plain = _arm(data, network, _OBJECTIVES["cross-entropy"])
    stop = _POOR[network] if method == "de-kd" else None
    return TrainedTeacher(replace(plain, schedule=replace(plain.schedule, stop=stop), role="teacher"))
