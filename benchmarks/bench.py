"""Benchmarks: this study's program against the ordinary way, both in one call. Usage: bench.py [--json FILE]."""

import argparse
import json
import statistics
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import image_bench
import torch
from plain_loop import plain_loop
from timing import Row, in_turn, row, seconds
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from lsr_core.models import Convnet, Perceptron
from lsr_core.objectives import objective
from lsr_core.provenance import provenance
from lsr_core.run import Run
from lsr_core.schedule import Schedule
from lsr_core.trainer import Trainer, train

ROUNDS, LOSS_ROUNDS = 3, 40
_BATCH, _CLASSES = 1024, 1000
_SCHEDULE = Schedule(0.1, 1e-3)


def rows() -> list[Row]:
    """The benchmark table; every row compares two things in this run, its ratio is the other's cost over ours."""
    here = provenance()
    device = f"{here['processor']}, {here['simd']}, {torch.get_num_threads()} threads, torch {here['torch']}"
    stacks = [
        stack_row("stack/perceptron", Perceptron(), plain_loop),
        stack_row("stack/convnet", Convnet(), lambda run: train([run])),
    ]
    return [{**row, "device": device} for row in [*stacks, *evaluation_rows(), *loss_rows(), *image_bench.rows()]]


def stack_row(name: str, network: Perceptron | Convnet, train_alone: Callable[[Run], object]) -> Row:
    """Seconds a run of quick runs in one stack, and one at a time in another way."""
    count = network.stack_size
    methods = (objective("cross-entropy"), objective("lsr"))
    runs = [Run("digits", 100, methods[i % 2], _SCHEDULE, i // 2, network) for i in range(count)]
    fast, slow = in_turn(lambda: train(runs), lambda: [train_alone(run) for run in runs], ROUNDS)
    return row(name, fast / count, slow / count, "s a run", slow / fast)


def evaluation_rows() -> list[Row]:
    """Seconds of a quick run that go into measuring it, against all its seconds, in stacks of perceptrons."""
    table = []
    for data, examples in (("digits", 100), ("digits", 300), ("mixture-10-80", 300)):
        count = Perceptron().stack_size
        runs = [Run(data, examples, objective("lsr"), _SCHEDULE, seed) for seed in range(count)]
        trainers = [Trainer(runs) for _ in range(ROUNDS)]
        other = statistics.median([seconds(trainer.train) / count for trainer in trainers])
        ours = statistics.median([trainer.evaluation_seconds / count for trainer in trainers])
        table.append(row(f"evaluation/{data}-{examples}", ours, other, "s a run", other / ours))
    return table


def loss_rows() -> list[Row]:
    """Time and peak memory of a loss with its gradient, in float32, against torch's cross-entropy with smoothing."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(_BATCH, _CLASSES, generator=generator)
    labels = torch.randint(_CLASSES, (_BATCH,), generator=generator)

    def step(loss: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        z = logits.clone().requires_grad_()
        return lambda: torch.autograd.grad(loss(z), z)

    table = []
    for method in ("lsr", "lsrkd", "lsrkd-tc"):
        ours = objective(method)
        both = (lambda z, ours=ours: ours(z, labels).total), lambda z: cross_entropy(z, labels, label_smoothing=0.1)
        fast, slow = (1000 * spent for spent in in_turn(*map(step, both), LOSS_ROUNDS))
        small, large = (peak_memory(loss, logits) / 2**20 for loss in both)
        table += [
            row(f"loss/{method}", fast, slow, "ms", slow / fast),
            row(f"loss-memory/{method}", small, large, "MiB", large / small),
        ]
    return table


def peak_memory(loss: Callable[[Tensor], Tensor], logits: Tensor) -> int:
    """The most bytes that torch held at once for a loss and its gradient beyond the logits, as its profiler saw it."""
    z = logits.clone().requires_grad_()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        loss(z).backward()
    changes = [event.nbytes() for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(changes))


def main() -> None:
    """Print the table; write it to a file, beside the rows of other machines, where one is named."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    file = parser.parse_args().json
    table = rows()
    for r in table:
        print(f"{r['name']}: ours {r['ours']:.4f}, other {r['other']:.4f} {r['unit']}, ratio {r['ratio']:.2f}")
    if file:
        before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
        others = [row for row in before if row["device"] != table[0]["device"]]
        file.write_text(json.dumps([*others, *table], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
