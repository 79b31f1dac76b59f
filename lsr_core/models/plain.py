"""The plain convolutional network of the distillation experiments."""

import math

from torch import nn


def plain_cnn(shape: tuple[int, int, int], *, width: int) -> tuple[nn.Module, int]:
    """The body for images of this shape and what it gives, `4·width` features.

    Three 3×3 convolutions of `width`, `2·width` and `4·width` channels, each with BatchNorm, a 2×2 max-pool and
    ReLU, then a hidden linear layer with BatchNorm and ReLU: with the head, five layers. Source: Yuan et al. (2020)
    and their released code, where BatchNorm follows biases, which it cancels, and dropout of one half the hidden layer.
    """
    channels, *sides = shape
    layers: list[nn.Module] = []
    for given, out in ((channels, width), (width, 2 * width), (2 * width, 4 * width)):
        layers += [nn.Conv2d(given, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)]
        layers += [nn.MaxPool2d(2), nn.ReLU(inplace=True)]
    hidden = nn.Linear(4 * width * math.prod(side // 8 for side in sides), 4 * width, bias=False)
    return nn.Sequential(*layers, nn.Flatten(), hidden, nn.BatchNorm1d(4 * width), nn.ReLU(inplace=True)), 4 * width
