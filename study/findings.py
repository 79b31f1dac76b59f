"""Sentences that state results, each bound to the verdicts it rests on.

A finding's conditions are read again whenever its page is run. Where one no longer holds the page fails; a page run
with other seeds than its study's says instead that the sentence was written for other results, and so does one run
with other parameters where these turned what it measured.
"""

import operator
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lsr_core.errors import require

from .judging import Judgement, judge, judge_all_published, judge_identities
from .pages import HtmlOutput
from .results import MEASURES
from .studies import is_exploratory

_SIGNS = {"> 0": operator.gt, "< 0": operator.lt}
_EFFECT = re.compile(r"\{([\w.-]+)\}")


def _in_book() -> bool:
    """Whether the page is run with its own parameters, by the runner of the book."""
    return os.environ.get("LSR_BOOK") == "1"


@dataclass(frozen=True)
class Finding:
    """A text, in which `{id}` stands for a claim's effect, and what it rests on.

    Each condition is a claim's id and the word of its verdict (`"S4-100 reproduced"`), or its id and the side of zero
    on which its whole 95 % interval lies (`"Z1-100 > 0"`), or a truth value that the page computed from its records.
    """

    text: str
    rests_on: tuple[str | bool, ...]


def finding(text: str, *rests_on: str | bool) -> Finding:
    """A sentence or paragraph bound to what it rests on; raises `InputError` where it rests on nothing."""
    require(bool(rests_on), f"the finding {text!r} rests on nothing; name a verdict, a sign or a measured truth value")
    return Finding(text, rests_on)


class Findings:
    """A chapter's findings, written for the verdicts of the live study's seeds and of all published studies.

    `judgements` are those of the chapter, of all chapters where it is None; `identities` and `published` are all.
    """

    def __init__(self, seeds: Sequence[int], chapter: str | None) -> None:
        self.identities, self.judgements = judge_identities(), judge(seeds, chapter=chapter)
        self.published = judge_all_published()
        self._judgements = {j.claim.id: j for j in [*self.identities, *self.judgements, *self.published]}
        self._exploratory = is_exploratory(seeds)

    def box(self, *, found: Sequence[Finding], why: Sequence[Finding], advice: Sequence[Finding]) -> HtmlOutput:
        """What was found, why the book thinks so, and what to do with it."""
        parts = {"What we found": found, "Why we think so": why, "What to do with it": advice}
        texts = [Markup("<strong>{}.</strong> {}").format(title, self._joined(part)) for title, part in parts.items()]
        body = Markup("").join(map(Markup("<p>{}</p>").format, texts))
        plain = "\n".join(text.striptags() for text in texts)
        return HtmlOutput(Markup('<div class="findings">{}</div>').format(body), plain)

    def say(self, *paragraph: Finding) -> HtmlOutput:
        """A paragraph between the figures."""
        text = self._joined(paragraph)
        return HtmlOutput(Markup('<p class="finding">{}</p>').format(text), text.striptags())

    def holds(self, finding: Finding) -> bool:
        """Whether all that the finding rests on is so."""
        return not any(map(self._fallen, finding.rests_on))

    def _joined(self, findings: Iterable[Finding]) -> Markup:
        return Markup(" ").join(map(self._shown, findings))

    def _shown(self, finding: Finding) -> Markup:
        """The finding with its effects, or what is said in its place."""
        fallen = [(condition, why) for condition in finding.rests_on if (why := self._fallen(condition))]
        because = "; ".join(why for _, why in fallen)
        is_own = not self._exploratory and any(isinstance(condition, str) or _in_book() for condition, _ in fallen)
        require(not is_own, f"the finding {finding.text!r} does not hold: {because}")
        if fallen:
            return Markup("<em>This sentence was written for other results ({}).</em>").format(because)
        return Markup(_EFFECT.sub(lambda match: self._effect(match[1]), finding.text))

    def _fallen(self, condition: str | bool) -> str | None:
        """Why a condition does not hold."""
        if not isinstance(condition, str):
            return None if condition else "what the page measured is otherwise"
        name, _, wanted = condition.partition(" ")
        judgement = self._judged(name)
        if wanted in _SIGNS:
            holds = all(_SIGNS[wanted](end, 0) for end in judgement.differences.interval95)
            return None if holds else f"{name} is {judgement.effect}, not {wanted}"
        word = judgement.verdict.word
        return None if word == wanted else f"{name} is {word}, not {wanted}"

    def _effect(self, name: str) -> str:
        """A claim's effect with its unit."""
        judgement = self._judged(name)
        unit = MEASURES[judgement.claim.metric].unit if judgement.differences else ""
        return f"{judgement.effect} {unit}".strip()

    def _judged(self, name: str) -> Judgement:
        require(name in self._judgements, f"no claim {name!r} is judged here; a chapter's findings rest on its own")
        return self._judgements[name]
