"""What is handed out of a built book: slides of a lecture, the book as PDF, and everything as one zip."""

import base64
import html
import io
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import nbformat
from playwright.sync_api import sync_playwright

from lsr_core.errors import require
from lsr_core.files import whole_file

from . import published_records

SLIDES = Path(__file__).parent.parent / "slides"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")

_DRAWN = re.compile(r'<div class="panels" role="img" aria-label="([^"]*)">(.*?)</div><figcaption>', re.DOTALL)
_PART = re.compile(r'<svg viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>(.*?)</svg>', re.DOTALL)
_COLOUR = re.compile(r"var\(--figure-\w+, (#\w+)\)")
_CSV = re.compile(r'<a download="([\w.-]+)\.zip" href="data:application/zip;base64,([^"]+)"')
_FINDINGS = re.compile(r'<div class="findings">.*?</div>', re.DOTALL)
# On paper what is folded is open, without its code; links lead to the paper itself or to the outside, and there are no
# lists of all runs.
_UNFOLD = """() => {
  for (const cell of document.querySelectorAll("details.hide"))
    cell.replaceWith(...cell.querySelectorAll(".cell_output"))
  document.querySelectorAll("details").forEach(folded => folded.open = true)
  for (const table of document.querySelectorAll("table"))
    if (table.rows.length > 150) table.outerHTML = `<p><em>${table.rows.length - 1} rows stand in the book.</em></p>`
  for (const link of document.querySelectorAll("a[href]")) {
    if (link.protocol === "data:") link.removeAttribute("href")
    if (link.protocol !== "file:" || link.pathname === location.pathname) continue
    const page = "#document-" + link.pathname.split("/").pop().replace(".html", "")
    const inside = [link.hash, page].find(place => place && document.getElementById(decodeURI(place.slice(1))))
    if (inside) link.href = inside; else link.removeAttribute("href")
  }
}"""
_README = """\
Label smoothing and knowledge distillation: an executable book.

html/index.html         the book; open it in a browser, no network is needed
html/slides/index.html  one lecture of ninety minutes as slides; S opens the speaker's notes
book.pdf                the printed book
figures/                every figure as SVG, named by its page and cell; contents.txt says what each shows
records/                the runs behind each page as CSV, a row a run; published-*.csv were made beforehand
"""


@dataclass(frozen=True)
class Shown:
    """What an executed notebook shows: a file's name and content, and a text for those who do not see it."""

    name: str
    content: bytes
    text: str = ""


def figures(book: Path) -> Iterator[Shown]:
    """Every figure of a folder's executed notebooks as SVG, named by its page and cell."""
    for page, cell, output in _outputs(book):
        for number, (text, parts) in enumerate(_DRAWN.findall(output), 1):
            again = f"-{number}" if number > 1 else ""
            yield Shown(f"{page}-{cell}{again}.svg", _whole(parts).encode(), html.unescape(text))


def _whole(parts: str) -> str:
    """One SVG of a figure's parts, its panels side by side above its legend, in colours of its own."""
    panels, _, legend = _COLOUR.sub(r"\1", parts).partition('<div class="legend">')
    above, width, middle = _in_rows(panels, math.inf, 0.0)
    below, wide, height = _in_rows(legend, width, middle)
    size = max(width, wide), height
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {names} width="{size[0]}" height="{size[1]}" viewBox="0 0 {size[0]} {size[1]}">{above}{below}</svg>'


def _in_rows(parts: str, width: float, top: float) -> tuple[str, float, float]:
    """Parts of a figure in rows of at most this width, from `top` down; with the ends of all to the right and below."""
    drawn, x, y, right, bottom = "", 0.0, top, 0.0, top
    for *size, content in _PART.findall(parts):
        wide, high = map(float, size)
        if x and x + wide > width:
            x, y = 0.0, bottom
        drawn += f'<svg x="{x}" y="{y}" width="{wide}" height="{high}">{content}</svg>'
        x += wide
        right, bottom = max(right, x), max(bottom, y + high)
    return drawn, right, bottom


def findings(book: Path) -> Iterator[Shown]:
    """Every box of findings of a folder's executed notebooks as HTML, named by its page."""
    for page, _, output in _outputs(book):
        for box in _FINDINGS.findall(output):
            yield Shown(f"{page}.html", box.encode())


