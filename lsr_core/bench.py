"""Benchmarks: this study's program against the ordinary way, both in one call."""

import statistics
import time
from math import cos, pi

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from . import metrics
from ._progress import bar
from .data import dataset
from .execution import STACK
from .objectives import objective
from .runs import Run, Schedule, stream
from .training import THREADS, stated_epochs, threads, train

_ROUNDS = 3


def rows() -> list[dict[str, str | float]]:
    """The benchmark table: seconds a run for 32 quick runs as one stack and one at a time, taken in turn."""
    methods = (objective("cross-entropy"), objective("lsr"))
    runs = [Run("digits", 100, methods[i % 2], Schedule(0.1, 1e-3), seed=i // 2) for i in range(STACK)]
    train(runs[:2])
    ours, other = [], []
    for _ in bar(range(_ROUNDS), desc="stack against loop", unit="round"):
        start = time.perf_counter()
        train(runs)
        middle = time.perf_counter()
        for run in runs:
            plain_loop(run)
        ours.append((middle - start) / STACK)
        other.append((time.perf_counter() - middle) / STACK)
    fast, slow = statistics.median(ours), statistics.median(other)
    return [{"name": "stack/perceptron", "ours": fast, "other": slow, "unit": "s a run", "ratio": slow / fast}]


@threads(THREADS)
def plain_loop(run: Run, dtype: torch.dtype = torch.float32) -> tuple[nn.Sequential, dict[str, float]]:
    """Train one perceptron the ordinary way: `nn.Linear`, `torch.optim.SGD`, torch's own cross-entropy.

    The same run as `training.train` makes it, from the same initial weights, in the same order, with the same
    measurements at the same epochs; for cross-entropy and label smoothing. Returns the network and its metrics.
    """
    if run.objective.name not in ("cross-entropy", "lsr"):
        raise TypeError("the plain loop knows cross-entropy and label smoothing only")
    source, schedule = dataset(run.data), run.schedule
    split = source.split(run.train, run.seed)
    network = _network(run).to(dtype)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=schedule.learning_rate,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
    )
    order = stream(run.seed, run.role, "order")
    smoothing = getattr(run.objective, "epsilon", 0.0)
    inputs = split.train_inputs.to(dtype)
    steps = -(-run.train // schedule.batch_size)
    for epoch in range(schedule.epochs):
        for step, rows in enumerate(torch.randperm(run.train, generator=order).split(schedule.batch_size)):
            progress = (epoch + step / steps) / schedule.epochs
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate * (1 + cos(pi * progress)) / 2
            loss = cross_entropy(network(inputs[rows]), split.train_labels[rows], label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch + 1 in stated_epochs(schedule.epochs):
            _measure(network, split.validation_inputs.to(dtype), split.validation_labels)
            measured = _measure(network, split.test_inputs.to(dtype), split.test_labels)
    return network, measured


def _network(run: Run) -> nn.Sequential:
    source = dataset(run.data)
    stacked = run.network.stack(source.features, source.classes, [stream(run.seed, run.role, "weights")])
    layers: list[nn.Module] = []
    for weight, bias in zip(stacked.weights, stacked.biases, strict=True):
        linear = nn.Linear(*weight.shape[1:])
        with torch.no_grad():
            linear.weight.copy_(weight[0].T)
            linear.bias.copy_(bias[0, 0])
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def _measure(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    logits = network(inputs)
    return {"accuracy": metrics.accuracy(logits, labels).item(), "nll": metrics.nll(logits, labels).item()}
