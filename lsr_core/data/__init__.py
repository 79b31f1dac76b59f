"""Named data sets: training and validation examples drawn by seed, one fixed test set."""

from ._split import Split, split_generator
from .digits import Digits
from .mixture import Mixture
from .registry import DATASETS, dataset
from .subset import Subset

__all__ = ["DATASETS", "Digits", "Mixture", "Split", "Subset", "dataset", "split_generator"]
