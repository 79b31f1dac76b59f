"""What a network costs: its parameters, and the multiplications of one image's forward pass."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .images import ImageNetwork


@dataclass(frozen=True)
class Cost:
    """Trainable numbers, and multiply-adds of convolutions and linear layers for one image, forward only."""

    parameters: int
    multiply_adds: int


def cost(network: ImageNetwork, shape: tuple[int, int, int], classes: int) -> Cost:
    """The cost on images of this shape (C, H, W), counted layer by layer on the meta device: nothing is computed.

    BatchNorm, activations, pooling and sums count as nothing. Raises `InputError` as `ImageNetwork.build` does.
    """
    skeleton = network.skeleton(shape, classes).eval()
    counts: list[int] = []

    def count(layer: nn.Conv2d | nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG001
        counts.append(layer.weight.numel() * output[0, 0].numel())  # each weight once a position

    for layer in skeleton.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    skeleton(torch.empty(1, *shape, device="meta"))
    return Cost(sum(parameter.numel() for parameter in skeleton.parameters()), sum(counts))
