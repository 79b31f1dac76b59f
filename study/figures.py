"""Every figure of the book."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, islice, product
from typing import IO, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lsr_core import statistics
from lsr_core.losses import kl_divergence, optimum_gap, smoothed_labels
from lsr_core.run import Run
from lsr_core.statistics import CONTRADICTED, NEGLIGIBLE, REPRODUCED, SUPPORTED, UNDECIDED
from lsr_core.teachers import VirtualTeacher

from .arms import RUNGS
from .judging import NOT_TESTED, Judgement
from .results import MEASURES, Effect, Results, effect_of

Colour = tuple[float, float, float]
PALETTE: Sequence[Colour] = sns.color_palette("colorblind")
# Verdicts are told apart without their colours, too: hollow where nothing is decided.
_AHEAD = {"color": PALETTE[2], "marker": "^"}
_HOLLOW = {"mfc": "none", "mew": 1.5}
VERDICT_STYLES = {
    REPRODUCED: _AHEAD,
    SUPPORTED: _AHEAD,
    CONTRADICTED: {"color": PALETTE[3], "marker": "v"},
    NEGLIGIBLE: {"color": PALETTE[7], "marker": "s"},
    UNDECIDED: _HOLLOW | {"color": PALETTE[0], "marker": "o"},
    NOT_TESTED: _HOLLOW | {"color": PALETTE[4], "marker": "X"},
}
STYLE = {
    **sns.axes_style("whitegrid"),
    **sns.plotting_context("notebook", font_scale=0.8),
    "svg.hashsalt": "lsr",  # the same figure gives the same file
    "figure.constrained_layout.use": True,
}
_WIDTH = 5.6  # inches of a figure of one panel: its text is read on a phone
WIDE = 7.5  # of panels side by side, a column on a phone
_LEGEND_INCH = 15  # characters in an inch of a legend
_ROW = 85  # characters in a row of a forest


def save(figure: Figure, file: str | IO[bytes]) -> None:
    """Write a figure as SVG; the same figure gives the same bytes."""
    with mpl.rc_context(STYLE):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})


def penalties() -> Figure:
    """The soft term against the logit gap, for τ = 1 to 20: linear at τ = 1, quadratic as τ grows (K = 10)."""
    gap = torch.linspace(-30, 30, 301, dtype=torch.float64)
    logits = torch.nn.functional.pad(gap[:, None], (0, 9))
    uniform = torch.full_like(logits, 0.1)
    figure, (left, right) = blank(1, 2)
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
    figure, (panel,) = blank(1, 1)
    for colour, (name, line) in zip(cycle(PALETTE), gradients.items(), strict=False):
        panel.plot(gaps, line, color=colour, label=name)
    panel.axhline(0, color="0.4", lw=0.8)
    panel.set(xlabel="the student's logit gap", ylabel="gradient on the right class's logit")
    return _with_legend(figure)


def conventions(weights: Mapping[float, pd.Series], correct: float, classes: Sequence[int]) -> Figure:
    """Weight of the soft gradient by convention and τ; K times the virtual teacher's share of the right class by τ."""
    figure, (left, right) = blank(1, 2, height=3.4)
    names = list(reversed(next(iter(weights.values())).index))
    for colour, marker, (tau, weight) in zip(cycle(PALETTE), cycle("os^D"), weights.items(), strict=False):
        left.plot(weight[names], range(len(names)), marker, color=colour, label=f"τ = {tau:g}")
    left.axvline(1, color="0.4", lw=0.8)
    left.set_yticks(range(len(names)), labels=names)
    left.set(xscale="log", xlabel="pull of the soft part, Hinton = 1")
    left.legend(frameon=False)
    taus = np.geomspace(1, 100, 60)
    for colour, k in zip(cycle(PALETTE), classes, strict=False):
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
    figure, panels = blank(1, len(metrics))
    for panel, metric in zip(panels, metrics, strict=True):
        _draw_differences(panel, results, arms, control, metric)
        panel.set(xlabel=label)
    return _with_legend(figure)


def ladder(results: Results, *kinds: Mapping[str, Mapping[str, Run]], labels: Sequence[str] = tuple(RUNGS)) -> Figure:
    """The paired gain of each soft label, here the rungs, over cross-entropy: a panel a kind, a colour a group."""
    figure, panels = blank(1, len(kinds), height=2.2)
    colours = cycle(PALETTE)
    for panel, ladders in zip(panels, kinds, strict=True):
        lines = {name: {label: arms[label] for label in labels} for name, arms in ladders.items()}
        baselines = {name: arms["cross-entropy"] for name, arms in ladders.items()}
        _draw_differences(panel, results, lines, baselines, "accuracy", islice(colours, len(lines)), ls="")
        panel.set_xticks(range(len(labels)), labels=labels, rotation=30, ha="right", rotation_mode="anchor")
    return _with_legend(figure)


