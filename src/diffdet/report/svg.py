"""Figures that follow the page: matplotlib draws, and its colours become those of the page's theme.

A figure is drawn with marker colours that no one would choose; in the SVG text each is replaced by a CSS variable, so
that one picture serves light, dark and paper. Text stays text, in the page's font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, RULE, PAPER = "#010203", "#020304", "#030405", "#040506"
INITIAL, FINAL, FIRST, SECOND, ABOVE, BELOW = "#050607", "#060708", "#070809", "#08090a", "#090a0b", "#0a0b0c"

VARIABLES: dict[str, str] = {
    INK: "--ink",
    SOFT: "--soft",
    RULE: "--rule",
    PAPER: "--paper",
    INITIAL: "--initial",
    FINAL: "--final",
    FIRST: "--baseline-1",
    SECOND: "--baseline-2",
    ABOVE: "--above",
    BELOW: "--below",
}
"""Marker colours of figures, and the variable of the page that each stands for."""

SERIES = {
    "initial": INITIAL,
    "final": FINAL,
    "baseline_1": FIRST,
    "baseline_2": SECOND,
    "train": FINAL,
    "valid": INITIAL,
}
"""Colours by what a curve belongs to."""

WIDTH, HEIGHT = 5.0, 3.3
"""Size of an ordinary figure, inches of 72 points; a phone shows it at four fifths."""


@contextmanager
def style() -> Iterator[None]:
    """The drawing style, for the block: thin lines, no boxes, light grid, text as text."""
    import matplotlib as mpl

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "diffdet",
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.labelsize": 10,
        "axes.labelcolor": SOFT,
        "axes.edgecolor": RULE,
        "axes.linewidth": 0.8,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.formatter.use_mathtext": False,
        "axes.unicode_minus": True,
        "grid.color": RULE,
        "grid.linewidth": 0.6,
        "xtick.color": RULE,
        "ytick.color": RULE,
        "xtick.labelcolor": SOFT,
        "ytick.labelcolor": SOFT,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "text.color": INK,
        "lines.linewidth": 1.6,
        "lines.solid_capstyle": "round",
        "legend.frameon": False,
        "legend.fontsize": 9,
        "legend.labelcolor": INK,
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
    }
    with mpl.rc_context(settings):
        yield


def new(columns: int = 1, *, width: float = WIDTH, height: float = HEIGHT, **options: Any) -> tuple[Figure, Any]:
    """A figure with axes, away from any global state of pyplot.

    Args:
        columns: Number of axes side by side.
        width: Width, inches.
        height: Height, inches.
        **options: For `Figure.subplots`.

    Returns:
        The figure, and its axes or an array of them.
    """
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, **options)


def label(axes: Axes, *, x: str, y: str) -> None:
    """Name the axes: x below, y above the axis in reading direction, so that nobody has to tilt their head."""
    axes.set_xlabel(x)
    axes.set_title(y, loc="left", color=SOFT)


def to_svg(figure: Figure, description: str) -> str:
    """A figure as SVG text for a page.

    Args:
        figure: The figure.
        description: What can be seen, for those who cannot see it.

    Returns:
        An `svg` element whose colours and fonts are those of the page.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return themed(buffer.getvalue(), description)


def themed(text: str, description: str) -> str:
    """Turn matplotlib's SVG into an element of the page; see `to_svg`."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"font: (?:[\w ]*?)([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    # The size comes from the page; the view box keeps the proportions.
    text = re.sub(
        r'^<svg [^>]*?viewBox="([^"]*)"[^>]*>',
        rf'<svg viewBox="\1" role="img" aria-label="{_escape(description)}">',
        text,
        count=1,
    )
    text = re.sub(r"\n\s*", "\n", text)
    return re.sub(r' (?:id|gid)="(?:figure|axes|patch|line2d|matplotlib\.axis|xtick|ytick|text|legend)_\d+"', "", text)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
