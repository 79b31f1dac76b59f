"""Benchmarks of training on images: this study's program against the plain loop of the papers' repositories."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from lsr_core._progress import bar
from lsr_core._torchvision import import_torchvision
from lsr_core.augmentation import Augmentation
from lsr_core.data import Split, dataset
from lsr_core.evaluation import evaluation_epochs
from lsr_core.models import ImageNetwork, cost
from lsr_core.objectives import objective
from lsr_core.run import Run, TrainedTeacher, stream
from lsr_core.schedule import Schedule
from lsr_core.trainer import Trainer
from study import paper  # noqa: F401 (it adds MobileNetV2)

DATA = "cifar100"
_BATCH, _STEPS, _ROUNDS = 128, 8, 3
EXAMPLES = _STEPS * _BATCH  # a turn is an epoch, so that no loader works ahead in the other's turn
_SCHEDULE = Schedule(0.1, 5e-4, epochs=200, batch_size=_BATCH)
_TRAINED = (ImageNetwork("resnet20"), ImageNetwork("resnet18"), ImageNetwork("mobilenetv2"))
_STUDENT = ImageNetwork("resnet20")
_TEACHERS = {"equal": ImageNetwork("resnet20"), "six": ImageNetwork("resnet56", width=32)}
_STUDENTS = 6
_MEASURED = 5000  # images of the run whose measuring is timed
_PEAK_SIDE = 4096
Row = dict[str, str | float]


def rows() -> list[Row]:
    """The table for images, empty where they are not on this machine; a row compares two things, taken in turn."""
    if not is_possible():
        return []
    peak = matrix_peak()
    table = []
    for network in bar(_TRAINED, desc="trainer", unit="network"):
        row = _trainer_row(network)
        table += [row, _peak_row(network, row["ours"], peak)]
    shared = [
        row for name, teacher in _TEACHERS.items() for row in (_shared_row(name, teacher), _cost_row(name, teacher))
    ]
    return [*table, _compiled_row(), _measuring_row(), *shared]


def is_possible() -> bool:
    """Whether the images are on this machine; nothing is downloaded for a benchmark."""
    return dataset(DATA).path.exists()


def _trainer_row(network: ImageNetwork) -> Row:
    """Images per second in training with the papers' augmentation, ours and the plain loop's."""
    run = _run(network)
    ours, plain = _Epochs(run), _PlainEpochs(run)
    fast, slow = _in_turn(ours.make, plain.make)
    return {
        "name": f"trainer/{network.architecture}",
        "ours": _BATCH / fast,
        "other": _BATCH / slow,
        "unit": "images/s",
        "ratio": slow / fast,
    }


def _peak_row(network: ImageNetwork, images: float, peak: float) -> Row:
    """Operations per second that training makes use of, three forward passes an image, against the matrix peak."""
    source = dataset(DATA)
    used = 6 * cost(network, source.image_shape, source.classes).multiply_adds * images / 1e12
    return {
        "name": f"peak/{network.architecture}",
        "ours": used,
        "other": peak,
        "unit": "TFLOP/s",
        "ratio": used / peak,
    }


def _measuring_row() -> Row:
    """Seconds of a run of 40 epochs on 5,000 images that go into measuring it, from an epoch and both measurements."""
    schedule = replace(_SCHEDULE, epochs=40)
    trainer = Trainer.of([replace(_run(ImageNetwork("resnet8")), train=_MEASURED, schedule=schedule)])
    trainer.train_epoch()
    trainer.evaluate()
    epoch, point = _seconds(trainer.train_epoch), _seconds(trainer.evaluate)
    trainer.epoch = schedule.last
    measuring = (len(evaluation_epochs(schedule.last)) - 1) * point + _seconds(trainer.evaluate)
    whole = schedule.last * epoch + measuring
    return {
        "name": "evaluation/resnet8-5000",
        "ours": measuring,
        "other": whole,
        "unit": "s a run",
        "ratio": whole / measuring,
    }


def _shared_row(name: str, teacher: ImageNetwork) -> Row:
    """Images per second and student, of six students of one teacher in one program and in six."""
    taught = TrainedTeacher(_run(teacher, role="teacher"))
    runs = [_run(_STUDENT, teacher=taught)] * _STUDENTS
    source = dataset(DATA)
    weights = teacher.build(source.image_shape, source.classes, torch.Generator()).state_dict()
    together = _Epochs(*runs, teacher=weights)
    apart = [_Epochs(run, teacher=weights) for run in runs]

    def make_apart() -> None:
        for steps in apart:
            steps.make()

    fast, slow = _in_turn(together.make, make_apart)
    images = _STUDENTS * _BATCH
    return {
        "name": f"shared-teacher/{name}",
        "ours": images / fast,
        "other": images / slow,
        "unit": "images/s",
        "ratio": slow / fast,
    }


def _cost_row(name: str, teacher: ImageNetwork) -> Row:
    """Images per second in a forward pass, of the student and of its teacher: what the teacher's answers cost."""
    student, taught = (Trainer.of([_run(network)]) for network in (_STUDENT, teacher))
    fast, slow = _in_turn(lambda: _answer(student), lambda: _answer(taught))
    return {
        "name": f"teacher-forward/{name}",
        "ours": _BATCH / fast,
        "other": _BATCH / slow,
        "unit": "images/s",
        "ratio": slow / fast,
    }