def records(book: Path) -> Iterator[Shown]:
    """The runs behind each page of a folder's executed notebooks, and the published ones, as CSV."""
    for _, _, output in _outputs(book):
        for name, content in _CSV.findall(output):
            with ZipFile(io.BytesIO(base64.b64decode(content))) as packed:
                yield Shown(name, packed.read(name))
    for preset in published_records.presets():
        table = published_records.lines_table(preset)
        yield Shown(f"published-{preset}.csv", table.to_csv(index=False).encode())


def _outputs(book: Path) -> Iterator[tuple[str, str, str]]:
    """Page, cell and HTML of everything that executed notebooks show; a cell's outputs are joined."""
    for path in sorted(book.glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            shown = [output.get("data", {}).get("text/html", "") for output in cell.get("outputs", [])]
            yield path.stem, cell.id, "".join(shown)


def slides(book: Path, out: Path) -> None:
    """Build the slides with the figures and findings of a folder's executed notebooks; a warning fails.

    `out` lies in the built book, whose MathJax the slides use.
    """
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "slides"
        shutil.copytree(SLIDES, source)
        for shown in chain(figures(book), findings(book)):
            (source / shown.name).write_bytes(shown.content)
        _run("sphinx-build", "-q", "-W", "-n", "-E", "-b", "revealjs", "-d", f"{scratch}/doctrees", source, out)
    reveal = out / "_static" / "revealjs"
    for path in filter(Path.is_file, reveal.rglob("*")):
        is_used = path.is_relative_to(reveal / "dist") or path.is_relative_to(reveal / "plugin" / "notes")
        if not is_used or path.suffix in (".map", ".ttf", ".eot") or path.name.endswith(".esm.js"):
            path.unlink()


def pdf(book: Path, file: Path) -> None:
    """Print the book whose executed notebooks a folder holds, all pages as one, through Chromium."""
    _run("jupyter-book", "build", "-q", "-W", "-n", "--keep-going", "--builder", "singlehtml", book)
    print_page(book / "_build" / "singlehtml" / "index.html", file)


def print_page(source: Path, file: Path) -> None:
    """Print a page with what is folded on it, except code; raises `InputError` where there is no Chromium."""
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=chromium(), args=QUIET) as browser:
        page = browser.new_page()
        page.set_default_timeout(0)
        page.goto(source.resolve().as_uri(), wait_until="networkidle")
        page.wait_for_function("!window.MathJax || window.MathJax.startup?.promise")
        page.evaluate("async () => { await window.MathJax?.startup.promise }")
        page.evaluate(_UNFOLD)
        page.pdf(path=file, format="A4", outline=True, tagged=True)


def chromium() -> str:
    """The path of Chromium or Chrome; raises `InputError` where there is none."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    require(path is not None, "there is no Chromium on this machine; install it, or name it with CHROMIUM=")
    return path


def pack(book: Path, file: Path) -> None:
    """Pack a built book, its PDF, figures and records into one zip, with a README that says what is where."""
    built, printed = book / "_build" / "html", book / "_build" / "book.pdf"
    require((built / "slides").exists(), f"there are no slides in {built}; `make slides` builds them")
    require(printed.exists(), f"there is no {printed}; `make pdf` prints it")
    file.parent.mkdir(exist_ok=True)
    drawn = list(figures(book))
    with whole_file(file) as place, ZipFile(place, "w", ZIP_DEFLATED) as packed:
        packed.writestr("README.txt", _README)
        packed.write(printed, "book.pdf")
        packed.writestr("figures/contents.txt", "\n".join(f"{shown.name}: {shown.text}" for shown in drawn))
        for shown in drawn:
            packed.writestr(f"figures/{shown.name}", shown.content)
        for shown in records(book):
            packed.writestr(f"records/{shown.name}", shown.content)
        for path in filter(Path.is_file, sorted(built.rglob("*"))):
            packed.write(path, Path("html") / path.relative_to(built))


def _run(program: str, *arguments: str | Path) -> None:
    """Run a program of this environment."""
    subprocess.run([Path(sys.executable).with_name(program), *arguments], check=True)
