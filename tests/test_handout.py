"""What is handed out: slides, the printed book, and one file with everything."""

import base64
import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree
from zipfile import ZipFile

import nbformat
import pytest
from conftest import ROOT

from lsr_core import InputError
from study import build, figures, handout, pages

PART = (
    '<svg viewBox="0 0 {} 20" style="x" aria-hidden="true"><rect id="{}" fill="var(--figure-123456, #123456)"/></svg>'
)
ON_SLIDES = re.findall(r"\{image\} (\S+)", (handout.SLIDES / "index.md").read_text())
BOXES = re.findall(r":file: (\w+)\.html", (handout.SLIDES / "index.md").read_text())


def shown(*html):
    return [nbformat.v4.new_output("display_data", {"text/html": part}) for part in html]


def image(alt):
    """A figure of two panels and a legend of three entries, as `pages.show` shows it."""
    entries = PART.format(25, "c") + PART.format(35, "d") + PART.format(20, "e")
    parts = PART.format(40, "a") + PART.format(30, "b") + f'<div class="legend">{entries}</div>'
    drawn = f'<div class="panels" role="img" aria-label="{alt}">{parts}</div>'
    return f'<figure class="study drawn">{drawn}<figcaption>caption</figcaption></figure>'


def place(name):
    """Page and cell of an image's name, and which of the cell's images it is."""
    page = max((page for page in build.names() if name.startswith(f"{page}-")), key=len)
    cells = {cell.id for cell in nbformat.read(build.FOLDER / f"{page}.ipynb", as_version=4).cells}
    cell = name.removeprefix(f"{page}-").removesuffix(".svg")
    return (page, cell, 1) if cell in cells else (page, *_numbered(cell))


def _numbered(cell):
    cell, _, number = cell.rpartition("-")
    return cell, int(number)


@pytest.fixture
def book(tmp_path):
    """A folder with executed notebooks that show just what the slides want."""
    pages = {}
    for page, cell, number in map(place, ON_SLIDES):
        found = pages.setdefault(page, {})
        found[cell] = max(number, found.get(cell, 0))
    for page in {*pages, *BOXES}:
        cells = [
            nbformat.v4.new_code_cell(id=cell, outputs=shown(*[image("a figure &amp; more")] * count))
            for cell, count in pages.get(page, {}).items()
        ]
        with ZipFile(zipped := io.BytesIO(), "w") as packed:
            packed.writestr(f"{page}.csv", "key,seed")
        content = base64.b64encode(zipped.getvalue()).decode()
        csv = f'<a download="{page}.csv.zip" href="data:application/zip;base64,{content}">link</a>'
        cells.append(
            nbformat.v4.new_code_cell(outputs=shown(f'<div class="findings"><p>Found by {page}</p></div>', csv))
        )
        (tmp_path / "book").mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "book" / f"{page}.ipynb")
    return tmp_path / "book"


def test_the_slides_figures_are_of_cells_that_there_are():
    for page, cell, _ in map(place, ON_SLIDES):
        assert cell in {cell.id for cell in nbformat.read(build.FOLDER / f"{page}.ipynb", as_version=4).cells}
    for page in BOXES:
        assert "chapter.box(" in (build.FOLDER / f"{page}.ipynb").read_text()


def test_figures_are_made_whole_from_what_notebooks_show(book):
    drawn = {shown.name: shown for shown in handout.figures(book)}
    assert set(ON_SLIDES) <= set(drawn)
    assert {shown.text for shown in drawn.values()} == {"a figure & more"}
    (content,) = {shown.content for shown in drawn.values()}
    whole = ElementTree.fromstring(content)
    assert whole.get("viewBox") == "0 0 70.0 60.0"
    places = [(part.get("x"), part.get("y"), part[0].get("id"), part[0].get("fill")) for part in whole]
    assert {colour for *_, colour in places} == {"#123456"}
    ends = [(name, float(x), float(y)) for x, y, name, _ in places]
    panels, legend = [("a", 0, 0), ("b", 40, 0)], [("c", 0, 20), ("d", 25, 20), ("e", 0, 40)]
    assert ends == panels + legend


def test_a_figure_that_is_shown_can_be_taken_from_its_page(tmp_path):
    cell = nbformat.v4.new_code_cell(id="one", outputs=shown(pages.show(figures.penalties(), "a", "b")._repr_html_()))
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "page.ipynb")
    (taken,) = handout.figures(tmp_path)
    assert (taken.name, taken.text) == ("page-one.svg", "b")
    assert len(ElementTree.fromstring(taken.content)) == 2
    assert b"var(" not in taken.content


def test_findings_and_records_are_read_from_what_notebooks_show(book):
    found = {shown.name: shown.content.decode() for shown in handout.findings(book)}
    assert found["label_smoothing.html"] == '<div class="findings"><p>Found by label_smoothing</p></div>'
    records = {shown.name: shown.content.decode() for shown in handout.records(book)}
    assert records["label_smoothing.csv"] == "key,seed"
    assert records["published-desktop.csv"].count("\n") > 100


