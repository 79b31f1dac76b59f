"""The strict runner of the study's notebooks: papermill, each notebook in its own process.

Unknown parameters are refused, two notebooks run at a time, and a failure is reported with its cell.
"""

import ast
import importlib.metadata
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

import papermill
from tqdm import tqdm

from lsr_core._progress import bar
from lsr_core.errors import InputError, require

from ._pages import Pages

FOLDER = Path(__file__).parent.parent / "notebooks"
BENCHMARKS = Path(__file__).parent.parent / "results" / "bench.json"
_EXECUTE = Path(__file__).with_name("_execute.py")
SUMMARIES = ("verdicts", "index")  # they read what the others left, so they run after them
AT_A_TIME = 2
TIME_LIMIT = 1800.0  # seconds a notebook
_POLL, _GRACE = 0.1, 10.0  # seconds

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


def run(
    chosen: Sequence[str],
    given: Mapping[str, Any],
    out: Path,
    time_limit: float = TIME_LIMIT,
    *,
    only_changed: bool = False,
) -> list[Outcome]:
    """Execute notebooks into the folder `out`; none chosen means all, each with the parameters it knows.

    With `only_changed`, those that would come out as they lie there are left alone (`_pages.Pages`).
    Raises `InputError` before anything runs: for an unknown notebook, for a parameter that a chosen notebook (or,
    where none is chosen, every notebook) does not know, for a value of another kind than the default's, for a folder
    that cannot be written.
    """
    plan = _plan(chosen, given)
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise InputError(f"folder {out} cannot be written ({error.strerror}); name another with --out") from None
    pages = Pages(out)
    known = {name: pages.unchanged(FOLDER / f"{name}.ipynb", plan[name]) for name in plan} if only_changed else {}
    outcomes = [Outcome(**outcome) for outcome in known.values() if outcome]
    plan = {name: given for name, given in plan.items() if not known.get(name)}
    with bar(total=len(plan), unit="notebook") as progress:
        for wave in ([n for n in plan if n not in SUMMARIES], [n for n in plan if n in SUMMARIES]):
            for outcome in _run_wave({name: plan[name] for name in wave}, out, time_limit, progress):
                made = asdict(outcome) if outcome.result == "done" else None
                pages.keep(FOLDER / f"{outcome.name}.ipynb", plan[outcome.name], made)
                outcomes.append(outcome)
    return outcomes


def _run_wave(plan: Mapping[str, Mapping[str, Any]], out: Path, time_limit: float, progress: tqdm) -> Iterator[Outcome]:
    """Run notebooks side by side; when this is left early, their processes are ended."""
    waiting, running = list(plan), list[_Child]()
    try:
        while waiting or running:
            while waiting and len(running) < AT_A_TIME:
                running.append(_Child(waiting[0], plan[waiting.pop(0)], out))
                progress.set_description(", ".join(child.name for child in running))
            time.sleep(_POLL)
            progress.refresh()
            for child in [child for child in running if child.is_over(time_limit)]:
                running.remove(child)
                yield child.outcome(time_limit)
                progress.update()
    finally:
        for child in running:
            child.end()


