"""The training program: S runs side by side on a leading axis, each with its own data, order and constants."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .checkpoints import Checkpoint
from .data import Split, dataset
from .errors import require
from .evaluation import (
    CURVE_EXAMPLES,
    PROJECTION_CLASSES,
    Followed,
    Outputs,
    cluster_metrics,
    curve_point,
    final_metrics,
    measured,
    projected,
    sharpness,
    stated_epochs,
)
from .losses import gradient_from_targets, gradient_targets
from .memory import PastCopies
from .models import Convnet, Perceptron
from .objectives import Batch, Fixed
from .optimizers import FusedSGD, StackedSGD
from .run import Run, stream

EVALUATION_BATCH = 256
PROJECTION_SEED = 0  # the seed whose runs keep their projected features
THREADS = 1  # one thread a program: the same bits on every machine of a kind, and programs side by side on its cores


@dataclass(frozen=True)
class Outcome:
    """What one run left: final metrics, curves over the stated epochs, and the step at which it diverged, if it did.

    Metrics that are not finite are None. Where inputs are images and the seed is 0, `projection` holds the rows
    (x, y, class) of its training and test features on the plane of three classes.
    """

    metrics: dict[str, float | None]
    curves: dict[str, list[float | None]]
    diverged_at: int | None
    projection: dict[str, list[list[float]]] = field(default_factory=dict)


Network = dict[str, Tensor]
Keep = Callable[[Run, int, Callable[[], Network]], None]


def train(
    runs: Sequence[Run],
    teacher_logits: Tensor | None = None,
    *,
    keep: Keep | None = None,
    checkpoint: Checkpoint | None = None,
    dtype: torch.dtype = torch.float32,
) -> list[Outcome]:
    """Train runs of one shape (`Run.stack_key`) to their last epoch, together; the outcomes keep their order.

    The runs share nothing but the program: a run that diverges changes no bit of its mates. `teacher_logits`
    `[S, N, K]` are of each run's teacher on its training examples. `keep(run, epoch, weights)` is called after every
    epoch; `weights()` gives the run's network by tensor names. With a `checkpoint` the state is written now and then,
    and training goes on from the last one. Raises `InputError` for runs of different shapes.
    """
    require(len({run.stack_key for run in runs}) == 1, "runs in one stack must share data, sizes, network and epochs")
    with threads(THREADS):
        stack = _Stack(runs, dtype, teacher_logits)
        state = checkpoint and checkpoint.load(THREADS)
        if state:
            stack.load_state_dict(state)
        return stack.train(keep, checkpoint)


def measured_training(runs: Sequence[Run]) -> float:
    """Train runs and return the seconds of it that went into measuring them."""
    with threads(THREADS):
        stack = _Stack(runs, torch.float32)
        stack.train()
    return stack.measuring


@torch.no_grad()
def outputs(description: Perceptron | Convnet, networks: Sequence[Network], inputs: Tensor, classes: int) -> Tensor:
    """Logits `[S, N, K]` of S networks of one kind, each on its own inputs `[S, N, D]`, side by side."""
    with threads(THREADS):
        stack = description.stack(inputs.shape[-1], classes, [torch.Generator() for _ in networks])
        stack.load_state_dict({name: torch.stack([n[name] for n in networks]) for name in networks[0]})
        return _in_pieces(stack.eval(), inputs)


class Program(ABC):
    """Runs that are trained together, epoch by epoch: where they stand, and how they go on."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs, self.schedule = runs, runs[0].schedule
        self.epoch, self.step, self.order = 1, 0, None  # the epoch, how many of its steps are done, its permutation
        self.curves: list[dict[str, Tensor]] = []
        self.before: Tensor | None = None  # validation logits at the last point of the curves
        self.pulls: list[Tensor] = []  # one number a run of each step, not finite where the run is not
        self.measuring = 0.0  # seconds

    def train(self, keep: Keep | None = None, checkpoint: Checkpoint | None = None) -> list[Outcome]:
        """Make the epochs that are not made yet, and measure after the stated ones."""
        stated = stated_epochs(self.schedule.last)
        while self.epoch <= stated[-1]:
            self.finish_epoch(checkpoint)
            if self.epoch in stated:
                final = self.measure(is_last=self.epoch == stated[-1])
            if keep is not None:
                for place, run in enumerate(self.runs):
                    keep(run, self.epoch, partial(self.weights, place))
            self.epoch, self.step, self.order = self.epoch + 1, 0, None
        return outcomes(final, self.curves, torch.stack(self.pulls, -1).cpu())

    @abstractmethod
    def finish_epoch(self, checkpoint: Checkpoint | None) -> None:
        """Make the steps of the epoch that are not made yet."""

    @abstractmethod
    def measure(self, *, is_last: bool) -> dict[str, Tensor]:
        """Add a point to the curves; the last time, return every metric."""

    @abstractmethod
    def weights(self, place: int) -> Network:
        """The tensors of one run's network that is measured and teaches."""


