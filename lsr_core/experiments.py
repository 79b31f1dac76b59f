"""For each chapter and preset: the arms it compares, each with the runs it needs, and their results side by side.

An arm is an objective with a schedule in a setting (data set and training-set size); arms are paired by seed.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from . import statistics
from ._errors import InputError, require
from .data import dataset
from .execution import execute
from .models import Convnet, Perceptron
from .objectives import Objective, constants_of, describe, objective
from .records import Record, Store
from .runs import ExactPosterior, Run, TrainedTeacher
from .schedules import Schedule

TUNING_SEEDS = range(1000, 1030)  # never used for verdicts
SWEEP_SEEDS = 20  # of an arm on which no claim rests: it shows a shape and decides nothing
_TUNED_FILE = Path(__file__).with_name("tuned_quick.jsonl")


@dataclass(frozen=True)
class Preset:
    """How large a study is: the number of paired seeds belongs to it and is never raised after looking."""

    name: str
    seeds: int


PRESETS = {preset.name: preset for preset in (Preset("quick", seeds=60),)}


@dataclass(frozen=True)
class Setting:
    """A data set and how many training examples of it."""

    data: str
    train: int

    def __str__(self) -> str:
        return f"{self.data}, n = {self.train}"


DIGITS = (Setting("digits", 100), Setting("digits", 300))
MIXTURES = tuple(Setting(f"mixture-10-{bayes}", 300) for bayes in (65, 80, 95))
SETTINGS = (*DIGITS, *MIXTURES)


@dataclass(frozen=True)
class Arm:
    """One side of a comparison; everything but the seed. Its teacher is an arm after an epoch, paired by seed too."""

    setting: Setting
    objective: Objective
    schedule: Schedule
    network: Perceptron | Convnet = field(default_factory=Perceptron)
    role: str = "student"
    teacher: "ArmTeacher | ExactPosterior | None" = None

    def run(self, seed: int) -> Run:
        """The arm's run with this seed."""
        teacher = self.teacher
        if isinstance(teacher, ArmTeacher):
            teacher = TrainedTeacher(teacher.arm.run(seed), teacher.epoch)
        setting = self.setting
        return Run(setting.data, setting.train, self.objective, self.schedule, seed, self.network, self.role, teacher)

    def runs(self, seeds: Iterable[int]) -> list[Run]:
        """The arm's run for each seed."""
        return [self.run(seed) for seed in seeds]


@dataclass(frozen=True)
class ArmTeacher:
    """The networks of an arm after an epoch, by default the last."""

    arm: Arm
    epoch: int | None = None


class Results:
    """The records of arms, seed by seed; all arms begin with the same seeds."""

    def __init__(self, records: dict[Arm, list[Record]]) -> None:
        self._records = records

    def values(self, arm: Arm, metric: str) -> np.ndarray:
        """One value a seed. A diverged run counts at chance level: accuracy 1/K, likelihood of the uniform guess.

        A metric that has no chance level, or that a run does not have, is nan.
        """
        chance = _chance(arm.setting)
        measured = [None if r.diverged_at is not None else r.metrics[metric] for r in self._records[arm]]
        return np.array([chance[metric] if value is None else value for value in measured])

    def differences(self, arm: Arm, control: Arm, metric: str) -> np.ndarray:
        """Arm minus control, one value for each seed that both have."""
        pairs = zip(self.values(arm, metric), self.values(control, metric), strict=False)
        return np.array([value - other for value, other in pairs])

    def counted(self, *lines: dict[str, dict[float, Arm]] | dict[str, Arm]) -> str:
        """How many seeds the arms of some lines have, for a caption: `20`, or `20 to 60`."""
        counts = sorted({len(self._records[arm]) for arm in flat(*lines)})
        return " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))

    def diverged(self, arm: Arm) -> float:
        """The share of the arm's runs that diverged."""
        return float(np.mean([record.diverged_at is not None for record in self._records[arm]]))

    @property
    def arms(self) -> list[Arm]:
        """All arms, in the order in which they were asked for."""
        return list(self._records)

    def records(self, arm: Arm) -> list[Record]:
        """The arm's records, in the order of the seeds."""
        return self._records[arm]


def collect(
    arms: Iterable[Arm],
    seeds: Sequence[int],
    sweeps: Iterable[Arm] = (),
    store: Store | None = None,
    workers: int = 1,
) -> Results:
    """Results of arms for all seeds and of `sweeps` for the first 20, trained where missing, by so many processes."""
    wanted = {**dict.fromkeys(sweeps, seeds[:SWEEP_SEEDS]), **dict.fromkeys(arms, seeds)}
    records = iter(execute([run for arm, own in wanted.items() for run in arm.runs(own)], store, workers))
    return Results({arm: [next(records) for _ in own] for arm, own in wanted.items()})


