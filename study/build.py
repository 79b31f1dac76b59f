"""The notebooks as papermill executes them, strictly, and the page that says how that went.

As a script, `build.py NOTEBOOK FOLDER` executes one of them: the Makefile calls it for each that something has changed,
two at a time. The script does not import torch, which only its kernel needs.
"""

import ast
import importlib.metadata
import json
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import timeit
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import nbformat
import papermill
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from lsr_core._progress import bar
from lsr_core.errors import InputError, require
from lsr_core.files import cache_folder

FOLDER = Path(__file__).parent.parent / "notebooks"
COST = Path(__file__).parent.parent / "results" / "quick.json"
SUMMARIES = ("verdicts", "index")  # they read what the others left, so they run after them
TIME_LIMIT = 1800.0  # seconds a notebook
# Of a kernel: what it made is kept before it ends, and of the many objects that records make, hardly one is garbage.
_QUICK = {
    "shutdown_kernel": "immediate",
    "extra_arguments": ["--IPKernelApp.exec_lines=import gc; gc.set_threshold(200_000, 50, 1000)"],
}
_PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "papermill", "jupyter-book")


@dataclass(frozen=True)
class Outcome:
    """How one notebook ended, after how many seconds, when; `report` says what went wrong and in which cell."""

    name: str
    result: Literal["done", "refused", "failed", "out of time"]
    seconds: float
    ended: str
    report: str = ""

    def __str__(self) -> str:
        return f"{self.name:18}  {self.seconds:7.1f} s  {self.result}"


def names() -> list[str]:
    """The study's notebooks by name; raises `InputError` where the package is installed without them."""
    stems = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    require(bool(stems), f"there are no notebooks in {FOLDER}; this needs a clone, installed by `pip install -e`")
    return stems


def parameters(name: str) -> dict[str, str]:
    """A notebook's parameters with their defaults as they are written there."""
    require(name in names(), f"unknown notebook {name!r}; there are {', '.join(names())}")
    inferred = papermill.inspect_notebook(str(FOLDER / f"{name}.ipynb"))
    return {parameter: about["default"] for parameter, about in inferred.items()}


