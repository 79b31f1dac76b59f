"""Words of the glossary and identifiers of claims say on hovering what they mean: a `title`, which needs no script."""

import re
from html import escape

from docutils import nodes
from sphinx.application import Sphinx

_CLAIM = r"[A-Z]\d+[a-z]*(?:-\w+)*"
# Pieces of a page: what has no words for a reader or says its own, a link with an identifier, other links, tags, and
# identifiers among words.
_PIECE = re.compile(
    r"<(script|style|svg|pre|code|abbr)\b.*?</\1>"
    r'|<(div|span)[^>]* class="math\b.*?</\2>'
    rf"|<a\b(?P<link>[^>]*)>(?P<linked>{_CLAIM})</a>"
    r"|<a\b.*?</a>|<[^>]*>"
    rf"|(?<![\w-])(?P<named>{_CLAIM})(?![\w-])",
    re.DOTALL,
)


def add_titles(app: Sphinx, doctree: nodes.document, _: str) -> None:
    """Give every reference to a term its definition."""
    definitions = _definitions(app)
    for reference in doctree.findall(nodes.reference):
        anchor = reference.get("refid") or reference.get("refuri", "").partition("#")[2]
        if anchor in definitions:
            reference["reftitle"] = definitions[anchor]


def _definitions(app: Sphinx) -> dict[str, str]:
    """The glossary's definitions by anchor, without the chapters that they name; none in a book without one."""
    if "glossary" not in app.env.found_docs:
        return {}
    return {
        anchor: " ".join(item.next_node(nodes.definition).astext().split()).partition(" See ")[0]
        for item in app.env.get_doctree("glossary").findall(nodes.definition_list_item)
        for term in item.findall(nodes.term)
        for anchor in term["ids"]
    }


def explain_claims(app: Sphinx, _name: str, _template: str, context: dict, _doctree: nodes.document | None) -> None:
    """Let the claims of a page say what they claim."""
    if "body" in context and app.builder.format == "html":
        context["body"] = _PIECE.sub(_explained, context["body"])


def _explained(piece: re.Match[str]) -> str:
    """A piece of a page, with its claim's text where it is an identifier."""
    name = piece["linked"] or piece["named"]
    if name is None:
        return piece[0]
    from study.claims import explained, meanings  # late: a page without claims does not wait for torch

    if name not in meanings():
        return piece[0]
    if piece["linked"]:
        return f'<a{piece["link"]} title="{escape(meanings()[name])}">{name}</a>'
    return explained(name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Hand the extension to Sphinx."""
    app.connect("doctree-resolved", add_titles)
    app.connect("html-page-context", explain_claims)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
