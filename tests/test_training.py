import math

import numpy as np
import pytest
import torch

from lsr_core import InputError, objective, training
from lsr_core.bench import plain_loop
from lsr_core.data import dataset
from lsr_core.losses import distillation_gradient
from lsr_core.runs import Run, stream
from lsr_core.schedules import Schedule
from lsr_core.statistics import mean_interval
from lsr_core.training import _Stack, stated_epochs, train

METHODS = [
    objective("cross-entropy"),
    objective("lsr"),
    objective("lsrkd", temperature=4),
    objective("lsrkd-tc", temperature=4),
]


def runs(count, epochs=2, methods=METHODS, **schedule):
    constants = {"learning_rate": 0.1, "weight_decay": 1e-3, **schedule}
    return [
        Run("digits", 100, methods[i % len(methods)], Schedule(epochs=epochs, **constants), seed=i // len(methods))
        for i in range(count)
    ]


def weights(stack, place):
    return torch.cat([parameter[place].flatten() for parameter in stack.network.parameters()]).detach()


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def test_one_step_of_a_stack_is_the_step_of_each_run_alone():
    batch = runs(8)
    stack = _Stack(batch, torch.float32)
    x, y = stack.data.train_inputs[:, :25], stack.data.train_labels[:, :25]
    logits = stack.network(x)
    logits.backward(distillation_gradient(logits.detach(), y, **stack.constants, offsets=stack.offsets[:, :25]))
    for place, run in enumerate(batch):
        alone = _Stack([run], torch.float32)
        loss = run.objective(alone.network(x[place : place + 1]), y[place : place + 1])
        loss.total.sum().backward()
        stacked = run.objective(logits[place : place + 1].detach(), y[place : place + 1])
        assert abs(stacked.total.item() / loss.total.item() - 1) < 1e-6
        ours = torch.cat([p.grad[place].flatten() for p in stack.network.parameters()])
        theirs = torch.cat([p.grad[0].flatten() for p in alone.network.parameters()])
        assert relative(ours, theirs) < 1e-6


def test_ten_steps_of_a_stack_are_the_ten_steps_of_an_ordinary_loop():
    """torch's own network, optimizer and cross-entropy, the same batches: 10 steps are 2 epochs of 125 images."""
    batch = [Run("digits", 125, m, Schedule(0.1, 1e-3, epochs=2), seed=7) for m in METHODS[:2]]
    stack = _Stack(batch, torch.float32)
    stack.train()
    for place, run in enumerate(batch):
        network, _ = plain_loop(run)
        theirs = [t for layer in network[::2] for t in (layer.weight.T, layer.bias)]
        ours = [t[place] for pair in zip(stack.network.weights, stack.network.biases, strict=True) for t in pair]
        for a, b in zip(ours, theirs, strict=True):
            assert relative(a.flatten(), b.flatten()) < 1e-5


def assert_each_ends_as_alone(stack, batch):
    for place, run in enumerate(batch):
        alone = _Stack([run], torch.float32)
        alone.train()
        assert relative(weights(stack, place), weights(alone, 0)) < 1e-5


def test_ten_steps_stacked_and_alone_agree_for_every_method():
    batch = [Run("digits", 125, m, Schedule(0.1, 1e-3, epochs=2), seed=7) for m in METHODS]
    stack = _Stack(batch, torch.float32)
    stack.train()
    assert_each_ends_as_alone(stack, batch)


def test_a_whole_run_in_float64_measures_the_same_stacked_alone_and_in_an_ordinary_loop():
    batch = runs(4, epochs=60)
    stacked = train(batch, dtype=torch.float64)
    for run, outcome in zip(batch, stacked, strict=True):
        (alone,) = train([run], dtype=torch.float64)
        for name, value in outcome.metrics.items():
            assert value == pytest.approx(alone.metrics[name], abs=1e-6), name
    for run, outcome in list(zip(batch, stacked, strict=True))[:2]:
        _, measured = plain_loop(run, torch.float64)
        assert outcome.metrics["accuracy"] == pytest.approx(measured["accuracy"], abs=1e-6)
        assert outcome.metrics["nll"] == pytest.approx(measured["nll"], abs=1e-6)


def test_whole_runs_in_float32_agree_on_average_with_an_ordinary_loop(capsys):
    batch = runs(32, epochs=60, methods=METHODS[:2])
    stacked = np.array([100 * outcome.metrics["accuracy"] for outcome in train(batch)])
    alone = np.array([100 * plain_loop(run)[1]["accuracy"] for run in batch])
    mean, low, high = mean_interval(stacked - alone)
    with capsys.disabled():
        print(f"\nstack minus loop over 32 runs: {mean:+.3f} points [{low:+.3f}, {high:+.3f}]")
    assert abs(mean) <= 0.3
    assert low <= 0 <= high


def test_the_same_stack_again_is_bit_identical():
    batch = runs(32, epochs=12)
    assert train(batch) == train(batch)


def test_a_mate_that_diverges_changes_no_bit_of_the_others():
    batch = runs(8, epochs=12)
    clean = train(batch)
    doomed = Run("digits", 100, METHODS[0], Schedule(1e30, epochs=12), seed=9)
    mixed = train([*batch[:3], doomed, *batch[4:]])
    assert mixed[3].diverged_at is not None
    assert [o for i, o in enumerate(mixed) if i != 3] == [o for i, o in enumerate(clean) if i != 3]
    assert mixed[3].metrics["nll"] is None
    assert all(outcome.diverged_at is None for outcome in clean)


def test_runs_of_a_stack_differ_in_rate_and_decay():
    batch = [Run("digits", 100, METHODS[0], Schedule(lr, wd, epochs=2), 0) for lr, wd in ((0.1, 0.0), (0.05, 0.01))]
    stack = _Stack(batch, torch.float32)
    stack.train()
    assert_each_ends_as_alone(stack, batch)
    assert relative(weights(stack, 0), weights(stack, 1)) > 0.01


def test_methods_of_a_seed_share_their_start_and_order():
    stack = _Stack(runs(4), torch.float32)
    assert torch.equal(weights(stack, 0), weights(stack, 3))
    orders = [torch.randperm(100, generator=generator) for generator in stack.orders]
    assert torch.equal(orders[0], orders[3])


def test_the_learning_rate_falls_by_half_a_cosine():
    """With no momentum and the data of one batch, the path is gradient descent with the stated rates."""
    run = Run("digits", 25, METHODS[0], Schedule(0.05, 0.0, epochs=4, momentum=0.0), seed=0)
    stack = _Stack([run], torch.float64)
    reference = _Stack([run], torch.float64)
    stack.train()
    order, split = stream(0, "student", "order"), dataset("digits").split(25, 0)
    for epoch in range(4):
        rows = torch.randperm(25, generator=order)
        logits = reference.network(split.train_inputs[rows][None].double())
        run.objective(logits, split.train_labels[rows][None]).total.sum().backward()
        with torch.no_grad():
            for parameter in reference.network.parameters():
                parameter -= 0.05 * (1 + math.cos(math.pi * epoch / 4)) / 2 * parameter.grad
                parameter.grad = None
    assert relative(weights(stack, 0), weights(reference, 0)) < 1e-12


def test_curves_are_kept_at_twelve_stated_epochs_and_end_with_the_metrics():
    (outcome,) = train(runs(1, epochs=60))
    assert outcome.curves["epoch"] == list(range(5, 61, 5))
    assert outcome.curves["test_accuracy"][-1] == outcome.metrics["accuracy"]
    assert outcome.curves["validation_nll"][-1] == outcome.metrics["validation_nll"]


@pytest.mark.parametrize("epochs", [1, 2, 5, 12, 13, 60, 200])
def test_stated_epochs_are_at_most_twelve_and_end_with_the_last(epochs):
    stated = stated_epochs(epochs)
    assert len(stated) == min(epochs, 12)
    assert stated[-1] == epochs
    assert stated == sorted(set(stated))
    assert stated[0] >= 1


def test_runs_of_different_shapes_are_refused():
    with pytest.raises(InputError, match="runs in one stack must share data, sizes, network and epochs"):
        train([*runs(1, epochs=1), *runs(1, epochs=2)])


def test_the_last_batch_may_be_smaller():
    (outcome,) = train([Run("digits", 30, METHODS[0], Schedule(0.1, epochs=3), seed=0)])
    assert outcome.diverged_at is None


def test_the_mixture_is_measured_against_its_posterior():
    (outcome,) = train([Run("mixture-10-80", 100, METHODS[0], Schedule(0.05, epochs=3), seed=0)])
    assert outcome.metrics["kl_posterior_scaled"] <= outcome.metrics["kl_posterior"]
    assert outcome.metrics["kl_dark"] > 0


def test_the_callers_threads_are_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train(runs(1, epochs=1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert training.THREADS == 1
