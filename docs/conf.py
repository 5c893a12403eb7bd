"""Configuration of the documentation: MyST pages, Furo's look."""

from diffdet._version import __version__

project = "diffdet"
author = "diffdet developers"
copyright = "diffdet developers"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.mathjax"]
myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"diffdet {__version__}"
