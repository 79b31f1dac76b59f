"""The exercises of every chapter: graded, answered, and their solutions' code run after the chapter's own cells."""

import ast
import re
import shutil

import nbformat
import pytest
from cells import Page, run_page

from lsr_core import experiments, notebooks

CHAPTERS = [name for name in notebooks.names() if name not in ("index", "published")]
GRADED = re.compile(r"^\d+\. \*\((reading|doing|research)(?:, referee the paper)?\)\*", re.MULTILINE)
DROPDOWN = re.compile(r"^(`{3,})\{dropdown\} Solutions\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^ *```python\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def exercises(name):
    """A chapter's exercises and its solutions, item by item."""
    cells = nbformat.read(notebooks.FOLDER / f"{name}.ipynb", as_version=4).cells
    (cell,) = (cell.source for cell in cells if "## Exercises" in cell.source)
    _, solutions = DROPDOWN.search(cell).groups()
    return _items(DROPDOWN.sub("", cell).partition("## Exercises")[2]), _items(solutions)


def _items(text):
    return [item.strip() for item in re.split(r"^(?=\d+\. )", text, flags=re.MULTILINE) if re.match(r"\d+\. ", item)]


def blocks(solution):
    """The code of a solution."""
    return [re.sub(r"^   ", "", block, flags=re.MULTILINE) for block in BLOCK.findall(solution)]


@pytest.mark.parametrize("name", CHAPTERS)
def test_exercises_are_graded_from_reading_to_research_and_answered(name):
    asked, solved = exercises(name)
    grades = [GRADED.match(question)[1] for question in asked]
    assert len(asked) >= 3
    assert set(grades) == {"reading", "doing", "research"}
    assert grades[0] == "reading"
    assert len(solved) == len(asked)
    for question, grade, solution in zip(asked, grades, solved, strict=True):
        assert grade == "reading" or blocks(solution), question
        assert question.partition(".")[0] == solution.partition(".")[0]


@pytest.mark.parametrize("name", CHAPTERS)
def test_code_of_solutions_fits_the_page_and_ends_in_something_seen(name):
    for code in (code for solution in exercises(name)[1] for code in blocks(solution)):
        assert max(map(len, code.splitlines())) <= 92
        last = ast.parse(code).body[-1]
        while isinstance(last, ast.For):
            last = last.body[-1]
        assert isinstance(last, (ast.Expr, ast.Assert)), code


def quoting():
    """The chapters that quote a paper of which a printed table is at hand."""
    texts = {name: (notebooks.FOLDER / f"{name}.ipynb").read_text() for name in CHAPTERS}
    return [name for name, text in texts.items() if re.search(r"yuan2020revisiting|shen2021is", text)]


@pytest.mark.parametrize("name", quoting())
def test_a_chapter_that_quotes_a_paper_has_it_refereed(name):
    assert any(re.search("referee", question, re.IGNORECASE) for question in exercises(name)[0])


@pytest.fixture(scope="module")
def records(tiny_book, tmp_path_factory):
    """A copy of the tiny book's store, so that nothing but a solution's own runs is trained."""
    return shutil.copytree(tiny_book[0].parent / "records", tmp_path_factory.mktemp("exercises") / "records")


@pytest.mark.xdist_group("book")
@pytest.mark.parametrize("name", CHAPTERS)
def test_solutions_run_after_their_chapter(name, records, monkeypatch):
    monkeypatch.setenv("LSR_STORE", str(records))
    monkeypatch.setattr(experiments, "TUNING_SEEDS", range(1000, 1002))
    chapter = run_page(name, {"seeds": 2, "rounds": 2})
    for code in (code for solution in exercises(name)[1] for code in blocks(solution)):
        Page(name, dict(chapter.names)).run(code)


def test_a_broken_solution_is_noticed():
    page = Page("none", {"a": 1})
    with pytest.raises(AssertionError):
        page.run("assert a == 2")
    with pytest.raises(NameError):
        page.run("print(b)")
    assert blocks("1. Text.\n\n   ```python\n   if a:\n       print(a)\n   ```\n") == ["if a:\n    print(a)\n"]
