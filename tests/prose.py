"""The book's own words, before any record is read: which of them name a winner or look like a result.

A finding may name a winner: it is bound to the verdicts that say so (`study.findings`).

As a script, a step of `make lint`, it checks its own lists of words and exceptions.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat

from study import build

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted(path for path in (ROOT / "book").glob("*.md") if path.name != "status.md"))

# What is no prose: code, mathematics, glued values, roles with targets, addresses.
_FENCED = re.compile(r"^( *)(`{3,})(?!\{)[^\n]*\n.*?^\1\2 *$", re.MULTILINE | re.DOTALL)
_DIRECTIVE = re.compile(r"^[ :]*`{3,}(\{[\w-]+\})?.*$|^ *:\w+:.*$", re.MULTILINE)
_NOT_WORDS = (
    (re.compile(r"\$\$.*?\$\$(?: \(eq-[\w-]+\))?", re.DOTALL), " "),
    (re.compile(r"(?<![\w$])\$[^$]+\$"), "X"),
    (re.compile(r"\{glue:text\}`([^`]*)`"), r"⟨\1⟩"),
    (re.compile(r"\{(cite:[tp])\}`[^`]*`"), r"⟨\1⟩"),
    (re.compile(r"\{eq\}`[^`]*`"), "⟨eq⟩"),
    (re.compile(r"`[^`]*`"), "⟨code⟩"),
    (re.compile(r"!?\[([^\]]*)\]\([^)]*\)"), r"\1"),
    (re.compile(r"https?://\S+"), " "),
    (re.compile(r"<[a-z/][^>]*>"), " "),
)


_END = re.compile(r"(?<=[.?!])\s+(?=[\"“*(⟨]*[A-ZΑ-Ω⟨0-9])|(?<=[.?!][\"”*)])\s+")


def words(markdown: str) -> str:
    """Markdown without code, mathematics and directives' own lines; what they hold stays."""
    text = _DIRECTIVE.sub("", _FENCED.sub("", markdown))
    for pattern, instead in _NOT_WORDS:
        text = pattern.sub(instead, text)
    return text


def sentences(text: str) -> list[str]:
    """A text's sentences: lines of a paragraph run on, lists' items and tables' rows stand alone."""
    paragraphs = re.split(r"\n\s*\n|\n(?=\s*(?:[-*|#]|\d+\.\s))|\n(?=\*\*)", text)
    joined = (" ".join(paragraph.split()) for paragraph in paragraphs)
    return [sentence for paragraph in joined for sentence in _END.split(paragraph) if sentence.strip()]


def markdown() -> Iterator[tuple[str, str]]:
    """Every markdown cell of the notebooks and every page of the book, with its place."""
    for path in PAGES:
        yield path.name, path.read_text()
    for name in build.names():
        for number, cell in enumerate(nbformat.read(build.FOLDER / f"{name}.ipynb", as_version=4).cells):
            if cell.cell_type == "markdown":
                yield f"{name}[{number}]", cell.source


def strings() -> Iterator[tuple[str, str]]:
    """Every piece of text in the notebooks' code cells, captions above all; a computed part is ⟨…⟩."""
    for place, code in cells():
        yield from ((place, text) for text in literals(code))


def cells() -> Iterator[tuple[str, str]]:
    """Every code cell of the notebooks but their parameters, with its place."""
    for name in build.names():
        for number, cell in enumerate(nbformat.read(build.FOLDER / f"{name}.ipynb", as_version=4).cells):
            if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
                yield f"{name}[{number}]", cell.source


def literals(code: str) -> Iterator[str]:
    """The texts of a piece of code: string literals, f-strings whole, without what only formats a number."""
    tree = ast.parse(code)
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    specs = {id(part) for node in joined for value in node.values for part in _within_spec(value)}
    parts = {id(part) for node in joined for part in node.values}
    for node in ast.walk(tree):
        if id(node) in specs:
            continue
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "⟨…⟩" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def _within_spec(value: ast.expr) -> Iterator[ast.AST]:
    spec = getattr(value, "format_spec", None)
    return ast.walk(spec) if spec else iter(())


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
    "the two values of a sign": r"±1(?!\.?\d)",
    "a constant of a loss": rf"\b(?:[αετaTK] [=≥≤]|share of|generation|scale) {_NUMBER}",
    "an equation, a table, a section or a version": r"§\d+(?:\.\d+)?|Python \d\.\d+",
    "how long a page takes to read": r"\*Reading time: \d+ minutes",
    "the plan of a lecture": r"\b(?:Ninety minutes for students|(?:Ten|Fifteen|Twenty|Twenty-five) minutes:)",
    "what defines an arm or a data set": r"\b[Ff]our times the epochs|50 times the smallest",
    "a threshold, fixed in advance": r"\bbelow 90 % training accuracy|a ratio of at most 1\.02|asks for 95 %",
    "how often a state is written, a constant of the code": r"every twenty seconds at most",
    "how a number is printed": r"\{[^{}]*\}",
    "a quotation: a misconception": r"[\"“][^\"”]{1,160}[\"”]",
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


