"""The house: a figure of the packages' modules, drawn from their imports."""

from collections.abc import Sequence

import grimp
import networkx as nx
import numpy as np
from matplotlib.figure import Figure

from lsr_core.errors import require

from .figures import PALETTE, WIDE, blank

_PACKAGES = {"lsr_core": (PALETTE[0], 2.4), "study": (PALETTE[1], 6.0)}  # their colours and centres, in inches


def house(way: Sequence[str] = ()) -> Figure:
    """The modules of both packages, each below all that import it, and a way through them: a line that joins `way`.

    An import that others imply is not drawn. Modules are named as `study.cli`; `InputError` is raised for an unknown
    one.
    """
    imports = _imports()
    places = _places(imports)
    for name in way:
        require(name in places, f"unknown module {name!r}; there are {', '.join(sorted(places))}")
    lowest = min(height for _, height in places.values())
    figure, (panel,) = blank(1, 1, width=WIDE, height=-lowest + 0.5)
    for edge in sorted(nx.transitive_reduction(imports).edges):
        panel.plot(*zip(*map(places.get, edge), strict=True), color="0.8", lw=0.8)
    panel.plot(*np.reshape([places[name] for name in way], (-1, 2)).T, color=PALETTE[3], lw=4)
    for name, place in places.items():
        package, _, module = name.partition(".")
        colour = PALETTE[3] if name in way else _PACKAGES[package][0]
        box = {"boxstyle": "round", "facecolor": "white", "edgecolor": colour, "linewidth": 2 if name in way else 1}
        panel.text(*place, module, ha="center", va="center", fontsize=7.5, bbox=box)
    for package, (colour, _) in _PACKAGES.items():
        panel.plot([], [], "s", mfc="white", color=colour, label=package)
    panel.legend(loc="upper left", frameon=False)
    panel.set(xlim=(0, 7.5), ylim=(lowest - 0.25, 0.25))
    panel.axis("off")
    return figure


def _imports() -> nx.DiGraph:
    """Which module or subpackage imports which, without private ones."""
    graph = grimp.build_graph(*_PACKAGES, cache_dir=None)
    imports = nx.DiGraph()
    for importer in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            above, below = (".".join(name.split(".")[:2]) for name in (importer, imported))
            if above != below and all("." in name and "._" not in name for name in (above, below)):
                imports.add_edge(above, below)
    return imports


def _places(imports: nx.DiGraph) -> dict[str, tuple[float, float]]:
    """Where each module stands, in inches: a row below the lowest that imports it, near the mean of those."""
    places: dict[str, tuple[float, float]] = {}
    for row, modules in enumerate(nx.topological_generations(imports)):
        for package, (_, centre) in _PACKAGES.items():
            own = [name for name in modules if name.startswith(package)]
            above = {name: [places[importer][0] for importer in imports.predecessors(name)] for name in own}
            own.sort(key=lambda name, above=above: (np.mean(above[name] or 0), name))
            widths = np.array([0.065 * len(name.partition(".")[2]) + 0.35 for name in own])
            at = centre - widths.sum() / 2 + widths.cumsum() - widths / 2
            places |= {name: (x, -0.4 * row) for name, x in zip(own, at, strict=True)}
    return places
