"""What the papers print: every value that the study quotes stands in `paper_values.json`, with its source.

A quote belongs to a claim and is shown beside its verdict; a table is a paper's, copied row by row, slips included.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from lsr_core.errors import require

NOTHING = "–"
_FILE = Path(__file__).with_suffix(".json")


@cache
def _content() -> dict[str, list[dict[str, Any]]]:
    return json.loads(_FILE.read_text(encoding="utf-8"))


@cache
def quotes() -> dict[str, str]:
    """Every quote by its claim: what the paper prints, and where in parentheses."""
    return {q["id"]: f"{q['text']} ({q['place']})" if q["place"] else q["text"] for q in _content()["quotes"]}


def quote(claim: str) -> str:
    """What is printed beside a claim, by its identifier with or without the setting; a dash where no paper speaks."""
    return quotes().get(claim.partition("-")[0], NOTHING)


def table(paper: str, place: str) -> pd.DataFrame:
    """A paper's table by its key in the bibliography, as `table("yuan2020revisiting", "Table 9")`; accuracies in %.

    Raises `InputError` for a table that is not there.
    """
    tables = {(t["paper"], t["place"]): t for t in _content()["tables"]}
    known = "; ".join(", ".join(source) for source in tables)
    require((paper, place) in tables, f"no printed table {place!r} of {paper!r}; there are {known}")
    found = tables[paper, place]
    return pd.DataFrame(found["rows"], columns=found["columns"])
