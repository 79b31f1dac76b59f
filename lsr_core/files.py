"""Atomic writes, names of files, the files of a folder, and the folders of a user's cache."""

import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import require


def is_key(text: object) -> bool:
    """Whether this can be a run's key: 20 hexadecimal digits, and no path."""
    return isinstance(text, str) and re.fullmatch("[0-9a-f]{20}", text) is not None


def cache_folder(variable: str, name: str) -> Path:
    """The folder that an environment variable names, or one of this name in the user's cache, as an absolute path.

    Raises `InputError` where a home folder is needed and there is none.
    """
    given = os.environ.get(variable)
    named = Path(given or os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        folder = named.expanduser()
        homeless = os.environ.get("HOME") == "" and named.parts[0] == "~"
    except RuntimeError:
        homeless = True
    require(not homeless, f"there is no home folder; set {variable} to a folder of yours")
    return folder.absolute() if given else folder.absolute() / "lsr_core" / name


@contextmanager
def whole_file(path: Path, *, sync: bool = False) -> Iterator[BinaryIO]:
    """Open a file that is written beside its place and renamed at the end: no reader and no crash ever sees a part.

    With `sync` it survives a loss of power.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")  # processes of two machines may have one number
    try:
        with part.open("wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes, *, sync: bool = False) -> None:
    """Write a file at once, as `whole_file` does."""
    with whole_file(path, sync=sync) as file:
        file.write(content)


class Folder:
    """The files of a folder that every process which works on them sees.

    `keep` is for files whose content never changes; the others are written again and again.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)

    def has(self, path: Path) -> bool:
        """Whether there is a file that was kept."""
        return path.exists()

    def keep(self, path: Path, content: bytes) -> None:
        """Write a file whose content never changes."""
        write_whole(path, content)

    def kept(self, path: Path, is_sound: Callable[[bytes], bool]) -> bytes:  # noqa: ARG002
        """The content of a file that was kept; what is not sound is the same when it is read again."""
        return path.read_bytes()

    def write(self, path: Path, content: bytes) -> None:
        """Write a file so that it survives a loss of power."""
        write_whole(path, content, sync=True)

    def read(self, path: Path) -> bytes:
        """The content that a file has now; raises `FileNotFoundError` where there is none."""
        return path.read_bytes()

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there, and what crashed writers left beside it."""
        for left in (path, *path.parent.glob(f"{path.name}.*.part")):
            left.unlink(missing_ok=True)

    def find(self, pattern: str) -> Iterable[Path]:
        """The files that match a pattern of names within one folder."""
        return self.path.glob(pattern)

    def check_writable(self) -> None:
        """Raise `OSError` unless files can be written here."""
        self.path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=self.path).close()
