"""What a data set hands to a run."""

import hashlib
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from ..errors import plain, require, require_number, require_seed

VALIDATION = 300


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


class Named(Protocol):
    """A data set: its name, and how many training examples it has at most."""

    name: str
    max_train: int


def size(source: Named, train: int) -> int:
    """The number of training examples as an int; raises `InputError` unless the data set has so many."""
    right = f"{source.name} has 1 to {source.max_train} training examples"
    require_number("train", train, int, lambda n: 0 < n <= source.max_train, right)
    return plain(train)


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
