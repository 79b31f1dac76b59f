from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lsr_core import InputError, objective
from lsr_core.objectives import describe
from lsr_core.run import ExactPosterior
from lsr_core.schedule import Schedule
from study import experiments
from study.experiments import DIGITS, METHODS, MIXTURES, Arm, Setting

FAST = Schedule(0.1, epochs=1)
CE = Arm(Setting("digits", 50), objective("cross-entropy"), FAST)
LSR = Arm(Setting("digits", 50), objective("lsr"), FAST)
DOOMED = Arm(Setting("digits", 50), objective("cross-entropy"), Schedule(1e30, epochs=2))


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (0, r"seeds names 0 seed\(s\); paired differences need at least 2"),
        (1, r"seeds names 1 seed\(s\)"),
        (-3, r"seeds names 0 seed\(s\)"),
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
        experiments.paired_seeds(seeds)


def test_seeds_by_number_or_list():
    assert experiments.paired_seeds(3) == (0, 1, 2)
    assert experiments.paired_seeds([5, 2]) == (5, 2)


def test_other_seeds_than_the_presets_are_exploratory():
    assert not experiments.is_exploratory("quick", experiments.paired_seeds(60))
    assert experiments.is_exploratory("quick", experiments.paired_seeds(59))
    assert experiments.is_exploratory("quick", experiments.paired_seeds(61))


def test_an_unknown_preset_is_refused():
    with pytest.raises(InputError, match="unknown preset 'slow'; there are quick, desktop, paper"):
        experiments.preset("slow")
    with pytest.raises(InputError, match="preset 'desktop' is read from published records"):
        experiments.preset("desktop")


def test_differences_are_paired_by_seed():
    results = experiments.collect([CE, LSR], [0, 1, 2])
    by_hand = results.values(LSR, "accuracy") - results.values(CE, "accuracy")
    np.testing.assert_array_equal(results.differences(LSR, CE, "accuracy"), by_hand)
    assert [record.run["seed"] for record in results.records(CE)] == [0, 1, 2]


def test_results_join():
    one, other = experiments.collect([CE], [0, 1]), experiments.collect([LSR], [0, 1, 2])
    both = one | other
    assert both.arms == [CE, LSR]
    assert len(both.differences(LSR, CE, "accuracy")) == 2


def test_a_diverged_run_counts_at_chance_level():
    results = experiments.collect([DOOMED], [0, 1])
    assert results.diverged(DOOMED) == 1.0
    np.testing.assert_allclose(results.values(DOOMED, "accuracy"), 0.1)
    np.testing.assert_allclose(results.values(DOOMED, "nll"), np.log(10))
    np.testing.assert_allclose(results.values(DOOMED, "ece"), 0.9)


def test_a_metric_without_a_chance_level_is_missing_not_made_up():
    results = experiments.collect([DOOMED, CE], [0, 1])
    assert np.isnan(results.values(DOOMED, "diversity")).all()
    assert np.isfinite(results.values(CE, "diversity")).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lsrr", "unknown arm 'lsrr'; there are cross-entropy, lsr"),
        ("taught/0.1/4/fast", "arm 'taught/0.1/4/fast' cannot be made; its parts are not those of 'taught'"),
        ("taught/0.1", "arm 'taught/0.1' cannot be made; its parts are not those of 'taught'"),
        ("stage/late", "arm 'stage/late' cannot be made"),
        ("carried/lsr/9", "arm 'carried/lsr/9' cannot be made"),
        ("carried/nothing/32", "method 'nothing' is not tuned on digits, n = 100"),
        ("generation-x", "unknown arm 'generation-x'"),
    ],
)
def test_an_arm_that_cannot_be_is_one_sentence(name, message):
    with pytest.raises(InputError, match=message):
        experiments.arm(DIGITS[0], name)


