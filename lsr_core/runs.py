"""Run: the complete description of one training run, and the random streams that belong to it."""

import hashlib
import json
from dataclasses import asdict, dataclass, field

import torch

from ._errors import require, require_fraction, require_positive
from .data import dataset
from .models import Convnet, Perceptron
from .objectives import Objective, describe

NUMERICS = 2  # raised when a change of the code changes results


@dataclass(frozen=True)
class Schedule:
    """Stochastic gradient descent with momentum; the learning rate falls from its start to zero by a half cosine.

    `weight_decay` is coupled (added to the gradient) and acts on all weights and biases.
    """

    learning_rate: float
    weight_decay: float = 0.0
    epochs: int = 60
    batch_size: int = 25
    momentum: float = 0.9

    def __post_init__(self) -> None:
        require_positive("learning_rate", self.learning_rate)
        require(0 <= self.weight_decay < float("inf"), f"weight_decay is {self.weight_decay!r}; it must be 0 or above")
        require_fraction("momentum", self.momentum)
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            require(isinstance(value, int) and value > 0, f"{name} is {value!r}; it must be a whole number above 0")


@dataclass(frozen=True)
class Run:
    """One training run: `train` examples of the data set named `data`, an objective, a schedule, a seed.

    The seed fixes the split; initial weights and batch order come from streams of (seed, `role`), so that all
    methods compared share them and no teacher shares its student's. Raises `InputError` for values out of range.
    """

    data: str
    train: int
    objective: Objective
    schedule: Schedule
    seed: int
    network: Perceptron | Convnet = field(default_factory=Perceptron)
    role: str = "student"

    def __post_init__(self) -> None:
        source = dataset(self.data)
        require(
            isinstance(self.train, int) and 0 < self.train <= source.largest,
            f"train is {self.train!r}; {self.data} has 1 to {source.largest} training examples",
        )
        require(isinstance(self.seed, int) and self.seed >= 0, f"seed is {self.seed!r}; it must be a whole number")
        self.network.check(source.features)
        self.objective.teacher_share(source.classes)

    def canonical(self) -> dict[str, object]:
        """Everything that fixes the result, as plain values; the key is its hash."""
        schedule = {
            name: value if name in ("epochs", "batch_size") else float(value)
            for name, value in asdict(self.schedule).items()
        }
        return {
            "data": {"name": self.data, "fingerprint": dataset(self.data).fingerprint, "train": self.train},
            "network": self.network.canonical(),
            "objective": describe(self.objective),
            "schedule": schedule,
            "seed": self.seed,
            "role": self.role,
            "numerics": NUMERICS,
        }

    @property
    def key(self) -> str:
        """The run's name in the store: 20 hexadecimal digits."""
        return key_of(self.canonical())

    @property
    def shape(self) -> tuple[object, ...]:
        """What runs must have in common to train side by side in one stack."""
        schedule = self.schedule
        return (self.data, self.train, self.network, schedule.epochs, schedule.batch_size, schedule.momentum)


def key_of(canonical: dict[str, object]) -> str:
    """The hash of a run's canonical form."""
    return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()[:20]


def stream(seed: int, role: str, purpose: str) -> torch.Generator:
    """The random stream of a seed for one purpose of one role, independent of all others."""
    digest = hashlib.sha256(f"{seed}/{role}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
