"""Verdicts on claims and identities, and how they are laid out.

A claim is judged by the rule in `statistics`; its family is paper × preset. An identity is checked in float64, in value
and gradient, and is proved or refuted.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from lsr_core import statistics
from lsr_core.statistics import PROVED, REFUTED, Paired, Verdict
from lsr_core.store import Store

from . import published_records
from .claims import CLAIMS, Claim
from .identities import IDENTITIES, Identity
from .results import MEASURES, Results, collect, signed
from .studies import QUICK, is_exploratory


@dataclass(frozen=True)
class Judgement:
    """A claim with its verdict; identities have no differences, `error` instead."""

    claim: Claim | Identity
    preset: str
    verdict: Verdict
    differences: Paired | None = None
    holm_p: float | None = None
    flip_p: float | None = None
    error: float | None = None
    exploratory: bool = False

    @property
    def effect(self) -> str:
        """Mean and 95 % interval in the metric's unit, positive where the claim says so; or the identity's error."""
        if self.differences is None:
            return self.claim.effect(self.error)
        return signed(self.differences.mean, self.differences.interval95, MEASURES[self.claim.metric].digits)

    @property
    def sentence(self) -> str:
        """The judgement in one sentence."""
        if self.differences is None:
            return f"{self.claim.text}: {self.verdict}, {self.effect}."
        d, measure = self.differences, MEASURES[self.claim.metric]
        blind = self.verdict.word == statistics.UNDECIDED and np.isfinite(d.detectable)
        power = f"; this many seeds would have shown {d.detectable:.{measure.digits}f} with 80 % power" if blind else ""
        return (
            f"{self.claim.text}: {self.verdict}, {self.effect} {measure.unit}, Holm p {format_p(self.holm_p)}, "
            f"{d.n} paired seeds, preset {self.preset}{', exploratory' if self.exploratory else ''}{power}."
        )


def judge(
    seeds: Sequence[int], paper: str | None = None, chapter: str | None = None, store: Store | None = None
) -> list[Judgement]:
    """Verdicts on all claims of the live preset, on one paper's family, or on a chapter's; missing runs are trained.

    Holm's p is over the whole family, so that a chapter trains what its families need.
    """
    members = _families(CLAIMS[QUICK.name], paper, chapter)
    results = collect([arm for claim in members for arm in claim.arms], seeds, store=store)
    return _judgements(members, results, QUICK.name, chapter, exploratory=is_exploratory(seeds))


def judge_published(preset: str, chapter: str | None = None) -> list[Judgement]:
    """Verdicts on all claims of a published preset, or on a chapter's, from its records.

    A claim whose arms lack a seed of the preset is left out, of Holm's family too.
    """
    members = _families(CLAIMS[preset], None, chapter)
    results = published_records.results(preset, [arm for claim in members for arm in claim.arms])
    members = [claim for claim in members if set(claim.arms) <= set(results.arms)]
    return _judgements(members, results, preset, chapter)


def _families(claims: Sequence[Claim], paper: str | None, chapter: str | None) -> list[Claim]:
    """The claims of a paper's family, or of every family that a chapter has a claim of."""
    families = {claim.paper for claim in claims if paper in (None, claim.paper) and chapter in (None, claim.chapter)}
    return [claim for claim in claims if claim.paper in families]


def _judgements(
    claims: Sequence[Claim], results: Results, preset: str, chapter: str | None, *, exploratory: bool = False
) -> list[Judgement]:
    """Verdicts on the claims of whole families, those of one chapter handed on."""
    summed = {claim.id: _summed(claim.values(results)) for claim in claims}
    adjusted = {}
    for family in {claim.paper for claim in claims}:
        members = [claim.id for claim in claims if claim.paper == family]
        adjusted |= zip(members, statistics.holm([summed[name][0].p for name in members]), strict=True)
    judgements = []
    for claim in claims:
        if chapter in (None, claim.chapter):
            (differences, flip_p), holm_p = summed[claim.id], adjusted[claim.id]
            margin, diverged = MEASURES[claim.metric].margin, [results.diverged(arm) for arm in claim.arms]
            verdict = statistics.verdict(differences, holm_p, margin, claim.kind, diverged)
            judgements.append(Judgement(claim, preset, verdict, differences, holm_p, flip_p, exploratory=exploratory))
    return judgements


def _summed(values: np.ndarray | Paired) -> tuple[Paired, float | None]:
    """The pairs that have the metric, summed up (n says how many), and their sign-flip p.

    A diverged run has only metrics with a chance level.
    """
    if isinstance(values, Paired):
        return values, None
    measured = values[np.isfinite(values)]
    return statistics.paired(measured), statistics.sign_flip_p(measured)


