"""Figures that a reader turns: what they show in a browser, against the library and the records."""

import math
import shutil
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

from lsr_core import InputError, objective
from lsr_core.run import Run
from lsr_core.schedule import Schedule
from study import interactive
from study.arms import RUNGS
from study.results import MEASURES, collect

sys.path.append(str(ROOT / "book" / "_ext"))
DIAL = {"epsilon": 0.1, "alpha": 0.5, "temperature": 4.0, "share": 0.3, "gap": 6.0}
LADDER = ["cross-entropy", *RUNGS]


@pytest.fixture
def turn(browser, tmp_path):
    """Open a figure on a page of its own; returns the page and what went wrong on it."""
    import pages

    opened = []

    def open_page(figure, **options):
        shutil.copytree(ROOT / "book" / "_static", tmp_path / "_static", dirs_exist_ok=True)
        built = SimpleNamespace(outdir=tmp_path, builder=SimpleNamespace(format="html"))
        pages.copy_scripts(built, None)
        head = '<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="_static/study.css">'
        (tmp_path / "page.html").write_text(head + with_scripts(figure._repr_html_())["body"])
        page, wrong = browser.new_context(viewport={"width": 1000, "height": 900}, **options).new_page(), []
        opened.append(page)
        page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: wrong.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
        page.goto((tmp_path / "page.html").as_uri())
        return page, wrong

    yield open_page
    for page in opened:
        page.context.close()


def with_scripts(body, *scripts):
    """The context of a page with this body and scripts, after those for figures were chosen."""
    import pages

    context = {"body": body, "pathto": lambda path, _: path, "script_files": scripts}
    app = SimpleNamespace(builder=SimpleNamespace(name="html"))
    pages.load_scripts(app, "page", "page.html", context, None)
    return context


def rows(page):
    page.locator("div.turned td").first.wait_for()
    texts = [row.split("\t") for row in page.locator("div.turned table").inner_text().splitlines()[1:]]
    return {name: [float(text.replace("−", "-").replace("∞", "inf")) for text in found] for name, *found in texts}


@pytest.mark.slow
def test_the_loss_dial_prints_what_the_library_computes(turn):
    page, wrong = turn(interactive.loss_dial("caption", **DIAL))
    handles = page.get_by_role("slider")
    printed = rows(page)
    for steps in ((0, 0, 0, 0, 0, 0), (7, -20, 9, 21, -25, 18), (-17, 90, -16, -9, 40, -30)):
        for handle, count in zip(handles.all(), steps, strict=True):
            for _ in range(abs(count)):
                handle.press("ArrowRight" if count > 0 else "ArrowLeft")
        titles = [title.split(": ")[1] for title in page.locator("div.bk-slider-title").all_inner_texts()]
        *values, gap = map(float, titles)
        assert not any(steps) or printed != rows(page), "the sliders were moved"
        printed = rows(page)
        terms = interactive.dialled(**dict(zip(DIAL, values, strict=True)))
        masses = page.evaluate("Array.from(Bokeh.documents[0].get_model_by_name('soft labels').data.mass)")
        for place, (name, term) in enumerate(terms.items()):
            label, best = interactive.soft_label(term), interactive.optimum(term)
            hard_weight, soft_weight = term.weights(interactive.CLASSES)
            share = (label[0] - hard_weight) / (1 - hard_weight) if hard_weight < 1 else 1 / interactive.CLASSES
            probability = 1 / (1 + (interactive.CLASSES - 1) * math.exp(-best))
            here = interactive.gradient(term, gap)
            expected = [hard_weight, soft_weight, share, label[0], here, best, probability]
            assert printed[name] == pytest.approx([float(value) for value in expected], rel=5e-4, abs=1e-9), name
            assert masses[10 * place : 10 * place + 10] == pytest.approx(label.tolist(), abs=1e-12)
    assert not wrong


