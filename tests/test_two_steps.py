"""Runs that start from the weights of another run, as networks of ±1 are trained in two steps."""

from dataclasses import replace

import pytest
import torch

from lsr_core import InputError, objective
from lsr_core.execute import execute
from lsr_core.models import ImageNetwork
from lsr_core.run import Run, TrainedTeacher, run_of
from lsr_core.schedule import Schedule
from lsr_core.stacks import levels_of
from lsr_core.store import Store
from lsr_core.trainer import Trainer, train
from study import tuning
from study.arms import arm_of
from study.plans import plan

BINARY, ACTIVATIONS, REAL = (
    ImageNetwork(f"{name}_resnet8", width=4) for name in ("binary", "binary_activations", "real_twin")
)
ADAM = Schedule(1e-3, 0.0, epochs=1, batch_size=50, optimizer="adam")


@pytest.fixture
def make(image_file):
    """A run on the file's images, by Adam."""

    def run(network=BINARY, role="student", method="cross-entropy", seed=0, **others):
        return Run(str(image_file), 100, objective(method), ADAM, seed, network, role, **others)

    return run


@pytest.fixture
def second(make):
    """A binary network that starts from one whose activations alone are binary; a real one teaches both."""
    teacher = TrainedTeacher(make(REAL, "teacher"))
    first = make(ACTIVATIONS, "first step", "kd", teacher=teacher)
    return make(BINARY, "student", "kd", teacher=teacher, initial=TrainedTeacher(first))


def test_what_a_run_needs_is_trained_before_it(second, tmp_path):
    store = Store(tmp_path)
    levels = [[job.run.network for job in level] for level in levels_of([second], store)]
    assert levels == [[REAL], [ACTIVATIONS], [BINARY]]
    (record,) = execute([second], store)
    assert record.run["initial"]["run"]["network"]["architecture"] == "binary_activations_resnet8"
    assert len(store.keys()) == 3


def test_the_second_step_starts_from_the_tensors_of_the_first(second, tmp_path):
    store, first = Store(tmp_path), second.initial.run
    execute([second], store)
    tensors, teacher = store.weights(first.key, 1), store.weights(second.teacher.run.key, 1)
    trainer = Trainer([second], teacher, initial=[tensors])
    begun = trainer.weights(0)
    assert all(torch.equal(begun[name], tensor) for name, tensor in tensors.items())
    (outcome,), (drawn,) = trainer.train(), train([replace(second, initial=None)], teacher)
    assert outcome.metrics == store.get(second.key).metrics
    assert outcome.metrics["nll"] != drawn.metrics["nll"]


def test_side_by_side_each_starts_from_its_own(make, tmp_path):
    teacher = TrainedTeacher(make(REAL, "teacher"))
    firsts = [None, *(TrainedTeacher(make(ACTIVATIONS, "first step", method)) for method in ("cross-entropy", "lsr"))]
    students = [make(method="kd", teacher=teacher, initial=first) for first in firsts]
    assert len({student.stack_key for student in students}) == 1
    together = execute(students, Store(tmp_path))
    alone = [execute([student], Store(tmp_path / str(place)))[0] for place, student in enumerate(students)]
    assert [record.metrics for record in together] == [record.metrics for record in alone]
    assert len({record.metrics["nll"] for record in together}) == 3


def test_a_run_that_starts_from_drawn_weights_keeps_its_key(second, make):
    assert "initial" not in make().canonical()
    for run in (second, make()):
        assert run_of(run.canonical()) == run


def test_a_template_gives_every_step_its_seed(make):
    first = make(ACTIVATIONS, "first step", seed=None)
    template = make(seed=None, initial=TrainedTeacher(first))
    assert template.at(3) == make(seed=3, initial=TrainedTeacher(first.at(3)))


def test_bad_input_is_one_sentence(make):
    first = TrainedTeacher(make(ACTIVATIONS, "first step"))
    with pytest.raises(InputError, match=r"cannot start from the weights of .*width=8.*; both need the same tensors"):
        make(initial=TrainedTeacher(make(replace(ACTIVATIONS, width=8), "first step")))
    with pytest.raises(InputError, match=r"first step and student share the streams of seed 0, role 'first step'"):
        make(role="first step", initial=first)
    with pytest.raises(InputError, match=r"the first step's seed is 0 and the student's None"):
        make(seed=None, initial=first)
    with pytest.raises(InputError, match=r"initial weights are of networks for images; digits has none"):
        Run("digits", 100, objective("lsr"), Schedule(0.1), 0, initial=first)


def test_the_students_of_a_plan_share_their_first_step_and_its_teachers_have_none(monkeypatch):
    """As the study `binary` has it, whose constants need not be tuned for that."""
    setting, *_ = plan("binary").settings
    row = {"learning_rate": 0.005, "weight_decay": 0.0, "seeds": 1, "validation_accuracy": 0.2, "validation_nll": 3.0}
    constants = {"epsilon": 0.1, "alpha": 0.5, "temperature": 2.0}
    monkeypatch.setattr(tuning, "rows_of", lambda *_: [row | constants])
    tuning.tuned.cache_clear()
    try:
        found = {name: arm_of(call, setting) for name, call in plan("binary").calls(setting).items()}
    finally:
        tuning.tuned.cache_clear()
    teachers = {name: found.pop(name) for name in ("plain teacher", "smoothed teacher")}
    real = {name: found.pop(name) for name in ("real cross-entropy", "real kd")}
    assert all(arm.initial is None for arm in [*teachers.values(), *real.values()])
    assert len(found) == 8
    (first,) = {arm.initial for arm in found.values()}
    assert first.run.network.architecture == "binary_activations_resnet8"
    assert first.run.objective == objective("cross-entropy")
    assert {arm.network.architecture for arm in found.values()} == {"binary_resnet8"}
    assert {arm.network.architecture for arm in real.values()} == {"real_twin_resnet8"}
    assert real["real kd"].schedule.epochs == found["kd"].schedule.epochs + first.run.schedule.epochs
    assert real["real kd"].teacher == found["kd"].teacher == found["student of plain"].teacher
    assert found["student of smoothed"].teacher.run == teachers["smoothed teacher"]
