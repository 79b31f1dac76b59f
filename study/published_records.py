"""Published records: what a preset's runs measured, a line a run, in files that come with the project.

A run stands in `results/<preset>/<chapter>.jsonl` under the first chapter that shows its arm, in the order of arms and
seeds; a chapter of many runs goes on in `<chapter>-2.jsonl`. Values have six significant digits; `exact` is a hash of
all their digits, which a recomputed run must share, `checksum` one of all that the line says. A study's plan is named
by its hash in each of its lines.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from lsr_core._progress import bar
from lsr_core.data import dataset
from lsr_core.errors import InputError, require
from lsr_core.execute import execute
from lsr_core.files import write_whole
from lsr_core.run import Run, run_of
from lsr_core.store import Record, Store
from lsr_core.trainer import threads

from . import plans, studies
from .results import Results
from .studies import published_study

FOLDER = Path(__file__).parent.parent / "results"
SIGNIFICANT = 6
MOST_LINES = 300  # of a file, of whole arms: less than a megabyte
_TOLERANCE = 3.0  # standard deviations over an arm's seeds, on another kind of machine
# What runs with the same bits have in common.
SAME = (
    "processor", "simd", "torch", "device", "precision", "numerics", "cuda", "cudnn", "compiled", "stack"
)  # fmt: skip
_COMPARED = ("accuracy", "nll", "ece", "train_accuracy")


@dataclass(frozen=True)
class Line:
    """A published run and where it stands: the chapter's file and the line, counted from 1."""

    record: Record
    exact: str
    chapter: str
    number: int
    formerly: str | None = None  # the key before descriptions of runs changed
    plan: str | None = None  # the hash of the plan that it was published with

    @property
    def where(self) -> str:
        """The line's place in words."""
        return f"{self.chapter}.jsonl, line {self.number}"

    def __str__(self) -> str:
        named = {"formerly": self.formerly, "plan": self.plan}
        some = {name: value for name, value in named.items() if value is not None}
        content = {"key": self.record.key, **some, "exact": self.exact, **asdict(_rounded(self.record))}
        return json.dumps({**content, "checksum": _checksum(content)})


def presets() -> list[str]:
    """The studies that have published records."""
    return [name for name in studies.STUDIES if any((FOLDER / name).glob("*.jsonl"))]


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def exact_hash(record: Record) -> str:
    """The hash of everything that a run measured, in all digits."""
    measured = [record.metrics, record.curves, record.diverged_at]
    return hashlib.sha256(json.dumps(measured, sort_keys=True).encode()).hexdigest()[:16]


def publish(preset: str, store: Store) -> dict[str, int]:
    """Write the lines of every run of a study that has a record or a line; returns how many each file has.

    Raises `InputError` where there is neither, where a line belongs to no arm any more, or where the project's results
    cannot be written.
    """
    published, plan = _own_lines(preset), _plan_hash(preset)
    found = published or any(key in store for arms in _keys(preset).values() for arm in arms for key in arm)
    require(bool(found), f"{preset} has no published records, and {store.place} has none of its runs")
    _check_writable(FOLDER / preset)
    counts = {}
    for name, arms in _keys(preset).items():
        keys = [key for arm in arms for key in arm if key in store or key in published]
        own = {key: Line(r := store.get(key), exact_hash(r), name, 0, plan=plan) for key in keys if key in store}
        written = [own.get(key) or published[key] for key in keys]
        if written:
            write_whole(FOLDER / preset / f"{name}.jsonl", "".join(f"{line}\n" for line in written).encode())
            counts[name] = len(written)
    read.cache_clear()
    return counts


def _own_lines(preset: str) -> dict[str, Line]:
    """The lines of a study, each of an arm that it has; raises `InputError` for others, which would be lost."""
    published, own = lines(preset), set(planned_keys(preset))
    stray = [key for key in published if key not in own]
    fact = f"{len(stray)} published runs of {preset} belong to none of its arms any more, such as {stray[:1]}"
    require(not stray, f"{fact}; has its tuning changed? `git checkout results/tuning` brings it back")
    return published


def planned_keys(preset: str) -> list[str]:
    """The keys of all runs of a study's arms, as far as these are tuned."""
    return [key for arms in _keys(preset).values() for arm in arms for key in arm]


def take_over(folder: Path, store: Store) -> dict[str, int]:
    """Keep the records that a sweep left in a folder, publish the studies with plans that they belong to, and count.

    Raises `InputError`, before any is kept, for a folder without records, and for one that is damaged, of other
    numerics, or described by another version of the study.
    """
    other = Store(folder)
    found = list(other)
    require(bool(found), f"{folder} holds no records; a sweep leaves them in the folder that LSR_STORE names")
    other.check_numerics()
    for record in found:
        run_of(record.run)
    store.check_writable()
    for record in found:
        if record.key not in store:
            store.put(record)
    keys, counts = {record.key for record in found}, {}
    for name in plans.planned():
        studies.tune_from_records(name, store)
        if keys & studies.arms_by_key(name).keys():
            counts |= {f"{name}/{chapter}": count for chapter, count in publish(name, store).items()}
    return counts


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        message = f"{folder} cannot be written ({error.strerror}); publish from a clone of the project that is yours"
        raise InputError(message) from None


