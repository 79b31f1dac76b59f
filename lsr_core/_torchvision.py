"""Import torchvision, also where its compiled operators do not fit a CPU-only torch.

A torchvision built for CUDA registers the kernels of `nms` and `qnms` from a library that a CPU-only
torch cannot load, and then fails on import because the operators have no schema. Declaring the schemas
is enough for networks, transforms and data sets. Nothing is declared where the import succeeds.
"""

import importlib
import sys
from types import ModuleType

import torch


def import_torchvision() -> ModuleType:
    """Return torchvision, its missing operator schemas declared first where they are missing."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", schema)
    return importlib.import_module("torchvision")
