"""The notebooks as they stand in the tree."""

import ast
import re

import nbformat
import pytest
from exercises import CHAPTERS

from study import build

NAMES = build.names()
SECTIONS = ["The experiment", "What came out", "Verdict", "Take it into your own training loop", "Exercises"]


def source(name):
    return nbformat.read(build.FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


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


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_says_what_was_found_before_its_aims(name):
    claim, parameters, _, box, aims = source(name).cells[:5]
    assert re.fullmatch(r"# [^\n]+\n\n\*\*Claim\.\*\*[^\n]+\nSources: [^\n]+", claim.source)
    assert "parameters" in parameters.metadata.tags
    assert ".box(" in box.source
    assert "Reading time" in aims.source


@pytest.mark.parametrize("name", CHAPTERS)
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
