import base64
import io
import re
import warnings
from itertools import combinations
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from lsr_core import InputError, objective
from lsr_core.run import Run
from lsr_core.schedule import Schedule
from lsr_core.statistics import CONTRADICTED, NEGLIGIBLE, REPRODUCED, UNDECIDED
from study import claims, figures, house, judging, pages, published_records
from study.results import collect
from study.studies import DESKTOP

CE, LSR = (Run("digits", 50, objective(m), Schedule(0.1, epochs=3)) for m in ("cross-entropy", "lsr"))


@pytest.fixture
def results():
    return collect([CE, LSR], [0, 1, 2])


@pytest.fixture
def judgements(monkeypatch):
    monkeypatch.setitem(claims.CLAIMS, "quick", claims.CLAIMS["quick"][:3])
    return judging.judge([0, 1, 2])


def drawings(results, judgements):
    yield figures.penalties()
    pulls = {tau: pd.Series({"one": 1.0, "other": 1 / tau}) for tau in (4, 20)}
    yield figures.conventions(pulls, 0.99, (10, 100))
    yield figures.four_labels()
    yield figures.four_verdicts()
    yield figures.forest(judgements)
    yield figures.curves_by_constant(results, {"n = 50": {0.1: LSR}}, {"n = 50": CE}, ["accuracy", "ece"], "ε")
    yield figures.heat(pd.DataFrame({0.1: {"τ = 1": 0.5, "τ = 4": -0.2}}).rename_axis(columns="α"), "points")
    yield figures.along_training(results, {"lsr": LSR, "cross-entropy": CE}, "test_accuracy", "accuracy")
    yield figures.along_training(results, {"lsr": LSR}, "output_drift", "nats")
    yield figures.gains_by_network(results, {"64-64": {"lsr": LSR, "cross-entropy": CE}}, "lsr")
    yield figures.by_setting(results, {"lsr": {"digits": LSR}, "cross-entropy": {"digits": CE}}, ["accuracy", "ece"])


@pytest.mark.slow
def test_every_figure_is_drawn_without_a_warning_and_twice_the_same(results, judgements):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = [pages.show(figure, "caption", "alt")._repr_html_() for figure in drawings(results, judgements)]
        again = [pages.show(figure, "caption", "alt")._repr_html_() for figure in drawings(results, judgements)]
    assert first == again


def test_axes_have_labels(results, judgements):
    for figure in drawings(results, judgements):
        for axes in figure.axes:
            assert axes.get_xlabel() or axes.get_ylabel() or axes.get_title()


def test_a_projection_shows_each_point_of_the_record():
    pictured = collect([CE, LSR], [0])
    figure = figures.projection(pictured, {"cross-entropy": CE, "lsr": LSR})
    assert [axes.get_title() for axes in figure.axes] == [
        f"{name}, {kind} images" for kind in ("training", "test") for name in ("cross-entropy", "lsr")
    ]
    shown = sum(len(line.get_xdata()) for line in figure.axes[0].lines)
    assert shown == len(pictured.records(CE)[0].projection["train"])


def test_a_figure_is_shown_with_caption_and_text_for_those_who_do_not_see_it():
    shown = pages.show(figures.four_verdicts(), "what to <see>", 'four "intervals"')
    content = shown._repr_html_()
    assert 'role="img" aria-label="four &#34;intervals&#34;"' in content
    assert "<figcaption>what to &lt;see&gt;</figcaption>" in content
    assert content.count("<svg") == 1


def test_panels_are_drawn_apart_each_once_and_in_colours_that_a_style_sheet_replaces():
    content = pages.show(figures.penalties(), "caption", "alt")._repr_html_()
    assert content.count("<svg") == 2
    for label in ("logit of one class above the others", "logit gap at the optimum"):
        assert content.count(f">{label}<") == 1
    colours = re.findall(r"[:\"] *(#[0-9a-f]{6}|var\(--figure-([0-9a-f]{6}), #\2\))", content)
    assert len(colours) > 10
    assert all(code for _, code in colours)


def test_verdicts_are_told_apart_by_marker_and_by_colour():
    words = [REPRODUCED, CONTRADICTED, NEGLIGIBLE, UNDECIDED, judging.NOT_TESTED]
    for way in ("color", "marker"):
        assert len({figures.VERDICT_STYLES[word][way] for word in words}) == len(words)


def test_a_forest_has_a_panel_a_preset_each_with_its_axis():
    judged = [*judging.judge_published("one-layer"), *judging.judge_published("gtzan")]
    figure = figures.forest(judged)
    assert [axes.get_title("left") for axes in figure.axes] == ["preset one-layer", "preset gtzan"]
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert all(axes.get_xlabel() and axes.get_xticks().size for axes in figure.axes)
    drawn = [" ".join(text.get_text().split()) for axes in figure.axes for text in axes.texts]
    assert sorted(drawn) == sorted(j.claim.text for j in judged)


