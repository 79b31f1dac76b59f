"""Benchmarks of training on images: this study's program against the plain loop of the papers' repositories."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from timing import Row, in_turn, row, seconds
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

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
BATCH, ROUNDS = 128, 3
EXAMPLES = 8 * BATCH  # a turn is an epoch, so that no loader works ahead in the other's turn
SCHEDULE = Schedule(0.1, 5e-4, epochs=200, batch_size=BATCH)
TRAINED = (ImageNetwork("resnet20"), ImageNetwork("resnet18"), ImageNetwork("mobilenetv2"))
STUDENT, STUDENTS = ImageNetwork("resnet20"), 6
TEACHERS = {"equal": ImageNetwork("resnet20"), "six": ImageNetwork("resnet56", width=32)}
EVALUATED = 5000  # images of the run whose evaluation is timed
PEAK_SIDE = 4096


def rows() -> list[Row]:
    """The table for images, empty where they are not on this machine: nothing is downloaded for a benchmark."""
    if not dataset(DATA).path.exists():
        return []
    peak, table = matrix_peak(), []
    for network in TRAINED:
        trained = _trainer_row(network)
        table += [trained, _peak_row(network, trained["ours"], peak)]
    table += [_compiled_row(), _evaluation_row()]
    for name, teacher in TEACHERS.items():
        table += [_shared_row(name, teacher), _forward_row(name, teacher)]
    return table


def _rate_row(name: str, one: Callable[[], object], other: Callable[[], object], images: int = 0) -> Row:
    """Images per second of two epochs."""
    fast, slow = in_turn(one, other, ROUNDS)
    images = images or EXAMPLES
    return row(name, images / fast, images / slow, "images/s", slow / fast)


def _trainer_row(network: ImageNetwork) -> Row:
    """Training with the papers' augmentation, by our program and by the plain loop."""
    run = _run(network)
    return _rate_row(f"trainer/{network.architecture}", Trainer.of([run]).train_epoch, _PlainEpochs(run).train_epoch)


def _peak_row(network: ImageNetwork, images: float, peak: float) -> Row:
    """Operations per second that training makes use of, three forward passes an image, against the matrix peak."""
    source = dataset(DATA)
    used = 6 * cost(network, source.image_shape, source.classes).multiply_adds * images / 1e12
    return row(f"peak/{network.architecture}", used, peak, "TFLOP/s", used / peak)


def _evaluation_row() -> Row:
    """Seconds of a run of 40 epochs on 5,000 images that go into evaluating it, from an epoch and both evaluations."""
    schedule = replace(SCHEDULE, epochs=40)
    trainer = Trainer.of([replace(_run(ImageNetwork("resnet8")), train=EVALUATED, schedule=schedule)])
    trainer.train_epoch()
    trainer.evaluate()
    epoch, point = seconds(trainer.train_epoch), seconds(trainer.evaluate)
    trainer.epoch = schedule.last
    evaluating = (len(evaluation_epochs(schedule.last)) - 1) * point + seconds(trainer.evaluate)
    whole = schedule.last * epoch + evaluating
    return row("evaluation/resnet8-5000", evaluating, whole, "s a run", whole / evaluating)


def _shared_row(name: str, teacher: ImageNetwork) -> Row:
    """Images per second and student, of six students of one teacher in one program and in six."""
    runs = [_run(STUDENT, TrainedTeacher(replace(_run(teacher), role="teacher")))] * STUDENTS
    source = dataset(DATA)
    weights = teacher.build(source.image_shape, source.classes, torch.Generator()).state_dict()
    apart = [Trainer.of([run], weights) for run in runs]
    together = Trainer.of(runs, weights).train_epoch
    images = STUDENTS * EXAMPLES
    return _rate_row(f"shared-teacher/{name}", together, lambda: [one.train_epoch() for one in apart], images)


def _forward_row(name: str, teacher: ImageNetwork) -> Row:
    """A forward pass of every training image, of the student and of its teacher: what the teacher's logits cost."""
    one, other = (Trainer.of([_run(network)]) for network in (STUDENT, teacher))
    return _rate_row(f"teacher-forward/{name}", lambda: _forward(one), lambda: _forward(other))


@torch.no_grad()
def _forward(trainer: Trainer) -> None:
    network, data = trainer.network.eval(), trainer.data
    for images in data.split.train_inputs.split(BATCH):
        with data.autocast():
            network(data.prepare(images))


def _compiled_row() -> Row:
    """Training as it is, and with the network compiled, once that is done."""
    eager, compiled = Trainer.of([_run(STUDENT)]), Trainer.of([_run(STUDENT)])
    compiled.network.networks[0].compile()
    return _rate_row(f"compiled/{STUDENT.architecture}", eager.train_epoch, compiled.train_epoch)


def matrix_peak() -> float:
    """The most that matrix products reach on this device in bf16 or float32, in TFLOP/s, measured."""
    fastest = []
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(PEAK_SIDE, PEAK_SIDE).to(dtype)
        fastest.append(min(seconds(lambda a=a: a @ a) for _ in range(3)))
    return 2 * PEAK_SIDE**3 / min(fastest) / 1e12


class _PlainEpochs:
    """Epochs as the papers' repositories make them: PIL transforms in two loader processes, float32, eager."""

    def __init__(self, run: Run) -> None:
        source, v1 = dataset(run.data), import_torchvision().transforms
        augment = [v1.RandomCrop(source.image_shape[-1], padding=4), v1.RandomHorizontalFlip(), v1.RandomRotation(15)]
        transform = v1.Compose([v1.ToPILImage(), *augment, v1.ToTensor(), v1.Normalize(source.mean, source.std)])
        images = _Transformed(source.split(run.train, run.seed), transform)
        self.loader = DataLoader(images, batch_size=BATCH, shuffle=True, num_workers=2, persistent_workers=True)
        weights = stream(run.seed, run.role, "weights")
        self.network = run.network.build(source.image_shape, source.classes, weights).train()
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def train_epoch(self) -> None:
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


def _run(network: ImageNetwork, teacher: TrainedTeacher | None = None) -> Run:
    method = objective("cross-entropy" if teacher is None else "kd")
    return Run(DATA, EXAMPLES, method, SCHEDULE, 0, network, teacher=teacher, augmentation=Augmentation())
