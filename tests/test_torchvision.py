import importlib
import subprocess
import sys

import pytest
import torch

from lsr_core import _torchvision
from lsr_core._torchvision import import_torchvision


def in_a_fresh_process(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_networks_and_transforms_work():
    torchvision = import_torchvision()
    network = torchvision.models.resnet18(num_classes=10).eval()
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    crop = importlib.import_module("torchvision.transforms.v2").RandomCrop(8)
    assert crop(torch.zeros(2, 3, 16, 16)).shape == (2, 3, 8, 8)


@pytest.mark.slow
def test_schemas_are_declared_only_where_the_plain_import_fails():
    works = in_a_fresh_process("import torchvision").returncode == 0
    code = """
from unittest import mock
import torch
from lsr_core._torchvision import import_torchvision

with mock.patch("torch.library.define", wraps=torch.library.define) as define:
    import_torchvision()
print(define.called)
"""
    assert in_a_fresh_process(code).stdout.split() == [str(not works)]


def test_another_failure_is_passed_on(monkeypatch):
    def fails(name):
        raise RuntimeError(f"something else in {name}")

    monkeypatch.setattr(_torchvision.importlib, "import_module", fails)
    with pytest.raises(RuntimeError, match="something else"):
        import_torchvision()
