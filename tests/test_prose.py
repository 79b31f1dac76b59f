"""Prose follows data: outside of verdicts no sentence names a winner, and no result is typed."""

import re

import pytest
from prose import literals, markdown, sentences, strings, words

from lsr_core import checkpoints

# Words that say of one arm that it is ahead of another, or that something did good or harm.
WINNER = re.compile(
    r"\b(?:wins?|won|winners?|beats?|beaten|outperform\w*|surpass\w*|improv\w+|better|best|worse|worst|helps?|helped|"
    r"hurts?|harms?|harmed|superior|inferior|gained|useless|(?:more|less|higher|lower) accura\w+)\b",
    re.IGNORECASE,
)
# What may use them, taken out before the search: each with its reason.
NO_WINNER_NAMED = {
    "a chapter's claim, which the verdict answers": r"^\*\*Claim\.\*\*.*$",
    "a quotation: a misconception, or what somebody says": r"[\"“][^\"”]{1,160}[\"”]",
    "a maximum that is defined, not an arm that is ahead": (
        r"\bbest (?:epoch|single temperature|validation accuracy|minus last|rate|by|drops out|chosen on)\b"
        r"|\bbest of (?:five|twelve trials|\d+ stated epochs|the carried methods)"
    ),
    "which side of zero is the good one, on an axis": r"\b(?:Below|Above) zero is better\b",
    "a verdict's name": r"\*Comparable or better\*",
}
# Sentences that ask, or whose word stands beside them as a glued verdict.
ASKS = re.compile(r"\?[\"”*)]*$|\bwhether\b|⟨\S+ verdict⟩", re.IGNORECASE)

# A number that looks like a result: with a unit, a sign, a per cent sign or decimals.
_NUMBER = r"(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_SPELLED = (
    r"(?:two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|twenty(?:-five)?|thirty|ninety|a hundred|a few)"
)
_TIME = r"(?:seconds?|minutes?|hours?)"
_UNIT = r"(?:%|per cent|points?\b|nats?\b|times\b|fold\b|(?:micro|milli)?seconds?\b|minutes?\b|hours?\b|m?s\b|µs|MB|GB)"
RESULT = re.compile(
    rf"(?<![\w.]){_NUMBER}\s?{_UNIT}|\b{_SPELLED} {_UNIT}|\b(?:takes?|in|within) (?:a )?{_TIME}\b|"
    rf"(?<![\w.])(?:\d+\.\d+|\.\d+)|(?<![\w)])[+−±]\s?{_NUMBER}",
    re.IGNORECASE,
)
# Numbers that no run has measured, taken out before the search: each with its reason.
NOT_MEASURED = {
    "the width of an interval, the power or the level of a test": (
        r"\b(?:80|90|95) % (?:intervals?|power)|\[95 %\]|\bp (?:≤|is at most) \.05"
    ),
    "the margins, fixed in advance": (
        r"\b0\.3 points(?: of accuracy)?, 0\.02 nats(?: of likelihood)?, 0\.01 of (?:ECE|calibration error)"
    ),
    "a Bayes accuracy, the name of a setting": r"\bBayes accurac(?:y|ies)(?: of)? [\d, ]+(?:and \d+ )?(?:%|per cent)",
    "a constant of a loss": rf"\b(?:[αετaTK] [=≥≤]|share of|generation|scale) {_NUMBER}",
    "an equation, a table, a section or a version": r"§\d+(?:\.\d+)?|Python \d\.\d+",
    "how long a page takes to read": r"\*Reading time: \d+ minutes",
    "the plan of a lecture": r"\b(?:Ninety minutes for students|(?:Ten|Fifteen|Twenty|Twenty-five) minutes:)",
    "what defines an arm or a data set": r"\b[Ff]our times the epochs|50 times the smallest",
    "a threshold, fixed in advance": r"\bbelow 90 % training accuracy|a ratio of at most 1\.02|asks for 95 %",
    "how often a state is written, a constant of the code": r"every twenty seconds",
    "how a number is printed": r"\{[^{}]*\}",
    "a quotation: a misconception": r"[\"“][^\"”]{1,160}[\"”]",
    "the unit of a slope": r"\bpoints for 10 points\b",
    "one thing minus another, by their names": r"\b[0-4] − [0-4]\b|⟨…⟩ − 1\b|\b1 − [SX]",
    "a paper's setting, alone in its cell of the table of conditions": r"^(?:0 to )?\.\d+$",
}


