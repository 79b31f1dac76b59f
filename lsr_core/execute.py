"""From runs to records: what is missing is trained in stacks, by as many processes as are at it; the rest is read."""

import math
import os
import pickle
import subprocess
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from . import image_training, training
from ._parent import end_with_parent
from ._progress import Bar, bar
from .checkpoints import Checkpoint, Weights, unfinished
from .data import Mixture, dataset
from .models.images import ImageNetwork, defining_modules
from .precision import training_precision
from .run import ExactPosterior, Run, TrainedTeacher
from .sharing import Claims
from .store import Record, Store, provenance

STUDENTS = 6  # of one teacher on images
MOST_COPIES = 96  # of networks that the runs of a stack remember together
_POLL = 0.2  # seconds between two looks at what another process trains


def execute(
    runs: Sequence[Run], store: Store | None = None, workers: int = 1, deadline: float = math.inf
) -> list[Record]:
    """The records of runs, in their order; runs without a record are trained first, and their teachers before them.

    Any number of processes may be given the same runs: nothing is trained twice, and what a stopped process left is
    taken up where it stood. `workers` is how many processes this call itself uses. Raises `InputError` where the store
    cannot be written or holds a damaged record of one of the runs, and `OutOfTime` when `time.monotonic()` passes the
    `deadline`, after the state was kept.
    """
    store = store or Store()
    wanted = {run.key: run for run in runs}
    kept = {key: store.get(key) for key in wanted if key in store}
    levels = _levels([run for key, run in wanted.items() if key not in kept], store, Weights(store))
    if levels:
        store.check_writable()
    with bar(total=sum(map(len, levels)), unit="run") as progress, _helpers(runs, store, workers if levels else 1):
        for level in levels:
            _finish(level, store, progress, deadline)
    return [kept[run.key] if run.key in kept else store.get(run.key) for run in runs]


@dataclass(frozen=True)
class _Work:
    """A run that is needed, and the epochs after which its weights are."""

    run: Run
    epochs: frozenset[int] = frozenset()

    def is_done(self, store: Store, weights: Weights) -> bool:
        return self.run.key in store and all(weights.path(self.run.key, epoch).exists() for epoch in self.epochs)


