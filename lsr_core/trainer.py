"""The trainer: S runs together, stacked on data of their own or as an ensemble that sees the same images."""

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from . import evaluation
from .capture import beside_others, numbers
from .errors import require
from .evaluation import CURVE_EXAMPLES, PROJECTION_CLASSES, measured
from .examples import Device, Ensemble, OwnExamples, SharedImages, SharedSentences, Tensors
from .learner import Learner
from .metrics import soft_nll
from .provenance import hardware
from .run import Run, stream

PROJECTION_SEED = 0  # the seed whose runs keep their projected features
WARM = 2  # steps after which what is compiled and recorded is there


@dataclass(frozen=True)
class Outcome:
    """Of one run: final metrics, curves over the evaluation epochs, and the step at which it diverged, if it did.

    Metrics that are not finite are None. Where inputs are square grey images and the seed is 0, `projection` holds the
    rows (x, y, class) of its training and test features on the plane of three classes.
    """

    metrics: dict[str, float | None]
    curves: dict[str, list[float | None]]
    diverged_at: int | None
    projection: dict[str, list[list[float]]] = field(default_factory=dict)


class Trainer:
    """Runs of one `stack_key` in training: S networks, their data, and the epoch after which they stand.

    `teacher` holds the logits `[S, N, K]` of each run's teacher on its training examples, or for images and sentences
    the tensors of the runs' common teacher. These are trained on a GPU where there is one and no other `device` is
    asked for, anything else on the CPU; `dtype` is of stacks, and `initial` the tensors that each network for images
    starts from instead of drawn ones, if any; `targets` are those of the network whose translations runs learn from.
    Raises `InputError` for runs of several `stack_key`s, and for a GPU where there is none.

    `network` maps inputs to logits `[S, B, K]`: a stack on `OwnExamples`, an `Ensemble` on shared ones. The runs
    share nothing but the program: one that diverges does not affect the others.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        teacher: Tensor | Tensors | None = None,
        device: Device = None,
        dtype: torch.dtype = torch.float32,
        initial: Sequence[Tensors | None] = (),
        targets: Tensors | None = None,
    ) -> None:
        kind = {"images": SharedImages, "sentences": SharedSentences}.get(runs[0].network.takes, OwnExamples)
        require(len({run.stack_key for run in runs}) == 1, f"runs in one {kind.shared}")
        taught = next((run.teacher for run in runs if run.teacher), None)
        for name, given, wanted in (
            ("teacher", [teacher if taught else None], [taught]),
            ("targets", [targets], [runs[0].targets]),
            ("initial", initial or [None] * len(runs), [run.initial for run in runs]),
        ):
            fits = [one is None for one in given] == [one is None for one in wanted]
            require(fits, f"{name} does not fit the runs; give tensors where a run has it, and None elsewhere")
        self._created = time.perf_counter()
        self.runs, self.schedule, self.data = runs, runs[0].schedule, kind(runs, teacher, device, dtype)
        if targets is not None:
            self.data.replace_targets(runs[0].targets.run, targets)
        self.network = self.data.network(runs)
        if isinstance(self.network, Ensemble):
            for network, tensors in zip(self.network.networks, initial, strict=False):
                network.load_state_dict(tensors or network.state_dict())
            own = zip(self.network.networks, runs, strict=True)
            self.learners = [Learner(network, [run], self.data) for network, run in own]
        else:
            self.learners = [Learner(self.network, runs, self.data)]
        self.epoch, self.evaluation_seconds, self.start_seconds = 0, 0.0, 0.0
        self.diverged_at = torch.zeros(len(runs), dtype=torch.int64)  # the step, counted from 1; 0 for none
        self.curves: list[Tensors] = []
        self.final: Tensors = {}
        self._before: Tensor | None = None  # validation logits at the last point of the curves
        side = self.data.source.side
        self.probe = None if side is None else evaluation.InformationProbe.of(self.data.split, side)

    @property
    def is_finished(self) -> bool:
        """Whether the last epoch is over."""
        return self.epoch >= self.schedule.last

    def train(self, on_epoch_end: Callable[["Trainer"], None] | None = None) -> list[Outcome]:
        """Train to the last epoch; the outcomes are in the order of the runs.

        `on_epoch_end` is called with the trainer after every epoch, once its evaluation is done.
        """
        training = self.training(on_epoch_end)
        while True:
            try:
                next(training)
            except StopIteration as end:
                return end.value

    def training(self, on_epoch_end: Callable[["Trainer"], None] | None = None) -> Generator[None, None, list[Outcome]]:
        """The same step by step, so that other programs train beside this one; returns the outcomes."""
        return beside_others(self._training(on_epoch_end), self.data.recorded_on)

    def _training(self, on_epoch_end: Callable[["Trainer"], None] | None) -> Generator[None, None, list[Outcome]]:
        evaluated = evaluation.evaluation_epochs(self.schedule.last)
        with threads(self.data.threads):
            while not self.is_finished:
                yield from self._epoch()
                if self.epoch in evaluated:
                    self.evaluate()
                if on_epoch_end is not None:
                    on_epoch_end(self)
        return self._outcomes()

    def train_epoch(self) -> None:
        """Train one epoch."""
        for _ in self._epoch():
            pass

    def _epoch(self) -> Iterator[None]:
        size, count = self.schedule.batch_size, self.data.labels.shape[-1]
        steps, finite = -(-count // size), []
        rates = numbers([self.schedule.rate(self.epoch + step / steps) for step in range(steps)], self.data.recorded_on)
        soft = self.learners[0].soft()
        self.network.train()
        for batch, rate in zip(self.data.batches(size, soft), rates, strict=True):
            probes = [learner.step(batch, rate).view(-1) for learner in self.learners]
            for learner in self.learners:
                learner.join()
            finite.append(torch.cat(probes))
            if len(finite) == WARM and not self.start_seconds:
                self.start_seconds = time.perf_counter() - self._created
            yield
        finite = torch.stack(finite, -1).isfinite().cpu()
        first = self.epoch * steps + finite.int().argmin(-1) + 1
        self.diverged_at = torch.where((self.diverged_at == 0) & ~finite.all(-1), first, self.diverged_at)
        self.epoch += 1
        for learner in self.learners:
            learner.objective.after_epoch(learner.network, self.epoch)

    def evaluate(self) -> None:
        """Add a point to the curves, from the first validation and test examples; at the end, compute every metric."""
        start, data = time.perf_counter(), self.data.split
        count = None if self.is_finished else CURVE_EXAMPLES
        validation, test = self.logits(data.validation_inputs, count), self.logits(data.test_inputs, count)
        now = validation[:, :CURVE_EXAMPLES]
        point = evaluation.curve_point(now, test[:, :CURVE_EXAMPLES], data, self._before)
        if self.probe is not None:
            point["information"] = self.probe.information(self.logits(self.probe.inputs))
        self.curves.append({"epoch": torch.full((len(self.runs),), self.epoch), **point})
        self._before = now
        if self.is_finished:
            train = self.logits(data.train_inputs)
            self.final = evaluation.final_metrics(train, validation, test, data, self.data.source.superclasses)
            self.final |= measured([self._sharpness, self._clusters, lambda: self._soft_nll(train)])
            self.final |= measured([lambda: self.data.own_metrics(self.network)])
            if self.probe is not None:
                self.final["information"] = point["information"]
            self.final["output_drift"] = evaluation.mean_of_known([point["output_drift"] for point in self.curves])
        self.evaluation_seconds += time.perf_counter() - start

    def logits(self, inputs: Tensor, count: int | None = None) -> Tensor:
        """Logits `[S, N, K]` on the first `count` inputs, or on all, in evaluation mode, on the CPU."""
        few = inputs if count is None else inputs.split(count, self.data.axis)[0]
        return self.data.logits(self.network.eval(), few).cpu()

    def conditions(self) -> dict[str, Any]:
        """Under which the runs are trained, as their records say: device, precision, threads, and whether compiled."""
        own = {"precision": str(self.data.precision).removeprefix("torch."), "threads": self.data.threads}
        compiled = {"compiled": True} if self.learners[0].is_compiled else {}
        return {**hardware(self.data.device), **own, **compiled, **self.data.software}

    def weights(self, place: int) -> Tensors:
        """The tensors of one run's network by name, on the CPU."""
        if isinstance(self.network, Ensemble):
            tensors = self.network.networks[place].state_dict()
        else:
            tensors = {name: tensor[place] for name, tensor in self.network.state_dict().items()}
        return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the epochs to come depend on."""
        return {
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "optimizers": [learner.optimizer.state_dict() for learner in self.learners],
            "memories": [learner.objective.state_dict() for learner in self.learners],
            "streams": [generator.get_state() for generator in self.data.streams],
            "diverged_at": self.diverged_at,
            "curves": self.curves,
            "final": self.final,
            "before": self._before,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, which stays as it is."""
        state = deepcopy(state)
        self.network.load_state_dict(state["network"])
        for learner, optimizer, memory in zip(self.learners, state["optimizers"], state["memories"], strict=True):
            learner.load_state_dict(optimizer, memory)
        for generator, own in zip(self.data.streams, state["streams"], strict=True):
            generator.set_state(own)
        self.epoch, self.diverged_at = state["epoch"], state["diverged_at"]
        self.curves, self.final, self._before = state["curves"], state["final"], state["before"]

    def _sharpness(self) -> Tensors:
        """How sharp the minima of a stack are."""
        if isinstance(self.network, Ensemble):
            return {}
        weights = dict(self.network.named_parameters())
        directions = [stream(run.seed, run.role, "directions") for run in self.runs]
        return {"sharpness": evaluation.sharpness(self.network, weights, self.data.split, directions)}

    def _clusters(self) -> Tensors:
        """How far apart the classes' features are, of the first test examples."""
        superclasses = self.data.source.superclasses
        if superclasses is None:
            return {}
        (few, *_) = self.data.split.test_inputs.split(CURVE_EXAMPLES, self.data.axis)
        labels = self.data.split.test_labels[:CURVE_EXAMPLES]
        return evaluation.cluster_metrics(self._penultimate(few), labels, superclasses)

    def _soft_nll(self, logits: Tensor) -> Tensors:
        """Of the students among the runs, from their logits `[S, N, K]` on the training examples; nan of the others."""
        teacher = self.data.training_teacher_logits()
        if teacher is None:
            return {}
        temperatures = torch.tensor([run.objective.student_temperature for run in self.runs])
        values = soft_nll(logits, teacher.cpu(), temperatures)
        return {"train_soft_nll": values.where(torch.tensor([run.teacher is not None for run in self.runs]), torch.nan)}

    @torch.no_grad()
    def _penultimate(self, inputs: Tensor) -> Tensor:
        """What the last layer reads `[S, N, H]`."""
        return self.network.eval().penultimate(self.data.prepare(inputs)).cpu()

    def _outcomes(self) -> list[Outcome]:
        curves = {name: torch.stack([point[name] for point in self.curves], -1).tolist() for name in self.curves[0]}
        metrics = {name: values.tolist() for name, values in self.final.items()}
        return [
            Outcome(
                metrics={name: _finite(values[place]) for name, values in metrics.items()},
                curves={name: [_finite(value) for value in values[place]] for name, values in curves.items()},
                diverged_at=step or None,
                projection={} if step else self._projection(place),
            )
            for place, step in enumerate(self.diverged_at.tolist())
        ]

    def _projection(self, place: int) -> dict[str, list[list[float]]]:
        """The projected features of one run of a stack, where its inputs are images."""
        data = self.data.split
        is_kept = self.probe is not None and self.runs[place].seed == PROJECTION_SEED
        if not is_kept or self.data.source.classes < PROJECTION_CLASSES:
            return {}
        templates = self.network.head[0][place].detach().cpu().mT[:PROJECTION_CLASSES]
        parts = {"train": (data.train_inputs, data.train_labels[place])}
        parts["test"] = (data.test_inputs[:, :CURVE_EXAMPLES], data.test_labels[:CURVE_EXAMPLES])
        return {name: evaluation.projected(self._penultimate(x)[place], y, templates) for name, (x, y) in parts.items()}


def train(runs: Sequence[Run], teacher: Tensor | Tensors | None = None, **options: Any) -> list[Outcome]:
    """Train runs of one `stack_key` to their last epoch, as `Trainer` takes them."""
    return Trainer(runs, teacher, **options).train()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use this many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
