"""Outputs that are equal, masked, coarse or without some class."""

import numpy as np
import pytest
import torch

from lsr_core import InputError, metrics, objective
from lsr_core.data import Split
from lsr_core.evaluation import curve_point
from lsr_core.objectives import Batch


def matched(logits):
    """The logits of two runs at a mean confidence of .6."""
    return logits.double() / metrics.temperature_of_confidence(logits, 0.6)[:, None, None]


GROUPS = torch.tensor([0, 0, 1, 1, 2])
MEASURED = {
    "accuracy": lambda z, y, _: metrics.accuracy(z, y),
    "nll": lambda z, y, _: metrics.nll(z, y),
    "nll at a temperature": lambda z, y, _: metrics.nll(z, y, torch.tensor([2.0, 3.0])),
    "ece": lambda z, y, _: metrics.ece(z, y),
    "temperature": lambda z, _, q: metrics.best_temperature(z, q),
    "temperature of confidence": lambda z, *_: metrics.temperature_of_confidence(z, 0.6),
    "kl": lambda z, _, q: metrics.kl_to_posterior(q, z),
    "kl at a temperature": lambda z, _, q: metrics.kl_to_posterior(q, z, torch.tensor([2.0, 3.0])),
    "kl on wrong classes": lambda z, y, q: metrics.kl_of_wrong_classes(q, z, y),
    "uncertainty": lambda z, *_: metrics.predictive_uncertainty(z),
    "variance": lambda z, y, _: metrics.confidence_variance(z, y),
    "diversity": lambda z, y, _: metrics.confidence_diversity(z, y),
    "smoothing": lambda z, y, _: metrics.equivalent_smoothing(z, y, 3.0),
    "erased, vector": lambda z, y, _: metrics.erased_information(z, y, "vector_variance").float(),
    "erased, std": lambda z, y, _: metrics.erased_information(z, y, "std_true_class").float(),
    "erased, matched": lambda z, y, _: metrics.erased_information(matched(z), y, "std_true_class").float(),
}
FEATURES = {
    "class means": lambda x, y: metrics.class_means(x, y, 5),
    "variance": lambda x, y: metrics.variance_within_classes(x, y, 5),
    "clusters": lambda x, y: torch.stack(metrics.cluster_distances(x, y, GROUPS)),
    "information": lambda x, _: metrics.mutual_information(x),
    "plane": lambda x, _: metrics.class_plane(x[0], x[0, :3]),
}


@pytest.fixture
def outputs(generator):
    """Logits of two runs, labels of five classes, and a truth."""
    labels = torch.arange(60) % 5
    logits = torch.randn(2, 60, 5, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 5)
    return logits, labels, torch.randn(60, 5, generator=generator).softmax(-1)


# Accuracy of 1.0 for a network that is right half the time: each of two equal logits counted as the answer.
def test_an_example_has_one_prediction():
    logits, labels = torch.tensor([[1, 1, 0]] * 10), torch.tensor([0, 1] * 5)
    assert metrics.accuracy(logits, labels) == 0.5
    confidence = np.e / (2 * np.e + 1)
    assert metrics.ece(logits, labels).item() == pytest.approx(0.5 - confidence)
    split = Split(*[logits, labels] * 3)
    assert curve_point(logits[None], logits[None], split, None)["test_accuracy"] == 0.5
    assert metrics.accuracy(torch.zeros(4, 3), torch.tensor([0, 2, 1, 2])) == 0.25  # class 0, whatever is seen


# Training in bf16 looks better than it is: its logits tie, the more classes the more often.
@pytest.mark.parametrize("classes", [10, 1000])
def test_accuracy_of_coarse_logits_is_that_of_argmax(generator, classes):
    logits = torch.randn(3, 500, classes, generator=generator).bfloat16()
    labels = classes - 1 - logits.flip(-1).argmax(-1)  # the last of equal ones
    expected = (logits.argmax(-1) == labels).double().mean(-1)
    assert torch.equal(metrics.accuracy(logits, labels), expected)
    assert (expected < 1).all()


# A broken network (NaN) has an accuracy above 0, or a calibration error and a temperature as if it had answered.
def test_nan_answers_nothing(outputs):
    logits, labels, truth = outputs
    logits[0, labels == 0] = torch.nan
    logits[0, 7, 3] = torch.nan
    own = (logits[0].argmax(-1) == labels) & ~logits[0].isnan().any(-1)
    assert metrics.accuracy(logits, labels)[0] == own.double().mean()
    for name, measure in MEASURED.items():
        whole, first = measure(logits, labels, truth).isnan().tolist(), name != "accuracy"
        assert whole == [first, False], name


