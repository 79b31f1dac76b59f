"""Named networks for small images, one run at a time."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..errors import hold_plain, require, require_classes, require_count
from ._base import Network
from .binary import RPReLU, RSign, binary_resnet
from .blocks import cifar_resnet, plain_cnn, torchvision_resnet

_BINARY = {"binary": "everything", "binary_activations": "activations", "real_twin": "nothing"}
# Each architecture's body, a function of the image's shape and of sizes, and the default of each size. Other packages
# add their own: `ARCHITECTURES["mine"] = (body, {"width": 16})`.
ARCHITECTURES: dict[str, tuple[Callable[..., tuple[nn.Module, int]], dict[str, int]]] = {
    "plain_cnn": (plain_cnn, {"width": 32}),
    "resnet8": (partial(cifar_resnet, depth=8), {"width": 16}),
    "resnet20": (partial(cifar_resnet, depth=20), {"width": 16}),
    "resnet56": (partial(cifar_resnet, depth=56), {"width": 16}),
    "resnet18": (partial(torchvision_resnet, name="resnet18"), {}),
    **{
        f"{name}_resnet{depth}": (partial(binary_resnet, depth=depth, binary=binary), {"width": 16})
        for name, binary in _BINARY.items()
        for depth in (8, 20)
    },
}


def defining_modules() -> list[str]:
    """The modules that another process imports to know the same architectures."""
    modules = {getattr(body, "func", body).__module__ for body, _ in ARCHITECTURES.values()}
    return sorted(modules - {"__main__"})


_SHAPES = {channels * side**2: (channels, side, side) for channels in (1, 3) for side in range(28, 65)}
_IMAGES = "square images of 1 or 3 channels and 28 to 64 pixels a side"


@dataclass(frozen=True)
class ImageNetwork(Network):
    """The description of one network for square images of 28 to 64 pixels a side, in grey or colour.

    `width` is the number of channels of the first stage (`plain_cnn`, `resnet8` and its kin) or the
    widening factor (`wide_resnet`); `depth` is the number of layers of `wide_resnet`, 6n + 4. None means the size of
    the architecture's paper. Raises `InputError` for a size that the architecture does not have.
    """

    architecture: str
    width: int | None = None
    depth: int | None = None

    name = "image-network"
    takes = "images"
    is_shared = True

    def __post_init__(self) -> None:
        hold_plain(self)
        name = self.architecture
        require(name in ARCHITECTURES, f"unknown architecture {name!r}; there are {', '.join(ARCHITECTURES)}")
        _, defaults = ARCHITECTURES[name]
        for size, value in (("width", self.width), ("depth", self.depth)):
            if value is None:
                object.__setattr__(self, size, defaults.get(size))
            else:
                require(size in defaults, f"{size} is {value!r}; {name} has none to choose")
                require_count(size, value)
        fits = self.depth is None or (self.depth >= 10 and self.depth % 6 == 4)
        require(fits, f"depth is {self.depth}; {name} has 6n + 4 layers: 10, 16, 22, 28, ...")

    def check(self, input_dim: int) -> None:
        require(input_dim in _SHAPES, f"{input_dim} inputs make no image for {self.architecture}; it takes {_IMAGES}")

    @cache  # noqa: B019 (a handful of descriptions)
    def takes_one(self, input_dim: int) -> bool:
        shape = _SHAPES[input_dim]
        try:
            self.skeleton(shape, 2)(torch.empty(1, *shape, device="meta"))
        except ValueError:  # torch's BatchNorm, which alone looks at the size of a batch
            return False
        return True

    def build(self, shape: tuple[int, int, int], classes: int, generator: torch.Generator) -> "ImageClassifier":
        """The network for images of this shape (C, H, W), on the generator's device, with weights drawn from it alone.

        Convolutions are drawn as in He et al. (2015), by fan-out, linear layers as torch draws them.
        """
        network = self.skeleton(shape, classes).to_empty(device=generator.device)
        return network.apply(partial(_draw, generator=generator))

    def skeleton(self, shape: tuple[int, int, int], classes: int) -> "ImageClassifier":
        """The network on the meta device: its layers and their shapes, without weights."""
        require(shape in _SHAPES.values(), f"shape is {shape!r}; {self.architecture} takes (C, H, W) of {_IMAGES}")
        shape = _SHAPES[math.prod(shape)]  # whole numbers, whatever equal ones were given
        require_classes(classes)
        body, defaults = ARCHITECTURES[self.architecture]
        with torch.device("meta"):
            return ImageClassifier(*body(shape, **{name: getattr(self, name) for name in defaults}), classes)


class ImageClassifier(nn.Module):
    """A body and the linear layer that reads it: images `[B, C, H, W]` to logits `[B, K]`.

    The last layer has its weights' precision under autocast too.
    """

    def __init__(self, body: nn.Module, features: int, classes: int) -> None:
        super().__init__()
        self.body, self.linear = body, nn.Linear(features, classes)

    @property
    def head(self) -> list[nn.Parameter]:
        """Weight and bias of the last layer."""
        return [self.linear.weight, self.linear.bias]

    def forward(self, images: Tensor) -> Tensor:
        features, where = self.body(images), images.device.type
        is_cast = torch.amp.is_autocast_available(where) and torch.is_autocast_enabled(where)
        # In bf16 many logits would be equal.
        with torch.autocast(where, enabled=False) if is_cast else nullcontext():
            return self.linear(features.to(self.linear.weight.dtype))

    def penultimate(self, images: Tensor) -> Tensor:
        """What the last layer reads, `[B, H]`."""
        return self.body(images)


class Cost(NamedTuple):
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


def _draw(layer: nn.Module, generator: torch.Generator) -> None:
    """Initial values of a layer's own weights and statistics."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    elif isinstance(layer, nn.Linear):
        for parameter in layer.parameters():
            bound = 1 / math.sqrt(layer.in_features)
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
    elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, RSign, RPReLU)):
        layer.reset_parameters()