def lines(preset: str) -> dict[str, Line]:
    """Every published run of a preset by its key.

    Raises `InputError` for an unknown preset, a line that is no run, one that stands there twice, or one that was
    published with another plan.
    """
    published_study(preset)  # raises it for a preset that is none
    published, plan = dict(read(preset, FOLDER)), _plan_hash(preset)
    for line in published.values():
        message = f"{preset}, {line.where} was published with the plan {line.plan}, and that of the study is {plan}"
        require(line.plan == plan, f"{message}; a plan stays as it is once there are records")
    return published


def _plan_hash(preset: str) -> str | None:
    return plans.plan(preset).hash if preset in plans.planned() else None


@cache
def read(preset: str, folder: Path) -> dict[str, Line]:
    """The published lines of a study in a folder of results, by key."""
    published: dict[str, Line] = {}
    for path in sorted((folder / preset).glob("*.jsonl")):
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            where = f"{path.name}, line {number}"
            try:
                content = json.loads(text)
                is_whole = content.pop("checksum") == _checksum(content)
                key, exact = content.pop("key"), content.pop("exact")
                named = {name: content.pop(name, None) for name in ("formerly", "plan")}
                record = Record(**content)
                sound = record.key == key
            except (ValueError, TypeError, KeyError, AttributeError):
                sound = is_whole = False
            require(sound, f"{preset}, {where} is no published run: its key is not that of what it describes")
            require(is_whole, f"{preset}, {where} was changed: its checksum is not that of what it says")
            require(key not in published, f"{preset}, {where} has run {key}, which stands there twice")
            published[key] = Line(record, exact, path.stem, number, **named)
    return published


def link(preset: str, arm: Run, text: str) -> Markup:
    """A text that links to the first run of an arm on the page of published records."""
    line = lines(preset)[arm.at(published_study(preset).seeds[0]).key]
    return Markup('<a href="published.html#{}">{}</a>').format(place(preset, line), text)


def place(preset: str, line: Line) -> str:
    """The name of a line on the page of published records."""
    return f"{preset}-{line.chapter}-{line.number}"


def lines_table(preset: str) -> pd.DataFrame:
    """Every published run of a study, a row a line of its file, which other pages link to."""
    study = published_study(preset)
    arms = [item for chapter in study.arms().values() for item in chapter.items()]
    names = {run.key: name for name, arm in arms for run in arm.runs(study.seeds)}
    rows = []
    for line in lines(preset).values():
        record, where = line.record, f"{line.chapter}.jsonl, {line.number}"
        accuracies = [record.metrics[metric] for metric in ("accuracy", "train_accuracy")]
        shown = [record.failure or f"{100 * accuracy:.2f}" for accuracy in accuracies]
        start = [Markup('<span id="{}">{}</span>').format(place(preset, line), where), names[record.key]]
        rows.append([*start, *shown, record.run["seed"], record.key, str(record.provenance["commit"])[:7]])
    columns = ["file, line", "arm", "accuracy, %", "training, %", "seed", "key", "commit"]
    return pd.DataFrame(rows, columns=columns).set_index("file, line")


def results(preset: str, arms: Iterable[Run]) -> Results:
    """The published records of arms, for the seeds of the preset; an arm that lacks a seed is left out."""
    published, seeds = lines(preset), published_study(preset).seeds
    own = {arm: [published.get(key) for key in _keys_of(arm, tuple(seeds))] for arm in arms}
    return Results({arm: [line.record for line in found] for arm, found in own.items() if all(found)})


def lacks(preset: str, chapter: str) -> bool:
    """Whether records are missing, of all seeds or some, of an arm that a study's plan shows first in this chapter."""
    own, there = plans.plan(preset), published_study(preset).arms().get(chapter, {})
    planned = sum(own.has(setting, arm) for setting in own.settings for arm in own.arms.get(chapter, {}))
    found = results(preset, there.values()).arms
    return sum(arm in found for arm in there.values()) < planned


@cache
def _keys_of(arm: Run, seeds: tuple[int, ...]) -> list[str]:
    """The keys of an arm's runs, which every table of a page asks for again."""
    return [run.key for run in arm.runs(seeds)]


def named(preset: str, names: Sequence[str]) -> tuple[Results, dict[str, Run]]:
    """Arms of a study by their names, with their published records; an arm that lacks a seed is left out.

    Raises `InputError` for a name that the study does not have.
    """
    known = {name: arm for arms in published_study(preset).arms().values() for name, arm in arms.items()}
    for name in names:
        require(name in known, f"{preset} has no arm {name!r}; there are {', '.join(known)}")
    records = results(preset, [known[name] for name in names])
    return records, {name: known[name] for name in names if known[name] in records.arms}


