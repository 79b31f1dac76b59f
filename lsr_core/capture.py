"""Steps captured once and replayed: the one file that knows about CUDA graphs and streams.

A graph holds the device's work of one call. A replay does the same work again on the same memory, without Python: what
changes from step to step is copied into that memory or lies in tensors that the work itself changes.
"""

import gc
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

COMPILED_FROM = 10**6  # images that a run trains on: from then on compiling takes less time than it saves

T = TypeVar("T")
Given = Tensor | float | None
Replay = Callable[[], None]


class CudaRecorder:
    """CUDA graphs, on a stream of their own; `generators` draw on in every replay as they would in calls."""

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator]) -> None:
        gc.collect()  # former programs stand in cycles, with their graphs' memory
        self.stream, self.generators = torch.cuda.Stream(device), generators

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Work beside other work, after what was asked for before."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            yield

    def join(self) -> None:
        """Let what is asked for from now on wait for the work done beside it."""
        torch.cuda.current_stream().wait_stream(self.stream)

    def record(self, call: Callable[[], Any]) -> tuple[Replay, Any]:
        """Record a call: what does its work, and where the results will stand each time."""
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, stream=self.stream):
            result = call()
        return graph.replay, result


# How each kind of device records work; on others every step is a call.
RECORDERS: dict[str, type[CudaRecorder]] = {"cuda": CudaRecorder}


class Captured:
    """A function of tensors whose work is recorded at its second call and replayed from then on.

    The first call of a `version` warms up: what it creates, replays only use. A last, smaller batch is a call too.
    Where the device records nothing, each is. The results of a replay stand where those of the one before stood.
    """

    def __init__(
        self, function: Callable[..., Any], device: torch.device | None, generators: Sequence[torch.Generator] = ()
    ) -> None:
        kind = _kind(device)
        self._function, self._recorder = function, kind and kind(device, generators)
        self._version: object = None
        self._shapes: list[object] = []
        self._own: tuple[Given, ...] = ()
        self._replay: Replay | None = None
        self._result: Any = None

    @property
    def records(self) -> bool:
        """Whether calls are replayed."""
        return self._recorder is not None

    def __call__(self, *given: Given, version: object = 0) -> Any:
        """The function's result, beside other work; `join` before it is used. Another version is recorded anew."""
        if self._recorder is None:
            return self._function(*given)
        with self._recorder.beside():
            return self._called(given, (version,))

    def join(self) -> None:
        """Let what follows wait for the results."""
        if self._recorder is not None:
            self._recorder.join()

    def _called(self, given: tuple[Given, ...], version: object) -> Any:
        shapes = [value.shape if isinstance(value, Tensor) else value for value in given]
        if version != self._version:
            self._version, self._shapes, self._replay = version, shapes, None
            return self._function(*given)
        if shapes != self._shapes:
            return self._function(*given)
        if self._replay is None:
            self._own = given
            self._replay, self._result = self._recorder.record(lambda: self._function(*given))
        for own, value in zip(self._own, given, strict=True):
            if own is not value:
                own.copy_(value)
        self._replay()
        return self._result


def numbers(values: Sequence[float], device: torch.device | None) -> Sequence[float | Tensor]:
    """Numbers that steps take, one each: on the device where its steps are replayed."""
    if _kind(device) is None:
        return values
    return torch.tensor(values, dtype=torch.float64).to(device, non_blocking=True).unbind()


def forward_of(network: nn.Module, device: torch.device | None, images: int) -> Callable[[Tensor], Tensor]:
    """The network, compiled for training where steps are replayed and so many images pay for it."""
    is_compiled = _kind(device) is not None and images >= COMPILED_FROM
    return torch.compile(network, dynamic=False) if is_compiled else network


def beside_others(steps: Generator[None, None, T], device: torch.device | None) -> Generator[None, None, T]:
    """A program's steps, on a GPU in a line of their own, beside those of other programs."""
    if device is None or device.type != "cuda":
        return (yield from steps)
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream())
    while True:
        with torch.cuda.stream(stream):
            try:
                next(steps)
            except StopIteration as end:
                return end.value
        yield


def _kind(device: torch.device | None) -> type[CudaRecorder] | None:
    return None if device is None else RECORDERS.get(device.type)
