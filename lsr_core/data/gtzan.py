"""GTZAN: 1,000 tracks of music in ten genres (Tzanetakis and Cook 2002), each as 57 features of 30 seconds."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist, squareform

from ..errors import require
from ..files import cache_folder
from ._split import Split, fingerprint, require_fingerprint, size, split_generator, stratified_order
from ._uniform import read_arrays

FOLDS = 5
_FOLDS_SEED = 20020700
_SAME_TRACK = 2.0  # distance of standardised features: copies have 0, versions below 2, half of all tracks none below 4
_FORM = "features float64 [1000, 57], labels int64 [1000], feature_names, class_names"


@dataclass(frozen=True)
class Gtzan:
    """Tracks as rows of features; `fold`, a fifth of them, is the test part, the same for every seed.

    Training and validation tracks are drawn by seed from the other folds, a tenth of them for validation. Every part
    has as many tracks of each genre. Copies and versions of a track (Sturm 2013) are found by their features and share
    one part. Features are standardised by the four folds that are not for testing.
    """

    name: str
    fold: int = 0

    classes: ClassVar[int] = 10
    input_dim: ClassVar[int] = 57
    validation: ClassVar[int] = 80
    max_train: ClassVar[int] = 720
    fingerprint: ClassVar[str] = "132862d81a4906a2"

    @property
    def path(self) -> Path:
        """Where its file should be."""
        return cache_folder("LSR_DATA", "data") / "gtzan.npz"

    def fetch(self) -> None:
        """Raise `InputError` unless the file is there: there is no public download."""
        message = f"gtzan has no public download here; put its table at {self.path}, an .npz file with {_FORM}"
        require(self.path.is_file(), message)

    def check(self) -> None:
        """Raise `InputError` unless the file is there, whole, and has this fingerprint."""
        self._read()

    def split(self, train: int, seed: int) -> Split:
        """`train` training tracks and 80 validation tracks of this seed, standardised float32 `[N, 57]`."""
        train, generator, test = size(self, train), split_generator(seed), self._folds == self.fold
        features, labels = self._table
        pool = np.flatnonzero(~test)
        room = np.repeat([[self.validation], [self.max_train]], self.classes, axis=1) // self.classes
        training = _parts(labels[pool], self._versions[pool], room, generator) == 1
        ordered = pool[training][stratified_order(labels[pool][training], generator)]
        standardised = (features - features[pool].mean(0)) / features[pool].std(0)
        inputs, targets = torch.tensor(standardised, dtype=torch.float32), torch.tensor(labels)
        rows = (ordered[:train], pool[~training], np.flatnonzero(test))
        return Split(*(tensor[part] for part in map(torch.from_numpy, rows) for tensor in (inputs, targets)))

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        self.fetch()
        arrays = read_arrays(self.path)
        missing = {"features", "labels", "class_names"} - arrays.keys()
        require(not missing, f"{self.path} has no {', '.join(sorted(missing))}; it must hold {_FORM}")
        found = fingerprint(arrays["features"], arrays["labels"])
        require_fingerprint(self.path, found, self.fingerprint, "; put another table there")
        return arrays["features"], arrays["labels"]

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        return self._read()

    @cached_property
    def _versions(self) -> np.ndarray:
        """For each track a number that its copies and versions share."""
        features, _ = self._table
        near = squareform(pdist((features - features.mean(0)) / features.std(0))) < _SAME_TRACK
        return connected_components(near, directed=False)[1]

    @cached_property
    def _folds(self) -> np.ndarray:
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