def _without(text, allowed):
    for pattern in allowed.values():
        text = re.sub(pattern, " ", text, flags=re.MULTILINE)
    return text


def names_a_winner(text):
    """The sentences of a text that name a winner."""
    return [s for s in sentences(_without(text, NO_WINNER_NAMED)) if WINNER.search(s) and not ASKS.search(s)]


def typed_results(text):
    """What of a text looks like a result."""
    text = _without(" ".join(text.split()), NOT_MEASURED)
    return [text[max(0, m.start() - 30) : m.end() + 30] for m in RESULT.finditer(text)]


def prose():
    """All prose of the book, with its place."""
    yield from ((place, words(text)) for place, text in markdown())
    yield from strings()


@pytest.mark.parametrize(
    "text",
    [
        "LSR beats cross-entropy here.",
        "On digits the full rung is better than the uniform one.",
        "Temperature hurts.",
        "The best method is LsrKD.",
        "As the table shows, KD wins by a little; see why.",
        "The smoothed teacher's students are more accurate.",
        "Is it so? The weak teacher helped.",
    ],
)
def test_a_planted_winner_is_found(text):
    assert names_a_winner(words(f"## What came out\n\n{text}\n\n- And a list."))


@pytest.mark.parametrize(
    "text",
    [
        "**Claim.** A smoothed teacher makes a worse student.",
        "Does LSR beat cross-entropy?",
        "See whether LSR beats cross-entropy.",
        '"Distillation helps because the teacher is good." It need not.',
        "[LSR beats cross-entropy](label_smoothing.ipynb): **{glue:text}`B1-100 verdict`**.",
        "Accuracy at the best of 12 stated epochs minus the last.",
        "The code is `better = max(best)`.",
    ],
)
def test_a_question_a_quotation_and_a_headline_with_its_verdict_name_none(text):
    assert not names_a_winner(words(text))


@pytest.mark.parametrize(
    "text",
    [
        "LSR gained 1.8 points.",
        "LSR gained two points.",
        "It takes 49 seconds on a laptop.",
        "It is done in minutes.",
        "Accuracy rises from 72.1 to 72.7 %.",
        "The difference is +0.4 ± 0.1.",
        "ECE falls to .024.",
        "A stack is 12 times as fast.",
        "The interval has 95 % coverage and the accuracy is 93 %.",
    ],
)
def test_a_planted_result_is_found(text):
    assert typed_results(words(text))


@pytest.mark.parametrize(
    "text",
    [
        "Digits with 100 and 300 training images, a perceptron 64-64-64-10, 60 epochs, batches of 25.",
        "The temperature is $\\tau = 2.5$, and `alpha=0.3`; at τ = 1 and ε = .1 the table has 95 % intervals.",
        "Margins are 0.3 points, 0.02 nats, 0.01 of ECE; the mixture has Bayes accuracies 65, 80 and 95 %.",
        "{cite:t}`yuan2020revisiting`, Eqs. 4 to 6, Tables 2 and 9, §3.1.",
        "*Reading time: 9 minutes. Running time: see the [status](status.md) page.*",
        "**{glue:text}`B1-100 verdict`**, {glue:text}`B1-100 effect` points.",
        "1. *(doing)* Rerun this page with `-p paper_temperature 1.5`.",
    ],
)
def test_a_protocol_is_no_result(text):
    assert not typed_results(words(text))


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
    assert checkpoints.SECONDS == 20


@pytest.mark.parametrize("reason", [*NO_WINNER_NAMED, *NOT_MEASURED])
def test_an_exception_is_still_needed(reason):
    pattern = {**NO_WINNER_NAMED, **NOT_MEASURED}[reason]
    assert any(re.search(pattern, text, re.MULTILINE) for _, text in prose())


def test_no_sentence_outside_a_verdict_names_a_winner():
    assert not [(place, sentence) for place, text in prose() for sentence in names_a_winner(text)]


def test_no_result_is_typed():
    assert not [(place, found) for place, text in prose() for found in typed_results(text)]
