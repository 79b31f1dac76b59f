"""Figures that a reader turns: Bokeh's, without a kernel, each with a static twin for print and where scripts are off.

What a figure computes in the browser stands in `callbacks/`, in JavaScript; `loss_dial.js` repeats closed forms of
`lsr_core.losses`, and a test holds the one against the other.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bokeh.document import Document
from bokeh.embed import json_item
from bokeh.events import DocumentReady
from bokeh.layouts import column, row
from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    CustomJSTickFormatter,
    Div,
    FactorRange,
    Select,
    Slider,
    Span,
    UIElement,
    Whisker,
)
from bokeh.palettes import Blues9
from bokeh.plotting import figure as plot
from bokeh.transform import linear_cmap
from markupsafe import Markup
from torch import Tensor

from lsr_core import losses, objective
from lsr_core.errors import require
from lsr_core.objectives import Batch, Fixed
from lsr_core.run import Run

from . import figures, pages
from .arms import RUNGS
from .pages import HtmlOutput
from .results import MEASURES, Results

CLASSES = 10
EXAMPLE_TEACHER = (6.0, 4.0, 1.5, 1.0, 0.5, 0.0, 0.0, -0.5, -1.0, -1.5)  # logits: sure, and one class is similar
CORRECT = 0.99  # of the virtual teacher
GAPS = np.linspace(-2, 14, 81)  # the student's logit gap

_CALLBACKS = Path(__file__).with_name("callbacks")
_COLOURS = figures.PALETTE.as_hex()
_MARKERS = ["circle", "square", "triangle", "diamond", "inverted_triangle", "plus", "cross"]
_ZERO = {"location": 0, "line_color": "#888888"}


def dialled(*, epsilon: float, alpha: float, temperature: float, share: float, gap: float) -> dict[str, Fixed]:
    """The methods of the loss dial by name, each with those of the dial's constants that it has."""
    softened = {"alpha": alpha, "temperature": temperature}
    return {
        "cross-entropy": objective("cross-entropy"),
        "LSR": objective("lsr", epsilon=epsilon),
        "LsrKD": objective("lsrkd", **softened),
        "TC, share β": objective("lsrkd-tc-share", share=share, **softened),
        "TC, gap G": objective("lsrkd-tc", gap=gap, **softened),
        "Tf-KD_reg": objective("tf-kd-reg", correct=CORRECT, **softened),
        "KD": objective("kd", **softened),
    }


def soft_label(term: Fixed) -> Tensor:
    """What a student is shown for an image of the first class, `[K]`: label and teacher, mixed as h to 1 − h."""
    hard_weight, _ = term.weights(CLASSES)
    return hard_weight * torch.eye(CLASSES).double()[0] + (1 - hard_weight) * _taught(term)


def gradient(term: Fixed, gap: float) -> float:
    """A loss's gradient for the right class's logit, where that lies `gap` above all others."""
    logits = (gap * torch.eye(CLASSES).double()[:1]).requires_grad_()
    loss = term(logits, torch.tensor([0]), _example_teacher(term)).total
    return float(torch.autograd.grad(loss, logits)[0][0, 0])


def optimum(term: Fixed) -> float:
    """The logit gap at which the loss of one image is least, among students that tell no wrong class from another."""
    hard_weight, soft_weight = term.weights(CLASSES)
    weights = {"hard_weight": hard_weight, "soft_weight": soft_weight, "temperature": term.student_temperature}
    return losses.optimum_gap(**weights, share=float(_taught(term)[0]), classes=CLASSES)


def _taught(term: Fixed) -> Tensor:
    """The teacher's distribution for an image of the first class, `[K]`."""
    batch = Batch(torch.zeros(1, CLASSES).double(), torch.tensor([0]), _example_teacher(term))
    return term.scores(batch).softmax(-1)[0]


def _example_teacher(term: Fixed) -> Tensor | None:
    return torch.tensor([EXAMPLE_TEACHER]).double() if term.needs_teacher else None


def loss_dial(caption: str, **constants: float) -> HtmlOutput:
    """All methods' soft labels, gradients and optima under sliders, which begin at these constants of `dialled`."""
    terms = dialled(**constants)
    sliders, names = _sliders(**constants), list(terms)
    lines = {name: ColumnDataSource({"gap": GAPS, "gradient": np.zeros(len(GAPS))}) for name in names}
    optima = ColumnDataSource({"gap": [0.0], "gradient": [0.0], "colour": ["black"]})
    cells, place = (
        ColumnDataSource(_cells(names), name="soft labels"),
        Span(dimension="height", line_dash="dashed", line_color="#888888"),
    )
    printed = _printed()
    shown = {"lines": lines, "optima": optima, "cells": cells, "place": place, "printed": printed}
    given = {"sliders": sliders, "teacher": EXAMPLE_TEACHER, "correct": CORRECT, "colours": _COLOURS}
    panels = _beside(_gradients(lines, optima, place), _soft_labels(cells, names))
    curves = {name: [gradient(term, gap) for gap in GAPS] for name, term in terms.items()}
    twin = pages.show(figures.gradients_by_gap(GAPS, curves), caption, "A line a method: gradient against logit gap.")
    return _turning("loss_dial", [_beside(*sliders.values()), panels, printed], twin, sliders.values(), shown | given)


