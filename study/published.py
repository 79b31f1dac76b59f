"""Published records: what a preset's runs measured, a line a run, in files that come with the project.

A run stands in `results/<preset>/<chapter>.jsonl` under the first chapter that shows its arm, in the order of arms and
seeds. Values have six significant digits; `exact` is a hash of all their digits, by which a run that is made again is
compared.
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
import torch

from lsr_core.errors import require
from lsr_core.execute import execute
from lsr_core.files import write_whole
from lsr_core.run import Run, run_of
from lsr_core.store import Record, Store

from .experiments import Arm, Results, study

FOLDER = Path(__file__).parent.parent / "results"
SIGNIFICANT = 6
_TOLERANCE = 3.0  # standard deviations over a cell's seeds, on another kind of machine
_SAME = ("processor", "simd", "torch", "device", "precision", "numerics")  # what runs with the same bits have in common
_COMPARED = ("accuracy", "nll", "ece", "train_accuracy")


@dataclass(frozen=True)
class Line:
    """A published run and where it stands: the chapter's file and the line, counted from 1."""

    record: Record
    exact: str
    chapter: str
    number: int
    formerly: str | None = None  # the key before descriptions of runs changed


def exact_hash(record: Record) -> str:
    """The hash of everything that a run measured, in all digits."""
    measured = [record.metrics, record.curves, record.diverged_at]
    return hashlib.sha256(json.dumps(measured, sort_keys=True).encode()).hexdigest()[:16]


def publish(preset: str, store: Store) -> dict[str, int]:
    """Write the lines of every run of a study that has a record or a line; returns how many each chapter has."""
    known = lines(preset)
    counts = {}
    for chapter, runs in _runs(preset).items():
        written = []
        for run in runs:
            if run.key in store:
                record = store.get(run.key)
                written.append(_line(record, exact_hash(record)))
            elif run.key in known:
                written.append(_line(known[run.key].record, known[run.key].exact, known[run.key].formerly))
        write_whole(_path(preset, chapter), "".join(line + "\n" for line in written).encode())
        counts[chapter] = len(written)
    _read.cache_clear()
    return counts


def lines(preset: str) -> dict[str, Line]:
    """Every published run of a preset by its key.

    Raises `InputError` for an unknown preset, a line that is no run, or one that stands there twice.
    """
    study(preset)  # raises it for a preset that is none
    return dict(_read(preset, FOLDER))


@cache
def _read(preset: str, folder: Path) -> dict[str, Line]:
    found: dict[str, Line] = {}
    for path in sorted((folder / preset).glob("*.jsonl")):
        for number, text in enumerate(path.read_text().splitlines(), 1):
            where = f"{path.name}, line {number}"
            try:
                content = json.loads(text)
                key, exact, formerly = content.pop("key"), content.pop("exact"), content.pop("formerly", None)
                record = Record(**content)
                sound = record.key == key
            except (ValueError, TypeError, KeyError, AttributeError):
                sound = False
            require(sound, f"{preset}, {where} is no published run: its key is not that of what it describes")
            require(key not in found, f"{preset}, {where} has run {key}, which stands there twice")
            found[key] = Line(record, exact, path.stem, number, formerly)
    return found


def anchor(preset: str, arm: Arm) -> str:
    """Where the page of published records shows the first run of an arm."""
    line = lines(preset)[arm.run(study(preset).seeds[0]).key]
    return f"published.html#{place(preset, line)}"


def place(preset: str, line: Line) -> str:
    """The name of a line on the page of published records."""
    return f"{preset}-{line.chapter}-{line.number}"


def results(preset: str, arms: Iterable[Arm]) -> Results:
    """The published records of arms, for the seeds of the preset; an arm that lacks a seed is left out."""
    found = lines(preset)
    keys = {arm: [run.key for run in arm.runs(study(preset).seeds)] for arm in arms}
    return Results(
        {arm: [found[key].record for key in own] for arm, own in keys.items() if all(key in found for key in own)}
    )


def named(preset: str, names: Sequence[str]) -> tuple[Results, dict[str, Arm]]:
    """Arms of a study by their names, with their published records; an arm that lacks a seed is left out.

    Raises `InputError` for a name that the study does not have.
    """
    known = {name: arm for arms in study(preset).arms().values() for name, arm in arms.items()}
    for name in names:
        require(name in known, f"{preset} has no arm {name!r}; there are {', '.join(known)}")
    found = results(preset, [known[name] for name in names])
    return found, {name: known[name] for name in names if known[name] in found.arms}


