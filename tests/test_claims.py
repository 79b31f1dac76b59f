import math
import re
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from scipy import stats

from lsr_core import statistics
from lsr_core.store import Record, Store
from study import build, judging
from study.claims import CLAIMS, UNTESTED, Claim, farthest_stage
from study.identities import IDENTITIES, Identity
from study.judging import Judgement
from study.results import MEASURES, Results, collect
from study.settings import DIGITS, paired_seeds
from study.tuning import tuned

QUICK = CLAIMS["quick"]
MULLER = "Müller 2019"
LSR, LSRKD = tuned(DIGITS[0], "lsr"), tuned(DIGITS[0], "lsrkd")


def test_every_claim_has_its_own_identifier_a_chapter_and_arms_that_exist():
    every = [claim for claims in CLAIMS.values() for claim in claims]
    identifiers = [*(claim.id for claim in (*every, *IDENTITIES)), *(entry["id"] for entry in UNTESTED)]
    assert len(set(identifiers)) == len(identifiers)
    assert {claim.chapter for claim in QUICK} <= set(build.names())
    for claim in every:
        assert claim.metric in MEASURES
        assert all(arm.runs([0]) for arm in claim.arms), claim.id
    assert len(QUICK) >= 98
    assert len(CLAIMS["desktop"]) >= 45


LISTED = {
    *(f"Y{i}" for i in range(1, 13)),
    *(f"W{i}" for i in range(1, 15)),
    *(f"Z{i}" for i in range(1, 10)),
    *(f"S{i}" for i in range(1, 13)),
    *("M1", "M2", "M3", "C1", "C2", "H1", "L1", "K1", "K2"),
    *(f"O{i}" for i in range(1, 11)),
}


def test_every_listed_claim_is_judged_or_says_why_not():
    every = [claim for claims in CLAIMS.values() for claim in claims]
    names = [claim.id for claim in (*every, *IDENTITIES)] + [entry["id"] for entry in UNTESTED]
    assert {re.match(r"[A-Z]+\d+", name)[0] for name in names} >= LISTED


def test_a_chapter_is_judged_within_its_family():
    whole = {j.claim.id: j for j in judging.judge([0, 1, 2], paper=MULLER)}
    chapter = judging.judge([0, 1, 2], chapter="label_smoothing")
    assert [j.claim.chapter for j in chapter] == ["label_smoothing"] * len(chapter)
    assert all(whole[j.claim.id].holm_p == j.holm_p for j in chapter)


def test_an_interaction_is_a_difference_of_differences():
    claim = next(c for c in QUICK if c.id == "C1-100")
    results = collect(claim.arms, [0, 1])
    a, b, c, d = (100 * results.values(arm, "accuracy") for arm in claim.arms)
    assert claim.values(results) == pytest.approx((a - b) - (c - d))


def test_the_farthest_stage_is_the_one_whose_interval_ends_farthest_out():
    claim = next(c for c in QUICK if c.id == "Y3-100")
    results = collect(claim.arms, [0, 1, 2])
    students = np.array([100 * results.values(arm, "accuracy") for arm in claim.arms])
    tests = [stats.ttest_1samp(row, 0) for row in students - students.mean(0)]
    ends = [max(map(abs, test.confidence_interval(0.9))) for test in tests]
    farthest = tests[int(np.argmax(ends))]
    summed = claim.values(results)
    assert max(map(abs, summed.interval90)) == pytest.approx(max(ends))
    assert summed.p == pytest.approx(min(1, 8 * farthest.pvalue))


def test_a_u_is_not_flat():
    """Students that gain from poor and from good teachers, and not from middling ones."""
    noise = np.random.default_rng(0).normal(0, 0.5, (8, 60))
    u = np.array([1.7, 1.6, 1.5, 0.5, -0.3, 1.0, 1.2, 1.2])[:, None] + noise
    results = Mock()
    results.seeds = lambda *_: range(60)
    results.values = lambda arm, *_: u[arm] / 100
    summed = farthest_stage(results, range(8))
    assert str(statistics.verdict(summed, summed.p, 0.3, "comparable")) == "contradicted here"
    u[:] = noise
    summed = farthest_stage(results, range(8))
    assert str(statistics.verdict(summed, summed.p, 0.3, "comparable")) == "reproduced"


def test_a_false_identity_is_refuted(monkeypatch):
    false = Identity("X", "nobody", "x is 2x", "none", lambda: 1.0)
    monkeypatch.setattr(judging, "IDENTITIES", (false,))
    (judgement,) = judging.judge_identities()
    assert str(judgement.verdict) == "refuted"


