"""The bodies of networks for small images: plain, residual for CIFAR, and torchvision's residual with another stem."""

import math
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import pad

from .._torchvision import import_torchvision

Block = Callable[[int, int, int], nn.Module]  # of input channels, output channels and stride


def plain_cnn(shape: tuple[int, int, int], *, width: int) -> tuple[nn.Module, int]:
    """The body for images of this shape and its `4·width` features.

    Three 3×3 convolutions of `width`, `2·width` and `4·width` channels, each with BatchNorm, a 2×2 max-pool and
    ReLU, then a hidden linear layer with BatchNorm and ReLU: with the head, five layers. Source: Yuan et al. (2020)
    and their released code, where BatchNorm follows biases, which it cancels, and dropout of one half the hidden layer.
    """
    channels, *sides = shape
    layers: list[nn.Module] = []
    for inputs, out in ((channels, width), (width, 2 * width), (2 * width, 4 * width)):
        layers += [convolution(inputs, out), nn.BatchNorm2d(out), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
    hidden = nn.Linear(4 * width * math.prod(side // 8 for side in sides), 4 * width, bias=False)
    return nn.Sequential(*layers, nn.Flatten(), hidden, nn.BatchNorm1d(4 * width), nn.ReLU(inplace=True)), 4 * width


def cifar_resnet(shape: tuple[int, int, int], *, depth: int, width: int) -> tuple[nn.Module, int]:
    """The body for images of this shape and its `4·width` features; depth is 6n + 2.

    Shortcuts that change size have no weights: every other pixel, and zeros for the new channels (option A).
    Source: He et al. (2016), section 4.2.
    """
    stem = [convolution(shape[0], width), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    blocks = stages(_basic, width, (width, 2 * width, 4 * width), (depth - 2) // 6)
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 4 * width


def torchvision_resnet(shape: tuple[int, int, int], *, name: str) -> tuple[nn.Module, int]:
    """The body of torchvision's residual network of this name, and how many features it has.

    `conv1` is a 3×3 convolution of stride 1 without max-pooling, so that a small image enters the first stage whole.
    Source: He et al. (2016).
    """
    network = getattr(import_torchvision().models, name)()
    network.conv1, network.maxpool = convolution(shape[0], 64), nn.Identity()
    features, network.fc = network.fc.in_features, nn.Identity()
    return network, features


class Residual(nn.Module):
    """Shortcut plus branch."""

    def __init__(self, shortcut: nn.Module, branch: nn.Module) -> None:
        super().__init__()
        self.shortcut, self.branch = shortcut, branch

    def forward(self, maps: Tensor) -> Tensor:
        return self.shortcut(maps) + self.branch(maps)


class _ZeroPadded(nn.Module):
    """Every other pixel, and `more` channels of zeros."""

    def __init__(self, more: int) -> None:
        super().__init__()
        self.more = more

    def forward(self, maps: Tensor) -> Tensor:
        return pad(maps[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.more))


def stages(block: Block, channels: int, widths: tuple[int, ...], blocks: int) -> list[nn.Module]:
    """`blocks` blocks of each width; the first block of every stage but the first halves the image."""
    layers = []
    for stage, width in enumerate(widths):
        for place in range(blocks):
            layers.append(block(channels, width, 2 if stage > 0 and place == 0 else 1))
            channels = width
    return layers


def convolution(channels: int, width: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded so that stride 1 keeps the image's size."""
    return nn.Conv2d(channels, width, size, stride, padding=size // 2, groups=groups, bias=False)


def _basic(channels: int, width: int, stride: int) -> nn.Module:
    first = [convolution(channels, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    branch = nn.Sequential(*first, convolution(width, width), nn.BatchNorm2d(width))
    shortcut = nn.Identity() if stride == 1 else _ZeroPadded(width - channels)
    return nn.Sequential(Residual(shortcut, branch), nn.ReLU(inplace=True))
