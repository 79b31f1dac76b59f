"""Processes that are ended, and what they leave: nothing, whoever of them is killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

from lsr_core import objective, sweep
from lsr_core.run import Run
from lsr_core.schedule import Schedule

ROOT = Path(__file__).parents[2]
LONG = [Run("digits", n, objective("lsr"), Schedule(0.1, epochs=100_000, batch_size=1), 0) for n in (700, 699)]
TRAINS = "from lsr_core import execute, sweep; execute.execute(sweep.read_grid(sweep.Path('grid.jsonl')), workers=2)"
WAITS = "import os, time; lock = open(os.environ['LSR_STORE'] + str(os.getpid()) + '.lock', 'w'); time.sleep(600)"
# What make takes for its environment's interpreter: the one of these tests, but for what is no notebook.
PYTHON = f'#!/bin/sh\ntest "$1" = -c || exec "{sys.executable}" "$@"\n'

LSR = [sys.executable, "-P", "-m", "study.cli"]
# By name, each command with the number of its processes that hold a lock when it is at work.
COMMANDS = {
    "papermill": (2, [sys.executable, "-m", "papermill", "trains.ipynb", "out.ipynb"]),
    "lsr results make": (1, [*LSR, "results", "make", "one-layer", "--workers", "2"]),
    "lsr tune": (1, [*LSR, "tune", "lsr", "--workers", "2"]),
    "lsr results recompute": (1, [*LSR, "results", "recompute", "one-layer"]),
    "python -m lsr_core.sweep": (1, [sys.executable, "-m", "lsr_core.sweep", "grid.jsonl", "--budget-seconds", "3600"]),
    "make book": (2, ["make", "book", "PAGES=one two", "SUMMARIES="]),
}


@pytest.fixture
def project(tmp_path):
    """A folder in which every command finds what it works at: a grid, notebooks, and what make needs."""
    if not Path("/proc/self/environ").exists():
        pytest.skip("this system has no /proc that names the processes of a store")
    sweep.write_grid(LONG, tmp_path / "grid.jsonl")
    for folder in ("notebooks", "book", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    for name, code in (("trains", TRAINS), ("notebooks/one", WAITS), ("notebooks/two", WAITS)):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "study").symlink_to(ROOT / "study")
    (tmp_path / ".venv/bin/python").write_text(PYTHON)
    (tmp_path / ".venv/bin/python").chmod(0o755)
    (tmp_path / ".venv/.installed").touch()
    return tmp_path


def processes(store):
    """The ids of all processes whose environment names this store: a command's, its helpers' and its kernels'."""
    return [pid for pid in filter(str.isdecimal, os.listdir("/proc")) if names(pid, store)]  # noqa: PTH208


def names(pid, store):
    try:
        return f"LSR_STORE={store}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # another user's, or gone
        return False


def holds_a_lock(pid):
    try:
        return any(str(link.readlink()).endswith(".lock") for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def eventually(condition, store, seconds):
    """Whether the processes of a store come to be so in this time."""
    deadline = time.monotonic() + seconds
    while not condition(processes(store)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return condition(processes(store))


def left_of(locks, command, how, project, store):
    """How many processes are left of a command that was at work and got a signal.

    On a busy machine a helper takes a while to import what it needs, and only then sees that it is alone.
    """
    environment = {**os.environ, "LSR_STORE": str(store), "TMPDIR": str(project), "PYTHONPATH": str(ROOT)}
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "LSR_MAKE"):  # of a make that runs these tests
        environment.pop(name, None)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=project, env=environment, **quiet)
    is_at_work = eventually(lambda found: sum(map(holds_a_lock, found)) >= locks, store, 300)
    process.send_signal(how if is_at_work else signal.SIGKILL)
    eventually(lambda found: process.poll() is not None and not found, store, 180)
    left = processes(store)
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    process.wait()
    return len(left) if is_at_work else "never at work"


# A search with two processes was killed, and the second one trained on, with nobody to take its results; a killed make
# left one that executed the rest of the book.
@pytest.mark.slow
def test_nothing_is_left_of_a_command_that_is_ended(project):
    ended = [
        (name, how)
        for name in COMMANDS
        for how in (signal.SIGTERM, signal.SIGKILL)
        if shutil.which(COMMANDS[name][1][0])
    ]
    with ThreadPoolExecutor(4) as pool:  # they mostly wait for imports
        stores = [project / f"{name} {how.name}" for name, how in ended]
        left = list(pool.map(lambda one, store: left_of(*COMMANDS[one[0]], one[1], project, store), ended, stores))
    assert {one: count for one, count in zip(ended, left, strict=True) if count} == {}