def test_a_sortable_board_is_a_whole_table_without_scripts(judgements):
    content = pages.show_sortable_board(judgements, "caption")._repr_html_()
    plain = re.sub(r"<script.*?</script>", "", content, flags=re.DOTALL)
    _, _, fallback = plain.partition('<div id="board_fallback">')
    assert fallback.count("<tr") == 1 + len(judgements)
    assert all(judgement.claim.text in fallback for judgement in judgements)


def test_a_sortable_board_has_the_numbers_that_sort_it(judgements):
    content = pages.show_sortable_board(judgements, "caption")._repr_html_()
    ordered = [float(value) for value in re.findall(r'<td data-order=\\?"([^"\\]+)', content)]
    numbers = [number for j in judgements for number in (j.differences.mean, j.differences.n, j.holm_p)]
    assert ordered == pytest.approx(numbers, rel=1e-5)


def test_a_choice_shows_its_question_and_every_answer():
    answers = {name: pages.HtmlOutput(f"<p>{name} then</p>", f"{name} then") for name in ("yes", "no")}
    shown = pages.show_choice("Which?", answers, "caption")
    assert repr(shown).splitlines() == ["Which?", "yes: yes then", "no: no then", "caption"]
    assert "<b>no</b><p>no then</p>" in shown._repr_html_()


def test_the_board_links_every_claim_to_its_chapter(judgements):
    content = pages.show_board(judgements, "caption")._repr_html_()
    assert content.count('<a class="claim" href="label_smoothing.html">') == len(judgements)


