"""Prose follows data: no result is typed, only verdicts and findings name a winner, and findings trip."""

import json
import re
import shutil
import zlib
from collections import defaultdict
from copy import copy
from dataclasses import replace

import nbformat
import numpy as np
import pytest
from cells import Page, html_of, run_page
from exercises import CHAPTERS, blocks, exercises
from prose import literals, names_a_winner, prose, sentences, typed_results, unbound

from lsr_core.checkpoints import SECONDS
from lsr_core.models import Perceptron
from lsr_core.statistics import CONTRADICTED, REFUTED, REPRODUCED, SUPPORTED, UNDECIDED, Verdict
from lsr_core.store import Store
from study import build, findings, judging, settings
from study.findings import Findings


def test_captions_and_their_computed_parts_are_read():
    code = 'a = f"{x:.2f} points"\nshow(figure, f"over {len(seeds)} seeds " "LSR wins")'
    assert sorted(literals(code)) == ["over ⟨…⟩ seeds LSR wins", "⟨…⟩ points"]


def test_a_sentence_is_read_across_lines_and_ends_where_it_ends():
    assert sentences("One\nline. Two? (Three.) Four\n\n- five\n- six") == [
        "One line.",
        "Two?",
        "(Three.)",
        "Four",
        "- five",
        "- six",
    ]


def test_the_typed_period_is_the_codes():
    assert SECONDS == 20


def test_no_sentence_outside_a_verdict_and_a_finding_names_a_winner():
    assert not [(place, sentence) for place, text in unbound() for sentence in names_a_winner(text)]


def test_no_result_is_typed():
    assert not [(place, found) for place, text in prose() for found in typed_results(text)]


# The same pages from other records: arms turned round, and pure noise.


def with_values(store, folder, values_of):
    """A store in `folder` with the records of another, each metric and each value of a curve changed.

    `values_of(record)` makes the function that changes one value, by its metric and its place on the curve. What says
    that a run failed stays, so that none fails that did not.
    """
    other = Store(folder)
    for record in store:
        changed, kept = values_of(record), {"train_accuracy", "train_majority"}
        metrics = {name: value if name in kept else changed(value, name) for name, value in record.metrics.items()}
        curves = {
            name: values if name == "epoch" else [changed(value, name, at) for at, value in enumerate(values)]
            for name, values in record.curves.items()
        }
        other.put(replace(record, metrics=metrics, curves=curves))
    return other


def where_measured(change):
    """Where nothing was measured, nothing is."""
    return lambda value, *place: None if value is None else float(change(value, *place))


def value_at(record, name, at=None):
    """A record's metric, or the value at a place of its curve, the last where it is shorter."""
    if at is None:
        return record.metrics.get(name)
    curve = record.curves.get(name) or [None]
    return curve[min(at, len(curve) - 1)]


def settled(store, folder):
    """Every seed has its arm's mean over the seeds, but for a jitter: each difference is certain."""
    arms = defaultdict(list)
    for record in store:
        arms[_arm(record)].append(record)

    def mean_of(record):
        twins, draws = arms[_arm(record)], _draws(record)

        def mean(_, *place):
            known = [value for twin in twins if (value := value_at(twin, *place)) is not None]
            return np.mean(known) + 1e-8 * draws.random()

        return where_measured(mean)

    return with_values(store, folder, mean_of)


def _arm(record):
    """A run and its teacher without their seeds."""
    return re.sub(r'"seed": \d+', "", json.dumps(record.run, sort_keys=True))


def inverted(store, folder):
    """The order turned round about the cross-entropy of the same seed and setting, within the range that there is."""
    controls, ranges = {}, _ranges(store)
    for record in store:
        run, kept = record.run, controls.get(_pair(record))
        is_common = run["network"] == Perceptron().canonical() or run["network"]["name"] == "transformer"
        is_plain = run["objective"]["method"] == "cross-entropy" and not run.get("targets")
        if is_common and is_plain and run["role"] == "student":
            shorter = kept is None or run["schedule"]["epochs"] < kept.run["schedule"]["epochs"]
            controls[_pair(record)] = record if shorter else kept

    def mirrored_of(record):
        control = controls[_pair(record)]

        def mirrored(value, *place):
            centre, (low, high) = value_at(control, *place), ranges[place[0]]
            if centre is None:  # what cross-entropy does not have
                return low + high - value
            if value == centre:
                return value
            below, above = centre - low, high - centre
            return centre - (value - centre) * (below / above if value > centre else above / below)

        return where_measured(mirrored)

    return with_values(store, folder, mirrored_of)


