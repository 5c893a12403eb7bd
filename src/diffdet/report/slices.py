"""Horizontal slices through voxels, and what one sees from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffdet.report import svg

MOST_SLICES = 8
"""Most slices side by side; more are thinned out, the lowest and the highest kept."""

Edges = tuple[Any, Any, Any]
"""Edges of the voxels in x, y and z, m."""


@dataclass(frozen=True)
class Rows:
    """Rows of slices that share a colour scale.

    Attributes:
        cubes: Values (z, x, y) by the name of what they are, one row each; NaN where unknown.
        label: What the scale measures, with its unit.
        logarithmic: Whether the scale is.
    """

    cubes: dict[str, Any]
    label: str
    logarithmic: bool = True


def chosen(depth: int, most: int = MOST_SLICES) -> list[int]:
    """Which layers to show of so many."""
    n = min(depth, most)
    return [0] if n == 1 else sorted({round(k * (depth - 1) / (n - 1)) for k in range(n)})


def _norm(rows: Rows) -> Any:
    """The colour scale of a row, from its 1st to its 99th percentile."""
    import numpy as np
    from matplotlib.colors import LogNorm, Normalize

    values = np.concatenate([cube[np.isfinite(cube)] for cube in rows.cubes.values()])
    if rows.logarithmic:
        values = values[values > 0]
        low, high = (np.percentile(values, 1), np.percentile(values, 99)) if values.size else (1e-3, 1.0)
        return LogNorm(low, max(high, low * 1.5))
    high = np.percentile(values, 99) if values.size else 1.0
    return Normalize(0.0, high or 1.0)


def _bare(axes: Any) -> None:
    axes.grid(False)
    axes.set_facecolor(svg.RULE)  # where nothing is known
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _bar(figure: Any, mappable: Any, axes: Any, label: str) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    bar = figure.colorbar(mappable, ax=axes, shrink=0.9, aspect=18, pad=0.012)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.outline.set_visible(False)
    bar.set_label(label)


def draw(rows: Rows, edges: Edges, description: str) -> str:
    """Rows of slices, the lowest to the left, with one colour scale.

    Args:
        rows: What to show.
        edges: Edges of the voxels in x, y and z, m.
        description: What can be seen.

    Returns:
        An `svg` element.
    """
    from matplotlib.figure import Figure

    edges_x, edges_y, edges_z = edges
    layers, n_rows = chosen(len(edges_z) - 1), len(rows.cubes)
    aspect = (edges_y[-1] - edges_y[0]) / (edges_x[-1] - edges_x[0])
    side = min(1.8, 9.4 / len(layers))
    extent = (edges_x[0], edges_x[-1], edges_y[0], edges_y[-1])
    norm, mappable = _norm(rows), None
    with svg.style():
        figure = Figure(figsize=(side * len(layers) + 1.3, side * aspect * n_rows + 0.4), layout="constrained")
        axes = figure.subplots(n_rows, len(layers), squeeze=False)
        for place, (name, cube) in enumerate(rows.cubes.items()):
            for column, layer in enumerate(layers):
                ax = axes[place][column]
                mappable = ax.imshow(
                    cube[layer].T, origin="lower", extent=extent, norm=norm, cmap="cividis", interpolation="nearest"
                )
                _bare(ax)
                if place == 0:
                    ax.set_title(f"{edges_z[layer]:.3g} – {edges_z[layer + 1]:.3g} m", fontsize=9, color=svg.SOFT)
            axes[place][0].set_ylabel(name, color=svg.INK)
        _bar(figure, mappable, axes, rows.label)
        return svg.to_svg(figure, description)


def views(cube: Any, edges: Edges, label: str) -> str:
    """The mean of a cube along each direction: from above, from the front, and from the side.

    Args:
        cube: Values (z, x, y); NaN where unknown.
        edges: Edges of the voxels in x, y and z, m.
        label: What the scale measures, with its unit.

    Returns:
        An `svg` element.
    """
    import warnings

    import numpy as np
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    x, y, z = ((edge[0], edge[-1]) for edge in edges)
    with warnings.catch_warnings():
        # A line of sight along which nothing is known stays unknown; numpy would mention it.
        warnings.simplefilter("ignore", RuntimeWarning)
        seen = [
            (np.nanmean(cube, 0).T, (*x, *y), "from above", "x [m]", "y [m]"),
            (np.nanmean(cube, 2), (*x, *z), "from the front", "x [m]", "z [m]"),
            (np.nanmean(cube, 1), (*y, *z), "from the side", "y [m]", "z [m]"),
        ]
    finite = np.concatenate([image[np.isfinite(image)] for image, *_ in seen])
    norm = Normalize(0.0, (float(np.percentile(finite, 99.5)) if finite.size else 1.0) or 1.0)
    with svg.style():
        figure = Figure(figsize=(9.6, 3.1), layout="constrained")
        axes = figure.subplots(1, 3)
        mappable = None
        for ax, (image, extent, title, across, up) in zip(axes, seen, strict=True):
            mappable = ax.imshow(
                image, origin="lower", extent=extent, norm=norm, cmap="cividis", interpolation="nearest"
            )
            ax.grid(False)
            ax.set_facecolor(svg.RULE)
            ax.set_title(title, loc="left", color=svg.INK)
            ax.set_xlabel(across)
            ax.set_ylabel(up)
        _bar(figure, mappable, axes, label)
        return svg.to_svg(figure, "Mean along each direction")
