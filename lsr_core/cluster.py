"""Ray trains: every stack of runs is a task, after the tasks that train its teachers.

The driver alone says what is trained, so that tasks need no locks; what they make travels by the store.
"""

import time
import warnings
from collections.abc import Sequence
from typing import Any

from . import connection, worker
from .models.images import ImageNetwork, defining_modules
from .provenance import provenance
from .run import Run
from .stacks import Job, OutOfTime, Training, side_by_side, stacks_of

_POLL = 1.0  # seconds between two looks at the clock, at most


class Ray:
    """The Ray cluster at an address (`auto` or `HOST:PORT`), or one of this machine that starts now.

    Raises `InputError` where Ray is not installed, nobody answers, or Ray or Python are of another version there.
    """

    def __init__(self, address: str | None = None) -> None:
        self.cluster = connection.Cluster(address)

    def finish(self, levels: Sequence[Sequence[Job]], training: Training) -> None:
        """Train the jobs of every level, and keep their records; raises `InputError` where a node cannot do that."""
        flying, teaching = dict[Any, list[Job]](), dict[str, Any]()
        common = defining_modules(), training.store, training.store.mark()
        self.cluster.require_everywhere(provenance()["sources"], worker.trained, *common, [])
        task = self.cluster.task(worker.trained)
        try:
            for stack in stacks_of(levels, training):
                while len(flying) >= self.cluster.slots:
                    self._land(flying, training)
                teachers = {teaching.get(trained.run.key) for job in stack for trained in job.run.needs} & flying.keys()
                begun = task.options(num_gpus=self._gpus(stack[0].run)).remote(*common, stack, *teachers)
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
        over = {task: flying.pop(task) for task in self.cluster.ended(flying, _POLL)}
        for task, stack in over.items():
            said = self.cluster.result(task)
            training.progress.update(len(stack))
            for text in said:
                warnings.warn(text, stacklevel=2)

    def _gpus(self, run: Run) -> float:
        """The share of a GPU that a stack like this run's needs, where the cluster has one."""
        if not (self.cluster.has_gpu and run.network.is_shared):
            return 0.0
        return 1 / side_by_side(run) if isinstance(run.network, ImageNetwork) else 1.0
