import pytest
import torch
from torch import nn

from lsr_core import InputError
from lsr_core.examples import STACK_THREADS
from lsr_core.models import Perceptron
from lsr_core.trainer import threads


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_each_run_of_a_stack_is_the_network_of_its_own_generator():
    stack = Perceptron((16, 8)).stack(5, 3, generators(1, 2))
    inputs = torch.randn(2, 7, 5)
    for place, seed in enumerate((1, 2)):
        alone = Perceptron((16, 8)).stack(5, 3, generators(seed))
        torch.testing.assert_close(stack(inputs)[place], alone(inputs[place : place + 1])[0])


def test_initial_weights_have_torchs_spread():
    weight = Perceptron((4000,)).stack(64, 10, generators(0)).weights[0]
    reference = nn.Linear(64, 4000).weight
    assert weight.abs().max() <= 1 / 8
    assert weight.std().item() == pytest.approx(reference.std().item(), rel=0.01)


SHAPES = [(64, (64, 64), 10, 25), (57, (8,), 3, 7), (32, (64,), 50, 29), (64, (16, 20), 5, 1)]


def stepped(widths, inputs, seeds, dtype=torch.float32):
    """Networks with the gradients of the sum of their logits' sines, by their own step."""
    features, hidden, classes = widths
    stack = Perceptron(hidden).stack(features, classes, generators(*seeds)).to(dtype)
    stack.backpropagate(inputs, torch.cos)
    return stack


@pytest.mark.parametrize(("features", "hidden", "classes", "batch"), SHAPES)
def test_no_bit_of_outputs_or_gradients_depends_on_the_place_in_the_stack(features, hidden, classes, batch):
    """On AVX2 a product has other last bits for a matrix that does not start on a boundary of 16 bytes."""
    inputs, widths = torch.randn(6, batch, features), (features, hidden, classes)
    with threads(STACK_THREADS):  # as runs are trained
        together = stepped(widths, inputs, range(6))
        for place in range(6):
            alone = stepped(widths, inputs[place : place + 1].clone(), [place])
            assert torch.equal(together(inputs)[place], alone(inputs[place : place + 1].clone())[0])
            for ours, theirs in zip(together.parameters(), alone.parameters(), strict=True):
                assert torch.equal(ours.grad[place], theirs.grad[0])


@pytest.mark.parametrize(("features", "hidden", "classes", "batch"), SHAPES)
def test_the_chain_rule_is_automatic_differentiation(features, hidden, classes, batch):
    inputs = torch.randn(3, batch, features, dtype=torch.float64)
    ours = stepped((features, hidden, classes), inputs, range(3), torch.float64)
    expected = torch.autograd.grad(ours(inputs).sin().sum(), list(ours.parameters()))
    for parameter, gradient in zip(ours.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("hidden", [(0,), (64, -1), (2.5,)])
def test_a_width_that_is_none_is_refused(hidden):
    with pytest.raises(InputError, match="hidden is"):
        Perceptron(hidden)
