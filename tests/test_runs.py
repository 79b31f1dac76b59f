from dataclasses import replace

import pytest
import torch

from lsr_core import InputError, objective
from lsr_core.models import Perceptron
from lsr_core.runs import Run, key_of, stream
from lsr_core.schedules import Schedule

RUN = Run("digits", 100, objective("lsr"), Schedule(0.1, 1e-3), seed=3)


def test_the_key_is_fixed():
    """A change here trains every run anew: raise NUMERICS on purpose, not by accident."""
    assert RUN.key == key_of(RUN.canonical()) == "fcff19bcc47fae9776fb"


def test_equal_descriptions_have_one_key():
    again = Run("digits", 100, objective("lsr", epsilon=0.1), Schedule(0.1, 0.001), seed=3)
    assert again.key == RUN.key
    assert replace(RUN, schedule=Schedule(1, 0)).key == replace(RUN, schedule=Schedule(1.0, 0.0)).key


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


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"learning_rate": 0.1, "weight_decay": -1}, "weight_decay is -1"),
        ({"learning_rate": 0.1, "epochs": 0}, "epochs is 0; it must be a whole number above 0"),
        ({"learning_rate": 0.1, "batch_size": 2.5}, "batch_size is 2.5"),
        ({"learning_rate": 0.1, "momentum": 1.5}, "momentum is 1.5"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(constants, message):
    with pytest.raises(InputError, match=message):
        Schedule(**constants)


def test_streams_differ_by_seed_role_and_purpose_and_repeat():
    def draw(*names):
        return torch.rand(8, generator=stream(*names))

    first = draw(0, "student", "weights")
    assert torch.equal(first, draw(0, "student", "weights"))
    for other in ((1, "student", "weights"), (0, "teacher", "weights"), (0, "student", "order")):
        assert not torch.equal(first, draw(*other))
