"""Runs on images, held against an ordinary loop: digits enlarged to 32×32 pixels."""

import json
import math
from dataclasses import replace
from functools import partial
from unittest.mock import Mock

import pytest
import torch
from sizes import mostly_slow
from torch.nn.functional import cross_entropy

from lsr_core import METHODS, InputError, checkpoints, objective, precision
from lsr_core.augmentation import Augmentation, normalised
from lsr_core.checkpoints import Checkpoint
from lsr_core.data import dataset
from lsr_core.evaluation import cluster_metrics
from lsr_core.execute import execute
from lsr_core.models import ImageNetwork, Perceptron
from lsr_core.objectives import ALIASES
from lsr_core.run import Run, TrainedTeacher, run_of, stream
from lsr_core.schedule import Schedule
from lsr_core.stacks import stack_size
from lsr_core.store import Store
from lsr_core.trainer import Trainer, train

MEASURED_GAIN = precision.gain  # elsewhere it is not measured
SMALL, RESIDUAL = ImageNetwork("plain_cnn", width=4), ImageNetwork("resnet8", width=4)
SCHEDULE = Schedule(0.05, 5e-4, epochs=2, batch_size=32)
CROPS = Augmentation(padding=2, flip=False, rotation=0.0)


@pytest.fixture
def make(image_file):
    """A run on the file's images; what is not said is small."""

    def run(method="cross-entropy", network=SMALL, seed=0, role="student", teacher=None, seen=CROPS, **constants):
        schedule = replace(SCHEDULE, **{k: constants.pop(k) for k in ("momentum", "epochs") if k in constants})
        made = objective(method, **constants)
        return Run(str(image_file), 100, made, schedule, seed, network, role, teacher, seen)

    return run


def kept_weights(runs, teacher=None):
    """The outcomes, and the networks after the last epoch."""
    trainer = Trainer(runs, teacher)
    return trainer.train(), [trainer.weights(place) for place in range(len(runs))]


def ordinary(run):
    """The same run by a loop of torch's own parts."""
    source = dataset(run.data)
    split = source.split(run.train, run.seed)
    network = run.network.build(source.image_shape, source.classes, stream(run.seed, run.role, "weights"))
    schedule = run.schedule
    adam = partial(torch.optim.Adam, betas=(0.9, 0.999))
    optimizer = (adam if schedule.optimizer == "adam" else partial(torch.optim.SGD, momentum=0.9))(
        network.parameters(), lr=1.0, weight_decay=schedule.weight_decay
    )
    order, draws = (stream(run.seed, run.role, purpose) for purpose in ("order", "augmentation"))
    draws = torch.Generator().manual_seed(draws.initial_seed())
    for epoch in range(schedule.epochs):
        batches = torch.randperm(run.train, generator=order).split(schedule.batch_size)
        for step, rows in enumerate(batches):
            images = run.augmentation(split.train_inputs[rows], draws)
            logits = network(normalised(images, source.mean, source.std))
            loss = cross_entropy(
                logits, split.train_labels[rows], label_smoothing=getattr(run.objective, "epsilon", 0.0)
            )
            optimizer.zero_grad()
            loss.backward()
            done = (epoch + step / len(batches)) / schedule.epochs
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate * (1 + math.cos(math.pi * done)) / 2
            optimizer.step()
    network.eval()
    with torch.no_grad():
        logits = network(normalised(split.test_inputs, source.mean, source.std))
    return network.state_dict(), (logits.argmax(-1) == split.test_labels).double().mean().item()


@pytest.mark.parametrize("method", ["cross-entropy", "lsr"])
def test_a_run_is_what_an_ordinary_loop_makes(make, method):
    assert_is_ordinary(make(method, epochs=1))  # four steps: rounding grows with every further one


def test_a_run_by_adam_is_what_an_ordinary_loop_makes(make):
    run = make("lsr", epochs=1)
    schedule = replace(run.schedule, optimizer="adam", learning_rate=1e-3, weight_decay=1e-4)
    assert_is_ordinary(replace(run, schedule=schedule))


def assert_is_ordinary(run):
    (outcome,), (weights,) = kept_weights([run])
    expected, accuracy = ordinary(run)
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-3)
    assert outcome.metrics["accuracy"] == pytest.approx(accuracy, abs=0.02)
    assert set(outcome.curves) >= {"epoch", "validation_accuracy", "test_accuracy", "output_drift"}


def test_students_side_by_side_are_students_alone(make):
    """Whatever their method, their schedule's constants and their mates."""
    runs = [make(), make("lsr"), make("mrkd", every=1), make("ps-kd", epochs=2), make("lsr", momentum=0.5)]
    assert len({run.stack_key for run in runs}) == 1
    together, weights = kept_weights(runs)
    for run, outcome, tensors in zip(runs, together, weights, strict=True):
        (alone,), (own,) = kept_weights([run])
        assert outcome == alone
        assert all(torch.equal(own[name], tensor) for name, tensor in tensors.items())
    assert len({outcome.metrics["nll"] for outcome in together}) == len(runs)


