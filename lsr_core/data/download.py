"""Downloads of named image sets, converted once to the uniform file; torchvision fetches and reads the archives.

The votes of CIFAR-10H are from Peterson et al. (2019).
"""

import pickle
import shutil
import socket
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tarfile import TarError
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock

from .._torchvision import import_torchvision
from ..errors import InputError
from ..files import whole_file

SECONDS = 60.0  # that a server may take to answer
VOTES_URL = "https://github.com/jcpeterson/cifar-10h/raw/master/data/cifar10h-counts.npy"
_FAILURES = (OSError, RuntimeError, ValueError, EOFError, KeyError, HTTPException, TarError, BadZipFile, zlib.error)


@dataclass(frozen=True)
class Download:
    """How a named image set is fetched: `convert` downloads into an empty folder and returns the uniform arrays.

    `archives` are the files that `convert` uses, unchanged, where a user has put them beside that folder.
    """

    convert: Callable[[Path], dict[str, Any]]
    archives: tuple[str, ...] = ()


def fetch(name: str, path: Path, download: Download) -> None:
    """Write the uniform file of a named image set to `path`; nothing is left of a failed download.

    One process downloads, others wait for it. Raises `InputError` where that fails.
    """
    files = " and ".join(download.archives) or path.name
    with downloading(name, path.parent, files), FileLock(path.with_name(f".{name}.lock")):
        for left in path.parent.glob(f".{name}.*.part"):  # by a process that was killed
            shutil.rmtree(left)
        if path.exists():
            return
        with TemporaryDirectory(dir=path.parent, prefix=f".{name}.", suffix=".part") as folder:
            arrays = download.convert(Path(folder))
        with whole_file(path) as file:
            np.savez(file, **arrays)


@contextmanager
def downloading(name: str, folder: Path, files: str) -> Iterator[None]:
    """Meanwhile, a failure raises `InputError` that says which files to put into the folder by hand.

    A server that does not answer for `SECONDS` fails.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except _FAILURES as error:
        reason = " ".join(str(error).split())
        message = f"{name} could not be fetched: {reason}; try again, or put {files} into {folder} by hand"
        raise InputError(message) from None
    finally:
        socket.setdefaulttimeout(before)


def archive(url: str, folder: Path, md5: str | None = None) -> Path:
    """Download an archive into the folder, or link the one beside it; raises `OSError` for another MD5."""
    utils = import_torchvision().datasets.utils
    path = folder / url.rpartition("/")[2]
    by_hand = folder.parent / path.name
    try:
        if by_hand.exists():
            path.symlink_to(by_hand.absolute())
        else:
            utils.download_url(url, folder)
    except HTTPError as error:
        error.close()
        raise OSError(f"{url}: {error.reason}") from None
    found = utils.calculate_md5(path)
    if md5 not in (None, found):
        raise OSError(f"{path.name} has MD5 {found}; it should have {md5}")
    return path


def torchvision_set(name: str, folder: Path) -> dict[str, Any]:
    """The uniform arrays of one of torchvision's data sets, such as MNIST."""
    loader, arrays = getattr(import_torchvision().datasets, name), {}
    if hasattr(loader, "tgz_md5"):  # of CIFAR; checked first, because torchvision would write over a damaged one
        archive(loader.url, folder, loader.tgz_md5)
    for part in ("train", "test"):
        loaded = loader(folder, train=part == "train", download=True)
        images = np.asarray(loaded.data)
        arrays[f"{part}_images"] = images if images.ndim == 4 else images[..., None]
        arrays[f"{part}_labels"] = np.asarray(loaded.targets, np.int64)
    names = [name.partition(" - ")[0].replace(" ", "_") for name in loaded.classes]
    return arrays | {"class_names": np.array(names)}


def cifar10(folder: Path) -> dict[str, Any]:
    """CIFAR-10 with the votes of CIFAR-10H on its test images."""
    arrays = torchvision_set("CIFAR10", folder)
    votes = np.load(archive(VOTES_URL, folder), allow_pickle=False)
    return arrays | {"test_label_counts": votes.astype(np.int64)}


def cifar100(folder: Path) -> dict[str, Any]:
    """CIFAR-100 with its superclasses."""
    arrays = torchvision_set("CIFAR100", folder)  # which checks the MD5 of the files
    for part in ("train", "test"):
        with (folder / "cifar-100-python" / part).open("rb") as file:
            batch = pickle.load(file, encoding="latin1")
        arrays[f"{part}_superclass_labels"] = np.array(batch["coarse_labels"], np.int64)
    return arrays
