"""The sentences of the papers' abstracts in `abstracts.toml`: the claims that test each, their words, and what is left.

A sentence is paraphrased; the words are read off the judgements, so that they follow the records.
"""

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from .claims import UNTESTED
from .judging import Judgement

_FILE = Path(__file__).with_suffix(".toml")
ABSTRACTS: list[dict[str, Any]] = tomllib.loads(_FILE.read_text(encoding="utf-8"))["abstracts"]
NOT_TESTED = "not tested"
_REASONS = {entry["id"]: f"{NOT_TESTED}: {entry['reason']}" for entry in UNTESTED}


def sentences(judgements: Iterable[Judgement]) -> pd.DataFrame:
    """A row a sentence: the claims that test it, their words, each linked to its chapter, and what no claim tests."""
    words = defaultdict(list)
    for judgement in judgements:
        words[judgement.claim.id.partition("-")[0]].append(judgement)
    rows = [
        {
            "abstract": abstract["name"],
            "what it says": sentence["text"],
            "claims and their words": _words(sentence["claims"], words),
            "not tested": sentence["untested"],
        }
        for abstract in ABSTRACTS
        for sentence in abstract["sentences"]
    ]
    return pd.DataFrame(rows).set_index("abstract")


def _words(claims: Sequence[str], judged: Mapping[str, Sequence[Judgement]]) -> Markup:
    """The claims of a sentence, a line each."""
    lines = [_line(claim, judged.get(claim, ())) for claim in claims]
    return Markup("<br>").join(lines) or Markup("no claim")


def _line(claim: str, judgements: Sequence[Judgement]) -> Markup:
    """A claim's words in every setting and preset where it is judged."""
    if not judgements:
        return Markup("{}: {}").format(claim, _REASONS.get(claim, NOT_TESTED))
    link = Markup('<a class="claim" href="{}.html">{}</a>: {} ({})')
    found = [link.format(j.claim.chapter, j.claim.id, j.verdict, j.preset) for j in judgements]
    return Markup(", ").join(found)
