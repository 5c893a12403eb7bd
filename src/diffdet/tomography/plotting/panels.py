"""Pictures of detector panels, for whoever follows an optimisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from diffdet.tomography.volume.layer import AbsDetectorLayer
from diffdet.tomography.volume.panel import AbsPanel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_layer", "draw_response"]


def _centre_and_span(panel: AbsPanel) -> tuple[list[float], list[float]]:
    """Centre and effective widths of a panel in x and y, m."""
    parameters = panel.response_parameters()
    return parameters["centre"].detach().tolist(), parameters["span"].detach().tolist()


def draw_layer(layer: AbsDetectorLayer, footprint: tuple[float, float], front: Axes, side: Axes, above: Axes) -> None:
    """Draw the panels of a layer in x-z, y-z and x-y.

    Args:
        layer: Layer whose panels have a centre and a span.
        footprint: Extent of the passive block in x and y, m, hatched.
        front: Where to draw x-z.
        side: Where to draw y-z.
        above: Where to draw x-y.
    """
    from matplotlib.patches import Rectangle

    for number, panel in enumerate(layer.yield_panels()):
        centre, span = _centre_and_span(panel)
        z = float(panel.z.detach())
        colour = f"C{number % 10}"
        for k, axis in enumerate((front, side)):
            axis.plot([centre[k] - span[k] / 2, centre[k] + span[k] / 2], [z, z], color=colour, lw=2)
        corner = (centre[0] - span[0] / 2, centre[1] - span[1] / 2)
        above.add_patch(Rectangle(corner, *span, fill=False, color=colour, lw=2))
    above.add_patch(Rectangle((0, 0), *footprint, fill=False, hatch="//", color="grey", alpha=0.4))
    for axis, (first, second) in zip((front, side, above), ("xz", "yz", "xy"), strict=True):
        axis.set_xlabel(f"{first} [m]")
        axis.set_ylabel(f"{second} [m]")
    front.set_title(layer.pos.capitalize(), loc="left")
    for axis in (front, side):
        axis.set_ylim(layer.bottom, layer.top)
    above.autoscale_view()
    above.set_aspect("equal")


def draw_response(layer: AbsDetectorLayer, axis: Axes) -> None:
    """Draw how the resolution of a layer's first panel falls towards its edge and beyond.

    Args:
        layer: Layer whose panels have a centre and a span.
        axis: Where to draw it: position in half widths of the panel, resolution relative to the nominal one.
    """
    panel: Any = next(iter(layer.yield_panels()))
    parameters = panel.response_parameters()
    centre, span, nominal = (parameters[name].detach() for name in ("centre", "span", "resolution"))
    position = torch.linspace(-2, 2, 201, dtype=span.dtype, device=span.device)
    line = torch.stack([centre[0] + position * span[0] / 2, centre[1].expand_as(position)])
    shaped = {name: value.detach().reshape(-1, 1) for name, value in parameters.items()}
    with torch.no_grad():
        resolution = panel.response(line, **shaped)[0][0] / nominal
    axis.plot(position.cpu().numpy(), resolution.cpu().numpy())
    axis.axvspan(-1, 1, color="grey", alpha=0.2)
    axis.set_ylim(0, 1.05)
    axis.set_xlabel("Position [half widths]")
    axis.set_ylabel("Relative resolution")
