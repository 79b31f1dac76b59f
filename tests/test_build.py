"""Executing notebooks, strictly; what make executes again; the status page."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbclient.exceptions import DeadKernelError

from lsr_core import InputError, objective
from lsr_core.execute import execute
from lsr_core.run import Run
from lsr_core.schedule import Schedule
from study import build

NAMES = build.names()
SLEEPS = "print('begun', flush=True)\nimport os, time\nopen({mark!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a notebook of the test's own into a folder that stands for the study's."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.setattr(build, "FOLDER", folder)

    def write(name, *cells):
        built = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        built.cells[0].metadata["tags"] = ["parameters"]
        nbformat.write(built, folder / f"{name}.ipynb")
        return folder / f"{name}.ipynb"

    return write


def is_gone(pid, seconds=60):
    """Whether a process ends within so many seconds."""
    deadline = time.monotonic() + seconds
    while _lives(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not _lives(pid)


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_every_notebook_runs_at_a_tiny_size(tiny_book):
    _, outcomes = tiny_book
    assert sorted(outcome.name for outcome in outcomes) == NAMES
    assert [outcome.report for outcome in outcomes] == [""] * len(NAMES)
    assert {outcome.result for outcome in outcomes} == {"done"}
    assert {outcome.name for outcome in outcomes[-2:]} == set(build.SUMMARIES)


@pytest.mark.slow
def test_executed_notebooks_hold_no_timings_and_no_warnings(tiny_book):
    for name in NAMES:
        notebook = nbformat.read(tiny_book[0] / f"{name}.ipynb", as_version=4)
        assert "papermill" not in notebook.metadata
        for cell in code_cells(notebook):
            assert not {"papermill", "execution"} & cell.metadata.keys()
            assert not [output for output in cell.outputs if output.get("name") == "stderr"], cell.source
            assert "widget" not in json.dumps(cell.outputs)


@pytest.mark.slow
def test_the_same_notebook_again_changes_no_byte_and_no_time(tiny_book, monkeypatch):
    folder, _ = tiny_book
    monkeypatch.setenv("LSR_STORE", str(folder.parent / "records"))
    page = folder / "label_smoothing.ipynb"
    before = page.stat().st_mtime_ns
    build.run(["label_smoothing"], {"seeds": 2}, folder)
    assert page.stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_status_page_names_every_notebook_and_version(tiny_book):
    page = (tiny_book[0] / "status.md").read_text()
    assert all(f"[{name}]({name}.ipynb) | done" in page for name in NAMES)
    assert "| torch | 2." in page


@pytest.mark.slow
def test_plain_papermill_works_from_any_folder(tmp_path):
    command = [Path(sys.executable).with_name("papermill"), build.FOLDER / "label_smoothing.ipynb", "out.ipynb"]
    arguments = ["-p", "seeds", "2", "-y", "{epsilons: [0.1], sizes: [50]}"]
    done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert any("exploratory" in json.dumps(cell.outputs) for cell in code_cells(executed))


def test_unknown_names_and_parameters_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match="unknown notebook 'label'; there are binary, cluster, dig"):
        build.run(["label"], {}, tmp_path)
    with pytest.raises(InputError, match=r"notebook 'lsrkd' has no parameter 'tau'; its parameters are .*seeds"):
        build.run(["lsrkd"], {"tau": 3}, tmp_path)
    with pytest.raises(InputError, match="no notebook has a parameter 'tau'; there are"):
        build.run([], {"tau": 3}, tmp_path)
    assert not list(tmp_path.glob("*.ipynb"))


def test_a_failure_is_reported_with_its_cell_and_traceback(write, tmp_path):
    write("bad", "a = 1", "b = a / 0")
    write("good", "a = 1")
    outcomes = {outcome.name: outcome for outcome in build.run([], {"a": 2}, tmp_path / "out")}
    assert outcomes["good"].result == "done"
    assert outcomes["bad"].result == "failed"
    assert "b = a / 0" in outcomes["bad"].report
    assert "ZeroDivisionError" in outcomes["bad"].report
    assert (tmp_path / "out" / "good.ipynb").exists()


@pytest.mark.slow
def test_bad_input_inside_a_notebook_is_one_sentence(write, tmp_path):
    write("page", "epsilon = 0.1", "from lsr_core import objective\nobjective('lsr', epsilon=epsilon)")
    (outcome,) = build.run(["page"], {"epsilon": 3}, tmp_path / "out")
    assert (outcome.result, outcome.report) == ("refused", "epsilon is 3; it must be a number from 0 to 1")


# A kernel ran out of memory: "DeadKernelError: Kernel died", without a cell, and the hours before it were lost.
def test_a_dead_kernel_is_reported_with_its_cell_and_the_notebook_is_kept(write, tmp_path):
    write("dies", "a = 1", "print('kept')", "import os\nos.kill(os.getpid(), 9)", "b = 2")
    (outcome,) = build.run(["dies"], {}, tmp_path / "out")
    report = "its kernel died in cell 2:\nimport os\nos.kill(os.getpid(), 9)"
    assert (outcome.result, outcome.report) == ("failed", report)
    kept = nbformat.read(tmp_path / "out" / "dies.ipynb", as_version=4)
    assert kept.cells[1].outputs[0].text == "kept\n"


# One kernel of dozens ended before its first cell; the port that is free when it is chosen may be taken by then.
@pytest.mark.slow
def test_a_kernel_that_does_not_start_is_started_once_more(write, tmp_path, monkeypatch):
    launcher = f"""
