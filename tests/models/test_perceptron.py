import pytest
import torch
from torch import nn

from lsr_core import InputError
from lsr_core.models import Perceptron


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


@pytest.mark.parametrize("hidden", [(0,), (64, -1), (2.5,)])
def test_a_width_that_is_none_is_refused(hidden):
    with pytest.raises(InputError, match="hidden is"):
        Perceptron(hidden)
