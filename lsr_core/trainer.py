"""The trainer: S runs together, stacked on data of their own or as an ensemble that sees the same images."""

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .augmentation import normalised
from .capture import Captured, beside_others, forward_of, numbers
from .data import Split, dataset
from .data.sentences import PAD, wanted_of, with_targets
from .errors import require
from .evaluation import (
    CURVE_EXAMPLES,
    PROJECTION_CLASSES,
    InformationProbe,
    Outputs,
    cluster_metrics,
    curve_point,
    evaluation_epochs,
    final_metrics,
    mean_of_known,
    measured,
    projected,
    sharpness,
)
from .losses import gradient_from_targets, gradient_targets
from .memory import Memory, PastCopies, Predictions
from .metrics import soft_nll
from .objectives import Batch, Fixed, Objective
from .optimizers import StackedSGD, fused
from .precision import training_precision
from .run import Run, stream
from .store import hardware
from .translations import BEAM, signatures, translated, translation_metrics

EVALUATION_BATCH = 256  # examples at a time: what a stack computes of them stays in the processor's cache
PROJECTION_SEED = 0  # the seed whose runs keep their projected features
TRAIN_SENTENCES = 500  # of the training part, the first so many are measured
WARM = 2  # steps after which what is compiled and recorded is there
STACK_THREADS = 1  # of a stack: the same bits on every machine of a kind, and processes side by side on its cores

Tensors = dict[str, Tensor]
Device = torch.device | str | None


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


class Examples(NamedTuple):
    """A training batch: inputs, labels, the teacher's logits or soft targets if any, and numbers in the training set.

    A stack's have a leading axis of runs; an ensemble's do not.
    """

    inputs: Tensor
    labels: Tensor
    soft: Tensor | None
    index: Tensor


