"""What the papers claim, and the verdict on each.

A claim compares two arms on one metric, seed by seed, and is judged by the rule in `statistics`; its family is
paper × preset. An identity is checked in float64, in value and gradient, and is proved or refuted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from . import statistics
from .experiments import (
    DIGITS,
    MEASURES,
    MIXTURES,
    Arm,
    Results,
    Setting,
    collect,
    is_exploratory,
    preset,
    signed,
    tuned,
)
from .identities import IDENTITIES, Identity
from .records import Store
from .statistics import PROVED, REFUTED, Kind, Paired, Verdict

MULLER, WANG, OWN = "Müller 2019", "Wang 2020, 2021", "this study"


@dataclass(frozen=True)
class Claim:
    """`method` beats (or is comparable to) `control` on `metric` in `setting`; `chapter` is its notebook."""

    id: str
    paper: str
    text: str
    chapter: str
    setting: Setting
    method: str
    control: str
    metric: str = "accuracy"
    kind: Kind = "better"
    printed: str = "–"  # what the paper prints, and where

    @property
    def arms(self) -> tuple[Arm, Arm]:
        """The two tuned arms: the method and its control."""
        return tuned(self.setting, self.method), tuned(self.setting, self.control)


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
        tail = ""
        if self.verdict.word == statistics.UNDECIDED:
            tail = f"; this many seeds would have shown {d.detectable:.{measure.digits}f} with 80 % power"
        return (
            f"{self.claim.text}: {self.verdict}, {self.effect} {measure.unit}, Holm p {format_p(self.holm_p)}, "
            f"{d.n} paired seeds, preset {self.preset}{', exploratory' if self.exploratory else ''}{tail}."
        )


def _smoothing_claims() -> list[Claim]:
    return [
        Claim(
            f"{name}-{s.train}",
            MULLER,
            f"{text} ({s})",
            "label_smoothing",
            s,
            "lsr",
            "cross-entropy",
            metric,
            printed=printed,
        )
        for s in DIGITS
        for name, text, metric, printed in (
            ("B1", "LSR beats cross-entropy", "accuracy", "72.1 → 72.7 %, CIFAR-100 ResNet-56 (Table 2)"),
            ("M2a", "LSR improves calibration error", "ece", "ECE .150 → .024, CIFAR-100 ResNet-56 (Table 3)"),
            ("M2b", "LSR improves likelihood beyond one temperature", "nll_scaled", "not printed"),
        )
    ]


_UNREAD = "not known: only the abstract could be read"


def _softening_claims() -> list[Claim]:
    comparisons: tuple[tuple[str, str, str, str, Kind], ...] = (
        ("W1", "LsrKD beats LSR", "lsrkd", "lsr", "better"),
        ("W4", "teacher correction improves LsrKD", "lsrkd-tc", "lsrkd", "better"),
        ("W7", "LsrKD-TC is comparable to LSR or better", "lsrkd-tc", "lsr", "comparable or better"),
    )
    return [
        Claim(f"{name}-{s.train}", WANG, f"{text} ({s})", "lsrkd", s, method, control, kind=kind, printed=_UNREAD)
        for s in DIGITS
        for name, text, method, control, kind in comparisons
    ]


def _truth_claims() -> list[Claim]:
    bayes = {setting: setting.data.rpartition("-")[2] for setting in MIXTURES}
    return [
        Claim(f"{name}-{bayes[s]}", OWN, f"{text} (Bayes accuracy {bayes[s]} %)", "lsrkd", s, method, control, metric)
        for s in MIXTURES
        for name, text, method, control, metric in (
            ("P1", "LSR is nearer to the truth than cross-entropy", "lsr", "cross-entropy", "kl_posterior"),
            ("P2", "LSR tells more of the wrong classes than cross-entropy", "lsr", "cross-entropy", "kl_dark"),
        )
    ]


CLAIMS: tuple[Claim, ...] = (*_smoothing_claims(), *_softening_claims(), *_truth_claims())


def judge(
    seeds: Sequence[int], preset_name: str = "quick", paper: str | None = None, store: Store | None = None
) -> list[Judgement]:
    """Verdicts on all claims, or on one paper's family; missing runs are trained. Holm's p is over the family."""
    preset(preset_name)
    claims = [claim for claim in CLAIMS if paper in (None, claim.paper)]
    results = collect([arm for claim in claims for arm in claim.arms], seeds, store)
    differences = {claim: _oriented(claim, results) for claim in claims}
    summed = {claim: statistics.paired(values) for claim, values in differences.items()}
    adjusted = {}
    for family in dict.fromkeys(claim.paper for claim in claims):
        members = [claim for claim in claims if claim.paper == family]
        adjusted |= zip(members, statistics.holm([summed[claim].p for claim in members]), strict=True)
    return [
        Judgement(
            claim,
            preset_name,
            statistics.verdict(
                summed[claim],
                adjusted[claim],
                MEASURES[claim.metric].margin,
                claim.kind,
                [results.diverged(arm) for arm in claim.arms],
            ),
            summed[claim],
            adjusted[claim],
            statistics.sign_flip_p(differences[claim]),
            exploratory=is_exploratory(preset_name, seeds),
        )
        for claim in claims
    ]


def _oriented(claim: Claim, results: Results) -> np.ndarray:
    """The differences seed by seed in the metric's unit, positive where the claim says so."""
    measure, (method, control) = MEASURES[claim.metric], claim.arms
    sign = 1 if measure.higher_is_better else -1
    return sign * measure.scale * results.differences(method, control, claim.metric)


def judge_identities(chapter: str | None = None) -> list[Judgement]:
    """Verdicts on all identities, or on those of one chapter."""
    judgements = []
    for identity in IDENTITIES:
        if chapter in (None, identity.chapter):
            error = identity.error()
            word = PROVED if identity.holds(error) else REFUTED
            judgements.append(Judgement(identity, "every preset", Verdict(word), error=error))
    return judgements


def board(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """The verdict board: a row a claim."""
    rows = [
        {
            "id": j.claim.id,
            "claim": j.claim.text,
            "paper": j.claim.paper,
            "verdict": str(j.verdict),
            "preset": j.preset + (" (exploratory)" if j.exploratory else ""),
            "metric": MEASURES[j.claim.metric].change if j.differences else "value and gradient",
            "effect, 95 % interval": j.effect,
            "Holm p": format_p(j.holm_p),
            "sign-flip p": format_p(j.flip_p),
            "n": j.differences.n if j.differences else "–",
            "printed in the paper": getattr(j.claim, "printed", "–"),
            "chapter": j.claim.chapter,
        }
        for j in judgements
    ]
    return pd.DataFrame(rows).set_index("id")


def format_p(p: float | None) -> str:
    """A p value as it is printed."""
    if p is None:
        return "–"
    return "< .0001" if p < 1e-4 else f"{p:.4f}".lstrip("0") if p < 1 else "1"