import pathlib, sys
mark = pathlib.Path({str(tmp_path / "tried")!r})
if not mark.exists():
    mark.touch()
    raise SystemExit(1)
from ipykernel import kernelapp
kernelapp.launch_new_instance()
"""
    (tmp_path / "ipykernel_launcher.py").write_text(launcher)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    write("page", "a = 1")
    (outcome,) = build.run(["page"], {}, tmp_path / "out")
    assert outcome.result == "done", outcome.report
    assert (tmp_path / "tried").exists()


def test_a_kernel_that_does_not_start_is_reported(write, tmp_path, monkeypatch):
    (tmp_path / "ipykernel_launcher.py").write_text("raise SystemExit(1)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    write("page", "a = 1")
    (outcome,) = build.run(["page"], {}, tmp_path / "out")
    assert outcome.result == "failed"
    assert outcome.report == "its kernel did not start: Kernel died before replying to kernel_info"


# A notebook that reached its time limit left nothing, and did not say where it was.
def test_a_time_limit_names_the_cell_keeps_the_notebook_and_ends_the_kernel(write, tmp_path, monkeypatch):
    mark = tmp_path / "pid"

    class WhenBegun:
        """A timer whose time is over once the cell has begun."""

        def __init__(self, _, function):
            self.function = function

        def start(self):
            threading.Thread(target=self.wait, daemon=True).start()

        def wait(self):
            while not (mark.exists() and mark.read_text()):
                time.sleep(0.05)
            self.function()

        def cancel(self):
            pass

    monkeypatch.setattr(build.threading, "Timer", WhenBegun)
    write("slow", "a = 1", SLEEPS.format(mark=str(mark)))
    (outcome,) = build.run(["slow"], {}, tmp_path / "out", 15)
    assert outcome.result == "out of time"
    assert outcome.report.startswith("ended after the time limit of 15 s\nended in cell 1:\nprint('begun', flush=True)")
    assert nbformat.read(tmp_path / "out" / "slow.ipynb", as_version=4).cells[1].outputs[0].text == "begun\n"
    assert is_gone(int(mark.read_text()))


# A cluster's time limit, or `kill`, ended `lsr notebooks run`, and its kernels went on for hours.
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_kernel_ends_with_the_process_that_executes_its_notebook(how, write, tmp_path):
    mark = tmp_path / "pid"
    command = [sys.executable, build.__file__, write("slow", "a = 1", SLEEPS.format(mark=str(mark))), "out"]
    (tmp_path / "out").mkdir()
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    while not (mark.exists() and mark.read_text()) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(how)
    said = process.communicate(timeout=60)[0]
    assert is_gone(int(mark.read_text()))
    assert not list((tmp_path / "out" / ".executed").glob("*")), "make would take the notebook for executed"
    if how != signal.SIGKILL:
        assert process.returncode == 130
        assert said == "slow: interrupted; finished runs are kept, and the same command goes on\n"
        assert (tmp_path / "out" / "slow.ipynb").exists()


def test_an_output_folder_that_cannot_be_is_refused(write, tmp_path):
    write("page", "a = 1")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written .*; name another with --out"):
        build.run(["page"], {}, tmp_path / "file" / "out")


# What make executes: a study of two chapters and a summary, with a command that notes what it was asked for.

STAND_IN = """#!/bin/sh
test "$2" = study/build.py || exit 0
name=$(basename "$3" .ipynb)
test ! -e fails || exit 1
echo "$name" >> executed.txt
mkdir -p book/.executed && touch "book/.executed/$name.json" "book/$name.ipynb"
"""


@pytest.fixture
def make(tmp_path):
    """Run `make book/status.md` in a project of the test's own; returns the notebooks that it executed, in order."""
    if not shutil.which("make"):
        pytest.skip("there is no make on this machine")
    for name in ("notebooks/one.ipynb", "notebooks/two.ipynb", "notebooks/index.ipynb", "lsr_core/a.py", "study/b.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for folder in ("results", "book", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv" / "bin" / "python").write_text(STAND_IN)
    (tmp_path / ".venv" / "bin" / "python").chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()

    def make(expected_code=0):
        executed = tmp_path / "executed.txt"
        executed.unlink(missing_ok=True)
        command = ["make", "-j2", "-k", "SUMMARIES=index", "book/status.md"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        (tmp_path / "book" / "status.md").touch()
        assert (done.returncode != 0) == (expected_code != 0), done.stdout + done.stderr
        return executed.read_text().split() if executed.exists() else []

    return make


def test_summaries_are_executed_after_all_others_and_nothing_twice(make):
    first = make()
    assert (sorted(first[:2]), first[2:]) == (["one", "two"], ["index"])
    assert make() == []


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ("notebooks/one.ipynb", ["one"]),
        ("lsr_core/a.py", ["index", "one", "two"]),
        ("study/b.py", ["index", "one", "two"]),
        ("results/desktop/lines.jsonl", ["index", "one", "two"]),
        (".venv/.installed", ["index", "one", "two"]),
        ("README.md", []),
    ],
)
def test_a_notebook_is_executed_again_where_what_it_rests_on_changed(make, tmp_path, changed, again):
    make()
    an_hour_ago = time.time() - 3600  # all alike, so that the clock's ticks decide nothing
    for path in tmp_path.rglob("*"):
        os.utime(path, (an_hour_ago, an_hour_ago))
    (tmp_path / changed).parent.mkdir(exist_ok=True)
    (tmp_path / changed).touch()
    assert sorted(make()) == again
    assert make() == []


