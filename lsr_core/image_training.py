"""Training on images: runs of one seed in one program, which share their batches, augmentation and teacher."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .augmentation import normalised
from .checkpoints import Checkpoint
from .data import Split, dataset
from .errors import require
from .evaluation import CURVE_EXAMPLES, Outputs, curve_point, final_metrics
from .models import ImageClassifier
from .objectives import Batch, Fixed
from .optimizers import FusedSGD
from .precision import training_precision
from .run import Run, TrainedTeacher, stream
from .training import Keep, Network, Outcome, Program

EVALUATION_BATCH = 500


def device() -> torch.device:
    """Where images are trained on: a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(
    runs: Sequence[Run],
    teacher: Network | None = None,
    *,
    keep: Keep | None = None,
    checkpoint: Checkpoint | None = None,
) -> list[Outcome]:
    """Train runs of one shape (`Run.stack_key`) to their last epoch; the outcomes keep their order.

    `teacher` holds the tensors of the runs' common teacher, where they have one. `keep` and `checkpoint` are those of
    `training.train`. Training accuracy is measured on images as they are. Raises `InputError` for different shapes.
    """
    require(len({run.stack_key for run in runs}) == 1, "runs in one program must share data, seed, network and teacher")
    program = ImageProgram(runs, teacher)
    state = checkpoint and checkpoint.load(torch.get_num_threads())
    if state:
        program.load_state_dict(state)
    return program.train(keep, checkpoint)


def measured_training(runs: Sequence[Run]) -> tuple[float, float]:
    """Train runs and return the seconds of it, and those of them that went into measuring."""
    start = time.perf_counter()
    program = ImageProgram(runs)
    program.train()
    return time.perf_counter() - start, program.measuring


