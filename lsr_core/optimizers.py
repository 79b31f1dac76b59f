"""Momentum SGD with coupled weight decay, of runs side by side and of one network."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .run import Run


class StackedSGD:
    """Momentum SGD whose learning rate and weight decay are one number a run."""

    def __init__(self, network: nn.Module, runs: Sequence[Run]) -> None:
        self.parameters = list(network.parameters())
        self.velocities = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.momentum, self.nesterov = runs[0].schedule.momentum, runs[0].schedule.nesterov
        head = {id(parameter) for parameter in network.head}
        rates, decays = [run.schedule.learning_rate for run in runs], list(zip(*map(_decays, runs), strict=True))
        self.rates = [_one_a_run(rates, parameter) for parameter in self.parameters]
        self.decays = [_one_a_run(decays[id(parameter) in head], parameter) for parameter in self.parameters]

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """One step with every learning rate multiplied by `factor`; gradients are cleared."""
        for parameter, velocity, rate, decay in zip(
            self.parameters, self.velocities, self.rates, self.decays, strict=True
        ):
            gradient, parameter.grad = parameter.grad.addcmul_(parameter, decay), None
            torch.add(gradient, velocity, alpha=self.momentum, out=velocity)
            direction = gradient.add_(velocity, alpha=self.momentum) if self.nesterov else velocity
            parameter.addcmul_(direction, rate, value=-factor)

    def state_dict(self) -> dict[str, Any]:
        return {"velocities": self.velocities}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.velocities = state["velocities"]


class FusedSGD(torch.optim.SGD):
    """The same of one run, by torch's fused kernel."""

    def __init__(self, network: nn.Module, run: Run) -> None:
        schedule, head = run.schedule, {id(parameter) for parameter in network.head}
        groups = [[p for p in network.parameters() if (id(p) in head) == is_head] for is_head in (False, True)]
        super().__init__(
            [{"params": own, "weight_decay": decay} for own, decay in zip(groups, _decays(run), strict=True) if own],
            lr=schedule.learning_rate,
            momentum=schedule.momentum,
            nesterov=schedule.nesterov,
            fused=True,
        )

    def step(self, factor: float | Tensor) -> None:
        rate = self.defaults["lr"] * factor
        for group in self.param_groups:
            group["lr"] = rate.float() if isinstance(rate, Tensor) else rate
        super().step()
        self.zero_grad()


def _decays(run: Run) -> tuple[float, float]:
    """Weight decay of all layers but the last, and of the last."""
    schedule = run.schedule
    return schedule.weight_decay, schedule.weight_decay if schedule.head_decay is None else schedule.head_decay


def _one_a_run(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype).view(-1, *[1] * (like.ndim - 1))