def test_the_table_holds_what_scipy_computes():
    results = experiments.collect([CE, LSR, DOOMED], range(4))
    arms = {"cross-entropy": CE, "lsr": LSR, "doomed": DOOMED}
    table = experiments.table(results, arms, "cross-entropy", ["accuracy"])
    test = stats.ttest_1samp(100 * results.differences(LSR, CE, "accuracy"), 0)
    low, high = test.confidence_interval(0.95)
    mean = 100 * results.differences(LSR, CE, "accuracy").mean()
    expected = f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")
    assert table.loc["lsr", "Δ accuracy, points [95 %]"] == expected
    assert table.loc["cross-entropy", "Δ accuracy, points [95 %]"] == "–"
    assert table["diverged"].tolist() == [0, 0, 4]


def test_an_interaction_is_paired_by_seed():
    row = {"T = 1": np.array([1.0, 2.0, 4.0]), "T = 4": np.array([1.5, 2.5, 4.5])}
    table = experiments.interactions({"0.1": row})
    assert table.columns.tolist() == ["T = 1", "T = 4", "T = 4 against T = 1"]
    low, high = stats.ttest_1samp(row["T = 1"], 0).confidence_interval(0.95)
    assert table.loc["0.1", "T = 1"] == f"+2.33 [−{-low:.2f}, +{high:.2f}]"
    assert table.loc["0.1", "T = 4 against T = 1"] == "+0.50 [+0.50, +0.50]"


def test_students_at_one_rate_differ_by_their_teacher_alone():
    pair = experiments.paced_grid(DIGITS[0], 0.1, [4], [0.025])["T = 4", 0.025]
    assert pair["smoothed"].schedule == pair["plain"].schedule
    assert pair["plain"].schedule.learning_rate == 0.025
    assert pair["smoothed"].objective == pair["plain"].objective == objective("soft-only", temperature=4)
    teachers = {name: student.teacher.arm for name, student in pair.items()}
    assert teachers["smoothed"].objective == objective("lsr", epsilon=0.1)
    assert teachers["plain"].objective == objective("cross-entropy")
    assert replace(pair["smoothed"], teacher=pair["plain"].teacher) == pair["plain"]
    freer = experiments.paced_grid(DIGITS[0], 0.1, [4], [0.025], decay=0.002)["T = 4", 0.025]["plain"]
    assert freer == replace(pair["plain"], schedule=replace(pair["plain"].schedule, weight_decay=0.002))


TUNED = [
    (method, setting)
    for preset in ("quick", "desktop")
    for method in METHODS
    for setting in experiments.settings_of(method, preset)
]


def described(arm, method):
    return {**describe(arm.objective), "method": method}


def published(method, setting):
    rows = experiments.tuned_rows(experiments.regime(setting).preset)
    return [r for r in rows if (r["data"], r["train"], r["method"]) == (setting.data, setting.train, method)]


@pytest.mark.parametrize(("method", "setting"), TUNED, ids=str)
def test_every_method_has_twelve_trials_and_they_differ(method, setting):
    trials = experiments.trials(method, setting)
    assert len(trials) == len(set(trials)) == 12
    assert {type(trial.objective) for trial in trials} == {type(objective(method.partition(":")[0]))}


def test_rates_are_the_baselines_or_a_stated_part_of_it():
    allowed = {1.0, 0.5, 0.25, 0.125}
    trials = [trial for method, setting in TUNED for trial in experiments.trials(method, setting)]
    assert all(trial.rate in allowed for trial in trials if trial.decay is None)


@pytest.mark.parametrize(("method", "setting"), TUNED, ids=str)
def test_the_published_trials_are_those_of_the_table(method, setting):
    for row, trial in zip(published(method, setting), experiments.trials(method, setting), strict=True):
        arm = trial.arm(setting)
        assert row["learning_rate"] == arm.schedule.learning_rate
        assert row["weight_decay"] == arm.schedule.weight_decay
        assert row["seeds"] == len(experiments.regime(setting).trial_seeds)
        assert row.items() >= described(arm, method).items()


@pytest.mark.parametrize("preset", ["quick", "desktop"])
def test_no_other_trials_are_published(preset):
    methods = [setting for method in METHODS for setting in experiments.settings_of(method, preset)]
    assert len(experiments.tuned_rows(preset)) == 12 * len(methods)


