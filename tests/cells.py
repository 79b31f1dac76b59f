"""Running a notebook's code cells in this process: its namespace, and what it shows."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import myst_nb
import nbformat

from study import build


@dataclass
class Page:
    """A notebook as it runs: its names, what it showed with the code that did, and what was glued into its prose."""

    name: str
    names: dict[str, Any] = field(default_factory=dict)
    shown: list[tuple[str, Any]] = field(default_factory=list)
    glued: dict[str, Any] = field(default_factory=dict)

    def run(self, code: str) -> None:
        """Run a piece of code as a cell: `display` and a last expression without a semicolon are shown."""
        self.names["display"] = lambda thing: self.shown.append((code, thing))
        tree = ast.parse(code)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        with mock.patch.object(myst_nb, "glue", self._glue):
            exec(compile(tree, self.name, "exec"), self.names)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), self.name, "eval"), self.names)
                if value is not None and not _is_quiet(code, last):
                    self.shown.append((code, value))

    def _glue(self, name: str, value: Any, display: bool = True) -> None:
        assert not display
        self.glued[name] = value


def _is_quiet(code: str, last: ast.Expr) -> bool:
    """Whether a semicolon follows the last expression."""
    ending = code.encode().splitlines()[last.end_lineno - 1][last.end_col_offset :]
    return ending.lstrip().startswith(b";")


def run_page(name: str, given: Mapping[str, Any]) -> Page:
    """A notebook's code cells, run with these parameters where it has them."""
    page = Page(name)
    cells = nbformat.read(build.FOLDER / f"{name}.ipynb", as_version=4).cells
    for cell in cells:
        if cell.cell_type == "code":
            page.run(cell.source)
            if "parameters" in cell.metadata.get("tags", []):
                page.names |= {parameter: value for parameter, value in given.items() if parameter in page.names}
    return page


def html_of(thing: Any) -> str:
    """What is shown, as the page has it: HTML where there is some."""
    return thing._repr_html_() if hasattr(thing, "_repr_html_") else repr(thing)
