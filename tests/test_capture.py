"""Recorded steps against the same steps called, on a CPU where a tape stands in for a graph."""

from dataclasses import replace

import pytest
import torch
from recording import Tape, TapeRecorder, use_tapes
from sizes import mostly_slow

from lsr_core import METHODS, capture, objective
from lsr_core.augmentation import Augmentation
from lsr_core.capture import Captured
from lsr_core.models import ImageNetwork
from lsr_core.run import Run, TrainedTeacher
from lsr_core.schedule import Schedule
from lsr_core.trainer import Trainer

SCHEDULE = Schedule(0.05, 5e-4, epochs=3, batch_size=32, nesterov=True)
TRAINABLE = sorted({*METHODS} - {"prior-smoothing"})
CPU = torch.device("cpu")


@pytest.fixture
def make(image_file):
    def run(method="lsr", seed=0, role="student", teacher=None, **constants):
        constants |= {"every": 1} if method.startswith("mrkd") else {}
        seen, network = Augmentation(2, flip=True, rotation=10.0), ImageNetwork("plain_cnn", width=4)
        made = objective(method, **constants)
        return Run(str(image_file), 100, made, SCHEDULE, seed, network, role, teacher, seen)

    return run


def everything(runs, teacher=None):
    """Outcomes, weights, states of memories and of all streams."""
    trainer = Trainer(runs, teacher)
    outcomes = trainer.train()
    return outcomes, [trainer.weights(place) for place in range(len(runs))], trainer.state_dict()


def assert_equal(one, other):
    assert one[0] == other[0]
    for ours, theirs in zip(one[1], other[1], strict=True):
        assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert all(map(torch.equal, one[2]["streams"], other[2]["streams"]))
    for ours, theirs in zip(one[2]["memories"], other[2]["memories"], strict=True):
        assert ours.keys() == theirs.keys()
        if ours:
            assert (ours["steps"], ours["epochs"]) == (theirs["steps"], theirs["epochs"])
            assert all(map(torch.equal, ours["generators"], theirs["generators"]))


@pytest.mark.parametrize("method", mostly_slow(TRAINABLE, "lsr", "kd", "mrkd-fcn", "ps-kd", "beta-smoothing", "zipf"))
def test_a_recorded_step_is_the_step(make, method, monkeypatch):
    """The same bits, order and draws, with graphs for batch and student, and a last, smaller batch that is called."""
    takes = objective(method).takes_teacher
    runs = [make(method, teacher=TrainedTeacher(make(role="teacher")) if takes else None)]
    teacher = Trainer([make(role="teacher")]).weights(0) if takes else None
    called = everything(runs, teacher)
    use_tapes(monkeypatch)
    made = TapeRecorder.made
    recorded = everything(runs, teacher)
    remembers = objective(method).memory is not None
    assert TapeRecorder.made - made == 1 + (SCHEDULE.epochs if remembers else 1)
    assert_equal(recorded, called)


def test_students_side_by_side_share_a_recorded_batch(make, monkeypatch):
    runs = [make(), make("mrkd"), make("beta-smoothing", seed=0)]
    called = everything(runs)
    use_tapes(monkeypatch)
    assert_equal(everything(runs), called)


def test_a_recorded_run_goes_on_from_its_state(make, monkeypatch):
    use_tapes(monkeypatch)
    runs = [make("beta-smoothing"), make("ps-kd"), make("mrkd-fcn")]
    whole = everything(runs)
    first, second = Trainer(runs), Trainer(runs)
    first.train_epoch()
    second.train_epoch()  # its steps are recorded before it gets another state
    second.load_state_dict(first.state_dict())
    second.train()
    assert all(torch.equal(second.weights(0)[name], tensor) for name, tensor in whole[1][0].items())


def test_a_run_that_diverges_does_so_at_the_same_step(make, monkeypatch):
    wild = make()
    wild = replace(wild, schedule=replace(SCHEDULE, learning_rate=1e12))
    called = Trainer([wild, make()]).train()
    use_tapes(monkeypatch)
    recorded = Trainer([wild, make()]).train()
    assert recorded[0].diverged_at == called[0].diverged_at
    assert recorded[1] == called[1]


def test_a_long_run_is_compiled_for_whole_batches_and_says_so(make, monkeypatch):
    called, sizes = Trainer([make()]).train(), []

    def compiled(network, dynamic):
        assert not dynamic
        return lambda images: sizes.append(len(images)) or network(images)

    use_tapes(monkeypatch)
    assert "compiled" not in Trainer([make()]).conditions()
    monkeypatch.setattr(capture, "COMPILED_FROM", 300)
    monkeypatch.setattr(torch, "compile", compiled)
    trainer = Trainer([make()])
    assert trainer.train() == called
    assert trainer.conditions()["compiled"]
    assert sizes == [32, 32]  # one is called, one recorded


def test_another_shape_is_called_and_another_version_recorded_anew(monkeypatch):
    use_tapes(monkeypatch)
    calls = []

    def double(values, factor):
        calls.append(len(values))
        return 2 * values * factor

    doubled = Captured(double, CPU)
    for version in (0, 1):
        for step in range(5):
            values = torch.full((3,), float(step))
            assert torch.equal(doubled(values, torch.tensor(0.5), version=version), values)
        assert torch.equal(doubled(torch.ones(2), torch.tensor(1.0), version=version), torch.full((2,), 2.0))
    assert calls == [3, 3, 2] * 2
    assert doubled.records
    assert not Captured(double, None).records


def test_the_tape_refuses_what_a_graph_would():
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"), Tape():
        torch.ones(1).item()
    with pytest.raises(RuntimeError, match="not permitted"), Tape():
        bool((torch.ones(2) > 0).all())