def judge_identities(chapter: str | None = None) -> list[Judgement]:
    """Verdicts on all identities, or on those of one chapter."""
    errors = {identity: identity.error() for identity in IDENTITIES if chapter in (None, identity.chapter)}
    words = {identity: PROVED if identity.holds(error) else REFUTED for identity, error in errors.items()}
    return [Judgement(i, "every preset", Verdict(words[i]), error=error) for i, error in errors.items()]


def board(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """The verdict board: a row a claim, each linked to its chapter."""
    rows = [
        {
            "id": j.claim.id,
            "claim": _linked(j.claim),
            "paper": j.claim.paper,
            "verdict": str(j.verdict),
            "preset": j.preset + (" (exploratory)" if j.exploratory else ""),
            "metric": MEASURES[j.claim.metric].change if j.differences else "value and gradient",
            "effect, 95 % interval": j.effect,
            "Holm p": format_p(j.holm_p),
            "sign-flip p": format_p(j.flip_p),
            "n": j.differences.n if j.differences else "–",
            "printed in the paper": getattr(j.claim, "printed", "–"),
        }
        for j in judgements
    ]
    return pd.DataFrame(rows).set_index("id")


def across_presets(live: Sequence[Judgement], others: Sequence[Judgement]) -> pd.DataFrame:
    """A row a claim that a published preset judges: verdicts and effects of both, the headline being the larger's."""
    smaller = defaultdict(list)
    for j in live:
        smaller[_base(j)].append(f"{j.claim.setting}: {j.verdict}, {j.effect}")
    rows = [
        {
            "id": _base(j),
            "claim": _linked(j.claim),
            live[0].preset: "; ".join(smaller[_base(j)]) or "–",
            j.preset: f"{j.verdict}, {j.effect}",
            "headline": str(j.verdict),
        }
        for j in others
    ]
    return pd.DataFrame(rows).set_index("id")


def _base(judgement: Judgement) -> str:
    """A claim's identifier without its setting."""
    return judgement.claim.id.partition("-")[0]


def _linked(claim: Claim | Identity) -> Markup:
    """A claim's text as a link to its chapter in the book."""
    return Markup('<a class="claim" href="{}.html">{}</a>').format(claim.chapter, claim.text)


def paper_vs_ours(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """A row a published claim: what the paper prints beside our means and their difference, with 95 % intervals.

    Each mean links to the first of its runs.
    """
    cells = board(judgements).rename(columns={"printed in the paper": "in the paper"})
    cells["claim"] = [Markup('<span class="claim">{}</span>').format(j.claim.text) for j in judgements]
    cells["control [95 %]"], cells["method [95 %]"] = ([_mean(j, sign) for j in judgements] for sign in (-1, 1))
    cells["difference [95 %]"] = [f"{j.effect} {MEASURES[j.claim.metric].unit}".strip() for j in judgements]
    means = ["control [95 %]", "method [95 %]", "difference [95 %]"]
    return cells[["claim", "in the paper", *means, "n", "Holm p", "verdict"]]


def _mean(judgement: Judgement, sign: int) -> Markup:
    """The mean of the method (`sign` 1) or of its control (−1) with its 95 % interval, linked to the first run."""
    claim, preset = judgement.claim, judgement.preset
    measure = MEASURES[claim.metric]
    values = measure.scale * claim.side(published_records.results(preset, claim.arms), sign)
    mean, low, high = (f"{value:.{measure.digits}f}" for value in statistics.mean_interval(values))
    text = f"{mean} [{low}, {high}]".replace("-", "−")
    return published_records.link(preset, claim.side_arms(sign)[0], text)


def summary(judgement: Judgement) -> dict[str, str | int | float | None]:
    """A judgement as plain values: effects in the metric's unit, positive where the claim says so; no bound is None."""
    d = judgement.differences
    low, high = d.interval95 if d and np.isfinite(d.interval95).all() else (None, None)
    return {
        "id": judgement.claim.id,
        "claim": judgement.claim.text,
        "paper": judgement.claim.paper,
        "verdict": str(judgement.verdict),
        "metric": judgement.claim.metric if d else None,
        "effect": judgement.effect,
        "mean": d.mean if d else None,
        "low": low,
        "high": high,
        "p": format_p(judgement.holm_p),
        "n": d.n if d else None,
        "preset": judgement.preset,
        "chapter": judgement.claim.chapter,
    }


def format_p(p: float | None) -> str:
    """A p value as it is printed."""
    if p is None:
        return "–"
    return "< .0001" if p < 1e-4 else f"{p:.4f}".lstrip("0") if p < 1 else "1"
