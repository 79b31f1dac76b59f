"""Momentum SGD and Adam with coupled weight decay, of runs side by side and of one network."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .run import Run

BETA2 = 0.999  # of Adam


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
        own = zip(self.parameters, self.velocities, self.rates, self.decays, strict=True)
        for parameter, velocity, rate, decay in own:
            gradient, parameter.grad = parameter.grad.addcmul_(parameter, decay), None
            torch.add(gradient, velocity, alpha=self.momentum, out=velocity)
            direction = gradient.add_(velocity, alpha=self.momentum) if self.nesterov else velocity
            parameter.addcmul_(direction, rate, value=-factor)

    def state_dict(self) -> dict[str, Any]:
        return {"velocities": self.velocities}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.velocities = state["velocities"]


class _Fused(torch.optim.Optimizer):
    """An optimizer of one run, by torch's fused kernel."""

    def step(self, factor: float | Tensor) -> None:
        """One step with the learning rate multiplied by `factor`; gradients are cleared."""
        rate = self.defaults["lr"] * factor
        for group in self.param_groups:
            group["lr"] = rate.float() if isinstance(rate, Tensor) else rate
        super().step()
        self.zero_grad()


class FusedSGD(_Fused, torch.optim.SGD):
    """Momentum SGD of one run."""


class FusedAdam(_Fused, torch.optim.Adam):
    """Adam of one run."""


def fused(network: nn.Module, run: Run) -> FusedSGD | FusedAdam:
    """The optimizer of a run's schedule."""
    s, groups = run.schedule, _groups(network, run)
    if s.optimizer == "sgd":
        return FusedSGD(groups, s.learning_rate, s.momentum, nesterov=s.nesterov, fused=True)
    is_cuda = next(network.parameters()).is_cuda
    return FusedAdam(groups, s.learning_rate, (s.momentum, BETA2), capturable=is_cuda, fused=True)


def _groups(network: nn.Module, run: Run) -> list[dict[str, Any]]:
    """The parameters of all layers but the last, and of the last, with their weight decays."""
    head = {id(parameter) for parameter in network.head}
    groups = [[p for p in network.parameters() if (id(p) in head) == is_head] for is_head in (False, True)]
    return [{"params": own, "weight_decay": decay} for own, decay in zip(groups, _decays(run), strict=True) if own]


def _decays(run: Run) -> tuple[float, float]:
    """Weight decay of all layers but the last, and of the last."""
    schedule = run.schedule
    return schedule.weight_decay, schedule.weight_decay if schedule.head_decay is None else schedule.head_decay


def _one_a_run(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, *[1] * (like.ndim - 1))
