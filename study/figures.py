"""Every figure of the book, and how a figure or a table is shown with its caption."""

import base64
import hashlib
import io
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice, product
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from markupsafe import Markup, escape
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from lsr_core import statistics
from lsr_core.losses import kl_divergence, optimum_gap, smoothed_labels
from lsr_core.objectives import describe
from lsr_core.run import Run
from lsr_core.statistics import CHECKED, CONTRADICTED, NEGLIGIBLE, PROVED, REFUTED, REPRODUCED, SUPPORTED, UNDECIDED
from lsr_core.teachers import VirtualTeacher

from . import published_records
from .arms import RUNGS
from .claims import CLAIMS, explained
from .judging import NOT_TESTED, Judgement, board, paper_vs_ours
from .plans import plan, planned
from .results import MEASURES, Effect, Results, effect_of
from .studies import arms_by_setting
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
    UNDECIDED: PALETTE[0],
    NOT_TESTED: PALETTE[4],
}
# Verdicts are told apart without their colours, too: hollow where nothing is decided.
_HOLLOW = {"marker": "o", "mfc": "none", "mew": 1.5}
VERDICT_MARKERS = {
    REPRODUCED: {"marker": "^"},
    SUPPORTED: {"marker": "^"},
    CONTRADICTED: {"marker": "v"},
    NEGLIGIBLE: {"marker": "s"},
    UNDECIDED: _HOLLOW,
    NOT_TESTED: _HOLLOW | {"marker": "X"},
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
_INLINE = _STYLE | {"svg.fonttype": "none"}  # text that is searched, and read in the page's size
_WIDTH = 5.6  # inches of a figure of one panel: its text is read on a phone
WIDE = 7.5  # of panels side by side, a column on a phone
_LEGEND_INCH = 15  # characters in an inch of a legend
_NARROW, _SHORT = 4, 40  # columns and rows of a table that fits the page
_MANY = 10  # sentences of a list
_FILTERS = ("verdict", "preset", "paper", "flags", "turned by")  # columns of a board with few values
_BEHIND = 1e9  # in the order of a board: as good as infinite, which is no number to it
_ROW = 85  # characters in a row of a forest
_PIXELS = 110  # that an inch of a figure has at most on a page
_COLOUR = re.compile(r"#([0-9a-f]{6})\b")
_VALUED = re.compile(r'<td><data value=(\\?"[^"\\]*\\?")>')  # also as a script's text
_SORTED_BY: Mapping[str, Callable[[Judgement], float | None]] = {  # columns of a board that are numbers
    "effect, 95 % interval": lambda j: j.differences.mean,
    "n": lambda j: j.differences.n,
    "p: Holm / sign-flip": lambda j: j.holm_p,
}


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
    """A figure with a caption that says what to see, and a text for those who do not see it.

    Its panels stand side by side, or below one another on a phone; the page's dark mode changes its colours.
    """
    with mpl.rc_context(_INLINE | {"svg.hashsalt": alt}):
        parts = Markup("").join(_parts(figure))
    drawn = Markup('<div class="panels" role="img" aria-label="{}">{}</div>').format(alt, parts)
    return HtmlOutput(_figure(drawn, caption, "drawn"), f"{alt}\n{caption}")


def _parts(figure: Figure) -> Iterator[Markup]:
    """The figure as SVG: whole where its panels stand in one column, otherwise panel by panel, then its legend."""
    figure.draw_without_rendering()
    if figure.axes[0].get_gridspec().ncols == 1:
        yield _inline(figure, None)
        return
    figure.set_layout_engine("none")
    entries = _entries(figure) if figure.legends else {}
    figure.legends.clear()
    for panel in figure.axes:
        for other in figure.axes:
            other.set_visible(other is panel)
        yield _inline(figure, panel)
    panel.set_visible(False)
    yield Markup('<div class="legend">{}</div>').format(Markup("").join(_legend_parts(figure, entries)))


def _legend_parts(figure: Figure, entries: Mapping[str, Artist]) -> Iterator[Markup]:
    """A legend's entries one by one, so that they find their rows on a narrow page."""
    for label, handle in entries.items():
        figure.legends.clear()
        yield _inline(
            figure, figure.legend([handle], [label], frameon=False, loc="center", fontsize="small", borderpad=0)
        )


def _with_own_clips(content: str) -> str:
    """A drawing whose clip paths are named by what is drawn: matplotlib names some by their place in memory."""
    clips = list(dict.fromkeys(re.findall(r'<clipPath id="(\w+)"', content)))
    for number, name in enumerate(clips):
        content = content.replace(name, f"clip-{number}-")
    drawn = hashlib.sha256(content.encode()).hexdigest()[:10]
    return re.sub(r"\bclip-(\d+)-", rf"p{drawn}-\1", content)


def _inline(figure: Figure, part: Axes | Legend | None) -> Markup:
    """A part of a figure, or all of it, as an element of the page, with colours that a style sheet can replace."""
    buffer = io.StringIO()
    inches = figure.dpi_scale_trans.inverted()
    place = part.get_tightbbox().transformed(inches).padded(0.05) if part else None
    figure.savefig(buffer, format="svg", bbox_inches=place, transparent=True, metadata={"Date": None})
    _, _, rest = buffer.getvalue().partition("<svg ")
    box = re.search(r'viewBox="([^"]*)"', rest)[1]
    content = re.sub(r"<metadata>.*?</metadata>\s*|\s+(?=[<\n])", "", rest[rest.index(">") + 1 :], flags=re.DOTALL)
    content = _with_own_clips(content)
    width = float(box.split()[2]) / 72
    style = f"width:{96 * width:.0f}px;flex-basis:{0.7 * 96 * width:.0f}px;max-width:{_PIXELS * width:.0f}px"
    return Markup('<svg viewBox="{}" style="{}" aria-hidden="true">').format(box, style) + Markup(
        _COLOUR.sub(r"var(--figure-\1, #\1)", content)
    )


def show_table(cells: pd.DataFrame, caption: str) -> HtmlOutput:
    """A table that scrolls sideways where it is too wide for the page; links in it are `Markup`."""
    shown = cells.map(escape).rename_axis(columns=cells.index.name, index=None)
    body = Markup(shown.to_html(classes="study", border=0, escape=False))
    kind = " full-width" * (len(cells.columns) > _NARROW) + " long" * (len(cells) > _SHORT)
    scrolling = Markup('<div class="scrolling{}">{}</div>').format(kind, body)
    return HtmlOutput(_figure(scrolling, caption, "table"), f"{cells.to_string()}\n{caption}")


def _figure(content: Markup, caption: str, kind: str) -> Markup:
    """Content of a kind, drawn or a table, above its caption."""
    return Markup('<figure class="study {}">{}<figcaption>{}</figcaption></figure>').format(kind, content, caption)


def show_board(judgements: Sequence[Judgement], caption: str) -> HtmlOutput:
    """The verdict board, each claim linked to its chapter in the book; columns that say nothing are left out."""
    cells = _laid_out(judgements)
    cells["paper"] = [", ".join([j.claim.paper, *j.claim.flags]) for j in judgements]
    return show_table(cells.loc[:, (cells != "–").any()].drop(columns="flags", errors="ignore"), caption)


def show_sortable_board(judgements: Sequence[Judgement], caption: str) -> HtmlOutput:
    """The verdict board, to sort and to filter; a plain table where scripts are off."""
    import itables.javascript  # takes most of a second, and one page has such a board

    scripts = Path(itables.__file__).parent / "html" / "dt_bundle.js"
    cells = _laid_out(judgements).drop(columns="printed in the paper")
    for name, value in _SORTED_BY.items():
        values = [value(j) if j.differences else None for j in judgements]
        cells[name] = list(map(_valued, values, cells[name]))
    cells = cells.map(escape).set_axis(map(explained, cells.index)).rename_axis(columns="id", index=None)
    filtered = [place for place, name in enumerate(cells, 1) if name in _FILTERS]
    body = itables.javascript.to_html_datatable(
        cells,
        use_to_html=True,
        connected=False,
        allow_html=True,
        table_id="board",
        classes="study display",
        autoWidth=False,
        pageLength=8,
        lengthMenu=[8, 25, 100],
        ordering={"indicators": False, "handler": False},
        columnControl=["order"],
        columnDefs=[{"targets": filtered, "columnControl": ["order", ["searchList"]]}],
        order=[],
    )
    program, _, _ = itables.javascript.generate_init_offline_itables_html(scripts).partition("<div")
    body = _VALUED.sub(r"<td data-order=\1><data value=\1>", body)
    wide = Markup('<div class="scrolling full-width">{}</div>').format(Markup(body))
    html = Markup(program) + _figure(wide, caption, "table")
    return HtmlOutput(html, f"{cells.to_string()}\n{caption}")


def _valued(value: float | None, text: object) -> Markup:
    """A cell's text with the number by which the board sorts it; cells without one stand behind all that have one."""
    return Markup('<data value="{:.6g}">{}</data>').format(_BEHIND if value is None else value, text)


def _laid_out(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """A board with effect and metric in one column, and both p in another, so that no column is cut."""
    cells = _worded(board(judgements))
    metrics, flips = cells.pop("metric"), cells.pop("sign-flip p")
    cells["effect, 95 % interval"] += " " + metrics.where(metrics != "–", "")
    cells["Holm p"] += " / " + flips
    return cells.rename(columns={"Holm p": "p: Holm / sign-flip"})


def _worded(cells: pd.DataFrame) -> pd.DataFrame:
    """A board whose verdicts bear their figures' markers."""
    words = {REFUTED: "down", CONTRADICTED: "down", NEGLIGIBLE: "inside", UNDECIDED: "open", NOT_TESTED: "none"}
    marked = [
        Markup('<span class="word {}">{}</span>').format(words.get(verdict.partition(" (")[0], "up"), verdict)
        for verdict in cells["verdict"]
    ]
    return cells.assign(verdict=marked)


def show_choice(question: str, answers: Mapping[str, HtmlOutput], caption: str) -> HtmlOutput:
    """A question, and what follows from each answer."""
    parts = [Markup("<div><b>{}</b>{}</div>").format(name, Markup(a._repr_html_())) for name, a in answers.items()]
    box = Markup('<div class="choice"><p>{}</p><div>{}</div></div>').format(question, Markup("").join(parts))
    plain = "\n".join([question, *(f"{name}: {answer!r}" for name, answer in answers.items()), caption])
    return HtmlOutput(_figure(box, caption, "chart"), plain)


def show_published_claims(live: Sequence[Judgement], published: Sequence[Judgement], chapter: str) -> HtmlOutput:
    """A chapter's claims and arms in each published study beside what the papers print, all effects in one figure."""
    own = [judgement for judgement in published if judgement.claim.chapter == chapter]
    studies = {preset: [judgement for judgement in own if judgement.preset == preset] for preset in CLAIMS}
    shown = [part for preset, others in studies.items() if others for part in _of_study(preset, others, chapter)]
    forest_of_all = show(
        forest([*live, *own]),
        "This chapter's claims in every study: effects in margins δ with 95 % intervals. Compare where each claim lies "
        "on digits, on other networks and on photographs.",
        "A row for each claim with its effect and interval, a marker and a colour for each verdict.",
    )
    return joined([*shown, forest_of_all, *not_yet_run(chapter)])


def not_yet_run(chapter: str) -> list[HtmlOutput]:
    """The planned studies of whose arms in a chapter there are no records."""
    waiting = [name for name in planned() if plan(name).arms.get(chapter) and not published_records.lines(name)]
    text = f"Planned for this chapter and not yet run: {', '.join(waiting)}."
    return [HtmlOutput(Markup("<p>{}</p>").format(text), text)] if waiting else []


def show_forests(judgements: Sequence[Judgement], caption: str) -> HtmlOutput:
    """The claims' effects, a chapter under a line that opens it."""
    chapters: dict[str, list[Judgement]] = {}
    for judgement in (j for j in judgements if j.differences):
        chapters.setdefault(judgement.claim.chapter, []).append(judgement)
    alt = "A row for each claim with its effect and interval, a marker and a colour for each verdict."
    drawn = {name.replace("_", " "): show(forest(own), caption, f"{name}: {alt}") for name, own in chapters.items()}
    return joined([_opened(name, figure) for name, figure in drawn.items()])


def _of_study(preset: str, judgements: Sequence[Judgement], chapter: str) -> Iterator[HtmlOutput]:
    """What the papers print beside a study's means, and where it has a plan, its arms under a line that opens them."""
    yield show_table(
        _worded(paper_vs_ours(judgements)),
        f"What the papers print, and what was measured here in the study {preset}: means over n seeds and their "
        f"paired difference, positive where the claim says so, with 95 % intervals.{_NOTES.get(preset, '')} Each mean "
        "links to the first of its runs.",
    )
    if preset in planned():
        yield _opened(f"The arms of {preset} in this chapter", joined(_arm_tables(preset, chapter)))


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


def joined(parts: Sequence[HtmlOutput]) -> HtmlOutput:
    """What is displayed together, one part below the other."""
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
    """Sentences under a title, which opens them where they are many."""
    items = Markup("").join(Markup("<li>{}</li>").format(sentence) for sentence in sentences)
    listed, plain = Markup("<ul>{}</ul>").format(items), "\n".join(sentences)
    if len(sentences) > _MANY:
        return _opened(title, HtmlOutput(listed, plain))
    return HtmlOutput(Markup("<p><strong>{}</strong></p>{}").format(title, listed), f"{title}\n{plain}")


def show_csv(results: Results, name: str) -> HtmlOutput:
    """A link that hands out the records of a chapter as zipped CSV, from within the page."""
    records, buffer = records_table(results), io.BytesIO()
    with ZipFile(buffer, "w") as packed:  # without the time, so that the same records give the same page
        packed.writestr(ZipInfo(f"{name}.csv"), records.to_csv(index=False, float_format="%.6g"), ZIP_DEFLATED)
    content = base64.b64encode(buffer.getvalue()).decode()
    label = f"{name}.csv, zipped: the {len(records)} runs behind this page"
    return HtmlOutput(f'<a download="{name}.csv.zip" href="data:application/zip;base64,{content}">{label}</a>', label)


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
    for colour, (name, line) in zip(PALETTE, gradients.items(), strict=False):
        panel.plot(gaps, line, color=colour, label=name)
    panel.axhline(0, color="0.4", lw=0.8)
    panel.set(xlabel="the student's logit gap", ylabel="gradient on the right class's logit")
    return _with_legend(figure)


def conventions(weights: Mapping[float, pd.Series], correct: float, classes: Sequence[int]) -> Figure:
    """Weight of the soft gradient by convention and τ; K times the virtual teacher's share of the right class by τ."""
    figure, (left, right) = blank(1, 2, height=3.4)
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
    figure, panels = blank(1, len(metrics))
    for panel, metric in zip(panels, metrics, strict=True):
        _draw_differences(panel, results, arms, control, metric)
        panel.set(xlabel=label)
    return _with_legend(figure)


def ladder(results: Results, *kinds: Mapping[str, Mapping[str, Run]]) -> Figure:
    """Each rung's paired gain over cross-entropy: a panel a kind of teachers, a colour a teacher."""
    figure, panels = blank(1, len(kinds), height=2.2)
    colours = iter(PALETTE)
    for panel, ladders in zip(panels, kinds, strict=True):
        lines = {name: {rung: arms[rung] for rung in RUNGS} for name, arms in ladders.items()}
        baselines = {name: arms["cross-entropy"] for name, arms in ladders.items()}
        _draw_differences(panel, results, lines, baselines, "accuracy", islice(colours, len(lines)), ls="")
        panel.set_xticks(range(len(RUNGS)), labels=RUNGS, rotation=30, ha="right", rotation_mode="anchor")
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
    figure, (panel,) = blank(1, 1)
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
    figure, (panel,) = blank(1, 1)
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
    with mpl.rc_context(_STYLE):
        sns.heatmap(cells, annot=True, fmt="+.2f", ax=panel, **colours)
    panel.set(xlabel=cells.columns.name, ylabel="")
    panel.tick_params(axis="y", rotation=0)
    return figure


def forest(judgements: Sequence[Judgement]) -> Figure:
    """The claims' effects in units of their margin, with 95 % intervals, a colour and a marker a verdict.

    A panel a chapter, of one chapter a panel a preset.
    """
    tested = [j for j in judgements if j.differences]
    groups: dict[str, list[Judgement]] = {}
    several = len({j.claim.chapter for j in tested}) > 1
    for j in tested:
        groups.setdefault(j.claim.chapter.replace("_", " ") if several else f"preset {j.preset}", []).append(j)
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
        _draw_intervals(
            panel,
            [top + 0.16],
            [np.array([d.mean, *d.interval95]) / j.claim.margin],
            across=True,
            color=VERDICT_COLOURS[word],
            label=word,
            **{"ms": 6, "capsize": 3} | VERDICT_MARKERS[word],
        )
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
        style = {"color": VERDICT_COLOURS[word], "ms": 8, "lw": 2, "capsize": 4} | VERDICT_MARKERS[word]
        panel.errorbar(mean, row, xerr=reach, **style)
    panel.set_yticks(range(len(drawn)), labels=[word for word, *_ in drawn])
    panel.set_xticks([-1, 0, 1], labels=["−δ", "0", "+δ"])
    panel.set(xlabel="effect, positive where the claim says so", xlim=(-3, 3), ylim=(-0.6, 3.6))
    return figure


def blank(rows: int, columns: int, width: float | None = None, height: float = 2.8) -> tuple[Figure, np.ndarray]:
    """A figure and its panels, row by row; `height` is a row's."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width or (_WIDTH if columns == 1 else WIDE), height * rows))
        return figure, figure.subplots(rows, columns, squeeze=False).ravel()


def _entries(figure: Figure) -> dict[str, Artist]:
    """What a legend of all panels shows, each name once."""
    shown: dict[str, Artist] = {}
    for panel in figure.axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    return shown


def _with_legend(figure: Figure) -> Figure:
    """One legend for all panels, below them."""
    shown = _entries(figure)
    widest = max(map(len, shown)) + 5  # and its line
    columns = max(1, int(figure.get_figwidth() * _LEGEND_INCH // widest))
    with mpl.rc_context(_STYLE):
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