def test_students_of_one_teacher_share_its_answers(make):
    teacher = make(role="teacher", network=RESIDUAL)
    taught = [make(method, teacher=TrainedTeacher(teacher)) for method in ("kd", "soft-only", "ladder-confidence")]
    _, (weights,) = kept_weights([teacher])
    answers = []
    trainer = Trainer(taught, weights)
    real = trainer.data.teacher.forward
    trainer.data.teacher.forward = lambda images: answers.append(len(images)) or real(images)
    together = trainer.train()
    assert sum(answers) == (2 + 1) * 100  # once an image and epoch and once at the end, not once a student
    assert together == [train([run], weights)[0] for run in taught]
    assert stack_size(taught[0]) == 6
    assert stack_size(make()) == 1


@pytest.mark.parametrize("seen", [CROPS, None])
def test_students_are_measured_against_soft_targets_of_images_as_they_are(make, seen):
    teacher = make(role="teacher")
    run = make("soft-only", teacher=TrainedTeacher(teacher), seen=seen, temperature=2.0)
    _, (weights,) = kept_weights([teacher])
    trainer = Trainer([run], weights)
    (outcome,) = trainer.train()
    images = dataset(run.data).split(100, 0).train_inputs
    q, p = (
        trainer.data.logits(network.eval(), images).double() / 2 for network in (trainer.data.teacher, trainer.network)
    )
    expected = cross_entropy(p[0], q.softmax(-1))
    assert outcome.metrics["train_soft_nll"] == pytest.approx(expected.item(), rel=1e-6)


def test_class_centres_are_of_the_features_that_the_last_layer_reads(make, monkeypatch):
    """On images whose classes have superclasses."""
    run = make(network=RESIDUAL)
    source = dataset(run.data)
    groups = torch.arange(source.classes) // 2
    monkeypatch.setattr(type(source), "superclasses", groups, raising=False)
    trainer = Trainer([run, make("lsr", network=RESIDUAL)])
    outcomes = trainer.train()
    split = source.split(100, 0)
    for network, outcome in zip(trainer.network.networks, outcomes, strict=True):
        with torch.no_grad():
            features = network.eval().penultimate(normalised(split.test_inputs[:1000], source.mean, source.std))
        expected = cluster_metrics(features[None], split.test_labels[:1000], groups)
        for name in ("similar_distance", "other_distance"):
            assert outcome.metrics[name] == pytest.approx(expected[name].item(), rel=1e-4)


def test_where_nothing_is_augmented_the_teacher_answers_once(make):
    teacher = make(role="teacher")
    run = make("kd", teacher=TrainedTeacher(teacher), seen=None)
    _, (weights,) = kept_weights([teacher])
    trainer = Trainer([run], weights)
    split = dataset(run.data).split(100, 0)
    expected = trainer.data.logits(trainer.data.teacher, split.train_inputs)
    assert torch.equal(trainer.data.teacher_logits, expected)
    trainer.data.teacher = lambda _: pytest.fail("the teacher was asked again")
    assert trainer.train()[0].diverged_at is None


def test_class_means_are_the_teachers_on_all_training_images(make):
    teacher = make(role="teacher")
    run = make("ladder-class-means", teacher=TrainedTeacher(teacher))
    _, (weights,) = kept_weights([teacher])
    trainer = Trainer([run], weights)
    split = dataset(run.data).split(100, 0)
    table = trainer.data.logits(trainer.data.teacher, split.train_inputs)
    softened = (table / run.objective.temperature).softmax(-1)
    for k in range(10):
        expected = softened[split.train_labels == k].mean(0)
        torch.testing.assert_close(torch.tensor(trainer.learners[0].objective.prior[k]), expected, rtol=1e-4, atol=1e-6)


TRAINABLE = sorted({*METHODS, *ALIASES} - {"prior-smoothing"})  # which is given a matrix


@pytest.mark.parametrize("method", mostly_slow(TRAINABLE, "lsr", "kd", "mrkd", "ps-kd", "zipf"))
def test_every_method_trains_on_images(make, method):
    teacher = make(role="teacher", epochs=1)
    made = objective(method)
    run = make(method, teacher=TrainedTeacher(teacher) if made.takes_teacher else None, network=SMALL)
    _, (weights,) = kept_weights([teacher])
    (outcome,) = train([run], weights if made.takes_teacher else None)
    assert outcome.diverged_at is None
    assert outcome.metrics["train_nll"] > 0


