import ast
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from lsr_core import InputError
from study import notebooks

NAMES = notebooks.names()
SECTIONS = ["The experiment", "What came out", "Verdict", "Take it into your own training loop", "Exercises"]


def source(name):
    return nbformat.read(notebooks.FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of notebooks of the test's own."""
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)

    def write(name, *cells):
        built = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        built.cells[0].metadata["tags"] = ["parameters"]
        nbformat.write(built, tmp_path / f"{name}.ipynb")

    return write


def test_the_issues_notebooks_are_there():
    assert len(NAMES) == 18


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_in_the_tree_has_no_outputs_no_functions_and_parameters(name):
    notebook = source(name)
    cells = code_cells(notebook)
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    for cell in cells:
        defined = [n for n in ast.walk(ast.parse(cell.source)) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        assert not defined
        assert max(map(len, cell.source.splitlines())) <= 92, "a line is cut off on the page"
    (parameters,) = (cell for cell in cells if "parameters" in cell.metadata.get("tags", []))
    for statement in ast.parse(parameters.source).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)  # plain literals only


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("index", "published")])
def test_a_chapter_has_its_anatomy(name):
    text = "\n".join(cell.source for cell in source(name).cells if cell.cell_type == "markdown")
    for part in (
        "**Claim.**",
        "Reading time",
        "In this chapter you will",
        "misconception",
        "What would change our mind",
    ):
        assert part in text, part
    wanted = SECTIONS[2:] if name in ("lsr_is_kd", "many_losses") else SECTIONS
    assert all(f"## {section}" in text for section in wanted)
    assert re.search(r"\*\(reading(, referee the paper)?\)\*", text)
    assert "```{dropdown} Solutions" in text


@pytest.mark.slow
def test_every_notebook_runs_at_a_tiny_size(tiny_book):
    _, outcomes = tiny_book
    assert sorted(outcome.name for outcome in outcomes) == NAMES
    assert [outcome.report for outcome in outcomes] == [""] * len(NAMES)
    assert {outcome.result for outcome in outcomes} == {"done"}


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
    notebooks.run(["label_smoothing"], {"seeds": 2}, folder)
    assert page.stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_status_page_names_every_notebook_and_version(tiny_book):
    page = (tiny_book[0] / "status.md").read_text()
    assert all(f"[{name}]({name}.ipynb) | done" in page for name in NAMES)
    assert "| torch | 2." in page


def test_each_machines_benchmarks_have_a_table(tmp_path, monkeypatch):
    rows = [{"name": "loss", "ours": 1, "other": 2, "unit": "s", "ratio": 2, "device": d} for d in ("A", "B", "A")]
    (tmp_path / "bench.json").write_text(json.dumps(rows))
    monkeypatch.setattr(notebooks, "BENCHMARKS", tmp_path / "bench.json")
    page = notebooks.status_page([])
    assert page.count("measured it on A:") == page.count("measured it on B:") == 1
    assert page.count("| loss |") == 3


def test_plain_papermill_works_from_any_folder(tmp_path):
    command = [Path(sys.executable).with_name("papermill"), notebooks.FOLDER / "label_smoothing.ipynb", "out.ipynb"]
    arguments = ["-p", "seeds", "2", "-p", "preset", "quick", "-y", "{epsilons: [0.1], sizes: [50]}"]
    done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert any("exploratory" in json.dumps(cell.outputs) for cell in code_cells(executed))


def test_unknown_names_and_parameters_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match="unknown notebook 'label'; there are distillation, erased"):
        notebooks.run(["label"], {}, tmp_path)
    with pytest.raises(InputError, match="notebook 'lsrkd' has no parameter 'tau'; its parameters are preset, seeds"):
        notebooks.run(["lsrkd"], {"tau": 3}, tmp_path)
    with pytest.raises(InputError, match="no notebook has a parameter 'tau'; there are"):
        notebooks.run([], {"tau": 3}, tmp_path)
    assert not list(tmp_path.glob("*.ipynb"))


def test_a_failure_is_reported_with_its_cell_and_traceback(folder, tmp_path):
    folder("good", "a = 1")
    folder("bad", "a = 1", "b = a / 0")
    outcomes = {outcome.name: outcome for outcome in notebooks.run([], {"a": 2}, tmp_path / "out")}
    assert outcomes["good"].result == "done"
    assert outcomes["bad"].result == "failed"
    assert "b = a / 0" in outcomes["bad"].report
    assert "ZeroDivisionError" in outcomes["bad"].report
    assert (tmp_path / "out" / "good.ipynb").exists()


@pytest.mark.slow
def test_bad_input_inside_a_notebook_is_one_sentence(folder, tmp_path):
    folder("page", "epsilon = 0.1", "from lsr_core import objective\nobjective('lsr', epsilon=epsilon)")
    (outcome,) = notebooks.run(["page"], {"epsilon": 3}, tmp_path / "out")
    assert (outcome.result, outcome.report) == ("refused", "epsilon is 3; it must be a number from 0 to 1")


@pytest.mark.slow
def test_a_notebook_that_takes_too_long_is_ended_with_its_kernel(folder, tmp_path):
    mark = tmp_path / "pid"
    folder("slow", "a = 1", f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    (outcome,) = notebooks.run(["slow"], {}, tmp_path / "out", time_limit=15)
    assert outcome.result == "out of time"
    assert "time limit of 15 s" in outcome.report
    deadline = time.monotonic() + 10
    while Path(f"/proc/{mark.read_text()}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{mark.read_text()}").exists()


def test_an_output_folder_that_cannot_be_is_refused(folder, tmp_path):
    folder("page", "a = 1")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written .*; name another with --out"):
        notebooks.run(["page"], {}, tmp_path / "file" / "out")
