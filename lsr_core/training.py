"""The training program: S runs side by side on a leading axis, each with its own data, order and constants."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import cos, pi

import numpy as np
import torch
from torch import Tensor, nn

from . import metrics
from ._errors import require
from .data import Split, dataset
from .losses import smoothing_gradient
from .runs import Run, stream

CURVE_POINTS = 12
EVALUATION_BATCH = 128
THREADS = 1  # one thread a program: the same bits on every machine of a kind, and programs side by side on its cores


@dataclass(frozen=True)
class Outcome:
    """What one run left: final metrics, curves over the stated epochs, and the step at which it diverged, if it did.

    Metrics that are not finite are None.
    """

    metrics: dict[str, float | None]
    curves: dict[str, list[float | None]]
    diverged_at: int | None


def train(runs: Sequence[Run], dtype: torch.dtype = torch.float32) -> list[Outcome]:
    """Train runs of one shape (`Run.shape`) to their last epoch, together; the outcomes keep their order.

    The runs share nothing but the program: a run that diverges changes no bit of its mates. Raises `InputError` for
    runs of different shapes.
    """
    require(len({run.shape for run in runs}) == 1, "runs in one stack must share data, sizes, network and epochs")
    with threads(THREADS):
        return _Stack(runs, dtype).train()


class _Stack:
    """The state of S runs in training."""

    def __init__(self, runs: Sequence[Run], dtype: torch.dtype) -> None:
        self.runs, self.schedule, source = runs, runs[0].schedule, dataset(runs[0].data)
        splits = {run.seed: source.split(run.train, run.seed) for run in runs}
        self.data = _stacked([splits[run.seed] for run in runs], dtype)
        weights = [stream(run.seed, run.role, "weights") for run in runs]
        self.network = runs[0].network.stack(source.features, source.classes, weights).to(dtype)
        self.orders = [stream(run.seed, run.role, "order") for run in runs]
        self.optimizer = _SGD(self.network, runs)
        self.constants = _constants(runs, source.classes)
        self.pulls: list[Tensor] = []  # one number of each step's gradients, to see when a run diverged

    def train(self) -> list[Outcome]:
        epochs, curves = self.schedule.epochs, []
        for epoch in range(1, epochs + 1):
            self._epoch(epoch)
            if epoch in stated_epochs(epochs):
                curves.append({"epoch": torch.full((len(self.runs),), epoch), **self._curve_point()})
        return self._outcomes(
            self._final(), {name: torch.stack([point[name] for point in curves], -1) for name in curves[0]}
        )

    def _epoch(self, epoch: int) -> None:
        batch = self.schedule.batch_size
        count = self.data.train_labels.shape[1]
        order = torch.stack([torch.randperm(count, generator=generator) for generator in self.orders])
        rows = (order + count * torch.arange(len(self.runs))[:, None]).flatten()
        inputs, labels = (
            values.flatten(0, 1).index_select(0, rows).unflatten(0, order.shape)
            for values in (self.data.train_inputs, self.data.train_labels)
        )
        self.network.train()
        steps = list(zip(inputs.split(batch, 1), labels.split(batch, 1), strict=True))
        for step, (x, y) in enumerate(steps):
            done = (epoch - 1 + step / len(steps)) / self.schedule.epochs
            logits = self.network(x)
            gradient = smoothing_gradient(logits.detach(), y, **self.constants)
            logits.backward(gradient)
            self.optimizer.step((1 + cos(pi * done)) / 2)
            self.pulls.append(gradient[:, 0, 0])

    @torch.no_grad()
    def _curve_point(self) -> dict[str, Tensor]:
        data, point = self.data, {}
        for part, inputs, labels in (
            ("validation", data.validation_inputs, data.validation_labels),
            ("test", data.test_inputs, data.test_labels),
        ):
            logits = self._logits(inputs)
            point |= {f"{part}_accuracy": metrics.accuracy(logits, labels), f"{part}_nll": metrics.nll(logits, labels)}
        return point

    def _logits(self, inputs: Tensor) -> Tensor:
        """Logits `[S, N, K]`, computed in pieces that stay in the processor's cache."""
        self.network.eval()
        return torch.cat([self.network(piece) for piece in inputs.split(EVALUATION_BATCH, 1)], 1)

    @torch.no_grad()
    def _final(self) -> dict[str, Tensor]:
        data = self.data
        validation, test = self._logits(data.validation_inputs), self._logits(data.test_inputs)
        one_hot = nn.functional.one_hot(data.validation_labels, test.shape[-1])
        temperature = metrics.best_temperature(validation, one_hot)
        train = self._logits(data.train_inputs)
        final = {
            "train_accuracy": metrics.accuracy(train, data.train_labels),
            "validation_accuracy": metrics.accuracy(validation, data.validation_labels),
            "validation_nll": metrics.nll(validation, data.validation_labels),
            "accuracy": metrics.accuracy(test, data.test_labels),
            "nll": metrics.nll(test, data.test_labels),
            "nll_scaled": metrics.nll(test, data.test_labels, temperature),
            "ece": metrics.ece(test, data.test_labels),
            "temperature": temperature,
        }
        if data.test_posterior is not None:
            best = metrics.best_temperature(test, data.test_posterior)
            final |= {
                "kl_posterior": metrics.kl_to_posterior(data.test_posterior, test),
                "kl_posterior_scaled": metrics.kl_to_posterior(data.test_posterior, test, best),
                "kl_dark": metrics.kl_of_dark_part(data.test_posterior, test, data.test_labels),
            }
        return final

    def _outcomes(self, final: dict[str, Tensor], curves: dict[str, Tensor]) -> list[Outcome]:
        finite = torch.stack(self.pulls, -1).isfinite().numpy()
        final, curves = ({name: value.numpy() for name, value in table.items()} for table in (final, curves))
        return [
            Outcome(
                metrics={name: _number(value[i]) for name, value in final.items()},
                curves={name: [_number(number) for number in value[i]] for name, value in curves.items()},
                diverged_at=None if finite[i].all() else int(np.argmin(finite[i])) + 1,
            )
            for i in range(len(self.runs))
        ]


