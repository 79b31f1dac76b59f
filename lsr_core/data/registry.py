"""The table of data sets."""

from .._errors import require
from .digits import Digits
from .mixture import Mixture

# The scale of each mixture was solved for its Bayes accuracy on 10^6 sampled points; a test samples afresh.
_MIXTURES = (
    Mixture(10, 5, 32, 0.65, 0.41685, "2bf470d4a458ede6"),
    Mixture(10, 5, 32, 0.80, 0.56293, "2bf470d4a458ede6"),
    Mixture(10, 5, 32, 0.95, 0.90346, "2bf470d4a458ede6"),
    Mixture(50, 10, 64, 0.65, 0.40863, "a17c19948b9da22f"),
    Mixture(50, 10, 64, 0.80, 0.53475, "a17c19948b9da22f"),
    Mixture(50, 10, 64, 0.95, 0.79615, "a17c19948b9da22f"),
)

DATASETS: dict[str, Digits | Mixture] = {source.name: source for source in (Digits(), *_MIXTURES)}


def dataset(name: str) -> Digits | Mixture:
    """The data set of this name; raises `InputError` for an unknown one."""
    require(name in DATASETS, f"unknown data set {name!r}; there are {', '.join(DATASETS)}")
    return DATASETS[name]
