import pytest

from lsr_core import InputError, objective
from lsr_core.objectives import describe
from lsr_core.run import ExactPosterior
from study.settings import DIGITS, MIXTURES, TUNED, Setting
from study.tuning import METHODS, best_trial, protocol, settings_of, teacher_of, trials, tune, tuned, tuned_rows

CASES = [(method, setting) for preset in TUNED for method in METHODS for setting in settings_of(method, preset)]


def described(arm, method):
    return {**describe(arm.objective), "method": method}


def published(method, setting):
    rows = [row for preset in TUNED for row in tuned_rows(preset)]
    return [row for row in rows if (row["data"], row["train"], row["method"]) == (*setting, method)]


def test_every_method_has_twelve_trials_and_they_differ():
    for method, setting in CASES:
        tried = trials(method, setting)
        assert len(tried) == len(set(tried)) == 12, (method, setting)
        assert {type(arm.objective) for arm in tried} == {type(objective(method.partition(":")[0]))}


def test_rates_are_the_baselines_or_a_stated_part_of_it():
    for method, setting in CASES:
        if method != "cross-entropy":
            baseline = tuned(setting, "cross-entropy").schedule
            shares = {arm.schedule.learning_rate / baseline.learning_rate for arm in trials(method, setting)}
            assert shares <= {1.0, 0.5, 0.25, 0.125}, (method, setting)


def test_the_published_trials_are_those_of_the_table():
    for method, setting in CASES:
        for row, arm in zip(published(method, setting), trials(method, setting), strict=True):
            assert row["learning_rate"] == arm.schedule.learning_rate
            assert row["weight_decay"] == arm.schedule.weight_decay
            assert row["seeds"] == len(protocol(setting).trial_seeds)
            assert row.items() >= described(arm, method).items(), (method, setting)


@pytest.mark.parametrize("preset", TUNED)
def test_no_other_trials_are_published(preset):
    assert len(tuned_rows(preset)) == 12 * sum(len(settings_of(method, preset)) for method in METHODS)


def test_the_tuned_arm_is_the_trial_with_the_best_validation_accuracy():
    for method, setting in CASES:
        arm, rows = tuned(setting, method), published(method, setting)
        best = max(row["validation_accuracy"] for row in rows)
        chosen = [row for row in rows if row["validation_accuracy"] == best]
        own = {**described(arm, method), "learning_rate": arm.schedule.learning_rate}
        assert any(row.items() >= own.items() for row in chosen), (method, setting)
        assert (arm.at(0).teacher is not None) == arm.objective.takes_teacher


def test_teachers_are_of_their_own_streams_and_as_stated():
    teachers = {name: tuned(DIGITS[0], name).teacher for name in ("kd", "re-kd", "de-kd", "tf-kd-self")}
    students = tuned(DIGITS[0], "kd").runs([7])
    assert students[0].teacher.run.seed == 7
    assert all(teacher.run.role == "teacher" for teacher in teachers.values())
    widths = {name: teacher.run.network.hidden for name, teacher in teachers.items()}
    assert widths == {"kd": (256,), "re-kd": (8,), "de-kd": (256,), "tf-kd-self": (64, 64)}
    assert (teachers["de-kd"].run.schedule.epochs, teachers["de-kd"].run.schedule.last) == (200, 2)
    assert isinstance(tuned(MIXTURES[0], "kd:posterior").teacher, ExactPosterior)
    with pytest.raises(InputError, match="unknown teacher 'wise'; there are strong, poor, weak, equal, posterior"):
        teacher_of(DIGITS[0], "wise")


def test_ties_go_to_the_lower_likelihood_loss():
    rows = [{"validation_accuracy": 0.9, "validation_nll": nll} for nll in (0.5, 0.3, 0.4)]
    assert best_trial(rows)["validation_nll"] == 0.3


def test_tuning_an_unknown_method_is_refused():
    with pytest.raises(InputError, match="unknown method 'kdd'; there are trials for cross-entropy"):
        tune("kdd", DIGITS[0])
    with pytest.raises(InputError, match="is not tuned on digits, n = 77"):
        tuned(Setting("digits", 77), "lsr")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cross-entropy", "lsrkd-tc", "kd", "ps-kd"])
def test_tuning_again_gives_the_published_figures(method):
    """The same to rounding: another processor may sum in another order."""
    setting = DIGITS[0]
    for again, row in zip(tune(method, setting), published(method, setting), strict=True):
        assert again["validation_accuracy"] == pytest.approx(row["validation_accuracy"], abs=0.005)
