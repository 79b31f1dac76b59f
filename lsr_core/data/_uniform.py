"""The one form in which image sets are kept: an `.npz` file with uint8 images `[N, H, W, C]` and int64 labels."""

import hashlib
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, require
from ._split import fingerprint

_NEEDED = ("train_images", "train_labels", "test_images", "test_labels", "class_names")


class ImageRows(NamedTuple):
    """What such a file holds: images uint8 `[N, C, H, W]`, labels int64 `[N]`, rows in the order of their
    content's hash, so that the first ones are a fair sample.

    `groups` int64 `[K]` is each class's superclass, `votes` int64 `[M, K]` the annotators' on each test image; either
    is None where the file has none. `content` is a hash of images, labels and superclasses, `votes_content` of the
    votes, `source` what the file says that it was made from.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    groups: Tensor | None
    votes: Tensor | None
    content: str
    votes_content: str | None
    source: str | None

    @property
    def whole(self) -> str:
        """A hash of everything that a result depends on."""
        return self.content if self.votes is None else fingerprint(np.array([self.content, self.votes_content]))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file; raises `InputError` where it is missing, damaged or something else."""
    require(path.is_file(), f"there is no file {path}; a data set's .npz file should be there")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        reason = f"{path} is damaged or no .npz file of plain arrays ({error})"
        raise InputError(f"{reason}; remove it or put a whole one in its place") from None


def read_images(path: Path) -> ImageRows:
    """The rows of an image set's file, whose order in the file does not matter; raises `InputError` for a bad one."""
    arrays = read_arrays(path)
    _check(path, arrays)
    parts, hashed = {}, []
    for part in ("train", "test"):
        images, labels = arrays.pop(f"{part}_images"), arrays[f"{part}_labels"]
        digests = np.array([hashlib.blake2b(image, digest_size=8).digest() for image in np.ascontiguousarray(images)])
        order, mixed = np.lexsort((digests, labels)), np.lexsort((labels, digests))
        hashed += [digests[order], labels[order], np.array(images.shape)]
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2)).contiguous()
        parts[f"{part}_images"] = pixels[torch.from_numpy(mixed)]
        parts[f"{part}_labels"] = torch.from_numpy(labels[mixed])
    groups, votes = _groups(path, arrays), arrays.get("test_label_counts")
    return ImageRows(
        **parts,
        class_names=tuple(arrays["class_names"].tolist()),
        groups=None if groups is None else torch.from_numpy(groups),
        votes=None if votes is None else torch.from_numpy(votes[mixed]),
        content=fingerprint(*hashed, *([] if groups is None else [groups])),
        votes_content=None if votes is None else fingerprint(votes[order]),
        source=str(arrays["source"]) if "source" in arrays else None,
    )


def _check(path: Path, arrays: dict[str, np.ndarray]) -> None:
    missing = [name for name in _NEEDED if name not in arrays]
    require(not missing, f"{path} has no {', '.join(missing)}; an image set needs {', '.join(_NEEDED)}")
    names = arrays["class_names"]
    require(names.ndim == 1 and names.dtype.kind == "U", f"{path}: class_names is {_form(names)}; it must be text [K]")
    require(len(names) >= 2, f"{path}: class_names has {len(names)} names; classification needs 2 classes or more")
    shape = arrays["train_images"].shape[1:]
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        fits = images.dtype == np.uint8 and images.ndim == 4 and images.size > 0
        require(fits, f"{path}: {part}_images is {_form(images)}; it must be uint8 [N, H, W, C], one image or more")
        require(
            images.shape[1:] == shape,
            f"{path}: test images are {images.shape[1:]}; they must be {shape} as those for training are",
        )
        _check_labels(path, f"{part}_labels", labels, len(images), len(names))
    votes = arrays.get("test_label_counts")
    if votes is not None:
        form = f"int64 [{len(arrays['test_images'])}, {len(names)}], a vote or more for each image"
        fits = votes.dtype == np.int64 and votes.shape == (len(arrays["test_images"]), len(names))
        fits = fits and bool((votes >= 0).all() and (votes.sum(-1) > 0).all())
        require(fits, f"{path}: test_label_counts is {_form(votes)}; it must be {form}")


def _check_labels(path: Path, name: str, labels: np.ndarray, count: int, classes: int) -> None:
    fits = labels.dtype == np.int64 and labels.shape == (count,)
    require(fits, f"{path}: {name} is {_form(labels)}; it must be int64 [{count}], one for each image")
    low, high = labels.min(), labels.max()
    require(low >= 0 and high < classes, f"{path}: {name} are {low} to {high}; they must lie in 0 to {classes - 1}")


def _groups(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    """The superclass of each class, where the file has superclasses."""
    if "train_superclass_labels" not in arrays:
        return None
    groups = np.full(len(arrays["class_names"]), -1)
    pairs = [
        (arrays[f"{part}_labels"], arrays[name])
        for part in ("train", "test")
        if (name := f"{part}_superclass_labels") in arrays
    ]
    for labels, superclasses in pairs:
        _check_labels(path, "superclass labels", superclasses, len(labels), len(groups))
        groups[labels] = superclasses
    agree = all(np.array_equal(groups[labels], superclasses) for labels, superclasses in pairs)
    require(agree and groups.min() >= 0, f"{path}: the superclass labels give some class no superclass, or several")
    return groups


def _form(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"