def preset(name: str) -> Preset:
    """The preset of this name; raises `InputError` for an unknown one."""
    require(name in PRESETS, f"unknown preset {name!r}; there is {', '.join(PRESETS)}")
    return PRESETS[name]


def paired_seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """The seeds 0 … n−1 of a number, or the seeds of a list; at least two, distinct, below the tuning seeds."""
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        seeds = range(min(seeds, TUNING_SEEDS.start + 1))
    require(isinstance(seeds, Sequence) and not isinstance(seeds, str), f"seeds is {seeds!r}; give a number or a list")
    for seed in seeds:
        allowed = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < TUNING_SEEDS.start
        last = TUNING_SEEDS.start - 1
        require(allowed, f"seed {seed!r} is not a whole number from 0 to {last} (the rest is for tuning)")
    require(len(seeds) >= 2, f"seeds names {len(seeds)} seed(s); paired differences need at least 2")
    require(len(set(seeds)) == len(seeds), f"seeds is {list(seeds)}; no seed may be repeated")
    return tuple(seeds)


def is_exploratory(preset_name: str, seeds: Sequence[int]) -> bool:
    """Whether these seeds are others than the preset's own."""
    return tuple(seeds) != tuple(range(preset(preset_name).seeds))


# Tuning: the baseline first, then 12 trials for every method, judged by validation accuracy at the last epoch.


# The teachers of the quick preset, each trained with the baseline's learning rate and decay, in streams of its own.

_STRONG, _WEAK = Perceptron((256,)), Perceptron((8,))


def teacher(setting: Setting, name: str) -> ArmTeacher | ExactPosterior:
    """A teacher on this setting; raises `InputError` for an unknown name.

    `strong` is a wider and `weak` a narrower network; `equal` is the student's own; `poor` is the strong one after 2 of
    200 epochs, before its learning rate has fallen; `posterior` is the truth, where it is known.
    """
    if name == "posterior":
        return ExactPosterior()
    networks = {"strong": _STRONG, "poor": _STRONG, "weak": _WEAK, "equal": Perceptron()}
    require(name in networks, f"unknown teacher {name!r}; there are {', '.join(networks)}, posterior")
    baseline = tuned(setting, "cross-entropy")
    schedule = replace(baseline.schedule, epochs=200, stop=2) if name == "poor" else baseline.schedule
    return ArmTeacher(replace(baseline, schedule=schedule, network=networks[name], role="teacher"))


@dataclass(frozen=True)
class Trial:
    """Constants to try: for cross-entropy a schedule, for a method its objective and a share of the baseline's rate."""

    objective: Objective
    rate: float
    decay: float | None = None  # None: the baseline's

    def arm(self, setting: Setting, teacher_name: str | None = None) -> Arm:
        """The trial as an arm."""
        if self.decay is not None:
            return Arm(setting, self.objective, Schedule(self.rate, self.decay))
        baseline = tuned(setting, "cross-entropy").schedule
        schedule = replace(baseline, learning_rate=self.rate * baseline.learning_rate)
        return Arm(setting, self.objective, schedule, teacher=teacher_name and teacher(setting, teacher_name))


def _grid(method: str, rates: Sequence[float] = (1.0,), **constants: Sequence[float]) -> list[Trial]:
    cells = product(rates, *constants.values())
    return [Trial(objective(method, **dict(zip(constants, cell, strict=True))), rate) for rate, *cell in cells]


_THIRDS = (1.0, 0.5, 0.25)
_DISTILLED = {"rates": (1.0, 0.5), "temperature": (1.0, 4.0), "alpha": (0.1, 0.5, 0.9)}
_REPLAYED = {"rates": _THIRDS, "temperature": (2.0, 4.0), "alpha": (0.3, 0.7)}
_DRAWN = {"rates": (1.0, 0.5), "alpha": (0.2, 0.4, 0.6), "a": (1.0, 3.0)}
_RUNGS = ("ladder-uniform", "ladder-class-means", "ladder-confidence", "ladder-permuted")

