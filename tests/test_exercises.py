"""The exercises of every chapter: graded and answered; that their solutions run is tested with the pages."""

import ast
import re

import pytest
from cells import Page
from exercises import CHAPTERS, GRADED, blocks, exercises

from study import build


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
    texts = {name: (build.FOLDER / f"{name}.ipynb").read_text() for name in CHAPTERS}
    return [name for name, text in texts.items() if re.search(r"yuan2020revisiting|shen2021is", text)]


@pytest.mark.parametrize("name", quoting())
def test_a_chapter_that_quotes_a_paper_has_it_refereed(name):
    assert any(re.search("referee", question, re.IGNORECASE) for question in exercises(name)[0])


def test_a_broken_solution_is_noticed():
    page = Page("none", {"a": 1})
    with pytest.raises(AssertionError):
        page.run("assert a == 2")
    with pytest.raises(NameError):
        page.run("print(b)")
    assert blocks("1. Text.\n\n   ```python\n   if a:\n       print(a)\n   ```\n") == ["if a:\n    print(a)\n"]