class Data:
    """What runs learn from; `split` is for evaluation, its labels `[S, N]` or `[N]` on the CPU."""

    threads: int  # of the CPU
    axis: int  # of the examples among a part's inputs
    shared: str  # what runs must have in common
    split: Split
    teacher_logits: Tensor | None
    device: torch.device
    precision: torch.dtype
    software: dict[str, str] = {}  # noqa: RUF012 (never changed), of what measures such data alone, as records say it
    recorded_on: torch.device | None = None  # the device on which its programs' steps may be recorded and replayed

    def prepare(self, inputs: Tensor) -> Tensor:
        """Inputs as the network takes them."""
        return inputs

    def autocast(self) -> torch.autocast:
        """The precision of training."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision is torch.bfloat16)

    def training_teacher_logits(self) -> Tensor | None:
        """The teachers' logits on the training examples as they are, `[S, N, K]` or `[N, K]`, or None."""
        return self.teacher_logits

    def fitted(self, objective: Fixed) -> Fixed:
        """The objective with constants from the teachers' logits on the training set, where it takes some."""
        return objective

    def own_metrics(self, network: nn.Module) -> Tensors:  # noqa: ARG002
        """What is measured of trained networks on such data alone, one number a run."""
        return {}

    @torch.no_grad()
    def logits(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """The network's logits on inputs, in small batches."""
        return torch.cat([network(self.prepare(few)) for few in inputs.split(EVALUATION_BATCH, self.axis)], -2)


class OwnExamples(Data):
    """The data of a stack: each run has its own training and validation examples `[S, N, D]`, in its own order.

    `teacher_logits` `[S, N, K]` are of each run's teacher.
    """

    shared = "stack must share data, sizes, network and epochs"
    axis = 1
    threads = STACK_THREADS

    def __init__(self, runs: Sequence[Run], teacher_logits: Tensor | None, device: Device, dtype: torch.dtype) -> None:
        self.source, self.teacher_logits = dataset(runs[0].data), teacher_logits
        self.device, self.precision = _device(device or "cpu"), dtype
        splits = {run.seed: self.source.split(run.train, run.seed) for run in runs}
        self.split = _stacked([splits[run.seed] for run in runs], self.device, dtype)
        self.labels = self.split.train_labels.to(self.device)
        self.streams = [stream(run.seed, run.role, "order") for run in runs]

    def network(self, runs: Sequence[Run]) -> nn.Module:
        """The stack of the runs' networks with their initial weights."""
        weights = [stream(run.seed, run.role, "weights") for run in runs]
        network = runs[0].network.stack(self.source.input_dim, self.source.classes, weights)
        return network.to(self.device, self.precision)

    def batches(self, size: int, soft: Tensor | None) -> Iterator[Examples]:
        """The batches of an epoch; `soft` `[S, N, ...]` is shuffled like the examples."""
        count = self.labels.shape[1]
        order = torch.stack([torch.randperm(count, generator=generator) for generator in self.streams])
        rows = (order + count * torch.arange(len(order))[:, None]).flatten().to(self.device)

        def shuffled(table: Tensor) -> Sequence[Tensor]:
            return table.flatten(0, 1).index_select(0, rows).unflatten(0, order.shape).split(size, 1)

        index = order.to(self.device).split(size, 1)
        soft = [None] * len(index) if soft is None else shuffled(soft)
        return map(Examples, shuffled(self.split.train_inputs), shuffled(self.labels), soft, index)


class SharedImages(Data):
    """The data of an ensemble: runs of one seed see the same images in the same order, augmented and normalised once.

    `teacher` holds the tensors of the runs' common teacher, whose logits are computed once for all of them: on each
    batch as it is augmented, or where nothing is, on the whole training set.
    """

    shared = "program must share data, seed, network and teacher"
    axis = 0

    def __init__(self, runs: Sequence[Run], teacher: Tensors | None, device: Device, _: torch.dtype) -> None:
        first, self.threads = runs[0], torch.get_num_threads()
        self.source, self.augmentation = dataset(first.data), first.augmentation
        self.device = _device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.precision = training_precision(first.network, self.source.image_shape, self.device)
        split = self.source.split(first.train, first.seed)
        self.labels = split.train_labels.to(self.device)
        self.split = _inputs_to(split, self.device)._replace(train_labels=split.train_labels.expand(len(runs), -1))
        order, draws = (stream(first.seed, first.role, purpose) for purpose in ("order", "augmentation"))
        self.streams = [order, on_device(draws, self.device)]
        self.recorded_on = self.device
        self._captured = Captured(self._examples, self.recorded_on, self.streams[1:])
        self.teacher, self.teacher_logits = None, None
        if teacher is not None:
            self.teacher = self._build(first.teacher.run, torch.Generator()).eval()
            self.teacher.load_state_dict(teacher)
            if self.augmentation is None or any(_takes_constants(run.objective) for run in runs):
                self.teacher_logits = self.logits(self.teacher, self.split.train_inputs)

    def network(self, runs: Sequence[Run]) -> "Ensemble":
        """The runs' networks with their initial weights."""
        return Ensemble([self._build(run, stream(run.seed, run.role, "weights")) for run in runs])

    def batches(self, size: int, soft: None = None) -> Iterator[Examples]:  # noqa: ARG002
        """The batches of an epoch."""
        order = torch.randperm(len(self.labels), generator=self.streams[0])
        for index in order.to(self.device, non_blocking=True).split(size):
            batch = self._captured(index)
            self._captured.join()
            yield batch

    def _examples(self, index: Tensor) -> Examples:
        images = self.split.train_inputs[index]
        if self.augmentation is not None:
            images = self.augmentation(images, self.streams[1])
        images = self.prepare(images)
        return Examples(images, self.labels[index], self._teacher_logits(images, index), index)

    def prepare(self, images: Tensor) -> Tensor:
        return normalised(images, self.source.mean, self.source.std).contiguous(memory_format=torch.channels_last)

    def training_teacher_logits(self) -> Tensor | None:
        if self.teacher is None or self.teacher_logits is not None:
            return self.teacher_logits
        return self.logits(self.teacher, self.split.train_inputs)

    def fitted(self, objective: Fixed) -> Fixed:
        if self.teacher_logits is None:
            return objective
        numbers = torch.arange(len(self.labels), device=self.device)
        return objective.fitted(Batch(torch.zeros_like(self.teacher_logits), self.labels, self.teacher_logits, numbers))

    @torch.no_grad()
    def _teacher_logits(self, images: Tensor, index: Tensor) -> Tensor | None:
        if self.teacher is None or self.augmentation is None:
            return None if self.teacher is None else self.teacher_logits[index]
        with self.autocast():
            return self.teacher(images)

    def _build(self, run: Run, generator: torch.Generator) -> nn.Module:
        network = run.network.build(self.source.image_shape, self.source.classes, generator)
        return network.to(self.device, memory_format=torch.channels_last)


class SharedSentences(Data):
    """The data of an ensemble that translates: runs of one seed see the same sentences in the same order.

    A batch has about as many pieces as the schedule says, and as many labels; `split` has the first training sentences.
    `teacher` holds the tensors of the runs' common teacher, whose logits are computed once a batch for all of them.
    """

    shared = "program must share data, seed, network, teacher and translator"
    axis = 0

    def __init__(self, runs: Sequence[Run], teacher: Tensors | None, device: Device, _: torch.dtype) -> None:
        first, self.threads = runs[0], torch.get_num_threads()
        self.source, self.precision, self.teacher_logits = dataset(first.data), torch.float32, None
        self.software = signatures()
        self.device = _device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        split = self.source.split(first.train, first.seed)
        self._learn_from(split.train_inputs.to(self.device))
        few = split.train_inputs[:TRAIN_SENTENCES]
        split = split._replace(train_inputs=few, train_labels=wanted_of(few).expand(len(runs), -1))
        self.split = _inputs_to(split, self.device)
        self.streams = [stream(first.seed, first.role, "order")]
        self.teacher = None if teacher is None else self._trained(first.teacher.run, teacher)

    def replace_targets(self, run: Run, tensors: Tensors) -> None:
        """Let the trained network of a run translate the training sentences, by a beam of four (Kim & Rush 2016)."""
        found = translated(self._trained(run, tensors), self.sentences[:, 0], BEAM)
        self._learn_from(with_targets(self.sentences, found))

    def _learn_from(self, sentences: Tensor) -> None:
        self.sentences, self.labels, self._is_wanted = sentences, wanted_of(sentences), sentences[:, 2] != PAD
        self._numbers = (self._is_wanted.flatten().cumsum(0) - 1).view_as(self._is_wanted)  # of pieces, in training
        self._lengths = (sentences != PAD).sum(-1).cpu()

    def network(self, runs: Sequence[Run]) -> "Ensemble":
        """The runs' networks with their initial weights; each draws for itself what it drops."""
        networks = [self._build(run, stream(run.seed, run.role, "weights")) for run in runs]
        for network, run in zip(networks, runs, strict=True):
            network.generator = stream(run.seed, run.role, "dropout")
        self.streams += [network.generator for network in networks]
        return Ensemble(networks)

    def batches(self, size: int, soft: None = None) -> Iterator[Examples]:  # noqa: ARG002
        """The batches of an epoch, each of sentences about as long as one another, in random order."""
        drawn = torch.randperm(len(self.sentences), generator=self.streams[0])
        order = drawn[self._lengths.amax(-1)[drawn].argsort(stable=True)]
        ends = self._lengths[order, 2].cumsum(0)  # the pieces wanted up to each sentence's end
        batches = order.split(((ends - 1) // size).bincount().tolist())
        for place in torch.randperm(len(batches), generator=self.streams[0]).tolist():
            rows = batches[place].to(self.device)
            sentences, index = self.sentences[rows], self._numbers[rows][self._is_wanted[rows]]
            with torch.no_grad():
                teacher_logits = None if self.teacher is None else self.teacher(sentences)
            yield Examples(sentences, wanted_of(sentences), teacher_logits, index)

    def training_teacher_logits(self) -> Tensor | None:
        return None if self.teacher is None else self.logits(self.teacher, self.split.train_inputs)

    def own_metrics(self, network: "Ensemble") -> Tensors:
        """BLEU and chrF of the test part, by greedy decoding and by a beam of four."""
        rows = [translation_metrics(own, self.source, self.split.test_inputs[:, 0]) for own in network.networks]
        return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}

    def _trained(self, run: Run, tensors: Tensors) -> nn.Module:
        network = self._build(run, torch.Generator()).eval()
        network.load_state_dict(tensors)
        return network

    def _build(self, run: Run, generator: torch.Generator) -> nn.Module:
        return run.network.build(self.source.length, self.source.classes, generator).to(self.device)


class Ensemble(nn.Module):
    """Networks that see the same batches: images `[B, C, H, W]` or sentences `[B, 3, L]` to logits `[S, B, K]`."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([network(images) for network in self.networks])

    def penultimate(self, images: Tensor) -> Tensor:
        """What the last layers read, `[S, B, H]`."""
        return torch.stack([network.penultimate(images) for network in self.networks])


class Learner:
    """What trains one network, of one run or of a stack: objective and optimizer.

    A stack has two fast paths, for soft labels that are fixed and for past copies.
    """

    def __init__(self, network: nn.Module, runs: Sequence[Run], data: Data) -> None:
        self.network, self.data, self._size = network, data, runs[0].schedule.batch_size
        self.objective = replace(runs[0].objective)  # with a memory of its own
        self._is_stack, self._constants, self._soft = isinstance(data, OwnExamples), None, None
        if isinstance(self.objective, Fixed):
            if self._is_stack:
                self._constants, self._soft = _closed_form(runs, data)
            else:
                self.objective = data.fitted(self.objective)
        if self.memory is not None:
            draws = (stream(run.seed, run.role, "draws") for run in runs)
            self.memory.generators = [on_device(generator, data.device) for generator in draws]
        if isinstance(self.memory, Predictions):
            self.memory.expect(data.labels.shape[-1])
        alone = runs[0].network.stack_size == 1 and len(runs) == 1  # torch's fused kernel has one rate for all runs
        self.optimizer = fused(network, runs[0]) if alone else StackedSGD(network, runs)
        self._forward = forward_of(network, data.recorded_on, runs[0].train * runs[0].schedule.last)
        self._begin()

    def _begin(self) -> None:
        """Let steps be recorded, from the state as it is."""
        memory, device = self.memory, self.data.recorded_on
        self._captured = Captured(self._step, device, [] if memory is None else memory.generators)
        if self._captured.records and memory is not None:
            memory.steps = torch.as_tensor(memory.steps, dtype=torch.float64, device=device)

    @property
    def memory(self) -> Memory | None:
        """What the objective remembers."""
        return self.objective.memory

    @property
    def is_compiled(self) -> bool:
        """Whether the network is compiled for training."""
        return self._forward is not self.network

    def load_state_dict(self, optimizer: dict[str, Any], memory: dict[str, Any]) -> None:
        """Go on from the states of optimizer and memory."""
        self.optimizer.load_state_dict(optimizer)
        self.objective.load_state_dict(memory)
        self._begin()

    def soft(self) -> Tensor | None:
        """Of a stack, what the whole training set has in this epoch, or None.

        Targets of the gradient `[S, N, K]`, or the past copies' logits `[S, N, n, K]`, computed once a copy rather
        than once a step.
        """
        memory = self.objective.memory
        remembers = self._is_stack and isinstance(memory, PastCopies)
        if remembers and (self._soft is None or memory.epochs % self.objective.every == 0):
            copies = self.objective.teacher_logits(self.network, self.data.split.train_inputs)
            self._soft = None if copies is None else copies.movedim(0, -2).contiguous()
        return self._soft

    def step(self, batch: Examples, rate: float | Tensor) -> Tensor:
        """One step with `rate` times the learning rate; returns a number a run that is finite unless it diverged.

        It is valid after `join`, until the next step.
        """
        return self._captured(*batch, rate, version=0 if self.memory is None else self.memory.epochs)

    def join(self) -> None:
        """Let what follows wait for the step."""
        self._captured.join()

    def _step(self, *given: Any) -> Tensor:
        *batch, rate = given
        finite_probe = self.differentiate(Examples(*batch))
        self.optimizer.step(rate)
        self.objective.after_step(self.network)
        return finite_probe

    def differentiate(self, batch: Examples) -> Tensor:
        """Set the gradients of the objective's loss."""
        soft = batch.soft
        if self._constants is not None:  # the gradient in closed form instead of the loss; tests hold them equal
            gradient = self.network.backpropagate(
                batch.inputs, lambda logits: gradient_from_targets(logits, soft, *self._constants)
            )
            return gradient[:, 0, 0]
        forward = self._forward if len(batch.labels) == self._size else self.network  # compiled for one size
        with self.data.autocast():
            logits = forward(batch.inputs)
            if soft is None:
                soft = self.objective.teacher_logits(self.network, batch.inputs)
            elif self._is_stack:
                soft = soft.movedim(-2, 0)
        total = self.objective.unchecked(Batch(logits, batch.labels, soft, batch.index)).total
        total.sum().backward()
        return total.detach()


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
        self._created = time.perf_counter()
        self.runs, self.schedule, self.data = runs, runs[0].schedule, kind(runs, teacher, device, dtype)
        fits = (targets is None) == (runs[0].targets is None)
        require(fits, "targets are the tensors of the runs' translator; give them if the runs have one, and only then")
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
        self.probe = None if side is None else InformationProbe.of(self.data.split, side)

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
        evaluated = evaluation_epochs(self.schedule.last)
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
        point = curve_point(now, test[:, :CURVE_EXAMPLES], data, self._before)
        if self.probe is not None:
            point["information"] = self.probe.information(self.logits(self.probe.inputs))
        self.curves.append({"epoch": torch.full((len(self.runs),), self.epoch), **point})
        self._before = now
        if self.is_finished:
            outputs = Outputs(self.logits(data.train_inputs), validation, test)
            self.final = final_metrics(outputs, data, self.data.source.superclasses)
            self.final |= measured([self._sharpness, self._clusters, lambda: self._soft_nll(outputs.train)])
            self.final |= measured([lambda: self.data.own_metrics(self.network)])
            if self.probe is not None:
                self.final["information"] = point["information"]
            self.final["output_drift"] = mean_of_known([point["output_drift"] for point in self.curves])
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
            "before": self._before,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.network.load_state_dict(state["network"])
        for learner, optimizer, memory in zip(self.learners, state["optimizers"], state["memories"], strict=True):
            learner.load_state_dict(optimizer, memory)
        for generator, own in zip(self.data.streams, state["streams"], strict=True):
            generator.set_state(own)
        self.epoch, self.diverged_at = state["epoch"], state["diverged_at"]
        self.curves, self._before = state["curves"], state["before"]

    def _sharpness(self) -> Tensors:
        """How sharp the minima of a stack are."""
        if isinstance(self.network, Ensemble):
            return {}
        weights = dict(self.network.named_parameters())
        directions = [stream(run.seed, run.role, "directions") for run in self.runs]
        return {"sharpness": sharpness(self.network, weights, self.data.split, directions)}

    def _clusters(self) -> Tensors:
        """How far apart the classes' features are, of the first test examples."""
        superclasses = self.data.source.superclasses
        if superclasses is None:
            return {}
        (few, *_) = self.data.split.test_inputs.split(CURVE_EXAMPLES, self.data.axis)
        return cluster_metrics(self._penultimate(few), self.data.split.test_labels[:CURVE_EXAMPLES], superclasses)

    def _soft_nll(self, logits: Tensor) -> Tensors:
        """Of the students among the runs, from their logits `[S, N, K]` on the training examples; nan of the others."""
        teacher = self.data.training_teacher_logits()
        if teacher is None:
            return {}
        temperatures = torch.tensor([run.objective.student_temperature for run in self.runs])
        values = soft_nll(logits, teacher.cpu(), temperatures[:, None, None])
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
        return {part: projected(self._penultimate(x)[place], y, templates) for part, (x, y) in parts.items()}


def train(runs: Sequence[Run], teacher: Tensor | Tensors | None = None, **options: Any) -> list[Outcome]:
    """Train runs of one `stack_key` to their last epoch, as `Trainer` takes them."""
    return Trainer(runs, teacher, **options).train()


@torch.no_grad()
def stack_logits(stack: nn.Module, inputs: Tensor) -> Tensor:
    """Logits `[S, N, K]` of a stack, each network on its own inputs `[S, N, D]`."""
    with threads(STACK_THREADS):
        return torch.cat([stack.eval()(few) for few in inputs.split(EVALUATION_BATCH, 1)], 1)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use this many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def on_device(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """A stream of the same seed that draws on a device."""
    return torch.Generator(device).manual_seed(generator.initial_seed())


def _device(device: torch.device | str) -> torch.device:
    """The device; raises `InputError` for a GPU where there is none."""
    found = torch.device(device)
    there = found.type != "cuda" or torch.cuda.is_available()
    require(there, f"device is {str(found)!r}, and torch {torch.__version__} finds no GPU here; give 'cpu'")
    return found


def _closed_form(runs: Sequence[Run], data: OwnExamples) -> tuple[list[Tensor], Tensor]:
    """Constants `[S, 1, 1]` and targets `[S, N, K]` of all examples, as `gradient_from_targets` takes them."""
    rows, offsets, labels, classes = [], [], data.split.train_labels, data.source.classes
    for place, run in enumerate(runs):
        teacher_logits = None if run.teacher is None else data.teacher_logits[place].double()
        z = torch.zeros(*labels[place].shape, classes, dtype=torch.float64)
        batch = Batch(z, labels[place], teacher_logits, torch.arange(len(z)))
        objective = run.objective if run.teacher is None else run.objective.fitted(batch)
        offsets.append(objective.scores(batch).softmax(-1) - 1 / classes)
        hard_weight, soft_weight = objective.weights(classes)
        rows.append((hard_weight, soft_weight / objective.student_temperature, objective.student_temperature))
    constants = [column.view(-1, 1, 1) for column in torch.tensor(rows, dtype=torch.float64).unbind(-1)]
    targets = gradient_targets(labels, torch.stack(offsets), *constants[:2])
    return [values.to(data.device, data.precision) for values in constants], targets.to(data.device, data.precision)


def _takes_constants(objective: Objective) -> bool:
    """Whether the objective takes constants from its teacher's logits on the whole training set."""
    return isinstance(objective, Fixed) and type(objective).fitted is not Fixed.fitted


def _stacked(splits: Sequence[Split], device: torch.device, dtype: torch.dtype) -> Split:
    """Splits on a leading axis; the test set, the same for all, is stored once and seen by every run."""
    own = {name: torch.stack([getattr(split, name) for split in splits]) for name in Split._fields[:4]}
    stack = _inputs_to(splits[0]._replace(**own), device, dtype)
    return stack._replace(test_inputs=stack.test_inputs.expand(len(splits), -1, -1))


def _inputs_to(split: Split, device: torch.device, dtype: torch.dtype | None = None) -> Split:
    """The split with its inputs on a device."""
    inputs = {name: value.to(device, dtype) for name, value in split._asdict().items() if name.endswith("inputs")}
    return split._replace(**inputs)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
