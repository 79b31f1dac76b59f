"""Tuning: the baseline first, then 12 trials for every method, judged by validation accuracy at the last epoch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path

from lsr_core.augmentation import Augmentation
from lsr_core.errors import require
from lsr_core.models import ImageNetwork, Perceptron
from lsr_core.objectives import Objective, constants_of, describe, objective
from lsr_core.run import ExactPosterior
from lsr_core.schedule import Schedule
from lsr_core.store import Store

from .arms import TUNING_SEEDS, Arm, ArmTeacher, Network, Setting
from .results import collect


@dataclass(frozen=True)
class Regime:
    """How the networks of a setting are trained, but for what is tuned.

    The baseline is tuned over `rates` and `decays`. Trials, of students, have `trial_epochs` and the seeds
    `trial_seeds`; `every` is the number of epochs between the copies that a method remembers.
    """

    preset: str
    student: Network
    strong: Network
    weak: Network
    schedule: Schedule
    rates: tuple[float, ...]
    decays: tuple[float, ...]
    trial_epochs: int
    trial_seeds: range
    every: int
    augmentation: Augmentation | None = None


_PERCEPTRONS = Regime(
    "quick",
    student=Perceptron(),
    strong=Perceptron((256,)),
    weak=Perceptron((8,)),
    schedule=Schedule(0.1),
    rates=(0.05, 0.1, 0.2),
    decays=(1e-3, 5e-3, 1e-2, 2e-2),
    trial_epochs=60,
    trial_seeds=TUNING_SEEDS,
    every=5,
)
# Among the cheapest of `regime_trials`; cross-entropy fits its training images here at a strong decay too.
_IMAGES = Regime(
    "desktop",
    student=ImageNetwork("plain_cnn", 32),
    strong=ImageNetwork("plain_cnn", 64),
    weak=ImageNetwork("plain_cnn", 8),
    schedule=Schedule(0.1, epochs=20, batch_size=64, nesterov=True),
    rates=(0.05, 0.1, 0.2),
    decays=(1e-3, 2e-3, 4e-3, 8e-3),
    trial_epochs=10,
    trial_seeds=TUNING_SEEDS[:1],
    every=2,
    augmentation=Augmentation(0, flip=True, rotation=0.0),
)
_TRACKS = replace(_PERCEPTRONS, preset="desktop", trial_seeds=TUNING_SEEDS[:6])

DIGITS = (Setting("digits", 100), Setting("digits", 300))
MIXTURES = tuple(Setting(f"mixture-10-{bayes}", 300) for bayes in (65, 80, 95))
SETTINGS = (*DIGITS, *MIXTURES)
CIFAR = Setting("cifar100", 5000)
AUDIO = tuple(Setting(f"gtzan/fold-{fold}", 720) for fold in range(5))


def regime(setting: Setting) -> Regime:
    """How the networks of a setting are trained."""
    return _IMAGES if setting == CIFAR else _TRACKS if setting in AUDIO else _PERCEPTRONS


def teacher(setting: Setting, name: str) -> ArmTeacher | ExactPosterior:
    """A teacher on this setting; raises `InputError` for an unknown name.

    `strong` is a wider and `weak` a narrower network; `equal` is the student's own; `poor` is the strong one after 2 of
    200 epochs, before its learning rate has fallen; `posterior` is the truth, where it is known.
    """
    if name == "posterior":
        return ExactPosterior()
    made = regime(setting)
    networks = {"strong": made.strong, "poor": made.strong, "weak": made.weak, "equal": made.student}
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
        if self.decay is None:
            baseline = tuned(setting, "cross-entropy").schedule
            rate, decay = self.rate * baseline.learning_rate, baseline.weight_decay
        else:
            rate, decay = self.rate, self.decay
        made = _arm(setting, self.objective, rate, decay, teacher_name)
        return replace(made, schedule=replace(made.schedule, epochs=regime(setting).trial_epochs))


def _arm(setting: Setting, objective: Objective, rate: float, decay: float, teacher_name: str | None) -> Arm:
    """A student of the setting's regime."""
    made = regime(setting)
    schedule = replace(made.schedule, learning_rate=rate, weight_decay=decay)
    taught = teacher_name and teacher(setting, teacher_name)
    return Arm(setting, objective, schedule, made.student, teacher=taught, augmentation=made.augmentation)


def _grid(method: str, rates: Sequence[float] = (1.0,), **constants: Sequence[float]) -> list[Trial]:
    cells = product(rates, *constants.values())
    return [Trial(objective(method, **dict(zip(constants, cell, strict=True))), rate) for rate, *cell in cells]


_THIRDS = (1.0, 0.5, 0.25)
_DISTILLED = {"rates": (1.0, 0.5), "temperature": (1.0, 4.0), "alpha": (0.1, 0.5, 0.9)}
_REPLAYED = {"rates": _THIRDS, "temperature": (2.0, 4.0), "alpha": (0.3, 0.7)}
_DRAWN = {"rates": (1.0, 0.5), "alpha": (0.2, 0.4, 0.6), "a": (1.0, 3.0)}
_RUNGS = ("ladder-uniform", "ladder-class-means", "ladder-confidence", "ladder-permuted")

