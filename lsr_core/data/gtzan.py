"""GTZAN: 1,000 tracks of music in ten genres (Tzanetakis and Cook 2002), each as 57 features of 30 seconds."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist, squareform
from torch import Tensor

from ..errors import require
from ..files import cache_folder
from ._split import Source, fingerprint, require_fingerprint, split_generator, stratified_order
from ._uniform import read_arrays

FOLDS = 5
_FOLDS_SEED = 20020700
_SAME_TRACK = 2.0  # distance of standardised features: copies have 0, versions below 2, half of all tracks none below 4
_FORM = "features float64 [1000, 57], labels int64 [1000], feature_names, class_names"


@dataclass(frozen=True)
class Gtzan(Source):
    """Tracks as rows of features; `fold`, a fifth of them, is the test part, the same for every seed.

    Training and validation tracks are drawn by seed from the other folds, a tenth of them for validation. Every part
    has as many tracks of each genre. Copies and versions of a track (Sturm 2013) are found by their features and share
    one part. Features are standardised by the four folds that are not for testing.
    """

    name: str
    fold: int = 0

    classes = 10
    input_dim = 57
    counts = (80,) * 10
    validation = 80
    fingerprint = "132862d81a4906a2"

    @property
    def path(self) -> Path:
        """Where its file should be."""
        return cache_folder("LSR_DATA", "data") / "gtzan.npz"

    def fetch(self) -> None:
        """Read the file, which has no public download; raises `InputError` where it is missing or not right."""
        _ = self._table

    check = fetch

    @property
    def test(self) -> tuple[Tensor, Tensor, None]:
        return *self._standardised(self.folds == self.fold), None

    def drawn(self, seed: int, count: int) -> tuple[Tensor, Tensor]:
        """The first `count` tracks of this seed outside this fold: 8 of each genre, then the rest in proportion."""
        generator, pool = split_generator(seed), np.flatnonzero(self.folds != self.fold)
        labels, versions = self._table[1][pool], self._versions[pool]
        room = np.repeat([[self.validation], [self.max_train]], self.classes, axis=1) // self.classes
        training = _parts(labels, versions, room, generator) == 1
        ordered = pool[training][stratified_order(labels[training], generator)]
        return self._standardised(np.concatenate([pool[~training], ordered])[:count])

    def _standardised(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Features of these rows in units of the pool's deviations from its mean, and labels."""
        features, labels = self._table
        pool = features[self.folds != self.fold]
        chosen = (features[rows] - pool.mean(0)) / pool.std(0)
        return torch.tensor(chosen, dtype=torch.float32), torch.tensor(labels[rows])

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        message = f"gtzan has no public download here; put its table at {self.path}, an .npz file with {_FORM}"
        require(self.path.is_file(), message)
        arrays = read_arrays(self.path)
        missing = {"features", "labels", "class_names"} - arrays.keys()
        require(not missing, f"{self.path} has no {', '.join(sorted(missing))}; it must hold {_FORM}")
        found = fingerprint(arrays["features"], arrays["labels"])
        require_fingerprint(self.path, found, self.fingerprint, "; put another table there")
        return arrays["features"], arrays["labels"]

    @cached_property
    def _versions(self) -> np.ndarray:
        """For each track a number that its copies and versions share."""
        features, _ = self._table
        near = squareform(pdist((features - features.mean(0)) / features.std(0))) < _SAME_TRACK
        return connected_components(near, directed=False)[1]

    @cached_property
    def folds(self) -> np.ndarray:
        """The fold of each track, `[N]`."""
        _, labels = self._table
        room = np.full((FOLDS, self.classes), len(labels) // (FOLDS * self.classes))
        return _parts(labels, self._versions, room, np.random.default_rng(_FOLDS_SEED))


def _parts(labels: np.ndarray, versions: np.ndarray, room: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The part of each row: versions of a track share one of P parts, which have `room` `[P, K]` for each class.

    Tracks with many versions come first; a part is drawn in proportion to its free room, and single tracks fill up.
    """
    room, part = room.copy(), np.empty(len(labels), int)
    tracks, sizes = np.unique(versions, return_counts=True)
    drawn = generator.permutation(len(tracks))
    for track in tracks[drawn[np.argsort(-sizes[drawn], kind="stable")]]:
        rows = versions == track
        needed = np.bincount(labels[rows], minlength=room.shape[1])
        free = np.where((room >= needed).all(1), room[:, needed > 0].min(1), 0)
        chosen = generator.choice(len(room), p=free / free.sum())
        part[rows] = chosen
        room[chosen] -= needed
    return part
