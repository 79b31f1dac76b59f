"""Processes that are ended, and what they leave."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from study import notebooks

SLEEPS = "print('begun')\nimport os, time\nopen({mark!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"


def write(folder, name, *cells):
    folder.mkdir(exist_ok=True)
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    built = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata=metadata)
    built.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(built, folder / f"{name}.ipynb")


def started(code, mark):
    """A process that runs this code, and the id that another one has written when it is at work."""
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (mark.exists() and mark.read_text()) and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None
    return process, int(mark.read_text())


def lives(pid):
    """Whether a process is there and at work, rather than one that nobody has asked for its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def is_gone(pid, seconds=60):
    deadline = time.monotonic() + seconds
    while lives(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    if lives(pid):
        os.kill(pid, signal.SIGKILL)
        return False
    return True


# A cluster's time limit, or `kill`, ended `lsr notebooks run`, and its kernels went on for hours.
@pytest.mark.slow
def test_kernels_end_with_the_runner(tmp_path):
    mark = tmp_path / "pid"
    write(tmp_path / "notebooks", "slow", "a = 1", SLEEPS.format(mark=str(mark)))
    code = f"""
from pathlib import Path
from study import notebooks
notebooks.FOLDER = Path({str(tmp_path / "notebooks")!r})
notebooks.run([], {{}}, Path({str(tmp_path / "out")!r}))
"""
    runner, kernel = started(code, mark)
    runner.terminate()
    runner.wait()
    assert is_gone(kernel)


# A search with two processes was killed, and the second one trained on, with nobody to take its results.
@pytest.mark.slow
def test_helpers_end_with_the_process_that_asked_for_them(tmp_path):
    mark = tmp_path / "pid"
    code = f"""
import os, time
from lsr_core import execute as execution, objective
from lsr_core.run import Run
from lsr_core.schedule import Schedule
real = execution.subprocess.Popen
class Noted(real):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        if "stdin" in options:
            open({str(mark)!r}, "w").write(str(self.pid))
execution.subprocess.Popen = Noted
run = Run("digits", 700, objective("lsr"), Schedule(0.1, epochs=100_000, batch_size=1), 0)
execution.execute([run, Run("digits", 699, run.objective, run.schedule, 0)], workers=2)
"""
    asking, helper = started(code, mark)
    time.sleep(1)
    asking.kill()  # it is told nothing and can do nothing
    asking.wait()
    assert is_gone(helper)


# A kernel ran out of memory: "DeadKernelError: Kernel died", without a cell, and the hours before it were lost.
def test_a_dead_kernel_is_told_with_its_cell_and_the_notebook_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path / "notebooks")
    write(tmp_path / "notebooks", "dies", "a = 1", "print('kept')", "import os\nos.kill(os.getpid(), 9)", "b = 2")
    (outcome,) = notebooks.run(["dies"], {}, tmp_path / "out")
    assert (outcome.result, outcome.report) == (
        "failed",
        "its kernel died in cell 2:\nimport os\nos.kill(os.getpid(), 9)",
    )
    kept = nbformat.read(tmp_path / "out" / "dies.ipynb", as_version=4)
    assert kept.cells[1].outputs[0].text == "kept\n"


# A notebook that reached its time limit left nothing, and did not say where it was.
def test_a_time_limit_names_the_cell_and_keeps_the_notebook(tmp_path, monkeypatch):
    mark = tmp_path / "pid"
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path / "notebooks")
    write(tmp_path / "notebooks", "slow", "a = 1", SLEEPS.format(mark=str(mark)))
    monkeypatch.setattr(notebooks._Child, "is_over", lambda *_: mark.exists() and bool(mark.read_text()))
    (outcome,) = notebooks.run(["slow"], {}, tmp_path / "out", 15)
    assert outcome.result == "out of time"
    assert outcome.report.startswith("ended after the time limit of 15 s\nended in cell 1:\nprint('begun')")
    assert nbformat.read(tmp_path / "out" / "slow.ipynb", as_version=4).cells[1].outputs[0].text == "begun\n"
    assert is_gone(int(mark.read_text()))
