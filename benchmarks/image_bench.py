"""Benchmarks of training on images: this study's program against the plain loop of the papers' repositories."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from timing import Row, in_turn, row, seconds
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, default_collate

from lsr_core._torchvision import import_torchvision
from lsr_core.augmentation import Augmentation
from lsr_core.data import dataset
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
    source = dataset(DATA)
    if not source.path.exists():
        return []
    peak, table = matrix_peak(), []
    for network in TRAINED:
        run, name = _run(network), network.architecture
        trained = _rate_row(f"trainer/{name}", Trainer([run]).train_epoch, _PlainEpochs(run).train_epoch)
        forward = cost(network, source.image_shape, source.classes).multiply_adds
        used = 6 * forward * trained["ours"] / 1e12  # three forward passes an image
        table += [trained, row(f"peak/{name}", used, peak, "TFLOP/s", used / peak)]
    eager, compiled = Trainer([_run(STUDENT)]), Trainer([_run(STUDENT)])
    compiled.network.networks[0].compile()  # once, in the turn that is not timed
    table.append(_rate_row(f"compiled/{STUDENT.architecture}", eager.train_epoch, compiled.train_epoch))
    table.append(_evaluation_row())
    for name, teacher in TEACHERS.items():
        table += [_shared_row(name, teacher), _forward_row(name, teacher)]
    return table


def _rate_row(name: str, one: Callable[[], object], other: Callable[[], object], epochs: int = 1) -> Row:
    """Images per second of two ways to see all images, so many times."""
    fast, slow = in_turn(one, other, ROUNDS)
    return row(name, epochs * EXAMPLES / fast, epochs * EXAMPLES / slow, "images/s", slow / fast)


def _evaluation_row() -> Row:
    """Seconds of a run of 40 epochs on 5,000 images that go into evaluating it, from an epoch and both evaluations."""
    schedule = replace(SCHEDULE, epochs=40)
    trainer = Trainer([replace(_run(ImageNetwork("resnet8")), train=EVALUATED, schedule=schedule)])
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
    apart = [Trainer([run], weights) for run in runs]
    together = Trainer(runs, weights).train_epoch
    return _rate_row(f"shared-teacher/{name}", together, lambda: [one.train_epoch() for one in apart], STUDENTS)


def _forward_row(name: str, teacher: ImageNetwork) -> Row:
    """A forward pass of every training image, of the student and of its teacher: what the teacher's logits cost."""

    @torch.no_grad()
    def forward(trainer: Trainer) -> None:
        network, data = trainer.network.eval(), trainer.data
        for images in data.split.train_inputs.split(BATCH):
            with data.autocast():
                network(data.prepare(images))

    one, other = (partial(forward, Trainer([_run(network)])) for network in (STUDENT, teacher))
    return _rate_row(f"teacher-forward/{name}", one, other)


def matrix_peak() -> float:
    """The most that matrix products reach on this device in bf16 or float32, in TFLOP/s, measured."""
    where = "cuda" if torch.cuda.is_available() else "cpu"
    matrices = [torch.randn(PEAK_SIDE, PEAK_SIDE).to(where, dtype) for dtype in (torch.float32, torch.bfloat16)]
    fastest = min(seconds(lambda a=a: a @ a) for a in 3 * matrices)
    return 2 * PEAK_SIDE**3 / fastest / 1e12


class _PlainEpochs:
    """Epochs as the papers' repositories make them: PIL transforms in two loader processes, float32, eager."""

    def __init__(self, run: Run) -> None:
        source, v1 = dataset(run.data), import_torchvision().transforms
        augment = [v1.RandomCrop(source.image_shape[-1], padding=4), v1.RandomHorizontalFlip(), v1.RandomRotation(15)]
        transform = v1.Compose([v1.ToPILImage(), *augment, v1.ToTensor(), v1.Normalize(source.mean, source.std)])
        split = source.split(run.train, run.seed)
        pairs = list(zip(split.train_inputs.permute(0, 2, 3, 1).numpy(), split.train_labels.tolist(), strict=True))
        collate = {"collate_fn": lambda batch: default_collate([(transform(image), label) for image, label in batch])}
        workers = {"num_workers": 2, "persistent_workers": True}
        self.loader = DataLoader(pairs, batch_size=BATCH, shuffle=True, **workers, **collate)
        weights = stream(run.seed, run.role, "weights")
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.network = run.network.build(source.image_shape, source.classes, weights).to(self.device).train()
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def train_epoch(self) -> None:
        for images, labels in self.loader:
            self.optimizer.zero_grad()
            loss = cross_entropy(self.network(images.to(self.device)), labels.to(self.device))
            loss.backward()
            self.optimizer.step()
            loss.item()  # as their loops do, for the progress line


def _run(network: ImageNetwork, teacher: TrainedTeacher | None = None) -> Run:
    method = objective("cross-entropy" if teacher is None else "kd")
    return Run(DATA, EXAMPLES, method, SCHEDULE, 0, network, teacher=teacher, augmentation=Augmentation())
