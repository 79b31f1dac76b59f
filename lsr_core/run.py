"""Run: the complete description of one training run, and the random streams that belong to it."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import torch

from .augmentation import Augmentation
from .data import Mixture, Source, dataset
from .errors import hold_plain, require, require_count, require_seed
from .files import is_key
from .models import BinaryPerceptron, Convnet, ImageNetwork, Perceptron, Transformer
from .objectives import Fixed, Objective, check_own, describe, objective
from .schedule import Schedule

NUMERICS = 6  # raised when a change of the code changes results
_NETWORKS = {network.name: network for network in (Perceptron, BinaryPerceptron, Convnet, ImageNetwork, Transformer)}
_NETWORK_OF = {"vectors": "a Perceptron or Convnet", "images": "an ImageNetwork", "sentences": "a Transformer"}


@dataclass(frozen=True)
class TrainedTeacher:
    """The network of a run after an epoch, by default its last one."""

    run: "Run"
    epoch: int | None = None

    def __post_init__(self) -> None:
        hold_plain(self)
        last = self.run.schedule.last
        if self.epoch is None:
            object.__setattr__(self, "epoch", last)
        require_count("epoch", self.epoch)
        require(self.epoch <= last, f"epoch is {self.epoch}; the teacher's run has {last}")

    def canonical(self) -> dict[str, Any]:
        """Everything that fixes its outputs, as plain values."""
        return {"run": self.run.canonical(), "epoch": self.epoch}

    def at(self, seed: int) -> "TrainedTeacher":
        """The same teacher, trained with this seed."""
        return replace(self, run=self.run.at(seed))

    def check(self, data: str, seed: int | None, role: str, name: str = "teacher") -> None:
        """Raise `InputError` unless it can teach a run on this data set with this seed and role."""
        own, other = dataset(data), dataset(self.run.data)
        same = (own.classes, own.input_dim) == (other.classes, other.input_dim)
        same = same and (own is other or own.kind != "sentences")  # whose pieces are each data set's own
        require(same, f"the {name} was trained on {self.run.data}, which has other inputs or classes than {data}")
        alike = (self.run.seed is None) == (seed is None)
        require(alike, f"the {name}'s seed is {self.run.seed} and the student's {seed}; give both a seed, or neither")
        shared = (self.run.seed, self.run.role) == (seed, role)
        which = "every seed" if seed is None else f"seed {seed}"
        require(not shared, f"{name} and student share the streams of {which}, role {role!r}; name another role")


@dataclass(frozen=True)
class ExactPosterior:
    """The truth as teacher, on data whose posterior is known."""

    def canonical(self) -> dict[str, Any]:
        """Its name."""
        return {"name": "posterior"}

    def at(self, seed: int) -> "ExactPosterior":  # noqa: ARG002
        """Itself: the truth has no seed."""
        return self

    def check(self, data: str, seed: int | None, role: str) -> None:  # noqa: ARG002
        """Raise `InputError` unless the posterior of this data set is known."""
        is_mixture = isinstance(dataset(data), Mixture)
        require(is_mixture, f"the posterior of {data} is not known, or cannot teach; it can on a whole mixture")


@dataclass(frozen=True)
class Run:
    """One training run: `train` examples of the data set named `data`, an objective, a schedule, a seed.

    The seed fixes the split; initial weights, batch order and draws come from streams of (seed, `role`), so that all
    methods compared share them and no teacher shares its student's. Raises `InputError` for values out of range, for
    a `teacher` that the objective does not take, and for one that is missing. Images are seen through `augmentation`,
    or as they are; their network may start from the weights of another one, `initial`, that has the same tensors. With
    `targets`, what it learns to say are a trained network's translations instead of people's (Kim & Rush 2016).

    Without a seed it is a template, an arm of a comparison: `at` gives its run of a seed, with a teacher of that seed.
    Templates are equal, and one key of a dictionary, where all their values are equal.
    """

    data: str
    train: int
    objective: Objective
    schedule: Schedule
    seed: int | None = None
    network: Perceptron | Convnet | ImageNetwork | Transformer = field(default_factory=Perceptron)
    role: str = "student"
    teacher: TrainedTeacher | ExactPosterior | None = None
    augmentation: Augmentation | None = None
    initial: TrainedTeacher | None = None
    targets: TrainedTeacher | None = None

    def __post_init__(self) -> None:
        hold_plain(self)
        source, method = dataset(self.data), self.objective
        check_own(type(method))
        source.size(self.train)
        if self.seed is not None:
            require_seed(self.seed)
        kind, right = source.kind, _NETWORK_OF[source.kind]
        require(kind == self.network.takes, f"{self.data} holds {kind}, which {self.network} cannot take; give {right}")
        has_images = kind == "images"
        require(has_images or self.augmentation is None, f"augmentation is of images; {self.data} holds {kind}")
        is_known = self.schedule.optimizer == "sgd" or kind != "vectors"
        require(is_known, f"adam trains networks for images and sentences; {self.data} holds {kind}: give 'sgd'")
        self.network.check(source.input_dim)
        left = self.train % self.schedule.batch_size
        alone = (left or self.schedule.batch_size) == 1 and not self.network.takes_one(source.input_dim)
        message = f"train is {self.train}: in batches of {self.schedule.batch_size} the last one has 1 example"
        right = "take a train or a batch_size that leaves 0 for it, or 2 and more"
        require(not alone, f"{message}, over which BatchNorm cannot average; {right}")
        if self.teacher is None:
            require(not method.needs_teacher, f"teacher is None; method {method.name!r} needs one")
        else:
            require(method.takes_teacher, f"method {method.name!r} takes no teacher")
            self.teacher.check(self.data, self.seed, self.role)
        if isinstance(method, Fixed):
            method.check(source.classes)
        if kind == "sentences":
            self._check_sentences(source)
        if self.initial is not None:
            self._check_initial(source)
        if self.targets is not None:
            require(kind == "sentences", f"targets are translations; {self.data} holds {kind}")
            is_trained = isinstance(self.targets, TrainedTeacher)
            require(is_trained, f"targets is {self.targets!r}; give the TrainedTeacher that translates")
            self.targets.check(self.data, self.seed, self.role, "translator")

    def _check_sentences(self, source: Source) -> None:
        has_constants = isinstance(self.objective, Fixed) and not self.objective.takes_constants
        fact = f"method {self.objective.name!r} has soft labels that change, or that need the whole training set"
        require(has_constants, f"{fact}; on sentences, give one whose soft labels are hand-made or its teacher's")
        head = "head_decay is of a last layer with weights of its own; a Transformer has none: give None"
        require(self.schedule.head_decay is None, head)
        size = self.schedule.batch_size
        require(size >= source.length, f"batch_size is {size}; a sentence has up to {source.length} pieces: give more")

    def _check_initial(self, source: Source) -> None:
        require(source.image_shape is not None, f"initial weights are of networks for images; {self.data} has none")
        self.initial.check(self.data, self.seed, self.role, "first step")
        first = self.initial.run.network
        own, other = (_tensors(network, source.image_shape, source.classes) for network in (self.network, first))
        require(own == other, f"{self.network} cannot start from the weights of {first}; both need the same tensors")

    @property
    def needs(self) -> list[TrainedTeacher]:
        """The trained networks that it needs: its teacher, and those that it starts or translates from."""
        needed = (self.teacher, self.initial, self.targets)
        return [trained for trained in needed if isinstance(trained, TrainedTeacher)]

    def at(self, seed: int) -> "Run":
        """The run of this seed; what it needs has the seed too."""
        require_seed(seed)
        needed = {name: getattr(self, name) for name in ("teacher", "initial", "targets")}
        return replace(self, seed=seed, **{name: one and one.at(seed) for name, one in needed.items()})

    def runs(self, seeds: Iterable[int]) -> list["Run"]:
        """The run of each seed."""
        return [self.at(seed) for seed in seeds]

    def canonical(self) -> dict[str, Any]:
        """Everything that fixes the result, as plain values; the key is its hash.

        Raises `InputError` for a template, which has no seed.
        """
        require(self.seed is not None, f"a run of {self.objective.name} on {self.data} has no seed; `at` gives it one")
        return {
            "data": {"name": self.data, "fingerprint": dataset(self.data).fingerprint, "train": self.train},
            "network": self.network.canonical(),
            "objective": describe(self.objective),
            "schedule": self.schedule.canonical(),
            "seed": self.seed,
            "role": self.role,
            "teacher": None if self.teacher is None else self.teacher.canonical(),
            "augmentation": None if self.augmentation is None else asdict(self.augmentation),
            "numerics": NUMERICS,
            **{name: one.canonical() for name in ("initial", "targets") if (one := getattr(self, name)) is not None},
        }

    @cached_property
    def key(self) -> str:
        """The run's name in the store: 20 hexadecimal digits."""
        return key_of(self.canonical())

    @property
    def stack_key(self) -> tuple[object, ...]:
        """What runs must have in common to train side by side in one stack.

        Methods whose soft labels are fixed differ in constants alone; any other trains beside its equals. On images
        and sentences, runs of one seed share what they see and who teaches them.
        """
        common = replace(self.schedule, learning_rate=1, weight_decay=0, head_decay=None)
        if self.network.is_shared:  # each trains for itself, on what all see
            common = replace(common, momentum=0, nesterov=False)
            shared = (self.seed, self.role, self.augmentation, self.teacher, self.targets)
        else:
            shared = (None if self.objective.has_closed_form else self.objective,)
        return (self.data, self.train, self.network, common, *shared)


