"""Every figure of the book, and how a figure or a table is shown with its caption."""

import base64
import html
import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import IO, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lsr_core import statistics
from lsr_core.losses import kl_divergence, optimum_gap
from lsr_core.objectives import describe
from lsr_core.run import Run
from lsr_core.statistics import CONTRADICTED, NEGLIGIBLE, PROVED, REFUTED, REPRODUCED, UNDECIDED
from lsr_core.teachers import VirtualTeacher

from . import published_records
from .arms import RUNGS
from .judging import Judgement, across_presets, board, judge_published, paper_vs_ours
from .results import MEASURES, Results
from .studies import DESKTOP, published_study
from .tables import records_table, table

PALETTE = sns.color_palette("colorblind")
VERDICT_COLOURS = {
    REPRODUCED: PALETTE[2],
    PROVED: PALETTE[2],
    CONTRADICTED: PALETTE[3],
    REFUTED: PALETTE[3],
    NEGLIGIBLE: PALETTE[7],
    UNDECIDED: PALETTE[1],
}
_STYLE = {
    **sns.axes_style("whitegrid"),
    **sns.plotting_context("notebook", font_scale=0.8),
    "svg.hashsalt": "lsr",  # the same figure gives the same file
    "figure.constrained_layout.use": True,
}


_LEGEND_ROW = 60  # characters that fit side by side under a figure
_READABLE = 75  # pixels an inch of a figure, below which its text is too small


class HtmlOutput:
    """Something displayed in a notebook and in the book: HTML with a caption."""

    def __init__(self, content: str, plain: str) -> None:
        self._html, self._plain = content, plain

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
    image = f'<img src="{source}" alt="{html.escape(alt)}" style="{readable}">'
    return HtmlOutput(_figure(image, caption), f"{alt}\n{caption}")


def show_table(cells: pd.DataFrame, caption: str) -> HtmlOutput:
    """A table that scrolls sideways where it is too wide for the page."""
    return _table_of_html(_escaped(cells), caption)


def _escaped(cells: pd.DataFrame) -> pd.DataFrame:
    return cells.map(lambda value: html.escape(str(value)))


def _table_of_html(cells: pd.DataFrame, caption: str) -> HtmlOutput:
    body = cells.rename_axis(columns=cells.index.name, index=None).to_html(classes="study", border=0, escape=False)
    return HtmlOutput(_figure(body, caption), f"{cells.to_string()}\n{caption}")


def _figure(content: str, caption: str) -> str:
    """Content that scrolls sideways where the page is too narrow, above its caption."""
    scrolling = f'<div style="overflow-x:auto">{content}</div>'
    return f'<figure style="margin:1em 0">{scrolling}<figcaption>{html.escape(caption)}</figcaption></figure>'


def show_board(judgements: Sequence[Judgement], caption: str) -> HtmlOutput:
    """The verdict board, each claim linked to its chapter in the book."""
    return _table_of_html(_linked_claims(board(judgements)), caption)


def show_paper_vs_ours(judgements: Sequence[Judgement], caption: str) -> HtmlOutput:
    """What the papers print beside a published preset's means, each linked to the first of its runs."""
    cells = _escaped(paper_vs_ours(judgements))
    cells["claim"] = '<span class="claim">' + cells["claim"] + "</span>"
    for column, sign in (("control [95 %]", -1), ("method [95 %]", 1)):
        links = [published_records.anchor(j.preset, j.claim.side_arms(sign)[0]) for j in judgements]
        cells[column] = [f'<a href="{link}">{mean}</a>' for link, mean in zip(links, cells[column], strict=True)]
    return _table_of_html(cells, caption)


def show_at_both_presets(live: Sequence[Judgement], chapter: str) -> HtmlOutput:
    """A chapter's claims at the desktop preset beside what the papers print, and their effects at both presets."""
    others = judge_published(DESKTOP.name, chapter)
    shown = (
        show_paper_vs_ours(
            others,
            f"What the papers print, and what was measured here at the preset {DESKTOP.name}: means over n seeds and "
            "their paired difference, positive where the claim says so, with 95 % intervals. Each mean links to the "
            "first of its runs.",
        ),
        show(
            forest([*live, *others]),
            "This chapter's claims at both presets: effects in margins δ with 95 % intervals. Compare where each claim "
            "lies on digits and on CIFAR-100.",
            "A row for each claim with its effect and interval, coloured by verdict.",
        ),
    )
    return HtmlOutput("".join(part._repr_html_() for part in shown), "\n".join(map(repr, shown)))


