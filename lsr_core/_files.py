"""Files that are whole or not there."""

import os
from pathlib import Path


def write_whole(path: Path, content: bytes, *, sync: bool = False) -> None:
    """Write a file aside and rename it, so that no reader and no crash ever sees a part; `sync` survives power loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def remove_with_parts(path: Path) -> None:
    """Remove a file and what crashed writers left beside it."""
    for left in (path, *path.parent.glob(f"{path.name}.*.part")):
        left.unlink(missing_ok=True)
