"""The detector as a picture: before and after, and as an interactive view over the epochs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

# The viewer stands before the front right corner and looks down: high enough that horizontal panels are seen from
# above.
_AZIMUTH, _ELEVATION = math.radians(28), math.radians(20)
_SCALE, _MARGIN = 300.0, 26.0
MAX_FRAMES = 60
"""Most epochs in the interactive view; more are thinned out, the first and the last kept."""


def geometry(config: dict[str, Any]) -> dict[str, Any]:
    """Extent of the volume from a resolved configuration.

    Returns:
        ``lw`` (m), ``passive`` (bottom and top of the passive block, m) and ``height`` (m).
    """
    layers = config["volume"]["layers"]
    passive = [layer for layer in layers if layer["kind"] == "passive"]
    return {
        "lw": tuple(config["volume"]["lw"]),
        "passive": (passive[-1]["z"] - passive[-1]["thickness"], passive[0]["z"]),
        "height": layers[0]["z"],
    }


def _corners(panel: dict[str, Any]) -> list[tuple[float, float, float]]:
    (x, y, z), (dx, dy) = panel["xyz_m"], panel["span_m"]
    return [
        (x - dx / 2, y - dy / 2, z),
        (x + dx / 2, y - dy / 2, z),
        (x + dx / 2, y + dy / 2, z),
        (x - dx / 2, y + dy / 2, z),
    ]


def _box(low: Sequence[float], high: Sequence[float]) -> dict[str, list[tuple[float, float, float]]]:
    """The faces of a box that the viewer sees, and those behind, as polygons."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    return {
        "floor": [(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)],
        "front": [(x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)],
        "side": [(x1, y0, z0), (x1, y1, z0), (x1, y1, z1), (x1, y0, z1)],
        "top": [(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)],
    }


def project(point: Sequence[float]) -> tuple[float, float]:
    """A point in the volume on the page: parallel projection, x to the right and y down."""
    x, y, z = point
    right = x * math.cos(_AZIMUTH) + y * math.sin(_AZIMUTH)
    away = y * math.cos(_AZIMUTH) - x * math.sin(_AZIMUTH)
    up = z * math.cos(_ELEVATION) + away * math.sin(_ELEVATION)
    return right * _SCALE, -up * _SCALE


def _points(polygon: Sequence[Sequence[float]]) -> str:
    return " ".join("{:.1f},{:.1f}".format(*project(point)) for point in polygon)


def still(
    panels: Sequence[dict[str, Any]], space: dict[str, Any], reach: Sequence[Sequence[float]], description: str
) -> str:
    """The detector in parallel projection, as SVG in the colours of the page.

    Panels are horizontal and seen from above, so drawing from the lowest up hides what is hidden.

    Args:
        panels: Panels as in `detectors.jsonl`.
        space: Result of `geometry`.
        reach: Points that must fit into the picture, so that pictures to be compared share one scale.
        description: What can be seen.

    Returns:
        An `svg` element.
    """
    bottom, top = space["passive"]
    block = _box((0, 0, bottom), (*space["lw"], top))
    shapes: list[str] = []

    def panel_shape(panel: dict[str, Any]) -> str:
        return f'<polygon class="panel {panel["position"]}" points="{_points(_corners(panel))}"/>'

    ordered = sorted(panels, key=lambda panel: panel["xyz_m"][2])
    shapes += [panel_shape(panel) for panel in ordered if panel["position"] == "below"]
    shapes += [
        f'<polygon class="block {name}" points="{_points(block[name])}"/>' for name in ("floor", "front", "side", "top")
    ]
    shapes += [panel_shape(panel) for panel in ordered if panel["position"] != "below"]
    page = [project(point) for point in reach]
    xs, ys = [x for x, _ in page], [y for _, y in page]
    shapes += _ruler(space, max(xs) + _MARGIN)
    left, upper = min(xs) - _MARGIN, min(ys) - _MARGIN
    size = (max(xs) - left + 3.2 * _MARGIN, max(ys) - upper + _MARGIN)
    box = f"{left:.0f} {upper:.0f} {size[0]:.0f} {size[1]:.0f}"
    head = f'<svg class="still" viewBox="{box}" role="img" aria-label="{description}">'
    return head + "".join(shapes) + "</svg>"


