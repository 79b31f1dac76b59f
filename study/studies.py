"""The studies: the seeds and arms of each, and whether pages run it or read its published records."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from lsr_core.augmentation import Augmentation
from lsr_core.data import dataset
from lsr_core.errors import require
from lsr_core.models import ImageNetwork
from lsr_core.objectives import objective
from lsr_core.run import Run, TrainedTeacher
from lsr_core.schedule import Schedule

from .arms import RUNGS, generation, smoothed_teacher, student_of_smoothed_teacher
from .paper import grid
from .settings import AUDIO, CIFAR, TUNING_SEEDS
from .tuning import teacher_of, tuned

Chapters = dict[str, dict[str, Run]]  # arms by name, under the first chapter that shows them


@dataclass(frozen=True)
class Study:
    """Arms and the seeds that pair them: their number belongs to a study and is never raised after looking.

    The runs of a `live` study are made where a page needs them. Those of another are published records, which stand
    under the chapters of `arms`; `order` is the order in which to make them, arm by arm where none is given.
    """

    name: str
    seeds: Sequence[int]
    arms: Callable[[], Chapters] = dict
    order: Callable[[], list[Run]] | None = None
    live: bool = False

    def runs(self) -> list[Run]:
        """Every run once, in the order to make them."""
        if self.order is not None:
            return self.order()
        return [run for arms in self.arms().values() for arm in arms.values() for run in arm.runs(self.seeds)]


AUDIO_METHODS = {"cross-entropy": "CE", "lsr": "LSR", "lsrkd": "LSR-OS", "lsrkd-tc": "LSR-OS-TC", "mrkd": "MrKD"}
_LADDER = [method for method in RUNGS.values() if method != "kd"]


def smoothed_students(rate: float | None = None, decay: float | None = None) -> dict[str, Run]:
    """Students on CIFAR-100 of a plain and of a smoothed teacher at T = 1 and 4, by name."""
    how = (f", rate {rate:g}" if rate else "") + (f", decay {decay:g}" if decay else "")
    return {
        f"student of ε = {epsilon:g}, T = {t}{how}": student_of_smoothed_teacher(CIFAR, epsilon, t, rate, decay)
        for t in (1, 4)
        for epsilon in (0, 0.1)
    }


@cache
def _desktop_arms() -> Chapters:
    """Images: 50 of each class of CIFAR-100, tuned by validation. Audio: GTZAN's features, tuned fold by fold."""
    teachers = {kind: teacher_of(CIFAR, kind).run for kind in ("strong", "weak", "poor", "equal")}

    def named(*methods: str, teacher: str | None = None) -> dict[str, Run]:
        own = {method: tuned(CIFAR, method) for method in methods}
        return own | ({f"{teacher} teacher": teachers[teacher]} if teacher else {})

    return {
        "label_smoothing": named("cross-entropy", "lsr"),
        "distillation": named("kd", teacher="strong"),
        "weak_teachers": named("re-kd", teacher="weak") | named("de-kd", teacher="poor"),
        "teacher_free": named("tf-kd-reg", "tf-kd-reg-released", "tf-kd-self", teacher="equal"),
        "lsrkd": named("lsrkd", "lsrkd-tc")
        | {f"{fold.data} {method}": tuned(fold, method) for fold in AUDIO for method in AUDIO_METHODS},
        "mrkd": named("mrkd", "mrkd-tc"),
        "generations": {f"generation {number}": generation(CIFAR, number) for number in range(4)},
        "instance_smoothing": named("beta-smoothing", "zipf"),
        "ladder": named(*_LADDER),
        "smoothed_teachers": {"strong teacher, ε = 0.1": smoothed_teacher(CIFAR, 0.1)}
        | smoothed_students()
        | smoothed_students(rate=0.2)
        | smoothed_students(rate=0.05, decay=0.002),
    }


def _desktop_order() -> list[Run]:
    """Audio, then tier by tier of the arms on images, each seed by seed, teachers included.

    Whenever it stops, what is there are complete pairs.
    """
    arms = {name: arm for chapter in _desktop_arms().values() for name, arm in chapter.items()}
    students = list(smoothed_students())
    tiers = (
        [name for name in arms if name.startswith("gtzan")],
        ["cross-entropy", "lsr", "lsrkd", "lsrkd-tc", "tf-kd-reg"],
        ["kd", "de-kd"],
        ["tf-kd-reg-released"],
        ["mrkd", "mrkd-tc", "re-kd", "tf-kd-self", "beta-smoothing", "zipf"],
        _LADDER,
        students[:2],
        students[2:],
        ["generation 0", "generation 1"],
        ["generation 2", "generation 3"],
        list(smoothed_students(rate=0.2)),
        list(smoothed_students(rate=0.05, decay=0.002)),
    )
    runs: dict[Run, None] = {}
    for tier in tiers:
        for run in (arms[name].at(seed) for seed in DESKTOP.seeds for name in tier):
            if isinstance(run.teacher, TrainedTeacher):
                runs.setdefault(run.teacher.run)
            runs.setdefault(run)
    return list(runs)


