import pytest
from torch import nn

from lsr_core import InputError
from lsr_core.models import ARCHITECTURES, Cost, ImageNetwork, cost


def test_a_small_network_costs_what_a_hand_counts():
    convolutions = 3 * 9 * 2 * 32**2 + 2 * 9 * 4 * 16**2 + 4 * 9 * 8 * 8**2
    hidden, head = 8 * 4 * 4 * 8, 8 * 10
    weights = 3 * 9 * 2 + 2 * 9 * 4 + 4 * 9 * 8 + hidden + head
    norms, bias = 2 * (2 + 4 + 8 + 8), 10
    expected = Cost(parameters=weights + norms + bias, multiply_adds=convolutions + hidden + head)
    assert cost(ImageNetwork("plain_cnn", width=2), (3, 32, 32), 10) == expected


@pytest.mark.parametrize(("shape", "sides"), [((1, 28, 28), (28, 14, 7)), ((3, 32, 32), (32, 16, 8))], ids=str)
def test_a_residual_network_costs_what_a_hand_counts(shape, sides):
    """Strides halve the image, which rounds up; shortcuts, BatchNorm and the mean over positions cost nothing."""
    w = 16
    first, second, third = (side**2 for side in sides)
    stem = shape[0] * 9 * w * first
    blocks = 2 * 9 * w**2 * first + 9 * (2 + 4) * w**2 * second + 9 * (8 + 16) * w**2 * third
    assert cost(ImageNetwork("resnet8"), shape, 100).multiply_adds == stem + blocks + 4 * w * 100


def test_groups_divide_the_cost_and_another_package_can_add_a_network(monkeypatch):
    def body(shape, *, width):
        layers = (nn.Conv2d(shape[0], 2 * width, 3), nn.Conv2d(2 * width, 4, 5, groups=2))
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 4

    monkeypatch.setitem(ARCHITECTURES, "grouped", (body, {"width": 3}))
    by_hand = 3 * 9 * 6 * 30**2 + 3 * 25 * 4 * 26**2 + 4 * 7
    assert cost(ImageNetwork("grouped"), (3, 32, 32), 7).multiply_adds == by_hand


def test_resnet18_costs_what_is_usual_on_cifar():
    figures = cost(ImageNetwork("resnet18"), (3, 32, 32), 100)
    assert round(figures.parameters / 1e6, 1) == 11.2
    assert round(figures.multiply_adds / 1e9, 2) == 0.56


def test_what_cannot_be_built_has_no_cost():
    with pytest.raises(InputError, match="shape is"):
        cost(ImageNetwork("resnet8"), (3, 8, 8), 10)
