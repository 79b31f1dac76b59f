"""What is asked of a GPU: there, each check by itself; without one, the same code on a CPU where a tape stands in."""

import sys

import gpu
import pytest
import torch
from recording import use_tapes

from lsr_core import METHODS, capture
from lsr_core.models import ImageNetwork

TINY = ImageNetwork("plain_cnn", width=4)
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")


@pytest.fixture
def images(tmp_path):
    return gpu.random_images(tmp_path)


@on_gpu
@pytest.mark.parametrize("precision", gpu.TOLERANCE, ids=str)
@pytest.mark.parametrize("method", sorted({*METHODS} - {"prior-smoothing"}))
def test_a_recorded_step_has_the_losses_of_a_called_one(images, method, precision):
    gpu.check_method(images, method, precision)


@on_gpu
@pytest.mark.parametrize("method", ["lsr", "ps-kd", "beta-smoothing", "mrkd-fcn", "zipf"])
def test_no_step_waits_for_the_gpu(images, method):
    gpu.check_waits(images, method)


@pytest.fixture
def small(monkeypatch, tmp_path):
    for name, value in {"BATCH": 16, "EXAMPLES": 256, "STEPS": 15, "CHECKED": TINY, "NETWORKS": (TINY,)}.items():
        monkeypatch.setattr(gpu, name, value)
    use_tapes(monkeypatch)
    return gpu.random_images(tmp_path)


@pytest.mark.parametrize("method", ["kd", "mrkd"])
def test_recorded_losses_on_a_cpu(small, method):
    assert gpu.check_method(small, method, torch.float32) == 0


def test_a_check_that_fails_says_so_and_the_others_go_on(small, monkeypatch):
    monkeypatch.setattr(gpu, "METHODS", {"lsr": None, "none": None})
    lines = list(gpu.checks(small))
    assert [line.split()[0] for line in lines[:4]] == ["ok", "ok", "FAILED", "FAILED"]
    assert "InputError: unknown method 'none'" in lines[2]


@pytest.mark.slow
def test_rows_and_bits_on_a_cpu(small, monkeypatch):
    monkeypatch.setattr(gpu, "peaks", lambda: (1.0, 1.0))
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    monkeypatch.setattr(gpu, "ABREAST", 2)
    table = list(gpu.rows(small))
    kinds = ["captured", "compiled", "compiling", "abreast", "matrix-peak", "memory-peak"]
    assert [row["name"] for row in table] == [f"{kind}/plain_cnn" for kind in kinds]
    assert all(row["ratio"] > 0 for row in table)
    for line in gpu.bits(small):
        assert "twice the same bits, resumed the same bits" in line
    assert not torch.are_deterministic_algorithms_enabled()
    with gpu.called():
        assert not capture.RECORDERS
    assert capture.RECORDERS


def test_without_a_gpu_the_script_ends_in_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--budget-seconds", "60"])
    assert gpu.main() == 2
    assert capsys.readouterr().err == f"gpu.py: torch {torch.__version__} finds no GPU here\n"
