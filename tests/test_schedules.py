import math

import pytest
import torch

from lsr_core import InputError
from lsr_core.schedule import Schedule

STEPS = 10  # of an epoch


def rates(schedule):
    return [schedule.rate(step / STEPS) for step in range(schedule.epochs * STEPS)]


def torchs(make, epochs):
    """The rates of a scheduler of torch that is stepped after every batch."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    found = []
    for _ in range(epochs * STEPS):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_is_torchs():
    expected = torchs(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 200), 20)
    assert rates(Schedule(0.1, epochs=20)) == pytest.approx(expected, abs=1e-12)


def test_steps_are_torchs():
    expected = torchs(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [60, 120, 160], 0.2), 20)
    schedule = Schedule(0.1, epochs=20, curve="step", milestones=(6, 12, 16), drop=0.2)
    assert rates(schedule) == pytest.approx(expected, abs=1e-12)


def test_one_cycle_is_torchs_to_a_step():
    expected = torchs(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1.0, 2000, cycle_momentum=False), 200)
    found = rates(Schedule(0.1, epochs=200, curve="one-cycle"))
    assert found == pytest.approx(expected, abs=0.005)  # torch's peak lies one step earlier
    assert found[0] == pytest.approx(1 / 25)
    assert max(found) == pytest.approx(1.0)


def test_a_warm_up_rises_linearly():
    found = rates(Schedule(0.1, epochs=10, warmup=2))
    assert found[:20] == pytest.approx([step / 20 for step in range(20)])
    assert found[20:] == pytest.approx([(1 + math.cos(math.pi * s / 80)) / 2 for s in range(80)])


def test_an_early_stop_changes_no_rate():
    whole, stopped = Schedule(0.1, epochs=10), Schedule(0.1, epochs=10, stop=3)
    assert (whole.last, stopped.last) == (10, 3)
    assert rates(whole) == rates(stopped)


def test_whole_numbers_and_decimals_are_one_schedule():
    assert Schedule(1, 0, head_decay=1).canonical() == Schedule(1.0, 0.0, head_decay=1.0).canonical()
    assert str(Schedule(1, 0).canonical()) == str(Schedule(1.0, 0.0).canonical())
    assert "optimizer" not in Schedule(1).canonical()  # keys of runs by SGD are as they were
    assert Schedule(**Schedule(1, optimizer="adam").canonical()).optimizer == "adam"
    assert Schedule(**Schedule(0.1, milestones=(3, 4), curve="step").canonical()).milestones == (3, 4)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"weight_decay": -1}, "weight_decay is -1"),
        ({"head_decay": float("nan")}, "head_decay is nan"),
        ({"epochs": 2.5}, "epochs is 2.5"),
        ({"momentum": 2}, "momentum is 2"),
        ({"nesterov": 1}, "nesterov is 1; it must be True or False"),
        ({"optimizer": "adamw"}, "unknown optimizer 'adamw'; there are sgd, adam"),
        ({"optimizer": "adam", "nesterov": True}, "nesterov is True; adam has no such momentum"),
        ({"momentum": 0, "nesterov": True}, "momentum is 0; nesterov needs one above 0"),
        ({"momentum": 1, "optimizer": "adam"}, "momentum is 1; adam needs one below 1"),
        ({"curve": "linear"}, "unknown curve 'linear'; there are cosine, step, one-cycle"),
        ({"milestones": (0.5,)}, "milestones is 0.5; it must be a whole number above 0"),
        ({"warmup": 60}, "warmup is 60; it must be a whole number of epochs below 60"),
        ({"stop": 61}, "stop is 61; the schedule has 60 epochs"),
        ({"stop": 0}, "stop is 0"),
    ],
)
def test_constants_that_cannot_be_are_refused(constants, message):
    with pytest.raises(InputError, match=message):
        Schedule(**{"learning_rate": 0.1, **constants})