def show_published(preset: str, names: Sequence[str], metrics: Sequence[str], caption: str) -> HtmlOutput:
    """Published arms, the control first: each with its constants, linked to the first of its runs."""
    results, arms = published_records.named(preset, names)
    cells = _escaped(table(results, arms, names[0], metrics))
    cells["constants"] = [_constants(arm) for arm in arms.values()]
    linked = [f'<a href="{published_records.anchor(preset, arm)}">{label}</a>' for label, arm in arms.items()]
    return _table_of_html(cells.set_axis(pd.Index(linked, name="arm")), caption)


def _constants(arm: Run) -> str:
    """An arm's constants in one line."""
    own = [f"{name} {value:g}" for name, value in describe(arm.objective).items() if isinstance(value, float | int)]
    return ", ".join([*own, f"rate {arm.schedule.learning_rate:g}, decay {arm.schedule.weight_decay:g}"])


def show_across_presets(live: Sequence[Judgement], others: Sequence[Judgement], caption: str) -> HtmlOutput:
    """The presets side by side, each claim linked to its chapter in the book."""
    return _table_of_html(_linked_claims(across_presets(live, others)), caption)


def _linked_claims(cells: pd.DataFrame) -> pd.DataFrame:
    """A board's cells as HTML, with each claim a link to its chapter."""
    cells = _escaped(cells)
    cells["claim"] = '<a class="claim" href="' + cells.pop("chapter") + '.html">' + cells["claim"] + "</a>"
    return cells


def show_lines(preset: str, caption: str) -> HtmlOutput:
    """Every published run of a preset, a row a line of its file, which other pages link to."""
    study = published_study(preset)
    arms = [item for chapter in study.arms().values() for item in chapter.items()]
    names = {run.key: name for name, arm in arms for run in arm.runs(study.seeds)}
    rows = []
    for line in published_records.lines(preset).values():
        record = line.record
        measured = {
            name: "diverged" if record.diverged_at is not None else f"{100 * record.metrics[metric]:.2f}"
            for name, metric in (("accuracy, %", "accuracy"), ("training, %", "train_accuracy"))
        }
        where = f'<span id="{published_records.place(preset, line)}">{line.chapter}.jsonl, {line.number}</span>'
        about = {"seed": record.run["seed"], "key": record.key, "commit": str(record.provenance["commit"])[:7]}
        rows.append({"file, line": where, "arm": html.escape(names[record.key]), **measured, **about})
    return _table_of_html(pd.DataFrame(rows).set_index("file, line"), caption)


def show_list(sentences: Sequence[str], title: str) -> HtmlOutput:
    """Sentences under a title."""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return HtmlOutput(f"<p><strong>{html.escape(title)}</strong></p><ul>{items}</ul>", "\n".join([title, *sentences]))


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
    figure, (left, right) = _axes(1, 2)
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
    _temperatures(axes, (1, 2, 4, 8, 20))


def conventions(weights: Mapping[float, pd.Series], correct: float, classes: Sequence[int]) -> Figure:
    """Weight of the soft gradient by convention and τ; K times the virtual teacher's share of the right class by τ."""
    figure, (left, right) = _axes(1, 2, height=4)
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
    _temperatures(right, (1, 4, 20, 100))
    return figure


def curves_by_constant(
    results: Results,
    arms: Mapping[str, Mapping[float, Run]],
    control: Mapping[str, Run],
    metrics: Sequence[str],
    label: str,
) -> Figure:
    """Paired difference to the control against a constant: a line a group, a panel a metric, 95 % intervals."""
    figure, axes = _axes(1, len(metrics))
    for panel, metric in zip(np.atleast_1d(axes), metrics, strict=True):
        _draw_differences(panel, results, arms, control, metric, PALETTE)
        panel.set(xlabel=label)
    return _with_legend(figure, axes)


def _draw_differences(
    panel: Axes,
    results: Results,
    arms: Mapping[str, Mapping[float | str, Run]],
    control: Mapping[str, Run],
    metric: str,
    colours: Iterable[tuple[float, float, float]],
) -> None:
    """Lines of paired differences with 95 % intervals, side by side where they would lie on each other."""
    measure = MEASURES[metric]
    _margin(panel, measure.margin)
    for shift, (colour, (name, line)) in enumerate(zip(colours, arms.items(), strict=False)):
        effects = [results.effect(arm, control[name], metric)[:3] for arm in line.values()]
        at = np.arange(len(line)) + 0.06 * (shift - len(arms) / 2)
        _with_intervals(panel, at, effects, color=colour, marker="o", ms=4, label=name)
    panel.set_xticks(range(len(line)), labels=[c if isinstance(c, str) else f"{c:g}" for c in line])
    panel.set(ylabel=f"Δ {measure.change}")


