"""The networks of the paper preset against torchvision's and the papers' own."""

import pytest
import torch
from sizes import mostly_slow
from torch import nn

from lsr_core._torchvision import import_torchvision
from lsr_core.models import ImageNetwork, cost

CIFAR = (3, 32, 32)
TORCHVISION = {  # its name there, its stem's kernel and channels
    "resnet18": ("resnet18", 7, 64),
    "resnet50": ("resnet50", 7, 64),
    "mobilenetv2": ("mobilenet_v2", 3, 32),
    "shufflenetv2": ("shufflenet_v2_x1_0", 3, 24),
    "googlenet": ("googlenet", 7, 64),
    "densenet121": ("densenet121", 7, 64),
}


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("architecture", mostly_slow(TORCHVISION, "mobilenetv2"))
@pytest.mark.parametrize(("channels", "classes"), [(3, 100), (1, 10)])
def test_only_stem_and_head_differ_from_torchvisions(architecture, channels, classes):
    name, kernel, width = TORCHVISION[architecture]
    constants = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    with torch.device("meta"):
        theirs = getattr(import_torchvision().models, name)(**constants)
    ours = ImageNetwork(architecture).skeleton((channels, 32, 32), classes)
    features = ours.linear.in_features
    stem = 3 * kernel**2 * width - channels * 3**2 * width
    assert parameters(ours) == parameters(theirs) - stem - (1000 - classes) * (features + 1)


@pytest.mark.parametrize("architecture", mostly_slow(TORCHVISION, "mobilenetv2"))
def test_the_stem_keeps_the_images_size(architecture):
    network = ImageNetwork(architecture).skeleton(CIFAR, 10).eval()
    sides = []
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
            layer.register_forward_hook(lambda _layer, inputs, output: sides.append((inputs[0].shape, output.shape)))
    network(torch.empty(1, *CIFAR, device="meta"))
    (first, after), (second, _), *_ = sides
    assert first[-2:] == after[-2:] == second[-2:] == (32, 32)
    assert sides[-1][1][-1] == (8 if architecture == "googlenet" else 4)


@pytest.mark.parametrize(
    ("network", "classes", "millions", "digits"),
    [
        (ImageNetwork("resnext29"), 100, 34.5, 1),  # Yuan et al. 2020
        (ImageNetwork("resnet20"), 10, 0.27, 2),  # He et al. 2016, table 6
        (ImageNetwork("resnet56"), 10, 0.85, 2),
        (ImageNetwork("wide_resnet"), 10, 36.5, 1),  # Zagoruyko & Komodakis 2016, tables 2 and 4
        (ImageNetwork("wide_resnet", width=4, depth=40), 10, 8.9, 1),
        (ImageNetwork("resnet18"), 100, 11.2, 1),
    ],
    ids=str,
)
def test_parameters_are_the_papers(network, classes, millions, digits):
    assert round(cost(network, CIFAR, classes).parameters / 1e6, digits) == millions


@pytest.mark.parametrize("depth", [10, 28])
def test_a_wide_resnets_depth_counts_its_convolutions(depth):
    """As its authors count: stem, blocks and the three shortcuts that widen."""
    network = ImageNetwork("wide_resnet", width=2, depth=depth).skeleton(CIFAR, 10)
    sizes = [layer.kernel_size for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert sizes.count((1, 1)) == 3
    assert sizes.count((3, 3)) == depth - 3
