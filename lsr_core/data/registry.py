"""Data sets by name: digits, mixtures, images, audio features, a user's own images, and parts of them."""

import math
import re
from functools import cache, partial
from pathlib import Path

from ..errors import require
from ._split import Source
from .digits import Digits
from .download import Download, cifar10, cifar100, torchvision_set
from .gtzan import FOLDS, Gtzan
from .images import Images
from .language import Language
from .mixture import Mixture
from .subset import Subset
from .translation import Translation

# The scale of each mixture was solved for its Bayes accuracy on 10^6 sampled points; a test samples afresh.
_MIXTURES = (
    Mixture("mixture-10-65", 10, 5, 32, 0.41685, "2bf470d4a458ede6"),
    Mixture("mixture-10-80", 10, 5, 32, 0.56293, "2bf470d4a458ede6"),
    Mixture("mixture-10-95", 10, 5, 32, 0.90346, "2bf470d4a458ede6"),
    Mixture("mixture-50-65", 50, 10, 64, 0.40863, "a17c19948b9da22f"),
    Mixture("mixture-50-80", 50, 10, 64, 0.53475, "a17c19948b9da22f"),
    Mixture("mixture-50-95", 50, 10, 64, 0.79615, "a17c19948b9da22f"),
)
_RGB, _GREY = (3, 32, 32), (1, 28, 28)
_IMAGES = (  # means and deviations are the training part's
    Images(
        "cifar100", (500,) * 100, _RGB, "e86726c53d59c27d", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762),
        download=Download(cifar100, ("cifar-100-python.tar.gz",)),
    ),
    Images(
        "cifar10", (5000,) * 10, _RGB, "11f43fa84682ad5a", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616),
        votes="0bc32edf9dbcad5b", download=Download(cifar10, ("cifar-10-python.tar.gz", "cifar10h-counts.npy")),
    ),
    Images(
        "fashion_mnist", (6000,) * 10, _GREY, "8ee457d5d57cdf2a", (0.2860,), (0.3530,),
        download=Download(partial(torchvision_set, "FashionMNIST")),
    ),
    Images(
        "mnist", (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949), _GREY, "3169a86903e46c02",
        (0.1307,), (0.3081,), download=Download(partial(torchvision_set, "MNIST")),
    ),
)  # fmt: skip
_TRANSLATIONS = (  # how many sentences there are to train and validate on, and a hash of their pieces
    Translation("multi30k-de-en", 30014, "124fe43aeb139718"),
    Translation("multi30k-en-de", 30014, "11e31295e20d2426"),
    Translation("multi30k-fr-en", 30014, "f91ec3e544b6e159"),
    Translation("multi30k-en-fr", 30014, "25bc565fe040dfbe"),
    Translation("multi30k-de-en-short", 4457, "bf18eda2bf76ee52"),
    Translation("multi30k-en-de-short", 4457, "a550ba0cb1d08fe0"),
    Translation("multi30k-fr-en-short", 3416, "a3a84fdb94e60dfc"),
    Translation("multi30k-en-fr-short", 3416, "f80b0de8a883c282"),
)
_GTZAN = (Gtzan("gtzan"), *(Gtzan(f"gtzan/fold-{fold}", fold) for fold in range(FOLDS)))
DATASETS: dict[str, Source] = {s.name: s for s in (Digits(), *_MIXTURES, *_IMAGES, *_GTZAN, Language(), *_TRANSLATIONS)}

_ANY_MIXTURE = re.compile(r"mixture-([1-9]\d*)x([1-9]\d*)-([1-9]\d*)d-noise-(\d+(?:\.\d+)?)")
_BASE = re.compile(r"(.+?\.npz(?=/|$)|gtzan/fold-\d+|[^/]*)(.*)", re.DOTALL)
_PARTS = re.compile(r"(?:/first-(\d+))?(?:/(?:(stratified)|tail-(\d+(?:\.\d+)?)))?")


def dataset(name: str) -> Source:
    """The data set of this name; raises `InputError` for an unknown one.

    `mixture-20x4-16d-noise-1.5` has 20 classes in 4 superclasses, 16 dimensions, and noise of 1.5 beside the means.
    A name that ends in `.npz` is a user's own file of images. `gtzan/fold-3` tests on another fifth of the tracks.
    After any other name, `/first-5` keeps the first classes, `/stratified` trains on equal numbers of each class, and
    `/tail-50` on a long tail whose largest class has 50 times the examples of the smallest.
    """
    require(isinstance(name, str), f"data is {name!r}; give a data set's name")
    own = Path(_BASE.fullmatch(name)[1]) if ".npz" in name else None
    stamp = (found.st_mtime_ns, found.st_size) if own and own.exists() and (found := own.stat()) else None
    return source_of(name, stamp)


@cache
def source_of(name: str, stamp: tuple[int, int] | None) -> Source:  # noqa: ARG001
    """The data set of a name, and of a file that has this stamp: one that was changed is another."""
    base, part = _BASE.fullmatch(name).groups()
    parts, like = _PARTS.fullmatch(part), "'/first-5', '/stratified', '/tail-50' or '/first-5/tail-50'"
    require(parts is not None, f"unknown part {part!r} of data set {base!r}; after a name comes {like}")
    pairs = ", ".join(known.name for known in _TRANSLATIONS)
    is_known = not base.startswith("multi30k") or base in DATASETS
    require(is_known, f"unknown pair of languages {base!r}; there are {pairs}")
    source = DATASETS.get(base) or (Images.of_file(base) if base.endswith(".npz") else _any_mixture(base))
    if not part:
        return source
    reason = "gtzan has no parts, because copies of a track must stay together"
    require(not isinstance(source, Gtzan), f"{name!r} cannot be: {reason}")
    reason = "its classes are pieces of words, and none can be left out"
    require(source.kind != "sentences", f"{name!r} cannot be: {reason}")
    first, stratified, tail = parts.groups()
    classes = int(first) if first else source.classes
    require(2 <= classes <= source.classes, f"{name!r} has {classes} classes; {base} has 2 to {source.classes}")
    imbalance = 1.0 if stratified else float(tail) if tail else None
    require(imbalance is None or imbalance >= 1, f"{name!r} has an imbalance of {imbalance}; it must be 1 or above")
    return Subset(name, source, classes, imbalance)


def _any_mixture(name: str) -> Mixture:
    found = _ANY_MIXTURE.fullmatch(name)
    others = "mixtures such as 'mixture-20x4-16d-noise-1.5', and .npz files of your own"
    require(found is not None, f"unknown data set {name!r}; there are {', '.join(DATASETS)}, {others}")
    classes, superclasses, dimensions = map(int, found.groups()[:3])
    noise = float(found[4])
    require(2 <= superclasses <= classes, f"{name!r} has {superclasses} superclasses of {classes} classes; 2 or more")
    require(noise > 0 and 1 / noise < math.inf, f"{name!r} has noise {noise:g}; it must be above 0")
    return Mixture(name, classes, superclasses, dimensions, 1 / noise)
