"""Every figure of the book, and how a figure or a table is shown with its caption."""

import base64
import io
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import IO, Any

import grimp
import matplotlib as mpl
import networkx as nx
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lsr_core import statistics
from lsr_core.errors import require
from lsr_core.losses import kl_divergence, optimum_gap
from lsr_core.objectives import describe
from lsr_core.run import Run
from lsr_core.statistics import CHECKED, CONTRADICTED, NEGLIGIBLE, PROVED, REFUTED, REPRODUCED, SUPPORTED, UNDECIDED
from lsr_core.teachers import VirtualTeacher

from . import published_records
from .arms import RUNGS
from .claims import CLAIMS
from .judging import NOT_TESTED, Judgement, board, judge_published, paper_vs_ours
from .plans import plan, planned
from .results import MEASURES, Effect, Results, effect_of
from .studies import QUICK, arms_by_setting
from .tables import records_table, table
from .tuning import BASELINE

Colour = tuple[float, float, float]
PALETTE: Sequence[Colour] = sns.color_palette("colorblind")
VERDICT_COLOURS = {
    REPRODUCED: PALETTE[2],
    SUPPORTED: PALETTE[2],
    PROVED: PALETTE[2],
    CHECKED: PALETTE[2],
    CONTRADICTED: PALETTE[3],
    REFUTED: PALETTE[3],
    NEGLIGIBLE: PALETTE[7],
    UNDECIDED: PALETTE[1],
    NOT_TESTED: PALETTE[5],
}
# What a reader must know of a study wherever its results stand.
_NOTES = {
    "desktop": " On CIFAR-100 its constants were chosen by single trials of half as many epochs, so a difference may "
    "be one of tuning."
}
_STYLE = {
    **sns.axes_style("whitegrid"),
    **sns.plotting_context("notebook", font_scale=0.8),
    "svg.hashsalt": "lsr",  # the same figure gives the same file
    "figure.constrained_layout.use": True,
}
_HOUSE = {"lsr_core": (PALETTE[0], 2.4), "study": (PALETTE[1], 6.0)}  # each package's colour and centre, in inches
_LEGEND_ROW = 60  # characters that fit side by side under a figure
_READABLE = 75  # pixels an inch of a figure, below which its text is too small


class HtmlOutput:
    """Something displayed in a notebook and in the book: HTML with a caption."""

    def __init__(self, content: str, plain: str) -> None:
        self._html, self._plain = str(content), plain  # plain text: pieces of `Markup` escape what they are joined with

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        return self._plain


def save(figure: Figure, file: str | IO[bytes]) -> None:
    """Write a figure as SVG; the same figure gives the same bytes."""
    with mpl.rc_context(_STYLE):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})


def show(figure: Figure, caption: str, alt: str) -> HtmlOutput:
    """A figure as SVG with a caption that says what to see, and a text for those who do not see it."""
    buffer = io.BytesIO()
    save(figure, buffer)
    source = "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
    readable = f"min-width:{_READABLE * figure.get_figwidth():.0f}px;max-width:100%;height:auto"
    image = Markup('<img src="{}" alt="{}" style="{}">').format(source, alt, readable)
    return HtmlOutput(_figure(image, caption), f"{alt}\n{caption}")


def show_table(cells: pd.DataFrame, caption: str) -> HtmlOutput:
    """A table that scrolls sideways where it is too wide for the page; links in it are `Markup`."""
    shown = cells.map(escape).rename_axis(columns=cells.index.name, index=None)
    body = Markup(shown.to_html(classes="study", border=0, escape=False))
    return HtmlOutput(_figure(body, caption), f"{cells.to_string()}\n{caption}")


def _figure(content: Markup, caption: str) -> Markup:
    """Content that scrolls sideways where the page is too narrow, above its caption."""
    scrolling = Markup('<div style="overflow-x:auto">{}</div>').format(content)
    return Markup('<figure style="margin:1em 0">{}<figcaption>{}</figcaption></figure>').format(scrolling, caption)


def show_board(judgements: Sequence[Judgement], caption: str) -> HtmlOutput:
    """The verdict board, each claim linked to its chapter in the book."""
    return show_table(board(judgements), caption)


