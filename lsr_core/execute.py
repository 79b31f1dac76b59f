"""From runs to records: load records, train the missing runs in stacks. Safe with several processes."""

import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ._progress import bar
from .data import dataset
from .models.images import ImageNetwork, cost, defining_modules
from .run import Run, TrainedTeacher
from .store import Checkpoint, Record, RunLocks, Store, provenance, unfinished
from .trainer import Tensors, Trainer, stack_logits, threads

STUDENTS = 6  # of one teacher on images
SMALL, ABREAST = 10**8, 8  # multiply-adds of a network of which a GPU trains so many students in turn, and how many
MOST_COPIES = 96  # of networks that the runs of a stack remember together
_POLL = 0.2  # seconds between two looks at the runs that another process has locked


class OutOfTime(Exception):
    """The deadline has passed; the state is kept, and the same runs go on from it next time."""


def execute(
    runs: Sequence[Run], store: Store | None = None, workers: int = 1, deadline: float = math.inf
) -> list[Record]:
    """The records of runs, in their order; runs without a record are trained first, and their teachers before them.

    Any number of processes may be given the same runs: no run is trained twice, and the stack of a stopped process goes
    on from its last state. `workers` is how many processes this call itself uses. Raises `InputError` where the store
    cannot be written or holds a damaged record of one of the runs, and `OutOfTime` when `time.monotonic()` passes the
    `deadline`, after the state was kept at the end of the epoch.
    """
    store = store or Store()
    wanted = {run.key: run for run in runs}
    kept = {key: store.get(key) for key in wanted if key in store}
    levels = _levels([run for key, run in wanted.items() if key not in kept], store)
    if levels:
        store.check_writable()
    with bar(total=sum(map(len, levels)), unit="run") as progress, _helpers(runs, store, workers if levels else 1):
        for level in levels:
            _Execution(store, deadline, progress).finish(level)
    return [kept[run.key] if run.key in kept else store.get(run.key) for run in runs]


@dataclass
class Job:
    """A run to train, and the epochs after which its weights are needed."""

    run: Run
    epochs: set[int] = field(default_factory=set)

    def is_done(self, store: Store) -> bool:
        """Whether the record and the weights are there."""
        return self.run.key in store and all(store.weights_path(self.run.key, n).exists() for n in self.epochs)


def _levels(runs: Sequence[Run], store: Store) -> list[list[Job]]:
    """The jobs, teachers before their students: each level needs only those before it."""
    jobs: dict[str, Job] = {}
    depth: dict[str, int] = {}

    def need(run: Run) -> int:
        if run.key not in jobs:
            jobs[run.key], depth[run.key], teacher = Job(run), 0, run.teacher
            if isinstance(teacher, TrainedTeacher) and not Job(teacher.run, {teacher.epoch}).is_done(store):
                depth[run.key] = 1 + need(teacher.run)
                jobs[teacher.run.key].epochs.add(teacher.epoch)
        return depth[run.key]

    for run in runs:
        need(run)
    return [[job for key, job in jobs.items() if depth[key] == level] for level in sorted(set(depth.values()))]


