"""What the papers claim, and the verdict on each."""

from ..identities import IDENTITIES
from .aggregates import verify_verdicts, write_verdicts
from .claim import MULLER, NEIGHBOURS, OWN, SHEN, WANG, YUAN, ZHANG, Claim
from .desktop import DESKTOP
from .judging import (
    PUBLISHED,
    Judgement,
    arms_of,
    board,
    collect,
    format_p,
    in_both,
    judge,
    judge_identities,
    judge_published,
    side_by_side,
    summary,
)
from .quick import CLAIMS, STAGES, UNTESTED, Untested

__all__ = [
    "CLAIMS",
    "DESKTOP",
    "IDENTITIES",
    "MULLER",
    "NEIGHBOURS",
    "OWN",
    "PUBLISHED",
    "SHEN",
    "STAGES",
    "UNTESTED",
    "WANG",
    "YUAN",
    "ZHANG",
    "Claim",
    "Judgement",
    "Untested",
    "arms_of",
    "board",
    "collect",
    "format_p",
    "in_both",
    "judge",
    "judge_identities",
    "judge_published",
    "side_by_side",
    "summary",
    "verify_verdicts",
    "write_verdicts",
]