@pytest.mark.parametrize(("method", "setting"), TUNED, ids=str)
def test_the_tuned_arm_is_the_trial_with_the_best_validation_accuracy(method, setting):
    arm = experiments.tuned(setting, method)
    rows = published(method, setting)
    best = max(r["validation_accuracy"] for r in rows)
    chosen = [r for r in rows if r["learning_rate"] == arm.schedule.learning_rate and r["validation_accuracy"] == best]
    assert any(r.items() >= described(arm, method).items() for r in chosen)
    (run,) = arm.runs([0])
    assert (run.teacher is not None) == arm.objective.takes_teacher


def test_teachers_are_of_their_own_streams_and_as_stated():
    teachers = {name: experiments.tuned(DIGITS[0], name).teacher for name in ("kd", "re-kd", "de-kd", "tf-kd-self")}
    students = experiments.tuned(DIGITS[0], "kd").runs([7])
    assert students[0].teacher.run.seed == 7
    assert all(teacher.arm.role == "teacher" for teacher in teachers.values())
    widths = {name: teacher.arm.network.hidden for name, teacher in teachers.items()}
    assert widths == {"kd": (256,), "re-kd": (8,), "de-kd": (256,), "tf-kd-self": (64, 64)}
    assert (teachers["de-kd"].arm.schedule.epochs, teachers["de-kd"].arm.schedule.last) == (200, 2)
    assert isinstance(experiments.tuned(MIXTURES[0], "kd:posterior").teacher, ExactPosterior)
    with pytest.raises(InputError, match="unknown teacher 'wise'; there are strong, poor, weak, equal, posterior"):
        experiments.teacher(DIGITS[0], "wise")


def test_ties_go_to_the_lower_likelihood_loss():
    rows = [{"validation_accuracy": 0.9, "validation_nll": nll} for nll in (0.5, 0.3, 0.4)]
    assert experiments.best_trial(rows)["validation_nll"] == 0.3


def test_tuning_an_unknown_method_is_refused():
    with pytest.raises(InputError, match="unknown method 'kdd'; there are trials for cross-entropy"):
        experiments.tune("kdd", DIGITS[0])
    with pytest.raises(InputError, match="is not tuned on digits, n = 77"):
        experiments.tuned(Setting("digits", 77), "lsr")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cross-entropy", "lsrkd-tc", "kd", "ps-kd"])
def test_tuning_again_gives_the_published_figures(method):
    """The same to rounding: another processor may sum in another order."""
    setting = DIGITS[0]
    for again, row in zip(experiments.tune(method, setting), published(method, setting), strict=True):
        assert again["validation_accuracy"] == pytest.approx(row["validation_accuracy"], abs=0.005)


def test_the_sweeps_vary_one_constant():
    lines, baselines = experiments.smoothing_sweep([0.1, 0.2], [50, 600])
    assert {name: list(line) for name, line in lines.items()} == {"n = 50": [0.1, 0.2], "n = 600": [0.1, 0.2]}
    assert lines["n = 50"][0.1].setting.train == 50
    assert lines["n = 600"][0.1].schedule == baselines["n = 600"].schedule
    grid = experiments.softening_grid(DIGITS[0], [1, 4], [0.1])
    assert grid["τ = 4"][0.1].objective == objective("lsrkd", alpha=0.1, temperature=4)
    by_gap, by_share, controls = experiments.correction_sweeps(DIGITS[0], [4], [6], [0.3])
    assert controls["τ = 4"].objective.alpha == by_gap["τ = 4"][6].objective.alpha
    assert by_share["τ = 4"][0.3].objective.share == 0.3


@pytest.mark.parametrize(
    ("epsilons", "sizes", "message"),
    [
        ([], [100], r"epsilons is \[\]; give a list of at least one number"),
        (0.1, [100], "epsilons is 0.1; give a list"),
        (["much"], [100], "epsilons holds 'much'; give numbers"),
        ([2], [100], "epsilon is 2"),
    ],
)
def test_a_sweep_over_nonsense_is_refused(epsilons, sizes, message):
    with pytest.raises(InputError, match=message):
        experiments.smoothing_sweep(epsilons, sizes)
