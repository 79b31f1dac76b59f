"""A part of a data set: the first classes only, equal numbers of each class, or a long tail of them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..errors import require
from ._split import VALIDATION, Split, size
from .digits import Digits
from .gtzan import Gtzan
from .images import Images
from .mixture import Mixture

Source = Digits | Mixture | Images | Gtzan


@dataclass(frozen=True)
class Subset:
    """The first `classes` of a data set, the largest class `imbalance` times the smallest in training.

    Class k has $n_k \\propto \\text{imbalance}^{-k/(K-1)}$ training examples (Cui et al. 2019), 1 is stratified, None
    as they come. Validation holds as many of each class, the test set its own rows of these classes.
    """

    name: str
    source: Digits | Mixture | Images
    classes: int
    imbalance: float | None = None

    @property
    def features(self) -> int:
        """Inputs of an example."""
        return self.source.features

    @property
    def side(self) -> int | None:
        """Pixels on a side of a square image, where the data set has images."""
        return getattr(self.source, "side", None)

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(C, H, W), where the data set is of images."""
        return getattr(self.source, "shape", None)

    @property
    def mean(self) -> tuple[float, ...] | None:
        """Each channel's, where the data set is of images."""
        return getattr(self.source, "mean", None)

    @property
    def std(self) -> tuple[float, ...] | None:
        """Each channel's, where the data set is of images."""
        return getattr(self.source, "std", None)

    @property
    def fingerprint(self) -> str:
        """The whole data set's."""
        return self.source.fingerprint

    @property
    def groups(self) -> Tensor | None:
        """The superclass of each class `[K]`, where the data set has some."""
        groups = getattr(self.source, "groups", None)
        return None if groups is None else groups[: self.classes]

    @cached_property
    def largest(self) -> int:
        """The most training examples that there are in these proportions."""
        available = self.source.available(self.classes) - self._validation_each
        if self.imbalance is None:
            return int(available.sum())
        fits = (n for n in range(int(available.sum()), 0, -1) if bool((self._counts(n) <= available).all()))
        return next(fits, 0)

    def split(self, train: int, seed: int) -> Split:
        """`train` training examples in these proportions, the same number of each class for validation."""
        train = size(self, train)
        counts = None if self.imbalance is None else self._counts(train)
        require(counts is None or counts.min() > 0, f"train is {train}; {self.name} needs one example of each class")
        each = (train if counts is None else int(counts.max())) + self._validation_each
        inputs, labels = self.source.examples(seed, each, self.classes)
        of_class = [(labels == k).nonzero()[:, 0] for k in range(self.classes)]
        last = self._validation_each  # the last ones of each class, so that training has what is drawn first
        validation = torch.cat([rows[len(rows) - last :] for rows in of_class]).sort().values
        rest = [rows[: len(rows) - last] for rows in of_class]
        if counts is not None:
            rest = [rows[:count] for rows, count in zip(rest, counts.tolist(), strict=True)]
        chosen = torch.cat(rest).sort().values[:train]
        whole = self.source.split(1, seed)
        test = whole.test_labels < self.classes
        told = f"the test part of {self.source.name} has none of the first {self.classes} classes"
        require(bool(test.any()), f"{told}; keep more of them")
        return Split(
            inputs[chosen],
            labels[chosen],
            inputs[validation],
            labels[validation],
            whole.test_inputs[test],
            whole.test_labels[test],
            None if whole.test_posterior is None else _renormalised(whole.test_posterior[test, : self.classes]),
        )

    @cached_property
    def _validation_each(self) -> int:
        source, fewest = self.source, int(self.source.available(self.classes).min())
        each = source.validation // source.classes if isinstance(source, Images) else VALIDATION // self.classes
        return min(each, fewest * 3 // 10)

    def _counts(self, train: int) -> np.ndarray:
        """Training examples of each class; what rounding leaves goes to the largest remainders."""
        exact = float(self.imbalance or 1) ** (-np.arange(self.classes) / (self.classes - 1))
        exact *= train / exact.sum()
        counts = np.floor(exact).astype(int)
        counts[np.argsort(counts - exact, kind="stable")[: train - counts.sum()]] += 1
        return counts


def _renormalised(posterior: Tensor) -> Tensor:
    return posterior / posterior.sum(-1, keepdim=True)