class _Stack(Program):
    """The state of S runs in training."""

    def __init__(self, runs: Sequence[Run], dtype: torch.dtype, teacher_logits: Tensor | None = None) -> None:
        super().__init__(runs)
        source = dataset(runs[0].data)
        self.groups, side = getattr(source, "groups", None), getattr(source, "side", None)
        splits = {run.seed: source.split(run.train, run.seed) for run in runs}
        self.data = _stacked([splits[run.seed] for run in runs], dtype)
        self.followed = None if side is None else Followed.of(self.data, side)
        weights = [stream(run.seed, run.role, "weights") for run in runs]
        self.network = runs[0].network.stack(source.features, source.classes, weights).to(dtype)
        self.orders = [stream(run.seed, run.role, "order") for run in runs]
        # torch's fused kernel has one rate for all, so it serves networks that train one at a time
        alone = runs[0].network.stack_size == 1 and len(runs) == 1
        self.optimizer = FusedSGD(self.network, runs[0]) if alone else StackedSGD(self.network, runs)
        self.constants, self.objective, self.answers = None, None, None
        if isinstance(runs[0].objective, Fixed):
            self.constants, self.targets = _fixed(runs, self.data.train_labels, teacher_logits, source.classes, dtype)
        else:
            self.objective = replace(runs[0].objective)  # with a memory of its own
            if self.objective.memory is not None:
                self.objective.memory.generators = [stream(run.seed, run.role, "draws") for run in runs]

    def train(self, keep: Keep | None = None, checkpoint: Checkpoint | None = None) -> list[Outcome]:
        return [
            replace(outcome, projection=self._projection(place)) if outcome.diverged_at is None else outcome
            for place, outcome in enumerate(super().train(keep, checkpoint))
        ]

    def finish_epoch(self, checkpoint: Checkpoint | None) -> None:
        """Make the steps of the epoch that are not made yet."""
        count, batch = self.data.train_labels.shape[1], self.schedule.batch_size
        if self.order is None:
            self.order = torch.stack([torch.randperm(count, generator=generator) for generator in self.orders])
        tables = [self.data.train_inputs, self.data.train_labels if self.objective is not None else self.targets]
        answers = self._answers_of_copies()
        tables += [] if answers is None else [answers]
        rows = (self.order + count * torch.arange(len(self.runs))[:, None]).flatten()
        shuffled = [
            table.flatten(0, 1).index_select(0, rows).unflatten(0, self.order.shape).split(batch, 1) for table in tables
        ]
        indices = self.order.split(batch, 1)
        self.network.train()
        for step in range(self.step, len(indices)):
            rate = self.schedule.rate(self.epoch - 1 + step / len(indices))
            self._make_step([part[step] for part in shuffled], indices[step], rate)
            self.step += 1
            if checkpoint is not None and checkpoint.is_due():
                checkpoint.save(self.state_dict(), THREADS)
        if self.objective is not None:
            self.objective.after_epoch(self.network, self.epoch)

    def _answers_of_copies(self) -> Tensor | None:
        """Logits `[S, N, n, K]` of each network's past copies on its training examples, computed when a copy is new."""
        memory = self.objective and self.objective.memory
        if isinstance(memory, PastCopies) and (self.answers is None or memory.epochs % self.objective.every == 0):
            logits = self.objective.teacher_logits(self.network, self.data.train_inputs)
            self.answers = None if logits is None else logits.movedim(0, -2).contiguous()
        return self.answers

    def _make_step(self, batch: Sequence[Tensor], index: Tensor, rate: float) -> None:
        if self.objective is None:  # the loss's gradient in closed form, whose equality with autograd's is tested
            gradient = self.network.backpropagate(
                batch[0], lambda logits: gradient_from_targets(logits, batch[1], *self.constants)
            )
            self.pulls.append(gradient[:, 0, 0])
        else:
            logits = self.network(batch[0])
            own = self.objective.teacher_logits(self.network, batch[0]) if len(batch) == 2 else batch[2].movedim(-2, 0)
            total = self.objective.unchecked(Batch(logits, batch[1], own, index)).total
            total.sum().backward()
            self.pulls.append(total.detach())
        self.optimizer.step(rate)
        if self.objective is not None:
            self.objective.after_step(self.network)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "place": [self.epoch, self.step],
            "order": self.order,
            "orders": [generator.get_state() for generator in self.orders],
            "curves": self.curves,
            "before": self.before,
            "pulls": torch.stack(self.pulls),
            "memory": self.objective and self.objective.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.order = state["order"]
        self.curves, self.before = state["curves"], state["before"]
        self.epoch, self.step = state["place"]
        for generator, saved in zip(self.orders, state["orders"], strict=True):
            generator.set_state(saved)
        self.pulls = list(state["pulls"])
        if self.objective is not None:
            self.objective.load_state_dict(state["memory"])

    def weights(self, place: int) -> Network:
        """The network of one run that is measured and teaches."""
        return {name: tensor[place].detach().clone() for name, tensor in self.network.state_dict().items()}

    @torch.no_grad()
    def _logits(self, inputs: Tensor) -> Tensor:
        """Logits `[S, N, K]` of the networks that are measured."""
        return _in_pieces(self.network.eval(), inputs)

    @torch.no_grad()
    def _features(self, inputs: Tensor) -> Tensor:
        """What the last layer reads `[S, N, H]`, of the networks that are measured."""
        return self.network.eval().features(inputs)

    def _projection(self, place: int) -> dict[str, list[list[float]]]:
        """The pictures of one run, where its inputs are images."""
        drawn = self.followed is not None and self.runs[place].seed == PROJECTION_SEED
        if not drawn or dataset(self.runs[0].data).classes < PROJECTION_CLASSES:
            return {}
        names = {id(parameter): name for name, parameter in self.network.named_parameters()}
        templates = self.weights(place)[names[id(self.network.head[0])]].mT[:PROJECTION_CLASSES]
        parts = {"train": (self.data.train_inputs, self.data.train_labels[place])}
        parts["test"] = (self.data.test_inputs[:, :CURVE_EXAMPLES], self.data.test_labels[:CURVE_EXAMPLES])
        return {part: projected(self._features(x)[place], y, templates) for part, (x, y) in parts.items()}

    def measure(self, *, is_last: bool) -> dict[str, Tensor]:
        """Add a point to the curves; the last time, return every metric."""
        start, data = time.perf_counter(), self.data
        examples = None if is_last else CURVE_EXAMPLES
        validation, test = self._logits(data.validation_inputs), self._logits(data.test_inputs[:, :examples])
        point = curve_point(validation, test[:, :CURVE_EXAMPLES], data, self.before)
        if self.followed is not None:
            point["information"] = self.followed.information(self._logits(self.followed.inputs))
        self.curves.append({"epoch": torch.full((len(self.runs),), self.epoch), **point})
        self.before = validation
        final = {}
        if is_last:
            outputs = Outputs(self._logits(data.train_inputs), validation, test)
            final = final_metrics(outputs, data, self.groups) | measured([self._of_the_network])
            if self.followed is not None:
                final["information"] = point["information"]
            final["output_drift"] = torch.stack([point["output_drift"] for point in self.curves]).nanmean(0)
        self.measuring += time.perf_counter() - start
        return final

    def _of_the_network(self) -> dict[str, Tensor]:
        """What is measured of features and weights rather than of outputs."""
        weights = dict(self.network.named_parameters())
        directions = [stream(run.seed, run.role, "directions") for run in self.runs]
        found = {"sharpness": sharpness(self.network, weights, self.data, directions)}
        if self.groups is not None:
            features = self._features(self.data.test_inputs[:, :CURVE_EXAMPLES])
            found |= cluster_metrics(features, self.data.test_labels[:CURVE_EXAMPLES], self.groups)
        return found


