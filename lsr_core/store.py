"""The store: a folder with one JSON file for every finished run, named by the run's key."""

import hashlib
import json
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import scipy
import torch

from .errors import InputError, require
from .files import cache_folder, write_whole
from .run import NUMERICS, is_key, key_of, require_key

_SUFFIX = ".json"


@dataclass(frozen=True)
class Record:
    """What is kept of one finished run: its canonical form, what it measured, and where and how it was made.

    Accuracies, ECE are fractions, likelihoods and divergences nats, `seconds` the run's share of its stack's time,
    `projection` rows (x, y, class) of features that are drawn.
    """

    run: dict[str, Any]
    metrics: dict[str, float | None]
    curves: dict[str, list[float | None]]
    diverged_at: int | None
    seconds: float
    provenance: dict[str, Any]
    projection: dict[str, list[list[float]]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return key_of(self.run)


class Store:
    """Records in a folder. Writing is atomic; a damaged record is reported, never used and never overwritten."""

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = Path(folder) if folder is not None else default_folder()

    def __contains__(self, key: str) -> bool:
        return is_key(key) and self._path(key).exists()

    def keys(self) -> list[str]:
        """The keys of all records, sorted."""
        found = self.folder.glob(f"??/*{_SUFFIX}")
        return sorted(path.stem for path in found if is_key(path.stem) and path == self._path(path.stem))

    def get(self, key: str) -> Record:
        """The record of a key; raises `InputError` where there is none, or a damaged one."""
        path = self._path(key)
        require(path.exists(), f"there is no record {key!r} in {self.folder}")
        try:
            content = json.loads(path.read_text())
            checksum = content.pop("checksum")
            record = Record(**content)
            sound = checksum == _checksum(content) and record.key == path.stem
        except (ValueError, TypeError, KeyError, AttributeError):
            sound = False
        if not sound:
            raise InputError(
                f"record {path} is damaged (cut short or edited); remove it with `lsr runs rm {path.stem}`, "
                "and the run will be trained again when it is needed"
            )
        return record

    def put(self, record: Record) -> None:
        """Keep a record; raises `InputError` where the folder cannot be written."""
        content = asdict(record)
        path = self._path(record.key)
        try:
            write_whole(path, json.dumps({**content, "checksum": _checksum(content)}).encode())
        except OSError as error:
            raise self.unwritable(error) from None

    def check_writable(self) -> None:
        """Raise `InputError` unless records can be written here."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise self.unwritable(error) from None

    def remove(self, key: str) -> None:
        """Delete the record of a key, damaged or not; raises `InputError` where there is none."""
        require(key in self, f"there is no record {key!r} in {self.folder}")
        self._path(key).unlink()

    def matching(self, prefix: str) -> list[str]:
        """The keys that begin with `prefix`; raises `InputError` where none does."""
        found = [key for key in self.keys() if prefix and key.startswith(prefix)]
        require(bool(found), f"no record's key begins with {prefix!r} in {self.folder}; `lsr runs list` shows the keys")
        return found

    def __iter__(self) -> Iterator[Record]:
        return (self.get(key) for key in self.keys())

    def unwritable(self, error: OSError) -> InputError:
        """What is raised where nothing can be written here, or the disk is full."""
        return InputError(
            f"results folder {self.folder} cannot be written ({error.strerror}); finished runs are kept; "
            "make room there, or set LSR_STORE to a folder of yours"
        )

    def _path(self, key: str) -> Path:
        return self.folder / require_key(key)[:2] / (key + _SUFFIX)


def default_folder() -> Path:
    """`LSR_STORE`, or a folder in the user's cache."""
    return cache_folder("LSR_STORE", "records")


@cache
def provenance() -> dict[str, Any]:
    """Hardware, versions and sources that a record was made with; the commit where the tree is clean.

    `simd` is what torch's own kernels use, `isa` what the libraries for products and convolutions find.
    """
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "machine": platform.machine(),
        "processor": _processor(),
        "simd": torch.backends.cpu.get_cpu_capability(),
        "isa": _instruction_set(),
        "numerics": NUMERICS,
        "sources": _sources_hash(),
        "commit": _clean_commit(),
    }


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sources_hash() -> str:
    state = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        state.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return state.hexdigest()[:16]


def _clean_commit() -> str | None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return None if git("status", "--porcelain") else git("rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return None


def _instruction_set() -> str:
    """The widest of a processor's instruction sets that matrix products are written for."""
    offered = {
        "AMX": torch.cpu._is_amx_tile_supported,
        "AVX512": torch.cpu._is_avx512_supported,
        "AVX2": torch.cpu._is_avx2_supported,
    }
    return next((name for name, is_there in offered.items() if is_there()), "other")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