def verify(preset: str) -> int:
    """Recompute every key, and the place of every line; returns how many runs there are.

    Raises `InputError` for a line that is not what it says, that this version of the study does not make, or that
    stands elsewhere than its arm's.
    """
    found = lines(preset)
    places = {}
    for chapter, runs in _runs(preset).items():
        own = [run.key for run in runs if run.key in found]
        places |= {key: (chapter, number) for number, key in enumerate(own, 1)}
    for key, line in found.items():
        run_of(line.record.run)
        where = f"{preset}, {line.chapter}.jsonl, line {line.number}"
        require(key in places, f"{where}: run {key} belongs to no arm of this preset")
        chapter, number = places[key]
        told = f"{where}: run {key} belongs on line {number} of {chapter}.jsonl"
        require((chapter, number) == (line.chapter, line.number), told)
    return len(found)


@dataclass(frozen=True)
class Again:
    """A run that was made again: whether every bit is the same; how many seed deviations its farthest metric is off."""

    key: str
    where: str
    identical: bool
    same_machine: bool
    farthest: float

    @property
    def holds(self) -> bool:
        """The same bits on the same kind of machine, elsewhere within three deviations of its cell's seeds."""
        return self.identical if self.same_machine else self.farthest <= _TOLERANCE


def recompute(preset: str, sample: int, generator: np.random.Generator) -> Iterator[Again]:
    """Train a random few of the published runs again, their teachers included, and compare what they measure."""
    found = lines(preset)
    require(1 <= sample <= len(found), f"sample is {sample}; {preset} has {len(found)} published runs")
    for key in generator.choice(sorted(found), sample, replace=False):
        line = found[key]
        threads = torch.get_num_threads()
        torch.set_num_threads(line.record.provenance["threads"])
        try:
            with tempfile.TemporaryDirectory() as folder:
                (record,) = execute([run_of(line.record.run)], Store(folder))
        finally:
            torch.set_num_threads(threads)
        same = all(record.provenance[name] == line.record.provenance[name] for name in _SAME)
        where = f"{line.chapter}.jsonl, line {line.number}"
        yield Again(key, where, exact_hash(record) == line.exact, same, _farthest(record, line, found.values()))


def _farthest(record: Record, line: Line, others: Iterable[Line]) -> float:
    """The largest difference of a metric from what is published, in standard deviations over the cell's seeds."""
    cell = [other.record for other in others if _cell(other.record) == _cell(line.record)]
    distances = []
    for name in _COMPARED:
        again, before = _short(record.metrics[name]), line.record.metrics[name]
        if again != before:
            values = [member.metrics[name] for member in cell]
            known = None not in (again, before, *values) and len(set(values)) > 1
            distances.append(abs(again - before) / np.std(values, ddof=1) if known else np.inf)
    return float(max(distances, default=0.0))


def _cell(record: Record) -> str:
    """What the runs of a cell have in common: everything but the seeds."""

    def without(run: dict[str, Any]) -> dict[str, Any]:
        teacher = run["teacher"]
        taught = teacher and {**teacher, "run": without(teacher["run"])} if teacher and "run" in teacher else teacher
        return {**run, "seed": None, "teacher": taught}

    return json.dumps(without(record.run), sort_keys=True)


def _runs(preset: str) -> dict[str, list[Run]]:
    """The runs of a study by the file they stand in, in their order there."""
    published = study(preset)
    return {
        chapter: [run for arm in arms.values() for run in arm.runs(published.seeds)]
        for chapter, arms in published.arms().items()
    }


def _line(record: Record, exact: str, formerly: str | None = None) -> str:
    before = {"formerly": formerly} if formerly else {}
    return json.dumps({"key": record.key, **before, "exact": exact, **asdict(_rounded(record))})


def _rounded(record: Record) -> Record:
    metrics = {name: _short(value) for name, value in record.metrics.items()}
    curves = {name: [_short(value) for value in values] for name, values in record.curves.items()}
    return replace(record, metrics=metrics, curves=curves, seconds=_short(record.seconds), projection={})


def _short(value: float | None) -> float | None:
    return float(f"{value:.{SIGNIFICANT}g}") if isinstance(value, float) else value


def _path(preset: str, chapter: str) -> Path:
    return FOLDER / preset / f"{chapter}.jsonl"
