"""Image sets: named ones that are downloaded once, and a user's own, all in one form of file."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from ..errors import require
from ..files import cache_folder
from ._split import Source, split_generator, stratified_order
from ._uniform import ImageRows, read_images
from .download import Download, fetch

_VALIDATION_SHARE = 10  # one in ten images of the training part is for validation: 5,000 of CIFAR's 50,000


@dataclass(eq=False)
class Images(Source):
    """Images uint8 `[N, C, H, W]` of `image_shape` (C, H, W), `counts` of them in each class of the training part.

    Training and validation images are drawn by seed from the training part, disjoint and with the classes in
    proportion, a tenth of it for validation; the test part is whole and the same for all. `votes` is the fingerprint
    of people's votes on the test images. The file is read when it is first needed, and checked against the fingerprint.
    """

    name: str
    counts: tuple[int, ...]
    image_shape: tuple[int, int, int] = field()  # without the default of other sets, None
    fingerprint: str
    mean: tuple[float, ...] = field()
    std: tuple[float, ...] = field()
    votes: str | None = None
    download: Download | None = None

    def __post_init__(self) -> None:
        self.classes, self.input_dim = len(self.counts), math.prod(self.image_shape)
        self.validation = sum(self.counts) // _VALIDATION_SHARE

    @classmethod
    def of_file(cls, name: str) -> Self:
        """A user's own set, described by its file; the fingerprint is a hash of the file's arrays."""
        rows = read_images(Path(name))
        count, least = len(rows.train_images), _VALIDATION_SHARE
        require(count >= least, f"{name} has {count} training images; a tenth is for validation, so {least} or more")
        counts = tuple(rows.train_labels.bincount(minlength=len(rows.class_names)).tolist())
        shape, statistics = tuple(rows.train_images.shape[1:]), channel_statistics(rows.train_images)
        return cls(name, counts, shape, rows.fingerprint, *statistics, rows.votes_content)

    @property
    def _own(self) -> bool:
        return self.name.endswith(".npz")

    @property
    def path(self) -> Path:
        """Where its file is, or will be."""
        return Path(self.name) if self._own else cache_folder("LSR_DATA", "data") / f"{self.name}.npz"

    @property
    def superclasses(self) -> Tensor | None:
        return self._rows.superclasses

    @property
    def test(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images and labels of the test part, and the votes' shares as posterior."""
        rows = self._rows
        votes = None if rows.votes is None else rows.votes.double()
        return rows.test_images, rows.test_labels, None if votes is None else votes / votes.sum(-1, keepdim=True)

    def drawn(self, seed: int, count: int) -> tuple[Tensor, Tensor]:
        order = stratified_order(self._rows.train_labels.numpy(), split_generator(seed))
        chosen = torch.from_numpy(order[:count])
        return self._rows.train_images[chosen], self._rows.train_labels[chosen]

    def fetch(self) -> None:
        """Read the file, downloaded and converted where it is missing; raises `InputError` where it is not right."""
        _ = self._rows

    def check(self) -> None:
        """Read the file; raises `InputError` where it is missing, damaged or has another fingerprint."""
        there = self._own or self.path.exists()
        require(there, f"{self.name} is missing at {self.path}; `lsr data fetch {self.name}` downloads it")
        self.fetch()

    @cached_property
    def _rows(self) -> ImageRows:
        if not self._own and not self.path.exists():
            fetch(self.name, self.path, self.download)
        rows = read_images(self.path)
        found = rows.fingerprint if self._own else rows.source or rows.content
        same = found == self.fingerprint and rows.votes_content in (None, self.votes)
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
