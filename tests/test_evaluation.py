import math
from collections import namedtuple

import numpy as np
import pytest
import torch

from lsr_core import metrics, objective
from lsr_core.data import Split, dataset
from lsr_core.evaluation import (
    CONFIDENCE,
    InformationProbe,
    cluster_metrics,
    curve_point,
    direction,
    final_metrics,
    mean_of_known,
    sharpness,
    shifted,
    two_classes,
)
from lsr_core.execute import execute
from lsr_core.models import Convnet, ImageNetwork, Perceptron
from lsr_core.run import Run, stream
from lsr_core.schedule import Schedule
from lsr_core.trainer import Trainer, train

Outputs = namedtuple("Outputs", "train validation test")


@pytest.fixture(scope="module")
def trained():
    """A stack of three short runs, its outcomes, and its outputs."""
    runs = [Run("digits", 100, objective("lsr"), Schedule(0.1, epochs=12), seed) for seed in range(3)]
    stack = Trainer(runs)
    outcomes = stack.train()
    parts = (stack.data.split.train_inputs, stack.data.split.validation_inputs, stack.data.split.test_inputs)
    return stack, outcomes, Outputs(*(stack.logits(part) for part in parts))


def test_metrics_are_of_each_runs_own_outputs(trained):
    stack, outcomes, outputs = trained
    labels = stack.data.split.test_labels
    for place, outcome in enumerate(outcomes):
        own = outputs.test[place : place + 1]
        assert outcome.metrics["uncertainty"] == pytest.approx(metrics.predictive_uncertainty(own).item())
        assert outcome.metrics["diversity"] == pytest.approx(metrics.confidence_diversity(own, labels).item())
        erased = metrics.erased_information(own, labels, "std_true_class").item()
        assert outcome.metrics["erased_std"] == pytest.approx(erased)
        train_labels = stack.data.split.train_labels[place]
        erased = metrics.erased_information(outputs.train[place : place + 1], train_labels, "vector_variance").item()
        assert outcome.metrics["train_erased_vector"] == pytest.approx(erased)


def test_matched_outputs_have_the_stated_confidence(trained):
    stack, outcomes, outputs = trained
    temperature = metrics.temperature_of_confidence(outputs.test, CONFIDENCE)
    matched = outputs.test / temperature[:, None, None]
    assert matched.softmax(-1).amax(-1).mean(-1).tolist() == pytest.approx([CONFIDENCE] * 3, abs=1e-4)
    erased = metrics.erased_information(matched, stack.data.split.test_labels, "vector_variance")
    assert [o.metrics["erased_vector_matched"] for o in outcomes] == pytest.approx(erased.tolist(), rel=1e-4)


