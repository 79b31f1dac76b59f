"""Every verdict of every study, recomputed from the records' JSON by code of its own, with numpy and scipy alone.

The claims say what is compared: terms, metric, kind, margin, paper, premise. All else, from what a failed run counts to
the word, is written here a second time.
"""

import json
import math
import re
import zlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from scipy import stats

from lsr_core.store import Record, Store
from study import judging, published_records
from study.claims import CLAIMS
from study.studies import STUDIES

SUMMED = ("farthest_stage", "gain_with_diversity")  # by their own ways
BOOK = Store().folder  # the store outside of tests, where `make book` keeps what it trains
FOLDER = Path(__file__).parents[1] / "results"
HIGHER = {"accuracy": 100, "similar_mass": 100}  # more is better, in points
HIGHER |= dict.fromkeys(("uncertainty", "diversity", "variance", "similar_distance", "other_distance", "bleu_beam"), 1)


def classes(data):
    mixture = re.match(r"mixture-(\d+)-", data)
    return int(mixture[1]) if mixture else {"cifar100": 100, "multi30k-de-en-short": 2000}.get(data, 10)


def has_failed(record):
    """Not finite, or within three standard errors of the most frequent class on the training examples."""
    reached = record["metrics"]["train_accuracy"]
    if record["diverged_at"] is not None or reached is None:
        return True
    data = record["run"]["data"]
    share = record["metrics"].get("train_majority") or 1 / classes(data["name"])
    return reached <= share + 3 * math.sqrt(share * (1 - share) / data["train"])


def at_chance(metric, k):
    """What a guess scores among k classes, sure of itself for the calibration error; nan where it scores nothing."""
    if metric.endswith("accuracy"):
        return 1 / k
    if metric.removesuffix("_scaled") in ("nll", "train_nll", "validation_nll", "kl_posterior"):
        return math.log(k)
    others = {"kl_dark": math.log(k - 1), "ece": 1 - 1 / k, "bleu_beam": 0.0}
    return others.get(metric.removesuffix("_scaled"), math.nan)


def name_of(estimator):
    return estimator and estimator.__name__


class Sheet:
    """The records of a study by key, and its seeds."""

    def __init__(self, records, seeds):
        self.records, self.seeds = records, seeds

    def of(self, arm):
        return [self.records[key] for key in keys(arm, tuple(self.seeds))]

    def has(self, claim):
        """Whether all arms have all seeds, and two pairs have the metric."""
        if not all(key in self.records for arm in claim.arms for key in keys(arm, tuple(self.seeds))):
            return False
        return name_of(claim.estimator) in SUMMED or len(compared(claim, self)) >= 2

    def row(self, arm, metric):
        measured = [None if has_failed(r) else r["metrics"].get(metric, math.nan) for r in self.of(arm)]
        chance = at_chance(metric, classes(arm.data))
        return np.array([chance if value is None else value for value in measured], dtype=float)

    def without_failed(self, claim):
        """Without the seeds on which an arm failed; itself where fewer than two pairs would be left."""
        lost = np.any([[has_failed(record) for record in self.of(arm)] for arm in claim.arms], axis=0)
        sound = Sheet(self.records, [seed for seed, gone in zip(self.seeds, lost, strict=True) if not gone])
        return sound if lost.any() and len(sound.seeds) >= 2 and sound.has(claim) else self


@cache
def keys(arm, seeds):
    return [arm.at(seed).key for seed in seeds]


class Summed(NamedTuple):
    """A mean with its 95 % and 90 % intervals and p, of n pairs."""

    n: int
    mean: float
    interval95: tuple[float, float]
    interval90: tuple[float, float]
    p: float

    @property
    def is_certain(self):
        return math.isfinite(self.interval90[0]) and self.interval90[0] < self.interval90[1]


