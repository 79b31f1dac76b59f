"""Settings in which methods are compared, and the seeds by which their runs are paired.

Importing it adds the networks and data sets of the paper preset to those of `lsr_core`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from lsr_core.errors import plain, require

from . import paper  # noqa: F401

TUNING_SEEDS = range(1000, 1030)  # never used for verdicts


class Setting(NamedTuple):
    """A data set and how many training examples of it, and the study by whose plan networks are trained there.

    Without a study they are trained as `tuning.protocol` says.
    """

    data: str
    train: int
    study: str = ""

    def __str__(self) -> str:
        return f"{self.place}{f', {self.study}' if self.study else ''}"

    @property
    def place(self) -> str:
        """The setting in words, without the study."""
        return f"{self.data}, n = {self.train}"


DIGITS = (Setting("digits", 100), Setting("digits", 300))
MIXTURES = tuple(Setting(f"mixture-10-{bayes}", 300) for bayes in (65, 80, 95))
CIFAR = Setting("cifar100", 5000)
CIFAR_5K = CIFAR._replace(study="cifar100-5k")
AUDIO = tuple(Setting(f"gtzan/fold-{fold}", 720) for fold in range(5))
CLASSES_SETTINGS = tuple(Setting(f"mixture-50-80/first-{classes}", 10 * classes) for classes in (5, 20, 50))
TAIL_SETTINGS = tuple(Setting(f"mixture-10-80/{part}", 300) for part in ("stratified", "tail-5", "tail-20"))


def paired_seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """The seeds 0 … n−1 of a number, or the seeds of a list; at least two, distinct, below the tuning seeds."""
    seeds = seeds.tolist() if hasattr(seeds, "tolist") else seeds  # of NumPy or torch
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        require(seeds >= 2, f"seeds is {seeds}; paired differences need at least 2")
        seeds = range(min(seeds, TUNING_SEEDS.start + 1))
    require(
        isinstance(seeds, Sequence) and not isinstance(seeds, (str, bytes)),
        f"seeds is {seeds!r}; give a number or a list",
    )
    seeds = [plain(seed) for seed in seeds]
    for seed in seeds:
        allowed = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < TUNING_SEEDS.start
        last = TUNING_SEEDS.start - 1
        require(allowed, f"seed {seed!r} is not a whole number from 0 to {last} (the rest is for tuning)")
    require(len(seeds) >= 2, f"seeds names {len(seeds)} seed(s); paired differences need at least 2")
    require(len(set(seeds)) == len(seeds), f"seeds is {seeds}; no seed may be repeated")
    return tuple(seeds)
