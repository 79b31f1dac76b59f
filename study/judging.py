"""Verdicts on claims and identities, and how they are laid out.

A claim is judged by the rule in `statistics`; its family is paper × preset. An identity is checked in float64, in value
and gradient: it is proved where the text derives it too, checked where these numbers alone show it, or refuted.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pandas as pd
from markupsafe import Markup

from lsr_core import statistics
from lsr_core.statistics import CHECKED, PROVED, REFUTED, REPRODUCED, SUPPORTED, UNDECIDED, Paired, Verdict
from lsr_core.store import Store

from . import published_records
from .claims import CLAIMS, Claim, without_setting
from .identities import IDENTITIES, Identity
from .paper_values import quote
from .results import MEASURES, Results, collect, effect_of, signed
from .studies import QUICK, is_exploratory

_NO_BOUNDS = (-np.inf, np.inf)
NOT_TESTED = "not testable here"
_OTHER_NETWORKS = ("one-layer", "batchnorm")  # studies that judge the live preset's claims on them
_MARGINS = {"δ × ⅔": 2 / 3, "δ × 5/3": 5 / 3}  # of accuracy, .2 and .5 points instead of .3


@dataclass(frozen=True)
class Judgement:
    """A claim with its verdict; identities have no differences, `error` instead.

    `level` is that at which Holm's procedure tests the claim; `alternatives` has the word of each other way to judge.
    """

    claim: Claim | Identity
    preset: str
    verdict: Verdict
    differences: Paired | None = None
    holm_p: float | None = None
    flip_p: float | None = None
    level: float = statistics.ALPHA
    alternatives: dict[str, str] = field(default_factory=dict)
    error: float | None = None
    exploratory: bool = False

    @property
    def effect(self) -> str:
        """Mean and 95 % interval in the metric's unit, positive where the claim says so; or the identity's error."""
        if self.differences is None:
            return self.claim.effect(self.error)
        return signed(self.differences.mean, self.differences.interval95, MEASURES[self.claim.metric].digits)

    @property
    def power(self) -> float:
        """The effect that so many seeds would have shown with 80 % power, in this family, by the rule."""
        return self.differences.detectable(self.level, self.claim.margin)

    @property
    def turning(self) -> list[str]:
        """The other ways to judge that give another word."""
        return [way for way, word in self.alternatives.items() if word != self.verdict.word]

    @property
    def sentence(self) -> str:
        """The judgement in one sentence."""
        if self.differences is None:
            return f"{self.claim.text}: {self.verdict}, {self.effect}."
        d, measure = self.differences, MEASURES[self.claim.metric]
        blind = self.verdict.word == UNDECIDED and np.isfinite(d.error)
        power = f"; this many seeds would have shown {self.power:.{measure.digits}f} with 80 % power" if blind else ""
        flags = "".join(f", {flag}" for flag in self.flags)
        effect = f"{self.effect} {measure.unit}".strip()
        return (
            f"{self.claim.text}: {self.verdict}, {effect}, Holm p {format_p(self.holm_p)}, "
            f"{d.n} paired seeds, preset {self.preset}{flags}{power}."
        )

    @property
    def flags(self) -> list[str]:
        """What the board says beside the claim: exploratory too where the page was run with other seeds."""
        return list(dict.fromkeys([*self.claim.flags, *(["exploratory"] if self.exploratory else [])]))


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

    A claim whose arms lack a seed of the preset or its metric is left out, of Holm's family too.
    """
    members = _families(CLAIMS[preset], None, chapter)
    results = published_records.results(preset, [arm for claim in members for arm in claim.arms])
    members = [claim for claim in members if set(claim.arms) <= set(results.arms) and claim.is_measured(results)]
    return _judgements(members, results, preset, chapter)


def judge_all_published() -> list[Judgement]:
    """Verdicts on the claims of every published study."""
    return [judgement for preset in CLAIMS if preset != QUICK.name for judgement in judge_published(preset)]


def _families(claims: Sequence[Claim], paper: str | None, chapter: str | None) -> list[Claim]:
    """The claims of a paper's family, or of every family that a chapter has a claim of."""
    families = {claim.paper for claim in claims if paper in (None, claim.paper) and chapter in (None, claim.chapter)}
    return [claim for claim in claims if claim.paper in families]


@dataclass(frozen=True)
class _Evidence:
    """What the records say about a claim: the pairs that have its metric summed up, and each arm's failed share."""

    claim: Claim
    differences: Paired
    flip_p: float | None
    failed: tuple[float, ...]

    @classmethod
    def of(cls, claim: Claim, results: Results) -> "_Evidence":
        """From the records; a failed run has only metrics with a chance level."""
        values, failed = claim.values(results), tuple(results.failed(arm) for arm in claim.arms)
        if isinstance(values, Paired):
            return cls(claim, values, None, failed)
        measured = values[np.isfinite(values)]
        if len(measured) < 2:  # the others failed
            return cls(claim, Paired(len(measured), 0.0, _NO_BOUNDS, _NO_BOUNDS, 1.0, np.inf), None, failed)
        return cls(claim, statistics.paired(measured), statistics.sign_flip_p(measured), failed)

    def without_failed(self, results: Results) -> "_Evidence":
        """Of the pairs in which no arm failed; of all, where fewer than two are left."""
        if not any(self.failed):
            return self
        claim, sound = self.claim, results.without_failed(self.claim.arms)
        enough = len(sound.seeds(*claim.arms)) >= 2 and claim.is_measured(sound)
        return self.of(claim, sound) if enough else self


