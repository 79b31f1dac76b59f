"""Bokeh's scripts, copied from the installed package beside the pages that load them: a book needs no network."""

import shutil
from pathlib import Path

from bokeh.settings import settings
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the copying with Sphinx."""
    app.connect("build-finished", copy_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def copy_scripts(app: Sphinx, error: Exception | None) -> None:
    """Copy what `turning.js` loads into a built book."""
    folder = Path(app.outdir) / "_static" / "bokeh"
    if error is None and app.builder.format == "html":
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("bokeh", "bokeh-widgets"):
            shutil.copy(Path(settings.bokehjs_path()) / "js" / f"{name}.min.js", folder)