def show_published_claims(live: Sequence[Judgement], chapter: str) -> HtmlOutput:
    """A chapter's claims and arms in each published study beside what the papers print, all effects in one figure."""
    studies = {preset: judge_published(preset, chapter) for preset in CLAIMS if preset != QUICK.name}
    shown = [part for preset, others in studies.items() if others for part in _of_study(preset, others, chapter)]
    forest_of_all = show(
        forest([*live, *(j for others in studies.values() for j in others)]),
        "This chapter's claims in every study: effects in margins δ with 95 % intervals. Compare where each claim lies "
        "on digits, on other networks and on photographs.",
        "A row for each claim with its effect and interval, coloured by verdict.",
    )
    return _joined([*shown, forest_of_all, *_not_yet_run(chapter)])


def _not_yet_run(chapter: str) -> list[HtmlOutput]:
    """The planned studies of whose arms in a chapter there are no records."""
    waiting = [name for name in planned() if plan(name).arms.get(chapter) and not published_records.lines(name)]
    text = f"Planned for this chapter and not yet run: {', '.join(waiting)}."
    return [HtmlOutput(Markup("<p>{}</p>").format(text), text)] if waiting else []


def _of_study(preset: str, judgements: Sequence[Judgement], chapter: str) -> Iterator[HtmlOutput]:
    """What the papers print beside a study's means, and where it has a plan, its arms under a line that opens them."""
    yield show_table(
        paper_vs_ours(judgements),
        f"What the papers print, and what was measured here in the study {preset}: means over n seeds and their "
        f"paired difference, positive where the claim says so, with 95 % intervals.{_NOTES.get(preset, '')} Each mean "
        "links to the first of its runs.",
    )
    if preset in planned():
        yield _opened(f"The arms of {preset} in this chapter", _joined(_arm_tables(preset, chapter)))


def _arm_tables(preset: str, chapter: str) -> list[HtmlOutput]:
    """The published arms of a chapter beside cross-entropy, a table a setting."""
    own, tables = plan(preset), []
    for setting, found in arms_by_setting(preset).items():
        names = [name for name in dict.fromkeys([BASELINE, *own.arms.get(chapter, {})]) if name in found]
        _, arms = published_records.named(preset, [own.name_in(setting, name) for name in names])
        if own.name_in(setting, BASELINE) in arms and len(arms) > 1:
            caption = f"{setting.place}, study {preset}: means over its seeds, and paired differences to {BASELINE}."
            tables.append(show_published(preset, list(arms), ["accuracy"], caption))
    return tables


def _joined(parts: Sequence[HtmlOutput]) -> HtmlOutput:
    return HtmlOutput("".join(part._repr_html_() for part in parts), "\n".join(map(repr, parts)))


def _opened(title: str, content: HtmlOutput) -> HtmlOutput:
    """Content under a line that opens it."""
    inside = Markup("<details><summary>{}</summary>{}</details>").format(title, Markup(content._repr_html_()))
    return HtmlOutput(inside, f"{title}\n{content!r}")


def show_published(preset: str, names: Sequence[str], metrics: Sequence[str], caption: str) -> HtmlOutput:
    """Published arms, the control first: each with its constants, linked to the first of its runs."""
    results, arms = published_records.named(preset, names)
    cells = table(results, arms, names[0], metrics).assign(constants=list(map(_constants, arms.values())))
    linked = [published_records.link(preset, arm, label) for label, arm in arms.items()]
    return show_table(cells.set_axis(pd.Index(linked, name="arm")), caption)


def _constants(arm: Run) -> str:
    """An arm's constants in one line."""
    own = [f"{name} {value:g}" for name, value in describe(arm.objective).items() if isinstance(value, float | int)]
    return ", ".join([*own, f"rate {arm.schedule.learning_rate:g}, decay {arm.schedule.weight_decay:g}"])


def show_list(sentences: Sequence[str], title: str) -> HtmlOutput:
    """Sentences under a title."""
    items = Markup("").join(Markup("<li>{}</li>").format(sentence) for sentence in sentences)
    listed = Markup("<p><strong>{}</strong></p><ul>{}</ul>").format(title, items)
    return HtmlOutput(listed, "\n".join([title, *sentences]))


def show_csv(results: Results, name: str) -> HtmlOutput:
    """A link that hands out the records of a chapter as CSV, from within the page."""
    records = records_table(results)
    content = base64.b64encode(records.to_csv(index=False).encode()).decode()
    label = f"{name}.csv: the {len(records)} runs behind this page"
    return HtmlOutput(f'<a download="{name}.csv" href="data:text/csv;base64,{content}">{label}</a>', label)


