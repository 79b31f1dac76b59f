"""Atomic writes, names of files, and the folders of a user's cache."""

import os
import re
from collections.abc import Iterator
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
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
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


def remove_with_parts(path: Path) -> None:
    """Remove a file and what crashed writers left beside it."""
    for left in (path, *path.parent.glob(f"{path.name}.*.part")):
        left.unlink(missing_ok=True)
