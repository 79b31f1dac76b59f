"""The exercises of the chapters: questions, solutions, and the code in them."""

import re

import nbformat

from study import build

CHAPTERS = [name for name in build.names() if name not in ("index", "published", "how_it_is_made", "cluster")]
GRADED = re.compile(r"^\d+\. \*\((reading|doing|research)(?:, referee the paper)?\)\*", re.MULTILINE)
DROPDOWN = re.compile(r"^(`{3,})\{dropdown\} Solutions\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^ *```python\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def exercises(name):
    """A chapter's exercises and its solutions, item by item."""
    cells = nbformat.read(build.FOLDER / f"{name}.ipynb", as_version=4).cells
    (cell,) = (cell.source for cell in cells if "## Exercises" in cell.source)
    _, solutions = DROPDOWN.search(cell).groups()
    return _items(DROPDOWN.sub("", cell).partition("## Exercises")[2]), _items(solutions)


def _items(text):
    return [item.strip() for item in re.split(r"^(?=\d+\. )", text, flags=re.MULTILINE) if re.match(r"\d+\. ", item)]


def blocks(solution):
    """The code of a solution."""
    return [re.sub(r"^   ", "", block, flags=re.MULTILINE) for block in BLOCK.findall(solution)]