def accepted(chosen: Sequence[str], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The chosen notebooks, or all where none is, each with those of the given parameters that it has.

    Raises `InputError` for an unknown notebook, for a parameter that a chosen notebook (or, where none is chosen, every
    notebook) does not have, and for a value of another kind than the default's.
    """
    known = {name: parameters(name) for name in chosen or names()}
    everything = sorted(set().union(*known.values()))
    for parameter, value in given.items():
        for name in chosen:
            message = f"notebook {name!r} has no parameter {parameter!r}; its parameters are "
            require(parameter in known[name], message + (", ".join(known[name]) or "none"))
        message = f"no notebook has a parameter {parameter!r}; there are {', '.join(everything)}"
        require(parameter in everything, message)
        for name, default in ((name, own[parameter]) for name, own in known.items() if parameter in own):
            message = f"{parameter} is {value!r}; notebook {name!r} takes what is like its default, {default}"
            require(_is_like(value, ast.literal_eval(default), parameter), message)
    return {name: {p: value for p, value in given.items() if p in has} for name, has in known.items()}


def _is_like(value: Any, default: Any, parameter: str = "") -> bool:
    """Whether a value is of the default's kind: a text, a number, a list of what is like its elements.

    Seeds are a number of them, or a list.
    """
    several = isinstance(value, (list, tuple))
    if parameter == "seeds" and several:
        default = [default]
    if isinstance(default, (list, tuple)):
        return several and bool(value or not default) and all(_is_like(v, default[0]) for v in value if default)
    if type(default) in (int, float):
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is type(default)


def run(chosen: Sequence[str], given: Mapping[str, Any], out: Path, time_limit: float = TIME_LIMIT) -> list[Outcome]:
    """Execute notebooks one after the other into the folder `out`; none chosen means all.

    Raises `InputError` before anything runs, as `accepted` does, and where the folder cannot be written.
    """
    plan = accepted(chosen, given)
    require(out.resolve() != FOLDER.resolve(), f"folder {out} holds the notebooks themselves; name another with --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise InputError(f"folder {out} cannot be written ({error.strerror}); name another with --out") from None
    ordered = sorted(plan, key=lambda name: (name in SUMMARIES, name))
    return [execute(FOLDER / f"{name}.ipynb", plan[name], out, time_limit) for name in bar(ordered, unit="notebook")]


class _QuietKernel(AsyncKernelManager):
    """A kernel without progress bars on its page and without warnings of its own on the terminal."""

    process = 0  # of the last one

    async def start_kernel(self, **options: Any) -> None:
        environment = {**os.environ, "TQDM_DISABLE": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        await super().start_kernel(env=environment, stderr=subprocess.DEVNULL, **options)
        _QuietKernel.process = self.provisioner.pid


def execute(notebook: Path, given: Mapping[str, Any], out: Path, time_limit: float = TIME_LIMIT) -> Outcome:
    """Execute one notebook into a folder, from the main thread, and note there how it ended.

    A notebook that fails, or is interrupted, is kept as far as it ran. Its kernel ends with it, and with this process.
    """
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # an interrupted notebook leaves a task without a reader
    for signal_number in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs ignore the first
        signal.signal(signal_number, signal.default_int_handler)
    _fix_folders()
    os.environ["LSR_BOOK"] = str(int(not given))  # findings fail where they no longer hold
    note, start = _note(notebook.stem, out), time.monotonic()
    note.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        executed = Path(scratch) / notebook.name
        try:
            result, report = _execute_within(time_limit, notebook, executed, given)
        finally:
            if executed.exists():
                _keep(executed, out / notebook.name)
    ended = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    end = Outcome(notebook.stem, result, time.monotonic() - start, ended, report)
    note.parent.mkdir(exist_ok=True)
    note.write_text(json.dumps(asdict(end)), encoding="utf-8")
    if given or result != "done":
        os.utime(note, (0, 0))  # older than everything, so that make executes the notebook again
    return end


def _fix_folders() -> None:
    """Make the folders that the environment names absolute: a kernel works in the notebook's own folder."""
    for name in ("LSR_STORE", "LSR_DATA"):
        if os.environ.get(name):
            os.environ[name] = str(cache_folder(name, ""))


def _note(name: str, out: Path) -> Path:
    """The file with the outcome of a notebook: what make compares with everything that the notebook rests on."""
    return out / ".executed" / f"{name}.json"


def outcome(name: str, out: Path) -> Outcome:
    """How a notebook ended whose page is in a folder."""
    return Outcome(**json.loads(_note(name, out).read_text(encoding="utf-8")))


def _execute_within(time_limit: float, notebook: Path, executed: Path, given: Mapping[str, Any]) -> tuple[str, str]:
    """Execute a notebook within so many seconds; returns the result and the report of its outcome."""
    is_late, _QuietKernel.process = threading.Event(), 0

    def end_kernel() -> None:  # an interrupt of the main thread may be lost in what calls back into Python
        is_late.set()
        while not _QuietKernel.process:
            time.sleep(0.1)
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(_QuietKernel.process, signal.SIGKILL)

    timer = threading.Timer(time_limit, end_kernel)
    timer.daemon = True
    timer.start()
    try:
        _execute_started(notebook, executed, given)
    except PapermillExecutionError as error:
        if error.ename in ("InputError", "NotTuned"):
            return "refused", error.evalue
        return "failed", "\n".join([f"cell {error.cell_index}:", error.source, "", *error.traceback])
    except DeadKernelError:
        where = _last_cell(executed)
        if is_late.is_set():
            return "out of time", f"ended after the time limit of {time_limit:.0f} s\nended in {where}"
        return "failed", f"its kernel died in {where}"
    except RuntimeError as error:
        return "failed", f"its kernel did not start: {error}"
    finally:
        timer.cancel()
    return "done", ""


def _execute_started(notebook: Path, executed: Path, given: Mapping[str, Any], attempts: int = 2) -> None:
    """Execute a notebook; where its kernel does not start, begin again: another process may have taken its port."""
    options = {"progress_bar": False, "cwd": notebook.parent, "kernel_manager_class": _QuietKernel, **_QUICK}
    try:
        papermill.execute_notebook(notebook, executed, dict(given), **options)
    except DeadKernelError:
        raise  # it had started
    except RuntimeError:
        if attempts == 1:
            raise
        _execute_started(notebook, executed, given, attempts - 1)


def _last_cell(executed: Path) -> str:
    """The last cell that began, with its number."""
    cells = nbformat.read(executed, as_version=4).cells if executed.exists() else []
    begun = [(number, cell.source) for number, cell in enumerate(cells) if cell.metadata.papermill.start_time]
    return "cell {}:\n{}".format(*begun[-1]) if begun else "its beginning"


def _keep(executed: Path, kept: Path) -> None:
    """Keep a notebook without its timings; a file that would not change keeps its time, and the book its page."""
    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for timing in ("papermill", "execution"):
            cell.metadata.pop(timing, None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = "injected-parameters"  # papermill's own is drawn at random
    content = nbformat.writes(notebook)
    if not kept.exists() or kept.read_text(encoding="utf-8") != content:
        kept.write_text(content, encoding="utf-8")


def forecast(workers: int = 1) -> str:
    """How many runs the book lacks, and about how long it takes to make it on this machine, in a sentence.

    A short training is timed; `results/quick.json`, from `benchmarks/quick_cost.py`, says how many times as long
    everything takes.
    """
    from lsr_core.store import Store

    cost = json.loads(COST.read_text(encoding="utf-8"))
    missing = max(0, cost["runs"] - len(Store().keys()))
    probes = cost["pages"] + cost["training"] * missing / cost["runs"]
    minutes = probe() * probes / workers / 60
    what = f"about {missing:,} runs are to be made" if missing else "the runs are there"
    return f"{what}; with the pages that takes about {max(1, round(minutes))} min on this machine"


def probe() -> float:
    """Seconds of a short training, the less of two."""
    from lsr_core.objectives import objective
    from lsr_core.run import Run
    from lsr_core.schedule import Schedule
    from lsr_core.trainer import train

    runs = [Run("digits", 100, objective("lsr"), Schedule(0.1, 1e-3, epochs=6), seed) for seed in range(32)]
    return min(timeit.repeat(lambda: train(runs), number=1, repeat=2))


def status_page(chosen: Sequence[str], out: Path) -> str:
    """A page in Markdown on notebooks of a folder: when each was executed, for how long, with which versions."""
    outcomes = [outcome(name, out) for name in chosen]
    versions = {"Python": sys.version.split()[0], **{name: importlib.metadata.version(name) for name in _PACKAGES}}
    lines = [
        "# Status of the notebooks\n",
        "Every notebook of this book was executed while the book was built.\n",
        "| notebook | outcome | ended (UTC) | seconds |",
        "|---|---|---|---:|",
        *(f"| [{o.name}]({o.name}.ipynb) | {o.result} | {o.ended} | {o.seconds:.0f} |" for o in outcomes),
        "\n| package | version |",
        "|---|---|",
        *(f"| {name} | {version} |" for name, version in versions.items()),
    ]
    return "\n".join(lines) + "\n"


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """2 where all that did not end well was refused, 1 where something failed."""
    results = {outcome.result for outcome in outcomes} - {"done"}
    return 0 if not results else 2 if results == {"refused"} else 1


def _end_with_make() -> None:
    """Wait until the make above this process is gone, or the first one; then end as SIGTERM does, with all notebooks.

    A make that is killed tells nobody, and the one that it called would go on; that one passes on what it is told.
    """
    parent, first = os.getppid(), int(os.environ["LSR_MAKE"])
    while os.getppid() == parent and _is_there(first):
        time.sleep(1)
    os.kill(parent if os.getppid() == parent else os.getpid(), signal.SIGTERM)


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def main(notebook: str, out: str) -> int:
    """Execute one notebook and say how it ended; returns the exit code.

    With one thread, unless the environment says how many: make executes two, whose threads would wait for each other.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if "LSR_MAKE" in os.environ:
        threading.Thread(target=_end_with_make, daemon=True).start()
    try:
        outcome = execute(Path(notebook), {}, Path(out))
    except KeyboardInterrupt:
        print(f"{Path(notebook).stem}: interrupted; finished runs are kept, and the same command goes on")
        return 130
    print(outcome, outcome.report, flush=True)
    return exit_code([outcome])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