def test_identities_are_judged_by_chapter():
    chapters = {judgement.claim.chapter for judgement in judging.judge_identities("many_losses")}
    assert chapters == {"many_losses"}


@pytest.mark.slow
def test_lsr_against_cross_entropy_at_60_seeds_is_what_scipy_makes_of_the_records():
    """The interval and Holm p that the book prints, recomputed from the files in the store."""
    seeds = paired_seeds(60)
    judgements = judging.judge(seeds, paper=MULLER)
    store = Store()
    family = {}
    for claim in (judgement.claim for judgement in judgements):
        method, control = ([store.get(arm.at(s).key).metrics for s in seeds] for arm in claim.arms)
        if claim.base == "M3":
            sides = [[abs(m["information"] - math.log(2)) for m in side] for side in (control, method)]
            family[claim.id] = stats.ttest_rel(*sides)
        else:
            scale = {"accuracy": 100, "ece": -1, "nll_scaled": -1}[claim.metric]
            pairs = [scale * (m[claim.metric] - c[claim.metric]) for m, c in zip(method, control, strict=True)]
            family[claim.id] = stats.ttest_1samp(pairs, 0)
    raw = [family[j.claim.id].pvalue for j in judgements]
    step_down, adjusted = 0.0, {}
    for rank, place in enumerate(sorted(range(len(raw)), key=raw.__getitem__)):
        step_down = max(step_down, min(1.0, (len(raw) - rank) * raw[place]))
        adjusted[judgements[place].claim.id] = step_down
    board = judging.board(judgements)
    for judgement in judgements:
        test, digits = family[judgement.claim.id], MEASURES[judgement.claim.metric].digits
        low, high = test.confidence_interval(0.95)
        mean = (low + high) / 2
        printed = f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]".replace("-", "−")
        assert board.loc[judgement.claim.id, "effect, 95 % interval"] == printed
        p = adjusted[judgement.claim.id]
        assert math.isclose(judgement.holm_p, p, rel_tol=1e-6, abs_tol=1e-12)
        assert board.loc[judgement.claim.id, "Holm p"] == judging.format_p(p)
        assert not judgement.exploratory


def test_fewer_seeds_are_marked_exploratory(monkeypatch):
    few = [claim for claim in QUICK if claim.id == "B1-100"]
    monkeypatch.setitem(CLAIMS, "quick", tuple(few))
    (judgement,) = judging.judge([0, 1, 2])
    assert judgement.exploratory
    assert "exploratory" in judgement.sentence
    assert "exploratory" in judging.board([judgement]).loc["B1-100", "preset"]


def test_arms_that_are_one_are_not_judged(monkeypatch):
    alike = Claim("X", "nobody", "LSR is LSR", "none", ((1, LSR), (-1, LSR)), margin=0.3)
    monkeypatch.setitem(CLAIMS, "quick", (alike,))
    (judgement,) = judging.judge([0, 1, 2])
    assert (str(judgement.verdict), judgement.holm_p) == ("undecided (all differences equal)", 1.0)


def test_an_undecided_claim_says_what_it_would_have_seen():
    summed = statistics.paired([-3.0, 1.0, 4.0])
    claim = Claim("X", "nobody", "a beats b", "none", ((1, LSR), (-1, LSRKD)), margin=0.3)
    judgement = Judgement(claim, "quick", statistics.verdict(summed, summed.p, 0.3), summed, summed.p)
    assert judgement.verdict.word == "undecided"
    assert f"would have shown {summed.detectable():.2f} with 80 % power" in judgement.sentence


def invented(values_of, failed=()):
    """Results of invented accuracies in points by arm, where some seeds of the first arm failed."""
    records = {}
    for arm, values in values_of.items():
        records[arm] = [
            Record(
                {"seed": i, "data": {"name": "digits", "train": 100}},
                {"accuracy": v / 100, "train_accuracy": 1.0},
                {},
                None,
                0,
                {},
            )
            for i, v in enumerate(values)
        ]
    first = next(iter(values_of))
    for i in failed:
        records[first][i].metrics["train_accuracy"] = 0.1
    return Results(records)


def test_a_verdict_that_one_failed_run_decides_is_undecided(monkeypatch):
    """Fifty-nine pairs one point apart, and one whose method collapsed to chance."""
    claim = Claim("X", "nobody", "a beats b", "none", ((1, LSR), (-1, LSRKD)), margin=0.3)
    monkeypatch.setitem(CLAIMS, "quick", (claim,))
    control = 85 + np.random.default_rng(0).normal(0, 1, 60)
    method = control + 1 + np.random.default_rng(1).normal(0, 0.5, 60)
    for failed, word, turning in (([], "reproduced", []), ([7], "undecided (failed runs)", ["without failed runs"])):
        monkeypatch.setattr(judging, "collect", lambda *_, f=failed, **__: invented({LSR: method, LSRKD: control}, f))
        (judgement,) = judging.judge(range(60))
        assert str(judgement.verdict) == word
        assert judgement.differences.n == 60
        assert set(turning) <= set(judgement.turning)