def unbound():
    """The prose that no record is read for, with its place: all but the findings."""
    yield from ((place, words(text)) for place, text in markdown())
    for place, code in cells():
        yield from ((place, text) for text in literals(without_findings(code)))


def without_findings(code: str) -> str:
    """A cell's code with an empty tuple where a finding is made."""

    class Emptied(ast.NodeTransformer):
        def visit_Call(self, node: ast.Call) -> ast.AST:
            made = isinstance(node.func, ast.Name) and node.func.id == "finding"
            return ast.Tuple([], ast.Load()) if made else self.generic_visit(node)

    return ast.unparse(Emptied().visit(ast.parse(code)))


# What the search must find and must not find, so that a change of its words cannot make it blind.
WINNERS = (
    "LSR beats cross-entropy here.",
    "On digits the full rung is better than the uniform one.",
    "Temperature hurts.",
    "The best method is LsrKD.",
    "As the table shows, KD wins by a little; see why.",
    "The smoothed teacher's students are more accurate.",
    "Is it so? The weak teacher helped.",
)
NO_WINNERS = (
    "**Claim.** A smoothed teacher makes a worse student.",
    "Does LSR beat cross-entropy?",
    "See whether LSR beats cross-entropy.",
    '"Distillation helps because the teacher is good." It need not.',
    "[LSR beats cross-entropy](label_smoothing.ipynb): **{glue:text}`B1-100 verdict`**.",
    "Accuracy at the best of 12 stated epochs minus the last.",
    "The code is `better = max(best)`.",
)
RESULTS = (
    "LSR gained 1.8 points.",
    "LSR gained two points.",
    "It takes 49 seconds on a laptop.",
    "It is done in minutes.",
    "Accuracy rises from 72.1 to 72.7 %.",
    "The difference is +0.4 ± 0.1.",
    "ECE falls to .024.",
    "The difference is 0 ±1.5.",
    "A stack is 12 times as fast.",
    "The interval has 95 % coverage and the accuracy is 93 %.",
)
NO_RESULTS = (
    "Digits with 100 and 300 training images, a perceptron 64-64-64-10, 60 epochs, batches of 25.",
    "The temperature is $\\tau = 2.5$, and `alpha=0.3`; at τ = 1 and ε = .1 the table has 95 % intervals.",
    "Margins are 0.3 points, 0.02 nats, 0.01 of ECE; the mixture has Bayes accuracies 65, 80 and 95 %.",
    "{cite:t}`yuan2020revisiting`, Eqs. 4 to 6, Tables 2 and 9, §3.1.",
    "*Reading time: 9 minutes. Running time: see the [status](status.md) page.*",
    "**{glue:text}`B1-100 verdict`**, {glue:text}`B1-100 effect` points.",
    "A network whose weights are ±1.",
    "1. *(doing)* Rerun this page with `-p paper_temperature 1.5`.",
)


def main() -> int:
    """Name what the search does not see or sees wrongly, and every exception that no page needs any more."""
    wrong = [f"no winner is seen in {text!r}" for text in WINNERS if not names_a_winner(words(f"## A\n\n{text}"))]
    wrong += [f"a winner is seen in {text!r}" for text in NO_WINNERS if names_a_winner(words(text))]
    wrong += [f"no result is seen in {text!r}" for text in RESULTS if not typed_results(words(text))]
    wrong += [f"a result is seen in {text!r}" for text in NO_RESULTS if typed_results(words(text))]
    pages = [text for _, text in prose()]
    for reason, pattern in {**NO_WINNER_NAMED, **NOT_MEASURED}.items():
        if not any(re.search(pattern, text, re.MULTILINE) for text in pages):
            wrong.append(f"no page needs the exception {reason!r}")
    print("\n".join(wrong), end="\n" if wrong else "")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
