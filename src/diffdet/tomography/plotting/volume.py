"""The apparatus in three dimensions."""

from __future__ import annotations

import os
from itertools import product
from typing import TYPE_CHECKING, Any

import torch

from diffdet.core.checks import check_finite
from diffdet.core.errors import InputError, NotSupportedError
from diffdet.tomography.plotting import appearance
from diffdet.tomography.plotting.appearance import PALETTE

if TYPE_CHECKING:
    from mpl_toolkits.mplot3d import Axes3D

    from diffdet.tomography.volume.layer import AbsLayer
    from diffdet.tomography.volume.panel import AbsPanel
    from diffdet.tomography.volume.volume import Volume

_FRAME: dict[str, Any] = {"color": "0.45", "linestyle": ":", "linewidth": 1.2}

__all__ = ["draw_volume", "panel_rectangle"]

_Range = tuple[float, float]
_Box = tuple[_Range, _Range, _Range]


def panel_rectangle(panel: AbsPanel, layer: AbsLayer | None = None) -> _Box:
    """Where a panel is and how large it effectively is.

    Args:
        panel: Any panel, see `AbsPanel.rectangle`.
        layer: Its layer, whose whole extent stands for a panel that does not say where it is.

    Returns:
        Ranges in x and y, and the height twice, m.

    Raises:
        NotSupportedError: If the panel does not say where it is, and there is no layer.
    """
    (z,) = _numbers(panel.z)
    found = panel.rectangle()
    if found is not None:
        (x, y), (width, depth) = _numbers(found[0]), _numbers(found[1])
        return (x - width / 2, x + width / 2), (y - depth / 2, y + depth / 2), (z, z)
    if layer is None:
        has = ", ".join(panel.response_parameters()) or "none"
        raise NotSupportedError(
            f"a {type(panel).__name__} cannot be drawn: it needs `x`, `y` and `get_scaled_xy_span()`, or `centre` and "
            f"`span` among its response parameters; it has {has}"
        )
    return (0.0, layer.extent[0]), (0.0, layer.extent[1]), (z, z)


def _numbers(values: Any) -> list[float]:
    """Plain numbers from a tensor."""
    return torch.as_tensor(values).detach().flatten().tolist()