# What is tuned beside cross-entropy: names of methods, with their teacher's after a colon where there is a choice.
_TRIALS: dict[str, list[Trial]] = {
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
    takes = name in _TRIALS and _TRIALS[name][0].objective.takes_teacher
    return (chosen or _TEACHERS.get(method, "strong")) if takes else None


_ON_IMAGES = (
    *("lsr", "lsrkd", "lsrkd-tc", "tf-kd-reg", "tf-kd-reg-released", "kd", "re-kd", "de-kd", "tf-kd-self"),
    *("self-distillation-released", "soft-only", "mrkd", "mrkd-tc", "beta-smoothing", "zipf", *_RUNGS),
)
_ON_AUDIO = ("lsr", "lsrkd", "lsrkd-tc", "mrkd")

METHODS = ("cross-entropy", *_TRIALS)  # that are tuned, the baseline first


def settings_of(name: str, preset: str = "quick") -> tuple[Setting, ...]:
    """Where a method is tuned at a preset: the truth teaches only where it is known.

    Raises `InputError` for a method or a preset that is not tuned.
    """
    require(name in METHODS, f"unknown method {name!r}; there are trials for {', '.join(METHODS)}")
    require(preset in ("quick", "desktop"), f"unknown preset {preset!r}; tuned are quick and desktop")
    if preset == "desktop":
        settings = {CIFAR: _ON_IMAGES, **dict.fromkeys(AUDIO, _ON_AUDIO)}
        return tuple(setting for setting, own in settings.items() if name in ("cross-entropy", *own))
    return MIXTURES if name.endswith(":posterior") else SETTINGS


def trials(name: str, setting: Setting) -> list[Trial]:
    """A method's 12 trials in a setting; raises `InputError` for a method that has none."""
    require(name in METHODS, f"unknown method {name!r}; there are trials for {', '.join(METHODS)}")
    made = regime(setting)
    if name == "cross-entropy":
        return [Trial(objective(name), rate, decay) for rate, decay in product(made.rates, made.decays)]
    return [
        replace(trial, objective=replace(trial.objective, every=made.every))
        if hasattr(trial.objective, "every")
        else trial
        for trial in _TRIALS[name]
    ]


def tune(name: str, setting: Setting, store: Store | None = None, workers: int = 1) -> list[dict[str, object]]:
    """Run a method's trials on the tuning seeds: a row a trial with its validation figures, in the trials' order.

    Raises `InputError` for a method that has no trials.
    """
    seeds = regime(setting).trial_seeds
    arms = [trial.arm(setting, _teacher_of(name)) for trial in trials(name, setting)]
    results = collect(arms, seeds, (), store, workers)
    return [
        {
            "data": setting.data,
            "train": setting.train,
            **describe(arm.objective),
            "method": name,
            "learning_rate": arm.schedule.learning_rate,
            "weight_decay": arm.schedule.weight_decay,
            "seeds": len(seeds),
            **{metric: round(float(results.values(arm, metric).mean()), 6) for metric in _JUDGED_BY},
            "diverged": results.diverged(arm),
        }
        for arm in arms
    ]


_JUDGED_BY = ("validation_accuracy", "validation_nll", "train_accuracy")


def best_trial(rows: Sequence[dict[str, object]]) -> dict[str, object]:
    """The trial with the highest validation accuracy; ties go to the lower likelihood loss."""
    return max(rows, key=lambda row: (row["validation_accuracy"], -row["validation_nll"]))


def tuned_rows(preset: str = "quick") -> list[dict[str, object]]:
    """All trials with their validation figures, as published beside this package (`lsr tune` makes them anew)."""
    return [row for rows in _tuned(preset).values() for row in rows]


@cache
def _tuned(preset: str) -> dict[tuple[str, int, str], list[dict[str, object]]]:
    """The published rows by data set, training-set size and method."""
    found: dict[tuple[str, int, str], list[dict[str, object]]] = {}
    path = _tuned_file(preset)
    for row in map(json.loads, path.read_text().splitlines() if path.exists() else []):
        found.setdefault((row["data"], row["train"], row["method"]), []).append(row)
    return found


def _tuned_file(preset: str) -> Path:
    return Path(__file__).parents[2] / "results" / "tuning" / f"{preset}.jsonl"


def write_tuned_rows(rows: Sequence[dict[str, object]], preset: str = "quick") -> Path:
    """Replace the published rows of the methods and settings that `rows` speak of."""

    def place(row: dict[str, object]) -> tuple[object, ...]:
        return row["data"], row["train"], row["method"]

    renewed = {place(row) for row in rows}
    kept = [row for row in tuned_rows(preset) if place(row) not in renewed]
    settings = dict.fromkeys(setting for method in METHODS for setting in settings_of(method, preset))
    order = {(s.data, s.train, method): i for i, (s, method) in enumerate(product(settings, METHODS))}
    lines = [json.dumps(row) for row in sorted([*kept, *rows], key=lambda row: order[place(row)])]
    path = _tuned_file(preset)
    path.write_text("\n".join(lines) + "\n")
    for read in (_tuned, tuned):
        read.cache_clear()
    return path


@cache
def tuned(setting: Setting, method: str) -> Arm:
    """A method's arm with the constants that validation chose; raises `InputError` where none were tuned."""
    rows = _tuned(regime(setting).preset).get((setting.data, setting.train, method), [])
    require(bool(rows), f"method {method!r} is not tuned on {setting}; run `lsr tune {method}`")
    row = best_trial(rows)
    method_name = method.partition(":")[0]
    constants = {name: row[name] for name in constants_of(type(objective(method_name))) if row[name] is not None}
    made = objective(method_name, **constants)
    return _arm(setting, made, row["learning_rate"], row["weight_decay"], _teacher_of(method))