def test_output_drift_is_the_divergence_from_the_point_before(trained):
    stack, outcomes, outputs = trained
    first = outcomes[0]
    assert first.curves["output_drift"][0] is None
    assert all(value > 0 for value in first.curves["output_drift"][1:])
    assert first.metrics["output_drift"] == pytest.approx(sum(first.curves["output_drift"][1:]) / 11)
    test = outputs.test
    point = curve_point(outputs.validation, test, stack.data.split, outputs.validation)
    assert point["output_drift"].abs().max() < 1e-6
    before = outputs.validation + torch.randn(outputs.validation.shape, generator=torch.Generator().manual_seed(0))
    p, q = before.double().softmax(-1), outputs.validation.double().softmax(-1)
    expected = (p * (p / q).log()).sum(-1).mean(-1)
    torch.testing.assert_close(
        curve_point(outputs.validation, test, stack.data.split, before)["output_drift"], expected, rtol=1e-4, atol=1e-6
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
    assert few.metrics["train_erased_std"] is None


def test_a_metric_that_cannot_be_measured_costs_no_run(monkeypatch):
    def fails(*_):
        raise ValueError("no such thing")

    run = Run("digits", 50, objective("lsr"), Schedule(0.1, epochs=1), 0)
    (whole,) = train([run])
    monkeypatch.setattr("lsr_core.evaluation.metrics.ece", fails)
    monkeypatch.setattr("lsr_core.evaluation.sharpness", fails)
    with pytest.warns(UserWarning, match=r"left out \(no such thing\)"):
        (partial,) = train([run])
    assert whole.metrics.keys() - partial.metrics.keys() == {"ece", "sharpness"}
    assert {name: whole.metrics[name] for name in partial.metrics} == partial.metrics
    assert partial.curves == whole.curves


def test_a_trained_run_is_kept_where_its_test_part_lacks_classes_and_where_there_are_hundreds(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (90, 28, 28, 1), dtype=np.uint8)
    labels = np.arange(90) % 3
    parts = {"train_images": images[:60], "train_labels": labels[:60], "test_images": images[60:]}
    path = tmp_path / "own.npz"
    np.savez(path, **parts, test_labels=labels[60:] % 2, class_names=np.array(["a", "b", "c"]))
    network = ImageNetwork("resnet8", 4)
    schedule = Schedule(0.05, epochs=1, batch_size=16)
    (own,) = execute([Run(str(path), 40, objective("lsr"), schedule, 0, network)])
    assert own.metrics["erased_std"] is None
    assert own.metrics["accuracy"] is not None
    (many,) = execute([Run("mixture-200x20-16d-noise-1", 400, objective("lsr"), Schedule(0.1, epochs=1), 0)])
    assert many.metrics["accuracy"] is not None


def test_mass_on_similar_classes_counts_their_share_of_what_is_wrong():
    run = Run("mixture-10-80", 100, objective("lsr"), Schedule(0.1, epochs=2), 0)
    stack = Trainer([run])
    (outcome,) = stack.train()
    logits, labels = stack.logits(stack.data.split.test_inputs)[0], stack.data.split.test_labels
    p, groups = logits.double().softmax(-1), torch.arange(10) % 5
    similar = sum(
        p[i, [k for k in range(10) if k != y and k % 5 == y % 5]].sum() for i, y in enumerate(labels.tolist())
    )
    wrong = sum(1 - p[i, y] for i, y in enumerate(labels.tolist()))
    assert outcome.metrics["similar_mass"] == pytest.approx((similar / wrong).item(), rel=1e-4)
    assert torch.equal(dataset("mixture-10-80").superclasses, groups)
    assert "similar_mass" not in train([Run("digits", 50, objective("lsr"), Schedule(0.1, epochs=1), 0)])[0].metrics


@pytest.mark.parametrize("network", [Perceptron((16, 16)), Convnet((4, 8))], ids=["perceptron", "convnet"])
def test_sharpness_moves_every_unit_by_its_own_norm(network):
    run = Run("digits", 100, objective("cross-entropy"), Schedule(0.1, epochs=8), 0, network)
    stack = Trainer([run, run])
    stack.train()
    weights = {name: w.detach() for name, w in stack.network.named_parameters()}

    def streams():
        return [stream(seed, "student", "directions") for seed in (0, 1)]

    rises = sharpness(stack.network.eval(), weights, stack.data.split, streams())
    assert (rises > 0).all()
    assert rises[0] != rises[1]  # directions are each run's own
    again = sharpness(stack.network, weights, stack.data.split, streams())
    assert torch.equal(rises, again)
    for weight in weights.values():
        if weight.ndim >= 3 and weight.shape[1] > 1:
            moved = direction(weight, streams())
            incoming = (1,) if weight.ndim == 3 else tuple(range(2, weight.ndim))
            norms = [w.square().sum(incoming) for w in (moved, weight)]
            torch.testing.assert_close(*norms)


def test_a_scale_of_the_layers_that_changes_nothing_leaves_sharpness_alone():
    """ReLU: one layer doubled, the next one halved; filter normalisation sees the same network."""
    run = Run("digits", 100, objective("cross-entropy"), Schedule(0.1, epochs=8), 0, Perceptron((16,)))
    stack = Trainer([run])
    stack.train()
    weights = {name: w.detach().clone() for name, w in stack.network.named_parameters()}
    scaled = {name: w * (2.0 if name.endswith("0") else 1.0) for name, w in weights.items()}
    scaled["weights.1"] = scaled["weights.1"] / 2
    rises = [
        sharpness(stack.network.eval(), own, stack.data.split, [stream(0, "student", "directions")])
        for own in (weights, scaled)
    ]
    torch.testing.assert_close(*rises, rtol=1e-3, atol=1e-5)


def test_final_metrics_are_the_outcomes(trained):
    stack, outcomes, outputs = trained
    final = final_metrics(*outputs, stack.data.split, None)
    for name, values in final.items():
        assert [o.metrics[name] for o in outcomes] == pytest.approx(values.tolist(), rel=1e-5), name


def test_two_classes_are_the_largest_with_ten_examples_each():
    labels = torch.tensor([[0] * 12 + [2] * 15 + [1] * 3, [1] * 9 + [0] * 21]).repeat(1, 1)
    places = two_classes(labels)
    assert places[0].tolist() == [*range(12, 22), *range(10)]  # class 2, then class 0
    assert places[1].tolist()[:10] == [*range(9, 19)]
    assert places[1].tolist()[10:] == [*range(9), -1]


def test_images_move_by_a_quarter_of_a_pixel():
    image = torch.zeros(8, 8)
    image[3, 4] = 1
    here, right, below, left, above = shifted(image.view(1, 1, 64), 8).view(5, 8, 8)
    assert torch.equal(here, image)
    for moved, place in ((left, (3, 5)), (right, (3, 3)), (above, (4, 4)), (below, (2, 4))):
        assert moved[3, 4] == 0.75
        assert moved[place] == 0.25
        assert moved.sum() == 1
    edge = torch.ones(1, 1, 64)
    assert shifted(edge, 8)[0, 1].view(8, 8)[:, -1].tolist() == [0.75] * 8


def test_information_is_that_of_what_the_logits_tell_apart():
    """Each image its own logit and none that moves with position: ln 20; one logit a class: ln 2."""
    labels = torch.tensor([[0] * 30 + [3] * 30])
    split = dataset("digits").split(1, 0)._replace(train_inputs=torch.rand(1, 60, 64), train_labels=labels)
    followed = InformationProbe.of(split, 8)
    assert followed.labels.tolist() == [[0] * 10 + [3] * 10]

    def told(difference):
        logits = torch.randn(1, 100, 5)
        logits[..., 0] = logits[..., 3] + difference.repeat(5)
        return followed.information(logits).item()

    assert told(torch.arange(20.0)) == pytest.approx(math.log(20), abs=1e-3)
    assert told(torch.tensor([0.0] * 10 + [9.0] * 10)) == pytest.approx(math.log(2), abs=1e-3)
    few = InformationProbe.of(split._replace(train_labels=torch.tensor([[0] * 55 + [3] * 5])), 8)
    assert math.isnan(few.information(torch.randn(1, 100, 5)).item())


def test_cluster_metrics_by_hand():
    """Centres 0, 1 (one superclass), 10 on a line; every example one unit from its centre, across the line."""
    centres = torch.tensor([[0.0, 0], [1, 0], [10, 0], [14, 0]])
    labels = torch.arange(4).repeat(2)
    features = centres[labels] + torch.tensor([0.0, 1]) * torch.tensor([1.0] * 4 + [-1] * 4)[:, None]
    measured = cluster_metrics(features[None], labels, torch.tensor([0, 0, 1, 1]))
    assert measured["similar_distance"].tolist() == [pytest.approx((1 + 4) / 2)]
    assert measured["other_distance"].tolist() == [pytest.approx((10 + 14 + 9 + 13) / 4)]
    doubled = cluster_metrics(2 * features[None], labels, torch.tensor([0, 0, 1, 1]))
    assert doubled["similar_distance"] == measured["similar_distance"]


VOTES = torch.tensor([[8, 2, 0, 0], [0, 5, 4, 1], [0, 0, 10, 0], [0, 0, 0, 9], [3, 0, 0, 7]])
VOTED = torch.tensor([0, 1, 2, 3, 3])  # the labels; nobody voted otherwise on the third and the fourth image


def voted(votes, logits):
    """Every metric of these logits on test images with these votes; training and validation images are the same."""
    shares = votes.double() / votes.sum(-1, keepdim=True)
    split = Split(None, VOTED.expand(len(logits), -1), None, VOTED, None, VOTED, shares)
    return final_metrics(logits, logits, logits, split, None)


def test_nearness_to_votes_in_closed_form():
    """Of a network that knows nothing, log K or log (K − 1) less the entropy of the votes on images that have some."""
    found = voted(VOTES, torch.zeros(2, 5, 4))
    entropy = torch.special.entr(VOTES.double() / VOTES.sum(-1, keepdim=True)).sum(-1).mean().item()
    dark = math.log(5) - 0.8 * math.log(4)  # the second image's entropy on wrong classes; the first's and last's are 0
    for name, value in (("kl_posterior", math.log(4) - entropy), ("kl_dark", math.log(3) - dark / 3)):
        assert found[name].tolist() == pytest.approx([value] * 2)
        assert found[f"{name}_scaled"].tolist() == pytest.approx([value] * 2)


def test_a_network_that_votes_as_people_is_at_no_distance_whatever_its_temperature():
    votes = VOTES + 1  # a share of 0 has no logit
    logits = torch.stack([votes.log(), votes.log() * 3 + 2])
    found = voted(votes, logits)
    for name in ("kl_posterior", "kl_dark"):
        assert found[name][0].item() == pytest.approx(0, abs=1e-6)
        assert found[name][1].item() > 0.1
        assert found[f"{name}_scaled"].tolist() == pytest.approx([0, 0], abs=1e-6)
    logits[1, range(5), VOTED] += 9  # surer of the label, and as right about the others
    assert voted(votes, logits)["kl_dark_scaled"].tolist() == pytest.approx([0, 0], abs=1e-6)


def test_images_without_a_vote_count_for_nothing():
    logits = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    votes = VOTES + 1
    shares = votes.double() / votes.sum(-1, keepdim=True)
    split = Split(None, VOTED.expand(3, -1), None, VOTED, None, VOTED, shares)
    last = split._replace(test_labels=VOTED[:4], test_posterior=shares[:4])
    none = split._replace(test_posterior=torch.cat([shares[:4], torch.zeros(1, 4)]))
    few = final_metrics(logits, logits, logits[:, :4], last, None)
    whole = final_metrics(logits, logits, logits, none, None)
    names = [name for name in whole if name.startswith("kl_")]
    assert names == ["kl_posterior", "kl_posterior_scaled", "kl_dark", "kl_dark_scaled"]
    for name in names:
        assert whole[name].tolist() == pytest.approx(few[name].tolist())
    agreed = voted(10 * torch.eye(4, dtype=torch.int64)[VOTED], logits)
    assert agreed["kl_posterior"].isfinite().all()
    assert agreed["kl_dark"].isnan().all()
    assert agreed["kl_dark_scaled"].isnan().all()


def test_images_are_measured_against_their_votes_and_nothing_else_changes(image_file, tmp_path):
    arrays = dict(np.load(image_file))
    votes = np.random.default_rng(0).integers(0, 3, (120, 10)) + 20 * np.eye(10, dtype=np.int64)[arrays["test_labels"]]
    np.savez(tmp_path / "voted.npz", **arrays, test_label_counts=votes)
    network, schedule = ImageNetwork("plain_cnn", 4), Schedule(0.05, epochs=1)
    paths = (tmp_path / "voted.npz", image_file)
    records = execute([Run(str(path), 100, objective("lsr"), schedule, 0, network) for path in paths])
    voted, plain = (record.metrics for record in records)
    assert voted.keys() - plain.keys() == {"kl_posterior", "kl_posterior_scaled", "kl_dark", "kl_dark_scaled"}
    assert {name: voted[name] for name in plain} == plain
    assert all(value > 0 for name, value in voted.items() if name.startswith("kl_"))
    assert voted["kl_posterior_scaled"] < voted["kl_posterior"]
    assert voted["kl_dark_scaled"] < voted["kl_dark"]


def test_records_keep_what_the_chapters_draw():
    first, second = train([Run("digits", 100, objective("lsr"), Schedule(0.1, epochs=3), seed) for seed in (0, 1)])
    assert len(first.curves["information"]) == 3
    assert first.curves["information"][-1] == first.metrics["information"]
    assert 0 < first.metrics["information"] < math.log(20)
    assert second.projection == {}
    labels = dataset("digits").split(100, 0).train_labels
    assert sorted(row[2] for row in first.projection["train"]) == sorted(k for k in labels.tolist() if k < 3)
    assert len(first.projection["test"]) == (dataset("digits").split(1, 0).test_labels < 3).sum()
    mixture = train([Run("mixture-10-80", 100, objective("lsr"), Schedule(0.1, epochs=3), 0)])[0]
    assert mixture.projection == {}
    assert mixture.metrics["similar_distance"] < mixture.metrics["other_distance"]


@pytest.mark.parametrize("size", [1, 2, 7, 30, 60])
def test_no_bit_of_a_mean_along_the_curve_depends_on_the_stack(generator, size):
    values = torch.rand(12, 60, generator=generator, dtype=torch.float64)
    values[0], values[5, 3] = torch.nan, torch.nan
    whole = mean_of_known(list(values))
    assert torch.equal(mean_of_known(list(values[:, :size])), whole[:size])
    torch.testing.assert_close(whole, values.nanmean(0), rtol=1e-14, atol=0)
    assert mean_of_known([torch.full((2,), torch.nan)]).isnan().all()
