"""Findings: what they may rest on, and what a page says where that no longer holds."""

import pytest

from lsr_core.errors import InputError
from lsr_core.statistics import Verdict, paired
from study import findings
from study.claims import CLAIMS
from study.findings import Findings, finding
from study.identities import IDENTITIES
from study.judging import Judgement
from study.studies import QUICK

CLAIM = next(claim for claim in CLAIMS["quick"] if claim.id == "B1-100")


@pytest.fixture
def chapter(monkeypatch):
    """A chapter's findings in a world of one claim, whose differences lie above zero, and one identity."""
    judged = Judgement(CLAIM, "quick", Verdict("supported"), paired([0.01, 0.02, 0.03]))
    proved = Judgement(IDENTITIES[0], "every preset", Verdict("proved"), error=0.0)
    monkeypatch.setattr(findings, "judge", lambda *_, **__: [judged])
    monkeypatch.setattr(findings, "judge_all_published", list)
    monkeypatch.setattr(findings, "judge_identities", lambda: [proved])
    return lambda seeds=QUICK.seeds: Findings(seeds, "label_smoothing")


@pytest.mark.parametrize("condition", ["B1-100 supported", "I1 proved", True])
def test_a_finding_that_holds_is_said_with_its_effect(chapter, condition):
    shown = chapter().say(finding("A <em>gain</em> of {B1-100}.", condition))
    assert "A <em>gain</em> of +0.02 [" in shown._repr_html_()
    assert repr(shown).startswith("A gain of +0.02 [")


@pytest.mark.parametrize("condition", ["B1-100 negligible", "B1-100 < 0", "B1-100 > 0", "I1 refuted", False])
def test_a_finding_that_fell_fails_the_page_and_is_replaced_in_a_rerun_with_other_seeds(
    chapter, condition, monkeypatch
):
    monkeypatch.setenv("LSR_BOOK", "1")
    fallen = finding("A gain.", True, condition)
    with pytest.raises(InputError, match=r"the finding 'A gain\.' does not hold: (B1-100|I1|what the page measured)"):
        chapter().say(fallen)
    assert "was written for other results" in repr(chapter(range(3)).say(fallen))


# A rerun with `-p alpha 0.9` failed where the page's own measurement turned.
def test_other_parameters_may_turn_what_a_page_measures_but_no_verdict(chapter, monkeypatch):
    monkeypatch.delenv("LSR_BOOK", raising=False)
    assert "was written for other results" in repr(chapter().say(finding("A gain.", False)))
    with pytest.raises(InputError, match="does not hold"):
        chapter().say(finding("A gain.", "B1-100 < 0"))


def test_an_interval_must_lie_on_the_side_that_a_sign_names(chapter, monkeypatch):
    certain = Judgement(CLAIM, "quick", Verdict("supported"), paired([0.01, 0.011, 0.012]))
    monkeypatch.setattr(findings, "judge", lambda *_, **__: [certain])
    assert chapter().holds(finding("A gain.", "B1-100 > 0"))
    assert not chapter().holds(finding("A loss.", "B1-100 < 0"))


def test_a_finding_rests_on_something_that_is_judged(chapter):
    with pytest.raises(InputError, match="rests on nothing"):
        finding("A gain.")
    for text, condition in (("A gain.", "B9-100 reproduced"), ("A gain of {B9-100}.", True)):
        with pytest.raises(InputError, match="no claim 'B9-100' is judged here"):
            chapter().say(finding(text, condition))


def test_a_box_has_three_titles(chapter):
    one = [finding("This.", True)]
    titles = [line.partition(".")[0] for line in repr(chapter().box(found=one, why=one, advice=one)).splitlines()]
    assert titles == ["What we found", "Why we think so", "What to do with it"]
