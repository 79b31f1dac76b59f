"""The strict runner of the study's notebooks: papermill, each notebook in its own process.

Unknown parameters are refused, two notebooks run at a time, and a failure is reported with its cell.
"""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

import papermill

from ._errors import InputError, require
from ._progress import bar

FOLDER = Path(__file__).parent.parent / "notebooks"
_EXECUTE = Path(__file__).with_name("_execute.py")
SUMMARY = "index"  # the landing page reads what the others left, so it runs after them
AT_A_TIME = 2
TIME_LIMIT = 1800.0  # seconds a notebook

Result = Literal["done", "refused", "failed", "out of time"]
_EXIT: dict[int, Result] = {0: "done", 2: "refused"}


@dataclass(frozen=True)
class Outcome:
    """How one notebook ended, after how many seconds, when; `report` says what went wrong and in which cell."""

    name: str
    result: Result
    seconds: float
    ended: str
    report: str = ""


def names() -> list[str]:
    """The study's notebooks by name; raises `InputError` where the package is installed without them."""
    found = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    require(bool(found), f"there are no notebooks in {FOLDER}; install the package from a clone of the project")
    return found


def parameters(name: str) -> dict[str, str]:
    """A notebook's parameters with their defaults as they are written there."""
    require(name in names(), f"unknown notebook {name!r}; there are {', '.join(names())}")
    inferred = papermill.inspect_notebook(str(FOLDER / f"{name}.ipynb"))
    return {parameter: about["default"] for parameter, about in inferred.items()}


def run(chosen: Sequence[str], given: Mapping[str, Any], out: Path, time_limit: float = TIME_LIMIT) -> list[Outcome]:
    """Execute notebooks into the folder `out`; none chosen means all, each with the parameters it knows.

    Raises `InputError` before anything runs: for an unknown notebook, for a parameter that a chosen notebook (or,
    where none is chosen, every notebook) does not know, for a folder that cannot be written.
    """
    plan = _plan(chosen, given)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {out} cannot be written ({error.strerror}); name another with --out") from None
    first, last = [n for n in plan if n != SUMMARY], [n for n in plan if n == SUMMARY]
    outcomes = []
    with bar(total=len(plan), unit="notebook") as progress, ThreadPoolExecutor(AT_A_TIME) as pool:
        running: list[str] = []

        def one(name: str) -> Outcome:
            running.append(name)
            progress.set_description(", ".join(running))
            outcome = _run_one(name, plan[name], out, time_limit)
            running.remove(name)
            progress.set_description(", ".join(running), refresh=False)
            progress.update()
            return outcome

        for wave in (first, last):
            outcomes += pool.map(one, wave)
    return outcomes


def _plan(chosen: Sequence[str], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each notebook to run with its parameters."""
    known = {name: parameters(name) for name in chosen or names()}
    for parameter in given:
        for name in chosen:
            takes = ", ".join(known[name]) or "none"
            require(
                parameter in known[name],
                f"notebook {name!r} has no parameter {parameter!r}; its parameters are {takes}",
            )
        everything = ", ".join(sorted(set().union(*known.values())))
        known_somewhere = any(parameter in takes for takes in known.values())
        require(known_somewhere, f"no notebook has a parameter {parameter!r}; there are {everything}")
    return {name: {p: value for p, value in given.items() if p in takes} for name, takes in known.items()}


def status_page(outcomes: Sequence[Outcome]) -> str:
    """A page in Markdown: when each notebook ran, for how long, with which versions."""
    versions = ("torch", "numpy", "scipy", "scikit-learn", "papermill", "jupyter-book")
    rows = [f"| [{o.name}]({o.name}.ipynb) | {o.result} | {o.ended} | {o.seconds:.0f} |" for o in outcomes]
    installed = [f"| {name} | {importlib.metadata.version(name)} |" for name in versions]
    return "\n".join(
        [
            "# Status of the notebooks",
            "",
            "Every notebook of this book was executed while the book was built.",
            "",
            "| notebook | outcome | ended (UTC) | seconds |",
            "|---|---|---|---:|",
            *rows,
            "",
            "| package | version |",
            "|---|---|",
            f"| Python | {sys.version.split()[0]} |",
            *installed,
            "",
        ]
    )


def _run_one(name: str, given: Mapping[str, Any], out: Path, time_limit: float) -> Outcome:
    command = [sys.executable, str(_EXECUTE), str(FOLDER / f"{name}.ipynb"), str(out), json.dumps(dict(given))]
    environment = {**os.environ, "TQDM_DISABLE": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as noise:
        # Its own session, so that the time limit ends the kernel with its parent.
        child = subprocess.Popen(command, env=environment, stdout=said, stderr=noise, start_new_session=True)
        try:
            code: int | None = child.wait(time_limit)
        except BaseException as stop:
            os.killpg(child.pid, signal.SIGTERM)
            child.wait()
            if not isinstance(stop, subprocess.TimeoutExpired):
                raise
            code = None
        report = _content(said) or _content(noise)  # a kernel's warnings matter only where nothing else was said
    result = "out of time" if code is None else _EXIT.get(code, "failed")
    if result == "out of time":
        report = f"ended after the time limit of {time_limit:.0f} s\n{report}".strip()
    ended = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    return Outcome(name, result, time.monotonic() - start, ended, "" if result == "done" else report)


def _content(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip()