def t_test(values):
    if np.ptp(values) <= 1e-9 * abs(values).max():
        return Summed(len(values), values.mean(), (-math.inf, math.inf), (-math.inf, math.inf), 1.0)
    test = stats.ttest_1samp(values, 0)
    ends = [tuple(test.confidence_interval(level)) for level in (0.95, 0.9)]
    return Summed(len(values), values.mean(), *ends, test.pvalue)


def partial_correlation(gain, diversity, *given):
    """The closed form from the inverse of the rank correlations; Fisher's intervals with the variance of ranks."""
    rows = np.array([gain, diversity, *given])
    rows = rows[:, np.isfinite(rows).all(0)]
    n, k = rows.shape[1], len(given)
    if n < k + 5:
        return Summed(n, 0.0, (-1.0, 1.0), (-1.0, 1.0), 1.0)
    inverse = np.linalg.inv(stats.spearmanr(rows, axis=1).statistic)
    rho = -inverse[0, 1] / math.sqrt(inverse[0, 0] * inverse[1, 1])
    error = math.sqrt(1.06 / (n - 3 - k))
    ends = [tuple(np.tanh(np.arctanh(rho) + error * np.array(stats.norm.interval(level)))) for level in (0.95, 0.9)]
    p = 2 * stats.norm.sf(abs(np.arctanh(rho)) / error)
    return Summed(n, rho, *ends, max(p, 2 / math.factorial(n)))


def compared(claim, sheet):
    """The pairs that have the metric: the weighted sum of the arms', or what the claim has in its place."""
    arms, row = claim.arms, sheet.row
    match name_of(claim.estimator):
        case "nearer_to_log_2":
            method, control = (abs(row(arm, "information") - math.log(2)) for arm in arms)
            values = control - method
        case "moved_apart_more":
            similar, other = (row(arms[0], m) - row(arms[1], m) for m in ("similar_distance", "other_distance"))
            values = similar - other
        case "best_over_last":
            curves = [record["curves"]["test_accuracy"] for record in sheet.of(arms[0])]
            values = np.array([100 * (max(curve) - curve[-1]) - 0.1 for curve in curves])
            values[[has_failed(record) for record in sheet.of(arms[0])]] = np.nan
        case None:
            values = HIGHER.get(claim.metric, -1) * sum(w * row(arm, claim.metric) for w, arm in claim.terms)
        case other:
            pytest.fail(f"{claim.id} has the estimator {other}, which is not written a second time here")
    return values[np.isfinite(values)]


def summed(claim, sheet):
    """The pairs summed up; of a line of students the one that may lie farthest out; of an association its ranks."""
    match name_of(claim.estimator):
        case "farthest_stage":
            students = np.array([100 * sheet.row(arm, "accuracy") for arm in claim.arms])
            stages = [t_test(student) for student in students - students.mean(axis=0)]
            ends = [max(-stage.interval90[0], stage.interval90[1]) for stage in stages]
            farthest = stages[int(np.argmax(ends))]
            return farthest._replace(p=min(1, len(stages) * farthest.p))
        case "gain_with_diversity":
            student, teacher = claim.arms
            gain = sheet.row(student, "accuracy") - sheet.row(teacher, "accuracy")
            given = [sheet.row(teacher, metric) for metric in ("diversity", "uncertainty", "accuracy")]
            return partial_correlation(gain, *given)
    return t_test(compared(claim, sheet))


def step_down(p_values):
    """Holm's adjusted p and the level of each claim in its family."""
    adjusted, levels, worst = {}, {}, 0.0
    for place, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        left = len(p_values) - place
        worst = max(worst, min(1.0, left * p))
        adjusted[name], levels[name] = worst, 0.05 / left
    return adjusted, levels


