"""Benchmarks: this study's program against the ordinary way, both in one call. Usage: bench.py [--json FILE]."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import accumulate
from math import cos, pi
from pathlib import Path

import image_bench
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from lsr_core import metrics
from lsr_core._progress import bar
from lsr_core.data import dataset
from lsr_core.evaluation import evaluation_epochs
from lsr_core.models import Convnet, Perceptron
from lsr_core.objectives import objective
from lsr_core.run import Run, stream
from lsr_core.schedule import Schedule
from lsr_core.store import provenance
from lsr_core.trainer import STACK_THREADS, Trainer, threads, train

_ROUNDS, _LOSS_ROUNDS = 3, 40
_BATCH, _CLASSES = 1024, 1000
Row = dict[str, str | float]


def rows() -> list[Row]:
    """The benchmark table; every row compares two things in this run, its ratio is the other's cost over ours."""
    made = provenance()
    device = f"{made['processor']}, {made['simd']}, {torch.get_num_threads()} threads, torch {made['torch']}"
    found = [*stack_rows(), *evaluation_rows(), *loss_rows(), *image_bench.rows()]
    return [{**row, "device": device} for row in found]


def loss_rows() -> list[Row]:
    """Time and peak memory of a loss, forward and backward, against torch's cross-entropy with label smoothing.

    1,024 examples of 1,000 classes in float32, the median of rounds taken in turn.
    """
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(_BATCH, _CLASSES, generator=generator)
    labels = torch.randint(_CLASSES, (_BATCH,), generator=generator)

    def torchs(z: Tensor) -> Tensor:
        return cross_entropy(z, labels, label_smoothing=0.1)

    table = []
    for method in ("lsr", "lsrkd", "lsrkd-tc"):
        ours = objective(method)
        losses = (lambda z, ours=ours: ours(z, labels).total), torchs
        seconds = [[_seconds(loss, logits) for loss in losses] for _ in range(_LOSS_ROUNDS)]
        fast, slow = (1000 * statistics.median(column) for column in zip(*seconds, strict=True))
        table.append({"name": f"loss/{method}", "ours": fast, "other": slow, "unit": "ms", "ratio": slow / fast})
        small, large = (peak_memory(loss, logits) / 2**20 for loss in losses)
        table.append(
            {"name": f"loss-memory/{method}", "ours": small, "other": large, "unit": "MiB", "ratio": large / small}
        )
    return table


def _seconds(loss: Callable[[Tensor], Tensor], logits: Tensor) -> float:
    z = logits.clone().requires_grad_()
    start = time.perf_counter()
    loss(z).backward()
    return time.perf_counter() - start


def peak_memory(loss: Callable[[Tensor], Tensor], logits: Tensor) -> int:
    """The most bytes that torch held at once for a loss and its gradient beyond the logits, as its profiler saw it."""
    z = logits.clone().requires_grad_()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        loss(z).backward()
    changes = [event.nbytes() for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(changes))


def stack_rows() -> list[Row]:
    """Seconds a run for quick runs as one stack and one at a time, taken in turn.

    Perceptrons against an ordinary loop of torch's own parts, convnets against stacks of one.
    """
    return [
        _stack_row("stack/perceptron", Perceptron(), plain_loop),
        _stack_row("stack/convnet", Convnet(), lambda run: train([run])),
    ]


def evaluation_rows() -> list[Row]:
    """Seconds of a quick run that go into measuring it, against all its seconds, in stacks of perceptrons."""
    table = []
    for data, examples in (("digits", 100), ("digits", 300), ("mixture-10-80", 300)):
        count, seconds = Perceptron().stack_size, []
        runs = [Run(data, examples, objective("lsr"), Schedule(0.1, 1e-3), seed) for seed in range(count)]
        for _ in range(_ROUNDS):
            start = time.perf_counter()
            trainer = Trainer.of(runs)
            trainer.train()
            seconds.append((trainer.evaluation_seconds / count, (time.perf_counter() - start) / count))
        ours, other = (statistics.median(column) for column in zip(*seconds, strict=True))
        name = f"evaluation/{data}-{examples}"
        table.append({"name": name, "ours": ours, "other": other, "unit": "s a run", "ratio": other / ours})
    return table


def _stack_row(name: str, network: Perceptron | Convnet, alone: Callable[[Run], object]) -> Row:
    count = network.stack_size
    methods = (objective("cross-entropy"), objective("lsr"))
    runs = [Run("digits", 100, methods[i % 2], Schedule(0.1, 1e-3), i // 2, network) for i in range(count)]
    train(runs[:2])
    ours, other = [], []
    for _ in bar(range(_ROUNDS), desc=name, unit="round"):
        start = time.perf_counter()
        train(runs)
        middle = time.perf_counter()
        for run in runs:
            alone(run)
        ours.append((middle - start) / count)
        other.append((time.perf_counter() - middle) / count)
    fast, slow = statistics.median(ours), statistics.median(other)
    return {"name": name, "ours": fast, "other": slow, "unit": "s a run", "ratio": slow / fast}


@threads(STACK_THREADS)
def plain_loop(run: Run, dtype: torch.dtype = torch.float32) -> tuple[nn.Sequential, dict[str, float]]:
    """Train one perceptron the ordinary way: `nn.Linear`, `torch.optim.SGD`, torch's own cross-entropy.

    The same run as the trainer makes it, from the same initial weights, in the same order, with the same
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
        with torch.no_grad():
            linear.weight.copy_(weight[0].T)
            linear.bias.copy_(bias[0, 0])
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def _measure(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    logits = network(inputs)
    return {"accuracy": metrics.accuracy(logits, labels).item(), "nll": metrics.nll(logits, labels).item()}


def main() -> None:
    """Print the table; write it to a file, beside the rows of other machines, where one is named."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    file = parser.parse_args().json
    made = rows()
    for row in made:
        print(
            f"{row['name']}: ours {row['ours']:.4f}, other {row['other']:.4f} {row['unit']}, ratio {row['ratio']:.2f}"
        )
    if file:
        before = json.loads(file.read_text()) if file.exists() else []
        others = [row for row in before if row["device"] != made[0]["device"]]
        file.write_text(json.dumps([*others, *made], indent=2) + "\n")


if __name__ == "__main__":
    main()
