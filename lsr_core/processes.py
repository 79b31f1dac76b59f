"""Processes of one machine that train the same runs; the locks of the store keep them apart."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from .errors import require_count
from .models.images import defining_modules
from .stacks import Job, OutOfTime, Training
from .trainer import threads


@dataclass(frozen=True)
class Processes:
    """This process and others like it, `count` in all."""

    count: int

    def __post_init__(self) -> None:
        require_count("workers", self.count)

    def finish(self, levels: Sequence[Sequence[Job]], training: Training) -> None:
        """Train the jobs, level after level; the others end with this process, and also where it is killed."""
        work = (levels, training.store, training.deadline)
        with self._helpers(pickle.dumps(work) if self.count > 1 else b""):
            for level in levels:
                training.finish(level)

    @contextmanager
    def _helpers(self, work: bytes) -> Iterator[None]:
        program = f"import {', '.join(defining_modules())}; from lsr_core.worker import help_with; help_with()"
        command = [sys.executable, "-P", "-c", program]
        count = max(1, torch.get_num_threads() // self.count)  # two on one core's threads wait for each other
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)  # they import what this process does
        environment = {**os.environ, "TQDM_DISABLE": "1", "OMP_NUM_THREADS": str(count), "PYTHONPATH": path}
        helpers = [subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) for _ in range(self.count - 1)]
        try:
            for helper in helpers:
                with suppress(BrokenPipeError):
                    helper.stdin.write(work)
                    helper.stdin.flush()
            with threads(count):
                yield
        except OutOfTime:
            for helper in helpers:
                helper.wait()  # until it has kept its states, too
            raise
        finally:
            for helper in helpers:
                helper.terminate()
                helper.wait()
                with suppress(BrokenPipeError):
                    helper.stdin.close()
