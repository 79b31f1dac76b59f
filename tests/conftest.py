import pytest
import torch

from lsr_core.records import Store


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    """Every test has an empty store of its own."""
    monkeypatch.setenv("LSR_STORE", str(tmp_path / "records"))
    return Store()


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
