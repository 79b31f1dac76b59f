import re
from dataclasses import replace

import pytest
from conftest import ROOT

from lsr_core.statistics import CONTRADICTED, Verdict
from study import judging, plans
from study.abstracts import ABSTRACTS, NOT_TESTED, sentences
from study.claims import CLAIMS, UNTESTED
from study.identities import IDENTITIES

NAMED = {claim for abstract in ABSTRACTS for sentence in abstract["sentences"] for claim in sentence["claims"]}


def claims_of_papers():
    """Every claim and its paper: of each preset, of plans that are not run yet, and those that nothing tests."""
    for claim in (*IDENTITIES, *(claim for claims in CLAIMS.values() for claim in claims)):
        yield claim.id.partition("-")[0], claim.paper
    for study in plans.planned():
        for paper, family in plans.plan(study).content["families"].items():
            yield from ((name, paper) for name in family)
    yield from ((entry["id"], entry["paper"]) for entry in UNTESTED)


def test_the_abstracts_are_those_that_the_first_page_and_the_chapter_on_memory_replay_cite():
    first, replay = ((ROOT / "notebooks" / f"{name}.ipynb").read_text() for name in ("index", "mrkd"))
    about = re.search(r"This book tests what.*?\n", first)[0]
    cited = {key for keys in re.findall(r"{cite:t}`([\w,]+)`", about) for key in keys.split(",")}
    assert {abstract["key"] for abstract in ABSTRACTS} == cited | {"wang2021memory"}
    assert "wang2021memory" in replay


def test_a_sentence_names_claims_that_exist_and_says_what_is_left():
    known = {name for name, _ in claims_of_papers()}
    assert known >= NAMED
    assert all(sentence["untested"] for abstract in ABSTRACTS for sentence in abstract["sentences"])


@pytest.mark.parametrize("abstract", ABSTRACTS, ids=lambda abstract: abstract["key"])
def test_every_claim_of_a_paper_is_of_a_sentence_or_a_detail(abstract):
    details = {claim for other in ABSTRACTS for claim in other["details"]}
    own = {name for name, paper in claims_of_papers() if paper == abstract["paper"]}
    assert own <= NAMED | details
    assert set(abstract["details"]) <= own


def test_words_follow_the_verdicts_and_link_to_their_chapters():
    published = judging.judge_published("desktop")
    before = dict(zip(*_column(published), strict=True))
    y9 = next(j for j in published if j.claim.id == "Y9-cifar100")
    turned = [replace(j, verdict=Verdict(CONTRADICTED)) if j is y9 else j for j in published]
    after = dict(zip(*_column(turned), strict=True))
    (changed,) = (text for text in before if before[text] != after[text])
    linked = '<a class="claim" href="teacher_free.html">Y9-cifar100</a>: {} (desktop)'
    assert before[changed] == linked.format(y9.verdict)
    assert after[changed] == linked.format(CONTRADICTED)


def test_what_is_judged_nowhere_is_not_tested():
    cells = [str(cell) for cell in _column([])[1]]
    reason = "a ratio of times, measured in the chapter on carried constants"
    assert any(f"W3: {NOT_TESTED}: {reason}" in cell.split("<br>") for cell in cells)
    assert "no claim" in cells
    assert all(NOT_TESTED in line for cell in cells for line in cell.split("<br>") if line != "no claim")


def _column(judgements):
    table = sentences(judgements)
    return list(table["what it says"]), list(table["claims and their words"])