# What is tuned: names of methods, with their teacher's after a colon where there is a choice.
TRIALS: dict[str, list[Trial]] = {
    "cross-entropy": [
        Trial(objective("cross-entropy"), rate, decay)
        for rate in (0.05, 0.1, 0.2)
        for decay in (1e-3, 5e-3, 1e-2, 2e-2)
    ],
    "lsr": _grid("lsr", rates=(1.0, 0.5), epsilon=(0.05, 0.1, 0.15, 0.2, 0.3, 0.4)),
    "lsrkd": _grid("lsrkd", temperature=(2.0, 4.0, 8.0), alpha=(0.05, 0.1, 0.2, 0.3)),
    "lsrkd-tc": _grid("lsrkd-tc", temperature=(2.0, 4.0), alpha=(0.1, 0.3), gap=(4.0, 6.0, 9.0)),
    "lsrkd-tc-share": _grid("lsrkd-tc-share", temperature=(2.0, 4.0), alpha=(0.1, 0.3), share=(0.3, 0.5, 0.9)),
    "tf-kd-reg": _grid("tf-kd-reg", temperature=(2.0, 20.0), alpha=(0.1, 0.5, 0.9), correct=(0.9, 0.99)),
    "tf-kd-reg-released": _grid("tf-kd-reg-released", alpha=(0.05, 0.1, 0.2), multiplier=(1.0, 10.0, 50.0, 100.0)),
    **{name: _grid(name, **_DISTILLED) for name in ("kd", "re-kd", "de-kd", "tf-kd-self")},
    "self-distillation-released": _grid(
        "self-distillation-released", rates=(1.0, 0.5), temperature=(2.0, 4.0), alpha=(0.2, 0.4, 0.6)
    ),
    "soft-only": _grid("soft-only", rates=(1.0, 0.5, 0.25, 0.125), temperature=(1.0, 2.0, 4.0)),
    **{name: _grid(name, **_REPLAYED) for name in ("mrkd", "mrkd-tc", "mrkd-fcn", "mrkd-fcn-ka")},
    "ps-kd": _grid("ps-kd", rates=_THIRDS, alpha=(0.3, 0.5, 0.7, 0.9), epochs=(60,)),
    "beta-smoothing": _grid("beta-smoothing", alpha=(0.2, 0.4, 0.6), a=(1.0, 3.0), decay=(0.9, 0.99)),
    "beta-smoothing-shuffled": _grid("beta-smoothing-shuffled", **_DRAWN),
    "beta-smoothing-constant": _grid("beta-smoothing-constant", **_DRAWN),
    "zipf": _grid("zipf", rates=_THIRDS, weight=(0.03, 0.1, 0.3, 1.0)),
    "confidence-penalty": _grid("confidence-penalty", rates=_THIRDS, beta=(0.03, 0.1, 0.3, 0.6)),
    **{name: _grid(name, **_DISTILLED) for name in _RUNGS},
    **{f"{name}:posterior": _grid(name, **_DISTILLED) for name in ("kd", *_RUNGS)},
}
_TEACHERS = {
    "re-kd": "weak",
    "de-kd": "poor",
    "tf-kd-self": "equal",
    "self-distillation-released": "equal",
}  # of the others that have one: strong


def _teacher_of(name: str) -> str | None:
    method, _, chosen = name.partition(":")
    takes = TRIALS[name][0].objective.takes_teacher
    return (chosen or _TEACHERS.get(method, "strong")) if takes else None


def settings_of(name: str) -> tuple[Setting, ...]:
    """Where a method is tuned: the truth teaches only where it is known."""
    return MIXTURES if name.endswith(":posterior") else SETTINGS


def tune(name: str, setting: Setting, store: Store | None = None, workers: int = 1) -> list[dict[str, object]]:
    """Run a method's trials on the tuning seeds: a row a trial with its validation figures, in the trials' order.

    Raises `InputError` for a method that has no trials.
    """
    require(name in TRIALS, f"unknown method {name!r}; there are trials for {', '.join(TRIALS)}")
    arms = [trial.arm(setting, _teacher_of(name)) for trial in TRIALS[name]]
    results = collect(arms, TUNING_SEEDS, (), store, workers)
    return [
        {
            "data": setting.data,
            "train": setting.train,
            **describe(arm.objective),
            "method": name,
            "learning_rate": arm.schedule.learning_rate,
            "weight_decay": arm.schedule.weight_decay,
            "seeds": len(TUNING_SEEDS),
            **{metric: round(float(results.values(arm, metric).mean()), 6) for metric in _JUDGED_BY},
            "diverged": results.diverged(arm),
        }
        for arm in arms
    ]


_JUDGED_BY = ("validation_accuracy", "validation_nll", "train_accuracy")


def best_trial(rows: Sequence[dict[str, object]]) -> dict[str, object]:
    """The trial with the highest validation accuracy; ties go to the lower likelihood loss."""
    return max(rows, key=lambda row: (row["validation_accuracy"], -row["validation_nll"]))


def tuned_rows() -> list[dict[str, object]]:
    """All trials with their validation figures, as published beside this file (`lsr tune` makes them anew)."""
    return [row for rows in _tuned().values() for row in rows]


@cache
def _tuned() -> dict[tuple[str, int, str], list[dict[str, object]]]:
    """The published rows by data set, training-set size and method."""
    found: dict[tuple[str, int, str], list[dict[str, object]]] = {}
    for row in map(json.loads, _TUNED_FILE.read_text().splitlines()):
        found.setdefault((row["data"], row["train"], row["method"]), []).append(row)
    return found