def by_the_rule(claim, found, holm_p, failed):
    """The rule's word, with its remark."""
    (low, high), mean, margin = found.interval90, found.mean, claim.margin
    inside, sure = -margin < low and high < margin, holm_p <= 0.05
    shown = sure and abs(mean) >= margin
    if failed > 0.1:
        return "undecided (failed runs)"
    if not found.is_certain:
        return "undecided (all differences equal)"
    if claim.kind == "comparable" and inside:
        return "reproduced"
    if claim.kind == "comparable or better" and low > -margin:
        return "reproduced"
    if claim.kind == "better" and inside:
        return "negligible"
    if shown and (mean < 0 or claim.kind == "comparable"):
        return "contradicted here"
    if shown and claim.kind == "better":
        return "reproduced"
    return "undecided (only the sign is certain)" if sure else "undecided"


class Recomputed(NamedTuple):
    """What a page prints of a claim."""

    mean: float
    low: float
    high: float
    holm_p: float
    level: float
    n: int
    family: int
    verdict: str
    without_failed: str


def judged(claims, sheet):
    """The words of a study's claims: by paper, on these records, and each without the failed runs of its arms."""
    found, words = {}, {}
    for paper in {claim.paper for claim in claims}:
        family = [claim for claim in claims if claim.paper == paper]
        shares = {c.id: max(np.mean([has_failed(r) for r in sheet.of(arm)]) for arm in c.arms) for c in family}
        sound = {claim.id: sheet.without_failed(claim) for claim in family}
        for way, sheets in (("sound", sound), ("all", dict.fromkeys(shares, sheet))):
            evidence = {claim.id: summed(claim, sheets[claim.id]) for claim in family}
            adjusted, levels = step_down({name: e.p for name, e in evidence.items()})
            for claim in family:
                name, e = claim.id, evidence[claim.id]
                share = shares[name] if sheets[name] is sheet else 0
                words[way, name] = by_the_rule(claim, e, adjusted[name], share)
                found[name] = (e.mean, *e.interval95, adjusted[name], levels[name], e.n, len(family))
    return {claim.id: Recomputed(*found[claim.id], *printed(claim, words)) for claim in claims}


def printed(claim, words):
    """The word that stands, and the one without failed runs, which a claim that is not tested lacks."""

    def plain(way, name=claim.id):
        return words[way, name].partition(" (")[0]

    own = {"reproduced": "supported"} if claim.own else {}
    without = own.get(plain("sound"), plain("sound"))
    if claim.premise:
        premise = claim.id.replace(claim.base, claim.premise, 1)
        if {plain("all", premise), plain("sound", premise)} != {"reproduced"}:
            return f"not testable here ({claim.premise} does not hold)", None
    if plain("all") != plain("sound"):
        return "undecided (failed runs)", without
    word = words["all", claim.id]
    return own.get(word, word), without


def shown(judgements):
    """The same of what the study judges."""
    papers = [j.claim.paper for j in judgements]
    return {
        j.claim.id: Recomputed(
            j.differences.mean,
            *j.differences.interval95,
            j.holm_p,
            j.level,
            j.differences.n,
            papers.count(j.claim.paper),
            str(j.verdict),
            j.alternatives.get("without failed runs"),
        )
        for j in judgements
    }


def mismatches(judgements, recomputed):
    """The claims with another word or number."""
    found = shown(judgements)
    assert found.keys() == recomputed.keys()
    return {name for name, row in found.items() if not is_same(row, recomputed[name])}


def is_same(row, other):
    (*numbers, verdict, without), (*others, other_verdict, other_without) = row, other
    same = numbers == pytest.approx(others, rel=1e-7, abs=1e-9)
    return same and (verdict, without) == (other_verdict, other_without)


def published(study):
    """The lines of a study by key, as JSON."""
    lines = [json.loads(line) for path in (FOLDER / study).glob("*.jsonl") for line in path.read_text().splitlines()]
    return Sheet({line["key"]: line for line in lines}, STUDIES[study].seeds)


def kept(store, seeds):
    """The record files of the live claims' arms, as JSON."""
    wanted = {key for claim in CLAIMS["quick"] for arm in claim.arms for key in keys(arm, tuple(seeds))}
    paths = [store.folder / key[:2] / f"{key}.json" for key in wanted]
    return Sheet({path.stem: json.loads(path.read_text()) for path in paths if path.exists()}, seeds), len(paths)


