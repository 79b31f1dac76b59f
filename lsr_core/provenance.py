"""What a run is trained with: hardware, versions and sources, as records say it."""

import hashlib
import platform
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import scipy
import torch

from .run import NUMERICS


@cache
def provenance() -> dict[str, Any]:
    """Hardware, versions and sources that a run is trained with; the commit where the package is as committed.

    `simd` is what torch's own kernels use, `isa` what the libraries for products and convolutions find.
    """
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "machine": platform.machine(),
        "processor": _processor(),
        "simd": torch.backends.cpu.get_cpu_capability(),
        "isa": _instruction_set(),
        "numerics": NUMERICS,
        "sources": _sources_hash(),
        "commit": _clean_commit(),
    }


def hardware(device: torch.device) -> dict[str, str | int]:
    """What a device is called in records; of a GPU also the versions of what drives it."""
    if device.type != "cuda":
        return {"device": device.type}
    versions = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {"device": torch.cuda.get_device_name(device), **versions}


def _sources_hash() -> str:
    state = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        state.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return state.hexdigest()[:16]


def _clean_commit() -> str | None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # another repository may hold the environment
        return None if git("status", "--porcelain", ".") else git("rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return None


def _instruction_set() -> str:
    """The widest of a processor's instruction sets that matrix products are written for."""
    cpu = torch.cpu
    offered = {"AMX": cpu._is_amx_tile_supported, "AVX512": cpu._is_avx512_supported, "AVX2": cpu._is_avx2_supported}
    return next((name for name, is_there in offered.items() if is_there()), "other")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:(.*)$", info.read_text(encoding="utf-8") if info.exists() else "", re.MULTILINE)
    return found[1].strip() if found else platform.processor()
