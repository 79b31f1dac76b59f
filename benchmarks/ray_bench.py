"""Ray against processes of one machine, its driver, and kills. Usage: ray_bench.py [--json FILE] [NAME ...].

Quick runs on as many Ray workers as local processes, both in one call. The book's page on clusters shows the rows.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from lsr_core import stacks, worker
from lsr_core.cluster import Ray
from lsr_core.execute import execute, train_missing
from lsr_core.objectives import objective
from lsr_core.provenance import provenance
from lsr_core.run import Run
from lsr_core.schedule import Schedule
from lsr_core.store import Store

_MARK = f"RAY_BENCH={os.getpid()}"  # in the environment of this program's workers
WORKERS, RUNS, TASKS, KILLS = 2, 2000, 20_000, 10
_FIRST = """
from lsr_core.connection import Cluster
Cluster()
from lsr_core.cluster import Ray
from lsr_core.execute import execute
import ray_bench
execute(ray_bench.quick_runs(32), workers=Ray())
"""

Row = dict[str, Any]


def quick_runs(count: int, **schedule: Any) -> list[Run]:
    """That many runs of the quick preset's kind: label smoothing in several strengths, each on its own seeds."""
    schedule = Schedule(0.1, 1e-3, **schedule)
    return [Run("digits", 100, objective("lsr", epsilon=(1 + i % 20) / 50), schedule, i // 20) for i in range(count)]


def throughput(ray: Ray, folder: Path) -> Row:
    """Runs that Ray and the processes make at once, until the first of them has all: whatever else runs, both feel."""
    stores = {name: Store(folder / name) for name in ("ray", "processes")}
    backends = {"ray": ray, "processes": WORKERS}
    execute(quick_runs(1), Store(folder / "warm"), ray)
    pair = [
        threading.Thread(target=train_missing, args=(quick_runs(RUNS), stores[name], backends[name]), daemon=True)
        for name in stores
    ]
    for thread in pair:
        thread.start()
    while all(thread.is_alive() for thread in pair):
        time.sleep(0.1)
    made = {name: len(store.keys()) for name, store in stores.items()}
    for thread in pair:
        thread.join()
    return {"name": "throughput", "runs": RUNS, **made, "share": made["ray"] / made["processes"]}


def nothing(*_: Any) -> list[str]:
    """What a task does that shows what a task costs."""
    return []


def driver(ray: Ray, folder: Path) -> Row:
    """Tasks that the driver hands out a second, and its resident MiB after a tenth of them and after all."""
    seen, real = [], Ray._land

    def looked(self: Ray, flying: dict[Any, Any], training: Any) -> None:
        before = len(flying)
        real(self, flying, training)
        seen.append((before - len(flying), _resident() / 2**20))

    runs = [Run("digits", 10, objective("lsr"), Schedule(0.1, epochs=1), seed) for seed in range(TASKS)]
    start = time.perf_counter()
    with (
        mock.patch.object(stacks, "stack_size", return_value=1),
        mock.patch.object(worker, "trained", nothing),
        mock.patch.object(Ray, "_land", looked),
    ):
        train_missing(runs, Store(folder), ray)
    seconds, ended = time.perf_counter() - start, accumulate(count for count, _ in seen)
    early = next(resident for done, (_, resident) in zip(ended, seen, strict=True) if done >= TASKS // 10)
    late = seen[-1][1]
    return {"name": "driver", "tasks": TASKS, "a second": TASKS / seconds, "early": early, "late": late}


def first_record(folder: Path) -> Row:
    """Seconds from the start of a program to its first record, a Ray of this machine included: the median of three."""
    seconds = sorted(_until_first_record(folder / str(turn)) for turn in range(3))
    return {"name": "first record", "least": seconds[0], "seconds": seconds[1], "most": seconds[2]}


def _until_first_record(folder: Path) -> float:
    path = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    environment = {**os.environ, "LSR_STORE": str(folder), "PYTHONPATH": path}
    start = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", _FIRST], env=environment) as program:
        while not any(folder.glob("??/*.json")):
            if program.poll():
                sys.exit(f"the program ended with code {program.returncode} before its first record")
            time.sleep(0.05)
        return time.monotonic() - start


def kills(ray: Ray, folder: Path) -> Row:
    """Workers killed at random moments: records lost and doubled, and whether all have the bits of one process."""
    runs, killed = quick_runs(RUNS // 2), []
    with _killing(killed):
        records = execute(runs, Store(folder / "ray"), ray)
    alone = execute(runs, Store(folder / "alone"))
    equal = [(a.metrics, a.curves) == (b.metrics, b.curves) for a, b in zip(records, alone, strict=True)]
    keys = Store(folder / "ray").keys()
    lost, doubled = len({run.key for run in runs} - set(keys)), len(keys) - len(set(keys))
    return {
        "name": "kills",
        "kills": len(killed),
        "lost": lost,
        "doubled": doubled,
        "equal": sum(equal),
        "runs": len(runs),
    }


@contextmanager
def _killing(killed: list[int]) -> Iterator[None]:
    """Kill a worker that trains now and then, `KILLS` times in all."""
    moments, over = random.Random(0), threading.Event()

    def kill() -> None:
        while len(killed) < KILLS and not over.wait(moments.uniform(0.5, 2.5)):
            busy = _training_workers()
            if busy:
                killed.append(moments.choice(busy))
                os.kill(killed[-1], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _training_workers() -> list[int]:
    """The workers of this program's Ray that train now: Ray names a worker by what it does."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            is_training = b"ray::trained" in path.read_bytes()
            is_own = _MARK.encode() in (path.parent / "environ").read_bytes()
        except OSError:
            continue
        if is_training and is_own:
            found.append(int(path.parent.name))
    return found


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Print the rows; write them to a file, in place of those of the same names, where one is named."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of the rows to measure: all, where none is named")
    given = parser.parse_args()
    measures = {"first record": first_record, "throughput": throughput, "kills": kills, "driver": driver}
    device = f"{provenance()['processor']} with {provenance()['isa']}, {WORKERS} workers, torch {torch.__version__}"
    name, _, value = _MARK.partition("=")
    os.environ[name] = value
    for wanted in given.names or measures:
        with tempfile.TemporaryDirectory() as folder:
            own = [Path(folder)] if wanted == "first record" else [Ray(), Path(folder)]
            row = {**measures[wanted](*own), "device": device}
        print(json.dumps(row), flush=True)
        if given.json:
            before = json.loads(given.json.read_text(encoding="utf-8")) if given.json.exists() else []
            others = [other for other in before if other["name"] != wanted]
            given.json.write_text(json.dumps([*others, row], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.modules["ray_bench"] = sys.modules["__main__"]
    nothing.__module__ = "ray_bench"  # workers import it by this name
    main()