def along_training(results: Results, arms: Mapping[str, Run], metric: str, label: str) -> Figure:
    """A curve of the records against the epoch, a line an arm: means with 95 % intervals over seeds."""
    figure, axes = _axes(1, 1)
    for colour, (name, arm) in zip(PALETTE, arms.items(), strict=False):
        records = [record for record in results.records(arm) if record.diverged_at is None]
        values = np.array([record.curves[metric] for record in records], dtype=float)
        points = np.isfinite(values).sum(0) >= 2  # the first has nothing before it
        summed = [statistics.mean_interval(column[np.isfinite(column)]) for column in values.T[points]]
        mean, low, high = map(np.array, zip(*summed, strict=True))
        epochs = np.array(records[0].curves["epoch"])[points]
        axes.plot(epochs, mean, "o-", ms=4, color=colour, label=name)
        axes.fill_between(epochs, low, high, color=colour, alpha=0.25, lw=0)
    axes.set(xlabel="epoch", ylabel=label)
    return _with_legend(figure, axes)


def projection(results: Results, arms: Mapping[str, Run]) -> Figure:
    """Features of three classes on the plane of their templates, a column an arm, from results of `PROJECTION_SEED`."""
    figure, axes = _axes(2, len(arms), height=2.6)
    for column, (name, arm) in zip(axes.reshape(2, -1).T, arms.items(), strict=True):
        (record,) = results.records(arm)
        for panel, (part, kind) in zip(column, (("train", "training"), ("test", "test")), strict=True):
            x, y, labels = np.array(record.projection[part]).T
            for colour, marker, label in zip(PALETTE, "os^", np.unique(labels), strict=False):
                own = labels == label
                panel.plot(x[own], y[own], marker, ms=4, alpha=0.7, mew=0, color=colour, label=f"class {label:g}")
            panel.set_aspect("equal", "datalim")
            panel.set(title=f"{name}, {kind} images")
    return _with_legend(figure, axes[0])


def ladder(results: Results, *kinds: Mapping[str, Mapping[str, Run]]) -> Figure:
    """Each rung's paired gain over cross-entropy: a panel a kind of teachers, a line a teacher."""
    figure, axes = _axes(len(kinds), 1, height=2.6)
    colours = iter(PALETTE)
    for panel, ladders in zip(np.atleast_1d(axes), kinds, strict=True):
        lines = {name: {rung: arms[rung] for rung in RUNGS} for name, arms in ladders.items()}
        baselines = {name: arms["cross-entropy"] for name, arms in ladders.items()}
        _draw_differences(panel, results, lines, baselines, "accuracy", list(islice(colours, len(lines))))
    panel.set(xlabel="rung: what of the teacher is kept")
    return _with_legend(figure, axes)


def gains_by_teacher(
    results: Results, lines: Mapping[str, Mapping[float, Run]], control: Run, teacher: Mapping[float, np.ndarray]
) -> Figure:
    """Students' paired gain over the control against their teacher's accuracy `[n]`: a line a rung, 95 % intervals."""
    figure, axes = _axes(1, 1)
    measure = MEASURES["accuracy"]
    _margin(axes, measure.margin)
    at = [100 * teacher[stage].mean() for stage in next(iter(lines.values()))]
    for colour, marker, (name, line) in zip(PALETTE, "os^D", lines.items(), strict=False):
        gains = [results.effect(arm, control, "accuracy")[:3] for arm in line.values()]
        _with_intervals(axes, at, gains, color=colour, marker=marker, ms=4, label=name)
    axes.set(xlabel="teacher's test accuracy, %", ylabel=f"Δ {measure.change}")
    return _with_legend(figure, axes)


def heat(cells: pd.DataFrame, label: str) -> Figure:
    """A table of numbers as coloured cells, zero in the middle of the colours."""
    figure, axes = _axes(1, 1, width=6)
    reach = float(np.abs(cells.to_numpy()).max()) or 1.0
    colours = {"cmap": "vlag_r", "vmin": -reach, "vmax": reach, "cbar_kws": {"label": label}}
    with mpl.rc_context(_STYLE):
        sns.heatmap(cells, annot=True, fmt="+.2f", ax=axes, **colours)
    axes.set(xlabel=cells.columns.name, ylabel="")
    axes.set_yticklabels(axes.get_yticklabels(), rotation=0)
    return figure


