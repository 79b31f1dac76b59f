"""The book's own words: what its pages say before any record is read, piece by piece."""

import ast
import re
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
    for name in build.names():
        for number, cell in enumerate(nbformat.read(build.FOLDER / f"{name}.ipynb", as_version=4).cells):
            if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
                for text in literals(cell.source):
                    yield f"{name}[{number}]", text


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
