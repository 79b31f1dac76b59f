import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import beta as scipy_beta
from sklearn.neighbors import NearestNeighbors

from lsr_core import InputError, metrics
from lsr_core._torchvision import import_torchvision

import_torchvision()  # torchmetrics imports it
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error  # noqa: E402


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


def test_the_loss_against_soft_targets_is_torchs(outputs):
    logits, _ = outputs
    teacher, tau = logits.flip(-1), 3.0
    q = (teacher.double() / tau).softmax(-1)
    expected = torch.nn.functional.cross_entropy((logits.double() / tau).flatten(0, -2), q.flatten(0, -2))
    assert metrics.soft_nll(logits, teacher, tau).mean().item() == pytest.approx(expected.item(), rel=1e-12)
    assert metrics.soft_nll(logits, logits, 1.0) == pytest.approx(metrics.predictive_uncertainty(logits), rel=1e-6)


def test_a_network_that_says_nothing_predicts_the_first_class_and_a_broken_one_none():
    labels = torch.tensor([0, 2, 1, 2])
    assert metrics.accuracy(torch.full((1, 4, 3), float("nan")), labels) == 0
    assert metrics.accuracy(torch.zeros(1, 4, 3), labels) == 1 / 4


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


@pytest.mark.parametrize("bins", [5, 15, 20])
def test_ece_and_accuracy_are_torchmetrics(outputs, bins):
    logits, labels = outputs
    for run in logits.float():
        theirs = multiclass_calibration_error(run.softmax(-1), labels, num_classes=10, n_bins=bins, norm="l1")
        assert metrics.ece(run, labels, bins).item() == pytest.approx(theirs.item(), abs=1e-6)
        theirs = multiclass_accuracy(run, labels, num_classes=10, average="micro")
        assert metrics.accuracy(run, labels).item() == pytest.approx(theirs.item())


def test_no_bins_are_refused(outputs):
    with pytest.raises(InputError, match="bins is 0"):
        metrics.ece(*outputs, bins=0)


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
    assert metrics.kl_of_wrong_classes(posterior, logits[:1], labels).item() == pytest.approx(0, abs=1e-12)
    surer = logits[:1] + 3 * torch.nn.functional.one_hot(labels, 10)
    assert metrics.kl_of_wrong_classes(posterior, surer, labels).item() == pytest.approx(0, abs=1e-12)
    assert metrics.kl_of_wrong_classes(posterior, logits[1:2], labels).item() > 0.01


def test_the_dark_part_is_the_divergence_of_renormalised_rests(outputs):
    logits, labels = outputs
    truth, p = logits[0].softmax(-1), logits[1].softmax(-1)
    keep = ~torch.nn.functional.one_hot(labels, 10).bool()
    truth, p = (x[keep].reshape(-1, 9) / x[keep].reshape(-1, 9).sum(-1, keepdim=True) for x in (truth, p))
    expected = (truth * (truth / p).log()).sum(-1).mean()
    torch.testing.assert_close(metrics.kl_of_wrong_classes(logits[0].softmax(-1), logits[1:2], labels)[0], expected)


