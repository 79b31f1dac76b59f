"""A perceptron of ±1 between real first and last layers, which holds the weights of S runs on a leading axis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._base import Stack
from .binary import Sign, clipped, polynomial
from .perceptron import Perceptron, StackedPerceptron


@dataclass(frozen=True)
class BinaryPerceptron(Perceptron):
    """The description of a perceptron whose hidden units say ±1, with weights of ±1 between its hidden layers.

    It has the tensors of `Perceptron`. Signs are those of the binary networks for images: backward, units have the
    polynomial estimator's gradient and weights the clipped one's.
    """

    name = "binary_perceptron"

    def stack(self, input_dim: int, classes: int, generators: Sequence[torch.Generator]) -> "StackedBinaryPerceptron":
        """Networks from `input_dim` inputs to `classes` logits, one a generator, each initialised from its own."""
        return StackedBinaryPerceptron((input_dim, *self.hidden, classes), generators)


class StackedBinaryPerceptron(StackedPerceptron):
    """S binary perceptrons side by side: inputs `[S, B, D]` to logits `[S, B, K]`.

    A product with n signs is divided by √n, so that the sign that follows has a gradient.
    """

    backpropagate = Stack.backpropagate  # the perceptron's chain rule is not that of signs

    def _read(self, inputs: Tensor) -> list[Tensor]:
        read = [inputs]
        for layer in range(len(self.weights) - 1):
            read.append(Sign.apply(self._layer(layer, read[-1]), polynomial))
        return read

    def _weight(self, layer: int) -> Tensor:
        weight = self.weights[layer]
        is_between = 0 < layer % len(self.weights) < len(self.weights) - 1
        return Sign.apply(weight, clipped) / math.sqrt(weight.shape[1]) if is_between else weight
