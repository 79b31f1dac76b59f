"""A part of a data set: the first classes only, equal numbers of each class, or a long tail of them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

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
_OF_SOURCE = ("input_dim", "image_shape", "side", "mean", "std", "fingerprint")


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

    def __getattr__(self, name: str) -> Any:
        """The fingerprint and dimensions of the source, and the statistics of its images or None."""
        if name not in _OF_SOURCE:
            raise AttributeError(f"a Subset has no {name}")
        return getattr(self.source, name, None)

    @property
    def superclasses(self) -> Tensor | None:
        """The superclass of each class `[K]`, where the data set has some."""
        found = getattr(self.source, "superclasses", None)
        return None if found is None else found[: self.classes]

    @cached_property
    def max_train(self) -> int:
        """The most training examples that there are in these proportions."""
        available = self.source.available(self.classes) - self._validation_each
        if self.imbalance is None:
            return int(available.sum())
        # A class has its share of n, rounded down or up.
        too_many = int(((available + 1) * self._weights.sum() / self._weights).min()) + 1
        fits = (n for n in range(too_many, 0, -1) if bool((self._counts(n) <= available).all()))
        return next(fits, 0)

    def split(self, train: int, seed: int) -> Split:
        """`train` training examples in these proportions, the same number of each class for validation."""
        train = size(self, train)
        counts = None if self.imbalance is None else self._counts(train)
        require(counts is None or counts.min() > 0, f"train is {train}; {self.name} needs one example of each class")
        last = self._validation_each  # the last ones of each class, so that training has what is drawn first
        each = (train if counts is None else int(counts.max())) + last
        inputs, labels = self.source.examples(seed, each, self.classes)
        of_class = [(labels == k).nonzero()[:, 0] for k in range(self.classes)]
        validation = torch.cat([rows[len(rows) - last :] for rows in of_class]).sort().values
        limits = [len(labels)] * self.classes if counts is None else counts.tolist()
        training = [rows[: len(rows) - last][:limit] for rows, limit in zip(of_class, limits, strict=True)]
        chosen = torch.cat(training).sort().values[:train]
        whole = self.source.split(1, seed)
        test = whole.test_labels < self.classes
        message = f"the test part of {self.source.name} has none of the first {self.classes} classes"
        require(bool(test.any()), f"{message}; keep more of them")
        posterior = None if whole.test_posterior is None else whole.test_posterior[test, : self.classes]
        return Split(
            *(part[rows] for rows in (chosen, validation) for part in (inputs, labels)),
            whole.test_inputs[test],
            whole.test_labels[test],
            None if posterior is None else posterior / posterior.sum(-1, keepdim=True),
        )

    @cached_property
    def _validation_each(self) -> int:
        source, fewest = self.source, int(self.source.available(self.classes).min())
        each = source.validation // source.classes if isinstance(source, Images) else VALIDATION // self.classes
        return min(each, fewest * 3 // 10)

    @cached_property
    def _weights(self) -> np.ndarray:
        """The classes' training examples over those of the first class."""
        return float(self.imbalance or 1) ** (-np.arange(self.classes) / (self.classes - 1))

    def _counts(self, train: int) -> np.ndarray:
        """Training examples of each class; what rounding leaves goes to the largest remainders."""
        exact = self._weights * (train / self._weights.sum())
        counts = np.floor(exact).astype(int)
        counts[np.argsort(counts - exact, kind="stable")[: train - counts.sum()]] += 1
        return counts