def write_tuned_rows(rows: Sequence[dict[str, object]]) -> Path:
    """Replace the published rows of the methods and settings that `rows` speak of."""

    def place(row: dict[str, object]) -> tuple[object, ...]:
        return row["data"], row["train"], row["method"]

    renewed = {place(row) for row in rows}
    kept = [row for row in (tuned_rows() if _TUNED_FILE.exists() else []) if place(row) not in renewed]
    order = {(s.data, s.train, method): i for i, (s, method) in enumerate(product(SETTINGS, TRIALS))}
    lines = [json.dumps(row) for row in sorted([*kept, *rows], key=lambda row: order[place(row)])]
    _TUNED_FILE.write_text("\n".join(lines) + "\n")
    for read in (_tuned, tuned, arm):
        read.cache_clear()
    return _TUNED_FILE


@cache
def tuned(setting: Setting, method: str) -> Arm:
    """A method's arm with the constants that validation chose; raises `InputError` where none were tuned."""
    rows = _tuned().get((setting.data, setting.train, method), [])
    require(bool(rows), f"method {method!r} is not tuned on {setting}; run `lsr tune {method}`")
    row = best_trial(rows)
    method_name = method.partition(":")[0]
    constants = {name: row[name] for name in constants_of(type(objective(method_name))) if row[name] is not None}
    made, schedule = objective(method_name, **constants), Schedule(row["learning_rate"], row["weight_decay"])
    name = _teacher_of(method)
    return Arm(setting, made, schedule, teacher=name and teacher(setting, name))


# The tuned network first. "32" was chosen on the tuning seeds' validation images, as the one on which label smoothing
# gained least. It and "64-64-64" replaced two deeper networks, which did not train, after those had been run.
NETWORKS = {
    "64-64": Perceptron(),
    "16": Perceptron((16,)),
    "32": Perceptron((32,)),
    "256": Perceptron((256,)),
    "256-256": Perceptron((256, 256)),
    "64-64-64": Perceptron((64, 64, 64)),
}


# Arms by name: the tuned methods, and what is built from them. Claims are written with these names.

CLASSES_SETTINGS = tuple(Setting(f"mixture-50-80/first-{classes}", 10 * classes) for classes in (5, 20, 50))
TAIL_SETTINGS = tuple(Setting(f"mixture-10-80/{part}", 300) for part in ("stratified", "tail-5", "tail-20"))


@cache
def arm(setting: Setting, name: str) -> Arm:
    """The arm of this name; raises `InputError` for an unknown one.

    `lsr`, or any of `TRIALS`: the tuned method. `generation-2` of self-distillation. `long/lsr`: four times the epochs.
    `fixed/lsr/0.1`: label smoothing of this ε at the schedule of the nearest tuned setting. `carried/lsr/256`: tuned
    constants on another of `NETWORKS`. `taught/0.1/2`: the student, by soft labels alone at T = 2, of a strong teacher
    trained with ε = .1. `stage/5`: the strong teacher stopped after 5 epochs; `staged/5`: its student.
    `cell/…`: a cell of `loss_scale_arms` by its label.
    """
    kind, *rest = name.split("/")
    if kind in TRIALS:
        return tuned(setting, kind)
    makers = {
        **{f"generation-{number}": partial(generation, number=number) for number in range(10)},
        "long": _long,
        "fixed": _fixed,
        "taught": _taught,
        "carried": _carried,
        "stage": _stage,
        "staged": _staged,
        "cell": _cell,
    }
    require(kind in makers, f"unknown arm {name!r}; there are {', '.join(TRIALS)}, {', '.join(makers)}")
    try:
        return makers[kind](setting, *rest)
    except InputError:
        raise
    except (TypeError, ValueError, KeyError):  # another number of parts, no number, no such network or cell
        raise InputError(f"arm {name!r} cannot be made; its parts are not those of {kind!r}") from None


def generation(setting: Setting, number: int) -> Arm:
    """A generation of self-distillation in its released form: its teacher is the one before, 0 is cross-entropy."""
    require(number >= 0, f"generation is {number}; generations are counted from 0")
    role = f"generation-{number}"
    if number == 0:
        return replace(tuned(setting, "cross-entropy"), role=role)
    chosen = tuned(setting, "self-distillation-released")
    return replace(chosen, role=role, teacher=ArmTeacher(generation(setting, number - 1)))


def _long(setting: Setting, method: str) -> Arm:
    chosen = tuned(setting, method)
    return replace(chosen, schedule=replace(chosen.schedule, epochs=4 * chosen.schedule.epochs))


