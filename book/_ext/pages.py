"""What the pages need beside what Sphinx gives them: Bokeh's scripts, and buttons that open a notebook elsewhere."""

import shutil
from pathlib import Path

from bokeh.settings import settings
from sphinx.application import Sphinx
from sphinx.config import Config

LAUNCH = {
    "binderhub_url": "https://mybinder.org",
    "colab_url": "https://colab.research.google.com",
    "notebook_interface": "jupyterlab",
}


def setup(app: Sphinx) -> dict[str, bool]:
    """Register both with Sphinx."""
    app.connect("config-inited", offer_launch)
    app.connect("build-finished", copy_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def offer_launch(_: Sphinx, config: Config) -> None:
    """Offer Binder, and Colab for a project on GitHub, where the project's address is set."""
    address = config.html_theme_options["repository_url"]
    if address:
        offered = LAUNCH if "github" in address else {**LAUNCH, "colab_url": ""}
        config.html_theme_options["launch_buttons"] = offered


def copy_scripts(app: Sphinx, error: Exception | None) -> None:
    """Copy what `turning.js` loads from the installed package into a built book: its pages need no network."""
    folder = Path(app.outdir) / "_static" / "bokeh"
    if error is None and app.builder.format == "html":
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("bokeh", "bokeh-widgets"):
            shutil.copy(Path(settings.bokehjs_path()) / "js" / f"{name}.min.js", folder)
