import numpy as np
import pytest
from scipy import stats

from lsr_core import InputError, statistics
from lsr_core.statistics import holm, mean_interval, paired, sign_flip_p, verdict

DELTA = 0.3


def drawn(mean, sd, n=60):
    """Differences with exactly this mean and standard deviation."""
    shape = stats.norm.ppf((np.arange(n) + 0.5) / n)
    return mean + sd * (shape - shape.mean()) / shape.std(ddof=1)


def word(mean, sd, kind="better", n=60, holm_p=None, failed=(0.0,)):
    summed = paired(drawn(mean, sd, n))
    return str(verdict(summed, summed.p if holm_p is None else holm_p, DELTA, kind, failed))


def test_summary_is_scipys():
    d = drawn(0.4, 1.0)
    summed, test = paired(d), stats.ttest_1samp(d, 0)
    assert summed.p == pytest.approx(test.pvalue)
    assert summed.interval95 == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert summed.interval90 == pytest.approx(tuple(test.confidence_interval(0.90)))
    assert mean_interval(d) == pytest.approx((d.mean(), *test.confidence_interval(0.95)))


@pytest.mark.parametrize(
    ("mean", "sd", "expected"),
    [
        (0.05, 0.5, "negligible"),
        (-0.05, 0.5, "negligible"),
        (1.0, 1.0, "reproduced"),
        (-1.0, 1.0, "contradicted here"),
        (0.2, 2.0, "undecided"),
        (0.28, 0.5, "undecided (only the sign is certain)"),
        (0.2, 0.2, "negligible"),  # certain in sign, but no difference that matters: the first rule wins
        (0.0, 0.0, "undecided (all differences equal)"),
    ],
)
def test_every_word_of_a_better_claim(mean, sd, expected):
    assert word(mean, sd) == expected


@pytest.mark.parametrize(
    ("kind", "mean", "sd", "expected"),
    [
        ("comparable", 0.05, 0.5, "reproduced"),
        ("comparable", 1.0, 1.0, "contradicted here"),
        ("comparable", -1.0, 1.0, "contradicted here"),
        ("comparable", 0.2, 2.0, "undecided"),
        ("comparable or better", 1.0, 1.0, "reproduced"),
        ("comparable or better", 0.0, 0.5, "reproduced"),
        ("comparable or better", -1.0, 1.0, "contradicted here"),
        ("comparable or better", -0.2, 2.0, "undecided"),
    ],
)
def test_every_word_of_the_comparable_claims(kind, mean, sd, expected):
    assert word(mean, sd, kind) == expected


def test_the_adjusted_p_decides_not_the_raw_one():
    assert word(0.5, 1.5, holm_p=0.06) == "undecided"
    assert word(0.5, 1.5, holm_p=0.04) == "reproduced"


def test_a_certain_effect_below_the_margin_is_not_reproduced():
    assert word(0.29, 0.4) == "undecided (only the sign is certain)"


def test_more_than_a_tenth_failed_decides_nothing():
    assert word(1.0, 1.0, failed=(0.0, 0.12)) == "undecided (failed runs)"
    assert word(1.0, 1.0, failed=(0.0, 0.1)) == "reproduced"


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_no_difference_at_all_has_p_one():
    summed = paired(np.zeros(10))
    assert (summed.p, sign_flip_p(np.zeros(10)), summed.mean) == (1.0, 1.0, 0.0)


def test_sign_flips_are_counted_exactly_for_few_pairs():
    assert sign_flip_p(drawn(1, 1, n=5)) is None
    # Of 2^6 flips only the data and its mirror image reach a mean as far out.
    assert sign_flip_p([1.0, 2, 3, 4, 5, 6]) == pytest.approx(2 / 64)
    assert sign_flip_p(drawn(0.3, 1, n=60)) == pytest.approx(paired(drawn(0.3, 1, n=60)).p, abs=0.01)


@pytest.mark.parametrize("n", [6, 14, 15, 60])
def test_sign_flips_are_scipys(n):
    d = np.random.default_rng(n).normal(0.3, 1, n)
    draws = np.inf if n <= 14 else 99_999
    test = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=draws, batch=10_000, rng=np.random.default_rng(1)
    )
    assert sign_flip_p(d) == pytest.approx(test.pvalue, abs=0 if n <= 14 else 0.006)


@pytest.mark.parametrize(("n", "level"), [(3, 0.05), (10, 0.05), (60, 0.05), (2, 0.05 / 20)])
def test_detectable_difference_has_eighty_percent_power(n, level):
    generator = np.random.default_rng(0)
    draws = generator.standard_normal((20_000, n))
    # Power is stated at the true deviation, so ask for the difference at a sample whose deviation is exactly one.
    shift = paired(drawn(0.0, 1.0, n)).detectable(level)
    found = stats.ttest_1samp(draws + shift, 0, axis=1).pvalue <= level
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_what_is_detectable_lies_beyond_the_margin():
    """Where spread is small, four of five means reach the margin; where it is large, the level decides."""
    tight, wide = paired(drawn(0.0, 0.01)), paired(drawn(0.0, 10.0))
    assert tight.detectable(margin=DELTA) == pytest.approx(DELTA + stats.norm.ppf(0.8) * tight.error)
    assert wide.detectable(margin=DELTA) == pytest.approx(wide.detectable())
    x = np.random.default_rng(0).normal(size=(2, 60))
    association = statistics.association(*x)
    assert association.detectable(margin=0.9) > 0.9 > association.detectable() == association.detectable(margin=0.1)


