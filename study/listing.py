"""A list of a store's records that opens each of them once: summaries are kept beside them, in one file."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lsr_core.errors import InputError
from lsr_core.files import is_key, write_whole
from lsr_core.remote import Remote, files_of

Row = dict[str, Any]


def folder() -> Path:
    """The store's folder, or this machine's cache of its address."""
    return files_of().path


def summaries() -> list[Row]:
    """A row a record, sorted by key: what it is, and what came out; of a damaged one, what is wrong with it."""
    files = files_of()
    if isinstance(files, Remote):
        for path in files.find("??/*.json"):
            files.kept(path, bool)
    index = files.path / "index.json"
    known = _read(index)
    rows = {key: _summary(key, stamp, known.get(key)) for key, stamp in sorted(_stamps())}
    kept = {key: row for key, row in rows.items() if "damaged" not in row}
    if kept != known:
        with suppress(OSError):  # a store that is only read has no index
            write_whole(index, json.dumps(kept).encode())
    return [{name: value for name, value in row.items() if name != "stamp"} for row in rows.values()]


def _read(index: Path) -> dict[str, Row]:
    try:
        return json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _stamps() -> Iterator[tuple[str, list[int]]]:
    """The key of each record with the time and size of its file."""
    for part in folder().glob("??"):
        for entry in os.scandir(part):
            key, _, ending = entry.name.partition(".")
            if ending == "json" and is_key(key) and key.startswith(part.name):
                yield key, [entry.stat().st_mtime_ns, entry.stat().st_size]


def _summary(key: str, stamp: list[int], known: Row | None) -> Row:
    """The row of a record, the known one where its file has not changed."""
    if known and known.get("stamp") == stamp:
        return known
    from lsr_core.store import Store

    try:
        record = Store().get(key)
    except InputError as error:
        return {"key": key, "damaged": str(error)}
    return {
        "key": key,
        "accuracy": None if record.failure else record.metrics.get("accuracy"),
        "failure": record.failure,
        "seconds": record.seconds,
        "run": record.run,
        "stamp": stamp,
    }
