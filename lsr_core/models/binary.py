"""Residual networks of ±1 for small images; their shortcuts, first and last layers are real.

Forward, a sign is a sign; backward, it has the gradient of an estimator. Sources: Bi-Real Net (Liu et al. 2018: a
shortcut around every binary convolution, the polynomial estimator) and ReActNet (Liu et al. 2020: learnable shifts).
There the weights' signs are multiplied by the mean size of a channel's weights, which the BatchNorm that follows
cancels: here they are ±1.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, prelu

from .blocks import Residual, convolution, stages


class Sign(torch.autograd.Function):
    """+1 where a value is 0 or more, else −1, of any shape; its gradient is the estimator's, a function of |x|."""

    @staticmethod
    def forward(ctx, values, estimator):  # noqa: ANN001, ANN205
        ctx.save_for_backward(values)
        ctx.estimator = estimator
        return (values >= 0).to(values).mul_(2).sub_(1)

    @staticmethod
    def backward(ctx, gradient):  # noqa: ANN001, ANN205
        (values,) = ctx.saved_tensors
        return ctx.estimator(values.abs()).mul_(gradient), None


def clipped(size: Tensor) -> Tensor:
    """The gradient 1 where |x| ≤ 1, else 0 (Hubara et al. 2016)."""
    return (size <= 1).to(size)


def polynomial(size: Tensor) -> Tensor:
    """The gradient 2 − 2|x| where |x| < 1, else 0 (Bi-Real Net, equation 8)."""
    return (1 - size).clamp_min_(0).mul_(2)


class BinaryConv2d(nn.Conv2d):
    """A convolution with the signs of its weights, whose gradients are clipped."""

    def forward(self, maps: Tensor) -> Tensor:
        return conv2d(maps, Sign.apply(self.weight, clipped), None, self.stride, self.padding)


class RSign(nn.Module):
    """The sign of maps `[B, C, H, W]` less a learnable shift a channel, or where not `binary` the shifted maps."""

    def __init__(self, channels: int, *, binary: bool) -> None:
        super().__init__()
        self.shift, self.binary = nn.Parameter(torch.empty(channels, 1, 1)), binary

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.shift)

    def forward(self, maps: Tensor) -> Tensor:
        shifted = maps - self.shift
        return Sign.apply(shifted, polynomial) if self.binary else shifted


class RPReLU(nn.Module):
    """PReLU between two learnable shifts a channel: x − γ + ζ where x > γ, else β(x − γ) + ζ (ReActNet, equation 5)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before, self.after, self.slope = (nn.Parameter(torch.empty(channels, 1, 1)) for _ in range(3))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.before)
        nn.init.zeros_(self.after)
        nn.init.constant_(self.slope, 0.25)

    def forward(self, maps: Tensor) -> Tensor:
        return prelu(maps - self.before, self.slope.flatten()) + self.after


Binary = Literal["nothing", "activations", "everything"]


def binary_resnet(shape: tuple[int, int, int], *, depth: int, width: int, binary: Binary) -> tuple[nn.Module, int]:
    """The body for images of this shape and its `4·width` features; depth is 6n + 2.

    `binary` is what is ±1: `"everything"` between the real layers, or only `"activations"`, as in the first of two
    steps of training, or `"nothing"`, a twin of full precision. All three have the same tensors. Where everything is,
    98.3 % of the multiply-adds of 20 layers of width 16 on images of 32×32 are binary, and 94.4 % of those of 8.
    """

    def layer(channels: int, out: int, stride: int) -> nn.Module:
        own = convolution(channels, out, 3, stride)
        if binary == "everything":
            own = BinaryConv2d(channels, out, 3, stride, padding=1, bias=False)
        branch = nn.Sequential(RSign(channels, binary=binary != "nothing"), own, nn.BatchNorm2d(out))
        smaller = [nn.AvgPool2d(2, ceil_mode=True), convolution(channels, out, 1), nn.BatchNorm2d(out)]
        shortcut = nn.Identity() if stride == 1 else nn.Sequential(*smaller)
        return nn.Sequential(Residual(shortcut, branch), RPReLU(out))

    def block(channels: int, out: int, stride: int) -> nn.Module:
        return nn.Sequential(layer(channels, out, stride), layer(out, out, 1))

    stem = [convolution(shape[0], width), nn.BatchNorm2d(width)]
    blocks = stages(block, width, (width, 2 * width, 4 * width), (depth - 2) // 6)
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 4 * width
