"""From runs to records: what is missing is trained in stacks, what is there is read."""

import time
from collections import defaultdict
from collections.abc import Sequence

from . import training
from ._progress import bar
from .records import Record, Store, provenance
from .runs import Run


def execute(runs: Sequence[Run], store: Store | None = None) -> list[Record]:
    """The records of runs, in their order; runs without a record are trained first.

    Finished stacks are kept when a later one is interrupted or fails. Raises `InputError` where the store cannot be
    written or holds a damaged record of one of the runs.
    """
    store = store or Store()
    wanted = {run.key: run for run in runs}
    kept = {key: store.get(key) for key in wanted if key in store}
    missing = [run for key, run in wanted.items() if key not in kept]
    if missing:
        store.check_writable()
    with bar(total=len(missing), unit="run") as progress:
        for stack in _stacks(missing):
            progress.set_description(f"{stack[0].data}, {stack[0].train} examples", refresh=False)
            here = {run.key: run for run in stack}
            kept |= {key: store.get(key) for key in here if key in store}  # another process was faster
            left = [run for key, run in here.items() if key not in kept]
            kept |= {record.key: record for record in _train(left, store)}
            progress.update(len(stack))
    return [kept[run.key] for run in runs]


def _train(stack: Sequence[Run], store: Store) -> list[Record]:
    if not stack:
        return []
    start = time.perf_counter()
    outcomes = training.train(stack)
    seconds = (time.perf_counter() - start) / len(stack)
    made = {**provenance(), "threads": training.THREADS, "stack": len(stack)}
    records = [
        Record(run.canonical(), outcome.metrics, outcome.curves, outcome.diverged_at, round(seconds, 6), made)
        for run, outcome in zip(stack, outcomes, strict=True)
    ]
    for record in records:
        store.put(record)
    return records


def _stacks(runs: Sequence[Run]) -> list[Sequence[Run]]:
    """Runs of one shape side by side, as many as their network is fastest with."""
    by_shape = defaultdict(list)
    for run in runs:
        by_shape[run.shape].append(run)
    sized = [(group, group[0].network.stack_size) for group in by_shape.values()]
    return [group[i : i + size] for group, size in sized for i in range(0, len(group), size)]
