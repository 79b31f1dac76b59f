"""A published preset's verdicts as plain rows, kept beside its records and recomputed from them."""

import json
from math import isclose
from pathlib import Path

from lsr_core.errors import require
from lsr_core.files import write_whole

from .. import published_records
from .judging import judge_published, summary


def write_verdicts(preset: str) -> int:
    """Write the verdicts that follow from a preset's published records; returns how many there are."""
    rows = [summary(judgement) for judgement in judge_published(preset)]
    text = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    write_whole(_path(preset), f"[\n{text}\n]\n".encode())
    return len(rows)


def verify_verdicts(preset: str) -> int:
    """Judge every claim anew and compare, numbers to nine digits; returns how many there are.

    Raises `InputError` for a verdict that does not follow from the published records.
    """
    path = _path(preset)
    written = json.loads(path.read_text()) if path.exists() else []
    made = [summary(judgement) for judgement in judge_published(preset)]
    told = f"{preset}, {path.name} has {len(written)} verdicts; {len(made)} follow from the records"
    require(len(written) == len(made), told)
    for row, again in zip(written, made, strict=True):
        for name, value in again.items():
            told = (
                f"{preset}, {path.name}: {name} of {row['id']} is {row.get(name)!r}; from the records it is {value!r}"
            )
            require(_same(row.get(name), value), told)
    return len(made)


def _same(written: object, made: object) -> bool:
    if isinstance(written, float) and isinstance(made, float):
        return isclose(written, made, rel_tol=1e-9, abs_tol=1e-12)
    return written == made


def _path(preset: str) -> Path:
    return published_records.FOLDER / preset / "verdicts.json"
