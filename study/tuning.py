"""Tuning: the baseline first, then 12 trials for every method, judged by validation accuracy at the last epoch."""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from lsr_core.augmentation import Augmentation
from lsr_core.errors import require
from lsr_core.models import Convnet, ImageNetwork, Perceptron
from lsr_core.objectives import Objective, constants_of, describe, objective
from lsr_core.run import ExactPosterior, Run, TrainedTeacher
from lsr_core.schedule import Schedule
from lsr_core.store import Store

from .results import collect
from .settings import AUDIO, CIFAR, MIXTURES, TUNED, TUNING_SEEDS, Setting

_FOLDER = Path(__file__).parents[1] / "results" / "tuning"
_CONTENT = tomllib.loads(Path(__file__).with_name("trials.toml").read_text())
_TRIALS: dict[str, dict[str, Any]] = _CONTENT["trials"]
METHODS = ("cross-entropy", *_TRIALS)  # that are tuned, the baseline first

Network = Perceptron | Convnet | ImageNetwork
Row = dict[str, Any]  # a trial's constants and validation figures


@dataclass(frozen=True)
class Protocol:
    """How the networks of a setting are trained, but for what is tuned.

    The baseline is tuned over `rates` and `decays`. Trials, of students, have `trial_epochs` and the seeds
    `trial_seeds`; `every` is the number of epochs between the copies that a method remembers.
    """

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