def test_votes_are_a_posterior(outputs):
    logits, _ = outputs
    votes = torch.distributions.Multinomial(50, logits=logits[0]).sample()
    assert (votes == 0).any()
    kl = metrics.kl_to_posterior(votes, logits[:1])
    truth = votes / 50
    expected = (torch.special.xlogy(truth, truth) - truth * logits[0].log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(kl[0], expected)


@pytest.mark.parametrize("confidence", [0.3, 0.6, 0.95])
def test_a_temperature_gives_the_confidence_asked_for(outputs, confidence):
    logits, _ = outputs
    temperature = metrics.temperature_of_confidence(logits, confidence)
    softened = logits / temperature[:, None, None]
    torch.testing.assert_close(
        softened.softmax(-1).amax(-1).mean(-1), torch.full((3,), confidence).double(), atol=1e-5, rtol=0
    )
    other = metrics.temperature_of_confidence(5 * logits, logits.softmax(-1).amax(-1).mean(-1))
    torch.testing.assert_close(other, torch.full((3,), 5.0).double(), rtol=1e-4, atol=0)


def test_uncertainty_is_the_mean_entropy(outputs):
    logits, _ = outputs
    expected = torch.distributions.Categorical(logits=logits).entropy().mean(-1)
    torch.testing.assert_close(metrics.predictive_uncertainty(logits), expected)
    assert metrics.predictive_uncertainty(torch.zeros(1, 5, 10)).item() == pytest.approx(np.log(10))


def of_confidences(p):
    """Logits of two classes with these probabilities of class 0."""
    p = torch.as_tensor(p, dtype=torch.float64)
    return torch.stack([p, 1 - p], -1).log(), torch.zeros(p.shape[-1], dtype=torch.int64)


def test_confidence_diversity_is_the_entropy_of_a_known_density(generator):
    uniform = 0.2 + 0.5 * torch.rand(4, 5000, generator=generator, dtype=torch.float64)
    logits, labels = of_confidences(uniform)
    found = metrics.confidence_diversity(logits, labels)
    torch.testing.assert_close(found, torch.full_like(found, np.log(0.5)), atol=0.06, rtol=0)
    beta = torch.from_numpy(np.random.default_rng(0).beta(3, 2, 5000))
    found = metrics.confidence_diversity(*of_confidences(beta)).item()
    assert found == pytest.approx(scipy_beta(3, 2).entropy(), abs=0.05)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_confidence_diversity_uses_the_kth_neighbour(generator, k):
    p = torch.rand(60, generator=generator, dtype=torch.float64)
    reach = NearestNeighbors(n_neighbors=k + 1).fit(p[:, None].numpy()).kneighbors(p[:, None].numpy())[0][:, -1]
    expected = torch.special.digamma(torch.tensor(60.0)) - torch.special.digamma(torch.tensor(float(k)))
    expected = expected.item() + np.log(2) + np.log(reach).mean()
    found = metrics.confidence_diversity(*of_confidences(p), neighbours=k)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_confidence_diversity_refuses_too_many_neighbours(outputs):
    with pytest.raises(InputError, match="neighbours is 400; with 400 examples it must be below 400"):
        metrics.confidence_diversity(*outputs, neighbours=400)
    assert metrics.confidence_diversity(torch.zeros(10, 2), torch.zeros(10, dtype=torch.int64)).isfinite()


def test_confidence_variance_by_hand():
    assert metrics.confidence_variance(*of_confidences([0.2, 0.4, 0.9])).item() == pytest.approx(
        np.var([0.2, 0.4, 0.9])
    )


def test_equivalent_smoothing_of_a_smoothed_label_is_its_mass():
    labels = torch.arange(10)
    for mass in (0.05, 0.3):
        target = (1 - mass) * torch.eye(10, dtype=torch.float64) + mass / 10
        assert metrics.equivalent_smoothing(target.log(), labels).item() == pytest.approx(mass)
    soft = metrics.equivalent_smoothing(target.log(), labels, temperature=1e6)
    assert soft.item() == pytest.approx(1, abs=1e-4)


def test_erased_information_by_hand():
    p = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.3, 0.7], [0.5, 0.5]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1, 1])
    first = 2 * 0.1**2  # both components of a vector of two vary alike
    second = 2 * np.var([0.9, 0.7, 0.5])
    vector = metrics.erased_information(p.log(), labels, "vector_variance")
    assert vector.item() == pytest.approx((first + second) / 2)
    scalar = metrics.erased_information(p.log(), labels, "std_true_class")
    assert scalar.item() == pytest.approx((0.1 + np.std([0.9, 0.7, 0.5])) / 2)


def test_another_reading_of_erased_information_is_refused(outputs):
    with pytest.raises(InputError, match="unknown reading 'mean'; there are 'vector_variance' and 'std_true_class'"):
        metrics.erased_information(*outputs, "mean")


def test_at_matched_confidence_a_scale_erases_nothing(outputs):
    logits, labels = outputs
    plain = logits.softmax(-1).amax(-1).mean(-1)
    for reading in ("vector_variance", "std_true_class"):
        whole = metrics.erased_information(logits, labels, reading)
        assert (metrics.erased_information(0.3 * logits, labels, reading) < 0.9 * whole).all()
        temperature = metrics.temperature_of_confidence(0.3 * logits, plain)
        matched = metrics.erased_information(0.3 * logits / temperature[:, None, None], labels, reading)
        torch.testing.assert_close(matched, whole, rtol=1e-4, atol=0)


def test_outputs_that_are_one_a_class_have_nothing_left():
    labels = torch.arange(10).repeat(5)
    logits = torch.eye(10)[labels]
    for reading in ("vector_variance", "std_true_class"):
        assert metrics.erased_information(logits, labels, reading).item() == pytest.approx(0, abs=1e-9)


def test_class_means_are_means_of_each_class():
    q = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]], dtype=torch.float64)
    means = metrics.class_means(q, torch.tensor([0, 0, 1]), 2)
    torch.testing.assert_close(means, torch.tensor([[0.7, 0.3], [0.1, 0.9]], dtype=torch.float64))
    alone = metrics.class_means(q, torch.tensor([0, 0, 0]), 2)
    torch.testing.assert_close(alone[0], torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert alone[1].isnan().all()


def test_cluster_distances_by_hand():
    features = torch.tensor([[0.0, 0], [2, 0], [1, 3], [1, 3], [11, 3], [11, 3]])
    labels, superclasses = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 0, 1])
    within, across = metrics.cluster_distances(features[None], labels, superclasses)
    assert within.item() == pytest.approx(3.0)  # centres (1, 0), (1, 3), (11, 3)
    assert across.item() == pytest.approx((np.hypot(10, 3) + 10) / 2)


