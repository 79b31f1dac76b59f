"""Work through a grid of runs within a time: `python -m lsr_core.sweep GRID --budget-seconds N`.

GRID is a file with one run's canonical form a line, as `write_grid` makes it; runs without a record are trained in its
order, those of one seed together. Shortly before the budget ends the state is kept, and the same command goes on from
there. Needs only torch, torchvision, numpy, scipy, safetensors and filelock, so that a bare machine runs it from a copy
of the source.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from .errors import InputError, require, require_positive
from .execute import OutOfTime, execute
from .files import write_whole
from .run import Run, run_of
from .store import Store

_MARGIN = 0.1  # of the budget, at most so many seconds, is left for evaluation and writing
_LONGEST_MARGIN = 30.0


def write_grid(runs: Sequence[Run], path: Path) -> None:
    """Write runs to a grid file, in the order in which they are to be trained."""
    write_whole(path, "".join(json.dumps(run.canonical()) + "\n" for run in runs).encode())


def read_grid(path: Path) -> list[Run]:
    """The runs of a grid file; raises `InputError` for a file that is not there, or is none."""
    try:
        lines = path.read_text().splitlines()
        described = [json.loads(line) for line in lines]
    except (OSError, ValueError):
        raise InputError(f"{path} cannot be read as a grid; it must hold one run's canonical form a line") from None
    require(bool(described), f"{path} holds no run")
    return [run_of(run) for run in described]


def sweep(runs: Sequence[Run], seconds: float, store: Store | None = None) -> int:
    """Train the runs that have no record, in their order, for at most so many seconds; returns how many are left."""
    require_positive("budget-seconds", seconds)
    store = store or Store()
    start = time.monotonic()
    deadline = start + seconds - min(_MARGIN * seconds, _LONGEST_MARGIN)
    try:
        for seed, group in groupby(runs, lambda run: run.seed):
            together = list(group)
            execute(together, store, deadline=deadline)
            print(f"seed {seed}: {len(together)} runs, {time.monotonic() - start:.0f} s", flush=True)
    except OutOfTime:
        pass
    return sum(run.key not in store for run in runs)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit code 0 when nothing is left, 3 when there is, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="lsr_core.sweep", description=__doc__.partition("\n")[0])
    parser.add_argument("grid", type=Path)
    parser.add_argument("--budget-seconds", type=float, required=True, metavar="N")
    given = parser.parse_args(arguments)
    try:
        left = sweep(read_grid(given.grid), given.budget_seconds)
    except InputError as error:
        print(f"lsr_core.sweep: {error}", file=sys.stderr)
        return 2
    print(f"{left} runs left" if left else "all runs are made")
    return 3 if left else 0


if __name__ == "__main__":
    sys.exit(main())