def draw_volume(
    volume: Volume,
    *,
    xlim: _Range,
    ylim: _Range,
    zlim: _Range,
    ax: Axes3D | None = None,
    savename: str | os.PathLike[str] | None = None,
) -> Axes3D:
    """Draw passive layers, detector layers and panels in three dimensions, all axes to one scale.

    Panels have their effective size. What lies outside the limits is cut off.

    Args:
        volume: What to draw.
        xlim: Range of x, m.
        ylim: Range of y, m.
        zlim: Range of z, m.
        ax: Three-dimensional axes to draw into. When None, a new figure, which is shown where there is somebody to show
            it to.
        savename: File to save the figure to.

    Returns:
        The axes.

    Raises:
        InputError: If a range is not two finite numbers, the lower one first.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    limits = _checked("xlim", xlim), _checked("ylim", ylim), _checked("zlim", zlim)
    own = ax is None
    with appearance.style(0.65):
        if ax is None:
            axes: Axes3D = appearance.new_figure(9, 9).add_subplot(projection="3d")
        else:
            axes = ax
        legend: dict[str, Patch | Line2D] = {}
        for passive in volume.get_passives():
            _add_box(axes, _slab(passive), limits, PALETTE["sky"], PALETTE["blue"], 0.3, "passive layer")
            legend["Passive layers"] = Patch(facecolor=PALETTE["sky"], edgecolor=PALETTE["blue"], alpha=0.6)
        for detector in volume.get_detectors():
            _add_frame(axes, _slab(detector), limits)
            legend["Detector layers"] = Line2D([], [], **_FRAME)
            for panel in sorted(detector.yield_panels(), key=lambda p: _numbers(p.z)):
                colour = PALETTE["vermillion"]
                _add_box(axes, panel_rectangle(panel, detector), limits, colour, colour, appearance.FACE_ALPHA, "panel")
                legend["Panels"] = Patch(facecolor=colour, edgecolor=colour, alpha=0.5)
        axes.set(xlim=limits[0], ylim=limits[1], zlim=limits[2], title="Volume layers")
        axes.set_xlabel("x [m]", labelpad=8)
        axes.set_ylabel("y [m]", labelpad=8)
        axes.set_zlabel("z [m]", labelpad=8)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(7, prune="both"))  # in the front corner their labels would meet
        axes.set_box_aspect([high - low for low, high in limits])
        axes.legend(list(legend.values()), list(legend), loc="upper right")
        figure: Any = axes.get_figure(root=True)
        if own:
            appearance.present(figure, savename)
        elif savename is not None:
            appearance.save(figure, savename)
    return axes


def _checked(name: str, limits: _Range) -> _Range:
    if len(limits) != 2:
        raise InputError(f"`{name}` must be (low, high) in m; got {limits!r}")
    low, high = float(limits[0]), float(limits[1])
    check_finite(name, low)
    check_finite(name, high)
    if low >= high:
        raise InputError(f"`{name}` must be (low, high) with low < high, m; got {limits!r}")
    return low, high


def _slab(layer: AbsLayer) -> _Box:
    return (0.0, layer.extent[0]), (0.0, layer.extent[1]), (layer.bottom, layer.top)


def _cut(box: _Box, limits: _Box) -> _Box | None:
    """The part of a box that lies within the limits; None where there is none."""
    cut = [(max(low, bottom), min(high, top)) for (low, high), (bottom, top) in zip(box, limits, strict=True)]
    if any(low > high for low, high in cut):
        return None
    x, y, z = cut
    return x, y, z


def _corner(box: _Box, high: tuple[int, ...]) -> tuple[float, float, float]:
    x, y, z = (side[k] for side, k in zip(box, high, strict=True))
    return x, y, z


def _add_box(axes: Axes3D, box: _Box, limits: _Box, face: str, edge: str, alpha: float, label: str) -> None:
    """Add a box, or, where it has no height, a rectangle."""
    from matplotlib.colors import to_rgba
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    cut = _cut(box, limits)
    if cut is None:
        return
    flat = cut[2][0] == cut[2][1]
    ring = ((0, 0), (1, 0), (1, 1), (0, 1))
    faces = []
    for axis, side in [(2, 0)] if flat else product(range(3), range(2)):
        corners = [list(pair) for pair in ring]
        for pair in corners:
            pair.insert(axis, side)
        faces.append([_corner(cut, (i, j, k)) for i, j, k in corners])
    solid = Poly3DCollection(
        faces,
        facecolors=to_rgba(face, alpha),
        edgecolors=to_rgba(edge, 0.8),
        linewidths=1.5 if flat else 0.7,
        label=label,
    )
    # Everything lies in horizontal slabs that do not overlap, so painting them in the order of their heights is right
    # from every side; by the distance of their centres it would not be.
    solid.set_sort_zpos(sum(cut[2]) / 2)
    axes.add_collection3d(solid)


def _add_frame(axes: Axes3D, box: _Box, limits: _Box) -> None:
    """Add the edges of a box."""
    from mpl_toolkits.mplot3d.art3d import Line3DCollection

    cut = _cut(box, limits)
    if cut is None:
        return
    corners = list(product(range(2), repeat=3))
    ends = [
        (a, b)
        for a, b in product(corners, corners)
        if a < b and sum(abs(i - j) for i, j in zip(a, b, strict=True)) == 1
    ]
    frame = Line3DCollection(
        [[_corner(cut, a), _corner(cut, b)] for a, b in ends],
        colors=_FRAME["color"],
        linestyles=_FRAME["linestyle"],
        linewidths=_FRAME["linewidth"],
        label="detector layer",
    )
    axes.add_collection3d(frame)
