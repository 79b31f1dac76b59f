"""A Ray cluster as one connects to it: its tasks and resources, and its refusals in a sentence each."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from .errors import InputError, require

PATIENCE = 20.0  # seconds in which an address must answer
_MOMENT = 1.0  # seconds for which the cluster's size is remembered
_RETRIES = 10  # of a task whose worker or node is gone
_SHARED = 10**8  # bytes of memory that a local Ray keeps for objects; what tasks return is a few texts
_QUIET = {"log_to_driver": False, "logging_level": "error"}
_FORWARD = 2  # tasks in flight for each CPU: while one trains, the next one waits beside it


class Cluster:
    """A connection that lasts as long as the process; raises `InputError` as `cluster.Ray` says."""

    def __init__(self, address: str | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
        try:
            import ray
        except ImportError:
            raise InputError("Ray is not installed; pip install 'lsr-core[cluster]' brings it") from None
        self._look_again = 0.0
        self._ray, self.name = ray, f"the cluster at {address}" if address else "Ray on this machine"
        if not ray.is_initialized():
            try:
                _start(ray) if address is None else _join(ray, address)
            except (ConnectionError, RuntimeError, ValueError) as error:
                right = "start one with `ray start --head`, or leave the address out"
                raise InputError(f"{self.name} cannot be used ({_first_line(error)}); {right}") from None
            self._ask(self._nodes(), _asking())  # so that workers import torch while this process does

    @property
    def slots(self) -> int:
        """How many tasks are in flight at most: enough for every CPU that was there a moment ago."""
        if time.monotonic() >= self._look_again:
            self._look_again = time.monotonic() + _MOMENT
            self._slots = max(2, int(_FORWARD * self._ray.cluster_resources().get("CPU", 1)))
        return self._slots

    @property
    def has_gpu(self) -> bool:
        """Whether a node has a GPU."""
        return self._ray.cluster_resources().get("GPU", 0) > 0

    def task(self, function: Callable[..., Any], gpus: float = 0.0, **options: Any) -> Any:
        """A function as a task on a CPU and a share of a GPU; Ray repeats it where its worker or node is lost."""
        return self._ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_RETRIES, **options)(function)

    def ended(self, tasks: Collection[Any], seconds: float) -> list[Any]:
        """The tasks that are over as soon as one is, or none after a time."""
        self._ray.wait(list(tasks), num_returns=1, timeout=seconds)
        return self._ray.wait(list(tasks), num_returns=len(tasks), timeout=0)[0]

    def result(self, task: Any) -> Any:
        """What a task returned; raises `InputError` where it failed.

        It must not be cancelled then: Ray (2.60) ends the program where it has not quite put such a task away.
        """
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            raise InputError(str(error.cause)) if isinstance(error.cause, InputError) else error from None
        except self._ray.exceptions.RayError as error:
            fact = f"a task of {self.name} was lost, and all its repetitions ({_first_line(error)})"
            raise InputError(f"{fact}; finished runs are kept, and the same command goes on") from None

    def cancel(self, tasks: Iterable[Any]) -> None:
        """Stop tasks that nobody waits for any more."""
        for task in tasks:
            self._ray.cancel(task, force=True)

    def require_everywhere(self, sources: str, function: Callable[..., Any], *arguments: Any) -> None:
        """Raise `InputError` unless each node has `lsr_core` of these sources, and the function returns there."""
        nodes = self._nodes()
        require(bool(nodes), f"{self.name} has no node with a CPU to lend; join one with `ray start --address`")
        for node, asked in zip(nodes, self._ask(nodes, _asking()), strict=True):
            there = self.result(asked)
            what = "another version of lsr_core" if there else "no lsr_core that can be imported"
            right = "install the same there as on this machine"
            require(there == sources, f"node {node['NodeManagerHostname']} of {self.name} has {what}; {right}")
        for asked in self._ask(nodes, function, *arguments):
            self.result(asked)

    def _nodes(self) -> list[Mapping[str, Any]]:
        """The nodes that have a CPU to lend."""
        return [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]

    def _ask(self, nodes: Sequence[Mapping[str, Any]], function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """A function as a task on each node, on no CPU, so that nothing waits for a busy node."""
        on, task = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy, self.task(function)
        places = [on(node["NodeID"], soft=False) for node in nodes]
        return [task.options(num_cpus=0, scheduling_strategy=place).remote(*arguments) for place in places]


def _start(ray: Any) -> None:
    """Start Ray on this machine: its workers import what this process does, and nothing is served or sent outside."""
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    with mock.patch.dict(os.environ, PYTHONPATH=path, TQDM_DISABLE="1", RAY_worker_niceness="0"):
        ray.init("local", include_dashboard=False, object_store_memory=_SHARED, **_QUIET)


def _join(ray: Any, address: str) -> None:
    """Join a cluster, after asking whether one answers: Ray itself would wait for minutes."""
    if address != "auto":
        health = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
        try:
            subprocess.run(health, capture_output=True, timeout=PATIENCE, check=True)
        except subprocess.SubprocessError:
            raise ConnectionError("nothing answers there as a Ray cluster does") from None
    ray.init(address, **_QUIET)


def _asking() -> Callable[[], str | None]:
    """A function that a node without `lsr_core` can call, too, as it is sent by value."""

    def sources() -> str | None:
        try:
            from lsr_core.provenance import provenance
        except ImportError:
            return None
        return provenance()["sources"]

    return sources


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
