"""A word of the glossary says on hovering what it means: a `title`, which needs no script."""

from docutils import nodes
from sphinx.application import Sphinx


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


def setup(app: Sphinx) -> dict[str, bool]:
    """Hand the extension to Sphinx."""
    app.connect("doctree-resolved", add_titles)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
