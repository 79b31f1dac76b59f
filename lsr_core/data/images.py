"""Image sets: named ones that are downloaded once, and a user's own, all in one form of file."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ..errors import require
from ..files import cache_folder
from ._split import Split, size, split_generator, stratified_order
from ._uniform import ImageRows, read_images
from .download import Download, fetch

_VALIDATION_SHARE = 10  # one in ten images of the training part is for validation: 5,000 of CIFAR's 50,000


@dataclass(frozen=True)
class Images:
    """Images uint8 `[N, C, H, W]` of `image_shape` (C, H, W), `counts` of them in each class of the training part.

    Training and validation images are drawn by seed from the training part, disjoint and with the classes in
    proportion, a tenth of it for validation; the test part is whole and the same for all. `mean` and `std` of each
    channel are in units of the full range, `votes` is the fingerprint of people's votes on the test images. The file is
    read when it is first needed, and checked against the fingerprint.
    """

    name: str
    counts: tuple[int, ...]
    image_shape: tuple[int, int, int]
    fingerprint: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    votes: str | None = None
    download: Download | None = None

    @classmethod
    def of_file(cls, name: str) -> Self:
        """A user's own set, described by its file; the fingerprint is a hash of the file's arrays."""
        rows = read_images(Path(name))
        count, least = len(rows.train_images), _VALIDATION_SHARE
        require(count >= least, f"{name} has {count} training images; a tenth is for validation, so {least} or more")
        counts = tuple(rows.train_labels.bincount(minlength=len(rows.class_names)).tolist())
        shape, statistics = tuple(rows.train_images.shape[1:]), channel_statistics(rows.train_images)
        return cls(name, counts, shape, rows.fingerprint, *statistics)

    @property
    def _own(self) -> bool:
        return self.name.endswith(".npz")

    @property
    def path(self) -> Path:
        """Where its file is, or will be."""
        return Path(self.name) if self._own else cache_folder("LSR_DATA", "data") / f"{self.name}.npz"

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.counts)

    @property
    def input_dim(self) -> int:
        """Numbers in an image, C·H·W."""
        return math.prod(self.image_shape)

    @property
    def validation(self) -> int:
        """How many images of the training part are for validation."""
        return sum(self.counts) // _VALIDATION_SHARE

    @property
    def max_train(self) -> int:
        """The most training images there are."""
        return sum(self.counts) - self.validation

    @property
    def superclasses(self) -> Tensor | None:
        """The superclass of each class `[K]`, where the set has some."""
        return self._rows.superclasses

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self._rows.class_names

    def fetch(self) -> None:
        """Download and convert a named set whose file is missing; raises `InputError` where that fails."""
        if not self._own and not self.path.exists():
            fetch(self.name, self.path, self.download)

    def check(self) -> None:
        """Raise `InputError` unless the file is there, whole, and has this fingerprint."""
        there = self._own or self.path.exists()
        require(there, f"{self.name} is missing at {self.path}; `lsr data fetch {self.name}` downloads it")
        self._read()

    def split(self, train: int, seed: int) -> Split:
        """`train` training images and the validation images of this seed; the votes' shares as test posterior."""
        train, rows, order = size(self, train), self._rows, self._order(seed)
        training, validation = order[self.validation : self.validation + train], order[: self.validation]
        votes = None if rows.votes is None else rows.votes.double()
        return Split(
            *(part[chosen] for chosen in (training, validation) for part in (rows.train_images, rows.train_labels)),
            rows.test_images,
            rows.test_labels,
            None if votes is None else votes / votes.sum(-1, keepdim=True),
        )

    def examples(self, seed: int, each: int, classes: int) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """The training part's images of the first `classes`, and their labels, in the order of this seed."""
        order = self._order(seed)
        order = order[self._rows.train_labels[order] < classes]
        return self._rows.train_images[order], self._rows.train_labels[order]

    def available(self, classes: int) -> np.ndarray:
        """How many images of each of the first `classes` the training part has."""
        return np.array(self.counts[:classes])

    def _order(self, seed: int) -> Tensor:
        return torch.from_numpy(stratified_order(self._rows.train_labels.numpy(), split_generator(seed)))

    @cached_property
    def _rows(self) -> ImageRows:
        self.fetch()
        return self._read()

    def _read(self) -> ImageRows:
        rows = read_images(self.path)
        found = rows.fingerprint if self._own else rows.source or rows.content
        same = found == self.fingerprint and (self._own or rows.votes_content in (None, self.votes))
        same = same and rows.train_labels.bincount(minlength=self.classes).tolist() == list(self.counts)
        right = "start again" if self._own else f"remove it, and `lsr data fetch {self.name}` makes it anew"
        message = f"{self.path} has fingerprint {found}; the study was made with {self.fingerprint}"
        require(same, f"{message}; {right}")
        return rows


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 images `[N, C, H, W]`, in units of the full range.

    A channel that is the same everywhere, to the four digits that are kept, has deviation 1: it becomes 0, not NaN.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    shares = torch.stack([channel.flatten().bincount(minlength=256) for channel in images.transpose(0, 1)]).double()
    shares /= shares.sum(-1, keepdim=True)
    mean = shares @ values
    std = (shares * (values - mean[:, None]) ** 2).sum(-1).sqrt()
    return tuple(mean.numpy().round(4).tolist()), tuple(spread or 1.0 for spread in std.numpy().round(4).tolist())
