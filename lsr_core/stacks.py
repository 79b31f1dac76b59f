"""Stacks: runs that train side by side in one program, formed teachers first, trained, and their records kept."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoints import Checkpoint, RunLocks, unfinished
from .data import dataset
from .examples import EVALUATION_BATCH, STACK_THREADS, Tensors
from .models.images import ImageNetwork, cost
from .provenance import provenance
from .run import Run, TrainedTeacher
from .store import Record, Store
from .trainer import Trainer, threads

STUDENTS = 6  # of one teacher on images or sentences
SMALL, ABREAST = 10**8, 8  # multiply-adds of a network of which a GPU trains so many students in turn, and how many
MOST_COPIES = 96  # of networks that the runs of a stack remember together
_POLL = 0.2  # seconds between two looks at the runs that another process has locked


class OutOfTime(Exception):
    """The deadline has passed; the state is kept, and the same runs go on from it next time."""


@dataclass
class Job:
    """A run to train, and the epochs after which its weights are needed."""

    run: Run
    epochs: set[int] = field(default_factory=set)

    def is_done(self, store: Store) -> bool:
        """Whether the record and the weights are there."""
        return self.run.key in store and all(store.has_weights(self.run.key, epoch) for epoch in self.epochs)


def levels_of(runs: Sequence[Run], store: Store) -> list[list[Job]]:
    """The jobs, teachers before their students: each level needs only those before it."""
    jobs: dict[str, Job] = {}
    depth: dict[str, int] = {}

    def need(run: Run) -> int:
        if run.key not in jobs:
            jobs[run.key], depth[run.key] = Job(run), 0
            for trained in run.needs:
                if not Job(trained.run, {trained.epoch}).is_done(store):
                    depth[run.key] = max(depth[run.key], 1 + need(trained.run))
                    jobs[trained.run.key].epochs.add(trained.epoch)
        return depth[run.key]

    for run in runs:
        need(run)
    return [[job for key, job in jobs.items() if depth[key] == level] for level in sorted(set(depth.values()))]


def stacks_of(levels: Iterable[Sequence[Job]], training: "Training") -> Iterator[list[Job]]:
    """All stacks of levels, in each first those that a killed process left, where no other process trains any."""
    claims = Claims()
    for level in levels:
        yield from (stack for _, stack in training.begun(level, claims))
        yield from _grouped(job for job in level if claims.lock(job.run.key))


def _grouped(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    """Jobs that train alike, in stacks."""
    alike: dict[Any, list[Job]] = defaultdict(list)
    for job in jobs:
        alike[job.run.stack_key].append(job)
    for group in alike.values():
        size = stack_size(group[0].run)
        yield from (group[start : start + size] for start in range(0, len(group), size))


class Claims(set[str]):
    """The locks of a process that alone says what is trained."""

    def lock(self, key: str) -> bool:
        """Claim a run; False where it is claimed already."""
        is_free = key not in self
        self.add(key)
        return is_free

    release = set.remove


@dataclass(frozen=True)
class Training:
    """How one process trains jobs: where their records are kept, until when, and the bar that shows it."""

    store: Store
    deadline: float
    progress: Any

    def finish(self, jobs: Sequence[Job]) -> None:
        """Train what no other process trains, stack by stack, until all jobs, of one level, are done."""
        while jobs:
            with RunLocks(self.store) as locks:
                stacks: list[Iterator[None]] = []
                for checkpoint, stack in chain(self.begun(jobs, locks), self._new(jobs, locks)):
                    stacks.append(self._train(checkpoint, stack, locks, stacks))
                    if len(stacks) >= abreast(stack[0].run):
                        break
                _side_by_side(stacks)
            left = [job for job in jobs if not job.is_done(self.store)]
            self.progress.update(len(jobs) - len(left))
            if left and not stacks:
                self._wait()
            jobs = left

    def _wait(self) -> None:
        """Wait a moment for another process that has the runs; raises `OutOfTime` when the time is over."""
        if time.monotonic() >= self.deadline:
            raise OutOfTime
        time.sleep(_POLL)

    def finish_stack(self, jobs: Sequence[Job]) -> None:
        """Train one stack that is nobody else's, unless it is done."""
        if not all(job.is_done(self.store) for job in jobs):
            claims, turns = Claims(job.run.key for job in jobs), list[Iterator[None]]()
            turns.append(self._train(Checkpoint(self.store, [job.run for job in jobs]), jobs, claims, turns))
            _side_by_side(turns)

    def _new(self, jobs: Sequence[Job], locks: RunLocks | Claims) -> Iterator[tuple[Checkpoint, list[Job]]]:
        """Stacks to begin, locked for this process."""
        while stack := self._lock(jobs, locks):
            yield Checkpoint(self.store, [job.run for job in stack]), stack

    def _lock(self, jobs: Sequence[Job], locks: RunLocks | Claims) -> list[Job]:
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

    def begun(self, jobs: Sequence[Job], locks: RunLocks | Claims) -> Iterator[tuple[Checkpoint, list[Job]]]:
        """The stacks that stopped processes left, if any of their runs is wanted and no process trains them; locked."""
        wanted = {job.run.key: job for job in jobs}
        for checkpoint in unfinished(self.store):
            stack = [wanted.get(run.key, Job(run)) for run in checkpoint.runs]
            is_over = all(job.is_done(self.store) for job in stack)
            if not is_over and wanted.keys().isdisjoint(job.run.key for job in stack):
                continue
            needed = [trained for job in stack for trained in job.run.needs]
            if not all(self.store.has_weights(trained.run.key, trained.epoch) for trained in needed):
                continue  # the wanted ones start again, with what they need made before them
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
        self, checkpoint: Checkpoint, jobs: Sequence[Job], locks: RunLocks | Claims, beside: Sequence[Any]
    ) -> Iterator[None]:
        """Train a stack from its last state, keep its records and the weights that teach, and release its locks.

        `beside` are all stacks that train in turn, this one among them; their time is shared out.
        """
        if time.monotonic() >= self.deadline:
            raise OutOfTime
        start, runs, store = time.perf_counter(), checkpoint.runs, self.store
        self.progress.set_description(f"{runs[0].data}, {runs[0].train} examples", refresh=False)
        initial, targets = [_weights(run.initial, store) for run in runs], _weights(runs[0].targets, store)
        teacher = _weights(runs[0].teacher, store) if runs[0].network.is_shared else teacher_logits(runs, store)
        trainer = Trainer(runs, teacher, initial=initial, targets=targets)
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


