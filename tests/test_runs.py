import json
from dataclasses import replace

import pytest
import torch

from lsr_core import InputError, objective
from lsr_core.augmentation import Augmentation
from lsr_core.execute import execute
from lsr_core.models import Convnet, ImageNetwork, Perceptron
from lsr_core.run import ExactPosterior, Run, TrainedTeacher, key_of, run_of, stream
from lsr_core.schedule import Schedule

RUN = Run("digits", 100, objective("lsr"), Schedule(0.1, 1e-3), seed=3)


def test_the_key_is_fixed():
    """A change here trains every run anew: raise NUMERICS on purpose, not by accident."""
    assert RUN.key == key_of(RUN.canonical()) == "f143f03bb08a679bbc10"


def test_equal_descriptions_have_one_key():
    again = Run("digits", 100, objective("lsr", epsilon=0.1), Schedule(0.1, 0.001), seed=3)
    assert again.key == RUN.key
    assert replace(RUN, schedule=Schedule(1, 0)).key == replace(RUN, schedule=Schedule(1.0, 0.0)).key
    images = replace(RUN, data="cifar10", network=ImageNetwork("resnet8"))
    whole, point = (replace(images, augmentation=Augmentation(rotation=degrees)) for degrees in (15, 15.0))
    assert whole.key == point.key


@pytest.mark.parametrize(
    "change",
    [
        {"data": "mixture-10-80"},
        {"train": 101},
        {"objective": objective("lsr", epsilon=0.2)},
        {"objective": objective("cross-entropy")},
        {"schedule": Schedule(0.1, 2e-3)},
        {"schedule": Schedule(0.1, 1e-3, epochs=61)},
        {"seed": 4},
        {"network": Perceptron((64,))},
        {"role": "teacher"},
        *(
            {"schedule": Schedule(0.1, 1e-3, **constant)}
            for constant in (
                {"nesterov": True},
                {"curve": "one-cycle"},
                {"warmup": 1},
                {"head_decay": 0.0},
                {"stop": 3},
            )
        ),
    ],
)
def test_any_change_changes_the_key(change):
    assert replace(RUN, **change).key != RUN.key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "digit"}, "unknown data set 'digit'"),
        ({"train": 0}, "train is 0; digits has 1 to 700 training examples"),
        ({"train": 701}, "train is 701"),
        ({"train": 10.5}, "train is 10.5"),
        ({"seed": -1}, "seed is -1"),
        ({"objective": objective("lsrkd-tc-share", share=0.05)}, "with 10 classes it must be at least 1/10"),
    ],
)
def test_a_run_that_cannot_be_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(RUN, **change)


def student(**teacher):
    return replace(RUN, objective=objective("kd"), teacher=TrainedTeacher(replace(RUN, role="teacher"), **teacher))


@pytest.mark.parametrize(
    "run",
    [
        RUN,
        student(),
        student(epoch=7),
        replace(student(), teacher=TrainedTeacher(replace(student(), role="generation-1"), 3)),
        Run("mixture-10-80", 50, objective("ladder-class-means"), Schedule(0.1), 0, teacher=ExactPosterior()),
        replace(RUN, network=Convnet((4, 8)), schedule=Schedule(0.1, curve="step", milestones=(3, 5), head_decay=0)),
        replace(RUN, objective=objective("prior-smoothing", prior=torch.rand(10, 10).softmax(-1))),
        replace(RUN, objective=objective("mrkd", copies=2), data="digits/first-7/tail-5", train=60),
    ],
    ids=lambda run: run.objective.name,
)
def test_a_run_can_be_made_from_its_description(run):
    described = json.loads(json.dumps(run.canonical()))
    assert run_of(described).key == run.key


def test_a_description_of_another_version_is_refused():
    for change in ({"numerics": 0}, {"schedule": {"learning_rate": 0.1}}, {"network": {"name": "recurrent"}}):
        with pytest.raises(InputError, match="was described by another version of the study"):
            run_of({**RUN.canonical(), **change})


def test_a_teacher_named_by_its_last_epoch_is_the_same():
    assert student().key == student(epoch=60).key
    assert len({student().key, student(epoch=59).key, RUN.key}) == 3


TEMPLATE = replace(RUN, seed=None)


def test_a_template_has_a_run_for_each_seed():
    assert TEMPLATE.at(3) == RUN
    assert TEMPLATE.at(3).key == RUN.key
    assert TEMPLATE.runs([4, 3]) == [TEMPLATE.at(4), RUN]
    assert RUN.at(5) == TEMPLATE.at(5)


def test_a_templates_teacher_has_the_same_seed():
    teacher = TrainedTeacher(replace(TEMPLATE, role="teacher"), 7)
    first = replace(TEMPLATE, objective=objective("kd"), teacher=teacher)
    assert first.at(3) == student(epoch=7)
    second = replace(first, role="generation-1", teacher=TrainedTeacher(first, 3)).at(9)
    assert [run.seed for run in (second, second.teacher.run, second.teacher.run.teacher.run)] == [9, 9, 9]
    of_truth = Run("mixture-10-80", 50, objective("kd"), Schedule(0.1), teacher=ExactPosterior())
    assert of_truth.at(1).teacher == ExactPosterior()


def test_templates_are_equal_by_value():
    again = Run("digits", 100, objective("lsr", epsilon=0.1), Schedule(0.1, 0.001))
    assert {TEMPLATE: "found"}[again] == "found"
    assert len({TEMPLATE, again, RUN, replace(TEMPLATE, train=99)}) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": 701}, "train is 701"),
        ({"network": Perceptron((64,)), "objective": objective("kd")}, "teacher is None; method 'kd' needs one"),
        (
            {"objective": objective("kd"), "teacher": TrainedTeacher(TEMPLATE)},
            "teacher and student share the streams of every seed, role 'student'; name another role",
        ),
        (
            {"objective": objective("kd"), "teacher": TrainedTeacher(replace(RUN, role="teacher"))},
            "the teacher's seed is 3 and the student's None; give both a seed, or neither",
        ),
    ],
)
def test_a_template_that_cannot_be_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(TEMPLATE, **change)


def test_a_template_is_not_executed():
    for use in (lambda: TEMPLATE.key, lambda: execute([TEMPLATE])):
        with pytest.raises(InputError, match="a run of lsr on digits has no seed; `at` gives it one"):
            use()
    with pytest.raises(InputError, match="seed is -1"):
        TEMPLATE.at(-1)


def test_streams_differ_by_seed_role_and_purpose_and_repeat():
    def draw(*names):
        return torch.rand(8, generator=stream(*names))

    first = draw(0, "student", "weights")
    assert torch.equal(first, draw(0, "student", "weights"))
    for other in ((1, "student", "weights"), (0, "teacher", "weights"), (0, "student", "order")):
        assert not torch.equal(first, draw(*other))
