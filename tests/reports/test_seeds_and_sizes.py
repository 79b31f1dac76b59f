"""Numbers as users have them: from NumPy, from tensors, from files, and things that only look like numbers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from lsr_core import InputError, objective
from lsr_core.augmentation import Augmentation
from lsr_core.data import dataset
from lsr_core.models import Convnet, ImageNetwork, Perceptron
from lsr_core.run import Run, TrainedTeacher, stream
from lsr_core.schedule import Schedule
from study.settings import paired_seeds

RUN = Run("digits", 100, objective("lsr"), Schedule(0.1, epochs=4, batch_size=20), seed=3)
# What a user's own code holds instead of a Python number.
FORMS = [np.int64, np.uint8, np.array, torch.tensor]


# A loop over `np.arange(5)` hands out seeds of NumPy, and a run with one could not be written as JSON.
@pytest.mark.parametrize("of", FORMS)
def test_whole_numbers_of_other_libraries_describe_the_same_run(of):
    schedule = Schedule(0.1, epochs=of(4), batch_size=of(20), warmup=of(1), stop=of(3), milestones=[of(2), of(3)])
    assert schedule == Schedule(0.1, epochs=4, batch_size=20, warmup=1, stop=3, milestones=(2, 3))
    assert hash(schedule) == hash(replace(schedule, epochs=4))
    for network, same in (
        (Perceptron([of(8), of(8)]), Perceptron((8, 8))),
        (Convnet([of(2)]), Convnet((2,))),
        (ImageNetwork("wide_resnet", of(2), of(10)), ImageNetwork("wide_resnet", 2, 10)),
    ):
        assert (network, hash(network), json.dumps(network.canonical())) == (
            same, hash(same), json.dumps(same.canonical()),
        )  # fmt: skip
    assert Augmentation(padding=of(2)) == Augmentation(padding=2)
    again = replace(RUN, train=of(100), seed=of(3), schedule=replace(RUN.schedule, epochs=of(4)))
    assert (again, again.key) == (RUN, RUN.key)
    teacher = replace(RUN, role="teacher")
    assert TrainedTeacher(teacher, of(2)).canonical() == TrainedTeacher(teacher, 2).canonical()
    assert paired_seeds(of(3)) == paired_seeds([of(0), of(1), of(2)]) == (0, 1, 2)
    assert torch.equal(dataset("digits").split(of(9), of(1)).train_inputs, dataset("digits").split(9, 1).train_inputs)


# `for eps in np.linspace(0, .4, 5)` in float32: "epsilon is np.float32(0.1); it must be a number from 0 to 1".
@pytest.mark.parametrize("of", [np.float32, np.float64, np.array, torch.tensor])
def test_decimals_of_other_libraries_are_numbers(of):
    assert objective("lsr", epsilon=of(0.25)) == objective("lsr", epsilon=0.25)
    schedule = Schedule(of(0.5), of(0.25), momentum=of(0.5), head_decay=of(0.5), drop=of(0.5))
    same = Schedule(0.5, 0.25, momentum=0.5, head_decay=0.5, drop=0.5)
    made = [replace(RUN, objective=objective("lsr", epsilon=of(0.25)), schedule=schedule).key]
    assert made == [replace(RUN, objective=objective("lsr", epsilon=0.25), schedule=same).key]


def test_arrays_name_seeds():
    assert paired_seeds(np.arange(3)) == paired_seeds(torch.arange(3)) == paired_seeds(range(3)) == (0, 1, 2)


# `seed=True` passed for 1, and trained in streams named "True" that no other run shares.
@pytest.mark.parametrize("seed", [True, np.True_, torch.tensor(True), 1.0, np.float64(1), "1", None, [1], -1])
def test_what_is_no_seed_is_refused_everywhere(seed):
    for use in (
        lambda: (
            replace(RUN, seed=seed) if seed is not None else stream(seed, "student", "order")
        ),  # a template has none
        lambda: dataset("digits").split(50, seed),
        lambda: stream(seed, "student", "weights"),
    ):
        with pytest.raises(InputError, match=r"seed is .*; it must be a whole number, 0 or above"):
            use()
    with pytest.raises(InputError, match=r"seed .* is not a whole number from 0 to 999|give a number or a list"):
        paired_seeds([seed, 2])


@pytest.mark.parametrize("train", [True, "50", 50.0, None, [50], 0, 701, np.int64(-1)])
def test_what_is_no_size_is_refused(train):
    with pytest.raises(InputError, match=r"train is .*; digits has 1 to 700 training examples"):
        replace(RUN, train=train)
    with pytest.raises(InputError, match=r"train is .*; digits/first-5 has 1 to 3.. training examples"):
        dataset("digits/first-5").split(train, 0)


# A number read from a file is text: "epochs is 6; it must be a whole number above 0".
def test_a_refused_value_is_told_as_it_is():
    for make, told in (
        (lambda: Schedule("0.1"), "learning_rate is '0.1', of type str; it must be a finite number above 0"),
        (lambda: Schedule(0.1, epochs="6"), "epochs is '6', of type str; it must be a whole number above 0"),
        (lambda: objective("lsrkd-tc", gap="6"), "gap is '6', of type str; it must be a finite number, 0 or above"),
        (lambda: objective("lsr", epsilon=1j), "epsilon is 1j, of type complex; it must be a number from 0 to 1"),
        (lambda: objective("lsr", epsilon=[0.1]), r"epsilon is \[0.1\], of type list; it must be a number"),
        (lambda: objective("lsr", epsilon=torch.eye(3)), "epsilon is tensor.*, of type Tensor; it must be a number"),
        (lambda: Schedule(0.1, warmup=True), "warmup is True; it must be a whole number of epochs below 60"),
        (lambda: Schedule(0.1, milestones=5), "milestones is 5; it must be a list of whole numbers above 0"),
        (lambda: Perceptron(64), "hidden is 64; it must be a list of whole numbers above 0"),
        (lambda: Perceptron((True,)), "hidden is True; it must be a whole number above 0"),
        (lambda: Convnet("8"), "channels is '8'; it must be a list of whole numbers above 0"),
        (lambda: Augmentation(rotation=True), "rotation is True; it must be 0 to 180 degrees"),
    ):
        with pytest.raises(InputError, match=told) as error:
            make()
        assert "\n" not in str(error.value)
