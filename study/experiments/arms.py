"""Presets, settings and arms: what is compared, and by how many paired seeds.

An arm is an objective with a schedule in a setting (data set and training-set size); arms are paired by seed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lsr_core.augmentation import Augmentation
from lsr_core.errors import plain, require
from lsr_core.models import Convnet, ImageNetwork, Perceptron
from lsr_core.objectives import Objective
from lsr_core.run import ExactPosterior, Run, TrainedTeacher
from lsr_core.schedule import Schedule

TUNING_SEEDS = range(1000, 1030)  # never used for verdicts
SWEEP_SEEDS = 10  # of an arm on which no claim rests: it shows a shape and decides nothing

Network = Perceptron | Convnet | ImageNetwork


@dataclass(frozen=True)
class Preset:
    """How large a study is: the number of paired seeds belongs to it and is never raised after looking.

    The runs of a `live` preset are made where a page needs them; those of another are published records.
    """

    name: str
    seeds: int
    live: bool = False


PRESETS = {made.name: made for made in (Preset("quick", 60, live=True), Preset("desktop", 10), Preset("paper", 3))}


@dataclass(frozen=True)
class Setting:
    """A data set and how many training examples of it."""

    data: str
    train: int

    def __str__(self) -> str:
        return f"{self.data}, n = {self.train}"


@dataclass(frozen=True)
class Arm:
    """One side of a comparison; everything but the seed. Its teacher is an arm after an epoch, paired by seed too."""

    setting: Setting
    objective: Objective
    schedule: Schedule
    network: Network = field(default_factory=Perceptron)
    role: str = "student"
    teacher: "ArmTeacher | ExactPosterior | None" = None
    augmentation: Augmentation | None = None

    def run(self, seed: int) -> Run:
        """The arm's run with this seed."""
        teacher = self.teacher
        if isinstance(teacher, ArmTeacher):
            teacher = TrainedTeacher(teacher.arm.run(seed), teacher.epoch)
        what = (self.setting.data, self.setting.train, self.objective, self.schedule)
        return Run(*what, seed, self.network, self.role, teacher, self.augmentation)

    def runs(self, seeds: Iterable[int]) -> list[Run]:
        """The arm's run for each seed."""
        return [self.run(seed) for seed in seeds]


@dataclass(frozen=True)
class ArmTeacher:
    """The networks of an arm after an epoch, by default the last."""

    arm: Arm
    epoch: int | None = None


def preset(name: str) -> Preset:
    """The live preset of this name; raises `InputError` for another one, whose results are published with the book."""
    require(name in tuple(PRESETS), f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
    live = [other for other, made in PRESETS.items() if made.live]
    told = f"preset {name!r} is read from published records, and every page shows it; what pages run is"
    require(PRESETS[name].live, f"{told} {', '.join(live)}")
    return PRESETS[name]


def paired_seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """The seeds 0 … n−1 of a number, or the seeds of a list; at least two, distinct, below the tuning seeds."""
    seeds = seeds.tolist() if hasattr(seeds, "tolist") else seeds  # of NumPy or torch
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        seeds = range(min(seeds, TUNING_SEEDS.start + 1))
    require(
        isinstance(seeds, Sequence) and not isinstance(seeds, (str, bytes)),
        f"seeds is {seeds!r}; give a number or a list",
    )
    seeds = [plain(seed) for seed in seeds]
    for seed in seeds:
        allowed = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < TUNING_SEEDS.start
        last = TUNING_SEEDS.start - 1
        require(allowed, f"seed {seed!r} is not a whole number from 0 to {last} (the rest is for tuning)")
    require(len(seeds) >= 2, f"seeds names {len(seeds)} seed(s); paired differences need at least 2")
    require(len(set(seeds)) == len(seeds), f"seeds is {seeds}; no seed may be repeated")
    return tuple(seeds)


def is_exploratory(preset_name: str, seeds: Sequence[int]) -> bool:
    """Whether these seeds are others than the preset's own."""
    return tuple(seeds) != tuple(range(preset(preset_name).seeds))