@torch.no_grad()
def _answer(trainer: Trainer) -> None:
    """A forward pass of every training image, in the batches of training."""
    network, data = trainer.network.eval(), trainer.data
    for images in data.split.train_inputs.split(_BATCH):
        with data.autocast():
            network(data.prepare(images))


def _compiled_row() -> Row:
    """Images per second as it is, and with the network compiled, once that is done."""
    eager, compiled = _Epochs(_run(_STUDENT)), _Epochs(_run(_STUDENT))
    _compiled(compiled.trainer.network.networks[0])
    fast, slow = _in_turn(eager.make, compiled.make)
    return {
        "name": f"compiled/{_STUDENT.architecture}",
        "ours": _BATCH / fast,
        "other": _BATCH / slow,
        "unit": "images/s",
        "ratio": slow / fast,
    }


def _compiled(network: nn.Module) -> None:
    network.compile()


def matrix_peak() -> float:
    """The most that matrix products reach on this device in bf16 or float32, in TFLOP/s, measured."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(_PEAK_SIDE, _PEAK_SIDE).to(dtype)
        found += [2 * _PEAK_SIDE**3 / _seconds(lambda a=a: a @ a) / 1e12 for _ in range(3)]
    return max(found)


class _Epochs:
    """Epochs of our program, without measurements."""

    def __init__(self, *runs: Run, teacher: dict[str, Tensor] | None = None) -> None:
        self.trainer = Trainer.of(runs, teacher)
        self.make = self.trainer.train_epoch


class _PlainEpochs:
    """Epochs as the papers' repositories make them: PIL transforms in two loader processes, float32, eager."""

    def __init__(self, run: Run) -> None:
        torchvision, source = import_torchvision(), dataset(run.data)
        v1 = torchvision.transforms
        seen = v1.Compose(
            [
                v1.ToPILImage(),
                v1.RandomCrop(source.image_shape[-1], padding=4),
                v1.RandomHorizontalFlip(),
                v1.RandomRotation(15),
                v1.ToTensor(),
                v1.Normalize(source.mean, source.std),
            ]
        )
        split = source.split(run.train, run.seed)
        self.loader = DataLoader(
            _Transformed(split, seen), batch_size=_BATCH, shuffle=True, num_workers=2, persistent_workers=True
        )
        self.network = run.network.build(
            source.image_shape, source.classes, stream(run.seed, run.role, "weights")
        ).train()
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def make(self) -> None:
        for images, labels in self.loader:
            self.optimizer.zero_grad()
            loss = cross_entropy(self.network(images), labels)
            loss.backward()
            self.optimizer.step()
            loss.item()  # as their loops do, for the progress line


class _Transformed(Dataset):
    """Images that are transformed one by one, as PIL images."""

    def __init__(self, split: Split, transform: Callable[[np.ndarray], Tensor]) -> None:
        self.images = split.train_inputs.permute(0, 2, 3, 1).numpy()
        self.labels, self.transform = split.train_labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return self.transform(self.images[place]), self.labels[place]


def _run(network: ImageNetwork, role: str = "student", teacher: TrainedTeacher | None = None) -> Run:
    made = objective("cross-entropy" if teacher is None else "kd")
    return Run(DATA, EXAMPLES, made, _SCHEDULE, 0, network, role, teacher, Augmentation())


def _in_turn(one: Callable[[], None], other: Callable[[], None]) -> tuple[float, float]:
    """Seconds a step of each's epochs, the median of rounds taken in turn."""
    one(), other()
    seconds = [[_seconds(epoch) / _STEPS for epoch in (one, other)] for _ in range(_ROUNDS)]
    return tuple(statistics.median(column) for column in zip(*seconds, strict=True))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