def forest(judgements: Sequence[Judgement]) -> Figure:
    """The claims' effects in units of their margin, with 95 % intervals, coloured by verdict."""
    tested = [j for j in judgements if j.differences][::-1]
    figure, axes = _axes(1, 1, height=0.31 * len(tested) + 1.6)
    axes.set_xscale("symlog", linthresh=1)
    _margin_across(axes)
    for row, judgement in enumerate(tested):
        margin, d = MEASURES[judgement.claim.metric].margin, judgement.differences
        ends = [[(d.mean - d.interval95[0]) / margin], [(d.interval95[1] - d.mean) / margin]]
        colour = VERDICT_COLOURS[judgement.verdict.word]
        axes.errorbar(d.mean / margin, row, xerr=ends, color=colour, marker="o", ms=5, capsize=3)
    for word, colour in VERDICT_COLOURS.items():
        if any(j.verdict.word == word for j in tested):
            axes.plot([], [], "o-", color=colour, label=word)
    whole = [j.claim.text.replace(", n = ", ",\xa0n\xa0=\xa0") for j in tested]  # a setting is not torn apart
    axes.set_yticks(range(len(tested)), labels=[textwrap.fill(text, 60) for text in whole], fontsize=8)
    low, high = axes.get_xlim()
    steps = (1, 3) if max(-low, high) < 10 else (1, 10, 100)
    ticks = [tick for tick in (*(-step for step in steps[::-1]), 0, *steps) if low <= tick <= high]
    axes.set_xticks(ticks, labels=[f"{tick:+d}".replace("-", "−") if tick else "0" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="effect in margins δ")
    return _with_legend(figure, axes)


def four_verdicts() -> Figure:
    """How to read a verdict: four drawn intervals, one of each word."""
    drawn = ((UNDECIDED, 0.9, 1.4), (NEGLIGIBLE, 0.15, 0.5), (CONTRADICTED, -1.8, 0.7), (REPRODUCED, 1.9, 0.6))
    figure, axes = _axes(1, 1, width=6.5, height=2.4)
    _margin_across(axes)
    for row, (word, mean, reach) in enumerate(drawn):
        axes.errorbar(mean, row, xerr=reach, color=VERDICT_COLOURS[word], marker="o", ms=7, lw=2, capsize=4)
    axes.set_yticks(range(len(drawn)), labels=[word for word, *_ in drawn])
    axes.set_xticks([-1, 0, 1], labels=["−δ", "0", "+δ"])
    axes.set(xlabel="effect, positive where the claim says so", xlim=(-3, 3), ylim=(-0.6, 3.6))
    return figure


def by_setting(results: Results, arms: Mapping[str, Mapping[str, Run]], metrics: Sequence[str]) -> Figure:
    """Means with 95 % intervals, a group of points a setting, a colour a method, a panel a metric."""
    figure, axes = _axes(1, len(metrics))
    for panel, metric in zip(np.atleast_1d(axes), metrics, strict=True):
        measure = MEASURES[metric]
        for shift, (colour, (name, line)) in enumerate(zip(PALETTE, arms.items(), strict=False)):
            means = [statistics.mean_interval(measure.scale * results.values(arm, metric)) for arm in line.values()]
            at = np.arange(len(line)) + 0.12 * (shift - (len(arms) - 1) / 2)
            _with_intervals(panel, at, means, color=colour, marker="o", ls="", label=name)
        panel.set_xticks(range(len(line)), labels=list(line))
        panel.set(xlabel="Bayes accuracy", ylabel=measure.label, ylim=(0, None))
    return _with_legend(figure, axes)


def _axes(rows: int, columns: int, width: float = 7.5, height: float = 3.2) -> tuple[Figure, Axes | np.ndarray]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height * rows))
        return figure, figure.subplots(rows, columns)


def _with_legend(figure: Figure, axes: Axes | np.ndarray) -> Figure:
    """One legend for all panels, below them, with each name once."""
    shown = {}
    for panel in np.atleast_1d(axes).flat:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    columns = 4 if sum(map(len, shown)) <= _LEGEND_ROW else 2
    figure.legend(shown.values(), shown, frameon=False, loc="outside lower center", ncols=min(len(shown), columns))
    return figure


def _with_intervals(axes: Axes, at: Sequence[float], means: Sequence[tuple], **style: Any) -> None:
    """Means with their intervals, each a tuple (mean, low, high)."""
    mean, low, high = map(np.array, zip(*means, strict=True))
    axes.errorbar(at, mean, [mean - low, high - mean], capsize=2, **style)


def _margin(axes: Axes, margin: float) -> None:
    axes.axhspan(-margin, margin, color="0.9", zorder=0)
    axes.axhline(0, color="0.4", lw=0.8)


def _margin_across(axes: Axes) -> None:
    """The margin where effects are drawn from left to right, in its units."""
    axes.axvspan(-1, 1, color="0.9", zorder=0)
    axes.axvline(0, color="0.4", lw=0.8)


def _temperatures(axes: Axes, ticks: Sequence[int]) -> None:
    """A logarithmic axis of temperatures."""
    axes.set(xscale="log", xlabel="temperature τ")
    axes.set_xticks(ticks, labels=map(str, ticks))
    axes.minorticks_off()
    axes.legend(frameon=False)
