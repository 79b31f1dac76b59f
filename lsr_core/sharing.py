"""Who trains what: several processes share one store, and a run that one has claimed is left alone by the others."""

from pathlib import Path
from typing import Self

from ._locks import FileLock, Timeout
from .run import require_key
from .store import Store


class Claims:
    """The runs that this process has claimed; the system itself gives them back when the process dies."""

    def __init__(self, store: Store) -> None:
        self._store, self._locks = store, dict[str, FileLock]()

    def take(self, key: str) -> bool:
        """Claim a run; False where another process has it. Raises `InputError` where the store cannot be written."""
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            lock.acquire(blocking=False)
        except Timeout:
            return False
        except OSError as error:
            raise self._store.unwritable(error) from None
        self._locks[key] = lock
        return True

    def release(self, key: str) -> None:
        """Give a run back, and remove its file: who waits at it notices, and looks again."""
        self._path(key).unlink(missing_ok=True)
        self._locks.pop(key).release()

    def _path(self, key: str) -> Path:
        return self._store.folder / "claims" / f"{require_key(key)}.lock"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._locks):
            self.release(key)
