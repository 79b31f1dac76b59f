"""A small convolutional network with BatchNorm that holds the weights of S runs on a leading axis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d

from ..errors import counts, require
from ._base import Network, Stack, uniform


@dataclass(frozen=True)
class Convnet(Network):
    """The description of a convnet for square grey images: 3×3 convolutions, each with BatchNorm and ReLU.

    The first keeps the image's size, every further one halves it; then the mean over positions and a linear head.
    """

    channels: tuple[int, ...] = (8, 16)

    name = "convnet"

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", counts("channels", self.channels))
        require(len(self.channels) > 0, "channels is empty; a convnet needs one convolution or more")

    @property
    def stack_size(self) -> int:
        """How many train fastest side by side, as measured: 32 of 8 channels, 4 of 64, above 128 one at a time."""
        return max(1, min(32, 256 // self.channels[0]))

    def check(self, input_dim: int) -> None:
        is_square = math.isqrt(input_dim) ** 2 == input_dim
        require(is_square, f"{input_dim} inputs make no square image; a convnet needs one")

    def takes_one(self, input_dim: int) -> bool:
        return math.isqrt(input_dim) > 2 ** (len(self.channels) - 1)

    def stack(self, input_dim: int, classes: int, generators: Sequence[torch.Generator]) -> "StackedConvnet":
        """Networks from `input_dim` pixels to `classes` logits, one a generator, each initialised from its own."""
        self.check(input_dim)
        return StackedConvnet((1, *self.channels, classes), generators)


class StackedConvnet(Stack):
    """S convnets side by side: images `[S, B, side²]` to logits `[S, B, K]`.

    Convolutions are `[S, out, in, 3, 3]` without bias, the head `[S, in, K]` with bias `[S, 1, K]`, and BatchNorm's
    scale and shift `[S, out]`, as its running statistics are. The runs are groups of one convolution.
    """

    def __init__(self, widths: tuple[int, ...], generators: Sequence[torch.Generator]) -> None:
        super().__init__(widths, generators)
        *channels, classes = widths
        shapes = [(out, given, 3, 3) for given, out in pairwise(channels)]
        self.kernels = nn.ParameterList(uniform(shape, 9 * shape[1], generators) for shape in shapes)
        self.scales = nn.ParameterList(torch.ones(self.size, out) for out in channels[1:])
        self.shifts = nn.ParameterList(torch.zeros(self.size, out) for out in channels[1:])
        self.head_weight = nn.Parameter(uniform((channels[-1], classes), channels[-1], generators))
        self.head_bias = nn.Parameter(uniform((1, classes), channels[-1], generators))
        for layer, out in enumerate(channels[1:]):
            self.register_buffer(f"mean{layer}", torch.zeros(self.size, out))
            self.register_buffer(f"variance{layer}", torch.ones(self.size, out))

    @property
    def head(self) -> list[nn.Parameter]:
        """Weight and bias of the last layer."""
        return [self.head_weight, self.head_bias]

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.baddbmm(self.head_bias, self.penultimate(inputs), self.head_weight)

    def penultimate(self, inputs: Tensor) -> Tensor:
        """What the last layer reads, `[S, B, H]`: the mean of each channel over the image."""
        side = math.isqrt(inputs.shape[-1])
        maps = inputs.transpose(0, 1).unflatten(-1, (side, side))  # [B, S, side, side]: a run is a group of channels
        if not self.training and inputs.stride(0) == 0:  # the same images for all: one channel that each run reads
            maps = maps[:, :1]
        for layer, (kernel, scale, shift) in enumerate(zip(self.kernels, self.scales, self.shifts, strict=True)):
            stride, groups = 1 if layer == 0 else 2, maps.shape[1] // kernel.shape[2]
            maps = conv2d(maps, kernel.flatten(0, 1), stride=stride, padding=1, groups=groups)
            running = getattr(self, f"mean{layer}").view(-1), getattr(self, f"variance{layer}").view(-1)
            maps = batch_norm(maps, *running, scale.flatten(), shift.flatten(), self.training).relu()
        return maps.mean((-1, -2)).unflatten(1, (self.size, -1)).transpose(0, 1)
