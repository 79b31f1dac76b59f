"""A mixture of Gaussians whose posterior is known: the truth that a soft label should tell.

Classes come in superclasses. Superclass means are standard normal, class means scatter around them, and inputs
scatter around the class means with unit variance, so that one scale factor on all means sets the Bayes accuracy.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor

from ._split import Source, fingerprint, require_fingerprint, split_generator

_TEST = 5000
_WITHIN = 0.5  # standard deviation of class means around their superclass mean
_MEANS_SEED, _TEST_SEED = 20200911, 20210520


@dataclass(eq=False)
class Mixture(Source):
    """K `classes` in `superclass_count` superclasses and `input_dim` dimensions, all means multiplied by `scale`.

    The noise has standard deviation 1, so that `scale` is one over the noise beside the unscaled means; `fingerprint`
    is of those, and given where they are the study's. Training and validation points are drawn afresh by seed; the
    5,000 test points are the same for all.
    """

    name: str
    classes: int
    superclass_count: int
    input_dim: int
    scale: float
    fingerprint: str | None = None

    max_train = 100_000

    def __post_init__(self) -> None:
        self.counts = (self.max_train // self.classes,) * self.classes
        self.superclasses = torch.arange(self.classes) % self.superclass_count
        self.fingerprint = self.fingerprint or fingerprint(self._unscaled.round(4) + 0.0)

    @cached_property
    def _unscaled(self) -> np.ndarray:
        generator = np.random.default_rng([_MEANS_SEED, self.classes])
        superclass = generator.standard_normal((self.superclass_count, self.input_dim))
        offsets = _WITHIN * generator.standard_normal((self.classes, self.input_dim))
        return superclass[np.arange(self.classes) % self.superclass_count] + offsets

    @cached_property
    def means(self) -> np.ndarray:
        """Class means float64 `[K, D]`; class k belongs to superclass k mod `superclass_count`."""
        require_fingerprint(self.name, fingerprint(self._unscaled.round(4) + 0.0), self.fingerprint)
        return self.scale * self._unscaled

    def log_posterior(self, inputs: np.ndarray) -> np.ndarray:
        """$\\log p(k \\mid x)$ `[N, K]` of inputs `[N, D]`, exact by log-sum-exp; the classes are equally likely."""
        return log_softmax(inputs @ self.means.T - (self.means**2).sum(-1) / 2, axis=-1)

    def sample(self, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """`count` inputs `[N, D]`, each with a label `[N]` sampled together with it."""
        labels = generator.integers(self.classes, size=count)
        return self.means[labels] + generator.standard_normal((count, self.input_dim)), labels

    @cached_property
    def test(self) -> tuple[Tensor, Tensor, Tensor]:
        inputs, labels = self.sample(_TEST, np.random.default_rng([_TEST_SEED, self.classes]))
        return (*_tensors(inputs, labels), torch.from_numpy(np.exp(self.log_posterior(inputs))))

    def drawn(self, seed: int, count: int) -> tuple[Tensor, Tensor]:
        return _tensors(*self.sample(count, split_generator(seed)))

    def enough(self, each: int) -> int:
        """How many points must be drawn to have `each` of every class, all but certainly."""
        return int((each + 6 * each**0.5 + 20) * self.classes)


def _tensors(inputs: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    return torch.tensor(inputs, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64)