def _levels(runs: Sequence[Run], store: Store, weights: Weights) -> list[list[_Work]]:
    """What has to be trained, teachers before their students: each level needs only those before it."""
    needed: dict[str, Run] = {}
    epochs: dict[str, set[int]] = defaultdict(set)
    depth: dict[str, int] = {}

    def need(run: Run) -> int:
        if run.key not in depth:
            needed[run.key], depth[run.key] = run, 0
            teacher = run.teacher
            if isinstance(teacher, TrainedTeacher):
                taught = _Work(teacher.run, frozenset([teacher.after]))
                if not taught.is_done(store, weights):
                    depth[run.key] = 1 + need(taught.run)
                    epochs[taught.run.key] |= taught.epochs
        return depth[run.key]

    for run in runs:
        need(run)
    levels: list[list[_Work]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
    for key, run in needed.items():
        levels[depth[key]].append(_Work(run, frozenset(epochs[key])))
    return levels


def _finish(works: Sequence[_Work], store: Store, progress: Bar, deadline: float) -> None:
    """Train what no other process trains, until all is done."""
    weights = Weights(store)
    while works:
        _take_up(works, store, weights, deadline)
        busy: list[_Work] = []
        before = progress.n
        with closing(_claimed(works, store, weights, busy.append)) as stacks:
            for stack, claims in stacks:
                progress.set_description(f"{stack[0].run.data}, {stack[0].run.train} examples", refresh=False)
                epochs = {work.run.key: work.epochs for work in stack}
                _train(Checkpoint(store, [work.run for work in stack], deadline), epochs, claims, store, weights)
                progress.update(len(stack))
        progress.update(before + len(works) - len(busy) - progress.n)
        works = busy
        if busy:
            time.sleep(_POLL)


def _claimed(
    works: Sequence[_Work], store: Store, weights: Weights, busy: Callable[[_Work], None]
) -> Iterator[tuple[list[_Work], Claims]]:
    """Stacks of what is not done and nobody trains, with their claims; what another process trains goes to `busy`."""
    by_shape = defaultdict(deque)
    for work in works:
        by_shape[work.run.stack_key].append(work)
    for queue in by_shape.values():
        size = stack_size(queue[0].run)
        while queue:
            stack = []
            with Claims(store) as claims:
                while queue and len(stack) < size:
                    work = queue.popleft()
                    if work.is_done(store, weights):
                        continue
                    if not claims.take(work.run.key):
                        busy(work)
                    elif work.is_done(store, weights):  # by another process, a moment ago
                        claims.release(work.run.key)
                    else:
                        stack.append(work)
                if stack:
                    yield stack, claims


def _take_up(works: Sequence[_Work], store: Store, weights: Weights, deadline: float) -> None:
    """Finish the stacks that stopped processes left, if any of their runs is wanted and nobody else is at it."""
    wanted = {work.run.key: work for work in works}
    for checkpoint in unfinished(store, deadline):
        keys = [run.key for run in checkpoint.runs]
        if wanted.keys().isdisjoint(keys) and not all(key in store for key in keys):
            continue
        taught = [run.teacher for run in checkpoint.runs if isinstance(run.teacher, TrainedTeacher)]
        if not all(weights.path(teacher.run.key, teacher.after).exists() for teacher in taught):
            continue  # the wanted ones start again, with teachers of their own
        with Claims(store) as claims:
            if all(claims.take(key) for key in keys):
                if all(wanted[key].is_done(store, weights) if key in wanted else key in store for key in keys):
                    checkpoint.remove()
                else:
                    epochs = {key: wanted[key].epochs for key in keys if key in wanted}
                    _train(checkpoint, epochs, claims, store, weights)


def _train(
    checkpoint: Checkpoint, epochs: dict[str, frozenset[int]], claims: Claims, store: Store, weights: Weights
) -> None:
    """Train a stack from its last state, keep its records and the weights that teach, and give the claims back."""

    def keep(run: Run, epoch: int, network: Callable[[], training.Network]) -> None:
        if epoch in epochs.get(run.key, ()):
            weights.put(run.key, epoch, network())

    start, stack = time.perf_counter(), checkpoint.runs
    if isinstance(stack[0].network, ImageNetwork):
        teacher = stack[0].teacher
        taught = teacher and weights.get(teacher.run.key, teacher.after)
        outcomes = image_training.train(stack, taught, keep=keep, checkpoint=checkpoint)
    else:
        outcomes = training.train(stack, teacher_logits(stack, weights), keep=keep, checkpoint=checkpoint)
    seconds = (time.perf_counter() - start) / len(stack)
    made = {**provenance(), **_conditions(stack[0]), "stack": len(stack), "resumed": checkpoint.resumed}
    for run, outcome in zip(stack, outcomes, strict=True):
        if run.key not in store:
            measured = (outcome.metrics, outcome.curves, outcome.diverged_at)
            store.put(Record(run.canonical(), *measured, round(seconds, 6), made, outcome.projection))
        claims.release(run.key)
    checkpoint.remove()


def _conditions(run: Run) -> dict[str, str | int]:
    """Device, precision and threads that a run is trained with."""
    if isinstance(run.network, ImageNetwork):
        device, shape = image_training.device(), dataset(run.data).shape
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        precision = str(training_precision(run.network, shape, device)).removeprefix("torch.")
        return {"device": name, "precision": precision, "threads": torch.get_num_threads()}
    return {"device": "cpu", "precision": "float32", "threads": training.THREADS}


def teacher_logits(runs: Sequence[Run], weights: Weights) -> Tensor | None:
    """The logits `[S, N, K]` of each run's teacher on its training examples; None where no run has one.

    A teacher of several runs answers once; a run without one has zeros.
    """
    places = defaultdict(list)
    for place, run in enumerate(runs):
        if run.teacher is not None:
            places[run.teacher, run.seed].append(place)
    if not places:
        return None
    source = dataset(runs[0].data)
    table = torch.zeros(len(runs), runs[0].train, source.classes)
    of_kind = defaultdict(list)
    for (teacher, seed), taught in places.items():
        inputs = source.split(runs[0].train, seed).train_inputs
        if isinstance(teacher, ExactPosterior):
            table[taught] = _log_posterior(source, inputs)
        else:
            of_kind[teacher.run.network].append((teacher, inputs, taught))
    for network, group in of_kind.items():
        teachers, inputs, taught = zip(*group, strict=True)
        networks = [weights.get(teacher.run.key, teacher.after) for teacher in teachers]
        answers = training.outputs(network, networks, torch.stack(inputs), source.classes)
        for row, own in zip(answers, taught, strict=True):
            table[own] = row
    return table


def _log_posterior(source: Mixture, inputs: Tensor) -> Tensor:
    return torch.from_numpy(source.log_posterior(inputs.double().numpy())).float()


def stack_size(run: Run) -> int:
    """How many runs like this one train side by side: fewer where they remember copies of themselves.

    On images, students side by side share nothing but their teacher's answers.
    """
    if isinstance(run.network, ImageNetwork):
        return STUDENTS if run.teacher is not None else 1
    remembered = getattr(run.objective, "copies", 1)
    return max(1, min(run.network.stack_size, MOST_COPIES // remembered))


@contextmanager
def _helpers(runs: Sequence[Run], store: Store, workers: int) -> Iterator[None]:
    """Other processes at the same runs; they end with this one's work, and where it is killed, with it."""
    program = f"import {', '.join(defining_modules())}; from lsr_core.execute import _help; _help()"
    command = [sys.executable, "-c", program]
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // workers))  # two programs on one core's threads wait for each other
    alike = {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    helpers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, **alike}) for _ in range(workers - 1)
    ]
    try:
        for helper in helpers:
            with suppress(BrokenPipeError):
                pickle.dump((list(runs), store), helper.stdin)
                helper.stdin.flush()
        yield
    finally:
        torch.set_num_threads(threads)
        for helper in helpers:
            helper.terminate()
            helper.wait()
            with suppress(BrokenPipeError):
                helper.stdin.close()


def _help() -> None:
    with suppress(KeyboardInterrupt):  # the process that asked for help says it
        runs, store = pickle.load(sys.stdin.buffer)
        end_with_parent()
        execute(runs, store)