def test_mutual_information_is_ln_of_what_can_be_told_apart(generator):
    noise = 1e-2 * torch.randn(600, 5, generator=generator, dtype=torch.float64)
    examples = torch.arange(600.0)[:, None] + noise
    assert metrics.mutual_information(examples).item() == pytest.approx(np.log(600))
    classes = torch.tensor([-1.0, 1.0]).repeat(300)[:, None] + noise - noise.mean(-1, keepdim=True)
    assert metrics.mutual_information(classes).item() == pytest.approx(np.log(2))  # Müller's limit under smoothing
    assert metrics.mutual_information(noise - noise.mean(-1, keepdim=True)).item() == pytest.approx(0, abs=1e-9)
    assert metrics.mutual_information(torch.ones(4, 3)).isfinite()


def test_mutual_information_by_hand():
    values = torch.tensor([[0.0, 2.0], [5.0, 7.0]], dtype=torch.float64)  # means 1 and 6, variance 1
    terms = []
    for own, value in ((1, 0), (1, 2), (6, 5), (6, 7)):
        mix = np.mean([np.exp(-((value - mean) ** 2) / 2) for mean in (1, 6)])
        terms.append(-((value - own) ** 2) / 2 - np.log(mix))
    assert metrics.mutual_information(values).item() == pytest.approx(np.mean(terms))


def test_the_class_plane_keeps_distances_in_it(generator):
    templates = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    weights = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    inside = templates[0] + weights[:, :2] @ (templates[1:] - templates[0])
    projected = metrics.class_plane(inside, templates)
    torch.testing.assert_close(torch.pdist(projected), torch.pdist(inside))
    off = torch.randn(8, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr((templates[1:] - templates[0]).T)[0]
    off -= basis @ (basis.T @ off)
    torch.testing.assert_close(metrics.class_plane(inside + off, templates), projected)
    corners = metrics.class_plane(templates, templates)
    assert (corners[0].abs() < 1e-12).all()
    assert corners[1, 0] > 0
    assert corners[2, 1] > 0
    with pytest.raises(InputError, match="templates are 2"):
        metrics.class_plane(inside, templates[:2])


def test_temperatures_of_a_soft_likelihood_are_one_a_run():
    logits, teacher = torch.randn(2, 4, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    temperatures = torch.tensor([0.5, 1.0, 2.0, 4.0])
    alone = [metrics.soft_nll(z, v, tau.item()) for z, v, tau in zip(logits, teacher, temperatures, strict=True)]
    torch.testing.assert_close(metrics.soft_nll(logits, teacher, temperatures), torch.stack(alone))


def test_a_class_that_both_lack_counts_as_nothing():
    logits, teacher = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    expected = metrics.soft_nll(logits[:, :3], teacher[:, :3])
    logits[:, 3] = teacher[:, 3] = -math.inf
    assert metrics.soft_nll(logits, teacher) == pytest.approx(expected)


def test_metrics_stay_on_their_device():
    """On torch's device without numbers, which refuses tensors of others."""
    logits, labels = torch.empty(6, 4, device="meta"), torch.zeros(6, dtype=torch.long, device="meta")
    found = metrics.nll(logits, labels), metrics.kl_to_posterior(logits, logits), metrics.soft_nll(logits, logits)
    assert {value.device.type for value in found} == {"meta"}


@pytest.mark.parametrize("metric", ["accuracy", "nll", "ece", "best_temperature", "confidence_diversity"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: labels[:, None], r"labels have shape \[20, 1\]; with logits \[20, 4\] they must be \[20\]"),
        (lambda labels: labels[:-1], r"labels have shape \[19\]"),
        (lambda labels: labels.bool(), "labels are torch.bool; give a tensor of whole numbers"),
        (lambda labels: labels.numpy(), "labels are int64; give a tensor of whole numbers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(metric, change, message):
    logits, labels = torch.randn(20, 4), torch.arange(20) % 4
    with pytest.raises(InputError, match=message):
        getattr(metrics, metric)(logits, change(labels))


def test_labels_of_any_whole_type_are_measured_alike():
    logits, labels = torch.randn(40, 4), torch.arange(40) % 4
    for metric in (metrics.nll, metrics.ece, metrics.confidence_variance, metrics.best_temperature):
        assert metric(logits, labels.int()) == metric(logits, labels)
    found = (metrics.erased_information(logits, own, "vector_variance") for own in (labels, labels.int()))
    assert len(set(map(float, found))) == 1
    one_hot = torch.nn.functional.one_hot(labels, 4)
    assert metrics.best_temperature(logits, labels) == metrics.best_temperature(logits, one_hot)
    square, each = torch.randn(4, 4, 4), torch.arange(4).repeat(4, 1)  # as many runs as examples and classes
    one_hot = torch.nn.functional.one_hot(each, 4)
    assert torch.equal(metrics.best_temperature(square, each), metrics.best_temperature(square, one_hot))
