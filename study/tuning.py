"""Tuned arms: how networks are trained in each setting, the trials of every method there, and what was chosen."""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from filelock import FileLock

from lsr_core.augmentation import Augmentation
from lsr_core.errors import InputError, require
from lsr_core.files import write_whole
from lsr_core.models import ImageNetwork, Perceptron
from lsr_core.objectives import Objective, constants_of, objective
from lsr_core.run import ExactPosterior, Run, TrainedTeacher
from lsr_core.schedule import Schedule

from . import plans
from .plans import Network
from .settings import AUDIO, CIFAR, DIGITS, MIXTURES, TUNING_SEEDS, Setting

FOLDER = Path(__file__).parents[1] / "results" / "tuning"
_CONTENT = tomllib.loads(Path(__file__).with_name("trials.toml").read_text(encoding="utf-8"))
_TRIALS: dict[str, dict[str, Any]] = _CONTENT["trials"]
BASELINE = "cross-entropy"
METHODS = (BASELINE, *_TRIALS)  # that are tuned where no plan says which, the baseline first
SMOOTHING = 0.1  # the ε of smoothed teachers

# Where methods are tuned, by preset.
TUNED: dict[str, tuple[Setting, ...]] = {"quick": (*DIGITS, *MIXTURES), "desktop": (CIFAR, *AUDIO)}
TUNED |= {study: plans.plan(study).settings for study in plans.planned()}

Cell = dict[str, Any]  # a trial's knobs: learning rate and weight decay, or their shares of the baseline's; constants
Row = dict[str, Any]  # a trial's constants and validation figures


class NotTuned(InputError):
    """A method without published trials in a setting."""

    def __init__(self, method: str, setting: Setting) -> None:
        super().__init__(f"method {method!r} is not tuned on {setting}; run `lsr tune {method}`")
        self.method, self.setting = method, setting


@dataclass(frozen=True)
class Protocol:
    """How the networks of a setting are trained, but for what is tuned.

    The baseline is tuned over `rates` and `decays`. Where there is a `first` network, students start from its weights,
    as cross-entropy trained it with this schedule: all differ in the second step alone. Trials, of students, have
    `trial_epochs` and the seeds `trial_seeds`; `every` is the number of epochs between the copies that a method
    remembers.
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
    first: Network | None = None


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
    if setting.study:
        return planned_protocol(setting.study)
    return _IMAGES if setting == CIFAR else _TRACKS if setting in AUDIO else _PERCEPTRONS


@cache
def planned_protocol(study: str) -> Protocol:
    """The protocol of a plan, whose trials are as long as its runs."""
    content = plans.plan(study).content
    own, tuning = content["protocol"], content["tuning"]
    schedule = Schedule(**own["schedule"])
    return Protocol(
        **{size: plans.network(own[size]) for size in ("student", "strong", "weak")},
        schedule=schedule,
        rates=tuple(tuning["trials"][BASELINE]["learning_rate"]),
        decays=tuple(tuning["trials"][BASELINE]["weight_decay"]),
        trial_epochs=schedule.epochs,
        trial_seeds=tuning["seeds"],
        every=own["every"],
        augmentation=Augmentation(**own["augmentation"]) if "augmentation" in own else None,
        first=plans.network(own["first"]) if "first" in own else None,
    )


def methods_of(setting: Setting) -> tuple[str, ...]:
    """The methods that are tuned in a setting, the baseline first; the truth teaches only where it is known."""
    if setting.study:
        own = plans.plan(setting.study)
        return tuple(method for method in own.trials if own.has(setting, method))
    methods = _CONTENT["on"].get(setting.data.partition("/")[0], METHODS)
    return tuple(method for method in methods if setting in MIXTURES or not method.endswith(":posterior"))


def settings_of(method: str, preset: str = "quick") -> tuple[Setting, ...]:
    """Where a method is tuned at a preset; raises `InputError` for a method or a preset that is not tuned."""
    require(preset in TUNED, f"unknown preset {preset!r}; tuned are {', '.join(TUNED)}")
    known = list(dict.fromkeys(name for setting in TUNED[preset] for name in methods_of(setting)))
    require(method in known, f"unknown method {method!r}; there are trials for {', '.join(known)}")
    return tuple(setting for setting in TUNED[preset] if method in methods_of(setting))


def teacher_of(setting: Setting, kind: str) -> TrainedTeacher | ExactPosterior:
    """A teacher on this setting; raises `InputError` for an unknown kind.

    `strong` and `weak` are the protocol's, mostly a wider and a narrower network; `equal` is the student's own;
    `smoothed` is the strong one
    trained by label smoothing; `poor` is the strong one after 2 of 200 epochs, before its learning rate has fallen;
    `posterior` is the truth, where it is known.
    """
    if kind == "posterior":
        return ExactPosterior()
    own = protocol(setting)
    networks = dict.fromkeys(("strong", "poor", "smoothed"), own.strong) | {"weak": own.weak, "equal": own.student}
    require(kind in networks, f"unknown teacher {kind!r}; there are {', '.join(networks)}, posterior")
    run = replace(tuned(setting, BASELINE), network=networks[kind], role="teacher", initial=None)
    if kind == "poor":
        run = replace(run, schedule=replace(run.schedule, epochs=200, stop=2))
    if kind == "smoothed":
        run = replace(run, objective=objective("lsr", epsilon=SMOOTHING))
    return TrainedTeacher(run)


def _student(setting: Setting, method: str, constants: dict[str, Any], rate: float, decay: float) -> Run:
    """An arm by the setting's protocol, with the teacher that the method has."""
    own, term = protocol(setting), _objective(method, constants)
    schedule = replace(own.schedule, learning_rate=rate, weight_decay=decay)
    kind = _tried(setting, method).get("teacher", "strong")
    teacher = teacher_of(setting, kind) if term.takes_teacher else None
    run = Run(
        setting.data, setting.train, term, schedule, network=own.student, teacher=teacher, augmentation=own.augmentation
    )
    return run if own.first is None else in_two_steps(run, own.first, own.schedule)


