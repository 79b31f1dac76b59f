import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from lsr_core.data import DATASETS, Mixture, dataset

MIXTURES = [name for name in DATASETS if name.startswith("mixture")]


def test_the_designs_mixtures_are_there():
    shapes = {(m.classes, m.superclass_count, m.input_dim) for m in DATASETS.values() if isinstance(m, Mixture)}
    assert shapes == {(10, 5, 32), (50, 10, 64)}
    assert len(MIXTURES) == 6


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXTURES)
def test_bayes_accuracy_on_a_million_points(name):
    """The mean of the largest posterior, and the accuracy of the best guess, on 10^6 fresh draws."""
    mixture, generator = dataset(name), np.random.default_rng(7)
    promised, right, total = 0.0, 0, 1_000_000
    for _ in range(total // 50_000):
        inputs, labels = mixture.sample(50_000, generator)
        log_posterior = mixture.log_posterior(inputs)
        promised += np.exp(log_posterior.max(-1)).sum()
        right += (log_posterior.argmax(-1) == labels).sum()
    assert promised / total == pytest.approx(int(name[-2:]) / 100, abs=0.001)
    assert right / total == pytest.approx(int(name[-2:]) / 100, abs=0.002)


def test_posterior_is_bayes_rule():
    mixture = dataset("mixture-10-80")
    inputs, _ = mixture.sample(50, np.random.default_rng(0))
    densities = np.stack([multivariate_normal(mean).pdf(inputs) for mean in mixture.means], -1)
    expected = densities / densities.sum(-1, keepdims=True)
    np.testing.assert_allclose(np.exp(mixture.log_posterior(inputs)), expected, rtol=1e-9)


def test_posterior_is_calibrated_where_labels_are_drawn():
    """Among points given probability p of a class, a share p has that label."""
    mixture = dataset("mixture-10-65")
    inputs, labels = mixture.sample(200_000, np.random.default_rng(1))
    posterior = np.exp(mixture.log_posterior(inputs))[:, 0]
    bins = np.digitize(posterior, np.linspace(0, 1, 11))
    for b in np.unique(bins):
        inside = bins == b
        error = 4 * np.sqrt(0.25 / inside.sum())
        assert (labels[inside] == 0).mean() == pytest.approx(posterior[inside].mean(), abs=error)


def test_classes_of_a_superclass_are_nearer_than_others():
    mixture = dataset("mixture-50-80")
    distances = np.linalg.norm(mixture.means[:, None] - mixture.means, axis=-1)
    same = np.equal.outer(np.arange(50) % 10, np.arange(50) % 10)
    off_diagonal = ~np.eye(50, dtype=bool)
    assert distances[same & off_diagonal].max() < distances[~same].mean()


def test_splits_share_the_test_points_and_differ_in_training():
    first, second = (dataset("mixture-10-80").split(300, seed) for seed in (0, 1))
    assert torch.equal(first.test_inputs, second.test_inputs)
    assert first.test_inputs.shape == (5000, 32)
    assert first.train_inputs.shape == (300, 32)
    assert not torch.equal(first.train_inputs, second.train_inputs)
    torch.testing.assert_close(first.test_posterior.sum(-1), torch.ones(5000, dtype=torch.float64))
