"""The built book in a real browser."""

import functools
import http.server
import re
import threading
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urlparse

import pytest
from exercises import CHAPTERS
from scipy import stats

from lsr_core.store import Store
from study import build
from study.settings import DIGITS
from study.tuning import tuned

pytestmark = pytest.mark.slow

PAGES = [
    *build.names(),
    "glossary",
    "teach",
    "rerun",
    "records",
    "training_loops",
    "library",
    "status",
    "bibliography",
    "search",
]


@pytest.fixture(scope="session")
def address(built_book):
    """The book on a server of this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(built_book)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def visit(browser, address):
    """Open a page; returns it with everything that went wrong on the way."""
    contexts = []

    def open_page(name, width=1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page, wrong = context.new_page(), []
        page.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        page.on("response", lambda r: wrong.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        page.on("request", lambda r: wrong.append(f"outside: {r.url}") if outside(r.url) else None)
        page.goto(f"{address}/{name}.html", wait_until="networkidle")
        return page, wrong

    def outside(url):
        return not url.startswith((address, "data:", "blob:"))

    yield open_page
    for context in contexts:
        context.close()


def test_the_list_of_pages_is_the_books(built_book):
    assert {path.stem for path in built_book.glob("*.html")} - {"genindex"} == set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_whole_and_fits_a_phone(visit, name):
    """No error and no request to the outside; every image is there and has a text; nothing to scroll sideways."""
    page, wrong = visit(name)
    assert not wrong
    images = page.evaluate(
        "[...document.images].map(i => [i.alt, i.complete && i.naturalWidth > 0, i.src.slice(0, 80)])"
    )
    assert all(alt and there for alt, there, _ in images), images
    drawings = page.evaluate("[...document.querySelectorAll('.panels')].map(d => d.getAttribute('aria-label'))")
    assert all(drawings)
    assert page.evaluate(CUT) == []
    if name in CHAPTERS:
        assert page.evaluate("document.documentElement.scrollHeight") <= 7200
        assert page.locator("div.findings p").first.bounding_box()["y"] <= 600
    page.set_viewport_size({"width": 390, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.wait_for_function("document.querySelectorAll('div.math:not(:has(mjx-container))').length === 0")
    assert page.evaluate(OVERFLOWING) == []


# Tables and drawings that are wider than what shows them: themselves, or what holds them without letting them out.
CUT = """() => [...document.querySelectorAll('.scrolling table, .panels > svg')]
  .filter(e => e.getClientRects().length)
  .filter(e => { for (let a = e.parentElement; a.tagName !== 'ARTICLE'; a = a.parentElement)
                   if (getComputedStyle(a).overflowX !== 'visible'
                       && e.getBoundingClientRect().right > a.getBoundingClientRect().right + 1) return true;
                 return false })
  .map(e => e.textContent.slice(0, 80))"""


def test_the_first_page_answers_on_two_screens(visit):
    page, _ = visit("index")
    assert page.evaluate("document.documentElement.scrollHeight") <= 1900
    assert page.locator("p.finding:not(.choice p)").count() == 5
    assert page.locator("article table").count() == 0
    assert page.locator("article .panels").count() == 2
    assert page.locator("article .choice").count() == 1


def test_the_board_is_sorted_and_filtered(visit):
    page, wrong = visit("verdicts")
    rows = page.locator("#board tbody tr")
    page.wait_for_selector("#board.dataTable")
    shown = rows.count()
    assert 1 < shown <= 25
    for name in ("effect", "n", "p: Holm"):
        page.locator("#board thead th", has_text=re.compile(f"^{name}")).first.locator("button").first.click()
        page.wait_for_function(IS_SORTED_BY, arg=name)
    page.locator(".dt-search input").first.fill("B1-100-one-layer")
    page.wait_for_function("document.querySelectorAll('#board tbody tr').length === 1")
    assert "one-layer" in rows.first.inner_text()
    assert not wrong


# Whether the numbers of the board's shown rows rise in the column that begins so, and are numbers of claims.
IS_SORTED_BY = """name => {
  const at = [...document.querySelectorAll('#board thead th')].findIndex(th => th.innerText.trim().startsWith(name));
  const shown = [...document.querySelectorAll('#board tbody tr')].map(row => Number(row.cells[at].dataset.order));
  return shown.length > 1 && shown.every((value, i) => value < 1e9 && (i === 0 || shown[i - 1] <= value)) }"""


@pytest.mark.parametrize("name", ["index", "verdicts", "label_smoothing"])
def test_a_page_is_whole_without_scripts(visit, name):
    page, _ = visit(name, java_script_enabled=False)
    assert page.locator("article figure").count() > 0
    assert page.locator("#board_fallback tbody tr").count() > 100 or name != "verdicts"
    assert "Loading" not in page.locator("article").inner_text()


@pytest.mark.parametrize("name", ["index", "label_smoothing", "lsr_is_kd"])
def test_drawings_are_dark_in_dark_mode(visit, name):
    """No light ground: what fills a large part of a panel is darker than what is written in it."""
    page, _ = visit(name, color_scheme="dark")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert page.evaluate(LIGHT_SLABS) == []
    assert min(page.evaluate(INK)) > 0.4


LIGHT = """const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number);
                             return (.2126 * r + .7152 * g + .0722 * b) / 255 };"""
LIGHT_SLABS = (
    "() => {"
    + LIGHT
    + """
  const found = [];
  for (const svg of document.querySelectorAll('.panels svg')) {
    const whole = svg.getBoundingClientRect();
    for (const e of svg.querySelectorAll('path, rect')) {
      const own = e.getBoundingClientRect(), style = getComputedStyle(e);
      if (style.fill === 'none' || Number(style.opacity) < .5 || e.closest('defs')) continue;
      if (own.width * own.height > .2 * whole.width * whole.height && light(style.fill) > .5)
        found.push([style.fill, e.id || e.parentElement.id]);
    }
  }
  return found }"""
)
INK = (
    "() => {"
    + LIGHT
    + " return [...document.querySelectorAll('.panels text')].map(e => light(getComputedStyle(e).fill)) }"
)


@pytest.mark.parametrize("name", ["label_smoothing", "lsr_is_kd", "many_losses", "lsrkd", "library"])
def test_every_formula_is_typeset(visit, name):
    page, _ = visit(name)
    page.wait_for_function("window.MathJax?.startup?.promise !== undefined")
    page.evaluate("MathJax.startup.promise.then(() => true)")
    assert page.locator(".math").count() > 0
    assert page.locator(".math:not(:has(mjx-container))").count() == 0
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    text = page.locator("article").inner_text()
    assert "\\(" not in text
    assert "$$" not in text
    assert page.evaluate(OVERFLOWING) == []


# Displayed formulas that are wider than their place.
OVERFLOWING = """() => [...document.querySelectorAll('div.math')].filter(e => e.getClientRects().length)
  .filter(e => [e, ...e.querySelectorAll('mjx-container')].some(part => part.scrollWidth > part.clientWidth + 1))
  .map(e => e.id || e.textContent.slice(0, 60))"""


@pytest.mark.parametrize("name", ["index", "label_smoothing"])
def test_text_is_readable_in_dark_mode(visit, name):
    """Contrast of at least 4.5 between the text of paragraphs, tables and captions and what lies behind it."""
    page, _ = visit(name, color_scheme="dark")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    contrasts = page.evaluate(CONTRASTS)
    assert contrasts
    assert min(contrasts.values()) >= 4.5, sorted(contrasts.items(), key=lambda item: item[1])[:5]


CONTRASTS = """() => {
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
                       return .2126 * r + .7152 * g + .0722 * b };
  const parse = s => s.match(/[\\d.]+/g).map(Number);
  const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
                        if (c.length < 4 || c[3] > .5) return c.slice(0, 3) } return [255, 255, 255] };
  const found = {};
  for (const e of document.querySelectorAll('article p, article li, article td, article th, article figcaption')) {
    const [a, b] = [light(parse(getComputedStyle(e).color).slice(0, 3)), light(behind(e))];
    found[e.tagName + ' ' + e.innerText.slice(0, 40)] = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  }
  return found }"""


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.anchors = [], set()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])


def test_no_link_within_the_book_is_broken(built_book):
    pages = {}
    for path in built_book.glob("*.html"):
        pages[path.name] = _Links()
        pages[path.name].feed(path.read_text())
    broken = []
    for name, page in pages.items():
        for link in page.links:
            target, anchor = urldefrag(link)
            if urlparse(link).scheme or link == "#":
                continue
            target = unquote(target) or name
            exists = (built_book / target).exists()
            if not exists or (anchor and target in pages and unquote(anchor) not in pages[target].anchors):
                broken.append(f"{name}: {link}")
    assert not broken


def test_no_table_falls_apart(built_book):
    """Rows after an empty line are a paragraph of bars."""
    assert [path.name for path in built_book.glob("*.html") if "<p>|" in path.read_text()] == []


def test_numbers_in_the_prose_are_glued(built_book):
    assert (built_book / "index.html").read_text().count('class="pasted-text"') >= 8
    assert "exploratory" in (built_book / "verdicts.html").read_text()  # its seeds are not the preset's


def test_words_of_the_glossary_and_citations_say_what_they_mean(visit):
    page, _ = visit("index")
    assert "uniform distribution" in page.locator("a[href*='#term-label-smoothing']").first.get_attribute("title")
    assert "2020" in page.locator("a[href*='bibliography.html#id'][title]").first.get_attribute("title")


def test_a_claim_says_what_it_claims_on_hovering_and_with_the_keyboard(visit):
    page, _ = visit("smoothed_teachers", color_scheme="dark")
    named = page.locator("article p abbr.claim-id", has_text="S4").first
    assert "smoothed teacher's student" in named.get_attribute("title")
    page.keyboard.press("Tab")
    named.focus()
    shown = named.evaluate("e => { const s = getComputedStyle(e, '::after'); return [s.content, s.color] }")
    assert "smoothed teacher's student" in shown[0]
    assert shown[1] == page.locator("article p").first.evaluate("e => getComputedStyle(e).color")


def test_the_book_is_small(built_book):
    assert sum(path.stat().st_size for path in built_book.rglob("*") if path.is_file()) <= 25e6
    assert (built_book / "index.html").stat().st_size <= 1.5e6


def test_the_printed_interval_is_scipys_from_the_records(built_book):
    """From the files in the tiny book's store to the text on its page."""
    store, setting = Store(built_book.parent.parent.parent / "records"), DIGITS[0]
    accuracy = {
        method: [100 * store.get(run.key).metrics["accuracy"] for run in tuned(setting, method).runs((0, 1))]
        for method in ("lsr", "cross-entropy")
    }
    test = stats.ttest_rel(accuracy["lsr"], accuracy["cross-entropy"])
    low, high = test.confidence_interval(0.95)
    printed = f"{(low + high) / 2:+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")
    page = (built_book / "label_smoothing.html").read_text()
    row = page[page.index(">LSR beats cross-entropy (digits, n = 100)<") :]
    assert f"<td>{printed} " in row[: row.index("</tr>")]
