"""The store: records of finished runs, weights that teach, states of runs in training, and locks of runs."""

import hashlib
import io
import json
import math
import platform
import re
import secrets
import subprocess
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy
import scipy
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .data import dataset
from .errors import InputError, require
from .files import is_key
from .remote import Remote, files_of
from .run import NUMERICS, Run, key_of, require_key, run_of

COLLAPSED = 3.0  # standard errors above the most frequent class
SECONDS = 20.0  # between two states of a stack; the clock decides when one is written, never what is trained
_FORMER_NAMES = {"made": "provenance", "planes": "projection"}  # in records of earlier versions
_CONDITIONS = (  # under which a state goes on to the same bits
    "threads", "simd", "isa", "processor", "torch", "device", "precision", "cuda", "cudnn", "compiled"
)  # fmt: skip


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
        """The tensors of a network; a damaged file is removed, and raises `InputError`."""
        path = self.weights_path(key, epoch)
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


class Checkpoint:
    """The state of a stack of runs after an epoch; it is removed when the runs are finished.

    The file is one line of JSON (the runs, their provenance, a checksum of the rest), then tensors as torch writes
    them.
    """

    def __init__(self, store: Store, runs: Sequence[Run]) -> None:
        self.runs, self.resumed = tuple(runs), False
        self._store, self._last = store, time.monotonic()
        name = hashlib.sha256(" ".join(run.key for run in runs).encode()).hexdigest()[:20]
        self.path = store.folder / "checkpoints" / f"{name}.state"

    def is_due(self) -> bool:
        """Whether it is time to write a state again."""
        return time.monotonic() - self._last >= SECONDS

    def save(self, state: dict[str, Any], conditions: dict[str, Any]) -> None:
        """Keep a state and the conditions of its training; raises `InputError` where that cannot be done."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        head = {
            "runs": [run.canonical() for run in self.runs],
            "provenance": {**provenance(), **conditions},
            "checksum": hashlib.sha256(content).hexdigest(),
        }
        with self._store.writing():
            self._store.files.write(self.path, json.dumps(head).encode() + b"\n" + content)
        self._last = time.monotonic()

    def load(self, conditions: dict[str, Any]) -> dict[str, Any] | None:
        """The last state, or None; warns where it comes from other conditions, or cannot be used."""
        usable = _usable(self._store, self.path)
        if usable is None:
            return None
        (head, content), now = usable, {**provenance(), **conditions}
        for name in _CONDITIONS:
            before = head["provenance"].get(name)
            if before != now.get(name):
                begun = f"{len(self.runs)} runs were begun with {name} {before} and go on with {now.get(name)}"
                warnings.warn(f"{begun}; their last digits may differ from those of an undisturbed run", stacklevel=2)
        self.resumed = True
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)

    def remove(self) -> None:
        """Delete the state."""
        self._store.files.remove(self.path)


def unfinished(store: Store) -> list[Checkpoint]:
    """The states that stopped processes left; a damaged one is removed, and its runs start again.

    One whose data set is gone or has changed is left aside, with a warning that names both.
    """
    found = []
    for path in sorted(store.files.find("checkpoints/*.state")):
        state = _usable(store, path)
        try:
            runs = [run_of(run) for run in state[0]["runs"]] if state else []
        except InputError as error:  # such as images that are gone or changed
            warnings.warn(f"checkpoint {path} is left aside: {error}", stacklevel=2)
            continue
        if runs:
            found.append(Checkpoint(store, runs))
    return found


def _usable(store: Store, path: Path) -> tuple[dict[str, Any], bytes] | None:
    """The first line of a state and its tensors; None where there is no state, or none that can be used."""
    try:
        line, content = store.files.read(path).split(b"\n", 1)
        head = json.loads(line)
        is_sound = head["checksum"] == hashlib.sha256(content).hexdigest()
        is_own = head["provenance"]["sources"] == provenance()["sources"]
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        is_sound = is_own = False
    if is_sound and is_own:
        return head, content
    store.files.remove(path)
    reason = "was made by another version of lsr_core" if is_sound else "is damaged (cut short or changed)"
    warnings.warn(f"checkpoint {path} {reason} and is removed; its runs start again", stacklevel=3)
    return None


class RunLocks:
    """The runs that this process has locked; the system releases them when the process dies."""

    def __init__(self, store: Store) -> None:
        self._store, self._locks = store, dict[str, FileLock]()

    def lock(self, key: str) -> bool:
        """Lock a run; False where another process has it. Raises `InputError` where the store cannot be written."""
        path = self._store.folder / "locks" / f"{require_key(key)}.lock"
        with self._store.writing(), suppress(Timeout):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            lock.acquire(blocking=False)
            self._locks[key] = lock
            return True
        return False

    def release(self, key: str) -> None:
        """Delete the lock file, then release; waiters check again whether the run is done."""
        lock = self._locks.pop(key)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._locks):
            self.release(key)


@cache
def provenance() -> dict[str, Any]:
    """Hardware, versions and sources that a run is trained with; the commit where the package is as committed.

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


def hardware(device: torch.device) -> dict[str, str | int]:
    """What a device is called in records; of a GPU also the versions of what drives it."""
    if device.type != "cuda":
        return {"device": device.type}
    versions = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {"device": torch.cuda.get_device_name(device), **versions}


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
        git("ls-files", "--error-unmatch", Path(__file__).name)  # another repository may hold the environment
        return None if git("status", "--porcelain", ".") else git("rev-parse", "HEAD")
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
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:(.*)$", info.read_text(encoding="utf-8") if info.exists() else "", re.MULTILINE)
    return found[1].strip() if found else platform.processor()
