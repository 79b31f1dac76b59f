"""The page on training loops: every block runs with every method, and does what the page says."""

import re
from pathlib import Path

import pytest
import torch

import lsr_core

PAGE = (Path(__file__).parents[2] / "book" / "training_loops.md").read_text()
BLOCKS = dict(re.findall(r"^## ([^\n]+)\n.*?```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))
PLAIN = BLOCKS["The plain loop"]
ONE_EPOCH = PLAIN[PLAIN.index("    for index") :].replace("\n    ", "\n").replace("epoch)", "2)").strip()
REMEMBERING = [name for name in lsr_core.METHODS if lsr_core.objective(name).memory is not None]
WITHOUT_RANKS = ["mrkd", "mrkd-tc", "mrkd-fcn", "mrkd-fcn-ka", "ps-kd"]  # within a batch, and without draws
ONE_OF_EACH = ["mrkd-tc", "mrkd-fcn-ka", "ps-kd"]


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def run(method, block=ONE_EPOCH):
    """The plain loop and one epoch more, by this block."""
    constants = ", every=1" if method.startswith("mrkd") else ", epochs=4" if method == "ps-kd" else ""
    names = {}
    exec(PLAIN.replace('"mrkd", every=1', f'"{method}"{constants}'), names)
    exec(block, names)
    return names


def weights(names):
    return torch.cat([parameter.detach().flatten() for parameter in names["model"].parameters()])


def changed(title, old, new):
    assert old in BLOCKS[title]
    return BLOCKS[title].replace(old, new)


# Two losses before one step, as accumulation, SAM, two-call mixup and LBFGS make them, were refused.
@pytest.mark.parametrize("title", BLOCKS)
@pytest.mark.parametrize("method", [*REMEMBERING, "lsr"])
def test_every_loop_serves_every_method(title, method):
    block = BLOCKS[title]
    if title == "A vision transformer" and method != "beta-smoothing-released":
        block = block.replace("beta-smoothing-released", method).replace("objective.memory.start(ViT())\n", "")
    names = run(method, ONE_EPOCH if title == "The plain loop" else block)
    assert weights(names).isfinite().all()
    if method in REMEMBERING:
        steps = {"LBFGS": 7, "A vision transformer": 3}.get(title, 9)
        assert names["objective"].memory.steps == steps  # of the optimizer, however many losses


# Half batches gave another ensemble or were refused.
@pytest.mark.parametrize("method", WITHOUT_RANKS)
def test_two_half_batches_are_one_batch(method):
    another = "\n" + ONE_EPOCH.replace("2)", "3)")  # in which it shows what was remembered
    ends = [run(method, block + another) for block in (ONE_EPOCH, BLOCKS["Gradient accumulation"])]
    torch.testing.assert_close(*map(weights, ends), rtol=1e-9, atol=1e-12)


# SAM with a method that remembers: of what the second, perturbed forward pass says nothing must be remembered.
@pytest.mark.parametrize("method", ONE_OF_EACH)
def test_without_a_radius_the_second_loss_changes_nothing(method):
    title = "Sharpness-aware minimisation"
    ends = [run(method), run(method, changed(title, "0.05", "0.0")), run(method, BLOCKS[title])]
    torch.testing.assert_close(weights(ends[1]), weights(ends[0]), rtol=1e-10, atol=1e-12)
    assert (weights(ends[2]) - weights(ends[0])).abs().max() > 1e-6


# PS-KD under SAM would have learned, and remembered, what the perturbed weights predict.
def test_of_a_step_with_two_losses_ps_kd_remembers_the_first_prediction():
    names = {}
    exec(PLAIN.replace('"mrkd", every=1', '"ps-kd"'), names)
    objective, index, y = names["objective"], torch.arange(5), torch.zeros(5, dtype=torch.int64)
    before = objective.memory.table[index].clone()
    first, second = (torch.randn(5, 4, requires_grad=True) for _ in range(2))
    losses = []
    for logits in (first, second):
        losses.append(objective(logits, y, None, index).soft)
        objective.after_loss()
    kl = [
        torch.nn.functional.kl_div(z.log_softmax(-1), before, log_target=True, reduction="batchmean")
        for z in (first, second)
    ]
    alpha = objective.weights(4)[1]
    torch.testing.assert_close(losses, [alpha * value.detach() for value in kl])  # both have the teacher of before
    objective.after_step(None)
    torch.testing.assert_close(objective.memory.table[index], first.detach().log_softmax(-1))


# Mixup by two calls on the same logits was refused.
@pytest.mark.parametrize("method", ["mrkd", "ps-kd"])  # the layer of an ensemble learns from both labels
def test_mixup_with_the_whole_share_is_the_plain_loop(method):
    mixed = run(method, changed("Mixup with two calls", "share = 0.7", "share = 1.0"))
    torch.testing.assert_close(weights(mixed), weights(run(method)), rtol=1e-10, atol=1e-12)


# LBFGS evaluates its closure several times a step.
@pytest.mark.parametrize("method", ONE_OF_EACH)
def test_lbfgs_goes_down_within_its_step(method):
    start, end = run(method, "first = loss_of(torch.arange(60)).item()"), run(method, BLOCKS["LBFGS"])
    assert end["closure"]().item() < start["first"]


# A loss under autocast and a scaler is that of single precision.
@pytest.mark.parametrize("method", ONE_OF_EACH)
def test_mixed_precision_ends_near_the_plain_loop(method):
    torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(weights(run(method, BLOCKS["Mixed precision"])), weights(run(method)), rtol=0, atol=0.02)


# A validation pass between two steps changed the Beta draws that followed, and with them the training.
@pytest.mark.parametrize("method", REMEMBERING)
def test_a_validation_loss_changes_no_bit_of_the_training(method):
    seen = run(
        method,
        BLOCKS["A validation loss in between"]
        .replace("torch.randn(30, 8), ", "inputs[:30], ")
        .replace("torch.randint(4, (30,))", "labels[:30]"),
    )
    assert seen["training_loss"].isfinite()
    assert torch.equal(weights(seen), weights(run(method)))


# A second epoch with more batches than the first was refused, and one that shows an example twice.
@pytest.mark.parametrize("method", REMEMBERING)
def test_an_epoch_may_be_longer_than_the_first(method):
    names = run(method, ONE_EPOCH.replace("torch.randperm(60).split(20)", "torch.randint(60, (150,)).split(20)"))
    assert names["objective"].memory.steps == 6 + 8


# The same without numbers, which the first epoch's length was taken from.
@pytest.mark.parametrize("method", ["mrkd-fcn", "beta-smoothing", "beta-smoothing-shuffled"])
def test_an_epoch_without_numbers_may_be_longer_than_the_first(method):
    objective, model = (
        lsr_core.objective(method, **({"every": 1} if method == "mrkd-fcn" else {})),
        torch.nn.Linear(3, 4),
    )
    for epoch, steps in enumerate((2, 5)):
        for _ in range(steps):
            x = torch.randn(6, 3)
            objective(model(x), torch.randint(4, (6,)), objective.teacher_logits(model, x))
            objective.after_step(model)
        objective.after_epoch(model, epoch)
    assert objective.memory.steps == 7
