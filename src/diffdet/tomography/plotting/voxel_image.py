"""Slices through voxel images of radiation lengths."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from diffdet.core.materials import X0
from diffdet.tomography.imaging.image import VoxelImage
from diffdet.tomography.plotting import appearance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["layers_figure", "slices_figure"]

_LANDMARKS: Final = ("uranium", "lead", "iron", "aluminium", "SiO2", "water")
"""Materials marked on the scale, far enough from one another to be read."""
_MAX_LAYERS: Final = 24
"""Layers drawn in one figure; of more, evenly spaced ones are chosen."""
_SPAN: Final = (30.0, 3000.0)
"""The scale spans at least the first factor, at most the second."""


def slices_figure(image: VoxelImage, *, title: str = "") -> Figure:
    """Three slices at right angles to one another, through the densest place.

    Dense matter is bright, on a logarithmic scale of X0 with some materials marked; what came out thinner than the
    scale, or not denser than nothing, has the darkest colour, and voxels that no muon crossed are grey. Dashed lines
    show where the other two slices lie.

    Args:
        image: The image.
        title: Above the figure.

    Returns:
        The figure.
    """
    cubes, (x, y, z) = _shown(image), image.edges
    at_z, at_x, at_y = densest(image)
    views = (
        (cubes[at_z].T, x, y, "x", "y", _middle(x, at_x), _middle(y, at_y), f"z = {_middle(z, at_z):.3g} m"),
        (cubes[:, :, at_y], x, z, "x", "z", _middle(x, at_x), _middle(z, at_z), f"y = {_middle(y, at_y):.3g} m"),
        (cubes[:, at_x], y, z, "y", "z", _middle(y, at_y), _middle(z, at_z), f"x = {_middle(x, at_x):.3g} m"),
    )
    extents = [(float(view[1][-1] - view[1][0]), float(view[2][-1] - view[2][0])) for view in views]
    # One scale for all three: widths in proportion, the highest 4 inches, all together at most 11.
    scale = min(4.0 / max(height for _, height in extents), 11.0 / sum(width for width, _ in extents))
    with appearance.style(0.6):
        figure = appearance.new_figure(
            scale * sum(width for width, _ in extents) + 4.2,
            scale * max(height for _, height in extents) + (1.6 if title else 1.1),
        )
        grid = figure.add_gridspec(1, 4, width_ratios=[*(width * scale for width, _ in extents), 0.18])
        norm = _norm(image)
        drawn: Any = None
        for place, (values, across, up, name_across, name_up, mark_across, mark_up, text) in enumerate(views):
            axes = figure.add_subplot(grid[0, place])
            drawn = _draw(axes, values, across, up, norm)
            axes.axvline(mark_across, **_MARK)
            axes.axhline(mark_up, **_MARK)
            axes.set(xlabel=f"{name_across} [m]", ylabel=f"{name_up} [m]", title=text)
        _scale(figure, grid[0, 3], drawn, image)
        if title:
            figure.suptitle(title, x=0.01, ha="left")
    return figure


def layers_figure(image: VoxelImage, *, title: str = "") -> Figure:
    """Horizontal slices through all layers, the highest first; colours as in `slices_figure`.

    Args:
        image: The image.
        title: Above the figure.

    Returns:
        The figure.
    """
    cubes, (x, y, z) = _shown(image), image.edges
    n = image.grid.counts[2]
    chosen = torch.linspace(n - 1, 0, min(n, _MAX_LAYERS)).round().long().tolist()
    columns = min(len(chosen), max(3, math.ceil(math.sqrt(1.6 * len(chosen)))))
    rows = math.ceil(len(chosen) / columns)
    width, height = float(x[-1] - x[0]), float(y[-1] - y[0])
    cell = 1.9 / max(width, height)
    with appearance.style(0.5):
        figure = appearance.new_figure(
            columns * cell * width + 2.6, rows * (cell * height + 0.3) + (1.1 if title else 0.7)
        )
        grid = figure.add_gridspec(rows, columns + 1, width_ratios=[*[cell * width] * columns, 0.14])
        norm = _norm(image)
        first: Any = None
        drawn: Any = None
        for place, layer in enumerate(chosen):
            row, column = divmod(place, columns)
            axes = figure.add_subplot(grid[row, column], sharex=first, sharey=first)
            first = first or axes
            drawn = _draw(axes, cubes[layer].T, x, y, norm)
            axes.set_title(f"z = {float(z[layer]):.3g} to {float(z[layer + 1]):.3g} m", fontsize="medium")
            lowest = place + columns >= len(chosen)
            axes.tick_params(labelleft=column == 0, labelbottom=lowest)
            axes.set_xlabel("x [m]" if lowest else "")
            axes.set_ylabel("y [m]" if column == 0 else "")
        _scale(figure, grid[:, columns], drawn, image)
        if title:
            figure.suptitle(title, x=0.01, ha="left")
    return figure


def densest(image: VoxelImage) -> tuple[int, int, int]:
    """Indices (z, x, y) of the densest place: the voxel whose neighbourhood of 3 x 3 x 3 scatters most by path.

    One voxel alone would often be an accident of few muons.
    """
    seen = image.inverse_x0.isfinite()

    def around(values: Tensor) -> Tensor:
        rim = torch.nn.functional.pad(torch.where(seen, values, 0.0), (1,) * 6)
        return torch.nn.functional.avg_pool3d(rim[None], 3, 1)[0]

    mean = around(image.inverse_x0 * image.path_length) / around(image.path_length)
    at = torch.where(seen, mean, -torch.inf).argmax()
    at_z, at_x, at_y = (int(i) for i in torch.unravel_index(at, seen.shape))
    return at_z, at_x, at_y


_MARK: Final[dict[str, Any]] = {"color": "white", "linewidth": 0.9, "linestyle": (0, (4, 4)), "alpha": 0.8}


def _middle(edges: Tensor, index: int) -> float:
    return float(0.5 * (edges[index] + edges[index + 1]))


def _shown(image: VoxelImage) -> Tensor:
    """X0 with infinity replaced by a large number, so that it is drawn as thin and not as unknown."""
    return torch.where(image.x0.isinf(), 1e9, image.x0)


def _norm(image: VoxelImage) -> Any:
    """The scale: from the densest voxel that is known at all well, to where most of the rest lies."""
    from matplotlib.colors import LogNorm

    finite = image.x0[image.x0.isfinite()]
    if not len(finite):
        return LogNorm(*sorted((X0["lead"], X0["water"])), clip=True)
    known = image.x0[image.x0.isfinite() & (image.x0_unc < 0.5 * image.x0)]
    low = float((known if len(known) else finite).min())
    high = float(finite.quantile(0.75))
    return LogNorm(low, min(max(high, low * _SPAN[0]), low * _SPAN[1]), clip=True)


def _draw(axes: Axes, values: Tensor, across: Tensor, up: Tensor, norm: Any) -> Any:
    """One slice; rows of `values` go up."""
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    extent = (float(across[0]), float(across[-1]), float(up[0]), float(up[-1]))
    colours = colormaps[f"{appearance.CMAP}_r"].with_extremes(bad=appearance.MISSING)
    drawn = axes.imshow(
        values.numpy(force=True), origin="lower", extent=extent, norm=norm, cmap=colours, interpolation="nearest"
    )
    axes.grid(visible=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    return drawn


def _scale(figure: Figure, place: Any, drawn: Any, image: VoxelImage) -> None:
    """The scale of colours, dense matter at the top, with some materials marked."""
    bar = figure.colorbar(drawn, cax=figure.add_subplot(place), label="radiation length $X_0$ [m]")
    bar.ax.invert_yaxis()
    bar.ax.yaxis.set_ticks_position("left")
    bar.ax.yaxis.set_label_position("left")
    low, high = drawn.norm.vmin, drawn.norm.vmax
    marks = [name for name in _LANDMARKS if low <= X0[name] <= high]
    if bool(image.inverse_x0.isnan().any()):
        bar.ax.annotate(
            "grey: no muon", (0.5, 0), (0, -8), "axes fraction", textcoords="offset points", ha="center", va="top"
        )
    twin = bar.ax.secondary_yaxis("right")
    twin.set_yticks([X0[name] for name in marks], marks)
    twin.minorticks_off()
    twin.tick_params(length=3)