def test_the_one_file_holds_what_its_readme_promises(book, tmp_path):
    file, built = tmp_path / "dist" / "book.zip", book / "_build" / "html"
    with pytest.raises(InputError, match="there are no slides in"):
        handout.pack(book, file)
    (built / "slides").mkdir(parents=True)
    with pytest.raises(InputError, match=r"there is no .*book\.pdf; `make pdf` prints it"):
        handout.pack(book, file)
    for path in (built / "index.html", built / "slides" / "index.html", book / "_build" / "book.pdf"):
        path.write_text("content")
    handout.pack(book, file)
    with ZipFile(file) as packed:
        names = packed.namelist()
        promised = re.findall(r"^(\S+[./]\S*) ", packed.read("README.txt").decode(), re.MULTILINE)
        assert len(promised) == 5
        assert all(any(name.startswith(path) for name in names) for path in promised)
        assert len([name for name in names if name.endswith(".svg")]) == len(list(handout.figures(book)))
        assert packed.read("records/label_smoothing.csv") == b"key,seed"


@pytest.mark.slow
def test_the_slides_ask_nothing_of_the_outside_and_have_their_figures(book, browser, tmp_path):
    mathjax = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    shutil.copytree(mathjax, tmp_path / "_static" / "mathjax")
    handout.slides(book, tmp_path / "slides")
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    page, wrong = context.new_page(), []
    page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(request.url))
    page.on("request", lambda r: wrong.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
    page.goto((tmp_path / "slides" / "index.html").as_uri(), wait_until="networkidle")
    total = page.evaluate("Reveal.getTotalSlides()")
    for _ in range(total):
        page.keyboard.press("Space")
    assert page.evaluate("Reveal.isLastSlide()")
    drawn = page.evaluate("[...document.images].map(i => [i.alt, i.complete && i.naturalWidth > 0])")
    assert len(drawn) == len(ON_SLIDES)
    assert all(alt and there for alt, there in drawn)
    assert all(f"Found by {name}" in page.content() for name in BOXES)
    assert page.locator("mjx-merror").count() == 0
    assert page.locator("mjx-container").count() > 0
    assert not wrong
    context.close()


@pytest.mark.slow
def test_a_page_is_printed_with_what_is_folded(browser, tmp_path):  # noqa: ARG001  (skips without Chromium)
    sizes = []
    long = "<p>A folded paragraph.</p>" * 200
    output = f'<div class="cell_output"><details><summary>more</summary>{long}</details></div>'
    for inside in (f"<pre>{long}</pre>", output):
        folded = f'<details class="hide"><summary>a cell</summary>{inside}</details>'
        (tmp_path / "page.html").write_text(f"<!doctype html><h1>Title</h1>{folded}")
        subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from pathlib import Path; from study import handout; "
                "handout.print_page(*map(Path, sys.argv[1:]))",
                tmp_path / "page.html",
                tmp_path / "page.pdf",
            ],
            check=True,
            cwd=ROOT,
        )
        printed = (tmp_path / "page.pdf").read_bytes()
        assert printed.startswith(b"%PDF")
        sizes.append(len(re.findall(rb"/Type\s*/Page\b", printed)))
    assert sizes[0] == 1 < sizes[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("", []),
        (
            "https://github.com/OWNER/NAME",
            ["mybinder.org/v2/gh/OWNER/NAME/main", "colab.research.google.com/github/OWNER"],
        ),
        ("https://gitlab.com/OWNER/NAME", ["mybinder.org/v2/gl/OWNER%2FNAME/main"]),
    ],
)
def test_one_address_gives_the_chapters_their_buttons(address, expected, tmp_path):
    book = tmp_path / "book"
    (tmp_path / "lsr_core").symlink_to(ROOT / "lsr_core")
    shutil.copytree(ROOT / "book", book, ignore=shutil.ignore_patterns("_build", "*.ipynb", "*.md", ".executed"))
    (book / "_toc.yml").write_text("format: jb-book\nroot: page\n")
    config = (book / "_config.yml").read_text()
    assert config.count('repository_url: ""') == 1
    (book / "_config.yml").write_text(config.replace('repository_url: ""', f'repository_url: "{address}"'))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": [], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    notebook["cells"].append({"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# A page"})
    output = {"output_type": "stream", "name": "stdout", "text": "shown"}
    code = {"cell_type": "code", "id": "code", "metadata": {}, "source": "", "execution_count": 1, "outputs": [output]}
    notebook["cells"].append(code)
    (book / "page.ipynb").write_text(json.dumps(notebook))
    command = [Path(sys.executable).with_name("jupyter-book"), "build", "-q", "-W", "-n", book]
    subprocess.run(command, check=True, capture_output=True)
    links = re.findall(
        r'href="https://([^"]*(?:binder|colab)[^"]*)"', (book / "_build" / "html" / "page.html").read_text()
    )
    assert len(links) == len(expected)
    assert all(
        link.startswith(start) and "notebooks/page.ipynb" in link for link, start in zip(links, expected, strict=True)
    )