def invented(store, seeds):
    """Records of all arms of the live claims, from nothing to wide apart, with a few failed runs."""
    metrics = {claim.metric for claim in CLAIMS["quick"]} | {"uncertainty", "diversity", "similar_distance"}
    metrics |= {"other_distance", "information"}
    for arm in {arm for claim in CLAIMS["quick"] for arm in claim.arms}:
        draws = np.random.default_rng(zlib.crc32(arm.at(0).key.encode()))
        centre = 0.6 + draws.choice([0, 0.001, -0.0027, 0.005, -0.02, 0.05])
        spread = draws.choice([0.0007, 0.003])
        for run in arm.runs(seeds):
            values = centre + spread * draws.standard_normal(len(metrics))
            measured = dict(zip(sorted(metrics), values.tolist(), strict=True)) | {"train_accuracy": 1.0}
            diverged, collapsed = draws.random(2) < (0.01, 0.02)
            measured |= {"train_accuracy": 0.1} if collapsed else {}
            curves = {"test_accuracy": [0.9, float(draws.uniform(0.895, 0.9))]}
            store.put(Record(run.canonical(), measured, curves, 3 if diverged else None, 1.0, {}))


@pytest.mark.parametrize("study", [study for study in CLAIMS if study != "quick"])
def test_every_published_verdict_is_that_of_the_lines(study):
    sheet = published(study)
    claims = [claim for claim in CLAIMS[study] if sheet.has(claim)]
    if not claims:
        pytest.skip(f"{study} has no published pairs yet")
    assert mismatches(judging.judge_published(study), judged(claims, sheet)) == set()


def test_every_live_claim_is_judged_as_invented_records_say(own_store):
    """All claims, with every word that there is."""
    seeds = range(12)
    invented(own_store, seeds)
    judgements = judging.judge(seeds)
    sheet, _ = kept(own_store, seeds)
    assert mismatches(judgements, judged(CLAIMS["quick"], sheet)) == set()
    words = {re.sub(r"\w+ does", "it does", str(judgement.verdict)) for judgement in judgements}
    assert words == {
        "reproduced",
        "supported",
        "contradicted here",
        "negligible",
        "undecided",
        "undecided (only the sign is certain)",
        "undecided (failed runs)",
        "not testable here (it does not hold)",
    }


@pytest.mark.slow
def test_every_live_verdict_is_that_of_the_books_records():
    """From the files that the book's pages are made of."""
    seeds = STUDIES["quick"].seeds
    sheet, wanted = kept(Store(BOOK), seeds)
    if len(sheet.records) < wanted:
        pytest.skip(f"{len(sheet.records)} of the {wanted} runs are in {BOOK}; `make book` makes them")
    assert mismatches(judging.judge(seeds, store=Store(BOOK)), judged(CLAIMS["quick"], sheet)) == set()


def test_one_changed_number_is_found(monkeypatch):
    """A record's accuracy is one image of ten thousand higher: the claims on its arm are other than recomputed."""
    sheet = published("desktop")
    claims = [claim for claim in CLAIMS["desktop"] if sheet.has(claim)]
    before = judged(claims, sheet)
    arm = next(claim for claim in claims if claim.id.startswith("H2")).arms[0]
    lines = published_records.lines("desktop")
    lines[arm.at(3).key].record.metrics["accuracy"] += 1e-4
    monkeypatch.setattr(published_records, "lines", lambda _: lines)
    changed = mismatches(judging.judge_published("desktop"), before)
    assert changed >= {claim.id for claim in claims if arm in claim.arms and claim.metric == "accuracy"}
    sheet.records[arm.at(3).key]["metrics"]["accuracy"] += 1e-4
    assert mismatches(judging.judge_published("desktop"), judged(claims, sheet)) == set()
    lines[arm.at(3).key].record.metrics["accuracy"] -= 1e-4