def test_the_csv_holds_a_row_a_run(results):
    content = pages.show_csv(results, "page")._repr_html_()
    packed = ZipFile(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", content)[1])))
    rows = packed.read("page.csv").decode().splitlines()
    assert content == pages.show_csv(results, "page")._repr_html_(), "the same records give the same page"
    assert len(rows) == 1 + 6
    assert {"key", "seed", "metric.accuracy", "objective.epsilon"} <= set(rows[0].split(","))
    assert all('"[64, 64]"' in row for row in rows[1:])


def test_cells_are_text_unless_they_are_links(judgements):
    table = pd.DataFrame({"p": ["< .0001"]}, index=pd.Index(["a"], name="id"))
    assert "<td>&lt; .0001</td>" in pages.show_table(table, "caption")._repr_html_()
    board = pages.show_board(judgements, "caption")._repr_html_()
    assert "<td>< " not in board


def links(shown):
    return re.findall(r'href="published\.html#([^"]+)"', shown._repr_html_())


def test_what_is_printed_of_a_published_preset_links_to_a_line_of_its_file():
    judged = judging.judge_published("desktop")
    linked = links(pages.show_table(judging.paper_vs_ours(judged), "caption"))
    places = re.findall(
        r'id="([^"]+)"', pages.show_table(published_records.lines_table("desktop"), "caption")._repr_html_()
    )
    means = [j for j in judged if not j.differences.is_association]
    sides = [sum(w for w, _ in j.claim.side(sign)) for j in means for sign in (-1, 1)]
    assert len(linked) == sum(abs(side - 1) < 1e-9 for side in sides) > len(judged)
    assert set(linked) <= set(places)
    assert len(places) == len(set(places)) == len(published_records.lines("desktop"))


def test_every_published_method_links_to_its_first_line():
    names = ["cross-entropy", "de-kd", "poor teacher"]
    shown = pages.show_published("desktop", names, ["accuracy"], "caption")
    _, arms = published_records.named("desktop", names)
    assert list(arms) == names
    first = {arm.at(0).key for arm in arms.values()}
    lines = {published_records.place("desktop", line): key for key, line in published_records.lines("desktop").items()}
    assert {lines[target] for target in links(shown)} == first
    assert "temperature 4" in repr(shown)
    with pytest.raises(InputError, match="desktop has no arm 'kd-dk'; there are cross-entropy, lsr, "):
        published_records.named("desktop", ["kd-dk"])


def test_means_beside_the_papers_are_those_of_the_lines():
    judged = judging.judge_published("desktop")
    (judgement,) = (j for j in judged if j.claim.id == "B1-cifar100")
    shown = judging.paper_vs_ours([judgement]).iloc[0]
    lines = [line.record for line in published_records.lines("desktop").values()]
    for column, method in (("control [95 %]", "cross-entropy"), ("method [95 %]", "lsr")):
        own = [r for r in lines if r.run["data"]["name"] == "cifar100" and r.run["objective"]["method"] == method]
        accuracies = [100 * r.metrics["accuracy"] for r in own if r.run["role"] == "student"]
        assert f">{np.mean(accuracies):.2f} [" in shown[column]
    assert shown["n"] == len(DESKTOP.seeds)


def test_a_claim_without_a_control_has_none_beside_the_papers():
    (judgement,) = (j for j in judging.judge_published("one-layer") if j.claim.id == "Y3-100-one-layer")
    assert judging.paper_vs_ours([judgement]).iloc[0]["control [95 %]"] == "–"


@pytest.mark.parametrize("claim", ["C1-cifar100", "Z4-cifar100"])
def test_sums_of_accuracies_and_correlations_are_not_shown_as_means(claim):
    (judgement,) = (j for j in judging.judge_published("desktop") if j.claim.id == claim)
    shown = judging.paper_vs_ours([judgement]).iloc[0]
    assert shown["control [95 %]"] == shown["method [95 %]"] == "–"


@pytest.mark.slow
def test_every_chapter_shows_its_published_claims(judgements):
    published = judging.judge_all_published()
    for chapter in {judgement.claim.chapter for judgement in published}:
        text = repr(pages.show_published_claims(judgements, published, chapter))
        own = [judgement for judgement in published if judgement.claim.chapter == chapter]
        assert all(judgement.claim.id in text and judgement.effect in text for judgement in own)


def test_every_preset_stands_beside_the_others():
    judged = judging.judge_published("desktop")
    board = judging.across_presets(judging.judge([0, 1, 2], paper="Müller 2019"), judged)
    assert set(board.index) == {j.claim.base for j in judged}
    for j in judged:
        assert f"{j.claim.place}: {j.verdict}" in board.loc[j.claim.base, "desktop"]
    assert board.loc["B1", "quick"].startswith("digits 100: ")
    assert board.loc["B1", "claim"].endswith(">LSR beats cross-entropy</a>")
    assert board.loc["W1", "quick"] == "–"  # not among the ones given


def test_a_chapters_claims_are_shown_in_every_published_study(judgements):
    shown = pages.show_published_claims(judgements, judging.judge_all_published(), "label_smoothing")
    judged = {
        preset: judging.judge_published(preset, "label_smoothing") for preset in claims.CLAIMS if preset != "quick"
    }
    html = shown._repr_html_()
    assert len(links(shown)) >= 2 * sum(len(j.claim.terms) == 2 for own in judged.values() for j in own)
    assert html.count("<figure") == html.count("<figcaption>") >= 1 + sum(map(bool, judged.values()))
    assert "study desktop" in repr(shown)
    assert "may be one of tuning" in repr(shown)


def test_the_readmes_house_is_drawn_from_the_imports_as_they_are(tmp_path):
    figures.save(house.house(), tmp_path / "house.svg")
    kept = (ROOT / "book" / "_static" / "house.svg").read_bytes()
    assert (tmp_path / "house.svg").read_bytes() == kept, "the imports have changed; `make figure` draws them anew"


def test_the_house_has_a_box_for_every_module_and_none_lies_on_another():
    way = ["study.cli", "lsr_core.execute", "lsr_core.losses"]
    figure = house.house(way)
    figure.draw_without_rendering()
    (panel,) = figure.axes
    files = [path for package in ("lsr_core", "study") for path in (ROOT / package).glob("[!_]*")]
    modules = [path.stem for path in files if path.suffix == ".py" or (path / "__init__.py").exists()]
    assert sorted(text.get_text() for text in panel.texts) == sorted(modules)
    boxes = [text.get_bbox_patch().get_window_extent() for text in panel.texts]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(figure.bbox.contains(*corner) for box in boxes for corner in (box.min, box.max))
    marked = [text.get_text() for text in panel.texts if text.get_bbox_patch().get_linewidth() == 2]
    assert sorted(marked) == ["cli", "execute", "losses"]
    with pytest.raises(InputError, match=r"unknown module 'study.shelf'; there are lsr_core.augmentation, "):
        house.house(["study.shelf"])


def test_a_chapter_names_the_planned_studies_that_are_not_yet_run(monkeypatch):
    assert published_records.lacks("cifar100-5k", "mrkd")
    assert not published_records.lacks("one-layer", "mrkd")
    monkeypatch.setattr(published_records, "lacks", lambda name, _: name == "gpu")
    (said,) = pages.not_yet_run("mrkd")
    assert repr(said) == "Planned for this chapter and not yet run, or not wholly: gpu."
    assert pages.not_yet_run("identities") == []
