"""What runs learn from: examples of their own on a leading axis, or images and sentences that they see together."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .augmentation import normalised
from .capture import Captured
from .data import Split, dataset
from .data.sentences import PAD, wanted_of, with_targets
from .errors import require
from .objectives import Batch, Fixed
from .precision import training_precision
from .run import Run, stream
from .translations import BEAM, signatures, translated, translation_metrics

EVALUATION_BATCH = 256  # examples at a time: what a stack computes of them stays in the processor's cache
TRAIN_SENTENCES = 500  # of the training part, the first so many are measured
STACK_THREADS = 1  # of a stack: the same bits on every machine of a kind, and processes side by side on its cores

Tensors = dict[str, Tensor]
Device = torch.device | str | None


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
    software: Mapping[str, str] = MappingProxyType({})  # of what measures such data alone, as records say it
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
            if self.augmentation is None or any(run.objective.takes_constants for run in runs):
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


def on_device(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """A stream of the same seed that draws on a device."""
    return torch.Generator(device).manual_seed(generator.initial_seed())


def _device(device: torch.device | str) -> torch.device:
    """The device; raises `InputError` for a GPU where there is none."""
    found = torch.device(device)
    there = found.type != "cuda" or torch.cuda.is_available()
    require(there, f"device is {str(found)!r}, and torch {torch.__version__} finds no GPU here; give 'cpu'")
    return found


def _stacked(splits: Sequence[Split], device: torch.device, dtype: torch.dtype) -> Split:
    """Splits on a leading axis; the test set, the same for all, is stored once and seen by every run."""
    own = {name: torch.stack([getattr(split, name) for split in splits]) for name in Split._fields[:4]}
    stack = _inputs_to(splits[0]._replace(**own), device, dtype)
    return stack._replace(test_inputs=stack.test_inputs.expand(len(splits), -1, -1))


def _inputs_to(split: Split, device: torch.device, dtype: torch.dtype | None = None) -> Split:
    """The split with its inputs on a device."""
    inputs = {name: value.to(device, dtype) for name, value in split._asdict().items() if name.endswith("inputs")}
    return split._replace(**inputs)
