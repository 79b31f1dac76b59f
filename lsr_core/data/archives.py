"""Downloads of image sets, converted once to the uniform file.

torchvision loads CIFAR, MNIST and Fashion-MNIST; CINIC-10 (Darlow et al. 2018), Tiny-ImageNet and the votes of
CIFAR-10H (Peterson et al. 2019) come from their own archives. Of CINIC-10, `train` is for training and `test` for
testing, and `valid` is left out; Tiny-ImageNet's labelled `val` is the test set.
"""

import hashlib
import importlib
import io
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np

from .._locks import FileLock
from .._progress import bar
from .._torchvision import import_torchvision
from ..errors import InputError
from ..files import whole_file

_CONVERSION = 1  # raised when a change of the code changes what is made of an archive
_PIECE = 1 << 20  # bytes
_FAILURES = (
    OSError, RuntimeError, ValueError, EOFError, KeyError, HTTPException, tarfile.TarError, zipfile.BadZipFile,
)  # fmt: skip


class Archive(NamedTuple):
    """A file that is downloaded, and the MD5 that it must have."""

    url: str
    md5: str | None = None

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]

    @property
    def fingerprint(self) -> str:
        """The archive and the version of its conversion: JPEG decoders may differ in a bit, so not the pixels."""
        return f"{self.md5}-{_CONVERSION}"


_VOTES = Archive("https://github.com/jcpeterson/cifar-10h/raw/master/data/cifar10h-counts.npy")
ARCHIVES = {
    "cinic10": Archive(
        "https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz", "6ee4d0c996905fe93221de577967a372"
    ),
    "tiny_imagenet": Archive(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"
    ),
}  # fmt: skip
_BY_HAND = {
    "cifar100": "cifar-100-python.tar.gz",
    "cifar10": f"cifar-10-python.tar.gz and {_VOTES.file_name}",
    **{name: archive.file_name for name, archive in ARCHIVES.items()},
}