def test_a_claim_of_which_one_pair_is_left_decides_nothing(monkeypatch):
    claim = Claim("X", "nobody", "a has more", "none", ((1, LSR), (-1, LSRKD)), margin=0.1, metric="diversity")
    monkeypatch.setitem(CLAIMS, "quick", (claim,))
    monkeypatch.setattr(judging, "collect", lambda *_, **__: invented({LSR: [80, 81], LSRKD: [80, 82]}, [0, 1]))
    (judgement,) = judging.judge([0, 1])
    assert str(judgement.verdict) == "undecided (failed runs)"
    assert "0 paired seeds" in judgement.sentence


def test_a_failed_run_that_decides_nothing_changes_no_word(monkeypatch):
    claim = Claim("X", "nobody", "a beats b", "none", ((1, LSR), (-1, LSRKD)), margin=0.3)
    monkeypatch.setitem(CLAIMS, "quick", (claim,))
    noise = np.random.default_rng(0).normal(0, 1, (2, 60))
    values = {LSR: 40 + noise[0], LSRKD: 85 + noise[1]}
    monkeypatch.setattr(judging, "collect", lambda *_, **__: invented(values, [3]))
    (judgement,) = judging.judge(range(60))
    assert str(judgement.verdict) == "contradicted here"


@pytest.mark.parametrize("sound", [0, 1])
def test_an_arm_of_failed_runs_decides_nothing(monkeypatch, sound):
    """No pair is left without them, or one, which has no spread."""
    claim = Claim("X", "nobody", "a beats b", "none", ((1, LSR), (-1, LSRKD)), margin=0.3)
    monkeypatch.setitem(CLAIMS, "quick", (claim,))
    values = {LSR: 40 + np.arange(12), LSRKD: 85 - np.arange(12)}
    monkeypatch.setattr(judging, "collect", lambda *_, **__: invented(values, range(sound, 12)))
    (judgement,) = judging.judge(range(12))
    assert str(judgement.verdict) == "undecided (failed runs)"
    assert judgement.differences.n == 12


def test_no_failed_run_decides_a_premise(monkeypatch):
    """It is reproduced with a failed pair alone: what rests on it is not tested."""
    terms = ((1, LSR), (-1, LSRKD))
    premise = Claim("A-100", "p", "a", "none", terms, 0.3)
    claim = Claim("B-100", "p", "b", "none", ((-1, LSR), (1, LSRKD)), 0.3, premise="A")
    monkeypatch.setitem(CLAIMS, "quick", (premise, claim))
    noise = np.random.default_rng(0).normal(0, 0.05, 60)
    values = {LSR: 50.28 + noise, LSRKD: np.full(60, 50.0)}
    values[LSRKD][7] = 7  # the failed run counts 10 %
    monkeypatch.setattr(judging, "collect", lambda *_, **__: invented(values, [7]))
    words = [str(judgement.verdict) for judgement in judging.judge(range(60))]
    assert words == ["undecided (failed runs)", "not testable here (A does not hold)"]


def test_the_power_is_that_of_holms_level_and_never_below_the_margin():
    tight = statistics.paired(0.001 * np.arange(10))
    claim = Claim("X", "nobody", "a beats b", "none", ((1, LSR), (-1, LSRKD)), margin=0.3)
    judgement = Judgement(claim, "quick", statistics.Verdict("undecided"), tight, 1.0, level=0.01)
    assert 0.3 < judgement.power < 0.301
    wide = statistics.paired([-3.0, 1.0, 4.0, 2.0, 0.0])
    judgement = Judgement(claim, "quick", statistics.Verdict("undecided"), wide, 1.0, level=0.01)
    assert judgement.power == wide.detectable(0.01) > wide.detectable() > 0.3
    assert statistics.holm_levels([0.01, 0.04, 0.03]) == pytest.approx([0.05 / 3, 0.05, 0.025])


