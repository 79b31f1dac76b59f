"""Work through runs within a time: `python -m lsr_core.sweep GRID --budget-seconds N`, or `--preset NAME` of a study.

GRID is a file with one run's canonical form a line, as `write_grid` makes it; runs without a record are trained in its
order, those of one seed together. Shortly before the budget ends the state is kept, and the same command goes on from
there. Needs only torch, torchvision, numpy, scipy, safetensors and filelock, so that a bare machine runs it from a copy
of the source; all that the next one needs is in the folder `LSR_STORE`.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import groupby
from pathlib import Path
from statistics import mean

from .errors import InputError, require, require_positive
from .execute import execute
from .files import write_whole
from .run import Run, run_of
from .stacks import OutOfTime, abreast
from .store import Record, Store

_MARGIN = 0.1  # of the budget, at most so many seconds, is left for evaluation and writing
_LONGEST_MARGIN = 30.0


def write_grid(runs: Sequence[Run], path: Path) -> None:
    """Write runs to a grid file, in the order in which they are to be trained.

    Raises `InputError` for a method of one's own, whose code a grid does not hold.
    """
    described = [run.canonical() for run in runs]
    for method in (run["objective"] for run in described):
        where = "a grid holds no code; train it by `execute`"
        require("code" not in method, f"method {method['method']!r} is a class of your own, and {where}")
    write_whole(path, "".join(json.dumps(run) + "\n" for run in described).encode())


def read_grid(path: Path) -> list[Run]:
    """The runs of a grid file; raises `InputError` for a file that is not there, or is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        described = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError):
        raise InputError(f"{path} cannot be read as a grid; it must hold one run's canonical form a line") from None
    require(bool(described), f"{path} holds no run")
    return [run_of(run) for run in described]


def by_seed(runs: Iterable[Run]) -> Iterator[list[Run]]:
    """Runs in their order, those together that are of one seed, or of as many as a GPU trains side by side."""
    groups = [list(group) for _, group in groupby(runs, lambda run: run.seed)]
    while groups:
        count = abreast(groups[0][0])
        yield [run for group in groups[:count] for run in group]
        del groups[:count]


def sweep(groups: Iterable[Sequence[Run]], seconds: float, store: Store | None = None) -> bool:
    """Train the runs that have no record, group by group, for at most so many seconds; returns whether all are made.

    Raises `InputError` for a folder with records of other numerics, and where an epoch takes longer than there is time.
    """
    require_positive("budget-seconds", seconds)
    start, store = time.monotonic(), store or Store()
    store.check_numerics()
    deadline = start + seconds - min(_MARGIN * seconds, _LONGEST_MARGIN)
    before = len(store.keys())
    try:
        for runs in groups:
            execute(runs, store, deadline=deadline)
            seeds = ", ".join(str(seed) for seed in dict.fromkeys(run.seed for run in runs))
            print(f"seed {seeds}: {len(runs)} runs, {time.monotonic() - start:.0f} s", flush=True)
    except OutOfTime:
        short = time.monotonic() > start + seconds and len(store.keys()) == before
        right = "too short for one epoch; its state is kept, and the same command with more goes on"
        require(not short, f"budget-seconds is {seconds:g}, {right}")
        return False
    return True


def table(arms: Mapping[str, str], store: Store) -> str:
    """A line an arm, by each run's key: n, accuracy, and of a run its seconds, speed, and seconds lost to starting."""
    found: dict[str, list[Record]] = defaultdict(list)
    for key, arm in arms.items():
        found[arm] += [store.get(key)] if key in store else []
    width = max(map(len, found), default=3)
    lines = [f"{'arm':{width}}  n  accuracy, %  seconds  images/s  starting, s"]
    for arm, records in found.items():
        accuracies = [100 * record.metrics["accuracy"] for record in records if record.metrics["accuracy"] is not None]
        columns = [mean(accuracies)] if accuracies else [float("nan")]
        columns += [mean(values) for values in zip(*map(_times, records), strict=True)] or 3 * [float("nan")]
        lines.append("{:{}} {:2} {:12.2f} {:8.1f} {:9.0f} {:12.1f}".format(arm, width, len(records), *columns))
    return "\n".join(lines)


def _times(record: Record) -> tuple[float, float, float]:
    """A run's seconds, images trained a second once it was going, and seconds until then."""
    schedule, starting = record.run["schedule"], record.provenance.get("start_seconds", 0.0)
    images = record.run["data"]["train"] * (schedule["stop"] or schedule["epochs"])
    return record.seconds, images / max(record.seconds - starting, 1e-9), starting


def _described(run: Run) -> str:
    """An arm of a grid file in words."""
    teacher = f" <- {run.teacher.run.network.name}" if hasattr(run.teacher, "run") else ""
    return f"{getattr(run.network, 'architecture', run.network.name)} {run.objective.name}{teacher}, {run.role}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit code 0 when nothing is left, 3 when there is, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="lsr_core.sweep", description=__doc__.partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("grid", type=Path, nargs="?")
    what.add_argument("--preset", metavar="NAME")
    parser.add_argument("--budget-seconds", type=float, required=True, metavar="N")
    given = parser.parse_args(arguments)
    try:
        is_done, arms = _preset(given) if given.preset else _grid(given)
    except InputError as error:
        print(f"lsr_core.sweep: {error}", file=sys.stderr)
        return 2
    left = sum(key not in Store() for key in arms)
    print(table(arms, Store()))
    print("all runs are made" if is_done else f"{left} runs left" if arms else "trials are left")
    return 0 if is_done else 3


def _grid(given: argparse.Namespace) -> tuple[bool, dict[str, str]]:
    """Sweep through a grid file; returns whether all is made, and the arm of each run by its key."""
    runs = read_grid(given.grid)
    return sweep(by_seed(runs), given.budget_seconds), {run.key: _described(run) for run in runs}


def _preset(given: argparse.Namespace) -> tuple[bool, dict[str, str]]:
    """The same with a study's runs."""
    study, store = import_module("study.studies"), Store()  # only the study knows its presets
    study.require_device(given.preset)
    is_done = sweep(study.groups(given.preset, store), given.budget_seconds)
    study.forget_teachers(given.preset, store)
    return is_done, study.arms_by_key(given.preset)


if __name__ == "__main__":
    sys.exit(main())