def test_a_run_that_diverges_leaves_its_mates_alone(make):
    wild, calm = make("lsr"), make()
    wild = replace(wild, schedule=replace(wild.schedule, learning_rate=1e12))
    lost, kept = train([wild, calm])
    assert lost.diverged_at is not None
    assert kept == train([calm])[0]


def test_two_stops_change_no_bit_resume(make, own_store, tmp_path, monkeypatch):
    """A residual network with augmentation and memory replay, stopped after each of its first two epochs."""

    class Stopped(Exception):
        pass

    runs = [make("mrkd", network=RESIDUAL, every=1, epochs=3), make("beta-smoothing", network=RESIDUAL, epochs=3)]

    def save_and_stop(self, state, threads):
        real(self, state, threads)
        raise Stopped

    real = Checkpoint.save
    monkeypatch.setattr(checkpoints, "SECONDS", 0)
    monkeypatch.setattr(Checkpoint, "save", save_and_stop)
    for _ in range(2 * len(runs)):
        with pytest.raises(Stopped):
            execute(runs, own_store)
    monkeypatch.setattr(Checkpoint, "save", real)
    records = execute(runs, own_store)
    whole = execute(runs, Store(tmp_path / "whole"))
    assert all(record.provenance["resumed"] for record in records)
    for ours, theirs in zip(records, whole, strict=True):
        assert (ours.metrics, ours.curves) == (theirs.metrics, theirs.curves)


def test_teachers_on_images_are_trained_before_their_students(make, own_store):
    teacher = make(role="teacher")
    (record,) = execute([make("kd", teacher=TrainedTeacher(teacher, 1))], own_store)
    assert teacher.key in own_store
    assert record.provenance["threads"] == torch.get_num_threads()
    assert run_of(record.run) == make("kd", teacher=TrainedTeacher(teacher, 1))


def test_training_goes_on_through_half_precision_where_it_is_faster(make, monkeypatch, tmp_path):
    run = make(network=RESIDUAL)
    (single,) = execute([run])
    monkeypatch.setenv("LSR_STORE", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(precision, "gain", lambda *_: 1.2)
    (half,) = execute([run], Store(tmp_path / "elsewhere"))
    assert (single.provenance["precision"], half.provenance["precision"]) == ("float32", "bfloat16")
    assert half.metrics["nll"] != single.metrics["nll"]
    assert half.metrics["nll"] == pytest.approx(single.metrics["nll"], rel=0.05)


def test_precision_is_measured_once_and_kept(monkeypatch):
    monkeypatch.setattr(precision, "gain", MEASURED_GAIN)
    monkeypatch.setattr(precision, "_BATCH", 2)
    network, shape, cpu = ImageNetwork("resnet8", 2), (3, 32, 32), torch.device("cpu")
    first = precision.training_precision(network, shape, cpu)
    monkeypatch.setattr(precision, "gain", None)  # would raise
    assert precision.training_precision(network, shape, cpu) is first
    (gain,) = json.loads((Store().folder / "precision.json").read_text()).values()
    assert (gain >= precision.GAIN) == (first is torch.bfloat16)


def test_a_gpu_trains_in_half_precision_where_it_computes_in_it(monkeypatch):
    network, shape, device = ImageNetwork("resnet8", 2), (3, 32, 32), torch.device("cuda")
    for supported, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", Mock(return_value=supported))
        assert precision.training_precision(network, shape, device) is expected


def test_logits_and_all_measuring_are_in_single_precision(make, monkeypatch):
    """bf16 has 8 bits: of a hundred logits several would be equal."""
    monkeypatch.setattr(precision, "gain", lambda *_: 1.2)
    trainer = Trainer([make()])
    network = trainer.learners[0].network
    with trainer.data.autocast():
        trained = network(trainer.data.prepare(trainer.data.split.train_inputs[:8]))
    assert trained.dtype is torch.float32
    assert not torch.equal(trained, trained.bfloat16().float())
    images = trainer.data.split.test_inputs[:50]
    with torch.no_grad():
        evaluated = network.eval()(trainer.data.prepare(images))
    assert torch.equal(trainer.data.logits(network, images), evaluated)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": Perceptron()}, "holds images, which .* cannot take; give an ImageNetwork"),
        ({"data": "digits", "augmentation": None}, "digits holds vectors, which .* cannot take; give a Perceptron or"),
        ({"data": "digits", "network": Perceptron()}, "augmentation is of images; digits holds vectors"),
    ],
)
def test_networks_and_data_that_do_not_fit_are_refused(make, change, message):
    with pytest.raises(InputError, match=message):
        replace(make(), **change)


def test_runs_of_two_seeds_are_refused(make):
    with pytest.raises(InputError, match="must share data, seed, network and teacher"):
        train([make(), make(seed=1)])