def _fixed(setting: Setting, method: str, epsilon: str) -> Arm:
    base = setting.data.partition("/")[0]
    near = [s for s in SETTINGS if s.data == base] or [MIXTURES[1]]
    baseline = tuned(min(near, key=lambda s: abs(s.train - setting.train)), "cross-entropy")
    made = objective(method, epsilon=float(epsilon)) if float(epsilon) else baseline.objective
    return replace(baseline, setting=setting, objective=made)


def _taught(setting: Setting, epsilon: str, temperature: str) -> Arm:
    student, strong = tuned(setting, "soft-only"), teacher(setting, "strong").arm
    if float(epsilon):
        strong = replace(strong, objective=objective("lsr", epsilon=float(epsilon)))
    tau = float(temperature)
    slower = replace(student.schedule, learning_rate=min(student.schedule.learning_rate, 0.4 / tau))
    made = objective("soft-only", temperature=tau)
    return replace(student, objective=made, schedule=slower, teacher=ArmTeacher(strong))


def _carried(setting: Setting, method: str, network: str) -> Arm:
    return replace(tuned(setting, method), network=NETWORKS[network])


def _cell(setting: Setting, label: str) -> Arm:
    return loss_scale_arms(setting)[label]


def _stage(setting: Setting, epoch: str) -> Arm:
    strong = teacher(setting, "strong").arm
    return replace(strong, schedule=replace(strong.schedule, stop=int(epoch)))


def _staged(setting: Setting, epoch: str) -> Arm:
    return replace(tuned(setting, "de-kd"), teacher=ArmTeacher(_stage(setting, epoch)))


def with_objective(arm: Arm, method: str, **constants: float) -> Arm:
    """The same arm with another objective."""
    return replace(arm, objective=objective(method, **constants))


# The chapters' grids: a line is a dictionary from the constant that varies to its arm.


def smoothing_sweep(
    epsilons: Sequence[float], sizes: Sequence[int]
) -> tuple[dict[str, dict[float, Arm]], dict[str, Arm]]:
    """Label smoothing on digits at the baseline's schedule: a line a training-set size, and its cross-entropy.

    A size that was not tuned takes the schedule of the nearest one that was.
    """
    _require_some(epsilons=epsilons, sizes=sizes)
    controls = {}
    for size in sizes:
        nearest = min(DIGITS, key=lambda setting: abs(setting.train - size))
        controls[f"n = {size}"] = replace(tuned(nearest, "cross-entropy"), setting=Setting("digits", size))
    lines = {
        name: {epsilon: with_objective(control, "lsr", epsilon=epsilon) for epsilon in epsilons}
        for name, control in controls.items()
    }
    return lines, controls


def softening_grid(
    setting: Setting, temperatures: Sequence[float], alphas: Sequence[float]
) -> dict[str, dict[float, Arm]]:
    """LsrKD at the baseline's schedule: a line a temperature, over α. At τ = 1 it is label smoothing."""
    _require_some(temperatures=temperatures, alphas=alphas)
    baseline = tuned(setting, "cross-entropy")
    return {
        f"τ = {tau:g}": {alpha: with_objective(baseline, "lsrkd", alpha=alpha, temperature=tau) for alpha in alphas}
        for tau in temperatures
    }


def correction_sweeps(
    setting: Setting, temperatures: Sequence[float], gaps: Sequence[float], shares: Sequence[float]
) -> tuple[dict[str, dict[float, Arm]], dict[str, dict[float, Arm]], dict[str, Arm]]:
    """Teacher correction by target gap and by constant share, at the tuned LsrKD's α: a line a temperature.

    Returns the lines over gaps, the lines over shares, and each temperature's uncorrected LsrKD.
    """
    _require_some(temperatures=temperatures, gaps=gaps, shares=shares)
    chosen = tuned(setting, "lsrkd")
    alpha = chosen.objective.alpha
    by_gap, by_share, controls = {}, {}, {}
    for tau in temperatures:
        name, common = f"τ = {tau:g}", {"alpha": alpha, "temperature": tau}
        controls[name] = with_objective(chosen, "lsrkd", **common)
        by_gap[name] = {gap: with_objective(chosen, "lsrkd-tc", **common, gap=gap) for gap in gaps}
        by_share[name] = {share: with_objective(chosen, "lsrkd-tc-share", **common, share=share) for share in shares}
    return by_gap, by_share, controls


RUNGS = {
    "0 uniform": "ladder-uniform",
    "1 class means": "ladder-class-means",
    "2 confidence": "ladder-confidence",
    "3 permuted": "ladder-permuted",
    "4 teacher": "kd",
}