def verify(preset: str) -> int:
    """Recompute every key and checksum, and the place of every line; returns how many runs there are.

    Raises `InputError` for a study without records, a line that is not what it says, that this version of the study
    does not make, or that stands elsewhere than its arm's.
    """
    published = lines(preset)
    require(bool(published), f"{preset} has no published records")
    places = {}
    for chapter, arms in _keys(preset).items():
        keys = [key for arm in arms for key in arm if key in published]
        places |= {key: (chapter, number) for number, key in enumerate(keys, 1)}
    for key, line in published.items():
        run_of(line.record.run)
        message = f"{preset}, {line.where}: run {key} belongs "
        require(key in places, message + "to no arm of this preset")
        chapter, number = places[key]
        require((chapter, number) == (line.chapter, line.number), f"{message}on line {number} of {chapter}.jsonl")
    return len(published)


@dataclass(frozen=True)
class Recomputation:
    """A published run trained again: whether every bit is the same, and how many standard deviations over its arm's
    seeds the metric is off that is off most.

    `alike` are the conditions: the same kind of machine, and as many runs side by side.
    """

    key: str
    where: str
    identical: bool
    alike: bool
    max_deviation: float

    @property
    def holds(self) -> bool:
        """The same bits under the same conditions, else within three standard deviations."""
        return self.identical if self.alike else self.max_deviation <= _TOLERANCE


def recompute(preset: str, sample: int, generator: np.random.Generator) -> Iterator[Recomputation]:
    """Train a random few of the published runs again, their teachers included, and compare what they measure.

    They are drawn from those whose data are here or can be downloaded.
    """
    published = _own_lines(preset)
    possible = makeable(preset)
    message = f"sample is {sample}; {preset} has {len(published)} published runs"
    lacking = f", of which {len(possible)} can be made here" if len(possible) < len(published) else ""
    require(1 <= sample <= len(possible), message + lacking)
    for key in bar(generator.choice(possible, sample, replace=False), unit="run"):
        line = published[key]
        before = line.record
        with tempfile.TemporaryDirectory() as folder, threads(before.provenance["threads"]):
            (record,) = execute([run_of(before.run)], Store(folder))
        (arm,) = (arm for arms in _keys(preset).values() for arm in arms if key in arm)
        deviation = _max_deviation(record, before, [published[other].record for other in arm if other in published])
        alike = all(record.provenance.get(name) == before.provenance.get(name) for name in SAME)
        yield Recomputation(key, line.where, exact_hash(record) == line.exact, alike, deviation)


def makeable(preset: str) -> list[str]:
    """The keys of a study's published runs whose data are here, or can be downloaded, sorted."""

    def is_there(name: str) -> bool:
        source = dataset(name)
        path = getattr(source, "path", None)
        return path is None or path.exists() or getattr(source, "download", None) is not None

    names = {line.record.run["data"]["name"] for line in lines(preset).values()}
    there = {name for name in names if is_there(name)}
    return sorted(key for key, line in lines(preset).items() if line.record.run["data"]["name"] in there)


def _max_deviation(record: Record, published: Record, arm: Sequence[Record]) -> float:
    """The largest difference of a metric from what is published, in standard deviations over the arm's seeds."""
    deviations = [0.0]
    for name in _COMPARED:
        now, before = _short(record.metrics[name]), published.metrics[name]
        if now != before:
            values = [member.metrics[name] for member in arm]
            known = None not in (now, before, *values) and len(set(values)) > 1
            deviations.append(abs(now - before) / np.std(values, ddof=1) if known else np.inf)
    return float(max(deviations))


def _keys(preset: str) -> dict[str, list[list[str]]]:
    """The keys of a study's runs, a list an arm, by the file they stand in, in their order there.

    An arm that is another one's equal, as where tuning chose the constants of another network, has no lines of its own.
    """
    study, seen, files = published_study(preset), set(), {}
    together = max(1, MOST_LINES // len(study.seeds))
    for chapter, arms in study.arms().items():
        own = [arm for arm in dict.fromkeys(arms.values()) if arm not in seen]
        seen.update(own)
        for part, first in enumerate(range(0, max(1, len(own)), together), 1):
            name = chapter if part == 1 else f"{chapter}-{part}"
            files[name] = [[run.key for run in arm.runs(study.seeds)] for arm in own[first : first + together]]
    return files


def _rounded(record: Record) -> Record:
    metrics = {name: _short(value) for name, value in record.metrics.items()}
    curves = {name: [_short(value) for value in values] for name, values in record.curves.items()}
    return replace(record, metrics=metrics, curves=curves, seconds=_short(record.seconds), projection={})


def _short(value: float | None) -> float | None:
    return float(f"{value:.{SIGNIFICANT}g}") if isinstance(value, float) else value