def _sliders(*, epsilon: float, alpha: float, temperature: float, share: float, gap: float) -> dict[str, Slider]:
    return {
        "epsilon": Slider(title="ε of LSR", start=0, end=1, step=0.01, value=epsilon),
        "alpha": Slider(title="α of the others", start=0, end=1, step=0.01, value=alpha),
        "temperature": Slider(title="temperature τ", start=1, end=20, step=0.5, value=temperature),
        "share": Slider(title="share β", start=1 / CLASSES, end=0.99, step=0.01, value=share),
        "gap": Slider(title="gap G", start=0, end=12, step=0.1, value=gap),
        "student": Slider(title="the student's gap", start=GAPS[0], end=GAPS[-1], step=0.1, value=2),
    }


def _cells(names: Sequence[str]) -> dict[str, list]:
    """The places of the soft labels, still empty: a row a method, a column a class."""
    places = [(name, str(k)) for name in names for k in range(CLASSES)]
    methods, classes = map(list, zip(*places, strict=True))
    return {"method": methods, "class": classes, "mass": [0.0] * len(places), "text": [""] * len(places)}


def _gradients(lines: Mapping[str, ColumnDataSource], optima: ColumnDataSource, place: Span) -> UIElement:
    panel = _panel(x_axis_label="the student's logit gap", y_axis_label="gradient on the right class's logit")
    for colour, (name, source) in zip(_COLOURS, lines.items(), strict=False):
        panel.line("gap", "gradient", source=source, color=colour, line_width=2, legend_label=name)
    panel.scatter("gap", "gradient", source=optima, color="colour", size=9)
    panel.add_layout(Span(dimension="width", **_ZERO))
    panel.add_layout(place)
    return _legend_below(panel)


def _soft_labels(cells: ColumnDataSource, names: Sequence[str]) -> UIElement:
    classes = [str(k) for k in range(CLASSES)]
    panel = _panel(x_axis_label="class, 0 is right", x_range=FactorRange(*classes), y_range=FactorRange(*names[::-1]))
    fill = linear_cmap("mass", Blues9[:2:-1], 0, 1)
    panel.rect("class", "method", 0.96, 0.9, source=cells, fill_color=fill, line_color=None)
    centred = {"text_align": "center", "text_baseline": "middle", "text_font_size": "11px", "text_color": "black"}
    panel.text("class", "method", "text", source=cells, **centred)
    panel.grid.visible = False
    return panel


def ladder_explorer(
    results: Results, ladders: Mapping[str, Mapping[str, Run]], metrics: Sequence[str], caption: str, alt: str
) -> HtmlOutput:
    """Every seed's paired difference on each rung, with mean and interval, by ladder, metric and control."""
    controls = ["cross-entropy", *RUNGS]
    chosen = {
        "ladder": _select("students of", list(ladders)),
        "metric": _select("metric", [(metric, MEASURES[metric].change) for metric in metrics]),
        "control": _select("difference to", controls),
    }
    differences = {
        name: {metric: _differences(results, arms, metric, controls) for metric in metrics}
        for name, arms in ladders.items()
    }
    seeds, means = (
        ColumnDataSource({"rung": list(RUNGS), **dict.fromkeys(columns, [0.0] * len(RUNGS))})
        for columns in (["difference"], ["mean", "low", "high"])
    )
    panel, printed = _clouds(seeds, means), _printed()
    shown = {"seeds": seeds, "means": means, "axis": panel.yaxis[0], "printed": printed}
    given = {"chosen": chosen, "differences": differences, "units": {m: MEASURES[m].change for m in metrics}}
    twin = pages.show(figures.ladder(results, ladders), caption, alt)
    parts = [_beside(*chosen.values()), panel, printed]
    return _turning("ladder_explorer", parts, twin, chosen.values(), shown | given)


def _select(title: str, options: Sequence[str | tuple[str, str]]) -> Select:
    """A choice that begins with its first option."""
    first = options[0] if isinstance(options[0], str) else options[0][0]
    return Select(title=title, options=options, value=first, stylesheets=[".bk-input { color: black; }"])