def rungs(setting: Setting, teacher_name: str = "strong") -> dict[str, Arm]:
    """The tuned baseline, tuned label smoothing, and the five tuned rungs from one teacher: `strong` or `posterior`."""
    suffix = ":posterior" if teacher_name == "posterior" else ""
    arms = {label: tuned(setting, method + suffix) for label, method in RUNGS.items()}
    return {"cross-entropy": tuned(setting, "cross-entropy"), "lsr": tuned(setting, "lsr"), **arms}


def ladders() -> dict[str, dict[str, Arm]]:
    """The ladder of the first page: the trained teacher on digits, the truth on the mixtures."""
    truth = {f"Bayes accuracy {s.data.rpartition('-')[2]} %, the truth": rungs(s, "posterior") for s in MIXTURES}
    return {"digits, a trained teacher": rungs(DIGITS[0]), **truth}


def distillation_grid(
    setting: Setting, temperatures: Sequence[float], alphas: Sequence[float]
) -> dict[str, dict[float, Arm]]:
    """Distillation from the strong teacher at the tuned schedule: a line a temperature, over α."""
    _require_some(temperatures=temperatures, alphas=alphas)
    chosen = tuned(setting, "kd")
    return {
        f"τ = {tau:g}": {alpha: with_objective(chosen, "kd", alpha=alpha, temperature=tau) for alpha in alphas}
        for tau in temperatures
    }


def teacher_stages(setting: Setting, epochs: Sequence[int]) -> tuple[dict[str, dict[float, Arm]], dict[float, Arm]]:
    """Students of the strong teacher at every stage of its training: lines for rungs 0, 3 and 4, over its epoch.

    Constants and schedule are the tuned De-KD's. Returns the teacher at each stage, a stopped run, too.
    """
    _require_some(epochs=epochs)
    chosen = tuned(setting, "de-kd")
    stages = {epoch: arm(setting, f"stage/{epoch}") for epoch in epochs}
    constants = {"alpha": chosen.objective.alpha, "temperature": chosen.objective.temperature}
    lines = {
        label: {
            epoch: replace(with_objective(chosen, RUNGS[label], **constants), teacher=ArmTeacher(stage))
            for epoch, stage in stages.items()
        }
        for label in ("0 uniform", "3 permuted", "4 teacher")
    }
    return lines, stages


# By cross-entropy's validation accuracy on 300 digits, eight tuning seeds, of rates .1, .4, 1.6 and decays 1e-3, 5e-3,
# 2e-2. At the perceptron's schedule the scaled loss did not fit its training images.
_OF_CONVNET = Schedule(0.4, 1e-3)


def loss_scale_arms(setting: Setting, scale: float = 0.0595, epsilon: float = 0.16) -> dict[str, Arm]:
    """Cross-entropy and LSR on the BatchNorm convnet, the loss scaled or not, decay on all layers or the head alone.

    A loss scaled by s is the learning rate times s with the decay over s, exactly; that is how it is trained.
    """
    baseline = replace(tuned(setting, "cross-entropy"), schedule=_OF_CONVNET, network=Convnet())
    arms = {}
    for decay_name, decays in (("all layers", (1.0, 1.0)), ("head alone", (0.0, 1.0))):
        for scale_name, s in (("scale 1", 1.0), (f"scale {scale:g}", scale)):
            schedule = baseline.schedule
            own, head = (part * schedule.weight_decay / s for part in decays)
            scaled = replace(schedule, learning_rate=s * schedule.learning_rate, weight_decay=own, head_decay=head)
            for name, method in (("cross-entropy", {}), ("lsr", {"epsilon": epsilon})):
                made = objective(name, **method)
                arms[f"{name}, {scale_name}, decay on {decay_name}"] = replace(
                    baseline, objective=made, schedule=scaled
                )
    return arms


def replay_grid(setting: Setting, copies: Sequence[int], every: Sequence[int]) -> dict[str, dict[float, Arm]]:
    """Memory replay at its tuned constants: a line a number of copies, over the epochs between them."""
    _require_some(copies=copies, every=every)
    chosen = tuned(setting, "mrkd")
    constants = {"alpha": chosen.objective.alpha, "temperature": chosen.objective.temperature}
    return {
        f"n = {n}": {kappa: with_objective(chosen, "mrkd", **constants, copies=n, every=kappa) for kappa in every}
        for n in copies
    }


def early_teachers(setting: Setting, epochs: Sequence[int]) -> dict[str, dict[float, Arm]]:
    """Self-distillation from generation 0 after fewer epochs than it has: one line over the teacher's epoch."""
    _require_some(epochs=epochs)
    first = generation(setting, 1)
    stopped = {epoch: replace(first, teacher=ArmTeacher(first.teacher.arm, epoch)) for epoch in epochs}
    return {"generation 1": stopped}


