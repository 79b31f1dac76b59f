import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lsr_core import InputError
from lsr_core.data import DATASETS, Digits, dataset


def test_test_rows_are_the_last_and_the_same_for_every_seed():
    images, labels = load_digits(return_X_y=True)
    first, second = (dataset("digits").split(100, seed) for seed in (0, 1))
    assert torch.equal(first.test_inputs, second.test_inputs)
    np.testing.assert_allclose(first.test_inputs.numpy(), images[1000:] / 16)
    np.testing.assert_array_equal(first.test_labels.numpy(), labels[1000:])


@pytest.mark.parametrize("train", [25, 100, 300, 700])
def test_training_and_validation_come_from_the_first_rows_and_are_disjoint(train):
    images, _ = load_digits(return_X_y=True)
    split = dataset("digits").split(train, 3)
    assert split.train_inputs.shape == (train, 64)
    assert split.validation_inputs.shape == (300, 64)

    def rows(inputs):
        places = [np.flatnonzero((images == image).all(1)) for image in (16 * inputs).numpy()]
        assert all(len(place) == 1 for place in places)  # no image occurs twice
        return {int(place[0]) for place in places}

    training, validation = rows(split.train_inputs), rows(split.validation_inputs)
    assert not training & validation
    assert max(training | validation) < 1000


def test_a_seed_fixes_the_split_and_its_validation_at_any_size():
    small, large, again = (dataset("digits").split(n, 5) for n in (100, 300, 100))
    assert torch.equal(small.train_inputs, again.train_inputs)
    assert torch.equal(small.validation_inputs, large.validation_inputs)
    assert torch.equal(small.train_inputs, large.train_inputs[:100])
    assert not torch.equal(small.train_inputs, dataset("digits").split(100, 6).train_inputs)


def test_other_data_under_the_same_name_is_refused(monkeypatch):
    monkeypatch.setattr(Digits, "fingerprint", "0" * 16)
    with pytest.raises(InputError, match="digits has fingerprint"):
        Digits().split(100, 0)


def test_an_unknown_data_set_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="unknown data set 'digit'; there are digits, mixture-10-65"):
        dataset("digit")


def test_every_data_set_has_its_name():
    assert all(source.name == name for name, source in DATASETS.items())