def _draw_differences(
    panel: Axes,
    results: Results,
    arms: Mapping[str, Mapping[float | str, Run]],
    control: Mapping[str, Run],
    metric: str,
    colours: Iterable[Colour] = PALETTE,
    **style: Any,
) -> None:
    """Lines of paired differences with 95 % intervals, and the margin."""
    measure = MEASURES[metric]
    effects = {
        name: {constant: results.effect(arm, control[name], metric) for constant, arm in line.items()}
        for name, line in arms.items()
    }
    _draw_margin(panel, measure.margin)
    _draw_lines(panel, effects, 0.12 if style else 0.06, colours, ms=4, **style)
    panel.set(ylabel=f"Δ {measure.change}")


def by_setting(results: Results, arms: Mapping[str, Mapping[str, Run]], metrics: Sequence[str]) -> Figure:
    """Means with 95 % intervals, a group of points a setting, a colour a method, a panel a metric."""
    figure, panels = blank(1, len(metrics))
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
    figure, (panel,) = blank(1, 1)
    measure = MEASURES["accuracy"]
    _draw_margin(panel, measure.margin)
    for colour, marker, (name, line) in zip(cycle(PALETTE), cycle("os^D"), lines.items(), strict=False):
        gains = [results.effect(arm, control, "accuracy") for arm in line.values()]
        at = [100 * teacher[stage].mean() for stage in line]
        _draw_intervals(panel, at, gains, color=colour, marker=marker, ms=4, label=name)
    panel.set(xlabel="teacher's test accuracy, %", ylabel=f"Δ {measure.change}")
    return _with_legend(figure)


def gains_by_network(results: Results, networks: Mapping[str, Mapping[str, Run]], method: str) -> Figure:
    """A method's paired gain over cross-entropy against cross-entropy's own accuracy: a point a network.

    Both are means with 95 % intervals.
    """
    figure, (panel,) = blank(1, 1)
    measure = MEASURES["accuracy"]
    _draw_margin(panel, measure.margin)
    for colour, marker, (name, arms) in zip(cycle(PALETTE), cycle("os^DvP<>X*"), networks.items(), strict=False):
        control = arms["cross-entropy"]
        at, low, high, *_ = effect_of(measure.scale * results.values(control, "accuracy"))
        style = {"color": colour, "marker": marker, "ls": "", "label": name, "xerr": [[at - low], [high - at]]}
        _draw_intervals(panel, [at], [results.effect(arms[method], control, "accuracy")], **style)
    panel.set(xlabel="cross-entropy's test accuracy, %", ylabel=f"Δ {measure.change}")
    return _with_legend(figure)


def along_training(results: Results, arms: Mapping[str, Run], metric: str, label: str) -> Figure:
    """A curve of the records against the epoch, a line an arm: means with 95 % intervals over seeds."""
    figure, (panel,) = blank(1, 1)
    for colour, (name, arm) in zip(cycle(PALETTE), arms.items(), strict=False):
        records = [record for record in results.records(arm) if record.diverged_at is None]
        if len(records) < 2:  # no mean
            continue
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
    figure, panels = blank(2, len(arms), height=2.6)
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
    figure, (panel,) = blank(1, 1)
    reach = float(np.abs(cells.to_numpy()).max()) or 1.0
    colours = {"cmap": "vlag_r", "vmin": -reach, "vmax": reach, "cbar_kws": {"label": label}}
    with mpl.rc_context(STYLE):
        sns.heatmap(cells, annot=True, fmt="+.2f", ax=panel, **colours)
    panel.set(xlabel=cells.columns.name, ylabel="")
    panel.tick_params(axis="y", rotation=0)
    return figure


def forest(judgements: Sequence[Judgement]) -> Figure:
    """The claims' effects in units of their margin, with 95 % intervals: a panel a preset, a marker a verdict."""
    tested = [j for j in judgements if j.differences]
    groups: dict[str, list[Judgement]] = {}
    for j in tested:
        groups.setdefault(f"preset {j.preset}", []).append(j)
    heights = [sum(map(_row_height, own)) + 0.8 for own in groups.values()]
    figure, panels = blank(len(groups), 1, height=sum(heights) / len(groups))
    figure.axes[0].get_gridspec().set_height_ratios(heights)
    for panel, (name, own) in zip(panels, groups.items(), strict=True):
        _draw_forest(panel, own)
        panel.set_title(name, loc="left", fontweight="bold")
    reach = max(abs(end) for panel in panels for end in panel.get_xlim())
    for panel in panels:
        _margin_axis(panel, reach)
    return _with_legend(figure)


