"""Configuration of the documentation: MyST pages, docstrings, Furo's look. Everything opens offline."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / "_ext"), str(Path(__file__).parents[1] / "src")]

from diffdet._version import __version__  # noqa: E402

project = "diffdet"
author = "diffdet developers"
copyright = "diffdet developers"
version = release = __version__

extensions = [
    "docstrings",  # ours, in _ext, like the next two
    "api_pages",
    "known_differences",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
if "quick" not in globals().get("tags", ()):  # `sphinx-build -t quick` leaves out the sources, half of the work
    extensions.append("sphinx.ext.viewcode")
highlight_language = "none"  # of blocks that name none: most are output or formulas
myst_enable_extensions = ["attrs_block", "colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_ext"]

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields of tuples would be described twice otherwise
# Types are annotated by their bare names, some of which two modules have; names in docstrings are resolved exactly.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = f"diffdet {__version__}"
