"""What the pages need beside what Sphinx gives them, and what they do not need of it.

They get Bokeh's scripts where they turn a figure, and buttons that open a notebook elsewhere; they lose the parts of
MathJax that no page loads, and the outputs of the notebooks that are downloaded, which stand on the pages.
"""

import shutil
from pathlib import Path

import nbformat
from bokeh.settings import settings
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

LAUNCH = {
    "binderhub_url": "https://mybinder.org",
    "colab_url": "https://colab.research.google.com",
    "notebook_interface": "jupyterlab",
}

TURNING = Path(__file__).with_name("turning.js")  # in `_static`, every page would load it
BOKEH = ("bokeh.min.js", "bokeh-widgets.min.js")
MATHJAX = ("tex-chtml.js", "input/tex", "output/chtml", "a11y", "ui", "sre/mathmaps/base.json", "sre/mathmaps/en.json")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register all of it with Sphinx."""
    app.connect("config-inited", offer_launch)
    app.connect("html-page-context", load_scripts, priority=900)  # after MathJax was added
    app.connect("build-finished", copy_scripts)
    app.connect("build-finished", slim, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def offer_launch(_: Sphinx, config: Config) -> None:
    """Offer Binder, and Colab for a project on GitHub, where the project's address is set."""
    address = config.html_theme_options["repository_url"]
    if address:
        offered = LAUNCH if "github" in address else {**LAUNCH, "colab_url": ""}
        config.html_theme_options["launch_buttons"] = offered


def load_scripts(app: Sphinx, _name: str, _template: str, context: dict, _doctree: nodes.document | None) -> None:
    """Load what turns figures at the end of a page that has one, and MathJax after it; paper has the static twins."""
    if app.builder.name != "html" or '<div class="turning">' not in context.get("body", ""):
        return
    loaded = [str(script.filename) for script in context["script_files"]]
    places = [place for place in loaded if place.endswith(MATHJAX[0])]
    context["script_files"] = [s for s in context["script_files"] if str(s.filename) not in places]
    formulas = "".join(f' data-formulas="{context["pathto"](place, 1)}"' for place in places)
    for name in (*BOKEH, TURNING.name):
        context["body"] += f'<script defer src="{context["pathto"](f"_static/bokeh/{name}", 1)}"{formulas}></script>'


def copy_scripts(app: Sphinx, error: Exception | None) -> None:
    """Copy what turns figures into a built book, Bokeh from the installed package: its pages need no network."""
    folder = Path(app.outdir) / "_static" / "bokeh"
    if error is None and app.builder.format == "html":
        folder.mkdir(parents=True, exist_ok=True)
        for path in (*(Path(settings.bokehjs_path()) / "js" / name for name in BOKEH), TURNING):
            shutil.copy(path, folder)


def slim(app: Sphinx, error: Exception | None) -> None:
    """Remove what makes a built book large and no reader needs."""
    built = Path(app.outdir)
    if error is not None or app.builder.format != "html":
        return
    for notebook in built.glob("_sources/*.ipynb"):
        content = nbformat.read(notebook, as_version=4)
        for cell in content.cells:
            if cell.cell_type == "code":
                cell.outputs = []
        nbformat.write(content, notebook)
    mathjax = built / "_static" / "mathjax"
    kept = [mathjax / name for name in MATHJAX]
    for path in filter(Path.is_file, mathjax.rglob("*")):
        if not any(path.is_relative_to(place) for place in kept):
            path.unlink()
    unused = ("**/*.map", "locales/**/*.*", "vendor/**/*.ttf")  # the fonts are there as woff2, too
    for path in (found for pattern in unused for found in list((built / "_static").glob(pattern))):
        path.unlink()