def test_two_pairs_at_a_strict_level_have_a_detectable_difference():
    strict = paired([0.1, 0.3]).detectable(0.05 / 40)
    assert np.isfinite(strict)
    assert strict > paired([0.1, 0.3]).detectable()


@pytest.mark.parametrize("differences", [[], [1.0], [1.0, float("nan")]])
def test_too_few_or_broken_differences_are_refused(differences):
    with pytest.raises(InputError):
        paired(differences)


@pytest.mark.parametrize(("effect", "deviation"), [(0.5, 1.0), (1.0, 1.0), (0.2, 1.0), (3.0, 1.0)])
def test_seeds_needed_have_the_power_that_they_promise(effect, deviation):
    """Against scipy's noncentral t at the true spread, and one seed fewer has less."""
    sample = np.random.default_rng(0).normal(size=1000)
    sample *= deviation / sample.std(ddof=1)
    n = statistics.seeds_needed(sample, effect)

    def power(count):
        threshold = stats.t.ppf(0.975, count - 1)
        return stats.nct.sf(threshold, count - 1, effect / deviation * np.sqrt(count))

    assert power(n) >= 0.77
    assert n == 2 or power(n - 1) < 0.83


def test_more_spread_needs_more_seeds_and_no_effect_is_refused():
    values = np.random.default_rng(0).normal(size=60)
    assert statistics.seeds_needed(values, 0.1) > statistics.seeds_needed(values, 0.3)
    with pytest.raises(InputError, match="effect is 0; it must be above 0"):
        statistics.seeds_needed(values, 0)


def test_association_without_others_is_spearmans():
    x, noise = np.random.default_rng(0).normal(size=(2, 60))
    y = x + 2 * noise
    summed = statistics.association(x, y)
    assert summed.mean == pytest.approx(stats.spearmanr(x, y).statistic)
    assert summed.interval95[0] < summed.interval90[0] < summed.mean < summed.interval90[1] < summed.interval95[1]
    assert summed.p == pytest.approx(stats.spearmanr(x, y).pvalue, rel=0.6)
    assert statistics.association(x, np.exp(-y)).mean == pytest.approx(-summed.mean)  # only the order counts


def test_association_is_freed_of_what_both_follow():
    generator = np.random.default_rng(1)
    common, x, y = generator.normal(size=(3, 400))
    x, y = common + x / 2, common + y / 2
    assert statistics.association(x, y).mean > 0.6
    freed = statistics.association(x, y, [common])
    assert freed.interval95[0] < 0 < freed.interval95[1]
    ranks = stats.rankdata([x, y, common], axis=1)
    matrix = np.linalg.inv(np.corrcoef(ranks))
    assert freed.mean == pytest.approx(-matrix[0, 1] / np.sqrt(matrix[0, 0] * matrix[1, 1]))  # the closed form


def test_association_covers_and_finds_what_it_says():
    generator = np.random.default_rng(2)
    null = [statistics.association(*generator.normal(size=(2, 60))) for _ in range(500)]
    assert 0.02 <= np.mean([summed.p < 0.05 for summed in null]) <= 0.09
    assert len({summed.detectable() for summed in null}) == 1
    r = null[0].detectable()
    found = []
    for _ in range(400):
        x, noise = generator.normal(size=(2, 60))
        true = 2 * np.sin(np.pi * r / 6)  # Pearson's, for which Spearman's is r
        found.append(statistics.association(x, true * x + np.sqrt(1 - true**2) * noise).p < 0.05)
    assert 0.7 <= np.mean(found) <= 0.88


def test_association_of_extremes():
    assert statistics.association(range(9), range(9)).mean == pytest.approx(1)
    constant = statistics.association(range(9), [3.0] * 9)
    assert (constant.mean, constant.p) == (0, 1)
    few = statistics.association(range(5), range(5), [[2, 1, 4, 3, 5]])
    assert (few.n, few.mean, few.interval95, few.p) == (5, 0, (-1, 1), 1)


@pytest.mark.parametrize("n", [10, 50, 1000])
def test_an_association_of_what_others_explain_decides_nothing(n):
    x, y = np.random.default_rng(0).normal(size=(2, n))
    for quantities in (([1.0] * n, y), (x, y, [x]), (x, y, [y])):
        summed = statistics.association(*quantities)
        assert (summed.mean, summed.interval95) == (0, (-1, 1))
        assert statistics.verdict(summed, summed.p, 0.3).word == statistics.UNDECIDED


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: statistics.association(range(9), range(9), [range(8)]), "the quantities have 9, 9, 8 values"),
        (lambda: statistics.paired([[0.1, 0.2], [0.3, 0.4]]), r"differences have shape \[2, 2\]; give \[n\]"),
    ],
)
def test_what_cannot_be_summed_up_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_claim_without_shares_of_failed_runs_is_judged():
    assert statistics.verdict(statistics.paired([0.9, 1.0, 1.1]), 0.01, 0.3, failed=()).word == statistics.REPRODUCED


def test_holms_levels_are_those_at_which_its_adjusted_values_reach_five_percent():
    assert statistics.holm_levels([0.01, 0.04, 0.03]) == pytest.approx([0.05 / 3, 0.05, 0.025])
