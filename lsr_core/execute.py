"""From runs to records: load records, train the missing runs in stacks. Safe with several processes."""

import math
from collections.abc import Sequence
from typing import Protocol

from ._progress import bar
from .processes import Processes
from .run import Run
from .stacks import Job, Training, levels_of
from .store import Record, Store


class Backend(Protocol):
    """What trains: processes of this machine, or a cluster."""

    def finish(self, levels: Sequence[Sequence[Job]], training: Training) -> None:
        """Train the jobs of every level, each level needing only those before it, and keep their records."""


def execute(
    runs: Sequence[Run], store: Store | None = None, workers: int | Backend = 1, deadline: float = math.inf
) -> list[Record]:
    """The records of runs, in their order; runs without a record are trained first, and their teachers before them.

    Any number of processes may be given the same runs: no run is trained twice, and the stack of a stopped process goes
    on from its last state. `workers` is how many processes of this machine the call uses, or a backend such as
    `cluster.Ray`. Raises `InputError` where the store cannot be written or holds a damaged record of one of the runs,
    and `OutOfTime` when `time.monotonic()` passes the `deadline`, after the state was kept at the end of the epoch.
    """
    store = store or Store()
    kept = {key: store.get(key) for key in store.present([run.key for run in runs])}
    train_missing([run for run in runs if run.key not in kept], store, workers, deadline)
    return [kept[run.key] if run.key in kept else store.get(run.key) for run in runs]


def train_missing(runs: Sequence[Run], store: Store, workers: int | Backend = 1, deadline: float = math.inf) -> None:
    """Train the runs that have no record, as `execute` does, without reading any record."""
    present = store.present([run.key for run in runs])
    levels = levels_of([run for run in runs if run.key not in present], store)
    if levels:
        store.check_writable()
        backend = Processes(workers) if isinstance(workers, int) else workers
        with bar(total=sum(map(len, levels)), unit="run") as progress:
            backend.finish(levels, Training(store, deadline, progress))
