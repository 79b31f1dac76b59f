"""The perceptron of ±1 against its equations, written out."""

import math

import pytest
import torch

from lsr_core.examples import STACK_THREADS
from lsr_core.models import BinaryPerceptron
from lsr_core.trainer import threads


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def signs(values):
    return torch.where(values >= 0, 1.0, -1.0).to(values)


@pytest.fixture
def stack():
    return BinaryPerceptron((6, 5)).stack(4, 3, generators(0, 1)).double()


def test_hidden_units_and_the_weights_between_them_say_plus_or_minus_one(stack):
    inputs = torch.randn(2, 7, 4, dtype=torch.float64)
    (first, between, last), biases = stack.weights, stack.biases
    hidden = signs(inputs @ first + biases[0])
    hidden = signs(hidden @ signs(between) / math.sqrt(6) + biases[1])
    assert torch.equal(stack.penultimate(inputs), hidden)
    torch.testing.assert_close(stack(inputs), hidden @ last + biases[2], rtol=1e-12, atol=1e-14)


def test_gradients_are_those_of_the_written_estimators(stack):
    """Of units 2 − 2|x| within ±1, of weights 1 within ±1."""
    inputs = torch.randn(2, 7, 4, dtype=torch.float64)
    with torch.no_grad():
        stack.weights[1].mul_(8)  # so that some are beyond ±1
        scores = [inputs @ stack.weights[0] + stack.biases[0]]
        units = [signs(scores[0])]
        scores.append(units[0] @ signs(stack.weights[1]) / math.sqrt(6) + stack.biases[1])
        units.append(signs(scores[1]))
    of_logits = stack.backpropagate(inputs, torch.cos)

    torch.testing.assert_close(stack.weights[2].grad, units[1].mT @ of_logits)
    passed = of_logits @ stack.weights[2].detach().mT * (2 - 2 * scores[1].abs()).clamp(min=0)
    is_within = (stack.weights[1].detach().abs() <= 1).double()
    assert 0 < is_within.mean() < 1
    torch.testing.assert_close(stack.weights[1].grad, is_within * (units[0].mT @ passed) / math.sqrt(6))
    torch.testing.assert_close(stack.biases[1].grad, passed.sum(1, keepdim=True))
    passed = passed @ signs(stack.weights[1].detach()).mT / math.sqrt(6) * (2 - 2 * scores[0].abs()).clamp(min=0)
    torch.testing.assert_close(stack.weights[0].grad, inputs.mT @ passed)


def test_no_bit_depends_on_the_place_in_the_stack():
    inputs, network = torch.randn(6, 25, 64), BinaryPerceptron((64, 64))
    with threads(STACK_THREADS):  # as runs are trained
        together = network.stack(64, 10, generators(*range(6)))
        together.backpropagate(inputs, torch.cos)
        for place in range(6):
            alone = network.stack(64, 10, generators(place))
            alone.backpropagate(inputs[place : place + 1].clone(), torch.cos)
            for ours, theirs in zip(together.parameters(), alone.parameters(), strict=True):
                assert torch.equal(ours.grad[place], theirs.grad[0])
