"""Processes that are ended, and what they leave."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


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
