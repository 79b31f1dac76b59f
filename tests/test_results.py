from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lsr_core import InputError, objective
from lsr_core.execute import execute
from lsr_core.run import Run
from lsr_core.schedule import Schedule
from study.results import Results, collect, effect_of, flat
from study.settings import paired_seeds
from study.studies import is_exploratory
from study.tables import interactions, table

FAST = Schedule(0.2, epochs=12)
CE, LSR = (Run("digits", 50, objective(method), FAST) for method in ("cross-entropy", "lsr"))
DOOMED = Run("digits", 50, objective("cross-entropy"), Schedule(1e30, epochs=2))


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (0, "seeds is 0; paired differences need at least 2"),
        (1, "seeds is 1; paired differences need at least 2"),
        (-3, "seeds is -3; paired differences need at least 2"),
        (10**12, "seed 1000 is not a whole number from 0 to 999"),
        ([[0], [1]], r"seed \[0\] is not a whole number"),
        ([True, False], "seed True is not"),
        ([], "need at least 2"),
        ([3], "need at least 2"),
        ([1, 2, 1], r"seeds is \[1, 2, 1\]; no seed may be repeated"),
        ([0, -1], "seed -1 is not a whole number from 0 to 999"),
        ([0, 1000], "seed 1000 is not a whole number from 0 to 999"),
        ([0, 1.5], "seed 1.5"),
        ("many", "seeds is 'many'; give a number or a list"),
        (None, "seeds is None"),
        (True, "seeds is True"),
        (2.5, "seeds is 2.5"),
    ],
)
def test_seeds_that_cannot_pair_are_refused(seeds, message):
    with pytest.raises(InputError, match=message):
        paired_seeds(seeds)


def test_seeds_by_number_or_list():
    assert paired_seeds(3) == (0, 1, 2)
    assert paired_seeds([5, 2]) == (5, 2)


def test_other_seeds_than_the_presets_are_exploratory():
    assert not is_exploratory(paired_seeds(60))
    assert is_exploratory(paired_seeds(59))
    assert is_exploratory(paired_seeds(61))


def test_differences_are_paired_by_seed():
    results = collect([CE, LSR], [0, 1, 2])
    by_hand = results.values(LSR, "accuracy") - results.values(CE, "accuracy")
    np.testing.assert_array_equal(results.differences(LSR, CE, "accuracy"), by_hand)
    assert [record.run["seed"] for record in results.records(CE)] == [0, 1, 2]


def test_results_join():
    one, other = collect([CE], [0, 1]), collect([LSR], [0, 1, 2])
    both = one | other
    assert both.arms == [CE, LSR]
    assert len(both.differences(LSR, CE, "accuracy")) == 2


def test_a_failed_run_counts_at_chance_level():
    results = collect([DOOMED], [0, 1])
    assert results.failed(DOOMED) == 1.0
    np.testing.assert_allclose(results.values(DOOMED, "accuracy"), 0.1)
    np.testing.assert_allclose(results.values(DOOMED, "nll"), np.log(10))
    np.testing.assert_allclose(results.values(DOOMED, "ece"), 0.9)


@pytest.mark.parametrize(("accuracy", "failure"), [(0.39, None), (0.37, "collapsed"), (None, "diverged")])
def test_a_network_no_better_than_the_most_frequent_class_has_collapsed(accuracy, failure):
    """A quarter of 100 images are of one class: three binomial standard errors above it are 38 %."""
    (record,) = execute(CE.runs([0]))
    metrics = record.metrics | {"train_majority": 0.25, "train_accuracy": accuracy}
    hundred = record.run | {"data": record.run["data"] | {"train": 100}}
    assert replace(record, run=hundred, metrics=metrics).failure == failure


def test_seeds_on_which_any_arm_failed_are_left_out():
    first, second = (execute(arm.runs(range(4))) for arm in (CE, LSR))
    second[2] = replace(second[2], metrics=second[2].metrics | {"train_accuracy": 0.1})
    found = Results({CE: first, LSR: second})
    assert found.failed(LSR) == 0.25
    assert found.values(LSR, "accuracy")[2] == 0.1
    sound = found.without_failed([CE, LSR])
    assert sound.seeds(CE, LSR) == [0, 1, 3]
    assert sound.failed(LSR) == 0


def test_a_metric_without_a_chance_level_is_missing_not_made_up():
    results = collect([DOOMED, CE], [0, 1])
    assert np.isnan(results.values(DOOMED, "diversity")).all()
    assert np.isfinite(results.values(CE, "diversity")).all()


def test_differences_are_paired_by_seed_whatever_their_order():
    first, second = (execute(arm.runs([4, 0, 2])) for arm in (CE, LSR))
    found = Results({CE: first, LSR: [second[2], second[0]]})
    assert (found.seeds(CE, LSR), found.seeds(LSR, CE)) == ([4, 2], [2, 4])
    by_seed = {record.run["seed"]: record.metrics["nll"] for record in second}
    expected = [by_seed[seed] - found.values(CE, "nll", [seed])[0] for seed in (2, 4)]
    np.testing.assert_array_equal(found.differences(LSR, CE, "nll"), expected)


def test_sweeps_have_the_first_ten_seeds_and_arms_all():
    found = collect([CE], range(11), sweeps=[CE, LSR])
    assert {arm: found.seeds(arm) for arm in found.arms} == {CE: list(range(11)), LSR: list(range(10))}
    assert found.counted({"a": CE, "b": LSR}) == "10 to 11"
    assert found.counted({"a": {0.1: LSR}}) == "10"
    assert flat({"line": {0.1: LSR, 0.2: CE}}, {"one": CE}) == [LSR, CE, CE]


def test_an_effect_is_scipys_interval_in_the_metrics_unit():
    found = collect([CE, LSR], range(4))
    effect = found.effect(LSR, CE, "accuracy")
    interval = stats.ttest_1samp(100 * found.differences(LSR, CE, "accuracy"), 0).confidence_interval(0.95)
    assert (effect.low, effect.high) == pytest.approx(tuple(interval))
    assert effect.n == 4
    assert effect_of([1.0, 2.0, 4.0]).text == "+2.33 [−1.46, +6.13]"


def test_the_table_holds_what_scipy_computes():
    results = collect([CE, LSR, DOOMED], range(4))
    arms = {"cross-entropy": CE, "lsr": LSR, "doomed": DOOMED}
    shown = table(results, arms, "cross-entropy", ["accuracy"])
    test = stats.ttest_1samp(100 * results.differences(LSR, CE, "accuracy"), 0)
    low, high = test.confidence_interval(0.95)
    mean = 100 * results.differences(LSR, CE, "accuracy").mean()
    expected = f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")
    assert shown.loc["lsr", "Δ accuracy, points [95 %]"] == expected
    assert shown.loc["cross-entropy", "Δ accuracy, points [95 %]"] == "–"
    assert shown["failed"].tolist() == [0, 0, 4]


def test_an_interaction_is_paired_by_seed():
    found = collect([CE, LSR, DOOMED], range(3))
    shown = interactions(found, {"0.1": {"T = 1": (LSR, CE), "T = 4": (LSR, DOOMED)}})
    assert shown.columns.tolist() == ["T = 1", "T = 4", "T = 4 against T = 1"]
    first, second = (100 * found.differences(LSR, control, "accuracy") for control in (CE, DOOMED))
    assert shown.loc["0.1"].tolist() == [effect_of(values).text for values in (first, second, second - first)]
