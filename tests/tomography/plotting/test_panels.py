"""Views of a detector layer, as an optimisation draws them, hold every panel at its place and effective size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from diffdet.tomography.plotting.panels import draw_layer, draw_response
from diffdet.tomography.plotting.volume import panel_rectangle
from diffdet.tomography.volume.heatmap import DetectorHeatMap
from diffdet.tomography.volume.layer import PanelDetectorLayer
from diffdet.tomography.volume.panel import SigmoidDetectorPanel


def drawn(layer):
    axes = Figure().subplots(1, 3)
    draw_layer(layer, (1.0, 0.6), *axes)
    return axes


def test_three_views_of_every_panel(volume):
    layer = volume.get_detectors()[0]
    front, side, above = drawn(layer)
    boxes = [panel_rectangle(panel) for panel in layer.yield_panels()]
    assert [line.get_xdata() for line in front.lines] == [pytest.approx(box[0]) for box in boxes]
    assert [line.get_xdata() for line in side.lines] == [pytest.approx(box[1]) for box in boxes]
    assert [line.get_ydata()[0] for line in front.lines] == pytest.approx([0.75, 0.95, 0.85])
    rectangles = [p for p in above.patches if isinstance(p, Rectangle)]
    for rectangle, (x, y, _) in zip(rectangles, boxes, strict=False):
        assert rectangle.get_bbox().extents == pytest.approx([x[0], y[0], x[1], y[1]])
    footprint = rectangles[-1]
    assert footprint.get_bbox().extents.tolist() == [0, 0, 1.0, 0.6]
    assert footprint.get_hatch() == "//"


def test_a_panel_has_one_colour_in_all_views_and_hides_no_other(volume):
    front, side, above = drawn(volume.get_detectors()[0])
    colours = [line.get_color() for line in front.lines]
    assert [line.get_color() for line in side.lines] == colours
    assert len(set(colours)) == 3
    widths = [patch.get_linewidth() for patch in above.patches[:3]]
    assert widths == sorted(widths, reverse=True)


def test_axes_are_named_and_hold_everything(volume):
    layer = volume.get_detectors()[1]
    axes = drawn(layer)
    assert [(a.get_xlabel(), a.get_ylabel()) for a in axes] == [
        ("x [m]", "z [m]"),
        ("y [m]", "z [m]"),
        ("x [m]", "y [m]"),
    ]
    assert axes[0].get_title(loc="left") == "Below"
    for axis in axes[:2]:
        assert axis.get_ylim()[0] < layer.bottom
        assert axis.get_ylim()[1] > layer.top
        for line in axis.lines:
            assert axis.get_xlim()[0] < min(line.get_xdata())
            assert axis.get_xlim()[1] > max(line.get_xdata())
    assert axes[2].get_aspect() == 1


def test_heat_maps_are_drawn_too():
    panel = DetectorHeatMap(res=1e4, eff=0.9, init_xyz=(0.5, 0.4, 0.9), init_xy_span=(0.0, 0.5))
    layer = PanelDetectorLayer("above", lw=torch.tensor([1.0, 0.6]), z=1.0, size=0.3, panels=[panel])
    front, _, _ = drawn(layer)
    width = float(panel.get_scaled_xy_span()[0].detach())
    assert np.ptp(front.lines[0].get_xdata()) == pytest.approx(width, rel=1e-5)


def test_response_is_that_of_the_sigmoid():
    panel = SigmoidDetectorPanel(smooth=0.5, res=1e4, eff=0.9, init_xyz=(0.5, 0.4, 0.9), init_xy_span=(0.8, 0.4))
    axes = Figure().subplots()
    draw_response(PanelDetectorLayer("above", lw=torch.tensor([1.0, 0.6]), z=1.0, size=0.3, panels=[panel]), axes)
    position, response = axes.lines[0].get_data()
    # values of the specification's table for smoothness 0.5 at 0, 1/2, 1, 3/2 and 2 half widths
    for where, expected in ((0, 1.0), (0.5, 0.829997), (1, 0.567668), (1.5, 0.305339), (2, 0.135335)):
        assert np.interp([where, -where], position, response) == pytest.approx([expected] * 2, abs=2e-3)