@dataclass(frozen=True)
class _Execution:
    """The jobs of one level in one process."""

    store: Store
    deadline: float
    progress: Any

    def finish(self, jobs: Sequence[Job]) -> None:
        """Train what no other process trains, stack by stack, until all jobs are done."""
        while jobs:
            with RunLocks(self.store) as locks:
                stacks: list[Iterator[None]] = []
                for checkpoint, stack in chain(self._begun(jobs, locks), self._new(jobs, locks)):
                    stacks.append(self._train(checkpoint, stack, locks, stacks))
                    if len(stacks) >= abreast(stack[0].run):
                        break
                _side_by_side(stacks)
            left = [job for job in jobs if not job.is_done(self.store)]
            self.progress.update(len(jobs) - len(left))
            if left and not stacks:
                time.sleep(_POLL)
            jobs = left

    def _new(self, jobs: Sequence[Job], locks: RunLocks) -> Iterator[tuple[Checkpoint, list[Job]]]:
        """Stacks to begin, locked for this process."""
        while stack := self._lock(jobs, locks):
            yield Checkpoint(self.store, [job.run for job in stack]), stack

    def _lock(self, jobs: Sequence[Job], locks: RunLocks) -> list[Job]:
        """A stack of the first jobs of one `stack_key` that are not done, locked for this process."""
        stack: list[Job] = []
        for job in jobs:
            if not stack:
                key, size = job.run.stack_key, stack_size(job.run)
            if job.run.stack_key == key and not job.is_done(self.store) and locks.lock(job.run.key):
                if job.is_done(self.store):  # by another process, a moment ago
                    locks.release(job.run.key)
                else:
                    stack.append(job)
            if len(stack) == size:
                break
        return stack

    def _begun(self, jobs: Sequence[Job], locks: RunLocks) -> Iterator[tuple[Checkpoint, list[Job]]]:
        """The stacks that stopped processes left, if any of their runs is wanted and no process trains them; locked."""
        wanted = {job.run.key: job for job in jobs}
        for checkpoint in unfinished(self.store):
            stack = [wanted.get(run.key, Job(run)) for run in checkpoint.runs]
            is_over = all(job.is_done(self.store) for job in stack)
            if not is_over and wanted.keys().isdisjoint(job.run.key for job in stack):
                continue
            teachers = [job.run.teacher for job in stack if isinstance(job.run.teacher, TrainedTeacher)]
            if not all(self.store.weights_path(teacher.run.key, teacher.epoch).exists() for teacher in teachers):
                continue  # the wanted ones start again, with teachers of their own
            locked = [job for job in stack if locks.lock(job.run.key)]
            is_over = all(job.is_done(self.store) for job in stack)
            if len(locked) == len(stack) and not is_over:
                yield checkpoint, stack
                continue
            if len(locked) == len(stack):
                checkpoint.remove()
            for job in locked:
                locks.release(job.run.key)

    def _train(
        self, checkpoint: Checkpoint, jobs: Sequence[Job], locks: RunLocks, beside: Sequence[Any]
    ) -> Iterator[None]:
        """Train a stack from its last state, keep its records and the weights that teach, and release its locks.

        `beside` are all stacks that train in turn, this one among them; their time is shared out.
        """
        if time.monotonic() >= self.deadline:
            raise OutOfTime
        start, runs, store = time.perf_counter(), checkpoint.runs, self.store
        self.progress.set_description(f"{runs[0].data}, {runs[0].train} examples", refresh=False)
        trainer = Trainer(runs, _teacher(runs, store))
        state = checkpoint.load(trainer.conditions())
        if state:
            trainer.load_state_dict(state)

        def on_epoch_end(trainer: Trainer) -> None:
            for place, job in enumerate(jobs):
                if trainer.epoch in job.epochs:
                    store.put_weights(job.run.key, trainer.epoch, trainer.weights(place))
            is_late = time.monotonic() >= self.deadline
            if not trainer.is_finished and (is_late or checkpoint.is_due()):
                checkpoint.save(trainer.state_dict(), trainer.conditions())
                if is_late:
                    raise OutOfTime

        outcomes = yield from trainer.training(on_epoch_end)
        share = len(jobs) * len(beside)
        seconds, starting = (round(t / share, 6) for t in (time.perf_counter() - start, trainer.start_seconds))
        made = {"stack": len(jobs), "abreast": len(beside), "resumed": checkpoint.resumed, "start_seconds": starting}
        origin = {**provenance(), **trainer.conditions(), **made}
        for run, outcome in zip(runs, outcomes, strict=True):
            if run.key not in store:
                store.put(Record(run.canonical(), seconds=seconds, provenance=origin, **vars(outcome)))
            locks.release(run.key)
        checkpoint.remove()


def _side_by_side(stacks: Sequence[Iterator[None]]) -> None:
    """Train stacks to their ends, step by step in turn; when the time is over, each to the end of its epoch."""
    late = None
    while stacks:
        going = []
        for stack in stacks:
            try:
                next(stack)
                going.append(stack)
            except StopIteration:
                pass
            except OutOfTime as error:
                late = error
        stacks = going
    if late is not None:
        raise late


