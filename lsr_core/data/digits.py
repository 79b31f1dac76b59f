"""scikit-learn's handwritten digits: 1,797 real images of 8×8 pixels that come with the package."""

from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from ._split import VALIDATION, Split, fingerprint, require_fingerprint, size, split_generator

_TEST_FROM = 1000  # rows 1000 to 1796 were mostly written by other people than the rest


class Digits:
    """Test: rows 1000 to 1796. Training and validation: drawn by seed from the first 1,000, disjoint.

    Pixels are scaled to [0, 1]. The images were collected by Alpaydin and Kaynak (1998).
    """

    name: ClassVar[str] = "digits"
    classes: ClassVar[int] = 10
    input_dim: ClassVar[int] = 64
    side: ClassVar[int] = 8  # pixels
    max_train: ClassVar[int] = _TEST_FROM - VALIDATION
    fingerprint: ClassVar[str] = "e67156d1e844ce6e"

    @cached_property
    def _rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        from sklearn.datasets import load_digits  # here, since image runs do without scikit-learn

        images, labels = load_digits(return_X_y=True)
        found = fingerprint(images.astype(np.uint8), labels.astype(np.int64))
        require_fingerprint(self.name, found, self.fingerprint)
        return torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64)

    def split(self, train: int, seed: int) -> Split:
        """`train` training images and 300 validation images of this seed."""
        images, labels, train = *self._rows, size(self, train)
        order = self._order(seed)
        validation, chosen = order[:VALIDATION], order[VALIDATION : VALIDATION + train]
        test = (part[_TEST_FROM:] for part in self._rows)
        return Split(images[chosen], labels[chosen], images[validation], labels[validation], *test)

    def examples(self, seed: int, each: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ARG002
        """All images that are not for testing, and their labels, in the order of this seed; the first `classes` only.

        `each`, how many of a class are wanted, is for data sets that draw them.
        """
        inputs, labels = (part[self._order(seed)] for part in self._rows)
        return inputs[labels < classes], labels[labels < classes]

    def _order(self, seed: int) -> torch.Tensor:
        return torch.from_numpy(split_generator(seed).permutation(_TEST_FROM))

    def available(self, classes: int) -> np.ndarray:
        """How many examples of each of the first `classes` there are."""
        return np.bincount(self._rows[1][:_TEST_FROM], minlength=self.classes)[:classes]
