"""How pictures look, and what happens to a finished one. matplotlib is imported when something is drawn, not before.

Sizes are those of a figure of the documented middle size, `W_MID` x `H_MID` inches; figures with several small axes
scale them down with `style(scale)`. Colours are those of Okabe and Ito, which stay apart for colour-blind readers and,
but for a few, in grey.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from diffdet.core.errors import InputError
from diffdet.core.storage import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

__all__ = [
    "CMAP",
    "FACE_ALPHA",
    "H_MID",
    "LABEL_SIZE",
    "LEGEND_SIZE",
    "MISSING",
    "PALETTE",
    "TICK_SIZE",
    "W_MID",
    "close",
    "new_figure",
    "present",
    "save",
    "style",
]

TICK_SIZE: Final = 16
"""Tick labels, points."""
LABEL_SIZE: Final = 22
"""Axis labels and titles, points."""
LEGEND_SIZE: Final = 16
"""Legends, points."""
H_MID: Final = 8.0
"""Height of a middle-sized figure, inches."""
W_MID: Final = H_MID * 16 / 9
"""Width of a middle-sized figure, inches."""

PALETTE: Final = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermillion": "#D55E00",
    "sky": "#56B4E9",
    "purple": "#CC79A7",
    "yellow": "#F0E442",
    "black": "#000000",
}
"""Colours by name, in the order in which curves take them (Okabe and Ito, "Color universal design", 2008)."""

CMAP: Final = "viridis"
"""Colour map of everything that has a magnitude: even in lightness, safe for colour-blind readers."""
MISSING: Final = "#D9D9D9"
"""Colour of what has no value."""
FACE_ALPHA: Final = 0.2
"""Opacity of faces through which something else is to be seen."""

_DPI: Final = 150


@contextmanager
def style(scale: float = 1.0) -> Iterator[None]:
    """Draw in the house's style while the block runs; matplotlib's own settings are untouched afterwards.

    Args:
        scale: Factor on all sizes of type; below one for figures of many small axes.
    """
    import matplotlib as mpl
    from cycler import cycler

    settings: Any = {
        "font.size": TICK_SIZE * scale,
        "axes.labelsize": LABEL_SIZE * scale,
        "axes.titlesize": LABEL_SIZE * scale,
        "figure.titlesize": LABEL_SIZE * scale,
        "xtick.labelsize": TICK_SIZE * scale,
        "ytick.labelsize": TICK_SIZE * scale,
        "legend.fontsize": LEGEND_SIZE * scale,
        "axes.prop_cycle": cycler(color=list(PALETTE.values())),
        "axes.edgecolor": "0.6",
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.titlelocation": "left",
        "grid.color": "0.88",
        "grid.linewidth": 0.8,
        "image.cmap": CMAP,
        "legend.frameon": False,
        "lines.linewidth": 2.0,
        "savefig.dpi": _DPI,
        "pdf.fonttype": 42,  # text stays text in the file
    }
    with mpl.rc_context(settings):
        yield


def is_interactive() -> bool:
    """Whether matplotlib's backend can show a figure to somebody: a window, or a notebook."""
    import matplotlib as mpl

    return mpl.get_backend().lower() not in {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that arranges its axes by itself.

    Where nobody can look at it, it is not handed to pyplot, which would keep it in memory for ever.

    Args:
        width: Inches.
        height: Inches.
    """
    if is_interactive():
        import matplotlib.pyplot as plt

        return plt.figure(figsize=(width, height), layout=_layout())
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=_layout())


def _layout() -> ConstrainedLayoutEngine:
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)  # inches: nothing touches the rim


def present(figure: Figure, savename: str | os.PathLike[str] | None = None) -> None:
    """Save a figure, if a name is given, and show it, if there is somebody to show it to.

    Args:
        figure: A finished figure.
        savename: File to write; its suffix says the format (png, pdf, svg, ...), png where it has none.

    Raises:
        InputError: If matplotlib writes no format of that suffix.
        StorageError: If the file cannot be written.
    """
    if savename is not None:
        save(figure, savename)
    if is_interactive():
        import matplotlib.pyplot as plt

        plt.show()


def save(figure: Figure, savename: str | os.PathLike[str], *, dpi: float | None = None) -> None:
    """Write a figure to a file, whole or not at all.

    Args:
        figure: A finished figure.
        savename: See `present`.
        dpi: Pixels per inch; the style's, 150, when None.

    Raises:
        InputError: If matplotlib writes no format of that suffix.
        StorageError: If the file cannot be written.
    """
    path = Path(savename)
    formats = figure.canvas.get_supported_filetypes()
    kind = path.suffix.lower().removeprefix(".")
    if not kind:
        path, kind = path.with_name(path.name + ".png"), "png"
    if kind not in formats:
        raise InputError(f"`savename` must end in one of {', '.join(sorted(formats))}; got {str(savename)!r}")
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=_DPI if dpi is None else dpi)


def close(figure: Figure) -> None:
    """Let go of a figure that need not be shown any more."""
    if is_interactive():
        import matplotlib.pyplot as plt

        plt.close(figure)