def _judgements(
    claims: Sequence[Claim], results: Results, preset: str, chapter: str | None, *, exploratory: bool = False
) -> list[Judgement]:
    """Verdicts on the claims of whole families, those of one chapter handed on."""
    evidence = [_Evidence.of(claim, results) for claim in claims]
    sound = [e.without_failed(results) for e in evidence]
    plain = _verdicts(evidence)
    ways = {
        "without failed runs": _verdicts(sound),
        "sign-flip": _verdicts(evidence, p=lambda e: e.differences.p if e.flip_p is None else e.flip_p),
        "one family": _verdicts(evidence, family=lambda _: preset),
        **{name: _verdicts(evidence, margin=factor) for name, factor in _MARGINS.items()},
    }
    judgements = []
    for e in (e for e in evidence if chapter in (None, e.claim.chapter)):
        name = e.claim.id
        alternatives = {way: _word(e.claim, verdicts) for way, verdicts in ways.items()}
        if preset == QUICK.name:
            alternatives |= on_other_networks().get((e.claim.base, *e.claim.setting), {})
        _, holm_p, level = plain[name]
        verdict = _final(e.claim, plain, ways["without failed runs"])
        if verdict.word == NOT_TESTED:
            alternatives = {}
        judgements.append(
            Judgement(
                e.claim, preset, verdict, e.differences, holm_p, e.flip_p, level, alternatives, exploratory=exploratory
            )
        )  # fmt: skip
    return judgements


@cache
def on_other_networks() -> dict[tuple[str, ...], dict[str, str]]:
    """The word on each other network, by claim and setting of the live preset's."""
    found: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for study in _OTHER_NETWORKS:
        for judgement in judge_published(study):
            claim = judgement.claim
            found[claim.base, *claim.setting][study] = judgement.verdict.word
    return dict(found)


Verdicts = dict[str, tuple[Verdict, float, float]]  # by claim, with Holm's p and the level of its test


def _verdicts(
    evidence: Sequence[_Evidence],
    family: Callable[[Claim], str] = lambda claim: claim.paper,
    p: Callable[[_Evidence], float] = lambda e: e.differences.p,
    margin: float = 1.0,
) -> Verdicts:
    """The rule's verdicts, with Holm's procedure over each family."""
    families, found = defaultdict(list), {}
    for e in evidence:
        families[family(e.claim)].append(e)
    for members in families.values():
        ps = [p(e) for e in members]
        for e, holm_p, level in zip(members, statistics.holm(ps), statistics.holm_levels(ps), strict=True):
            claim = e.claim
            verdict = statistics.verdict(e.differences, holm_p, margin * claim.margin, claim.kind, e.failed)
            found[claim.id] = (verdict, holm_p, level)
    return found


def _final(claim: Claim, plain: Verdicts, without_failed: Verdicts) -> Verdict:
    """The verdict, which no failed run decides, and none where the claim's premise does not hold."""
    verdict, *_ = plain[claim.id]
    if not all(_is_testable(claim, verdicts) for verdicts in (plain, without_failed)):
        return Verdict(NOT_TESTED, f"{claim.premise} does not hold")
    if verdict.word != without_failed[claim.id][0].word:
        return Verdict(UNDECIDED, statistics.FAILED_RUNS)
    return _worded(claim, verdict)


def _word(claim: Claim, verdicts: Verdicts) -> str:
    """The word by another way to judge, of the premise too."""
    return _worded(claim, verdicts[claim.id][0]).word if _is_testable(claim, verdicts) else NOT_TESTED


def _is_testable(claim: Claim, verdicts: Verdicts) -> bool:
    """Whether the claim's premise holds, if it has one."""
    premise = verdicts.get(claim.id.replace(claim.base, claim.premise or "", 1))
    return claim.premise is None or (premise is not None and premise[0].word == REPRODUCED)


def _worded(claim: Claim, verdict: Verdict) -> Verdict:
    """A claim that no paper makes cannot be reproduced: it is supported."""
    return Verdict(SUPPORTED, verdict.remark) if claim.own and verdict.word == REPRODUCED else verdict


def judge_identities(chapter: str | None = None) -> list[Judgement]:
    """Verdicts on all identities, or on those of one chapter."""
    errors = {identity: identity.error() for identity in IDENTITIES if chapter in (None, identity.chapter)}
    words = {i: (PROVED if i.derived else CHECKED) if i.holds(error) else REFUTED for i, error in errors.items()}
    return [Judgement(i, "every preset", Verdict(words[i]), error=error) for i, error in errors.items()]