def _weights(trained: TrainedTeacher | None, store: Store) -> Tensors | None:
    """The tensors of a trained network, if there is one."""
    return trained and store.weights(trained.run.key, trained.epoch)


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
            logits = _stack_logits(stack, inputs)
        for own, row in zip(students.values(), logits.float(), strict=True):
            table[own] = row
    return table if places else None


@torch.no_grad()
def _stack_logits(stack: nn.Module, inputs: Tensor) -> Tensor:
    """Logits `[S, N, K]` of a stack, each network on its own inputs `[S, N, D]`."""
    with threads(STACK_THREADS):
        return torch.cat([stack.eval()(few) for few in inputs.split(EVALUATION_BATCH, 1)], 1)


def stack_size(run: Run) -> int:
    """How many runs like this one train side by side: fewer where they remember copies of themselves.

    On images and sentences, students side by side share their teacher's logits and nothing else.
    """
    if run.network.is_shared:
        return STUDENTS if run.teacher is not None else 1
    remembered = getattr(run.objective, "copies", 1)
    return max(1, min(run.network.stack_size, MOST_COPIES // remembered))


def abreast(run: Run) -> int:
    """How many stacks like this run's one process trains in turn: several on a GPU that small steps leave waiting."""
    return side_by_side(run) if torch.cuda.is_available() and isinstance(run.network, ImageNetwork) else 1


def side_by_side(run: Run) -> int:
    """How many stacks like this one, of images, a GPU trains at once."""
    source = dataset(run.data)
    is_small = cost(run.network, source.image_shape, source.classes).multiply_adds <= SMALL
    return max(1, ABREAST // stack_size(run)) if is_small else 1