def _pair(record):
    return record.run["data"]["name"], record.run["data"]["train"], record.run["seed"]


def noise(store, folder):
    """Every value drawn evenly from the range that the metric has, whatever the arm."""
    ranges = _ranges(store)

    def drawn_of(record):
        draws = _draws(record)
        return where_measured(lambda _, *place: draws.uniform(*ranges[place[0]]))

    return with_values(store, folder, drawn_of)


def _ranges(store):
    found = defaultdict(list)
    for record in store:
        for name, values in (*record.curves.items(), *((name, [value]) for name, value in record.metrics.items())):
            found[name] += [value for value in values if value is not None]
    return {name: (min(values), max(values)) for name, values in found.items() if values}


def _draws(record):
    return np.random.default_rng(zlib.crc32(record.key.encode()))


SHOWS_VERDICTS = re.compile(
    r"\b(?:show_board|show_sortable_board|show_published_claims|across_presets|paper_vs_ours|sentences|forests?|verdict\.word)\b"
)
_WORD = re.compile(
    r"\b(?:reproduced|supported|contradicted here|negligible|undecided|not testable here)\b"
    r"(?: \((?:failed runs|only the sign is certain|all differences equal|\w+ does not hold)\))?"
    r"|(?:\b(?:nothing|without failed runs|sign-flip|one family|one-layer|batchnorm)|δ × (?:⅔|5/3))(?=[<,])(?:, )?"
)
_VALUE = re.compile(r"(?:&lt; ?|< ?)?[+−-]?(?:(?:\b\d[\d.,]*|\.\d+)(?:e[+-]?\d+)?|\b(?:nan|NaN|inf)\b,?)")


def masked(code, html):
    """The text of what a cell shows, without drawing and numbers; in a cell of verdicts also without their words."""
    if 'class="finding' in html:
        return "FINDING"
    html = re.sub(r"<svg.*?</svg>|<script.*?</script>", " ", html, flags=re.DOTALL)
    text = re.sub(r'<div[^>]* aria-label="([^"]*)"[^>]*>', r" \1 ", html)
    if SHOWS_VERDICTS.search(code):
        text = _WORD.sub(" VERDICT ", re.sub(r"<ul>.*</ul>", "", text))
    text = " ".join(_VALUE.sub("#", re.sub(r"<[^>]*>", " ", text)).split())
    if SHOWS_VERDICTS.search(code):
        text = re.sub(r"–(?= )|VERDICT", "VERDICT", text)  # nothing turns a claim that is not tested
    return re.sub(r"(VERDICT|#)(?: \1)+", r"\1", text)


def shown_in(path):
    """What an executed notebook shows, each with the code that did."""
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/plain" in data:
                yield cell.source, data.get("text/html", data["text/plain"])


@pytest.fixture(scope="module")
def stores(tiny_book, tmp_path_factory):
    """The tiny book's store, and three made of it: with certain differences, with those turned round, with noise."""
    folder = tmp_path_factory.mktemp("stores")
    tiny = Store(tiny_book[0].parent / "records")
    certain = settled(tiny, folder / "settled")
    return {
        "tiny": tiny,
        "settled": certain,
        "inverted": inverted(certain, folder / "inverted"),
        "noise": noise(tiny, folder / "noise"),
    }


@pytest.fixture(scope="module")
def own_records(tiny_book, tmp_path_factory):
    """A copy of the tiny book's store, so that nothing but a solution's own runs is trained."""
    return shutil.copytree(tiny_book[0].parent / "records", tmp_path_factory.mktemp("exercises") / "records")


def read_from(store, name, tiny_book, monkeypatch):
    """A page run from a store; all that it shows but numbers and verdicts is what the tiny book shows."""
    monkeypatch.setenv("LSR_STORE", str(store.folder))
    before = store.keys()
    page = run_page(name, {"seeds": 2, "rounds": 2})
    here = [masked(code, html_of(thing)) for code, thing in page.shown]
    assert here == [masked(code, html) for code, html in shown_in(tiny_book[0] / f"{name}.ipynb")]
    assert store.keys() == before, "a page trained something"
    return page


