import numpy as np
import pytest
import torch

from lsr_core import InputError, objective
from lsr_core.data import dataset
from lsr_core.run import Run
from lsr_core.schedule import Schedule


def counts(labels):
    return np.bincount(labels).tolist()


@pytest.mark.slow
def test_a_long_tail_has_the_stated_imbalance():
    split = dataset("mixture-50-80/tail-100").split(2000, seed=3)
    found = np.array(counts(split.train_labels))
    assert found.sum() == 2000
    assert (np.diff(found) <= 0).all()
    assert found[0] / found[-1] == pytest.approx(100, rel=0.15)
    np.testing.assert_allclose(found, found[0] * 100 ** (-np.arange(50) / 49), atol=1)
    assert len(set(counts(split.validation_labels))) == 1


def test_a_stratified_subset_has_equal_classes():
    split = dataset("digits/stratified").split(100, seed=0)
    assert counts(split.train_labels) == [10] * 10
    assert len(set(counts(split.validation_labels))) == 1
    assert max(counts(dataset("digits/stratified").split(104, 0).train_labels)) == 11


def test_the_first_classes_alone():
    whole, part = dataset("mixture-10-80"), dataset("mixture-10-80/first-4")
    split = part.split(100, seed=1)
    assert (part.classes, part.input_dim) == (4, 32)
    for labels in (split.train_labels, split.validation_labels, split.test_labels):
        assert set(labels.tolist()) == {0, 1, 2, 3}
    posterior = split.test_posterior
    torch.testing.assert_close(posterior.sum(-1), torch.ones(len(posterior), dtype=torch.float64))
    log_posterior = whole.log_posterior(split.test_inputs.double().numpy())[:, :4]
    expected = torch.from_numpy(log_posterior).softmax(-1)  # Bayes's rule among four equally likely classes
    torch.testing.assert_close(posterior, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["digits/first-5", "digits/tail-10", "digits/first-3/stratified", "digits/stratified"])
def test_parts_of_the_digits_are_digits_and_disjoint(name):
    source = dataset(name)
    split = source.split(source.max_train, seed=7)
    assert len(split.train_labels) == source.max_train
    everything = {tuple(row) for row in torch.cat([split.train_inputs, split.validation_inputs]).tolist()}
    assert len(everything) == source.max_train + len(split.validation_labels)
    test = dataset("digits").split(100, 0)
    torch.testing.assert_close(split.test_inputs, test.test_inputs[test.test_labels < source.classes])


@pytest.mark.parametrize("name", ["digits/tail-10", "mixture-10-80/stratified", "digits/first-5"])
def test_the_seed_decides(name):
    first, again, other = (dataset(name).split(60, seed) for seed in (1, 1, 2))
    assert torch.equal(first.train_inputs, again.train_inputs)
    assert not torch.equal(first.train_inputs, other.train_inputs)


def test_any_mixture_can_be_named():
    source = dataset("mixture-20x4-16d-noise-1.5")
    quiet = dataset("mixture-20x4-16d-noise-0.1")
    assert (source.classes, source.input_dim) == (20, 16)
    certain = [s.split(1, 0).test_posterior.amax(-1).mean() for s in (source, quiet)]
    assert certain[0] < 0.9
    assert certain[1] > 0.999
    np.testing.assert_allclose(source.means * 1.5, quiet.means * 0.1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits/first-11", "'digits/first-11' has 11 classes; digits has 2 to 10"),
        ("digits/first-1", "has 1 classes; digits has 2 to 10"),
        ("digits/tail-0.5", "has an imbalance of 0.5; it must be 1 or above"),
        ("digits/half", "unknown part '/half' of data set 'digits'; after a name comes '/first-5'"),
        ("digits/tail-5/first-3", "unknown part"),
        ("digit/tail-5", "unknown data set 'digit'; there are digits, mixture-10-65"),
        ("mixture-4x5-16d-noise-1", "has 5 superclasses of 4 classes; 2 or more"),
        ("mixture-4x2-16d-noise-0", "has noise 0; it must be above 0"),
        ("mixture-4x2-16d", "unknown data set 'mixture-4x2-16d'"),
        (7, "data is 7; give a data set's name"),
    ],
)
def test_names_that_cannot_be_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        dataset(name)


def test_more_examples_than_there_are_is_refused():
    with pytest.raises(InputError, match="train is 600; digits/tail-50 has 1 to 197 training examples"):
        Run("digits/tail-50", 600, objective("lsr"), Schedule(0.1), seed=0)
    with pytest.raises(InputError, match="train is 20; digits/tail-50 needs one example of each class"):
        Run("digits/tail-50", 20, objective("lsr"), Schedule(0.1), seed=0)


@pytest.mark.slow
def test_the_first_classes_scatter_as_a_random_draw_does():
    """Class counts of training sets are multinomial: their variance over seeds is n p (1 − p)."""
    drawn = (dataset("mixture-50-80/first-5").split(50, seed).train_labels for seed in range(200))
    counted = np.array([np.bincount(labels, minlength=5) for labels in drawn])
    assert counted.sum(1).tolist() == [50] * 200
    assert counted.var() == pytest.approx(50 * 0.2 * 0.8, rel=0.15)