def _ruler(space: dict[str, Any], x: float) -> list[str]:
    """Heights to the right of the picture, level with the right edge of the block."""
    marks, ends = [], []
    for z in (0.0, *space["passive"], space["height"]):
        edge, y = project((*space["lw"], z))
        ends.append(y)
        marks.append(
            f'<text class="mark" x="{x + 9:.1f}" y="{y + 4.5:.1f}">{z:g} m</text><path class="tick" d="M{x - 4:.1f} '
            f'{y:.1f}h8"/>'
        )
        if z in space["passive"]:
            marks.append(f'<path class="tick leader" d="M{edge:.1f} {y:.1f}H{x:.1f}"/>')
    return [f'<path class="tick" d="M{x:.1f} {min(ends):.1f}V{max(ends):.1f}"/>', *marks]


def reach_of(snapshots: Sequence[Sequence[dict[str, Any]]], space: dict[str, Any]) -> list[tuple[float, float, float]]:
    """Points that pictures of all these detectors must show."""
    (x, y), height = space["lw"], space["height"]
    points = [(a, b, c) for a in (0.0, x) for b in (0.0, y) for c in (0.0, height)]
    return points + [corner for panels in snapshots for panel in panels for corner in _corners(panel)]


def thin(entries: Sequence[dict[str, Any]], most: int = MAX_FRAMES) -> list[dict[str, Any]]:
    """At most so many entries, evenly spread, with the first and the last."""
    if len(entries) <= most:
        return list(entries)
    places = sorted({round(k * (len(entries) - 1) / (most - 1)) for k in range(most)})
    return [entries[place] for place in places]


def _mesh(panels: Sequence[dict[str, Any]], position: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """All panels of one side as one mesh of triangles, and their edges as one broken line."""
    x: list[float] = []
    y: list[float] = []
    z: list[float] = []
    triangles: tuple[list[int], list[int], list[int]] = ([], [], [])
    edges: tuple[list[float | None], list[float | None], list[float | None]] = ([], [], [])
    for panel in panels:
        if panel["position"] != position:
            continue
        corners = [tuple(round(value, 5) for value in corner) for corner in _corners(panel)]
        first = len(x)
        for corner in corners:
            for axis, values in zip(corner, (x, y, z), strict=True):
                values.append(axis)
        for triangle in ((0, 1, 2), (0, 2, 3)):
            for corner_number, column in zip(triangle, triangles, strict=True):
                column.append(first + corner_number)
        for corner in (*corners, corners[0], (None, None, None)):
            for value, edge in zip(corner, edges, strict=True):
                edge.append(value)
    mesh = {"type": "mesh3d", "x": x, "y": y, "z": z, "i": triangles[0], "j": triangles[1], "k": triangles[2]}
    return mesh, {"type": "scatter3d", "mode": "lines", "x": edges[0], "y": edges[1], "z": edges[2]}


def interactive(entries: Sequence[dict[str, Any]], space: dict[str, Any]) -> dict[str, str] | None:
    """The detector over the epochs, to be turned with the mouse, with a slider.

    Args:
        entries: Lines of `detectors.jsonl`.
        space: Result of `geometry`.

    Returns:
        ``library``, the code of plotly, and ``data``, the view as JSON for `view.js`; None where plotly is not
        installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        return None
    frames = []
    for entry in thin(entries):
        above, above_edges = _mesh(entry["panels"], "above")
        below, below_edges = _mesh(entry["panels"], "below")
        frames.append({"epoch": entry["epoch"], "traces": [above, above_edges, below, below_edges]})
    reach = reach_of([entry["panels"] for entry in entries], space)
    ranges = [[min(p[axis] for p in reach), max(p[axis] for p in reach)] for axis in range(3)]
    view = {
        "frames": frames,
        "block": [[0, 0, space["passive"][0]], [*space["lw"], space["passive"][1]]],
        "ranges": ranges,
    }
    # `</` inside a script would end it.
    return {
        "library": get_plotlyjs().replace("</script", "<\\/script"),
        "data": json.dumps(view, allow_nan=False).replace("</", "<\\/"),
    }
