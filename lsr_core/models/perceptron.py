"""A fully connected network that holds the weights of S runs on a leading axis."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from .._products import first, padded
from ..errors import counts


@dataclass(frozen=True)
class Perceptron:
    """The description of a perceptron with ReLU: the widths of its hidden layers."""

    hidden: tuple[int, ...] = (64, 64)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", counts("hidden", self.hidden))

    @property
    def stack_size(self) -> int:
        """How many train fastest side by side, as measured: 32 of width 64, one of width 1,200."""
        widths = (64, *self.hidden, 10)
        return max(1, min(32, 2_000_000 // sum(a * b for a, b in pairwise(widths))))

    def canonical(self) -> dict[str, object]:
        """Name and sizes, as plain values."""
        return {"name": "perceptron", "hidden": list(self.hidden)}

    def check(self, input_dim: int) -> None:
        """Raise `InputError` unless it can take this many inputs; a perceptron takes any number."""

    def takes_one(self, input_dim: int) -> bool:  # noqa: ARG002
        """Whether it can train on a batch of one example."""
        return True

    def stack(self, input_dim: int, classes: int, generators: Sequence[torch.Generator]) -> "StackedPerceptron":
        """Networks from `input_dim` inputs to `classes` logits, one a generator, each initialised from its own."""
        return StackedPerceptron((input_dim, *self.hidden, classes), generators)


class StackedPerceptron(nn.Module):
    """S perceptrons side by side: inputs `[S, B, D]` to logits `[S, B, K]`.

    Weights are `[S, in, out]` and biases `[S, 1, out]`, drawn from $U(-1/\\sqrt{in}, 1/\\sqrt{in})$ as
    `torch.nn.Linear` does. No run's logits depend on another run's weights.
    """

    def __init__(self, widths: Sequence[int], generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.widths = tuple(widths)
        drawn = [[_initial(shape, generator) for shape in pairwise(widths)] for generator in generators]
        layers = [[torch.stack(tensors) for tensors in zip(*layer, strict=True)] for layer in zip(*drawn, strict=True)]
        self.weights = nn.ParameterList(weight for weight, _ in layers)
        self.biases = nn.ParameterList(bias for _, bias in layers)

    @property
    def head(self) -> list[nn.Parameter]:
        """Weight and bias of the last layer."""
        return [self.weights[-1], self.biases[-1]]

    def reinitialized(self, generators: Sequence[torch.Generator]) -> "StackedPerceptron":
        """The same networks with new random weights."""
        return StackedPerceptron(self.widths, generators).to(self.weights[0])

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
        weight = self.weights[layer]
        outputs = torch.baddbmm(padded(self.biases[layer]), inputs, padded(weight))
        return first(outputs.relu_() if relu else outputs, weight.shape[-1])


def _initial(shape: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weight `[in, out]` and bias `[1, out]` of one layer."""
    bound = 1 / math.sqrt(shape[0])
    return tuple(torch.empty(size).uniform_(-bound, bound, generator=generator) for size in (shape, (1, shape[1])))