class _Student:
    """One run's network with what trains it."""

    def __init__(self, run: Run, network: ImageClassifier, autocast: Callable[[], torch.autocast]) -> None:
        self.network, self.schedule, self.autocast = network, run.schedule, autocast
        self.objective = replace(run.objective)  # with a memory of its own
        if self.objective.memory is not None:
            self.objective.memory.generators = [stream(run.seed, run.role, "draws")]
        self.optimizer = FusedSGD(network, run)

    def step(self, images: Tensor, labels: Tensor, taught: Tensor | None, index: Tensor, rate: float) -> Tensor:
        """One step on a batch; returns its loss."""
        with self.autocast():
            logits = self.network(images)
            own = self.objective.teacher_logits(self.network, images)
        total = self.objective.unchecked(Batch(logits, labels, taught if own is None else own.float(), index)).total
        total.backward()
        self.optimizer.step(rate)
        self.objective.after_step(self.network)
        return total.detach()

    @property
    def measured(self) -> nn.Module:
        """The network that is measured, in evaluation mode."""
        return self.network.eval()

    def weights(self) -> Network:
        """The tensors of the network that is measured and teaches."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "memory": self.objective.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.objective.load_state_dict(state["memory"])


class ImageProgram(Program):
    """The state of runs in training: students that see the same images."""

    def __init__(self, runs: Sequence[Run], teacher: Network | None = None) -> None:
        super().__init__(runs)
        first, source = runs[0], dataset(runs[0].data)
        self.source, self.device = source, device()
        split = source.split(first.train, first.seed)
        self.data = Split(*(None if part is None else part.to(self.device) for part in split))
        self.precision = training_precision(first.network, source.shape, self.device)
        self.students = [
            _Student(run, self._network(run, stream(run.seed, run.role, "weights")), self._autocast) for run in runs
        ]
        self.teacher = teacher and self._teacher(first.teacher, teacher)
        self.order_stream = stream(first.seed, first.role, "order")
        self.draws = self._on_device(stream(first.seed, first.role, "augmentation"))
        self.table = None if self.teacher is None else self._table()

    def finish_epoch(self, checkpoint: Checkpoint | None) -> None:
        """Make the steps of the epoch that are not made yet."""
        if self.order is None:
            self.order = torch.randperm(len(self.data.train_labels), generator=self.order_stream)
        batches = self.order.to(self.device).split(self.schedule.batch_size)
        for student in self.students:
            student.network.train()
        for step in range(self.step, len(batches)):
            self._make_step(batches[step], self.schedule.rate(self.epoch - 1 + step / len(batches)))
            self.step += 1
            if checkpoint is not None and checkpoint.is_due():
                checkpoint.save(self.state_dict(), torch.get_num_threads())
        for student in self.students:
            student.objective.after_epoch(student.network, self.epoch)

    def _make_step(self, index: Tensor, rate: float) -> None:
        images, labels = self.data.train_inputs[index], self.data.train_labels[index]
        augmentation = self.runs[0].augmentation
        if augmentation is not None:
            images = augmentation(images, self.draws)
        images, taught = self._seen(images), None
        if self.teacher is not None:
            taught = self._taught(images) if augmentation is not None else self.table[index]
        self.pulls.append(torch.stack([s.step(images, labels, taught, index, rate) for s in self.students]))

    @torch.no_grad()
    def _taught(self, images: Tensor) -> Tensor:
        with self._autocast():
            return self.teacher(images)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision is torch.bfloat16)

    def _table(self) -> Tensor | None:
        """The teacher's logits on the training images as they are: once a run where nothing is augmented.

        Objectives that take constants from their teacher take them from these.
        """
        fits = any(isinstance(run.objective, Fixed) and _is_fitted(run.objective) for run in self.runs)
        if self.runs[0].augmentation is not None and not fits:
            return None
        table, labels = self._logits(self.teacher, self.data.train_inputs), self.data.train_labels
        for student in self.students:
            if isinstance(student.objective, Fixed):
                whole = Batch(torch.zeros_like(table), labels, table, torch.arange(len(labels), device=labels.device))
                student.objective = student.objective.fitted(whole)
        return table

    @torch.no_grad()
    def _logits(self, network: nn.Module, images: Tensor) -> Tensor:
        """Logits `[N, K]` on images as they are, in float32 whatever the precision of training."""
        return torch.cat([network(self._seen(piece)) for piece in images.split(EVALUATION_BATCH)])

    def _outputs(self, images: Tensor) -> Tensor:
        """Logits `[S, N, K]` of the students that are measured."""
        return torch.stack([self._logits(student.measured, images) for student in self.students]).cpu()

    def measure(self, *, is_last: bool) -> dict[str, Tensor]:
        """Add a point to the curves, from the first validation and test images; the last time, return every metric."""
        start, data = time.perf_counter(), self.data
        validation, test = (
            self._outputs(images if is_last else images[:CURVE_EXAMPLES])
            for images in (data.validation_inputs, data.test_inputs)
        )
        count = len(self.students)
        labels = data._replace(train_labels=data.train_labels.expand(count, -1))
        labels = Split(*(part if part is None or part.ndim > 2 else part.cpu() for part in labels))
        few = labels._replace(validation_labels=labels.validation_labels[:CURVE_EXAMPLES])
        point = curve_point(validation[:, :CURVE_EXAMPLES], test[:, :CURVE_EXAMPLES], few, self.before)
        self.curves.append({"epoch": torch.full((count,), self.epoch), **point})
        self.before = validation[:, :CURVE_EXAMPLES]
        final = {}
        if is_last:
            outputs = Outputs(self._outputs(data.train_inputs), validation, test)
            final = final_metrics(outputs, labels, getattr(self.source, "groups", None))
            final["output_drift"] = torch.stack([point["output_drift"] for point in self.curves]).nanmean(0)
        self.measuring += time.perf_counter() - start
        return final

    def weights(self, place: int) -> Network:
        return self.students[place].weights()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on."""
        return {
            "students": [student.state_dict() for student in self.students],
            "place": [self.epoch, self.step],
            "order": self.order,
            "streams": [self.order_stream.get_state(), self.draws.get_state()],
            "curves": self.curves,
            "before": self.before,
            "pulls": torch.stack(self.pulls),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        for student, own in zip(self.students, state["students"], strict=True):
            student.load_state_dict(own)
        self.epoch, self.step = state["place"]
        self.order, self.curves, self.before = state["order"], state["curves"], state["before"]
        for generator, saved in zip((self.order_stream, self.draws), state["streams"], strict=True):
            generator.set_state(saved)
        self.pulls = list(state["pulls"].to(self.device))

    def _teacher(self, teacher: TrainedTeacher, tensors: Network) -> nn.Module:
        network = self._network(teacher.run, torch.Generator())
        network.load_state_dict(tensors)
        return network.eval()

    def _network(self, run: Run, generator: torch.Generator) -> ImageClassifier:
        network = run.network.build(self.source.shape, self.source.classes, generator)
        return network.to(self.device, memory_format=torch.channels_last)

    def _seen(self, images: Tensor) -> Tensor:
        """Raw images as networks take them."""
        return normalised(images, self.source.mean, self.source.std).contiguous(memory_format=torch.channels_last)

    def _on_device(self, generator: torch.Generator) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(generator.initial_seed())


def _is_fitted(objective: Fixed) -> bool:
    return type(objective).fitted is not Fixed.fitted