class _Child:
    """A notebook that runs in a process of its own."""

    def __init__(self, name: str, given: Mapping[str, Any], out: Path) -> None:
        self.name, self._start = name, time.monotonic()
        self._said, self._noise = (tempfile.TemporaryFile("w+") for _ in range(2))  # noqa: SIM115
        command = [sys.executable, str(_EXECUTE), str(FOLDER / f"{name}.ipynb"), str(out), json.dumps(dict(given))]
        environment = {**os.environ, "TQDM_DISABLE": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        # A session of its own, so that Ctrl-C reaches this process first, which then ends the others; a pipe that
        # closes with this process, so that the others end where it cannot end them.
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=self._noise,
            start_new_session=True,
        )

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._start

    def is_over(self, time_limit: float) -> bool:
        return self._process.poll() is not None or self._seconds > time_limit

    def outcome(self, time_limit: float) -> Outcome:
        seconds, code = self._seconds, self._process.poll()
        self.end()
        said, noise = _content(self._said), _content(self._noise)
        report = said or noise  # a kernel's warnings matter only where nothing else was said
        if code is None:
            report = f"ended after the time limit of {time_limit:.0f} s\n{report}".strip()
        result = "out of time" if code is None else _EXIT.get(code, "failed")
        ended = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
        return Outcome(self.name, result, seconds, ended, "" if result == "done" else report)

    def end(self) -> None:
        """End the process, which shuts its kernel down and keeps its notebook; insist where it does not."""
        self._process.terminate()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdin.close()


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
        for name, takes in known.items():
            if parameter in takes:
                value, default = given[parameter], takes[parameter]
                told = f"{parameter} is {value!r}; notebook {name!r} takes what is like its default, {default}"
                require(_is_like(value, ast.literal_eval(default), parameter), told)
    return {name: {p: value for p, value in given.items() if p in takes} for name, takes in known.items()}


def _is_like(value: Any, default: Any, parameter: str = "") -> bool:
    """Whether a value is of the default's kind: a text, a number, a list of what is like its elements.

    Seeds are a number of them, or a list.
    """
    if isinstance(default, (list, tuple)) or (parameter == "seeds" and isinstance(value, (list, tuple))):
        kinds = default if isinstance(default, (list, tuple)) else [default]
        several = isinstance(value, (list, tuple)) and (len(value) > 0 or not kinds)
        return several and all(not kinds or _is_like(element, kinds[0]) for element in value)
    if isinstance(default, (int, float)) and not isinstance(default, bool):
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is type(default)


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
            *_speed(),
            "| package | version |",
            "|---|---|",
            f"| Python | {sys.version.split()[0]} |",
            *installed,
            "",
        ]
    )


def _speed() -> list[str]:
    """The published benchmarks, a row each; none where the package is installed without them."""
    if not BENCHMARKS.exists():
        return []
    made = json.loads(BENCHMARKS.read_text())
    page = ["## Speed", "", *_ABOUT_SPEED, ""]
    for device in dict.fromkeys(row["device"] for row in made):
        rows = [row for row in made if row["device"] == device]
        page += [
            f"As `make bench` measured it on {device}:",
            "",
            "| what | ours | other | unit | ratio |",
            "|---|---:|---:|---|---:|",
            *(f"| {r['name']} | {r['ours']:.4g} | {r['other']:.4g} | {r['unit']} | {r['ratio']:.2f} |" for r in rows),
            "",
        ]
    return page


_ABOUT_SPEED = (
    "Each row compares two things in one call, taken in turn: this study's program and the ordinary way.",
    "`stack/…` is one program for many runs against one run at a time.",
    "`evaluation/…` is the part of a run that goes into measuring it, against all of it.",
    "`loss/…` and `loss-memory/…` are against torch's cross-entropy with label smoothing.",
    "Networks for images train in bf16 where a machine does so clearly faster, and in float32 elsewhere; the trainer",
    "times both once.",
    "`trainer/…` has augmentation, against a loop with PIL transforms, two loader processes and float32.",
    "`peak/…` is what training makes use of, against the peak of matrix products.",
    "`shared-teacher/…` is six ResNet-20 students of one teacher in one program, against six; the teacher is a",
    "ResNet-20 (`equal`), or a ResNet-56 of twice the width (`six`, named for the cost that was aimed at);",
    "`teacher-forward/…` is what it costs, a student's forward pass against its teacher's.",
    "`compiled/…` is the trainer as it is against one whose network went through `torch.compile`, without the time",
    "that compiling takes. It is not used: it needs a C++ compiler, and a run's bits would depend on whether one is",
    "there.",
)


def _content(file: IO[str]) -> str:
    with file:
        file.seek(0)
        return file.read().strip()
