import importlib
import subprocess
import sys

import torch

from lsr_core._torchvision import import_torchvision


def in_a_fresh_process(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_networks_and_transforms_work():
    torchvision = import_torchvision()
    network = torchvision.models.resnet18(num_classes=10).eval()
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    crop = importlib.import_module("torchvision.transforms.v2").RandomCrop(8)
    assert crop(torch.zeros(2, 3, 16, 16)).shape == (2, 3, 8, 8)


def test_nothing_is_declared_where_nothing_is_missing():
    """Operators that exist, as with a torchvision that fits its torch, are left alone."""
    code = """
import torch
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from lsr_core import _torchvision
_torchvision.import_torchvision()
assert not _torchvision._declared
"""
    done = in_a_fresh_process(code)
    assert done.returncode == 0, done.stderr


def test_another_failure_is_passed_on():
    code = """
import sys
import lsr_core._torchvision as module
module.importlib.import_module = lambda name: (_ for _ in ()).throw(RuntimeError("something else"))
module.import_torchvision()
"""
    done = in_a_fresh_process(code)
    assert done.returncode == 1
    assert "something else" in done.stderr
