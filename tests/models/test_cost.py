import pytest
import torch
from sizes import mostly_slow
from torch.utils.flop_counter import FlopCounterMode

from lsr_core import InputError
from lsr_core.models import ARCHITECTURES, Cost, ImageNetwork, cost


def test_a_small_network_costs_what_a_hand_counts():
    convolutions = 3 * 9 * 2 * 32**2 + 2 * 9 * 4 * 16**2 + 4 * 9 * 8 * 8**2
    hidden, head = 8 * 4 * 4 * 8, 8 * 10
    weights = 3 * 9 * 2 + 2 * 9 * 4 + 4 * 9 * 8 + hidden + head
    norms, bias = 2 * (2 + 4 + 8 + 8), 10
    expected = Cost(parameters=weights + norms + bias, multiply_adds=convolutions + hidden + head)
    assert cost(ImageNetwork("plain_cnn", width=2), (3, 32, 32), 10) == expected


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)], ids=str)
@pytest.mark.parametrize("architecture", mostly_slow(ARCHITECTURES, "plain_cnn", "resnet8", "mobilenetv2"))
def test_multiply_adds_are_half_of_torchs_operations(architecture, shape):
    network = ImageNetwork(architecture)
    with FlopCounterMode(display=False) as counter:
        network.skeleton(shape, 100).eval()(torch.empty(1, *shape, device="meta"))
    assert 2 * cost(network, shape, 100).multiply_adds == counter.get_total_flops()


def test_resnet18_costs_what_is_usual_on_cifar():
    figures = cost(ImageNetwork("resnet18"), (3, 32, 32), 100)
    assert round(figures.parameters / 1e6, 1) == 11.2
    assert round(figures.multiply_adds / 1e9, 2) == 0.56


def test_what_cannot_be_built_has_no_cost():
    with pytest.raises(InputError, match="shape is"):
        cost(ImageNetwork("resnet8"), (3, 8, 8), 10)