class _SGD:
    """Momentum SGD whose learning rate and weight decay are one number a run."""

    def __init__(self, network: nn.Module, runs: Sequence[Run]) -> None:
        self.parameters = list(network.parameters())
        self.velocities = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.momentum = runs[0].schedule.momentum
        self.rates, self.decays = (
            torch.tensor([getattr(run.schedule, name) for run in runs], dtype=self.parameters[0].dtype)
            for name in ("learning_rate", "weight_decay")
        )

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One step with every learning rate multiplied by `factor`; gradients are cleared."""
        for parameter, velocity in zip(self.parameters, self.velocities, strict=True):
            torch.add(parameter.grad, velocity, alpha=self.momentum, out=velocity)
            of_runs = (-1, *[1] * (parameter.ndim - 1))
            velocity.addcmul_(parameter, self.decays.view(of_runs))
            parameter.addcmul_(velocity, self.rates.view(of_runs), value=-factor)
            parameter.grad = None


def stated_epochs(epochs: int) -> list[int]:
    """The epochs, at most 12 and always the last, after which validation and test are measured."""
    return sorted({round(epochs * (i + 1) / CURVE_POINTS) for i in range(CURVE_POINTS)} - {0})


def _constants(runs: Sequence[Run], classes: int) -> dict[str, Tensor]:
    """The objectives' numbers, one a run, as `smoothing_gradient` takes them."""
    rows = [
        (*o.weights(classes), o.student_temperature, o.teacher_share(classes)) for o in (run.objective for run in runs)
    ]
    columns = torch.tensor(rows, dtype=torch.float64).unbind(-1)
    return dict(zip(("hard_weight", "soft_weight", "temperature", "share"), columns, strict=True))


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