def fetch(name: str, path: Path) -> None:
    """Download a named image set and write its uniform file to `path`; nothing is left of a failed download.

    An archive that lies beside `path` already is used. Raises `InputError` where something cannot be had.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{name}.lock")):
            for left in path.parent.glob(f".{name}.*.part"):  # of a process that was killed
                shutil.rmtree(left)
            if path.exists():
                return
            with TemporaryDirectory(dir=path.parent, prefix=f".{name}.", suffix=".part") as folder:
                arrays = _LOADERS[name](name, Path(folder))
            with whole_file(path) as file:
                np.savez(file, **arrays)
    except _FAILURES as error:
        reason = " ".join(str(error).split())
        by_hand = f"try again, or put {_BY_HAND.get(name, path.name)} into {path.parent} by hand"
        raise InputError(f"{name} could not be fetched: {reason}; {by_hand}") from None


def download(url: str, path: Path, md5: str | None = None) -> None:
    """Download a file; raises `OSError` where it ends early or has another MD5."""
    state, got = hashlib.md5(usedforsecurity=False), 0
    request = Request(url, headers={"User-Agent": "lsr-core"})
    with _opened(request) as answer, path.open("wb") as file:
        size = int(answer.headers["Content-Length"] or 0)
        with bar(total=size or None, desc=path.name, unit="B", unit_scale=True) as progress:
            while piece := answer.read(_PIECE):
                file.write(piece)
                state.update(piece)
                progress.update(len(piece))
                got += len(piece)
    if got < size:
        raise OSError(f"{url} ended after {got} of {size} bytes")
    _check_md5(path, state.hexdigest(), md5)


def _opened(request: Request) -> HTTPResponse:
    try:
        return urlopen(request, timeout=60)
    except URLError as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise OSError(f"{request.full_url}: {error.reason}") from None


def _check_md5(path: Path, found: str, md5: str | None) -> None:
    if md5 is not None and found != md5:
        raise OSError(f"{path.name} has MD5 {found}; it should have {md5}")


def _archive(archive: Archive, folder: Path) -> Path:
    """The archive, downloaded into the folder unless it lies beside it."""
    by_hand, path = folder.parent / archive.file_name, folder / archive.file_name
    if by_hand.exists():
        with by_hand.open("rb") as file:
            _check_md5(by_hand, hashlib.file_digest(file, "md5").hexdigest(), archive.md5)  # and leave it alone
        return by_hand
    download(archive.url, path, archive.md5)
    return path


def _cifar(name: str, folder: Path) -> dict[str, Any]:
    loader = getattr(_torchvision_datasets(), name.upper())
    path = _archive(Archive(loader.url, loader.tgz_md5), folder)  # torchvision would write over one that is damaged
    if path.parent != folder:
        (folder / loader.filename).symlink_to(path.absolute())
    arrays = _from_torchvision(loader, folder)
    if name == "cifar10":
        votes = np.load(_archive(_VOTES, folder), allow_pickle=False)  # their fingerprint is checked with the set's
        return arrays | {"test_label_counts": votes.astype(np.int64)}
    for part in ("train", "test"):
        fine_and_coarse = _pickled(folder / loader.base_folder / part)
        arrays[f"{part}_superclass_labels"] = np.array(fine_and_coarse["coarse_labels"], np.int64)
    return arrays | {"superclass_names": np.array(_pickled(folder / loader.base_folder / "meta")["coarse_label_names"])}


def _pickled(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:  # torchvision has checked its MD5
        return pickle.load(file, encoding="latin1")


def _mnist(name: str, folder: Path) -> dict[str, Any]:
    datasets = _torchvision_datasets()
    return _from_torchvision(datasets.MNIST if name == "mnist" else datasets.FashionMNIST, folder)


def _torchvision_datasets() -> ModuleType:
    import_torchvision()
    return importlib.import_module("torchvision.datasets")


def _from_torchvision(loader: Callable[..., Any], folder: Path) -> dict[str, Any]:
    arrays = {}
    for part, train in (("train", True), ("test", False)):
        loaded = loader(folder, train=train, download=True)
        images = np.asarray(loaded.data)
        arrays[f"{part}_images"] = images if images.ndim == 4 else images[..., None]
        arrays[f"{part}_labels"] = np.asarray(loaded.targets, np.int64)
    names = [name.partition(" - ")[0].replace(" ", "_") for name in loaded.classes]
    return arrays | {"class_names": np.array(names)}


def _cinic10(name: str, folder: Path) -> dict[str, Any]:
    path = _archive(ARCHIVES[name], folder)
    with tarfile.open(path) as tar:
        members = ((member.name, tar.extractfile(member)) for member in tar if member.name.endswith(".png"))
        images = [
            (part, label, _pixels(file.read()))
            for member, file in bar(members, desc=name, unit=" images")
            for part, label in [member.split("/")[-3:-1]]
            if part != "valid"
        ]
    return _arrays(name, images, sorted({label for _, label, _ in images}))


def _tiny_imagenet(name: str, folder: Path) -> dict[str, Any]:
    path = _archive(ARCHIVES[name], folder)
    with zipfile.ZipFile(path) as archive:
        root = "tiny-imagenet-200"
        table = archive.read(f"{root}/val/val_annotations.txt").decode().splitlines()
        label_of = {file: label for file, label, *_ in (line.split("\t") for line in table)}
        words = dict(line.split("\t") for line in archive.read(f"{root}/words.txt").decode().splitlines())
        images = []
        for member in bar(archive.namelist(), desc=name, unit=" images"):
            folders, _, file = member.rpartition("/")
            if not file.endswith(".JPEG"):
                continue
            part = folders.split("/")[1]
            if part in ("train", "val"):
                label = label_of[file] if part == "val" else file.partition("_")[0]
                images.append(("test" if part == "val" else part, label, _pixels(archive.read(member))))
    labels = sorted({label for _, label, _ in images})
    return _arrays(name, images, labels) | {"class_names": np.array([words[label].split(",")[0] for label in labels])}


def _pixels(encoded: bytes) -> np.ndarray:
    """A picture as uint8 `[H, W, 3]`, grey ones with three equal channels."""
    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as picture:
        return np.asarray(picture.convert("RGB"))


def _arrays(name: str, images: Iterable[tuple[str, str, np.ndarray]], labels: list[str]) -> dict[str, Any]:
    """The uniform arrays of (part, label, pixels)."""
    arrays = {"class_names": np.array(labels), "source": np.array(ARCHIVES[name].fingerprint)}
    for wanted in ("train", "test"):
        chosen = [(pixels, labels.index(label)) for part, label, pixels in images if part == wanted]
        arrays[f"{wanted}_images"] = np.stack([pixels for pixels, _ in chosen])
        arrays[f"{wanted}_labels"] = np.array([label for _, label in chosen], np.int64)
    return arrays


_LOADERS = {
    "cifar100": _cifar,
    "cifar10": _cifar,
    "cinic10": _cinic10,
    "fashion_mnist": _mnist,
    "mnist": _mnist,
    "tiny_imagenet": _tiny_imagenet,
}