def board(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """The verdict board: a row a claim, each linked to its chapter; and which other ways to judge turn its word."""
    rows = [
        {
            "id": j.claim.id,
            "verdict": str(j.verdict),
            "claim": _linked(j.claim),
            "effect, 95 % interval": j.effect,
            "metric": MEASURES[j.claim.metric].change if j.differences else "–",
            "n": j.differences.n if j.differences else "–",
            "Holm p": format_p(j.holm_p),
            "sign-flip p": format_p(j.flip_p),
            "turned by": ", ".join(j.turning) or ("nothing" if j.alternatives else "–"),
            "preset": j.preset + (" (exploratory)" if j.exploratory else ""),
            "paper": j.claim.paper,
            "flags": ", ".join(j.claim.flags) or "–",
            "printed in the paper": quote(j.claim.id),
        }
        for j in judgements
    ]
    return pd.DataFrame(rows).set_index("id")


def standing(judgements: Sequence[Judgement]) -> tuple[int, int]:
    """How many verdicts have the same word in every other way to judge, and how many there are."""
    judged = [j for j in judgements if j.alternatives]
    return sum(not j.turning for j in judged), len(judged)


def across_presets(live: Sequence[Judgement], others: Sequence[Judgement]) -> pd.DataFrame:
    """A row a claim that published studies judge: the words in each setting of the live preset and of each of them."""
    by_base = defaultdict(lambda: defaultdict(list))
    for j in (*live, *others):
        by_base[j.claim.base][j.preset].append(f"{j.claim.place}: {j.verdict}")
    presets = list(dict.fromkeys(j.preset for j in (*live, *others)))
    rows = [
        {
            "id": base,
            "claim": _linked(claim, without_setting(claim.text)),
            **{preset: Markup("<br>").join(by_base[base].get(preset, ["–"])) for preset in presets},
        }
        for base, claim in {j.claim.base: j.claim for j in others}.items()
    ]
    return pd.DataFrame(rows).set_index("id")


def _linked(claim: Claim | Identity, text: str | None = None) -> Markup:
    """A claim's text, or another, as a link to its chapter in the book."""
    return Markup('<a class="claim" href="{}.html">{}</a>').format(claim.chapter, text or claim.text)


def paper_vs_ours(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """A row a published claim: what the paper prints beside our means and their difference, with 95 % intervals.

    Each mean links to the first of its runs.
    """
    cells = board(judgements).rename(columns={"printed in the paper": "in the paper"})
    cells["claim"] = [Markup('<span class="claim">{}</span>').format(j.claim.text) for j in judgements]
    cells["control [95 %]"], cells["method [95 %]"] = ([_mean(j, sign) for j in judgements] for sign in (-1, 1))
    cells["difference [95 %]"] = [f"{j.effect} {MEASURES[j.claim.metric].unit}".strip() for j in judgements]
    means = ["control [95 %]", "method [95 %]", "difference [95 %]"]
    return cells[["verdict", "claim", *means, "in the paper", "n", "Holm p", "turned by"]]


def _mean(judgement: Judgement, sign: int) -> Markup:
    """The mean of the method (`sign` 1) or of its control (−1) with its 95 % interval, linked to the first run."""
    claim, preset, measure = judgement.claim, judgement.preset, MEASURES[judgement.claim.metric]
    terms = claim.side(sign)
    is_mean = round(sum(weight for weight, _ in terms), 9) == 1  # of stages, each is compared with the mean of all
    if claim.estimator is not None or not is_mean:
        return Markup("–")
    values = measure.scale * claim.sum(published_records.results(preset, claim.arms), terms)
    return published_records.link(preset, terms[0][1], effect_of(values, measure.digits).unsigned)


def summary(judgement: Judgement) -> dict[str, str | int | float | list[str] | None]:
    """A judgement as plain values: effects in the metric's unit, positive where the claim says so; no bound is None."""
    d = judgement.differences
    low, high = d.interval95 if d and np.isfinite(d.interval95).all() else (None, None)
    return {
        "id": judgement.claim.id,
        "claim": judgement.claim.text,
        "paper": judgement.claim.paper,
        "flags": judgement.flags,
        "verdict": str(judgement.verdict),
        "turned by": judgement.turning,
        "metric": judgement.claim.metric if d else None,
        "effect": judgement.effect,
        "mean": d.mean if d else None,
        "low": low,
        "high": high,
        "p": judgement.holm_p,
        "n": d.n if d else None,
        "preset": judgement.preset,
        "chapter": judgement.claim.chapter,
    }


def format_p(p: float | None) -> str:
    """A p value as it is printed."""
    if p is None:
        return "–"
    return "< .0001" if p < 1e-4 else f"{p:.4f}".lstrip("0") if p < 1 else "1"
