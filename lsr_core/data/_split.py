"""What data sets have in common: parts drawn by seed, a fixed test part, and a fingerprint."""

import hashlib
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from ..errors import plain, require, require_number, require_seed


class Split(NamedTuple):
    """Inputs float32 `[N, D]`, or images uint8 `[N, C, H, W]`, and labels int64 `[N]`.

    `test_posterior` float64 `[N, K]` is None unless the posterior is known, or people have voted on the test images.
    """

    train_inputs: Tensor
    train_labels: Tensor
    validation_inputs: Tensor
    validation_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    test_posterior: Tensor | None = None


class Source:
    """A data set: `counts` examples of each class to train and validate on, drawn by seed, and a fixed test part.

    Inputs have `input_dim` numbers. Images have an `image_shape` (C, H, W), and a `mean` and `std` of each channel in
    units of the full range; inputs that are the pixels of square grey images have their `side`; `superclasses` `[K]`
    are those of the classes. These are None where a set has none, and so is the last of `test`: its inputs, labels and
    posterior.
    """

    name: str
    classes: int
    input_dim: int
    fingerprint: str
    counts: tuple[int, ...]
    validation = 300
    side: int | None = None
    image_shape: tuple[int, int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    superclasses: Tensor | None = None
    test: tuple[Tensor, Tensor, Tensor | None]

    @property
    def kind(self) -> Literal["vectors", "images", "sentences"]:
        """What its inputs are."""
        return "images" if self.image_shape else "vectors"

    @property
    def max_train(self) -> int:
        """The most training examples there are."""
        return sum(self.counts) - self.validation

    def drawn(self, seed: int, count: int) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the first `count` examples of this seed that are not for testing."""
        raise NotImplementedError

    def enough(self, each: int) -> int:  # noqa: ARG002
        """How many must be drawn to have `each` of every class: all that there are, where their number is limited."""
        return sum(self.counts)

    def size(self, train: int) -> int:
        """The number of training examples as an int; raises `InputError` unless the data set has so many."""
        right = f"{self.name} has 1 to {self.max_train} training examples"
        require_number("train", train, int, lambda n: 0 < n <= self.max_train, right)
        return plain(train)

    def split(self, train: int, seed: int) -> Split:
        """The first examples drawn by this seed for validation, the next `train` for training, and the test part."""
        first, end = self.validation, self.validation + self.size(train)
        inputs, labels = self.drawn(seed, end)
        return Split(inputs[first:end], labels[first:end], inputs[:first], labels[:first], *self.test)


def split_generator(seed: int) -> np.random.Generator:
    """The generator that draws the training and validation examples of every run with this seed."""
    require_seed(seed)
    digest = hashlib.sha256(f"{seed}/split".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def stratified_order(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A random order of rows in which consecutive ones have the classes in proportion, to within two of each class."""
    drawn = generator.permutation(len(labels))
    by_class = drawn[np.argsort(labels[drawn], kind="stable")]
    counts = np.bincount(labels)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    # Each class is spread evenly over [0, 1), every example at random within its own share of it.
    place = (np.arange(len(labels)) - first + generator.random(len(labels))) / np.repeat(counts, counts)
    return by_class[np.argsort(place, kind="stable")]


def fingerprint(*arrays: np.ndarray) -> str:
    """A hash of the arrays' shapes, types and bytes."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return state.hexdigest()[:16]


def require_fingerprint(what: str | Path, found: str, expected: str, right: str = "") -> None:
    """Raise `InputError` that says what is `right` unless the data has the expected fingerprint."""
    require(found == expected, f"{what} has fingerprint {found}; the study was made with {expected}{right}")
