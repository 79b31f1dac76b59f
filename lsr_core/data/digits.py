"""scikit-learn's handwritten digits: 1,797 real images of 8×8 pixels that come with the package."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ._split import Source, fingerprint, require_fingerprint, split_generator

_TEST_FROM = 1000  # rows 1000 to 1796 were mostly written by other people than the rest


class Digits(Source):
    """Test: rows 1000 to 1796. Training and validation: drawn by seed from the first 1,000, disjoint.

    Pixels are scaled to [0, 1]. The images were collected by Alpaydin and Kaynak (1998).
    """

    name = "digits"
    classes = 10
    input_dim, side = 64, 8
    counts = (99, 102, 100, 104, 98, 100, 101, 99, 98, 99)
    fingerprint = "e67156d1e844ce6e"

    @cached_property
    def _rows(self) -> tuple[Tensor, Tensor]:
        from sklearn.datasets import load_digits  # here, since image runs do without scikit-learn

        images, labels = load_digits(return_X_y=True)
        found = fingerprint(images.astype(np.uint8), labels.astype(np.int64))
        require_fingerprint(self.name, found, self.fingerprint)
        return torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64)

    @property
    def test(self) -> tuple[Tensor, Tensor, None]:
        images, labels = self._rows
        return images[_TEST_FROM:], labels[_TEST_FROM:], None

    def drawn(self, seed: int, count: int) -> tuple[Tensor, Tensor]:
        images, labels = self._rows
        chosen = torch.from_numpy(split_generator(seed).permutation(_TEST_FROM)[:count])
        return images[chosen], labels[chosen]