def penalties() -> Figure:
    """The soft term against the logit gap, for τ = 1 to 20: linear at τ = 1, quadratic as τ grows (K = 10)."""
    gap = torch.linspace(-30, 30, 301, dtype=torch.float64)
    logits = torch.nn.functional.pad(gap[:, None], (0, 9))
    uniform = torch.full_like(logits, 0.1)
    figure, (left, right) = _panels(1, 2)
    for colour, tau in zip(PALETTE, (1.0, 2.0, 4.0, 20.0), strict=False):
        left.plot(gap, tau**2 * kl_divergence(uniform, logits, tau), color=colour, label=f"τ = {tau:g}")
    left.plot(gap, logits.var(-1, correction=0) / 2, "k--", label="half the logit variance")
    left.set(xlabel="logit of one class above the others", ylabel="τ² KL(u‖p_τ), nats")
    left.legend(frameon=False)
    _optimum_gaps(right)
    return figure


def _optimum_gaps(axes: Axes) -> None:
    taus = np.geomspace(1, 20, 40)
    for colour, epsilon in zip(PALETTE, (0.05, 0.1, 0.3), strict=False):
        for style, scaled in (("-", True), ("--", False)):
            soft = [epsilon * tau**2 if scaled else epsilon for tau in taus]
            fixed = {"hard_weight": 1 - epsilon, "share": 0.1, "classes": 10}
            gaps = [optimum_gap(soft_weight=s, temperature=tau, **fixed) for s, tau in zip(soft, taus, strict=True)]
            axes.plot(taus, gaps, style, color=colour, label=f"α = {epsilon}" if scaled else None)
    axes.plot([], [], "k--", label="without τ²")
    axes.set(ylabel="logit gap at the optimum")
    _temperature_axis(axes, (1, 2, 4, 8, 20))


def gradients_by_gap(gaps: Sequence[float], gradients: Mapping[str, Sequence[float]]) -> Figure:
    """Gradients on the right class's logit against the student's logit gap: a line a method."""
    figure, (panel,) = _panels(1, 1)
    for colour, (name, line) in zip(PALETTE, gradients.items(), strict=False):
        panel.plot(gaps, line, color=colour, label=name)
    panel.axhline(0, color="0.4", lw=0.8)
    panel.set(xlabel="the student's logit gap", ylabel="gradient on the right class's logit")
    return _with_legend(figure)


def conventions(weights: Mapping[float, pd.Series], correct: float, classes: Sequence[int]) -> Figure:
    """Weight of the soft gradient by convention and τ; K times the virtual teacher's share of the right class by τ."""
    figure, (left, right) = _panels(1, 2, height=4)
    names = list(reversed(next(iter(weights.values())).index))
    for colour, marker, (tau, weight) in zip(PALETTE, "os^D", weights.items(), strict=False):
        left.plot(weight[names], range(len(names)), marker, color=colour, label=f"τ = {tau:g}")
    left.axvline(1, color="0.4", lw=0.8)
    left.set_yticks(range(len(names)), labels=names)
    left.set(xscale="log", xlabel="pull of the soft part, Hinton = 1")
    left.legend(frameon=False)
    taus = np.geomspace(1, 100, 60)
    for colour, k in zip(PALETTE, classes, strict=False):
        for reading, style in (("power", "-"), ("logits", "--")):
            shares = [k * VirtualTeacher(correct, reading).share(k, tau) for tau in taus]
            right.plot(taus, shares, style, color=colour, label=f"K = {k}" if style == "-" else None)
    right.plot([], [], "k--", label="as released")
    right.set(yscale="log", ylabel="K × share of the right class")
    _temperature_axis(right, (1, 4, 20, 100))
    return figure


def curves_by_constant(
    results: Results,
    arms: Mapping[str, Mapping[float, Run]],
    control: Mapping[str, Run],
    metrics: Sequence[str],
    label: str,
) -> Figure:
    """Paired difference to the control against a constant: a line a group, a panel a metric, 95 % intervals."""
    figure, panels = _panels(1, len(metrics))
    for panel, metric in zip(panels, metrics, strict=True):
        _draw_differences(panel, results, arms, control, metric)
        panel.set(xlabel=label)
    return _with_legend(figure)


