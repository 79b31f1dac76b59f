"""States of runs in training, written after epochs, and locks of runs."""

import hashlib
import io
import json
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import torch
from filelock import FileLock, Timeout

from .errors import InputError
from .provenance import provenance
from .run import Run, require_key, run_of
from .store import Store

SECONDS = 20.0  # between two states of a stack; the clock decides when one is written, never what is trained
_CONDITIONS = (  # under which a state goes on to the same bits
    "threads", "simd", "isa", "processor", "torch", "device", "precision", "cuda", "cudnn", "compiled"
)  # fmt: skip


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
