"""bf16 where it trains faster: measured once on a machine for each network, then remembered."""

import json
import time

import torch
from torch.nn.functional import cross_entropy

from .files import write_whole
from .models import ImageNetwork
from .provenance import provenance
from .store import Store

GAIN = 1.1  # bf16 must be so many times as fast: less is not worth other digits
_BATCH, _CLASSES, _ROUNDS = 16, 10, 3


def training_precision(network: ImageNetwork, shape: tuple[int, int, int], device: torch.device) -> torch.dtype:
    """bfloat16 where a training step of this network on images of this shape takes clearly less time in it, or float32.

    On a GPU it is where that computes in it: a step that is not recorded waits for Python there, so that its time says
    nothing. On a CPU both are timed the first time, in a few seconds; `precision.json`
    beside the records keeps the answer, so that it does not change from run to run.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    path, origin = Store().folder / "precision.json", provenance()
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    sizes = "x".join(map(str, (network.architecture, network.width, network.depth, *shape)))
    machine = f"{origin['processor']}, {origin['isa']}, {torch.get_num_threads()} threads, torch {origin['torch']}"
    name = f"{machine}: {sizes}"
    if name not in known:
        known[name] = gain(network, shape, device)
        write_whole(path, json.dumps(known, indent=1).encode())
    return torch.bfloat16 if known[name] >= GAIN else torch.float32


def gain(network: ImageNetwork, shape: tuple[int, int, int], device: torch.device) -> float:
    """The time of a training step in float32 over that in bf16, the least of a few taken in turn."""
    built = network.build(shape, _CLASSES, torch.Generator().manual_seed(0))
    built = built.to(device, memory_format=torch.channels_last).train()
    images = torch.randn(_BATCH, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(_BATCH, device=device) % _CLASSES

    def step(dtype: torch.dtype) -> float:
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16):
            loss = cross_entropy(built(images), labels)
        loss.backward()
        loss.item()  # waits for the device
        return time.perf_counter() - start

    pairs = [(step(torch.float32), step(torch.bfloat16)) for _ in range(_ROUNDS + 1)][1:]
    single, half = map(min, zip(*pairs, strict=True))
    return single / half