def ladder(results: Results, *kinds: Mapping[str, Mapping[str, Run]]) -> Figure:
    """Each rung's paired gain over cross-entropy: a panel a kind of teachers, a line a teacher."""
    figure, panels = _panels(len(kinds), 1, height=2.6)
    colours = iter(PALETTE)
    for panel, ladders in zip(panels, kinds, strict=True):
        lines = {name: {rung: arms[rung] for rung in RUNGS} for name, arms in ladders.items()}
        baselines = {name: arms["cross-entropy"] for name, arms in ladders.items()}
        _draw_differences(panel, results, lines, baselines, "accuracy", islice(colours, len(lines)))
    panel.set(xlabel="rung: what of the teacher is kept")
    return _with_legend(figure)


def _draw_differences(
    panel: Axes,
    results: Results,
    arms: Mapping[str, Mapping[float | str, Run]],
    control: Mapping[str, Run],
    metric: str,
    colours: Iterable[Colour] = PALETTE,
) -> None:
    """Lines of paired differences with 95 % intervals, and the margin."""
    measure = MEASURES[metric]
    effects = {
        name: {constant: results.effect(arm, control[name], metric) for constant, arm in line.items()}
        for name, line in arms.items()
    }
    _draw_margin(panel, measure.margin)
    _draw_lines(panel, effects, 0.06, colours, ms=4)
    panel.set(ylabel=f"Δ {measure.change}")


def by_setting(results: Results, arms: Mapping[str, Mapping[str, Run]], metrics: Sequence[str]) -> Figure:
    """Means with 95 % intervals, a group of points a setting, a colour a method, a panel a metric."""
    figure, panels = _panels(1, len(metrics))
    for panel, metric in zip(panels, metrics, strict=True):
        measure = MEASURES[metric]
        means = {
            name: {setting: effect_of(measure.scale * results.values(arm, metric)) for setting, arm in line.items()}
            for name, line in arms.items()
        }
        _draw_lines(panel, means, 0.12, PALETTE, ls="")
        panel.set(xlabel="Bayes accuracy", ylabel=measure.label, ylim=(0, None))
    return _with_legend(figure)


def gains_by_teacher(
    results: Results, lines: Mapping[str, Mapping[float, Run]], control: Run, teacher: Mapping[float, np.ndarray]
) -> Figure:
    """Students' paired gain over the control against their teacher's accuracy `[n]`: a line a rung, 95 % intervals."""
    figure, (panel,) = _panels(1, 1)
    measure = MEASURES["accuracy"]
    _draw_margin(panel, measure.margin)
    for colour, marker, (name, line) in zip(PALETTE, "os^D", lines.items(), strict=False):
        gains = [results.effect(arm, control, "accuracy") for arm in line.values()]
        at = [100 * teacher[stage].mean() for stage in line]
        _draw_intervals(panel, at, gains, color=colour, marker=marker, ms=4, label=name)
    panel.set(xlabel="teacher's test accuracy, %", ylabel=f"Δ {measure.change}")
    return _with_legend(figure)


def gains_by_network(results: Results, networks: Mapping[str, Mapping[str, Run]], method: str) -> Figure:
    """A method's paired gain over cross-entropy against cross-entropy's own accuracy: a point a network.

    Both are means with 95 % intervals.
    """
    figure, (panel,) = _panels(1, 1)
    measure = MEASURES["accuracy"]
    _draw_margin(panel, measure.margin)
    for colour, marker, (name, arms) in zip(PALETTE, "os^DvP<>X*", networks.items(), strict=False):
        control = arms["cross-entropy"]
        at, low, high, *_ = effect_of(measure.scale * results.values(control, "accuracy"))
        style = {"color": colour, "marker": marker, "ls": "", "label": name, "xerr": [[at - low], [high - at]]}
        _draw_intervals(panel, [at], [results.effect(arms[method], control, "accuracy")], **style)
    panel.set(xlabel="cross-entropy's test accuracy, %", ylabel=f"Δ {measure.change}")
    return _with_legend(figure)


def along_training(results: Results, arms: Mapping[str, Run], metric: str, label: str) -> Figure:
    """A curve of the records against the epoch, a line an arm: means with 95 % intervals over seeds."""
    figure, (panel,) = _panels(1, 1)
    for colour, (name, arm) in zip(PALETTE, arms.items(), strict=False):
        records = [record for record in results.records(arm) if record.diverged_at is None]
        values = np.array([record.curves[metric] for record in records], dtype=float)
        points = np.isfinite(values).sum(0) >= 2  # the first has nothing before it
        summed = [statistics.mean_interval(column[np.isfinite(column)]) for column in values.T[points]]
        mean, low, high = np.array(summed).T
        epochs = np.array(records[0].curves["epoch"])[points]
        panel.plot(epochs, mean, "o-", ms=4, color=colour, label=name)
        panel.fill_between(epochs, low, high, color=colour, alpha=0.25, lw=0)
    panel.set(xlabel="epoch", ylabel=label)
    return _with_legend(figure)


