"""All that a GPU can show of this study, in one call: checks, speed, bits, then a sweep for the rest of the time.

Usage, in the project: PYTHONPATH=. python benchmarks/gpu.py --budget-seconds N [--preset NAME] [--json FILE]. Only the
sweep needs a data set: the rest is of random images. It needs what `lsr_core.sweep` needs. Where there is no GPU it
ends with a sentence and exit code 2.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from timing import Row, row, seconds
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lsr_core import METHODS, capture, objective, sweep
from lsr_core.augmentation import Augmentation
from lsr_core.data import dataset
from lsr_core.models import ImageNetwork, cost
from lsr_core.provenance import hardware
from lsr_core.run import Run, TrainedTeacher
from lsr_core.schedule import Schedule
from lsr_core.stacks import ABREAST
from lsr_core.trainer import Trainer
from study import paper  # noqa: F401 (it adds MobileNetV2)

BATCH, EXAMPLES, STEPS, PEAK_SIDE = 128, 100 * 128, 20, 8192
NETWORKS = tuple(map(ImageNetwork, ("resnet20", "resnet18", "mobilenetv2")))
CHECKED = ImageNetwork("resnet8")
TOLERANCE = {torch.bfloat16: 1e-3, torch.float32: 1e-5}
SEEN = Augmentation(4, flip=True, rotation=15.0)


def random_images(folder: Path) -> str:
    """A file of random images of CIFAR-100's size; returns its name as a data set."""
    random, arrays = np.random.default_rng(0), {"class_names": np.array([str(k) for k in range(100)])}
    for part, count in (("train", EXAMPLES + EXAMPLES // 8), ("test", 1000)):
        arrays[f"{part}_images"] = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(count) % 100
    np.savez(folder / "random.npz", **arrays)
    return str(folder / "random.npz")


def run_of(data: str, network: ImageNetwork, method: str = "lsr", epochs: int = 30, **more: Any) -> Run:
    """A run on those images; MrKD remembers a copy after every epoch."""
    constants = {"every": 1} if method.startswith("mrkd") else {}
    schedule = Schedule(0.05, 5e-4, epochs=epochs, batch_size=BATCH, nesterov=True)
    return Run(data, EXAMPLES, objective(method, **constants), schedule, 0, network, augmentation=SEEN, **more)


@contextmanager
def called() -> Iterator[None]:
    """Let every step be called, none recorded."""
    with mock.patch.dict(capture.RECORDERS, clear=True):
        yield


# Checks, which the tests make one by one.


def losses(run: Run, weights: dict | None, precision: torch.dtype) -> torch.Tensor:
    """The losses of some steps across the end of an epoch, in a precision."""
    with mock.patch("lsr_core.examples.training_precision", return_value=precision):
        trainer, found = Trainer([run], weights), []
    step = trainer.learners[0].step

    def noted(*given: object) -> torch.Tensor:
        probe = step(*given)
        trainer.learners[0].join()
        found.append(probe.clone())
        return probe

    trainer.learners[0].step = noted
    while len(found) < STEPS:
        trainer.train_epoch()
    return torch.stack(found[:STEPS]).double().cpu()


def check_method(data: str, method: str, precision: torch.dtype) -> float:
    """The largest relative difference of a method's losses, recorded against called; raises where it is too large."""
    teacher, weights, few = None, None, 8 * BATCH + 40
    if objective(method).takes_teacher:
        taught_by = run_of(data, CHECKED, role="teacher")
        teacher, weights = TrainedTeacher(taught_by), Trainer([taught_by]).weights(0)
    run = replace(run_of(data, CHECKED, method, teacher=teacher), train=few)
    recorded = losses(run, weights, precision)
    with called():
        expected = losses(run, weights, precision)
    worst = ((recorded - expected).abs() / expected.abs()).max().item()
    assert worst <= TOLERANCE[precision], f"{method}, {precision}: {worst:.2g} apart"
    return worst


def check_waits(data: str, method: str) -> None:
    """Raise where an epoch waits for the GPU before its end."""
    trainer = Trainer([run_of(data, CHECKED, method)])
    trainer.train_epoch()
    epoch = trainer._epoch()
    steps = -(-EXAMPLES // BATCH)
    for number in range(steps):
        torch.cuda.set_sync_debug_mode("default" if number < 3 else "error")  # the first steps record
        try:
            next(epoch)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def checks(data: str) -> Iterator[str]:
    """A line a check."""
    for method in sorted({*METHODS} - {"prior-smoothing"}):
        for precision in TOLERANCE:
            yield _said(f"captured {method}, {precision}", partial(check_method, data, method, precision))
    for method in ("lsr", "ps-kd", "beta-smoothing", "mrkd-fcn", "zipf"):
        yield _said(f"no waiting: {method}", partial(check_waits, data, method))


def _said(name: str, check: Callable[[], object]) -> str:
    try:
        found = check()
    except Exception as error:  # of any kind: the other checks are made all the same
        return f"FAILED {name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return f"ok {name}" + ("" if found is None else f": {found:.1e}")


# Speed.


def rate(trainers: list[Trainer], rounds: int = 3) -> float:
    """Images a second of all students of programs side by side, after what they record or compile."""

    def epoch() -> None:
        going = [capture.beside_others(trainer._epoch(), trainer.data.recorded_on) for trainer in trainers]
        while going:
            going = [steps for steps in going if next(steps, "end") != "end"]

    epoch()
    students = sum(len(trainer.runs) for trainer in trainers)
    return students * EXAMPLES / statistics.median(seconds(epoch) for _ in range(rounds))


class _Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write, if nothing stays in a cache."""

    bytes = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        result = operation(*args, **(kwargs or {}))
        if not operation.is_view:
            tensors = [leaf for leaf in tree_leaves((args, result)) if isinstance(leaf, torch.Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


def traffic(run: Run) -> float:
    """Bytes a training image, by the operations of one step that is called."""
    with called():
        trainer = Trainer([run])
        trainer.network.train()
        batches = trainer.data.batches(BATCH, None)
        with _Traffic() as count:
            trainer.learners[0].step(next(batches), 1.0)
    return count.bytes / BATCH


def peaks() -> tuple[float, float]:
    """What this GPU reaches: TFLOP/s of bf16 products, and TB/s of copies."""
    a = torch.randn(PEAK_SIDE, PEAK_SIDE, device="cuda", dtype=torch.bfloat16)
    products = min(seconds(lambda: a @ a) for _ in range(5))
    copies = min(seconds(a.clone) for _ in range(5))
    return 2 * PEAK_SIDE**3 / products / 1e12, 2 * a.numel() * a.element_size() / copies / 1e12


def rows(data: str) -> Iterator[Row]:
    """Each row compares two things measured in this run, as `bench.py` does; its ratio is ours over the other."""
    flops, bandwidth = peaks()
    source = dataset(data)
    for network in NETWORKS:
        run, name = run_of(data, network), network.architecture
        with called():
            eager = rate([Trainer([run])])
        alone = rate([Trainer([run])])
        yield row(f"captured/{name}", alone, eager, "images/s", alone / eager)
        with mock.patch.object(capture, "COMPILED_FROM", 0):
            start = time.perf_counter()
            trainer = Trainer([run])
            trainer.train_epoch()
            starting, compiled = time.perf_counter() - start, rate([trainer])
        yield row(f"compiled/{name}", compiled, alone, "images/s", compiled / alone)
        yield row(f"compiling/{name}", starting, EXAMPLES / compiled, "s", starting * compiled / EXAMPLES)
        several = rate([Trainer([replace(run, seed=seed)]) for seed in range(ABREAST)])
        yield row(f"abreast/{name}", several, alone, "images/s", several / alone)
        best = max(alone, compiled, several)
        used = 6 * cost(network, source.image_shape, source.classes).multiply_adds * best / 1e12
        moved = traffic(run) * best / 1e12
        yield row(f"matrix-peak/{name}", used, flops, "TFLOP/s", used / flops)
        yield row(f"memory-peak/{name}", moved, bandwidth, "TB/s", moved / bandwidth)


# Bits.


def bits(data: str) -> Iterator[str]:
    """Whether a run made twice, and one that was stopped and went on, has the same bits, and what that costs."""
    for mode in (False, True):
        torch.use_deterministic_algorithms(mode, warn_only=True)
        for network in NETWORKS[:2]:
            run = run_of(data, network, "mrkd", epochs=2)
            first, second = (_trained(run) for _ in range(2))
            again, resumed = _equal(first, second), _equal(first, _trained(run, stop=1))
            speed = rate([Trainer([run])])
            name = "deterministic algorithms" if mode else "default"
            words = f"twice {'the same' if again else 'other'} bits, resumed {'the same' if resumed else 'other'} bits"
            yield f"{network.architecture}, {name}: {words}, {speed:.0f} images/s"
    torch.use_deterministic_algorithms(mode=False)


def _trained(run: Run, stop: int | None = None) -> dict[str, torch.Tensor]:
    trainer = Trainer([run])
    while trainer.epoch < run.schedule.last:
        trainer.train_epoch()
        if trainer.epoch == stop:
            state, trainer = trainer.state_dict(), Trainer([run])
            trainer.load_state_dict(state)
    return trainer.weights(0)


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def main() -> int:
    """Print checks, speed and bits; write the rows to a file where one is named; then sweep while there is time."""
    start = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--budget-seconds", type=float, required=True, metavar="N")
    parser.add_argument("--preset", metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print(f"gpu.py: torch {torch.__version__} finds no GPU here", file=sys.stderr)
        return 2
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which deterministic algorithms need from the start
    device = ", ".join(map(str, hardware(torch.device("cuda")).values())) + f", torch {torch.__version__}"
    print(device)
    with tempfile.TemporaryDirectory() as folder:
        data, table = random_images(Path(folder)), []
        for line in checks(data):
            print(line, flush=True)
        for found in rows(data):
            table.append({**found, "device": device})
            print(f"{found['name']}: {found['ours']:.4g}, {found['other']:.4g} {found['unit']}", flush=True)
        for line in bits(data):
            print(line, flush=True)
    if given.json:
        before = json.loads(given.json.read_text(encoding="utf-8")) if given.json.exists() else []
        given.json.write_text(json.dumps([r for r in before if r["device"] != device] + table, indent=2) + "\n")
    left = given.budget_seconds - (time.monotonic() - start)
    return sweep.main(["--preset", given.preset, "--budget-seconds", str(left)]) if given.preset else 0


if __name__ == "__main__":
    sys.exit(main())