def _draw_forest(panel: Axes, judgements: Sequence[Judgement]) -> None:
    """An interval a claim, below its text."""
    top = 0.0
    panel.set_xscale("symlog", linthresh=1)
    _draw_margin(panel, 1, across=True)
    for j in judgements:
        d, word = j.differences, j.verdict.word
        panel.text(0.01, top, "\n".join(_rows(j)), va="top", transform=panel.get_yaxis_transform(), fontsize=8)
        top -= _row_height(j)
        effect = np.array([d.mean, *d.interval95]) / j.claim.margin
        style = {"label": word, "ms": 6, "capsize": 3} | VERDICT_STYLES[word]
        _draw_intervals(panel, [top + 0.16], [effect], across=True, **style)
    panel.set(ylim=(top, 0.1), yticks=[])


def _row_height(judgement: Judgement) -> float:
    """Inches of a claim's text with its interval."""
    return 0.14 * len(_rows(judgement)) + 0.26


def _rows(judgement: Judgement) -> list[str]:
    """A claim's text in rows, in which no setting is torn apart."""
    return textwrap.wrap(judgement.claim.text.replace("n = ", "n\xa0=\xa0"), _ROW, break_on_hyphens=False)


def _margin_axis(panel: Axes, reach: float) -> None:
    """A symmetric axis of effects in margins."""
    steps = (1, 3) if reach < 10 else (1, 10, 100)
    ticks = [tick for tick in (*(-step for step in steps[::-1]), 0, *steps) if abs(tick) <= reach]
    panel.set(xlabel="effect in margins δ, positive where the claim says so", xlim=(-reach, reach))
    panel.set_xticks(ticks, labels=[f"{tick:+d}".replace("-", "−") if tick else "0" for tick in ticks])
    panel.minorticks_off()


def four_labels() -> Figure:
    """One label drawn four ways: hard, smoothed, distilled, corrected.

    An image of a 3 that looks a little like an 8; the teacher's logits are drawn, its temperature is 4.
    """
    classes, label, epsilon = ["3", "5", "8", "9", "0"], torch.tensor([0]), 0.3
    hard = torch.nn.functional.one_hot(label, len(classes)).double()
    teacher = (torch.tensor([[8.0, 3.0, 6.5, 1.5, -2.0]], dtype=torch.float64) / 4).softmax(-1)
    drawn = {
        "hard": hard,
        "smoothed": smoothed_labels(label, len(classes), epsilon),
        "distilled": teacher,
        "corrected": torch.where(hard > 0, 0.8, 0.2 / (len(classes) - 1)),
    }
    figure, panels = blank(1, len(drawn), height=1.6)
    for panel, (name, masses) in zip(panels, drawn.items(), strict=True):
        panel.bar(range(len(classes)), masses[0].numpy(), color=[PALETTE[2], *[PALETTE[0]] * (len(classes) - 1)])
        panel.set_xticks(range(len(classes)), labels=classes)
        panel.set(title=name, ylim=(0, 1), yticks=[0, 0.5, 1])
    panels[0].set(ylabel="mass on each class")
    return figure


def four_verdicts() -> Figure:
    """How to read a verdict: four drawn intervals, one of each word."""
    drawn = ((UNDECIDED, 0.9, 1.4), (NEGLIGIBLE, 0.15, 0.5), (CONTRADICTED, -1.8, 0.7), (REPRODUCED, 1.9, 0.6))
    figure, (panel,) = blank(1, 1, height=1.8)
    _draw_margin(panel, 1, across=True)
    for row, (word, mean, reach) in enumerate(drawn):
        panel.errorbar(mean, row, xerr=reach, **{"ms": 8, "lw": 2, "capsize": 4} | VERDICT_STYLES[word])
    panel.set_yticks(range(len(drawn)), labels=[word for word, *_ in drawn])
    panel.set_xticks([-1, 0, 1], labels=["−δ", "0", "+δ"])
    panel.set(xlabel="effect, positive where the claim says so", xlim=(-3, 3), ylim=(-0.6, 3.6))
    return figure


def blank(rows: int, columns: int, width: float | None = None, height: float = 2.8) -> tuple[Figure, np.ndarray]:
    """A figure and its panels, row by row; `height` is a row's."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width or (_WIDTH if columns == 1 else WIDE), height * rows))
        return figure, figure.subplots(rows, columns, squeeze=False).ravel()


def entries_of(figure: Figure) -> dict[str, Artist]:
    """What a legend of all panels shows, each name once."""
    shown: dict[str, Artist] = {}
    for panel in figure.axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    return shown


def _with_legend(figure: Figure) -> Figure:
    """One legend for all panels, below them."""
    shown = entries_of(figure)
    widest = max(map(len, shown)) + 5  # and its line
    columns = max(1, int(figure.get_figwidth() * _LEGEND_INCH // widest))
    with mpl.rc_context(STYLE):
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
    for shift, (colour, (name, line)) in enumerate(zip(cycle(colours), lines.items(), strict=False)):
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
