"""The lecture as slides: reveal.js lies beside it, and MathJax in the book that holds it, so it needs no network."""

project = "Label smoothing and knowledge distillation"
author = "The lsr-core authors"
extensions = ["myst_parser", "sphinx_revealjs", "sphinx.ext.mathjax"]
mathjax_path = "../../_static/mathjax/tex-chtml.js"
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
language = "en"
revealjs_static_path = ["_static"]
revealjs_css_files = ["lecture.css"]
revealjs_style_theme = "white"
revealjs_script_conf = {"hash": True, "slideNumber": True, "width": 1280, "height": 720, "margin": 0.04}
revealjs_script_plugins = [{"name": "RevealNotes", "src": "revealjs/plugin/notes/notes.js"}]
