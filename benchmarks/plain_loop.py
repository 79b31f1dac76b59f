"""The ordinary way to train a perceptron: what the study's trainer is compared with, in speed here and in the tests."""

from math import cos, pi

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lsr_core import metrics
from lsr_core.data import dataset
from lsr_core.evaluation import evaluation_epochs
from lsr_core.examples import STACK_THREADS
from lsr_core.run import Run, stream
from lsr_core.trainer import threads


@threads(STACK_THREADS)
def plain_loop(run: Run, dtype: torch.dtype = torch.float32) -> tuple[nn.Sequential, dict[str, float]]:
    """Train one perceptron the ordinary way: `nn.Linear`, `torch.optim.SGD`, torch's own cross-entropy.

    The same run as the trainer's, from the same initial weights, in the same order, with the same
    measurements at the same epochs; for cross-entropy and label smoothing. Returns the network and its metrics.
    """
    if run.objective.name not in ("cross-entropy", "lsr"):
        raise TypeError("the plain loop knows cross-entropy and label smoothing only")
    source, schedule = dataset(run.data), run.schedule
    split = source.split(run.train, run.seed)
    network = _network(run).to(dtype)
    constants = {"momentum": schedule.momentum, "weight_decay": schedule.weight_decay}
    optimizer = torch.optim.SGD(network.parameters(), lr=schedule.learning_rate, **constants)
    order = stream(run.seed, run.role, "order")
    smoothing = getattr(run.objective, "epsilon", 0.0)
    inputs = split.train_inputs.to(dtype)
    steps = schedule.epochs * -(-run.train // schedule.batch_size)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + cos(pi * step / steps)) / 2)
    for epoch in range(schedule.epochs):
        for rows in torch.randperm(run.train, generator=order).split(schedule.batch_size):
            loss = cross_entropy(network(inputs[rows]), split.train_labels[rows], label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
        if epoch + 1 in evaluation_epochs(schedule.epochs):
            _measure(network, split.validation_inputs.to(dtype), split.validation_labels)
            measured = _measure(network, split.test_inputs.to(dtype), split.test_labels)
    return network, measured


def _network(run: Run) -> nn.Sequential:
    source = dataset(run.data)
    stacked = run.network.stack(source.input_dim, source.classes, [stream(run.seed, run.role, "weights")])
    layers: list[nn.Module] = []
    for weight, bias in zip(stacked.weights, stacked.biases, strict=True):
        linear = nn.Linear(*weight.shape[1:])
        linear.load_state_dict({"weight": weight[0].T, "bias": bias[0, 0]})
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def _measure(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    logits = network(inputs)
    return {"accuracy": metrics.accuracy(logits, labels).item(), "nll": metrics.nll(logits, labels).item()}
