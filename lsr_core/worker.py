"""What a worker does that another process started: it trains what it is handed, and keeps the records."""

import math
import os
import pickle
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from ._progress import bar
from .errors import require
from .stacks import Job, OutOfTime, Training
from .store import Store


def help_with() -> None:
    """Train the jobs that a parent sends, and end as SIGTERM does when it closes the pipe, or was killed."""

    def end_with_parent() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    with suppress(KeyboardInterrupt, OutOfTime):  # the process that started this one reports it
        levels, store, deadline = pickle.load(sys.stdin.buffer)
        threading.Thread(target=end_with_parent, daemon=True).start()
        with bar() as progress:
            for level in levels:
                Training(store, deadline, progress).finish(level)


def trained(modules: Sequence[str], store: Store, mark: bytes, jobs: Sequence[Job], *_teachers: Any) -> list[str]:
    """Train a stack of jobs as a task, after its teachers' tasks; returns the warnings. No jobs: only the checks."""
    for module in modules:
        import_module(module)
    place = f"node {socket.gethostname()} does not see the store {store.place}"
    right = "LSR_STORE must name a folder that all nodes share, or an address such as s3://BUCKET/NAME"
    require(store.has_mark(mark), f"{place}; {right}")
    with warnings.catch_warnings(record=True) as said, bar(total=len(jobs)) as progress:
        warnings.simplefilter("always")
        Training(store, math.inf, progress).finish_stack(jobs)
    return [str(warning.message) for warning in said]