def beta_grid(setting: Setting, alphas: Sequence[float], shapes: Sequence[float]) -> dict[str, dict[float, Arm]]:
    """Beta smoothing and its two controls at equal constants and schedule: a line an arm and shape a, over α."""
    _require_some(alphas=alphas, shapes=shapes)
    chosen = tuned(setting, "beta-smoothing")
    arms = {"ranked": "beta-smoothing", "shuffled": "beta-smoothing-shuffled", "constant": "beta-smoothing-constant"}
    return {
        f"{label}, a = {a:g}": {
            alpha: with_objective(
                chosen, method, alpha=alpha, a=a, **({"decay": chosen.objective.decay} if label == "ranked" else {})
            )
            for alpha in alphas
        }
        for a in shapes
        for label, method in arms.items()
    }


def taught_grid(
    setting: Setting, epsilons: Sequence[float], temperatures: Sequence[float]
) -> tuple[dict[str, dict[float, Arm]], dict[str, Arm]]:
    """Students of smoothed teachers by soft labels alone: a line a temperature, over the teacher's ε; its plain one."""
    _require_some(epsilons=epsilons, temperatures=temperatures)
    lines = {
        f"T = {t:g}": {epsilon: arm(setting, f"taught/{epsilon:g}/{t:g}") for epsilon in epsilons} for t in temperatures
    }
    return lines, {f"T = {t:g}": arm(setting, f"taught/0/{t:g}") for t in temperatures}


def smoothing_by_setting(
    settings: Sequence[Setting], epsilons: Sequence[float]
) -> tuple[dict[str, dict[float, Arm]], dict[str, Arm]]:
    """Label smoothing at the schedule of the nearest tuned setting: a line a setting, over ε; its cross-entropy."""
    _require_some(epsilons=epsilons)
    lines = {str(s): {epsilon: arm(s, f"fixed/lsr/{epsilon:g}") for epsilon in epsilons} for s in settings}
    return lines, {str(s): arm(s, "fixed/lsr/0") for s in settings}


def carried(setting: Setting, methods: Sequence[str]) -> tuple[dict[str, dict[str, Arm]], dict[str, Arm]]:
    """Tuned once, used everywhere: each method's constants of the 64-64 perceptron on other networks.

    A line a method, over networks; and each network's cross-entropy, at the same schedule.
    """
    lines = {
        method: {network: arm(setting, f"carried/{method}/{network}") for network in NETWORKS} for method in methods
    }
    return lines, {network: arm(setting, f"carried/cross-entropy/{network}") for network in NETWORKS}


def tuned_arms(settings: Sequence[Setting], methods: Sequence[str]) -> dict[str, dict[str, Arm]]:
    """Each method's tuned arm: a line a method, over settings."""
    return {method: {str(setting): tuned(setting, method) for setting in settings} for method in methods}


def flat(*lines: dict[str, dict[float, Arm]] | dict[str, Arm]) -> list[Arm]:
    """All arms of some lines, or of some names."""
    found = [line for group in lines for line in group.values()]
    return [arm for line in found for arm in (line.values() if isinstance(line, dict) else [line])]


def _require_some(**lists: Sequence[float]) -> None:
    for name, values in lists.items():
        some = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
        require(some, f"{name} is {values!r}; give a list of at least one number")
        for value in values:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            require(number, f"{name} holds {value!r}; give numbers")


# Tables.


@dataclass(frozen=True)
class Measure:
    """How a metric is printed and judged: its name, the factor to its unit, the margin δ of a difference in it."""

    name: str
    unit: str
    scale: float
    margin: float
    higher_is_better: bool
    digits: int

    @property
    def label(self) -> str:
        """The metric with its unit."""
        return f"{self.name}, {self.unit}".removesuffix(", ").replace("points", "%")

    @property
    def change(self) -> str:
        """A difference in the metric with its unit."""
        return f"{self.name}, {self.unit}".removesuffix(", ")


