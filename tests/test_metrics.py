import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from lsr_core import metrics


@pytest.fixture
def outputs(generator):
    labels = torch.randint(10, (400,), generator=generator)
    logits = torch.randn(3, 400, 10, generator=generator, dtype=torch.float64)
    logits[..., :] += 2 * torch.nn.functional.one_hot(labels, 10)
    return logits, labels


def test_accuracy_and_nll_are_torchs(outputs):
    logits, labels = outputs
    for run, accuracy, nll in zip(logits, metrics.accuracy(logits, labels), metrics.nll(logits, labels), strict=True):
        assert accuracy == (run.argmax(-1) == labels).double().mean()
        torch.testing.assert_close(nll, torch.nn.functional.cross_entropy(run, labels))


def test_a_network_that_says_nothing_is_not_right():
    labels = torch.tensor([0, 2, 1, 2])
    assert metrics.accuracy(torch.full((1, 4, 3), float("nan")), labels) == 0
    assert metrics.accuracy(torch.zeros(1, 4, 3), labels) == 0


def test_every_run_may_have_labels_of_its_own(outputs):
    logits, labels = outputs
    own = torch.stack([labels, labels.roll(1), labels.roll(2)])
    for measure in (metrics.accuracy, metrics.nll, metrics.ece):
        each = torch.stack([measure(run, y) for run, y in zip(logits, own, strict=True)])
        torch.testing.assert_close(measure(logits, own), each)


def test_ece_by_hand():
    # Two bins of two images: confidences .9 and .9 with one right, .6 and .6 with both right.
    logits = torch.log(torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]], dtype=torch.float64))
    labels = torch.tensor([0, 1, 0, 0])
    assert metrics.ece(logits, labels).item() == pytest.approx((0.9 - 0.5) / 2 + (1 - 0.6) / 2)
    assert metrics.ece(logits, labels, bins=1).item() == pytest.approx(0.0)  # 3 of 4 right at mean confidence .75


def test_ece_of_a_stack_is_that_of_each_run(outputs):
    logits, labels = outputs
    each = torch.stack([metrics.ece(run, labels) for run in logits])
    torch.testing.assert_close(metrics.ece(logits, labels), each)


@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0])
def test_best_temperature_is_scipys(outputs, scale):
    logits, labels = outputs
    one_hot = torch.nn.functional.one_hot(labels, 10)
    found = metrics.best_temperature(scale * logits, one_hot)
    for run, temperature in zip(logits, found, strict=True):
        z, y = scale * run.numpy(), labels.numpy()

        def nll(log_t, z=z, y=y):
            return -log_softmax(z / np.exp(log_t), axis=-1)[np.arange(len(y)), y].mean()

        best = minimize_scalar(nll, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9})
        assert temperature.item() == pytest.approx(np.exp(best.x), rel=1e-5)


def test_temperature_scaling_undoes_a_scale(outputs):
    logits, _labels = outputs
    posterior = (logits[0] / 2.5).softmax(-1)
    temperature = metrics.best_temperature(logits[:1], posterior)
    assert temperature.item() == pytest.approx(2.5, rel=1e-5)
    assert metrics.kl_to_posterior(posterior, logits[:1], temperature).item() == pytest.approx(0, abs=1e-9)
    assert metrics.kl_to_posterior(posterior, logits[:1]).item() > 0.01


def test_the_dark_part_ignores_the_right_class(outputs):
    logits, labels = outputs
    posterior = logits[0].softmax(-1)
    assert metrics.kl_of_dark_part(posterior, logits[:1], labels).item() == pytest.approx(0, abs=1e-12)
    moved = logits[:1] + 3 * torch.nn.functional.one_hot(labels, 10)
    assert metrics.kl_of_dark_part(posterior, moved, labels).item() == pytest.approx(0, abs=1e-12)
    assert metrics.kl_of_dark_part(posterior, logits[1:2], labels).item() > 0.01
