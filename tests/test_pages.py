import json

import pytest

from lsr_core.execute import execute
from study import _pages
from study._pages import Pages, forecast, measure_cost
from study.experiments import DIGITS, tuned

DONE = {"name": "page", "result": "done", "seconds": 3.5, "ended": "2020-01-01 00:00", "report": ""}


@pytest.fixture
def notebook(tmp_path):
    """A notebook that was executed into the folder `out`."""
    path = tmp_path / "page.ipynb"
    path.write_text("{}")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / path.name).write_text("{}")
    Pages(tmp_path / "out").keep(path, {"seeds": 2}, DONE)
    return path


def unchanged(notebook, **given):
    return Pages(notebook.parent / "out").unchanged(notebook, given)


def test_a_page_stays_while_nothing_that_fixes_it_changes(notebook, monkeypatch):
    assert unchanged(notebook, seeds=2) == DONE
    assert unchanged(notebook, seeds=3) is None
    monkeypatch.setattr(_pages, "provenance", lambda: {"sources": "others"})
    assert unchanged(notebook, seeds=2) is None


def test_an_edited_a_removed_and_a_failed_page_are_run_again(notebook):
    notebook.write_text('{"cells": []}')
    assert unchanged(notebook, seeds=2) is None
    notebook.write_text("{}")
    assert unchanged(notebook, seeds=2) == DONE
    (notebook.parent / "out" / notebook.name).unlink()
    assert unchanged(notebook, seeds=2) is None
    (notebook.parent / "out" / notebook.name).write_text("{}")
    Pages(notebook.parent / "out").keep(notebook, {"seeds": 2}, None)
    assert unchanged(notebook, seeds=2) is None


def test_a_published_record_that_changes_runs_pages_again(notebook, tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(_pages, "RESULTS", tmp_path / "results")
    Pages(tmp_path / "out").keep(notebook, {}, DONE)
    assert unchanged(notebook) == DONE
    (tmp_path / "results" / "line.jsonl").write_text("{}")
    assert unchanged(notebook) is None


def test_the_forecast_counts_what_is_missing(tmp_path, monkeypatch, own_store):
    runs = tuned(DIGITS[0], "lsr").runs(range(3))
    monkeypatch.setattr(_pages, "_probe", lambda: 0.5)
    monkeypatch.setattr(_pages, "COST", tmp_path / "cost.json")
    execute(runs[:2])
    (tmp_path / "cost.json").write_text(json.dumps({"runs": 3, "training": 360, "pages": 120}))
    assert forecast(2).startswith("about 1 runs are to be made; with the pages that takes about 1 min")
    execute(runs)
    made = measure_cost(own_store, seconds_of_pages=60)
    assert (made["runs"], made["pages"]) == (3, 120)
    (tmp_path / "cost.json").write_text(json.dumps(made))
    assert forecast(1) == "the runs are there; with the pages that takes about 1 min on this machine"


def test_the_time_of_this_machine_is_measured():
    assert 0 < _pages._probe() < 60
