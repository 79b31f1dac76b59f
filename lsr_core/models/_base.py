"""What networks have in common: how they are described, and how a stack of them is drawn."""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn


class Network:
    """The description of a network, a frozen dataclass of sizes; `stack_size` of them train fastest side by side."""

    name: ClassVar[str]
    takes: ClassVar[str] = "vectors"  # the kind of its inputs
    is_shared: ClassVar[bool] = False  # whether runs of one seed see the same examples, and do not stack their weights
    stack_size = 1

    def canonical(self) -> dict[str, object]:
        """Name and sizes, as plain values."""
        sizes = {name: list(size) if isinstance(size, tuple) else size for name, size in vars(self).items()}
        return {"name": self.name, **sizes}

    def check(self, input_dim: int) -> None:
        """Raise `InputError` unless it can take this many inputs."""

    def takes_one(self, input_dim: int) -> bool:  # noqa: ARG002
        """Whether it can train on a batch of one example: not where BatchNorm would see one number of a channel."""
        return True


class Stack(nn.Module):
    """S networks side by side, one drawn from each generator, with `widths` from the inputs to the classes.

    Every parameter has a leading axis of S. No network's logits depend on another one's weights.
    """

    def __init__(self, widths: tuple[int, ...], generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.widths, self.size = widths, len(generators)

    def backpropagate(self, inputs: Tensor, gradient: Callable[[Tensor], Tensor]) -> Tensor:
        """Set the gradients of all weights, where `gradient` gives that of the logits; returns the latter."""
        logits = self(inputs)
        of_logits = gradient(logits.detach())
        logits.backward(of_logits)
        return of_logits

    def reinitialized(self, generators: Sequence[torch.Generator]) -> Self:
        """The same networks with new random weights."""
        return type(self)(self.widths, generators).to(next(self.parameters()))


def uniform(shape: tuple[int, ...], fan_in: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Tensors `[S, *shape]` from $U(-1/\\sqrt{n}, 1/\\sqrt{n})$, n the fan-in, one from each generator."""
    bound = 1 / math.sqrt(fan_in)
    return torch.stack([torch.empty(shape).uniform_(-bound, bound, generator=generator) for generator in generators])