def test_the_studys_own_claims_are_supported_and_a_false_premise_tests_nothing(monkeypatch):
    terms = ((1, LSR), (-1, LSRKD))
    a = Claim("A-100", "p", "a", "none", terms, 0.3, own=True)
    b = Claim("B-100", "p", "b", "none", ((-1, LSR), (1, LSRKD)), 0.3)
    c = Claim("C-100", "p", "c", "none", terms, 0.3, premise="B")
    monkeypatch.setitem(CLAIMS, "quick", (a, b, c))
    noise = np.random.default_rng(0).normal(0, 1, 60)
    monkeypatch.setattr(judging, "collect", lambda *_, **__: invented({LSR: 90 + noise, LSRKD: 85 - noise}))
    judgements = judging.judge(range(60))
    words = {j.claim.id: str(j.verdict) for j in judgements}
    assert judging.standing(judgements)[1] == 2  # what is not tested neither stands nor falls
    assert words["A-100"] == "supported"
    assert words["C-100"] == "not testable here (B does not hold)"


def test_a_verdict_says_where_another_network_has_another_word(monkeypatch):
    claim = next(claim for claim in QUICK if claim.id == "B1-100")
    summed = statistics.paired([1.0, 2.0, 3.0])
    elsewhere = replace(claim, id="B1-100-one-layer")
    there = Judgement(elsewhere, "one-layer", statistics.Verdict("undecided"), summed, 1.0)
    monkeypatch.setattr(judging, "judge_published", lambda study: [there] if study == "one-layer" else [])
    judging.on_other_networks.cache_clear()
    monkeypatch.setitem(CLAIMS, "quick", (claim,))
    noise = np.random.default_rng(0).normal(0, 1, 60)
    arms = {claim.arms[0]: 90 + noise, claim.arms[1]: 85 - noise}
    monkeypatch.setattr(judging, "collect", lambda *_, **__: invented(arms))
    (judgement,) = judging.judge(range(60))
    judging.on_other_networks.cache_clear()
    assert (judgement.verdict.word, judgement.turning) == ("supported", ["one-layer"])
    assert judging.standing([judgement]) == (0, 1)
    assert judging.board([judgement]).loc["B1-100", "turned by"] == "one-layer"


def test_a_study_on_another_network_is_judged_as_every_other(monkeypatch):
    """It does not ask for its own words while it is judged."""
    claim = replace(next(claim for claim in QUICK if claim.id == "B1-100"), id="B1-100-one-layer")
    monkeypatch.setitem(CLAIMS, "one-layer", (claim,))
    noise = np.random.default_rng(0).normal(0, 1, 60)
    arms = {claim.arms[0]: 90 + noise, claim.arms[1]: 85 - noise}
    monkeypatch.setattr(judging.published_records, "results", lambda *_: invented(arms))
    judging.on_other_networks.cache_clear()
    (judgement,) = judging.judge_published("one-layer")
    assert judgement.verdict.word == "supported"
    assert "one-layer" not in judgement.alternatives
    judging.on_other_networks.cache_clear()


def test_the_claims_that_a_referee_asked_about_are_judged_at_the_desktop_preset():
    judged = {j.claim.base for j in judging.judge_published("desktop")}
    assert judged >= {"Y8r", "Y7", "W7m", "W7n", "W8", "Z5b", "H2", "Z1i", "Z2i", "Z3i", "Z7i", "W12h", "S5h"}


def test_p_values_are_printed_as_papers_do():
    assert [judging.format_p(p) for p in (None, 1.0, 0.04123, 0.00001)] == ["–", "1", ".0412", "< .0001"]


def test_the_gain_goes_with_diversity_as_the_records_say():
    """From invented values: gains that follow the teacher's diversity in order, then the other way round."""
    (claim,) = [claim for claim in QUICK if claim.id == "Z4-100"]
    draws = np.random.default_rng(0).normal(size=(3, 60))

    measured = dict(zip(("diversity", "uncertainty", "accuracy"), draws, strict=True))
    for sign in (1, -1):
        results = Mock()
        results.values = lambda _, metric, __: measured[metric]
        results.differences = lambda *_, sign=sign: sign * draws[0] + draws[1]
        assert sign * claim.values(results).mean > 0.9


def test_pairs_without_the_metric_are_left_out_and_n_says_so(monkeypatch):
    claim = next(c for c in QUICK if c.id == "Z5a-100")
    monkeypatch.setitem(CLAIMS, "quick", (claim,))
    real = Results.values

    def one_missing(self, arm, metric, seeds):
        return np.where(np.array(seeds) == 1, np.nan, real(self, arm, metric, seeds))

    monkeypatch.setattr(Results, "values", one_missing)
    (judgement,) = judging.judge([0, 1, 2, 3])
    assert judgement.differences.n == 3
    assert math.isfinite(judgement.differences.mean)
