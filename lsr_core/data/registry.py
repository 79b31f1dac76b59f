"""Names of data sets: the study's own, any mixture, and parts of both."""

import re
from functools import cache

from .._errors import require
from .digits import Digits
from .mixture import Mixture
from .subset import Subset

# The scale of each mixture was solved for its Bayes accuracy on 10^6 sampled points; a test samples afresh.
_MIXTURES = (
    Mixture("mixture-10-65", 10, 5, 32, 0.41685, "2bf470d4a458ede6"),
    Mixture("mixture-10-80", 10, 5, 32, 0.56293, "2bf470d4a458ede6"),
    Mixture("mixture-10-95", 10, 5, 32, 0.90346, "2bf470d4a458ede6"),
    Mixture("mixture-50-65", 50, 10, 64, 0.40863, "a17c19948b9da22f"),
    Mixture("mixture-50-80", 50, 10, 64, 0.53475, "a17c19948b9da22f"),
    Mixture("mixture-50-95", 50, 10, 64, 0.79615, "a17c19948b9da22f"),
)
DATASETS: dict[str, Digits | Mixture] = {source.name: source for source in (Digits(), *_MIXTURES)}

_ANY_MIXTURE = re.compile(r"mixture-([1-9]\d*)x([1-9]\d*)-([1-9]\d*)d-noise-(\d+(?:\.\d+)?)")
_PARTS = re.compile(r"(?:/first-(\d+))?(?:/(?:(stratified)|tail-(\d+(?:\.\d+)?)))?")


@cache
def dataset(name: str) -> Digits | Mixture | Subset:
    """The data set of this name; raises `InputError` for an unknown one.

    `mixture-20x4-16d-noise-1.5` has 20 classes in 4 superclasses, 16 dimensions, and noise of 1.5 beside the means.
    After any name, `/first-5` keeps the first classes, `/stratified` trains on equal numbers of each class, and
    `/tail-50` on a long tail whose largest class has 50 times the examples of the smallest.
    """
    require(isinstance(name, str), f"data is {name!r}; give a data set's name")
    base, slash, _ = name.partition("/")
    parts = _PARTS.fullmatch(name[len(base) :])
    like = "'/first-5', '/stratified', '/tail-50' or '/first-5/tail-50'"
    require(parts is not None, f"unknown part {name[len(base) :]!r} of data set {base!r}; after a name comes {like}")
    source = DATASETS.get(base) or _any_mixture(base)
    if not slash:
        return source
    first, stratified, tail = parts.groups()
    classes = int(first) if first else source.classes
    require(2 <= classes <= source.classes, f"{name!r} has {classes} classes; {base} has 2 to {source.classes}")
    imbalance = 1.0 if stratified else float(tail) if tail else None
    require(imbalance is None or imbalance >= 1, f"{name!r} has an imbalance of {imbalance}; it must be 1 or above")
    return Subset(name, source, classes, imbalance)


def _any_mixture(name: str) -> Mixture:
    found = _ANY_MIXTURE.fullmatch(name)
    others = "and mixtures such as 'mixture-20x4-16d-noise-1.5'"
    require(found is not None, f"unknown data set {name!r}; there are {', '.join(DATASETS)}, {others}")
    classes, superclasses, features = map(int, found.groups()[:3])
    noise = float(found[4])
    require(2 <= superclasses <= classes, f"{name!r} has {superclasses} superclasses of {classes} classes; 2 or more")
    require(noise > 0, f"{name!r} has noise {noise:g}; it must be above 0")
    return Mixture(name, classes, superclasses, features, 1 / noise)
