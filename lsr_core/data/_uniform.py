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
    """The content of such a file: images uint8 `[N, C, H, W]`, labels int64 `[N]`, rows in the order of their content's
    hash, so that the first ones are a fair sample.

    `superclasses` int64 `[K]` is the superclass of each class, `votes` int64 `[M, K]` the annotators' on each test
    image; either is None where the file has none. `content` is a hash of images, labels and superclasses,
    `votes_content` of the votes, `source` what the file names as its source.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    superclasses: Tensor | None
    votes: Tensor | None
    content: str
    votes_content: str | None
    source: str | None

    @property
    def fingerprint(self) -> str:
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
    superclasses, votes = _superclasses(path, arrays), arrays.get("test_label_counts")
    parts, hashed = {}, []
    for part in ("train", "test"):
        images, labels = arrays.pop(f"{part}_images"), arrays[f"{part}_labels"]
        digests = np.array([hashlib.blake2b(image, digest_size=8).digest() for image in np.ascontiguousarray(images)])
        order, mixed = np.lexsort((digests, labels)), np.lexsort((labels, digests))
        hashed += [digests[order], labels[order], np.array(images.shape)]
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2)).contiguous()
        parts[f"{part}_images"] = pixels[torch.from_numpy(mixed)]
        parts[f"{part}_labels"] = torch.from_numpy(labels[mixed])
    return ImageRows(
        **parts,
        class_names=tuple(arrays["class_names"].tolist()),
        superclasses=None if superclasses is None else torch.from_numpy(superclasses),
        votes=None if votes is None else torch.from_numpy(votes[mixed]),
        content=fingerprint(*hashed, *([] if superclasses is None else [superclasses])),
        votes_content=None if votes is None else fingerprint(votes[order]),
        source=str(arrays["source"]) if "source" in arrays else None,
    )


def _check(path: Path, arrays: dict[str, np.ndarray]) -> None:
    missing = [name for name in _NEEDED if name not in arrays]
    require(not missing, f"{path} has no {', '.join(missing)}; an image set needs {', '.join(_NEEDED)}")
    names, shape = arrays["class_names"], arrays["train_images"].shape[1:]
    _require_form(f"{path}: class_names", names, names.ndim == 1 and names.dtype.kind == "U", "text [K]")
    require(len(names) >= 2, f"{path}: class_names has {len(names)} names; classification needs 2 classes or more")
    for part in ("train", "test"):
        images = arrays[f"{part}_images"]
        fits = images.dtype == np.uint8 and images.ndim == 4 and images.size > 0
        _require_form(f"{path}: {part}_images", images, fits, "uint8 [N, H, W, C], one image or more")
        other = f"test images are {images.shape[1:]}; they must be {shape} as those for training are"
        require(images.shape[1:] == shape, f"{path}: {other}")
        _check_labels(f"{path}: {part}_labels", arrays[f"{part}_labels"], len(images), len(names))
    votes, form = arrays.get("test_label_counts"), (len(images), len(names))
    if votes is not None:
        fits = votes.dtype == np.int64 and votes.shape == form and bool((votes >= 0).all() and votes.any(-1).all())
        _require_form(f"{path}: test_label_counts", votes, fits, f"int64 {list(form)}, a vote or more for each image")


def _check_labels(what: str, labels: np.ndarray, count: int, classes: int) -> None:
    fits = labels.dtype == np.int64 and labels.shape == (count,)
    _require_form(what, labels, fits, f"int64 [{count}], one for each image")
    low, high = labels.min(), labels.max()
    require(low >= 0 and high < classes, f"{what} are {low} to {high}; they must lie in 0 to {classes - 1}")


def _superclasses(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    """The superclass of each class, where the file has superclasses."""
    if "train_superclass_labels" not in arrays:
        return None
    classes, pairs = len(arrays["class_names"]), []
    for part in [part for part in ("train", "test") if f"{part}_superclass_labels" in arrays]:
        labels, superclasses = arrays[f"{part}_labels"], arrays[f"{part}_superclass_labels"]
        _check_labels(f"{path}: superclass labels", superclasses, len(labels), classes)
        pairs.append(np.stack([labels, superclasses]))
    found, superclasses = np.unique(np.concatenate(pairs, axis=1), axis=1)
    agree = np.array_equal(found, np.arange(classes))
    require(agree, f"{path}: the superclass labels give some class no superclass, or several")
    return superclasses


def _require_form(what: str, array: np.ndarray, fits: bool, right: str) -> None:
    require(fits, f"{what} is {array.dtype} {list(array.shape)}; it must be {right}")
