"""Pictures of detector panels, for whoever follows an optimisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from diffdet.tomography.plotting.appearance import PALETTE
from diffdet.tomography.plotting.volume import panel_rectangle
from diffdet.tomography.volume.layer import AbsDetectorLayer
from diffdet.tomography.volume.readout import stack_parameters

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_layer", "draw_response"]


def draw_layer(layer: AbsDetectorLayer, footprint: tuple[float, float], front: Axes, side: Axes, above: Axes) -> None:
    """Draw the panels of a layer in x-z, y-z and x-y, at their effective size.

    Args:
        layer: Layer whose panels are drawn, see `panel_rectangle`.
        footprint: Extent of the passive block in x and y, m, hatched.
        front: Where to draw x-z.
        side: Where to draw y-z.
        above: Where to draw x-y.
    """
    from matplotlib.patches import Rectangle

    boxes = [panel_rectangle(panel, layer) for panel in layer.yield_panels()]
    colours = list(PALETTE.values())
    for number, box in enumerate(boxes):
        colour = colours[number % len(colours)]
        for axis, side_range in ((front, box[0]), (side, box[1])):
            axis.plot(side_range, box[2], color=colour, lw=2.5, label=f"panel {number}")
        (left, right), (low, high), _ = box
        # panels of one size lie on top of each other: the first is drawn thickest, so that all can be seen
        width = 1.5 + 1.5 * (len(boxes) - 1 - number)
        above.add_patch(Rectangle((left, low), right - left, high - low, fill=False, color=colour, lw=width))
    above.add_patch(Rectangle((0, 0), *footprint, fill=False, hatch="//", color="0.6", alpha=0.4, zorder=0.5))
    ranges = [
        _with_room(min(0.0, *(box[k][0] for box in boxes)), max(footprint[k], *(box[k][1] for box in boxes)))
        for k in range(2)
    ]
    heights = _with_room(layer.bottom, layer.top)
    front.set(xlabel="x [m]", ylabel="z [m]", xlim=ranges[0], ylim=heights)
    side.set(xlabel="y [m]", ylabel="z [m]", xlim=ranges[1], ylim=heights)
    above.set(xlabel="x [m]", ylabel="y [m]", xlim=ranges[0], ylim=ranges[1], aspect="equal")
    front.set_title(layer.pos.capitalize(), loc="left")


def _with_room(low: float, high: float) -> tuple[float, float]:
    """A range with a little room, so that lines on its ends are seen whole."""
    room = 0.04 * (high - low)
    return low - room, high + room


def draw_response(layer: AbsDetectorLayer, axis: Axes) -> None:
    """Draw how the resolution of a layer's first panel falls towards its edge and beyond.

    Args:
        layer: Layer with panels; the whole layer stands for a panel that does not say where it is.
        axis: Where to draw it: position in half widths of the panel, resolution relative to the best one.
    """
    panel = next(iter(layer.yield_panels()))
    parameters = {name: value.detach() for name, value in panel.response_parameters().items()}
    (left, right), (low, high), _ = panel_rectangle(panel, layer)
    like = next(iter(parameters.values()))
    position = torch.linspace(-2, 2, 201, dtype=like.dtype, device=like.device)
    across = 0.5 * (left + right) + position * (right - left) / 2
    line = torch.stack([across, torch.full_like(across, 0.5 * (low + high))])
    with torch.no_grad():
        resolution = panel.response(line[None], **stack_parameters([parameters], line))[0][0, 0]
    axis.plot(position.cpu().numpy(), (resolution / resolution.max()).cpu().numpy(), color=PALETTE["blue"])
    axis.axvspan(-1, 1, color="grey", alpha=0.2)
    axis.set_ylim(0, 1.05)
    axis.set_xlabel("Position [half widths]")
    axis.set_ylabel("Relative resolution")
