"""What the rows of the benchmark table have in common."""

import statistics
import timeit
from collections.abc import Callable

import torch

Row = dict[str, str | float]


def row(name: str, ours: float, other: float, unit: str, ratio: float) -> Row:
    """A row of the table: two things that are compared, and how many times as much the other one costs."""
    return {"name": name, "ours": ours, "other": other, "unit": unit, "ratio": ratio}


def seconds(work: Callable[[], object]) -> float:
    """How long a piece of work takes, on a GPU until all is done there."""
    if not torch.cuda.is_available():
        return timeit.timeit(work, number=1)
    torch.cuda.synchronize()
    return timeit.timeit(lambda: (work(), torch.cuda.synchronize()), number=1)


def in_turn(one: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Seconds of two pieces of work, the median of rounds in which each has its turn, after one that is not timed."""
    one(), other()
    measured = [(seconds(one), seconds(other)) for _ in range(rounds)]
    return tuple(statistics.median(column) for column in zip(*measured, strict=True))
