import math

import pytest
import torch

from lsr_core import metrics, objective
from lsr_core.data import dataset
from lsr_core.evaluation import CONFIDENCE, Outputs, _direction, curve_point, final_metrics, sharpness
from lsr_core.models import Convnet, Perceptron
from lsr_core.runs import Run, stream
from lsr_core.schedules import Schedule
from lsr_core.training import _Stack, train


@pytest.fixture(scope="module")
def trained():
    """A stack of three short runs, its outcomes, and its outputs."""
    runs = [Run("digits", 100, objective("lsr"), Schedule(0.1, epochs=12), seed) for seed in range(3)]
    stack = _Stack(runs, torch.float32)
    outcomes = stack.train()
    parts = (stack.data.train_inputs, stack.data.validation_inputs, stack.data.test_inputs)
    return stack, outcomes, Outputs(*(stack._logits(part) for part in parts))


def test_metrics_are_of_each_runs_own_outputs(trained):
    stack, outcomes, outputs = trained
    labels = stack.data.test_labels
    for place, outcome in enumerate(outcomes):
        own = outputs.test[place : place + 1]
        assert outcome.metrics["uncertainty"] == pytest.approx(metrics.predictive_uncertainty(own).item())
        assert outcome.metrics["diversity"] == pytest.approx(metrics.confidence_diversity(own, labels).item())
        erased = metrics.erased_information(own, labels, "std_true_class").item()
        assert outcome.metrics["erased_std"] == pytest.approx(erased)
        train_labels = stack.data.train_labels[place]
        erased = metrics.erased_information(outputs.train[place : place + 1], train_labels, "vector_variance").item()
        assert outcome.metrics["train_erased_vector"] == pytest.approx(erased)


def test_matched_outputs_have_the_stated_confidence(trained):
    stack, outcomes, outputs = trained
    temperature = metrics.temperature_of_confidence(outputs.test, CONFIDENCE)
    matched = outputs.test / temperature[:, None, None]
    assert matched.softmax(-1).amax(-1).mean(-1).tolist() == pytest.approx([CONFIDENCE] * 3, abs=1e-4)
    erased = metrics.erased_information(matched, stack.data.test_labels, "vector_variance")
    assert [o.metrics["erased_vector_matched"] for o in outcomes] == pytest.approx(erased.tolist(), rel=1e-4)


def test_moved_is_the_divergence_from_the_point_before(trained):
    stack, outcomes, outputs = trained
    first = outcomes[0]
    assert first.curves["moved"][0] is None
    assert all(value > 0 for value in first.curves["moved"][1:])
    assert first.metrics["moved"] == pytest.approx(sum(first.curves["moved"][1:]) / 11)
    test = outputs.test
    point = curve_point(outputs.validation, test, stack.data, outputs.validation)
    assert point["moved"].abs().max() < 1e-6
    before = outputs.validation + torch.randn(outputs.validation.shape, generator=torch.Generator().manual_seed(0))
    p, q = before.double().softmax(-1), outputs.validation.double().softmax(-1)
    expected = (p * (p / q).log()).sum(-1).mean(-1)
    torch.testing.assert_close(
        curve_point(outputs.validation, test, stack.data, before)["moved"], expected, rtol=1e-4, atol=1e-6
    )


def test_a_run_without_an_image_of_some_class_lacks_its_own_training_spreads_alone():
    """25 random digits often lack a class; what a run has does not depend on its mates."""
    runs = [Run("digits", 25, objective("lsr"), Schedule(0.1, epochs=1), seed) for seed in range(6)]
    complete = [len(set(dataset("digits").split(25, seed).train_labels.tolist())) == 10 for seed in range(6)]
    assert {True, False} == set(complete)
    outcomes = train(runs)
    assert [outcome.metrics["train_erased_std"] is not None for outcome in outcomes] == complete
    assert all(math.isfinite(outcome.metrics["erased_std"]) for outcome in outcomes)
    assert outcomes == [train([run])[0] for run in runs]
    (few,) = train([Run("digits/first-2", 3, objective("lsr"), Schedule(0.1, epochs=1), 0)])
    assert few.metrics["train_diversity"] is None


def test_mass_on_similar_classes_counts_their_share_of_what_is_wrong():
    run = Run("mixture-10-80", 100, objective("lsr"), Schedule(0.1, epochs=2), 0)
    stack = _Stack([run], torch.float32)
    (outcome,) = stack.train()
    logits, labels = stack._logits(stack.data.test_inputs)[0], stack.data.test_labels
    p, groups = logits.double().softmax(-1), torch.arange(10) % 5
    similar = sum(
        p[i, [k for k in range(10) if k != y and k % 5 == y % 5]].sum() for i, y in enumerate(labels.tolist())
    )
    wrong = sum(1 - p[i, y] for i, y in enumerate(labels.tolist()))
    assert outcome.metrics["similar_mass"] == pytest.approx((similar / wrong).item(), rel=1e-4)
    assert torch.equal(dataset("mixture-10-80").groups, groups)
    assert "similar_mass" not in train([Run("digits", 50, objective("lsr"), Schedule(0.1, epochs=1), 0)])[0].metrics


@pytest.mark.parametrize("network", [Perceptron((16, 16)), Convnet((4, 8))], ids=["perceptron", "convnet"])
def test_sharpness_moves_every_unit_by_its_own_norm(network):
    run = Run("digits", 100, objective("cross-entropy"), Schedule(0.1, epochs=8), 0, network)
    stack = _Stack([run, run], torch.float32)
    stack.train()
    weights = {name: w.detach() for name, w in stack.network.named_parameters()}

    def streams():
        return [stream(seed, "student", "directions") for seed in (0, 1)]

    rises = sharpness(stack.network.eval(), weights, stack.data, streams())
    assert (rises > 0).all()
    assert rises[0] != rises[1]  # directions are each run's own
    again = sharpness(stack.network, weights, stack.data, streams())
    assert torch.equal(rises, again)
    for weight in weights.values():
        if weight.ndim >= 3 and weight.shape[1] > 1:
            moved = _direction(weight, streams())
            incoming = (1,) if weight.ndim == 3 else tuple(range(2, weight.ndim))
            norms = [w.square().sum(incoming) for w in (moved, weight)]
            torch.testing.assert_close(*norms)


def test_a_scale_of_the_layers_that_changes_nothing_leaves_sharpness_alone():
    """ReLU: one layer doubled, the next one halved; filter normalisation sees the same network."""
    run = Run("digits", 100, objective("cross-entropy"), Schedule(0.1, epochs=8), 0, Perceptron((16,)))
    stack = _Stack([run], torch.float32)
    stack.train()
    weights = {name: w.detach().clone() for name, w in stack.network.named_parameters()}
    scaled = {name: w * (2.0 if name.endswith("0") else 1.0) for name, w in weights.items()}
    scaled["weights.1"] = scaled["weights.1"] / 2
    rises = [
        sharpness(stack.network.eval(), own, stack.data, [stream(0, "student", "directions")])
        for own in (weights, scaled)
    ]
    torch.testing.assert_close(*rises, rtol=1e-3, atol=1e-5)


def test_final_metrics_are_the_outcomes(trained):
    stack, outcomes, outputs = trained
    final = final_metrics(outputs, stack.data, None)
    for name, values in final.items():
        assert [o.metrics[name] for o in outcomes] == pytest.approx(values.tolist(), rel=1e-5), name