_PERCEPTRONS = Protocol(
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
# Among the cheapest of the pilot runs; cross-entropy fits its training images here at a strong decay too.
_IMAGES = Protocol(
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
_TRACKS = replace(_PERCEPTRONS, trial_seeds=TUNING_SEEDS[:6])


def protocol(setting: Setting) -> Protocol:
    """How the networks of a setting are trained."""
    return _IMAGES if setting == CIFAR else _TRACKS if setting in AUDIO else _PERCEPTRONS


def settings_of(method: str, preset: str = "quick") -> tuple[Setting, ...]:
    """Where a method is tuned at a preset: the truth teaches only where it is known.

    Raises `InputError` for a method or a preset that is not tuned.
    """
    _require_method(method)
    require(preset in TUNED, f"unknown preset {preset!r}; tuned are {' and '.join(TUNED)}")
    known = MIXTURES if method.endswith(":posterior") else TUNED[preset]
    methods = {setting: _CONTENT["on"].get(setting.data.partition("/")[0], METHODS) for setting in TUNED[preset]}
    return tuple(setting for setting in TUNED[preset] if setting in known and method in methods[setting])


def teacher_of(setting: Setting, kind: str) -> TrainedTeacher | ExactPosterior:
    """A teacher on this setting; raises `InputError` for an unknown kind.

    `strong` is a wider and `weak` a narrower network; `equal` is the student's own; `poor` is the strong one after 2 of
    200 epochs, before its learning rate has fallen; `posterior` is the truth, where it is known.
    """
    if kind == "posterior":
        return ExactPosterior()
    own = protocol(setting)
    networks = {"strong": own.strong, "poor": own.strong, "weak": own.weak, "equal": own.student}
    require(kind in networks, f"unknown teacher {kind!r}; there are {', '.join(networks)}, posterior")
    baseline = tuned(setting, "cross-entropy")
    schedule = replace(baseline.schedule, epochs=200, stop=2) if kind == "poor" else baseline.schedule
    return TrainedTeacher(replace(baseline, schedule=schedule, network=networks[kind], role="teacher"))


def _student(setting: Setting, method: str, constants: dict[str, Any], rate: float, decay: float) -> Run:
    """An arm by the setting's protocol, with the teacher that the method has."""
    own, term = protocol(setting), _objective(method, constants)
    schedule = replace(own.schedule, learning_rate=rate, weight_decay=decay)
    kind = _TRIALS.get(method, {}).get("teacher", "strong")
    teacher = teacher_of(setting, kind) if term.takes_teacher else None
    return Run(*setting, term, schedule, network=own.student, teacher=teacher, augmentation=own.augmentation)


def _objective(method: str, constants: dict[str, Any]) -> Objective:
    return objective(method.partition(":")[0], **constants)


def trials(method: str, setting: Setting) -> list[Run]:
    """A method's 12 trials in a setting, as arms; raises `InputError` for a method that has none."""
    _require_method(method)
    own = protocol(setting)
    if method == "cross-entropy":
        arms = [_student(setting, method, {}, *cell) for cell in product(own.rates, own.decays)]
    else:
        baseline = tuned(setting, "cross-entropy").schedule
        arms = [
            _student(setting, method, constants, share * baseline.learning_rate, baseline.weight_decay)
            for share, constants in _combinations(method, own.every)
        ]
    return [replace(arm, schedule=replace(arm.schedule, epochs=own.trial_epochs)) for arm in arms]


def _combinations(method: str, every: int) -> list[tuple[float, dict[str, Any]]]:
    """The shares of the baseline's learning rate and the constants to try."""
    _, *names = tried = {"rate": [1.0]} | {name: v for name, v in _TRIALS[method].items() if name != "teacher"}
    fixed = {"every": every} if "every" in constants_of(type(_objective(method, {}))) else {}
    cells = product(*tried.values())
    return [(share, dict(zip(names, constants, strict=True)) | fixed) for share, *constants in cells]


def tune(method: str, setting: Setting, store: Store | None = None, workers: int = 1) -> list[Row]:
    """Run a method's trials on the tuning seeds: a row a trial with its validation figures, in the trials' order.

    Raises `InputError` for a method that has no trials.
    """
    seeds, arms = protocol(setting).trial_seeds, trials(method, setting)
    results = collect(arms, seeds, store=store, workers=workers)
    judged_by = ("validation_accuracy", "validation_nll", "train_accuracy")
    return [
        {
            "data": setting.data,
            "train": setting.train,
            **describe(arm.objective),
            "method": method,
            "learning_rate": arm.schedule.learning_rate,
            "weight_decay": arm.schedule.weight_decay,
            "seeds": len(seeds),
            **{metric: round(float(results.values(arm, metric).mean()), 6) for metric in judged_by},
            "diverged": results.diverged(arm),
        }
        for arm in arms
    ]


def best_trial(rows: Sequence[Row]) -> Row:
    """The trial with the highest validation accuracy; ties go to the lower likelihood loss."""
    return max(rows, key=lambda row: (row["validation_accuracy"], -row["validation_nll"]))


@cache
def tuned(setting: Setting, method: str) -> Run:
    """A method's arm with the constants that validation chose; raises `InputError` where none were tuned."""
    rows = [row for preset in TUNED for row in _rows(preset).get((*setting, method), [])]
    require(bool(rows), f"method {method!r} is not tuned on {setting}; run `lsr tune {method}`")
    row = best_trial(rows)
    names = constants_of(type(_objective(method, {})))
    constants = {name: row[name] for name in names if row[name] is not None}
    return _student(setting, method, constants, row["learning_rate"], row["weight_decay"])


def tuned_rows(preset: str = "quick") -> list[Row]:
    """All trials with their validation figures, as published beside this package (`lsr tune` makes them anew)."""
    return [row for rows in _rows(preset).values() for row in rows]


@cache
def _rows(preset: str) -> dict[tuple[str, int, str], list[Row]]:
    """The published rows by data set, training-set size and method."""
    found: dict[tuple[str, int, str], list[Row]] = {}
    path = _FOLDER / f"{preset}.jsonl"
    for row in map(json.loads, path.read_text().splitlines() if path.exists() else []):
        found.setdefault(_place(row), []).append(row)
    return found


def _place(row: Row) -> tuple[str, int, str]:
    return row["data"], row["train"], row["method"]


def write_tuned_rows(rows: Sequence[Row], preset: str = "quick") -> Path:
    """Replace the published rows of the methods and settings that `rows` speak of."""
    renewed = set(map(_place, rows))
    kept = [row for row in tuned_rows(preset) if _place(row) not in renewed]
    order = [(*setting, method) for setting, method in product(TUNED[preset], METHODS)]
    lines = [json.dumps(row) for row in sorted([*kept, *rows], key=lambda row: order.index(_place(row)))]
    path = _FOLDER / f"{preset}.jsonl"
    path.write_text("\n".join(lines) + "\n")
    for read in (_rows, tuned):
        read.cache_clear()
    return path


def _require_method(method: str) -> None:
    require(method in METHODS, f"unknown method {method!r}; there are trials for {', '.join(METHODS)}")