def projection(results: Results, arms: Mapping[str, Run]) -> Figure:
    """Features of three classes on the plane of their templates, a column an arm, from results of `PROJECTION_SEED`."""
    figure, panels = _panels(2, len(arms), height=2.6)
    for panel, (part, (name, arm)) in zip(panels, product(("train", "test"), arms.items()), strict=True):
        (record,) = results.records(arm)
        x, y, labels = np.array(record.projection[part]).T
        for colour, marker, label in zip(PALETTE, "os^", np.unique(labels), strict=False):
            own = labels == label
            panel.plot(x[own], y[own], marker, ms=4, alpha=0.7, mew=0, color=colour, label=f"class {label:g}")
        panel.set_aspect("equal", "datalim")
        panel.set(title=f"{name}, {part.replace('train', 'training')} images")
    return _with_legend(figure)


def heat(cells: pd.DataFrame, label: str) -> Figure:
    """A table of numbers as coloured cells, zero in the middle of the colours."""
    figure, (panel,) = _panels(1, 1, width=6)
    reach = float(np.abs(cells.to_numpy()).max()) or 1.0
    colours = {"cmap": "vlag_r", "vmin": -reach, "vmax": reach, "cbar_kws": {"label": label}}
    with mpl.rc_context(_STYLE):
        sns.heatmap(cells, annot=True, fmt="+.2f", ax=panel, **colours)
    panel.set(xlabel=cells.columns.name, ylabel="")
    panel.tick_params(axis="y", rotation=0)
    return figure


def forest(judgements: Sequence[Judgement]) -> Figure:
    """The claims' effects in units of their margin, with 95 % intervals, coloured by verdict."""
    tested = [j for j in judgements if j.differences][::-1]
    figure, (panel,) = _panels(1, 1, height=0.31 * len(tested) + 1.6)
    panel.set_xscale("symlog", linthresh=1)
    _draw_margin(panel, 1, across=True)
    for row, judgement in enumerate(tested):
        d, margin = judgement.differences, judgement.claim.margin
        effect = np.array([d.mean, *d.interval95]) / margin
        colour = VERDICT_COLOURS[judgement.verdict.word]
        _draw_intervals(panel, [row], [effect], across=True, color=colour, marker="o", ms=5, capsize=3)
    for word, colour in VERDICT_COLOURS.items():
        if any(j.verdict.word == word for j in tested):
            panel.plot([], [], "o-", color=colour, label=word)
    whole = [j.claim.text.replace(", n = ", ",\xa0n\xa0=\xa0") for j in tested]  # a setting is not torn apart
    panel.set_yticks(range(len(tested)), labels=[textwrap.fill(text, 60) for text in whole], fontsize=8)
    low, high = panel.get_xlim()
    steps = (1, 3) if max(-low, high) < 10 else (1, 10, 100)
    ticks = [tick for tick in (*(-step for step in steps[::-1]), 0, *steps) if low <= tick <= high]
    panel.set_xticks(ticks, labels=[f"{tick:+d}".replace("-", "−") if tick else "0" for tick in ticks])
    panel.minorticks_off()
    panel.set(xlabel="effect in margins δ")
    return _with_legend(figure)


