"""Running a notebook's code cells in this process: its namespace, and what it shows."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import myst_nb
import nbformat

from lsr_core import notebooks


@dataclass
class Page:
    """A notebook as it runs: its names, what each cell showed, and what was glued into its prose."""

    name: str
    names: dict[str, Any] = field(default_factory=dict)
    shown: list[tuple[int, Any]] = field(default_factory=list)
    glued: dict[str, Any] = field(default_factory=dict)

    def run(self, code: str, cell: int = -1) -> None:
        """Run a piece of code as a cell: `display` and a last expression without a semicolon are shown."""
        self.names["display"] = lambda thing: self.shown.append((cell, thing))
        tree = ast.parse(code)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        with mock.patch.object(myst_nb, "glue", self._glue):
            exec(compile(tree, f"{self.name}[{cell}]", "exec"), self.names)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), f"{self.name}[{cell}]", "eval"), self.names)
                if value is not None and not code.rstrip().endswith(";"):
                    self.shown.append((cell, value))

    def _glue(self, name: str, value: Any, display: bool = True) -> None:
        assert not display
        self.glued[name] = value


def run_page(name: str, given: Mapping[str, Any]) -> Page:
    """A notebook's code cells, run with these parameters where it has them."""
    page = Page(name)
    cells = nbformat.read(notebooks.FOLDER / f"{name}.ipynb", as_version=4).cells
    for number, cell in enumerate(cells):
        if cell.cell_type == "code":
            page.run(cell.source, number)
            if "parameters" in cell.metadata.get("tags", []):
                page.names |= {parameter: value for parameter, value in given.items() if parameter in page.names}
    return page


def text_of(shown: Any) -> str:
    """What is shown, as the page has it: HTML where there is some."""
    return shown._repr_html_() if hasattr(shown, "_repr_html_") else repr(shown)