MEASURES: dict[str, Measure] = {
    "accuracy": Measure("accuracy", "points", 100, 0.3, higher_is_better=True, digits=2),
    "nll_scaled": Measure("NLL after scaling", "nats", 1, 0.02, higher_is_better=False, digits=3),
    "ece": Measure("ECE", "", 1, 0.01, higher_is_better=False, digits=3),
    "kl_posterior": Measure("KL from the truth", "nats", 1, 0.02, higher_is_better=False, digits=3),
    "kl_posterior_scaled": Measure("KL at the best τ", "nats", 1, 0.02, higher_is_better=False, digits=3),
    "kl_dark": Measure("KL on wrong classes", "nats", 1, 0.02, higher_is_better=False, digits=3),
    "train_nll": Measure("training loss", "nats", 1, 0.02, higher_is_better=False, digits=3),
    # No paper names margins for these. In nats as for likelihoods; diversity has a wider one, since its estimate from
    # neighbours is noisy; 1 − S has half of ECE's, since the printed effects are at most .0132.
    "uncertainty": Measure("predictive uncertainty", "nats", 1, 0.02, higher_is_better=True, digits=3),
    "diversity": Measure("confidence diversity", "nats", 1, 0.1, higher_is_better=True, digits=3),
    "erased_vector": Measure("1 − S, vector variance", "", 1, 0.005, higher_is_better=False, digits=4),
    "erased_std": Measure("1 − S, std of true class", "", 1, 0.005, higher_is_better=False, digits=4),
    "erased_vector_matched": Measure("1 − S at equal confidence", "", 1, 0.005, higher_is_better=False, digits=4),
    "erased_std_matched": Measure("std at equal confidence", "", 1, 0.005, higher_is_better=False, digits=4),
    "train_erased_vector": Measure("1 − S on training images", "", 1, 0.005, higher_is_better=False, digits=4),
    "train_erased_std": Measure("std on training images", "", 1, 0.005, higher_is_better=False, digits=4),
    "similar_mass": Measure("share of wrong mass on similar classes", "points", 100, 0.5, True, digits=2),
    "moved": Measure("divergence from its past", "nats", 1, 0.01, higher_is_better=False, digits=3),
    # Centres are a scatter or two apart. A rank correlation of .1 is a small one in Cohen's convention.
    "similar_distance": Measure("distance of similar classes", "scatters", 1, 0.05, higher_is_better=True, digits=3),
    "other_distance": Measure("distance of other classes", "scatters", 1, 0.05, higher_is_better=True, digits=3),
    "information": Measure("mutual information", "nats", 1, 0.02, higher_is_better=False, digits=3),
    "association": Measure("partial rank correlation", "", 1, 0.1, higher_is_better=True, digits=2),
    "variance": Measure("confidence variance", "", 1, 0.005, higher_is_better=True, digits=4),
    # The claim on it names a size of its own, a tenth of a point: its margin is as large.
    "flattery": Measure("best over last epoch", "points", 1, 0.1, higher_is_better=True, digits=2),
    "sharpness": Measure("sharpness", "nats", 1, 0.02, higher_is_better=False, digits=3),
}


def table(results: Results, arms: dict[str, Arm], control: str, metrics: Sequence[str]) -> pd.DataFrame:
    """A row an arm: n; for each metric its mean and the paired difference to the control with its 95 % interval.

    Training accuracy and diverged runs stand in every row.
    """
    rows = []
    for label, arm in arms.items():
        row: dict[str, object] = {"arm": label, "n": len(results.records(arm))}
        for metric in metrics:
            measure = MEASURES[metric]
            row[measure.label] = f"{measure.scale * results.values(arm, metric).mean():.{measure.digits}f}"
            differences = measure.scale * results.differences(arm, arms[control], metric)
            change, *interval = statistics.mean_interval(differences)
            row[f"Δ {measure.change} [95 %]"] = "–" if label == control else signed(change, interval, measure.digits)
        row["training accuracy, %"] = f"{100 * results.values(arm, 'train_accuracy').mean():.1f}"
        row["diverged"] = round(results.diverged(arm) * len(results.records(arm)))
        rows.append(row)
    return pd.DataFrame(rows).set_index("arm")


def signed(mean: float, interval: Sequence[float], digits: int) -> str:
    """A difference with its interval, signs written out."""
    low, high = interval
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]".replace("-", "−")


def records_table(results: Results) -> pd.DataFrame:
    """A row a run: its key, setting, objective, schedule, seed and every metric."""
    return pd.DataFrame(
        {
            "key": record.key,
            "data": record.run["data"]["name"],
            "train": record.run["data"]["train"],
            **record.run["objective"],
            "learning_rate": record.run["schedule"]["learning_rate"],
            "weight_decay": record.run["schedule"]["weight_decay"],
            "seed": record.run["seed"],
            **record.metrics,
            "diverged_at": record.diverged_at,
        }
        for arm in results.arms
        for record in results.records(arm)
    )


def _chance(setting: Setting) -> dict[str, float]:
    """What a network at chance level scores; its calibration error is that of a sure guess."""
    classes = dataset(setting.data).classes
    accuracies = dict.fromkeys(("accuracy", "validation_accuracy", "train_accuracy"), 1 / classes)
    likelihoods = dict.fromkeys(("nll", "nll_scaled", "validation_nll", "train_nll"), float(np.log(classes)))
    divergences = dict.fromkeys(("kl_posterior", "kl_posterior_scaled"), float(np.log(classes)))
    chance = {**accuracies, **likelihoods, **divergences, "kl_dark": float(np.log(classes - 1)), "ece": 1 - 1 / classes}
    return {**dict.fromkeys(MEASURES, np.nan), **chance}