def test_a_page_that_is_gone_is_made_again(make, tmp_path):
    make()
    (tmp_path / "book" / "two.ipynb").unlink()
    assert make() == ["two"]


def test_what_failed_is_executed_again_before_the_summaries(make, tmp_path):
    (tmp_path / "fails").touch()
    assert make(expected_code=2) == []
    (tmp_path / "fails").unlink()
    assert sorted(make()[:2]) == ["one", "two"]


@pytest.mark.parametrize(("given", "dies"), [({}, False), ({"a": 2}, False), ({}, True)])
def test_a_note_is_older_than_everything_unless_the_book_can_use_the_page(given, dies, write, tmp_path, monkeypatch):
    def executed(source, target, *_, **__):
        shutil.copy(source, target)
        if dies:
            raise DeadKernelError

    monkeypatch.setattr(build.papermill, "execute_notebook", executed)
    monkeypatch.setattr(build, "_last_cell", lambda _: "cell 0")
    write("page", "a = 1")
    build.run(["page"], given, tmp_path)
    noted = (tmp_path / ".executed" / "page.json").stat().st_mtime
    assert noted == 0 if given or dies else noted > time.time() - 60
    page = build.status_page(["page"], tmp_path)
    assert f"| [page](page.ipynb) | {'failed' if dies else 'done'} |" in page
    assert "| torch | 2." in page


def test_the_forecast_counts_what_is_missing(tmp_path, monkeypatch):
    runs = [Run("digits", 50, objective("lsr"), Schedule(0.1, epochs=1), seed) for seed in range(3)]
    monkeypatch.setattr(build, "probe", lambda: 0.5)
    monkeypatch.setattr(build, "COST", tmp_path / "cost.json")
    (tmp_path / "cost.json").write_text(json.dumps({"runs": 3, "training": 360, "pages": 120}))
    execute(runs[:2])
    assert build.forecast(2) == "about 1 runs are to be made; with the pages that takes about 1 min on this machine"
    execute(runs)
    assert build.forecast() == "the runs are there; with the pages that takes about 1 min on this machine"


def test_the_time_of_this_machine_is_measured():
    assert 0 < build.probe() < 60


@pytest.mark.parametrize(("given", "used"), [(None, "1"), ("3", "3")])
def test_make_executes_with_one_thread_unless_told_otherwise(monkeypatch, tmp_path, given, used):
    monkeypatch.setenv("OMP_NUM_THREADS", given or "")
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.delenv("LSR_MAKE", raising=False)
    seen = []

    def execute(notebook, *_):
        seen.append(os.environ["OMP_NUM_THREADS"])
        return build.Outcome(notebook.stem, "done", 0.0, "now")

    monkeypatch.setattr(build, "execute", execute)
    assert build.main("some.ipynb", str(tmp_path)) == 0
    assert seen == [used]
