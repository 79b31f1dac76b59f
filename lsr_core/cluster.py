"""Ray trains: every stack of runs is a task, after the tasks that train its teachers.

The driver alone says what is trained, so that tasks need no locks; what they make travels by the store.
"""

import secrets
import socket
import time
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from math import inf
from typing import Any

from . import connection
from ._progress import bar
from .errors import require
from .models.images import ImageNetwork, defining_modules
from .run import Run
from .stacks import Claims, Job, OutOfTime, Training, grouped, side_by_side
from .store import Store, provenance

_POLL = 1.0  # seconds between two looks at the clock, at most


class Ray:
    """The Ray cluster at an address (`auto` or `HOST:PORT`), or one of this machine that starts now.

    Raises `InputError` where Ray is not installed, nobody answers, or Ray or Python are of another version there.
    """

    def __init__(self, address: str | None = None) -> None:
        self.cluster = connection.Cluster(address)

    def finish(self, levels: Sequence[Sequence[Job]], training: Training) -> None:
        """Train the jobs of every level, and keep their records; raises `InputError` where a node cannot do that."""
        store, flying, teaching = training.store, dict[Any, list[Job]](), dict[str, Any]()
        sources, common = provenance()["sources"], (defining_modules(), store, _mark(store))
        self.cluster.require_everywhere(sources, _trained, *common, [])
        task = self.cluster.task(_trained)
        try:
            for stack in _stacks(levels, training):
                while len(flying) >= self.cluster.slots:
                    self._land(flying, training)
                teachers = {teaching.get(trained.run.key) for job in stack for trained in job.run.needs} & flying.keys()
                gpus = self._gpus(stack[0].run)
                begun = task.options(num_gpus=gpus).remote(*common, stack, *teachers)
                flying[begun] = stack
                teaching |= {job.run.key: begun for job in stack if job.epochs}
            while flying:
                self._land(flying, training)
        finally:
            self.cluster.cancel(flying)

    def _land(self, flying: dict[Any, list[Job]], training: Training) -> None:
        """Wait a moment for tasks in flight, and take those that are over out of it."""
        if time.monotonic() >= training.deadline:
            raise OutOfTime
        for task, said in self.cluster.ended(flying, _POLL):
            training.progress.update(len(flying.pop(task)))
            for text in said:
                warnings.warn(text, stacklevel=2)

    def _gpus(self, run: Run) -> float:
        """The share of a GPU that a stack like this run's needs, where the cluster has one."""
        return 1 / side_by_side(run) if self.cluster.has_gpu and isinstance(run.network, ImageNetwork) else 0.0


def _stacks(levels: Sequence[Sequence[Job]], training: Training) -> Iterator[list[Job]]:
    """All stacks, those first in each level that a killed driver or node left."""
    claims = Claims()
    for level in levels:
        yield from (stack for _, stack in training.begun(level, claims))
        yield from grouped(job for job in level if claims.lock(job.run.key))


def _mark(store: Store) -> bytes:
    """What tells a store from a folder of the same name on another machine."""
    path = store.folder / "mark"
    if not store.files.has(path):
        store.files.keep(path, secrets.token_hex(8).encode())
    return store.files.read(path)


def _trained(modules: Sequence[str], store: Store, mark: bytes, jobs: Sequence[Job], *_teachers: Any) -> list[str]:
    """Train a stack of jobs in a worker, after its teachers' tasks; returns the warnings. No jobs: only the checks."""
    node = socket.gethostname()
    for module in modules:
        import_module(module)
    path = store.folder / "mark"
    place = f"node {node} does not see the store {store.place}; LSR_STORE must name a folder that all nodes share, or "
    require(store.files.has(path) and store.files.read(path) == mark, f"{place}an address such as s3://BUCKET/NAME")
    with warnings.catch_warnings(record=True) as said, bar(total=len(jobs)) as progress:
        warnings.simplefilter("always")
        Training(store, inf, progress).finish_stack(jobs)
    return [str(warning.message) for warning in said]
