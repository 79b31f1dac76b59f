"""A million runs on 10 to 10,000 workers, simulated. Usage: cluster_simulation.py --json FILE --handed N.

A worker takes the next stack as soon as it is free and the stack's teachers are there; the driver hands out one stack
after the other; a stack's records go to a store that answers a limited number of requests a second. What the driver
hands out a second is measured (`ray_bench.py`, row `driver`); what a store answers is assumed: what S3 promises for
writes under one prefix.
"""

import argparse
import json
from dataclasses import asdict, dataclass, replace
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

RUNS, REQUESTS = 10**6, 3500
SECONDS, WORKERS = (1, 60, 3600), (10, 100, 1000, 10_000)
_TURNS = 100
SHAPES = ((32, 2), (1, 2), (32, 10))  # runs in a stack, networks that teach one another in a row


@dataclass(frozen=True)
class Case:
    """So many runs of some seconds each, in stacks and chains, on a cluster of these rates a second."""

    seconds: float
    workers: int
    stack: int
    chain: int
    handed: float
    requests: float = REQUESTS


def span(case: Case) -> float:
    """Seconds until all records are in the store; stacks of one level come before those of the next.

    Of many turns of every worker only `_TURNS` are simulated: the others last as long.
    """
    whole = RUNS // case.stack // case.chain
    level = min(whole, _TURNS * case.workers)
    count, writing = level * case.chain, case.stack / case.requests
    handed, over, last = np.arange(1, count + 1) / case.handed, np.zeros(count), -inf
    for start in range(0, count, block := min(case.workers, level)):
        numbers = np.arange(start, min(start + block, count))
        begun = handed[numbers]
        for before in (case.workers, level):  # what this worker did last, and the teachers
            if start >= before:
                begun = np.maximum(begun, over[numbers - before])
        trained = begun + case.seconds * case.stack
        queue = np.arange(1, len(numbers) + 1) * writing
        over[numbers] = np.maximum.accumulate(np.maximum(trained, last) - queue + writing) + queue
        last = over[numbers[-1]]
    return float(over.max()) * whole / level


def row(case: Case) -> dict[str, Any]:
    """A case: its hours, the share of them in which workers train, and what takes most of the rest."""
    whole = span(case)
    freed = {
        "the driver": replace(case, handed=inf),
        "the store": replace(case, requests=inf),
        "teachers in sequence": replace(case, chain=1),
        "few large stacks": replace(case, stack=1, handed=case.handed * case.stack),  # as many runs a second
    }
    spared = {name: whole - span(other) for name, other in freed.items()}
    limit = max(spared, key=spared.get)
    named = limit if spared[limit] > 0.01 * whole else "training"
    return {**asdict(case), "hours": whole / 3600, "busy": RUNS * case.seconds / case.workers / whole, "limit": named}


def main() -> None:
    """Print the table, and write it to a file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", required=True)
    parser.add_argument("--handed", type=float, required=True, metavar="N", help="stacks that the driver hands out")
    given = parser.parse_args()
    cases = product(SHAPES, SECONDS, WORKERS)
    rows = [row(Case(seconds, workers, *shape, given.handed)) for shape, seconds, workers in cases]
    for one in rows:
        print(*one.values())
    given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
