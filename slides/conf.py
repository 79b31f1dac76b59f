"""The lecture as slides: reveal.js and MathJax lie beside it, so it needs no network."""

project = "Label smoothing and knowledge distillation"
author = "The lsr-core authors"
extensions = ["myst_parser", "sphinx_revealjs", "sphinx-mathjax-offline"]
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
language = "en"
revealjs_static_path = ["_static"]
revealjs_css_files = ["lecture.css"]
revealjs_style_theme = "white"
revealjs_script_conf = {"hash": True, "slideNumber": True, "width": 1280, "height": 720, "margin": 0.04}
revealjs_script_plugins = [{"name": "RevealNotes", "src": "revealjs/plugin/notes/notes.js"}]
