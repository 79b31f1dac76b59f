import json
import math
from unittest.mock import Mock

import pytest
from scipy import stats

from lsr_core import InputError, objective
from lsr_core.objectives import describe
from lsr_core.run import ExactPosterior
from study import search, tuning
from study.search import tune
from study.settings import DIGITS, MIXTURES, Setting
from study.tuning import TUNED, best_trial, methods_of, protocol, rows_of, teacher_of, trials, tuned, tuned_rows

CASES = [(method, setting) for settings in TUNED.values() for setting in settings for method in methods_of(setting)]
WITHOUT_PLAN = [(method, setting) for method, setting in CASES if not setting.study]


def described(arm, method):
    return {**describe(arm.objective), "method": method}


def test_every_method_has_twelve_trials_and_they_differ():
    for method, setting in WITHOUT_PLAN:
        tried = trials(method, setting)
        assert len(tried) == len(set(tried)) == 12, (method, setting)
        assert {type(arm.objective) for arm in tried} == {type(objective(method.partition(":")[0]))}


def test_rates_are_the_baselines_or_a_stated_part_of_it():
    for method, setting in WITHOUT_PLAN:
        if method != "cross-entropy":
            baseline = tuned(setting, "cross-entropy").schedule
            shares = {arm.schedule.learning_rate / baseline.learning_rate for arm in trials(method, setting)}
            assert shares <= {1.0, 0.5, 0.25, 0.125}, (method, setting)


def test_the_published_trials_are_those_of_the_table():
    for method, setting in WITHOUT_PLAN:
        for row, arm in zip(rows_of(setting, method), trials(method, setting), strict=True):
            assert row["learning_rate"] == arm.schedule.learning_rate
            assert row["weight_decay"] == arm.schedule.weight_decay
            assert row["seeds"] == len(protocol(setting).trial_seeds)
            assert row.items() >= described(arm, method).items(), (method, setting)


@pytest.mark.parametrize("preset", ["quick", "desktop"])
def test_no_other_trials_are_published(preset):
    assert len(tuned_rows(preset)) == 12 * sum(len(methods_of(setting)) for setting in TUNED[preset])


def test_the_tuned_arm_is_the_trial_with_the_best_validation_accuracy():
    for method, setting in WITHOUT_PLAN:
        arm, rows = tuned(setting, method), rows_of(setting, method)
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
    with pytest.raises(InputError, match="unknown teacher 'wise'; there are strong, poor, smoothed, "):
        teacher_of(DIGITS[0], "wise")


def test_ties_go_to_the_lower_likelihood_loss():
    rows = [{"seeds": 1, "validation_accuracy": 0.9, "validation_nll": nll} for nll in (0.5, 0.3, 0.4)]
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
    for again, row in zip(tune(method, setting), rows_of(setting, method), strict=True):
        assert again["validation_accuracy"] == pytest.approx(row["validation_accuracy"], abs=0.005)


def test_a_constant_lies_inside_on_an_edge_or_at_a_bound(monkeypatch):
    """The largest of three values of α, the baseline's rate, and a decay between two others."""
    setting = Setting("digits", 100, "tiny")
    cells = [
        (0.1, 0.1, 1e-3),
        (0.5, 0.1, 1e-3),
        (0.9, 0.1, 1e-3),
        (0.9, 0.05, 1e-3),
        (0.9, 0.1, 5e-4),
        (0.9, 0.1, 2e-3),
    ]
    rows = [
        {"alpha": a, "learning_rate": rate, "weight_decay": decay, "seeds": 3, "validation_nll": 1.0, "failed": 0.0}
        | {"validation_accuracy": 0.8 + 0.1 * (i == 2), "train_accuracy": 1.0, "method": "kd"}
        for i, (a, rate, decay) in enumerate(cells)
    ]
    monkeypatch.setattr(search, "rows_of", lambda *_: rows)
    content = {"tuning": {"ladders": {"alpha": [0.1, 0.5, 0.9, 0.95]}}}
    monkeypatch.setattr(search, "plan", lambda _: Mock(content=content))
    found = {place.name: (place.value, place.where) for place in search.places("kd", setting)}
    assert found == {"alpha": (0.9, "edge"), "learning_rate": (0.1, "bound"), "weight_decay": (1e-3, "inside")}


def test_the_error_of_a_choice_is_that_of_the_difference_to_the_next_best():
    rows = [
        {"seeds": 3, "validation_accuracy": sum(a) / 3, "validation_nll": 1.0, "accuracies": a}
        for a in ([0.50, 0.52, 0.54], [0.51, 0.50, 0.49], [0.3, 0.3, 0.3])
    ]
    assert search.error_of_choice(rows) == pytest.approx(stats.sem([-1, 2, 5]))


def test_rows_that_another_process_wrote_meanwhile_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "FOLDER", tmp_path)
    kept = {method: rows_of(DIGITS[0], method) for method in ("cross-entropy", "lsr")}
    caches = tuning.published_rows, tuning.tuned
    for cached in caches:
        cached.cache_clear()
    assert tuned_rows() == []  # read before
    (tmp_path / "quick.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in kept["lsr"]))
    try:
        tuning.write_tuned_rows(kept["cross-entropy"])
        assert tuned_rows() == [*kept["cross-entropy"], *kept["lsr"]]
        assert [path.name for path in tmp_path.iterdir()] == ["quick.jsonl"]
    finally:
        for cached in caches:
            cached.cache_clear()


def test_a_choice_without_another_finalist_has_no_error():
    (row, *_) = rows_of(DIGITS[0], "lsr")
    assert math.isnan(search.error_of_choice([row]))