def test_at_the_optimum_nothing_pulls():
    for name, term in interactive.dialled(**DIAL).items():
        gap = interactive.optimum(term)
        assert math.isinf(gap) if name == "cross-entropy" else abs(interactive.gradient(term, gap)) < 1e-9


@pytest.fixture
def ladder():
    """A ladder whose rungs are label smoothings, with three seeds."""
    arms = {
        name: Run("digits", 50, objective("lsr", epsilon=0.1 * i), Schedule(0.1, epochs=12))
        for i, name in enumerate(LADDER)
    }
    return collect(arms.values(), [0, 1, 2]), arms


@pytest.mark.slow
def test_the_ladder_explorer_prints_the_records_effects(turn, ladder):
    results, arms = ladder
    figure = interactive.ladder_explorer(
        results, {"one": arms, "two": arms}, ["accuracy", "nll_scaled"], "caption", "alt"
    )
    page, wrong = turn(figure)
    page.locator("div.turned select").nth(1).select_option(label=MEASURES["nll_scaled"].change)
    page.locator("div.turned select").nth(2).select_option(label="1 class means")
    text = page.locator("div.turned .bk-clearfix").last.inner_text()
    for rung in RUNGS:
        effect = results.effect(arms[rung], arms["1 class means"], "nll_scaled")
        assert (f"{rung} {effect.text}, n = 3" in text) == (rung != "1 class means")
    assert not wrong


@pytest.fixture
def planes():
    arms = {e: Run("digits", 50, objective("lsr", epsilon=e), Schedule(0.1, epochs=2)) for e in (0.1, 0.5, 0.9)}
    return collect(arms.values(), [0]), arms


@pytest.mark.slow
def test_the_plane_shows_the_features_of_the_chosen_epsilon(turn, planes):
    results, arms = planes
    page, wrong = turn(interactive.feature_plane(results, arms, "caption", "alt"))
    page.get_by_role("slider").press("ArrowRight")
    assert page.locator("div.bk-slider-title").inner_text() == "ε: 0.5"
    (record,) = results.records(arms[0.5])
    shown = page.evaluate("Array.from(Bokeh.documents[0].get_model_by_name('training images').data.x)")
    assert shown == [x for x, _, _ in record.projection["train"]]
    assert not wrong


def test_one_epsilon_cannot_be_turned(planes):
    results, arms = planes
    with pytest.raises(InputError, match="arms has 1 value"):
        interactive.feature_plane(results, {0.1: arms[0.1]}, "caption", "alt")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scripts", "medium", "is_twin"), [(True, "screen", False), (True, "print", True), (False, "screen", True)]
)
def test_paper_and_a_page_without_scripts_have_the_twin(turn, scripts, medium, is_twin):
    page, _ = turn(interactive.loss_dial("the caption", **DIAL), java_script_enabled=scripts)
    if scripts:
        page.locator("div.turned td").first.wait_for()
    page.emulate_media(media=medium)
    assert page.locator("div.twin .panels").is_visible() == is_twin
    assert page.locator("div.turned").is_visible() != is_twin
    assert page.get_by_text("the caption").is_visible()


@pytest.mark.parametrize(("body", "turns"), [('<div class="turning"></div>', True), ("<p>turning</p>", False)])
def test_only_a_page_with_a_turned_figure_loads_bokeh_and_there_formulas_come_later(body, turns):
    context = with_scripts(body, SimpleNamespace(filename="_static/mathjax/tex-chtml.js"))
    assert ("bokeh.min.js" in context["body"]) == turns
    assert ('data-formulas="_static/mathjax/tex-chtml.js"' in context["body"]) == turns
    assert (context["script_files"] == []) == turns


@pytest.mark.slow
def test_a_figure_is_the_same_bytes_in_the_same_order():
    """So that a notebook which is executed again keeps its page."""
    from bokeh.util import serialization

    def first():
        serialization._simple_id = 999
        return interactive.loss_dial("caption", **DIAL)._repr_html_()

    assert first() == first()