def _differences(
    results: Results, arms: Mapping[str, Run], metric: str, controls: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """From control and rung to all seeds' differences in the metric's unit, and their effect, also as text."""
    measure = MEASURES[metric]
    found: dict[str, dict[str, dict[str, Any]]] = {control: {} for control in controls}
    for control in controls:
        for rung in (rung for rung in RUNGS if rung != control):
            effect = results.effect(arms[rung], arms[control], metric)
            seeds = measure.scale * results.differences(arms[rung], arms[control], metric)
            shown = {"seeds": seeds.round(measure.digits + 1).tolist(), "n": effect.n, "text": effect.text}
            found[control][rung] = shown | {"effect": [effect.mean, effect.low, effect.high]}
    return found


def _clouds(seeds: ColumnDataSource, means: ColumnDataSource) -> UIElement:
    panel = _panel(x_axis_label="rung", y_axis_label="difference", x_range=FactorRange(*RUNGS))
    panel.add_layout(Span(dimension="width", **_ZERO))
    panel.scatter("rung", "difference", source=seeds, color=_COLOURS[0], alpha=0.45, size=5)
    line = {"line_color": _COLOURS[3], "line_width": 2}
    panel.add_layout(Whisker(base="rung", lower="low", upper="high", source=means, **line))
    panel.scatter("rung", "mean", source=means, color=_COLOURS[3], marker="diamond", size=12)
    return panel


def feature_plane(results: Results, arms: Mapping[float, Run], caption: str, alt: str) -> HtmlOutput:
    """Features of three classes on the plane of their templates, ε by slider, from results of `PROJECTION_SEED`.

    Records hold the features of the last epoch.
    """
    require(len(arms) >= 2, f"arms has {len(arms)} value(s) of ε; a slider needs two")
    points = {part: [_points(results, arm, part) for arm in arms.values()] for part in ("train", "test")}
    names = CustomJSTickFormatter(args={"epsilons": list(arms)}, code="return epsilons[tick].toString()")
    chosen = Slider(title="ε", start=0, end=len(arms) - 1, step=1, value=0, format=names)
    titles = {"train": "training images", "test": "test images"}
    sources = {part: ColumnDataSource(places[0], name=titles[part]) for part, places in points.items()}
    panels = _beside(*(_plane(sources[part], points[part], title) for part, title in titles.items()))
    given = {"chosen": chosen, "points": points, "sources": sources}
    ends = {f"ε = {epsilon:g}": arm for epsilon, arm in arms.items() if epsilon in (min(arms), max(arms))}
    twin = pages.show(figures.projection(results, ends), caption, alt)
    return _turning("feature_plane", [chosen, panels], twin, [chosen], given)


def _points(results: Results, arm: Run, part: str) -> dict[str, list]:
    (record,) = results.records(arm)
    x, y, labels = np.array(record.projection[part]).T
    order = {label: place for place, label in enumerate(np.unique(labels))}
    marks = [(f"class {label:g}", _COLOURS[order[label]], _MARKERS[order[label]]) for label in labels]
    classes, colours, markers = map(list, zip(*marks, strict=True))
    return {"x": x.tolist(), "y": y.tolist(), "class": classes, "colour": colours, "marker": markers}


def _plane(source: ColumnDataSource, places: Sequence[Mapping[str, list]], title: str) -> UIElement:
    """One part's points, on axes that hold the points of every ε."""
    reach = 1.05 * max(abs(value) for found in places for axis in ("x", "y") for value in found[axis])
    panel = _panel(x_axis_label=title, x_range=(-reach, reach), y_range=(-reach, reach), match_aspect=True)
    panel.scatter("x", "y", source=source, color="colour", marker="marker", size=6, alpha=0.7, legend_group="class")
    return _legend_below(panel)


def _panel(**options: Any) -> plot:
    """An empty panel, as wide as its place; its colours are the page's, see `study.css`."""
    return plot(height=280, min_width=280, sizing_mode="stretch_width", tools="", toolbar_location=None, **options)


def _legend_below(panel: plot) -> plot:
    panel.add_layout(panel.legend[0], "below")
    style = {"background_fill_alpha": 0, "border_line_color": None, "label_text_font_size": "11px", "glyph_width": 12}
    panel.legend.update(ncols=3, padding=2, **style)
    return panel


def _printed() -> Div:
    """A place for numbers, as wide as the figure."""
    style = ".bk-clearfix { width: 100%; } td, th { padding-right: 1em; }"
    return Div(sizing_mode="stretch_width", stylesheets=[style])


def _beside(*parts: UIElement) -> UIElement:
    """Parts side by side, below one another where the page is narrow."""
    for part in parts:
        part.styles = {"flex": "1 1 16em"}
    return row(*parts, sizing_mode="stretch_width", styles={"flex-wrap": "wrap"})


def _turning(
    name: str, parts: list[UIElement], twin: HtmlOutput, turned: Iterable[Slider | Select], arguments: dict[str, Any]
) -> HtmlOutput:
    """A figure whose callback runs once it is drawn and when something is turned, and its twin until then."""
    update = CustomJS(args=arguments, code=(_CALLBACKS / f"{name}.js").read_text(encoding="utf-8"))
    for control in turned:
        control.js_on_change("value", update)
    document = Document(title=name)
    document.add_root(column(*parts, sizing_mode="stretch_width"))
    document.js_on_event(DocumentReady, update)
    item = json.dumps(json_item(document.roots[0], name)).replace("<", "\\u003c")
    place = Markup('<div class="turned" id="{}"></div><script type="application/json">{}</script>')
    figure = place.format(name, Markup(item)) + Markup('<div class="twin">{}</div>').format(Markup(twin._repr_html_()))
    return HtmlOutput(Markup('<div class="turning">{}</div>').format(figure), repr(twin))