# Labels of −100 (a common mark for "ignore") count as errors.
@pytest.mark.parametrize("measure", [metrics.accuracy, metrics.ece])
@pytest.mark.parametrize("wrong", [-100, 3])
def test_labels_that_are_no_class_are_refused(measure, wrong):
    with pytest.raises(InputError, match=f"a label is {wrong}; with 3 classes it must be from 0 to 2"):
        measure(torch.randn(4, 3), torch.tensor([0, 1, wrong, 2]))


# Metrics in half precision: NLL off by a per cent, class means of 2,049 examples and more wrong, errors for others.
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_measured_as_float32(outputs, generator, dtype):
    logits, labels, truth = outputs
    coarse = logits.to(dtype)
    for name, measure in MEASURED.items():
        assert torch.equal(measure(coarse, labels, truth), measure(coarse.float(), labels, truth)), name
    features, many = torch.randn(1, 6000, 8, generator=generator).to(dtype), torch.arange(6000) % 5
    for name, measure in FEATURES.items():
        some = slice(0, 200 if name == "information" else None)
        ours, whole = (measure(x[:, some], many[some]) for x in (features, features.float()))
        assert torch.equal(ours, whole), name


# Classes masked with −∞: a temperature of .01, an entropy and a divergence of NaN.
def test_a_masked_class_changes_nothing(outputs):
    logits, labels, truth = outputs
    masked = torch.cat([logits[..., :2], torch.full((2, 60, 1), -torch.inf), logits[..., 2:]], -1)
    wider_labels = labels + (labels >= 2)
    wider = torch.cat([truth[:, :2], torch.zeros(60, 1), truth[:, 2:]], -1)
    for name, measure in MEASURED.items():
        ours = measure(masked, wider_labels, wider)
        if name.startswith("erased"):
            assert ours.isnan().all(), name  # no image of that class
        else:
            expected = measure(logits, labels, truth) * (6 / 5 * 4 / 5 if name == "smoothing" else 1)
            torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6, msg=name)


# A label that is masked: an infinite likelihood, for which no temperature is best.
def test_a_masked_label_is_infinitely_unlikely(outputs):
    logits, labels, _ = outputs
    logits[0, 3, labels[3]] = -torch.inf
    onehot = torch.nn.functional.one_hot(labels, 5)
    for measured in (metrics.nll(logits, labels), metrics.kl_to_posterior(onehot, logits)):
        assert measured.isinf().tolist() == [True, False]
    assert metrics.best_temperature(logits, onehot).isnan().tolist() == [True, False]


# Votes that all fall on the label: the divergence on the wrong classes rises with a constant added to all logits.
def test_what_has_no_dark_part_is_left_out_of_its_mean(outputs):
    logits, labels, truth = outputs
    sure = torch.where(torch.arange(60)[:, None] < 20, torch.nn.functional.one_hot(labels, 5), truth)
    expected = metrics.kl_of_wrong_classes(truth[20:], logits[:, 20:], labels[20:])
    torch.testing.assert_close(metrics.kl_of_wrong_classes(sure, logits + 5, labels), expected)
    assert metrics.kl_of_wrong_classes(sure[:20], logits[:, :20], labels[:20]).isnan().all()
    faint = truth.double().where(torch.nn.functional.one_hot(labels, 5) > 0, 1e-60 * truth.double())
    torch.testing.assert_close(
        metrics.kl_of_wrong_classes(faint, logits, labels), metrics.kl_of_wrong_classes(truth, logits, labels)
    )


# A test set without an image of some class ends a trained run in an error while it is measured.
@pytest.mark.parametrize("classes", [5, 200])
def test_a_missing_class_makes_nan_of_what_needs_it_and_of_nothing_else(generator, classes):
    labels = torch.arange(300) % (classes - 1)
    logits, features = torch.randn(2, 300, classes, generator=generator), torch.randn(2, 300, 8, generator=generator)
    truth, groups = logits[0].softmax(-1), torch.arange(classes) % 2
    for name, measure in MEASURED.items():
        expected = name.startswith("erased")
        assert measure(logits, labels, truth).isnan().all() == expected, name
        assert measure(logits, labels, truth).isnan().any() == expected, name
    assert metrics.class_means(features, labels, classes).isnan().any(-1)[0].nonzero().tolist() == [[classes - 1]]
    variance = metrics.variance_within_classes(features, labels, classes)
    assert variance.isnan()[0].nonzero().tolist() == [[classes - 1]]
    assert all(distance.isnan().all() for distance in metrics.cluster_distances(features, labels, groups))


# The same for a teacher of class means, where NaN would spoil the training: there it stays an error.
def test_a_teacher_of_class_means_needs_every_class():
    z, labels = torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 0, 1])
    with pytest.raises(InputError, match="no example of class 2; class means need one of each"):
        objective("ladder-class-means").fitted(Batch(torch.zeros(6, 3), labels, z, torch.arange(6)))
