"""What a network costs: its parameters, and the multiplications of one image's forward pass."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from .images import ImageNetwork


@dataclass(frozen=True)
class Cost:
    """Trainable numbers, and multiply-adds of convolutions and linear layers for one image, forward only."""

    parameters: int
    multiply_adds: int


def cost(network: ImageNetwork, shape: tuple[int, int, int], classes: int) -> Cost:
    """The cost on images of this shape (C, H, W), by torch's counter on the meta device: nothing is computed.

    BatchNorm, activations, pooling and sums count as nothing. Raises `InputError` as `ImageNetwork.build` does.
    """
    skeleton = network.skeleton(shape, classes).eval()
    with FlopCounterMode(display=False) as counter:
        skeleton(torch.empty(1, *shape, device="meta"))
    return Cost(sum(parameter.numel() for parameter in skeleton.parameters()), counter.get_total_flops() // 2)
