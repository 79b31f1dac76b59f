import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lsr_core import notebooks
from lsr_core.records import Store

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    """Every test has an empty store of its own."""
    monkeypatch.setenv("LSR_STORE", str(tmp_path / "records"))
    return Store()


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def tiny_book(tmp_path_factory):
    """The book's folder with every notebook executed at a tiny size; `outcomes` tells how they ended."""
    folder = tmp_path_factory.mktemp("tiny") / "book"
    (folder.parent / "lsr_core").symlink_to(ROOT / "lsr_core")  # the library page reads its docstrings
    shutil.copytree(ROOT / "book", folder, ignore=shutil.ignore_patterns("_build", "*.ipynb", "status.md"))
    before = os.environ.get("LSR_STORE")
    os.environ["LSR_STORE"] = str(folder.parent / "records")
    try:
        outcomes = notebooks.run([], {"seeds": 2}, folder)
    finally:
        os.environ.pop("LSR_STORE")
        if before is not None:
            os.environ["LSR_STORE"] = before
    (folder / "status.md").write_text(notebooks.status_page(outcomes))
    return folder, outcomes


@pytest.fixture(scope="session")
def built_book(tiny_book):
    """The HTML of the tiny book, built as `make book` builds it."""
    folder, _ = tiny_book
    command = [Path(sys.executable).with_name("jupyter-book"), "build", "-q", "-W", "-n", "--keep-going", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "_build" / "html"