def in_two_steps(run: Run, first: Network, schedule: Schedule) -> Run:
    """A run from the weights of a `first` network, which cross-entropy trained by this schedule."""
    step = replace(run, objective=objective(BASELINE), schedule=schedule, network=first, teacher=None)
    return replace(run, initial=TrainedTeacher(replace(step, role="first step")))


def _objective(method: str, constants: dict[str, Any]) -> Objective:
    return objective(method.partition(":")[0], **constants)


def _tried(setting: Setting, method: str) -> dict[str, Any]:
    """A method's entry in the table of trials: the values of each knob, and whose student it trains."""
    trials = plans.plan(setting.study).trials if setting.study else _TRIALS
    return trials.get(method, {})


def cells(method: str, setting: Setting) -> list[Cell]:
    """The knobs of a method's trials in a setting; raises `InputError` for a method that has none."""
    known = methods_of(setting)
    require(method in known, f"unknown method {method!r}; there are trials for {', '.join(known)}")
    own = protocol(setting)
    if method == BASELINE:
        knobs = {"learning_rate": own.rates, "weight_decay": own.decays}
    else:
        knobs = {name: values for name, values in _tried(setting, method).items() if name != "teacher"}
        if "every" in constants_of(type(_objective(method, {}))):
            knobs["every"] = [own.every]
    return [dict(zip(knobs, values, strict=True)) for values in product(*knobs.values())]


def trial(method: str, setting: Setting, cell: Cell) -> Run:
    """The arm of a trial."""
    own, constants = protocol(setting), dict(cell)
    base = own.schedule if method == BASELINE else tuned(setting, BASELINE).schedule
    rate = constants.pop("rate", 1.0) * constants.pop("learning_rate", base.learning_rate)
    decay = constants.pop("decay_share", 1.0) * constants.pop("weight_decay", base.weight_decay)
    arm = _student(setting, method, constants, rate, decay)
    return replace(arm, schedule=replace(arm.schedule, epochs=own.trial_epochs))


def trials(method: str, setting: Setting) -> list[Run]:
    """A method's trials in a setting, as arms; raises `InputError` for a method that has none."""
    return [trial(method, setting, cell) for cell in cells(method, setting)]


def best_trial(rows: Sequence[Row]) -> Row:
    """The trial with the highest validation accuracy of those on most seeds.

    Ties go to the lower likelihood loss, then to the earlier trial.
    """
    return max(rows, key=lambda row: (row["seeds"], row["validation_accuracy"], -row["validation_nll"]))


@cache
def tuned(setting: Setting, method: str) -> Run:
    """A method's arm with the constants that validation chose; raises `NotTuned` where none were tuned."""
    rows = rows_of(setting, method)
    if not rows:
        raise NotTuned(method, setting)
    row = best_trial(rows)
    names = constants_of(type(_objective(method, {})))
    constants = {name: row[name] for name in names if row[name] is not None}
    return _student(setting, method, constants, row["learning_rate"], row["weight_decay"])


def rows_of(setting: Setting, method: str) -> list[Row]:
    """The published trials of a method in a setting."""
    return [row for preset in TUNED for row in published_rows(preset).get((*setting, method), [])]


def tuned_rows(preset: str = "quick") -> list[Row]:
    """All trials with their validation figures, as published beside this package (`lsr tune` makes them anew)."""
    return [row for rows in published_rows(preset).values() for row in rows]


@cache
def published_rows(preset: str) -> dict[tuple[str, int, str, str], list[Row]]:
    """The published rows by setting and method."""
    found: dict[tuple[str, int, str, str], list[Row]] = {}
    path = FOLDER / f"{preset}.jsonl"
    for row in map(json.loads, path.read_text(encoding="utf-8").splitlines() if path.exists() else []):
        found.setdefault(_place(row), []).append(row)
    return found


def _place(row: Row) -> tuple[str, int, str, str]:
    return row["data"], row["train"], row.get("study", ""), row["method"]


def write_tuned_rows(rows: Sequence[Row], preset: str = "quick") -> Path:
    """Replace the published rows of the methods and settings that `rows` speak of; other processes write theirs."""
    renewed, path = set(map(_place, rows)), FOLDER / f"{preset}.jsonl"
    order = [(*setting, method) for setting in TUNED[preset] for method in methods_of(setting)]
    with FileLock(path.with_suffix(".lock")):
        published_rows.cache_clear()
        kept = [row for row in tuned_rows(preset) if _place(row) not in renewed and _place(row) in order]
        ordered = sorted([*kept, *rows], key=lambda row: order.index(_place(row)))
        write_whole(path, "".join(f"{json.dumps(row)}\n" for row in ordered).encode())
    path.with_suffix(".lock").unlink(missing_ok=True)
    for read in (published_rows, tuned):
        read.cache_clear()
    return path