# On 5,000 images: data, network, width, epochs, pixels of crops, learning rate, decay.
_PILOT_RUNS = (
    ("cifar100", "resnet8", 32, 30, 0, 0.1, 5e-4),
    ("cifar10", "plain_cnn", 32, 30, 2, 0.05, 1e-3),
    ("cifar100", "plain_cnn", 32, 30, 1, 0.05, 1e-3),
    ("cifar100", "plain_cnn", 32, 20, 2, 0.05, 1e-3),
    ("cifar100", "plain_cnn", 32, 20, 1, 0.1, 1e-3),
    ("cifar100", "plain_cnn", 32, 20, 1, 0.1, 4e-3),
    ("cifar100", "plain_cnn", 32, 20, 0, 0.1, 4e-3),
)
_REFERENCES = (
    ("cifar100", "resnet20", 30, Augmentation(4, flip=True, rotation=0.0)),
    ("fashion_mnist", "resnet8", 10, Augmentation(2, flip=True, rotation=0.0)),
    ("mnist", "resnet8", 5, Augmentation(2, flip=False, rotation=0.0)),
)


def _pilot_arms() -> Chapters:
    """Cross-entropy on 5,000 images in the settings from which the desktop preset's was chosen, with flips."""
    trials = {}
    for data, architecture, width, epochs, padding, rate, decay in _PILOT_RUNS:
        schedule = Schedule(rate, decay, epochs=epochs, batch_size=64, nesterov=True)
        name = f"{data} {architecture} {epochs} epochs, crops {padding}, rate {rate:g}, decay {decay:g}"
        network, crops = ImageNetwork(architecture, width), Augmentation(padding, flip=True, rotation=0.0)
        trials[name] = Run(data, 5000, objective("cross-entropy"), schedule, network=network, augmentation=crops)
    return {"trials": trials}


def _reference_arms() -> Chapters:
    """Cross-entropy on all training images for a few epochs, whose accuracy others have reported often."""
    references = {}
    for data, architecture, epochs, crops in _REFERENCES:
        schedule = Schedule(0.1, 5e-4, epochs=epochs, batch_size=128, nesterov=True)
        network, largest = ImageNetwork(architecture), dataset(data).max_train
        arm = Run(data, largest, objective("cross-entropy"), schedule, network=network, augmentation=crops)
        references[f"{data} {architecture} {epochs} epochs"] = arm
    return {"references": references}


QUICK = Study("quick", range(60), live=True)
DESKTOP = Study("desktop", range(10), _desktop_arms, _desktop_order)
PAPER = Study("paper", grid.SEEDS, lambda: {data: grid.paper_arms(data) for data in grid.DATA}, grid.paper_grid)
REFERENCE = Study("reference", range(1), _reference_arms)
PILOT_RUNS = Study("pilot_runs", TUNING_SEEDS[:1], _pilot_arms)
STUDIES = {study.name: study for study in (QUICK, DESKTOP, PAPER, REFERENCE, PILOT_RUNS)}


def published_study(name: str) -> Study:
    """The published study of this name; raises `InputError` for another one."""
    published = [study.name for study in STUDIES.values() if not study.live]
    require(name in published, f"{name!r} is not published; there are {', '.join(published)}")
    return STUDIES[name]


def live_study(name: str) -> Study:
    """The live study of this name; raises `InputError` for another one, whose results are published with the book."""
    require(name in tuple(STUDIES), f"unknown preset {name!r}; there are {', '.join(STUDIES)}")
    live = [study.name for study in STUDIES.values() if study.live]
    message = f"preset {name!r} is read from published records, and every page shows it; what pages run is"
    require(name in live, f"{message} {', '.join(live)}")
    return STUDIES[name]


def is_exploratory(seeds: Sequence[int]) -> bool:
    """Whether these seeds are others than the live study's own."""
    return tuple(seeds) != tuple(QUICK.seeds)
