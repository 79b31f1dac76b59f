import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path

PROGRESS = Path(__file__).parent.parent / "lsr_core" / "_progress.py"
CODE = f"""
import time
from runpy import run_path
bar = run_path({str(PROGRESS)!r})["bar"]  # without the package, which takes seconds to import torch
with bar(total=3, unit="run") as progress:
    for _ in range(3):
        time.sleep({{pause}})
        progress.set_description("digits, 100 examples", refresh=False)
        progress.update()
"""


def seen_in_a_terminal(pause):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    subprocess.run([sys.executable, "-c", CODE.format(pause=pause)], stderr=theirs, check=True)
    ready, _, _ = select.select([ours], [], [], 0.5)
    return os.read(ours, 10_000).decode() if ready else ""


def test_quiet_where_there_is_no_terminal():
    code = CODE.format(pause=0.9)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


def test_a_terminal_sees_what_is_running_and_the_time_left():
    seen = seen_in_a_terminal(0.9)
    assert "digits, 100 examples" in seen
    assert "3/3" in seen
    assert "<" in seen  # elapsed < remaining


def test_a_short_call_shows_no_bar():
    assert "run" not in seen_in_a_terminal(0.1)
