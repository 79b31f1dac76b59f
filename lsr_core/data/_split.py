"""What a data set hands to a run."""

import hashlib
from typing import NamedTuple

import numpy as np
from torch import Tensor

VALIDATION = 300


class Split(NamedTuple):
    """Inputs float32 `[N, D]` and labels int64 `[N]`; `test_posterior` float64 `[N, K]` where the truth is known."""

    train_inputs: Tensor
    train_labels: Tensor
    validation_inputs: Tensor
    validation_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    test_posterior: Tensor | None = None


def split_generator(seed: int) -> np.random.Generator:
    """The generator that draws the training and validation examples of every run with this seed."""
    digest = hashlib.sha256(f"{seed}/split".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def fingerprint(*arrays: np.ndarray) -> str:
    """A hash of the arrays' shapes, types and bytes."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return state.hexdigest()[:16]
