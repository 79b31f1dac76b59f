"""A part of a data set: the first classes only, equal numbers of each class, or a long tail of them."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..errors import require
from ._split import Source, Split


class Subset(Source):
    """The first `classes` of a data set, the largest class `imbalance` times the smallest in training.

    Class k has $n_k \\propto \\text{imbalance}^{-k/(K-1)}$ training examples (Cui et al. 2019), 1 is stratified, None
    as they come. Validation holds as many of each class, the test set its own rows of these classes.
    """

    def __init__(self, name: str, source: Source, classes: int, imbalance: float | None = None) -> None:
        self.name, self.source, self.classes, self.imbalance = name, source, classes, imbalance
        self.counts = source.counts[:classes]
        self.input_dim, self.side, self.fingerprint = source.input_dim, source.side, source.fingerprint
        self.image_shape, self.mean, self.std = source.image_shape, source.mean, source.std
        each = source.validation // (source.classes if source.image_shape else classes)
        self.validation = classes * min(each, min(self.counts) * 3 // 10)
        # The classes' training examples over those of the first class.
        self._weights = float(imbalance or 1) ** (-np.arange(classes) / (classes - 1))

    @property
    def superclasses(self) -> Tensor | None:
        found = self.source.superclasses
        return None if found is None else found[: self.classes]

    @cached_property
    def max_train(self) -> int:
        """The most training examples that there are in these proportions."""
        if self.imbalance is None:
            return super().max_train
        available = np.array(self.counts) - self.validation // self.classes
        # A class has its share of n, rounded down or up.
        too_many = int(((available + 1) * self._weights.sum() / self._weights).min()) + 1
        fits = (n for n in range(too_many, 0, -1) if bool((self._limits(n) <= available).all()))
        return next(fits, 0)

    def size(self, train: int) -> int:
        train = super().size(train)
        require(self._limits(train).min() > 0, f"train is {train}; {self.name} needs one example of each class")
        return train

    def split(self, train: int, seed: int) -> Split:
        """`train` training examples in these proportions, the same number of each class for validation."""
        train, last = self.size(train), self.validation // self.classes
        limits = self._limits(train)
        inputs, labels = self.source.drawn(seed, self.source.enough(int(limits.max()) + last))
        of_class = [(labels == k).nonzero()[:, 0] for k in range(self.classes)]
        # The last ones of each class are for validation, so that training has what is drawn first.
        first = [rows[: len(rows) - last][:limit] for rows, limit in zip(of_class, limits.tolist(), strict=True)]
        chosen = torch.cat(first).sort().values[:train]
        validation = torch.cat([rows[len(rows) - last :] for rows in of_class]).sort().values
        test_inputs, test_labels, posterior = self.source.test
        test = test_labels < self.classes
        message = f"the test part of {self.source.name} has none of the first {self.classes} classes"
        require(bool(test.any()), f"{message}; keep more of them")
        if posterior is not None:
            posterior = posterior[test, : self.classes]
            whole = posterior.sum(-1, keepdim=True)  # 0 where people voted for other classes alone
            posterior = posterior / whole.where(whole > 0, 1)
        parts = (part[rows] for rows in (chosen, validation) for part in (inputs, labels))
        return Split(*parts, test_inputs[test], test_labels[test], posterior)

    def _limits(self, train: int) -> np.ndarray:
        """The most training examples of each class; what rounding leaves goes to the largest remainders."""
        if self.imbalance is None:
            return np.full(self.classes, train)
        exact = self._weights * (train / self._weights.sum())
        counts = np.floor(exact).astype(int)
        counts[np.argsort(counts - exact, kind="stable")[: train - counts.sum()]] += 1
        return counts