def outcomes(final: dict[str, Tensor], points: Sequence[dict[str, Tensor]], pulls: Tensor) -> list[Outcome]:
    """What S runs left: final metrics and points of the curves, a value a run, and pulls `[S, steps]`.

    A run diverged at its first pull that is not finite.
    """
    curves = {name: torch.stack([point[name] for point in points], -1).numpy() for name in points[0]}
    metrics, finite = {name: value.numpy() for name, value in final.items()}, pulls.isfinite().numpy()
    return [
        Outcome(
            metrics={name: _number(value[i]) for name, value in metrics.items()},
            curves={name: [_number(number) for number in value[i]] for name, value in curves.items()},
            diverged_at=None if finite[i].all() else int(np.argmin(finite[i])) + 1,
        )
        for i in range(len(finite))
    ]


def _in_pieces(network: nn.Module, inputs: Tensor) -> Tensor:
    """Logits `[S, N, K]`, computed in pieces that stay in the processor's cache."""
    return torch.cat([network(piece) for piece in inputs.split(EVALUATION_BATCH, 1)], 1)


def _fixed(
    runs: Sequence[Run], labels: Tensor, teacher_logits: Tensor | None, classes: int, dtype: torch.dtype
) -> tuple[list[Tensor], Tensor]:
    """Constants `[S, 1, 1]` and targets `[S, N, K]` of all examples, as `gradient_from_targets` takes them."""
    rows, offsets = [], []
    index = torch.arange(labels.shape[1])
    for place, run in enumerate(runs):
        z = torch.zeros(*labels[place].shape, classes, dtype=torch.float64)
        taught = None if run.teacher is None else teacher_logits[place].double()
        batch = Batch(z, labels[place], taught, index)
        objective = run.objective if taught is None else run.objective.fitted(batch)
        offsets.append(objective.scores(batch).softmax(-1) - 1 / classes)
        hard_weight, soft_weight = objective.weights(classes)
        rows.append((hard_weight, soft_weight / objective.student_temperature, objective.student_temperature))
    constants = [column.view(-1, 1, 1) for column in torch.tensor(rows, dtype=torch.float64).unbind(-1)]
    targets = gradient_targets(labels, torch.stack(offsets), *constants[:2])
    return [constant.to(dtype) for constant in constants], targets.to(dtype)


def _stacked(splits: Sequence[Split], dtype: torch.dtype) -> Split:
    """Splits on a leading axis; the test set, the same for all, is stored once and seen by every run."""
    first = splits[0]
    own = {name: torch.stack([getattr(split, name) for split in splits]) for name in Split._fields[:4]}
    stack = first._replace(**own, test_inputs=first.test_inputs.expand(len(splits), -1, -1))
    return Split(*(value.to(dtype) if name.endswith("inputs") else value for name, value in stack._asdict().items()))


def _number(value: np.number) -> float | int | None:
    number = value.item()
    return number if np.isfinite(number) else None


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use this many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