def run_of(canonical: dict[str, Any]) -> Run:
    """The run that has this canonical form; raises `InputError` where this version of the study makes none of it."""
    try:
        data, augmentation = canonical["data"], canonical["augmentation"]
        network, described = dict(canonical["network"]), dict(canonical["objective"])
        run = Run(
            data["name"],
            data["train"],
            objective(described.pop("method"), **described),
            Schedule(**canonical["schedule"]),
            canonical["seed"],
            _NETWORKS[network.pop("name")](**network),
            canonical["role"],
            _trained(canonical["teacher"]),
            augmentation and Augmentation(**augmentation),
            _trained(canonical.get("initial")),
            _trained(canonical.get("targets")),
        )
    except (KeyError, TypeError, AttributeError):
        run = None
    same = run is not None and run.key == key_of(canonical)
    require(same, f"run {key_of(canonical)} was described by another version of the study; it cannot be made again")
    return run


def _trained(canonical: dict[str, Any] | None) -> TrainedTeacher | ExactPosterior | None:
    """The teacher, or the source of the initial weights, that has this canonical form."""
    if canonical is None or "run" not in canonical:
        return canonical and ExactPosterior()
    return TrainedTeacher(run_of(canonical["run"]), canonical["epoch"])


@cache
def _tensors(network: ImageNetwork, shape: tuple[int, int, int], classes: int) -> dict[str, torch.Size]:
    """The shapes of a network's tensors by name, for images of this shape."""
    return {name: tensor.shape for name, tensor in network.skeleton(shape, classes).state_dict().items()}


def require_key(key: str) -> str:
    """The key; raises `InputError` where it can be none."""
    require(is_key(key), f"{key!r} is no run's key; a key is 20 hexadecimal digits")
    return key


def key_of(canonical: dict[str, Any]) -> str:
    """The hash of a run's canonical form."""
    return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()[:20]


def stream(seed: int, role: str, purpose: str) -> torch.Generator:
    """The random stream of a seed for one purpose of one role, independent of all others."""
    require_seed(seed)
    digest = hashlib.sha256(f"{seed}/{role}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
