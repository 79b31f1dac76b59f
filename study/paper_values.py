"""What the papers print: every value that the study quotes stands in `paper_values.json`, with its source.

A quote belongs to a claim and is shown beside its verdict; a table is a paper's, copied row by row, slips included.
"""

import json
from pathlib import Path

import pandas as pd

from lsr_core.errors import require

NOTHING = "–"
_CONTENT = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
# By claim: what the paper prints, and where in parentheses.
QUOTES = {q["id"]: f"{q['text']} ({q['place']})" if q["place"] else q["text"] for q in _CONTENT["quotes"]}


def quote(claim: str) -> str:
    """What is printed beside a claim, by its identifier with or without the setting; a dash where no paper speaks."""
    return QUOTES.get(claim.partition("-")[0], NOTHING)


def table(paper: str, place: str) -> pd.DataFrame:
    """A paper's table by its key in the bibliography, as `table("yuan2020revisiting", "Table 9")`; accuracies in %.

    Raises `InputError` for a table that is not there.
    """
    tables = {(t["paper"], t["place"]): t for t in _CONTENT["tables"]}
    known = "; ".join(", ".join(source) for source in tables)
    require((paper, place) in tables, f"no printed table {place!r} of {paper!r}; there are {known}")
    found = tables[paper, place]
    return pd.DataFrame(found["rows"], columns=found["columns"])