def four_verdicts() -> Figure:
    """How to read a verdict: four drawn intervals, one of each word."""
    drawn = ((UNDECIDED, 0.9, 1.4), (NEGLIGIBLE, 0.15, 0.5), (CONTRADICTED, -1.8, 0.7), (REPRODUCED, 1.9, 0.6))
    figure, (panel,) = _panels(1, 1, width=6.5, height=2.4)
    _draw_margin(panel, 1, across=True)
    for row, (word, mean, reach) in enumerate(drawn):
        panel.errorbar(mean, row, xerr=reach, color=VERDICT_COLOURS[word], marker="o", ms=7, lw=2, capsize=4)
    panel.set_yticks(range(len(drawn)), labels=[word for word, *_ in drawn])
    panel.set_xticks([-1, 0, 1], labels=["−δ", "0", "+δ"])
    panel.set(xlabel="effect, positive where the claim says so", xlim=(-3, 3), ylim=(-0.6, 3.6))
    return figure


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
    figure, (panel,) = _panels(1, 1, height=-lowest + 0.5)
    for edge in sorted(nx.transitive_reduction(imports).edges):
        panel.plot(*zip(*map(places.get, edge), strict=True), color="0.8", lw=0.8)
    panel.plot(*np.reshape([places[name] for name in way], (-1, 2)).T, color=PALETTE[3], lw=4)
    for name, place in places.items():
        package, _, module = name.partition(".")
        colour = PALETTE[3] if name in way else _HOUSE[package][0]
        box = {"boxstyle": "round", "facecolor": "white", "edgecolor": colour, "linewidth": 2 if name in way else 1}
        panel.text(*place, module, ha="center", va="center", fontsize=7.5, bbox=box)
    for package, (colour, _) in _HOUSE.items():
        panel.plot([], [], "s", mfc="white", color=colour, label=package)
    panel.legend(loc="upper left", frameon=False)
    panel.set(xlim=(0, 7.5), ylim=(lowest - 0.25, 0.25))
    panel.axis("off")
    return figure


def _imports() -> nx.DiGraph:
    """Which module or subpackage imports which, without private ones."""
    graph = grimp.build_graph(*_HOUSE, cache_dir=None)
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
        for package, (_, centre) in _HOUSE.items():
            own = [name for name in modules if name.startswith(package)]
            above = {name: [places[importer][0] for importer in imports.predecessors(name)] for name in own}
            own.sort(key=lambda name, above=above: (np.mean(above[name] or 0), name))
            widths = np.array([0.065 * len(name.partition(".")[2]) + 0.35 for name in own])
            at = centre - widths.sum() / 2 + widths.cumsum() - widths / 2
            places |= {name: (x, -0.4 * row) for name, x in zip(own, at, strict=True)}
    return places


def _panels(rows: int, columns: int, width: float = 7.5, height: float = 3.2) -> tuple[Figure, np.ndarray]:
    """A figure and its panels, row by row; `height` is a row's."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height * rows))
        return figure, figure.subplots(rows, columns, squeeze=False).ravel()


def _with_legend(figure: Figure) -> Figure:
    """One legend for all panels, below them, with each name once."""
    shown = {}
    for panel in figure.axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    columns = 4 if sum(map(len, shown)) <= _LEGEND_ROW else 2
    figure.legend(shown.values(), shown, frameon=False, loc="outside lower center", ncols=min(len(shown), columns))
    return figure


def _draw_lines(
    panel: Axes,
    lines: Mapping[str, Mapping[float | str, Effect]],
    step: float,
    colours: Iterable[Colour],
    **style: Any,
) -> None:
    """Lines of means with their intervals, a place a constant, side by side where they would lie on each other."""
    for shift, (colour, (name, line)) in enumerate(zip(colours, lines.items(), strict=False)):
        at = np.arange(len(line)) + step * (shift - (len(lines) - 1) / 2)
        _draw_intervals(panel, at, line.values(), color=colour, marker="o", label=name, **style)
    panel.set_xticks(range(len(line)), labels=[c if isinstance(c, str) else f"{c:g}" for c in line])


def _draw_intervals(
    panel: Axes, at: Sequence[float], effects: Iterable[Sequence[float]], *, across: bool = False, **style: Any
) -> None:
    """Means with their intervals, each a sequence that begins with mean, low and high, upwards or `across`."""
    mean, low, high = np.array([effect[:3] for effect in effects]).T
    reach = {"xerr" if across else "yerr": [mean - low, high - mean]}
    panel.errorbar(*((mean, at) if across else (at, mean)), **reach, **{"capsize": 2} | style)


def _draw_margin(panel: Axes, margin: float, *, across: bool = False) -> None:
    """The margin around zero, of effects that are drawn upwards or `across`."""
    span, line = (panel.axvspan, panel.axvline) if across else (panel.axhspan, panel.axhline)
    span(-margin, margin, color="0.9", zorder=0)
    line(0, color="0.4", lw=0.8)


def _temperature_axis(panel: Axes, ticks: Sequence[int]) -> None:
    """A logarithmic axis of temperatures."""
    panel.set(xscale="log", xlabel="temperature τ")
    panel.set_xticks(ticks, labels=map(str, ticks))
    panel.minorticks_off()
    panel.legend(frameon=False)