_SHOWN = Findings._shown
_OPPOSITE = {REPRODUCED: CONTRADICTED, SUPPORTED: CONTRADICTED, CONTRADICTED: REPRODUCED}


def mirrored(judgement, factor=-1.0):
    """The judgement that the differences times this factor would give; of none, that nothing is decided."""
    d, word = judgement.differences, judgement.verdict.word
    low, high = sorted(factor * end for end in d.interval95)
    word = _OPPOSITE.get(word, word) if factor else UNDECIDED
    differences = replace(d, mean=factor * d.mean, interval95=(low, high))
    return replace(judgement, verdict=Verdict(word), differences=differences)


def blurred(book):
    """The findings' judgements, had nothing been decided and no identity held."""
    other = copy(book)
    other._judgements = {
        name: mirrored(judgement, 0) if judgement.differences else replace(judgement, verdict=Verdict(REFUTED))
        for name, judgement in book._judgements.items()
    }
    return other


@pytest.mark.slow
@pytest.mark.parametrize("name", build.names())
def test_a_page_says_the_same_and_its_solutions_run(name, stores, own_records, tiny_book, monkeypatch):
    """Captions, texts for those who do not see, tables' rows and glued sentences: all but numbers and verdicts.

    Its findings trip. The solutions of its exercises run after it, from records as they are, and may train.
    """
    shown = []
    monkeypatch.setattr(findings, "judge_all_published", lambda: list(map(mirrored, judging.judge_all_published())))
    monkeypatch.setattr(Findings, "_shown", lambda self, one: shown.append((self, one)) or _SHOWN(self, one))
    page = read_from(stores["inverted"], name, tiny_book, monkeypatch)
    assert shown or name not in CHAPTERS, "no finding"
    assert not [one.text for book, one in shown if book.holds(one) and blurred(book).holds(one)]
    assert name in ("lsr_is_kd", "many_losses") or not shown or not all(book.holds(one) for book, one in shown)
    assert not shown or not all(blurred(book).holds(one) for book, one in shown)
    monkeypatch.setenv("LSR_STORE", str(own_records))
    monkeypatch.setattr(settings, "TUNING_SEEDS", range(1000, 1002))
    if name in CHAPTERS:
        for code in (code for solution in exercises(name)[1] for code in blocks(solution)):
            Page(name, dict(page.names)).run(code)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index", "label_smoothing", "verdicts"])
def test_a_page_says_the_same_from_noise(name, stores, tiny_book, monkeypatch):
    read_from(stores["noise"], name, tiny_book, monkeypatch)


def judged(store):
    return {judgement.claim.id: judgement for judgement in judging.judge([0, 1], store=store)}


@pytest.mark.slow
def test_verdicts_turn_with_the_records(stores):
    before, after = judged(stores["settled"]), judged(stores["inverted"])
    turned = 0
    for name, judgement in before.items():
        claim, there = judgement.claim, after[name]
        if len(claim.terms) != 2 or len({(arm.data, arm.train) for arm in claim.arms}) > 1 or claim.estimator:
            continue  # sums over settings or seeds, whose order need not turn
        assert judgement.differences.mean * there.differences.mean <= 0
        words = judgement.verdict.word, there.verdict.word
        assert words not in {(REPRODUCED, REPRODUCED), (CONTRADICTED, CONTRADICTED)} or claim.kind != "better"
        turned += words in {(REPRODUCED, CONTRADICTED), (CONTRADICTED, REPRODUCED)}
    assert turned >= 20
    assert [str(j.verdict) for j in judged(stores["noise"]).values()] != [str(j.verdict) for j in before.values()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["inverted", "noise"])
def test_the_answer_is_five_findings_and_none_stands_on_other_records(kind, stores, monkeypatch):
    monkeypatch.setenv("LSR_STORE", str(stores[kind].folder))
    monkeypatch.setattr(findings, "judge_all_published", lambda: list(map(mirrored, judging.judge_all_published())))
    page = run_page("index", {"seeds": 2})
    book, answer = page.names["book"], page.names["answer"]
    assert len(answer) == 5
    assert not any(map(book.holds, answer))
