"""Statistics of numbers that tell nothing: equal differences, NaN, words that are none."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from lsr_core import InputError
from lsr_core.statistics import association, holm, mean_interval, paired, seeds_needed, sign_flip_p, verdict
from study import figures, judging
from study.claims import CLAIMS, Claim
from study.judging import Judgement
from study.results import Results
from study.settings import DIGITS
from study.tuning import tuned

TERMS = ((1, tuned(DIGITS[0], "lsr")), (-1, tuned(DIGITS[0], "lsrkd")))
KINDS = ("better", "comparable", "comparable or better")


# Two seeds with the same gain: p = 0, "reproduced".
@pytest.mark.parametrize("n", [2, 3, 60])
@pytest.mark.parametrize("value", [0.7, -0.7, 0.1 + 0.2, 1e-9, 0.0])
def test_differences_without_spread_tell_nothing(n, value):
    noise = 2e-16 * abs(value) * np.arange(n)
    for differences in (np.full(n, value), value + noise):
        summed = paired(differences)
        assert (summed.p, summed.interval95, summed.interval90) == (1, (-math.inf, math.inf), (-math.inf, math.inf))
        assert summed.mean == pytest.approx(value)
        assert summed.detectable() == math.inf
        for kind in KINDS:
            assert str(verdict(summed, summed.p, 0.3, kind)) == "undecided (all differences equal)"


# Differences that are zero but for the rounding of their parts are "comparable", for certain.
@pytest.mark.parametrize("kind", KINDS)
def test_rounding_is_no_spread(kind):
    summed = paired([71.3 - 71.2 - 0.1, 0.0, 44.7 - 44.6 - 0.1])
    assert 0 < summed.detectable() < 1e-12
    assert str(verdict(summed, summed.p, 0.3, kind)) == "undecided (all differences equal)"
    assert verdict(paired([0.01, -0.01, 0.0, 0.005]), 1.0, 0.3, kind).word != "undecided"


# A small spread is one, in any unit.
@pytest.mark.parametrize("unit", [1e-12, 1, 1e12])
def test_a_small_spread_counts(unit):
    differences = np.array([0.7, 0.700001, 0.699999])
    assert paired(unit * differences).p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=1e-4)


# A page run with two seeds prints such verdicts, and cannot draw or store what has no bounds.
def test_a_claim_with_equal_differences_has_a_sentence_and_a_row_in_figures(monkeypatch):
    claim = Claim("X", "nobody", "a beats b", "none", TERMS, margin=0.3)
    monkeypatch.setitem(CLAIMS, "quick", (claim,))
    monkeypatch.setattr(Results, "seeds", lambda *_: [0, 1])
    monkeypatch.setattr(
        Results, "values", lambda _, arm, *__: 0.5 + 0.007 * (arm.objective.name == "lsr") + np.zeros(2)
    )
    monkeypatch.setattr(Results, "failed", lambda *_: 0.0)
    monkeypatch.setattr(judging, "collect", lambda *_, **__: Results({}))
    (judgement,) = judging.judge([0, 1])
    assert judgement.sentence.startswith("a beats b: undecided (all differences equal), +0.70 [−inf, +inf] points, ")
    assert "would have shown" not in judgement.sentence
    row = json.loads(json.dumps(judging.summary(judgement), allow_nan=False))
    assert (row["low"], row["high"], row["p"]) == (None, None, 1)
    other = Judgement(CLAIMS["desktop"][0], "quick", verdict(s := paired([1.0, 2, 4]), s.p, 0.3), s, s.p)
    figure = figures.forest([judgement, other])
    figure.canvas.draw()
    assert all(np.isfinite(figure.axes[0].get_xlim()))


# Perfect order of five pairs: p = 1e-84, where two of the 120 orders are as clear.
def test_ranks_are_no_surer_than_their_orders():
    for n in (5, 6, 7):
        assert association(range(n), range(n)).p == pytest.approx(2 / math.factorial(n))
    assert association(range(60), [*range(59, 1, -1), 0, 1]).p < 1e-12


# NaN in, p = 0 out.
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_statistics_refuse_what_is_not_finite(broken):
    good = [0.1, 0.4, 0.2, 0.3, 0.5, 0.6]
    bad = [*good[:-1], broken]
    for measure in (
        lambda: sign_flip_p(bad),
        lambda: sign_flip_p([broken]),
        lambda: paired(bad),
        lambda: seeds_needed(bad, 1),
        lambda: association(bad, good),
        lambda: association(good, good, [bad]),
        lambda: holm([0.1, broken]),
        lambda: verdict(paired(good), broken, 0.3),
        lambda: verdict(paired(good), 0.1, broken),
        lambda: verdict(paired(good), 0.1, 0.3, failed=[0.0, broken]),
    ):
        with pytest.raises(InputError):
            measure()
    assert np.isnan(mean_interval([*good, math.nan])).all()  # a missing value shows
    with pytest.raises(InputError, match="a value is infinite"):
        mean_interval([*good, math.inf])
    with pytest.raises(InputError, match=r"p value is 1\.5; it must be a number from 0 to 1"):
        holm([0.1, 1.5])
    with pytest.raises(InputError, match="level is 95"):
        mean_interval(good, 95)
    with pytest.raises(InputError, match="1 difference"):
        seeds_needed([0.3], 1)


# `kind="beter"` is read as "better".
def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="kind is 'beter'; there are 'better', 'comparable', 'comparable or better'"):
        verdict(paired([0.1, 0.4]), 0.1, 0.3, "beter")


# Differences that cancel: p = .84, since their sum is 2.8e-17 one way and 0 the other.
def test_sums_that_are_equal_but_for_rounding_are_equal():
    assert sign_flip_p([0.1, 0.2, 0.3, -0.1, -0.2, -0.3]) == 1
    accuracies = 100 * (np.array([0.3372, 0.3381, 0.3401, 0.3363, 0.3349, 0.3355]) - 0.3333)
    exact = np.round(100 * accuracies).astype(int)
    signs = 1 - 2 * (np.arange(64)[:, None] >> np.arange(6) & 1)
    assert sign_flip_p(accuracies) == np.mean(abs(signs @ exact) >= abs(exact.sum()))
