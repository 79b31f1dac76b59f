"""The store: records of finished runs, and weights that teach."""

import hashlib
import json
import math
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .data import dataset
from .errors import InputError, require
from .files import is_key
from .remote import Remote, files_of
from .run import NUMERICS, key_of, require_key

COLLAPSED = 3.0  # standard errors above the most frequent class
_FORMER_NAMES = {"made": "provenance", "planes": "projection"}  # in records of earlier versions


@dataclass(frozen=True)
class Record:
    """What is kept of one finished run: its canonical form, what it measured, and its provenance.

    Accuracies and ECE are fractions, likelihoods and divergences nats, `seconds` the run's share of its stack's time,
    `projection` rows (x, y, class) of features.
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

    @property
    def failure(self) -> str | None:
        """Why the run counts as failed: `diverged` where it is not finite, `collapsed`, or None.

        Collapsed is a network that at its last epoch does no better on its training examples than their most frequent
        class, within three binomial standard errors.
        """
        accuracy = self.metrics.get("train_accuracy", 1.0)  # a metric that could not be measured condemns no run
        if self.diverged_at is not None or accuracy is None:
            return "diverged"
        data = self.run["data"]
        share = self.metrics.get("train_majority") or 1 / dataset(data["name"]).classes  # of records without it
        error = math.sqrt(share * (1 - share) / data["train"])
        return "collapsed" if accuracy <= share + COLLAPSED * error else None


class Store:
    """A folder of records, one JSON file each, named by the run's key, and of weights that teach.

    An address such as `s3://bucket/name` is one, too. Writing is atomic; a damaged record is reported, never used and
    never overwritten.
    """

    def __init__(self, place: Path | str | None = None) -> None:
        self.files = files_of(place)

    @property
    def folder(self) -> Path:
        """The folder itself, or this machine's cache of an address."""
        return self.files.path

    @property
    def place(self) -> str:
        """The folder or address by name."""
        return self.files.name

    def __contains__(self, key: str) -> bool:
        return is_key(key) and self.files.has(self.record_path(key))

    def keys(self) -> list[str]:
        """The keys of all records, sorted."""
        found = self.files.find("??/*.json")
        return sorted(path.stem for path in found if is_key(path.stem) and path == self.record_path(path.stem))

    def present(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys that have a record; an address is asked once for all of them."""
        there = set(self.keys()) if isinstance(self.files, Remote) else self
        return {key for key in keys if key in there}

    def get(self, key: str) -> Record:
        """The record of a key; raises `InputError` where there is none, or a damaged one."""
        path, message = self.record_path(key), f"there is no record {key!r} in {self.place}"
        require(self.files.has(path), message)
        record = _record_of(key, self.files.kept(path, lambda content: _record_of(key, content) is not None))
        remedy = f"remove it with `lsr runs rm {key}`, and the run will be trained again when it is needed"
        require(record is not None, f"record {path} is damaged (cut short or edited); {remedy}")
        return record

    def put(self, record: Record) -> None:
        """Keep a record; raises `InputError` where the folder cannot be written."""
        content = vars(record)
        with self.writing():
            checked = json.dumps({**content, "checksum": _checksum(content)})
            self.files.keep(self.record_path(record.key), checked.encode())

    def check_numerics(self) -> None:
        """Raise `InputError` where the folder has records of other numerics: its runs would not be found again."""
        others = {record.run.get("numerics") for record in self} - {NUMERICS}
        have = f"{self.place} has records of numerics {', '.join(map(str, others))}, and this version makes {NUMERICS}"
        require(not others, f"{have}; set LSR_STORE to another folder, or take the version that made them")

    def check_writable(self) -> None:
        """Raise `InputError` unless records can be written here."""
        with self.writing():
            self.files.check_writable()

    def mark(self) -> bytes:
        """What tells the store from a folder of the same name on another machine: drawn when it is first asked for."""
        with self.writing():
            if not self.files.has(self._mark):
                self.files.keep(self._mark, secrets.token_hex(8).encode())
            return self.files.read(self._mark)

    def has_mark(self, mark: bytes) -> bool:
        """Whether this is the store that drew it."""
        return self.files.has(self._mark) and self.files.read(self._mark) == mark

    def remove(self, key: str) -> None:
        """Delete the record of a key, damaged or not; raises `InputError` where there is none."""
        require(key in self, f"there is no record {key!r} in {self.place}")
        self.files.remove(self.record_path(key))

    def matching(self, prefix: str) -> list[str]:
        """The keys that begin with `prefix`; raises `InputError` where none does."""
        found = [key for key in self.keys() if prefix and key.startswith(prefix)]
        require(bool(found), f"no record's key begins with {prefix!r} in {self.place}; `lsr runs list` shows the keys")
        return found

    def record_path(self, key: str) -> Path:
        """The file of a record, whether it is there or not."""
        return self.folder / require_key(key)[:2] / f"{key}.json"

    def weights_path(self, key: str, epoch: int) -> Path:
        """The safetensors file of a run's network after an epoch; missing weights can be trained again."""
        return self.folder / "weights" / require_key(key)[:2] / f"{key}-{epoch}.safetensors"

    def has_weights(self, key: str, epoch: int) -> bool:
        """Whether a run's network after an epoch was kept."""
        return self.files.has(self.weights_path(key, epoch))

    def put_weights(self, key: str, epoch: int, tensors: dict[str, Tensor]) -> None:
        """Keep a network; raises `InputError` where the folder cannot be written."""
        content = {name: tensor.contiguous() for name, tensor in tensors.items()}
        with self.writing():
            path, checksum = self.weights_path(key, epoch), _checksum_of_tensors(content)
            self.files.keep(path, save(content, {"checksum": checksum}))

    def weights(self, key: str, epoch: int) -> dict[str, Tensor]:
        """The tensors of a network; raises `InputError` where there are none, or damaged ones, which are removed."""
        path = self.weights_path(key, epoch)
        require(self.files.has(path), f"there are no weights of run {key} after epoch {epoch} in {self.place}")
        tensors = _tensors_of(self.files.kept(path, lambda content: _tensors_of(content) is not None))
        if tensors is None:
            self.files.remove(path)
            raise InputError(f"weights {path} were damaged and are removed; the same command trains them again")
        return tensors

    def remove_weights(self, key: str, epoch: int) -> None:
        """Delete a network, if it is there."""
        self.files.remove(self.weights_path(key, epoch))

    def __iter__(self) -> Iterator[Record]:
        return (self.get(key) for key in self.keys())

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Raise `InputError` where what is done meanwhile cannot write here, or fills the disk."""
        try:
            yield
        except OSError as error:
            fact = f"results folder {self.place} cannot be written ({error.strerror}); finished runs are kept"
            raise InputError(f"{fact}; make room there, or set LSR_STORE to a folder of yours") from None

    @property
    def _mark(self) -> Path:
        return self.folder / "mark"


def _record_of(key: str, content: bytes) -> Record | None:
    """The record of a key in the content of its file; None where that is damaged."""
    try:
        values = json.loads(content)
        checksum = values.pop("checksum")
        record = Record(**{_FORMER_NAMES.get(name, name): value for name, value in values.items()})
        return record if checksum == _checksum(values) and record.key == key else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _tensors_of(content: bytes) -> dict[str, Tensor] | None:
    """The tensors in the content of a file of weights; None where that is damaged."""
    try:
        tensors = load(content)
        return tensors if _checksum_of_tensors(tensors).encode() in content else None
    except (SafetensorError, ValueError):
        return None


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _checksum_of_tensors(tensors: dict[str, Tensor]) -> str:
    state = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        state.update(f"{name}{tensor.dtype}{list(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return state.hexdigest()
