"""A fully connected network that holds the weights of S runs on a leading axis."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from .._products import first, padded
from ..errors import counts
from ._base import Network, Stack, uniform


@dataclass(frozen=True)
class Perceptron(Network):
    """The description of a perceptron with ReLU: the widths of its hidden layers."""

    hidden: tuple[int, ...] = (64, 64)

    name = "perceptron"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", counts("hidden", self.hidden))

    @property
    def stack_size(self) -> int:
        """How many train fastest side by side, as measured: 32 of width 64, one of width 1,200."""
        widths = (64, *self.hidden, 10)
        return max(1, min(32, 2_000_000 // sum(a * b for a, b in pairwise(widths))))

    def stack(self, input_dim: int, classes: int, generators: Sequence[torch.Generator]) -> "StackedPerceptron":
        """Networks from `input_dim` inputs to `classes` logits, one a generator, each initialised from its own."""
        return StackedPerceptron((input_dim, *self.hidden, classes), generators)


class StackedPerceptron(Stack):
    """S perceptrons side by side: inputs `[S, B, D]` to logits `[S, B, K]`.

    Weights are `[S, in, out]` and biases `[S, 1, out]`.
    """

    def __init__(self, widths: tuple[int, ...], generators: Sequence[torch.Generator]) -> None:
        super().__init__(widths, generators)
        layers = [[uniform(shape, size[0], generators) for shape in (size, (1, size[1]))] for size in pairwise(widths)]
        self.weights = nn.ParameterList(weight for weight, _ in layers)
        self.biases = nn.ParameterList(bias for _, bias in layers)

    @property
    def head(self) -> list[nn.Parameter]:
        """Weight and bias of the last layer."""
        return [self.weights[-1], self.biases[-1]]

    def forward(self, inputs: Tensor) -> Tensor:
        return self._layer(-1, self.penultimate(inputs))

    def penultimate(self, inputs: Tensor) -> Tensor:
        """What the last layer reads, `[S, B, H]`."""
        return self._read(inputs)[-1]

    @torch.no_grad()
    def backpropagate(self, inputs: Tensor, gradient: Callable[[Tensor], Tensor]) -> Tensor:
        """Set the gradients of all weights, where `gradient` gives that of the logits; returns the latter.

        The chain rule written out, in two thirds of the time that automatic differentiation takes.
        """
        read = self._read(inputs)
        passed = of_logits = gradient(self._layer(-1, read[-1]))
        for layer in reversed(range(len(read))):
            weight, bias, passed = self.weights[layer], self.biases[layer], padded(passed)
            weight.grad = first(torch.bmm(read[layer].mT, passed), weight.shape[-1])
            bias.grad = first(passed.sum(1, keepdim=True), weight.shape[-1])
            if layer > 0:
                passed = torch.ops.aten.threshold_backward(torch.bmm(passed, padded(weight).mT), read[layer], 0)
        return of_logits

    def _read(self, inputs: Tensor) -> list[Tensor]:
        """What each layer reads, `[S, B, in]`."""
        read = [inputs]
        for layer in range(len(self.weights) - 1):
            read.append(self._layer(layer, read[-1], relu=True))
        return read

    def _layer(self, layer: int, inputs: Tensor, *, relu: bool = False) -> Tensor:
        """Outputs `[S, B, out]` of one layer."""
        weight = self._weight(layer)
        outputs = torch.baddbmm(padded(self.biases[layer]), inputs, padded(weight))
        return first(outputs.relu_() if relu else outputs, weight.shape[-1])

    def _weight(self, layer: int) -> Tensor:
        """The weights `[S, in, out]` that one layer multiplies by."""
        return self.weights[layer]