def _teacher(runs: Sequence[Run], store: Store) -> Tensor | Tensors | None:
    """What `Trainer` takes as the teacher of runs."""
    teacher = runs[0].teacher
    if isinstance(runs[0].network, ImageNetwork):
        return teacher and store.weights(teacher.run.key, teacher.epoch)
    return teacher_logits(runs, store)


def teacher_logits(runs: Sequence[Run], store: Store) -> Tensor | None:
    """The logits `[S, N, K]` of each run's teacher on its training examples; None where no run has one.

    A teacher of several runs answers once; a run without one has zeros.
    """
    source, count = dataset(runs[0].data), runs[0].train
    table = torch.zeros(len(runs), count, source.classes)
    places: dict[Any, dict[Any, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, run in enumerate(runs):
        if run.teacher is not None:
            network = run.teacher.run.network if isinstance(run.teacher, TrainedTeacher) else None
            places[network][run.teacher, run.seed].append(place)
    for network, students in places.items():
        inputs = torch.stack([source.split(count, seed).train_inputs for _, seed in students])
        if network is None:
            logits = torch.stack([torch.from_numpy(source.log_posterior(own.double().numpy())) for own in inputs])
        else:
            networks = [store.weights(teacher.run.key, teacher.epoch) for teacher, _ in students]
            stack = network.stack(source.input_dim, source.classes, [torch.Generator() for _ in networks])
            stack.load_state_dict({name: torch.stack([own[name] for own in networks]) for name in networks[0]})
            logits = stack_logits(stack, inputs)
        for own, row in zip(students.values(), logits.float(), strict=True):
            table[own] = row
    return table if places else None


def stack_size(run: Run) -> int:
    """How many runs like this one train side by side: fewer where they remember copies of themselves.

    On images, students side by side share their teacher's logits and nothing else.
    """
    if isinstance(run.network, ImageNetwork):
        return STUDENTS if run.teacher is not None else 1
    remembered = getattr(run.objective, "copies", 1)
    return max(1, min(run.network.stack_size, MOST_COPIES // remembered))


def abreast(run: Run) -> int:
    """How many stacks like this run's one process trains in turn: several on a GPU that small steps leave waiting."""
    if not (isinstance(run.network, ImageNetwork) and torch.cuda.is_available()):
        return 1
    source = dataset(run.data)
    is_small = cost(run.network, source.image_shape, source.classes).multiply_adds <= SMALL
    return max(1, ABREAST // stack_size(run)) if is_small else 1


@contextmanager
def _helpers(runs: Sequence[Run], store: Store, workers: int) -> Iterator[None]:
    """Other processes that execute the same runs; they end with this one, and also where it is killed."""
    program = f"import {', '.join(defining_modules())}; from lsr_core.execute import _help; _help()"
    command = [sys.executable, "-P", "-c", program]
    count = max(1, torch.get_num_threads() // workers)  # two processes on one core's threads wait for each other
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)  # they import what this process does
    environment = {**os.environ, "TQDM_DISABLE": "1", "OMP_NUM_THREADS": str(count), "PYTHONPATH": path}
    helpers = [subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) for _ in range(workers - 1)]
    try:
        for helper in helpers:
            with suppress(BrokenPipeError):
                pickle.dump((list(runs), store), helper.stdin)
                helper.stdin.flush()
        with threads(count):
            yield
    finally:
        for helper in helpers:
            helper.terminate()
            helper.wait()
            with suppress(BrokenPipeError):
                helper.stdin.close()


def _help() -> None:
    """Execute the runs that a parent sends, and end as SIGTERM does when it closes the pipe, or was killed."""

    def end_with_parent() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    with suppress(KeyboardInterrupt):  # the process that started this one reports it
        runs, store = pickle.load(sys.stdin.buffer)
        threading.Thread(target=end_with_parent, daemon=True).start()
        execute(runs, store)
