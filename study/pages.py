"""What a page shows: a figure or a table with its caption, boards of verdicts, and what one opens."""

import base64
import hashlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import matplotlib as mpl
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from lsr_core.objectives import describe
from lsr_core.run import Run
from lsr_core.statistics import CONTRADICTED, NEGLIGIBLE, REFUTED, UNDECIDED

from . import published_records
from .claims import CLAIMS, explained
from .figures import STYLE, entries_of, forest
from .judging import NOT_TESTED, Judgement, board, paper_vs_ours
from .plans import plan, planned
from .results import Results
from .studies import arms_by_setting
from .tables import records_table, table
from .tuning import BASELINE

# What a reader must know of a study wherever its results stand.
_NOTES = {
    "desktop": " On CIFAR-100 its constants were chosen by single trials of half as many epochs, so a difference may "
    "be one of tuning."
}
_INLINE = STYLE | {"svg.fonttype": "none"}  # text that is searched, and read in the page's size
_NARROW = 4  # columns of a table that fits the page
_SHORT = 40  # rows of one
_MANY = 10  # sentences of a list
_FILTERS = ("verdict", "preset", "paper", "flags", "turned by")  # columns of a board with few values
_BEHIND = 1e9  # in the order of a board: as good as infinite, which is no number to it
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
    entries = entries_of(figure) if figure.legends else {}
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
    """The planned studies whose arms in a chapter lack records."""
    waiting = [name for name in planned() if plan(name).arms.get(chapter) and published_records.lacks(name, chapter)]
    text = f"Planned for this chapter and not yet run, or not wholly: {', '.join(waiting)}."
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
