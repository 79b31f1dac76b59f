"""What the store keeps beside records: weights of runs that teach, and states of stacks in training."""

import hashlib
import io
import json
import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .errors import InputError
from .files import remove_with_parts, write_whole
from .run import Run, require_key, run_of
from .store import Store, provenance

SECONDS = 20.0  # between two states of a stack; the clock decides when one is written, never what is trained


class Weights:
    """Networks after an epoch of a run, one safetensors file each; whatever is missing can be trained again."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def path(self, key: str, epoch: int) -> Path:
        """The file of a run's weights after an epoch."""
        return self._store.folder / "weights" / require_key(key)[:2] / f"{key}-{epoch}.safetensors"

    def put(self, key: str, epoch: int, tensors: dict[str, Tensor]) -> None:
        """Keep the weights; raises `InputError` where the folder cannot be written."""
        content = {name: tensor.contiguous() for name, tensor in tensors.items()}
        try:
            write_whole(self.path(key, epoch), save(content, {"checksum": _checksum(content)}))
        except OSError as error:
            raise self._store.unwritable(error) from None

    def get(self, key: str, epoch: int) -> dict[str, Tensor]:
        """The weights; a damaged file is removed, and raises `InputError`."""
        path = self.path(key, epoch)
        content = path.read_bytes()
        try:
            tensors = load(content)
            sound = _checksum(tensors).encode() in content
        except (SafetensorError, ValueError):
            sound = False
        if not sound:
            path.unlink()
            raise InputError(f"weights {path} were damaged and are removed; the same command trains them again")
        return tensors


class OutOfTime(Exception):
    """The deadline has passed; what was begun is kept and goes on next time."""


class Checkpoint:
    """The state of a stack of runs in training; it is removed when the runs are finished.

    The file is one line of JSON (what is trained, how, a checksum of the rest), then tensors as torch writes them.
    """

    def __init__(self, store: Store, runs: Sequence[Run], deadline: float = math.inf) -> None:
        self.runs, self.resumed = tuple(runs), False
        self._store, self._last, self._deadline = store, time.monotonic(), deadline
        name = hashlib.sha256(" ".join(run.key for run in runs).encode()).hexdigest()[:20]
        self.path = _folder(store) / f"{name}.state"

    def is_due(self) -> bool:
        """Whether it is time to write a state again, or the last one."""
        now = time.monotonic()
        return now - self._last >= SECONDS or now >= self._deadline

    def save(self, state: dict[str, Any], threads: int) -> None:
        """Keep a state; raises `InputError` where that cannot be done, `OutOfTime` after the last one."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        head = {
            "runs": [run.canonical() for run in self.runs],
            "provenance": {**provenance(), "threads": threads},
            "checksum": hashlib.sha256(content).hexdigest(),
        }
        try:
            write_whole(self.path, json.dumps(head).encode() + b"\n" + content, sync=True)
        except OSError as error:
            raise self._store.unwritable(error) from None
        self._last = time.monotonic()
        if self._last >= self._deadline:
            raise OutOfTime

    def load(self, threads: int) -> dict[str, Any] | None:
        """The last state, or None; says so where it was made under other conditions, or cannot be used."""
        head = _head(self.path)
        if head is None:
            return None
        content = self.path.read_bytes().split(b"\n", 1)[1]
        if hashlib.sha256(content).hexdigest() != head["checksum"]:
            _discard(self.path, _DAMAGED)
            return None
        for name, now in {**provenance(), "threads": threads}.items():
            before = head["provenance"].get(name)
            if name in ("threads", "simd", "isa", "processor", "torch") and before != now:
                warnings.warn(
                    f"{len(self.runs)} runs were begun with {name} {before} and go on with {now}; their last digits "
                    "may differ from those of an undisturbed run",
                    stacklevel=2,
                )
        self.resumed = True
        return torch.load(io.BytesIO(content), weights_only=True)

    def remove(self) -> None:
        """Forget the state."""
        remove_with_parts(self.path)


def unfinished(store: Store, deadline: float = math.inf) -> list[Checkpoint]:
    """The states that stopped processes left. One that is of no use any more is removed, and its runs start again."""
    heads = [_head(path) for path in sorted(_folder(store).glob("*.state"))]
    return [Checkpoint(store, [run_of(run) for run in head["runs"]], deadline) for head in heads if head is not None]


_DAMAGED = "is damaged (cut short or changed)"


def _head(path: Path) -> dict[str, Any] | None:
    """The first line of a state; None where there is none, or none that could be used."""
    try:
        with path.open("rb") as file:
            head = json.loads(file.readline())
        usable = head["provenance"]["sources"] == provenance()["sources"]
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        _discard(path, _DAMAGED)
        return None
    if not usable:
        _discard(path, "was made by another version of lsr_core")
    return head if usable else None


def _discard(path: Path, reason: str) -> None:
    remove_with_parts(path)
    warnings.warn(f"checkpoint {path} {reason} and is removed; its runs start again", stacklevel=3)


def _folder(store: Store) -> Path:
    return store.folder / "checkpoints"


def _checksum(tensors: dict[str, Tensor]) -> str:
    state = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        state.update(f"{name}{tensor.dtype}{list(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return state.hexdigest()
