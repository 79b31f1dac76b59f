from dataclasses import replace

import pytest

from lsr_core import InputError, objective
from lsr_core.models import Transformer
from lsr_core.run import TrainedTeacher
from study import tuning
from study.arms import (
    arm_of,
    generation,
    grid,
    label_smoothing,
    language_arms,
    loss_scale_arms,
    smoothed_teacher_grid,
    smoothing_by_setting,
    teacher_stages,
    transferred,
    with_objective,
)
from study.plans import plan
from study.settings import DIGITS, Setting
from study.tuning import trials, tuned

CE = tuned(DIGITS[0], "cross-entropy")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: generation(DIGITS[0], -1), "generation is -1; generations are counted from 0"),
        (lambda: transferred(DIGITS[0], "nothing", "32"), "method 'nothing' is not tuned on digits, n = 100"),
        (lambda: with_objective(CE, "lsrr"), "unknown method 'lsrr'"),
        (lambda: with_objective(CE, "kd"), "teacher is None; method 'kd' needs one"),
    ],
)
def test_an_arm_that_cannot_be_is_one_sentence(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_students_at_one_rate_differ_by_their_teacher_alone():
    pair = smoothed_teacher_grid(DIGITS[0], 0.1, [4], [0.025])["T = 4", 0.025]
    assert pair["smoothed"].schedule == pair["plain"].schedule
    assert pair["plain"].schedule.learning_rate == 0.025
    assert pair["smoothed"].objective == pair["plain"].objective == objective("soft-only", temperature=4)
    teachers = {name: student.teacher.run for name, student in pair.items()}
    assert teachers["smoothed"].objective == objective("lsr", epsilon=0.1)
    assert teachers["plain"].objective == objective("cross-entropy")
    assert replace(pair["smoothed"], teacher=pair["plain"].teacher) == pair["plain"]
    freer = smoothed_teacher_grid(DIGITS[0], 0.1, [4], [0.025], decay=0.002)["T = 4", 0.025]["plain"]
    assert freer == replace(pair["plain"], schedule=replace(pair["plain"].schedule, weight_decay=0.002))


def test_a_generations_teacher_is_the_one_before():
    arms = [generation(DIGITS[0], number) for number in range(3)]
    assert [arm.role for arm in arms] == ["generation-0", "generation-1", "generation-2"]
    assert [arm.teacher and arm.teacher.run for arm in arms] == [None, *arms[:2]]
    last = replace(arms[1], teacher=TrainedTeacher(arms[0], 60))
    assert last.at(0).key == arms[1].at(0).key


def test_a_stage_is_the_strong_teacher_stopped():
    lines, stages = teacher_stages(DIGITS[0], [1, 5])
    assert [stage.schedule.last for stage in stages.values()] == [1, 5]
    assert all(line[5].teacher.run == stages[5] for line in lines.values())
    assert {name: line[1].objective.name for name, line in lines.items()} == {
        "0 uniform": "ladder-uniform",
        "3 permuted": "ladder-permuted",
        "4 teacher": "kd",
    }


def test_a_scaled_loss_is_a_smaller_rate_with_more_decay():
    cells = loss_scale_arms(DIGITS[1], 0.5, 0.2)
    assert len(cells) == 8
    plain, scaled = (cells[f"lsr, scale {scale}, decay on head alone"].schedule for scale in ("1", "0.5"))
    assert scaled.learning_rate == plain.learning_rate / 2
    assert (scaled.weight_decay, scaled.head_decay) == (plain.weight_decay, 2 * plain.head_decay)
    assert plain.weight_decay == 0
    assert cells["lsr, scale 1, decay on all layers"].schedule.weight_decay == plain.head_decay


def test_a_setting_that_was_not_tuned_has_the_schedule_of_the_nearest():
    assert label_smoothing(Setting("digits", 220), 0.1).schedule == tuned(DIGITS[1], "cross-entropy").schedule
    assert label_smoothing(DIGITS[0], 0) == CE
    assert label_smoothing(DIGITS[0], 0.1) == with_objective(CE, "lsr", epsilon=0.1)


def test_constants_that_are_given_go_with_the_baselines_schedule():
    arm = arm_of({"at_constants": {"method": "mrkd", "alpha": 0.7, "temperature": 2}}, DIGITS[0])
    assert arm == replace(CE, objective=objective("mrkd", alpha=0.7, temperature=2))
    assert arm == next(row for row in trials("mrkd", DIGITS[0]) if row.objective == arm.objective)


def test_other_networks_and_a_teachers_translations_are_all_that_differs(monkeypatch):
    """As the study `translation-short` has them, whose constants need not be tuned for that."""
    setting = plan("translation-short").settings[0]
    row = {"learning_rate": 0.003, "weight_decay": 0.0, "seeds": 1, "validation_accuracy": 0.5, "validation_nll": 2.0}
    monkeypatch.setattr(tuning, "rows_of", lambda *_: [row | {"temperature": 1.0, "alpha": 0.5, "epsilon": 0.1}])
    tuned.cache_clear()
    try:
        arms = {name: arm_of(call, setting) for name, call in plan("translation-short").calls(setting).items()}
    finally:
        tuned.cache_clear()
    baseline, taught = arms["cross-entropy"], arms["sequence-level kd"]
    assert taught == replace(baseline, targets=TrainedTeacher(arms["plain teacher"]))
    small = Transformer(32, 1)
    assert arms["small cross-entropy"] == replace(baseline, network=small)
    assert arms["small sequence-level kd"] == replace(taught, network=small)
    assert arms["small student of smoothed, T = 1"] == replace(arms["student of smoothed, T = 1"], network=small)
    assert arms["student of smoothed, T = 1"].teacher == TrainedTeacher(arms["smoothed teacher"])
    assert len(arms) == 19
    assert arms.pop("lsr") in arms.values()  # it is tuned to the ε of the other
    assert len(set(arms.values())) == 18


def test_in_the_made_language_methods_differ_in_their_labels_alone():
    plain, smooth, word, sequence = language_arms(50).values()
    teacher = replace(plain, role="teacher")
    assert smooth == replace(plain, objective=objective("lsr", epsilon=0.1))
    assert word == replace(plain, objective=objective("soft-only", temperature=1), teacher=TrainedTeacher(teacher))
    assert sequence == replace(plain, targets=TrainedTeacher(teacher))
    assert plain.train == 50


def test_the_grids_vary_one_or_two_constants():
    lines, controls = smoothing_by_setting([Setting("digits", size) for size in (50, 600)], [0.1, 0.2])
    assert {name: list(line) for name, line in lines.items()} == {
        "digits, n = 50": [0.1, 0.2],
        "digits, n = 600": [0.1, 0.2],
    }
    assert lines["digits, n = 50"][0.1].train == 50
    assert lines["digits, n = 600"][0.1].schedule == controls["digits, n = 600"].schedule
    cells = grid(CE, "lsrkd-tc", rows={"temperature": [1, 4]}, over={"gap": [6]}, alpha=0.3)
    assert list(cells) == ["τ = 1", "τ = 4"]
    assert cells["τ = 4"][6] == replace(CE, objective=objective("lsrkd-tc", alpha=0.3, temperature=4, gap=6))


@pytest.mark.parametrize(
    ("epsilons", "message"),
    [
        ([], r"epsilons is \[\]; give a list of at least one number"),
        (0.1, "epsilons is 0.1; give a list"),
        (["much"], "epsilons holds 'much'; give numbers"),
        ([2], "epsilon is 2"),
    ],
)
def test_a_sweep_over_nonsense_is_refused(epsilons, message):
    with pytest.raises(InputError, match=message):
        smoothing_by_setting([Setting("digits", 100)], epsilons)


@pytest.mark.parametrize(
    ("rows", "over", "message"),
    [
        ({"temperature": []}, {"alpha": [0.1]}, r"temperatures is \[\]; give a list"),
        ({"copies": [1]}, {"every": ["two"]}, "every holds 'two'; give numbers"),
        ({"temperature": [1]}, {"alpha": [True]}, "alphas holds True; give numbers"),
    ],
)
def test_a_grid_over_nonsense_is_refused(rows, over, message):
    with pytest.raises(InputError, match=message):
        grid(CE, "lsrkd", rows, over)
