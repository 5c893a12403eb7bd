"""New figures in a style, and what happens to finished ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdet.core.errors import InputError
from diffdet.core.storage import make_folder, replacing
from diffdet.nn.plotting.plot_settings import PlotSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["colours", "drawing", "finish", "weighted_hist"]


def _interactive() -> bool:
    import matplotlib as mpl

    return mpl.get_backend().lower() not in {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}


@contextmanager
def drawing(settings: PlotSettings, width: float, height: float) -> Iterator[Figure]:
    """A figure in the style of settings; matplotlib's own settings are untouched afterwards.

    Args:
        settings: Appearance.
        width: Inches.
        height: Inches.

    Yields:
        An empty figure. Where nobody can look at it, pyplot does not know it, so that it is forgotten after use.
    """
    import matplotlib as mpl

    style: Any = settings.rc()
    with mpl.rc_context(style):
        if _interactive():
            import matplotlib.pyplot as plt

            yield plt.figure(figsize=(width, height), layout="constrained")
        else:
            from matplotlib.figure import Figure as NewFigure

            yield NewFigure(figsize=(width, height), layout="constrained")


def finish(figure: Figure, savename: str | None, settings: PlotSettings) -> Figure:
    """Save a figure, if a name is given, and show it, if there is somebody to show it to.

    Args:
        figure: The figure.
        savename: Name of the file in `savepath`, without suffix; None not to save.
        settings: Says where and in which format.

    Raises:
        InputError: If matplotlib does not write that format.
        StorageError: If the file cannot be written.
    """
    if savename is not None:
        kind = settings.format.removeprefix(".").lower()
        formats = figure.canvas.get_supported_filetypes()
        if kind not in formats:
            raise InputError(f"`format` must be one of {', '.join(sorted(formats))}; got {settings.format!r}")
        path = Path(settings.savepath) / f"{savename}.{kind}"
        make_folder(path.parent)
        with replacing(path) as temporary:
            figure.savefig(temporary, format=kind)
    if _interactive():
        import matplotlib.pyplot as plt

        plt.show()
    return figure


def colours(palette: str, n: int) -> list[Any]:
    """The first n colours of a palette; from a continuous one, n evenly spaced."""
    import matplotlib as mpl

    found = mpl.colormaps[palette]
    listed = getattr(found, "colors", None)
    if listed is not None and len(listed) <= 20:
        return [listed[k % len(listed)] for k in range(n)]
    return [found(0.05 + 0.9 * (k + 0.5) / n) for k in range(n)]


def weighted_hist(
    values: np.ndarray, weights: np.ndarray | None, edges: np.ndarray, density: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Heights of a histogram and their statistical errors, sqrt(sum w^2).

    Args:
        values: Values.
        weights: Weights; 1 where None.
        edges: Edges of the bins.
        density: Whether to bring the area to 1.
    """
    w = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    heights = np.histogram(values, edges, weights=w)[0]
    errors = np.sqrt(np.histogram(values, edges, weights=w * w)[0])
    if density:
        scale = w.sum() * np.diff(edges)
        return heights / scale, errors / scale
    return heights, errors
