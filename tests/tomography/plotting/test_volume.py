"""The three-dimensional picture shows every layer and panel where it is, at its effective size, seen to one scale."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection
from torch import nn

from diffdet.core.errors import InputError, NotSupportedError
from diffdet.tomography.plotting.volume import draw_volume, panel_rectangle
from diffdet.tomography.volume.heatmap import DetectorHeatMap
from diffdet.tomography.volume.layer import PanelDetectorLayer
from diffdet.tomography.volume.panel import AbsPanel
from diffdet.tomography.volume.volume import Volume

LIMITS = {"xlim": (-0.5, 1.5), "ylim": (-0.4, 1.0), "zlim": (-0.1, 1.2)}


def solids(axes, label):
    """Low and high corner of every solid of a kind, as drawn."""
    out = []
    for solid in axes.collections:
        if isinstance(solid, Poly3DCollection) and solid.get_label() == label:
            corners = np.concatenate([np.asarray(face) for face in solid._faces])
            out.append((corners.min(0), corners.max(0)))
    return out


def test_every_passive_layer_is_a_box_at_its_place(volume):
    axes = draw_volume(volume, **LIMITS)
    boxes = solids(axes, "passive layer")
    assert len(boxes) == 4
    for (low, high), top in zip(boxes, (0.7, 0.6, 0.5, 0.4), strict=True):
        assert low == pytest.approx([0, 0, top - 0.1])
        assert high == pytest.approx([1.0, 0.6, top])


def test_panels_have_their_effective_size_and_ascend(volume):
    axes = draw_volume(volume, **LIMITS)
    drawn = solids(axes, "panel")
    expected = []
    for layer in volume.get_detectors():
        expected += sorted(layer.yield_panels(), key=lambda p: float(p.z.detach()))
    assert len(drawn) == 5
    for (low, high), panel in zip(drawn, expected, strict=True):
        width = panel.get_scaled_xy_span().detach().numpy()
        assert high[:2] - low[:2] == pytest.approx(width, rel=1e-6)
        assert width.prod() == pytest.approx(1.0, rel=1e-5)  # five panels share a budget of 5 at 1 a square metre
        assert (high + low) / 2 == pytest.approx([*panel.xy.tolist(), float(panel.z.detach())], abs=1e-6)


def test_limits_labels_scale_and_legend(volume):
    axes = draw_volume(volume, **LIMITS)
    assert axes.get_xlim() == (-0.5, 1.5)  # the published package swaps x and y
    assert axes.get_ylim() == (-0.4, 1.0)
    assert axes.get_zlim() == (-0.1, 1.2)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_zlabel()) == ("x [m]", "y [m]", "z [m]")
    assert axes.get_title() == "Volume layers"
    aspect = np.asarray(axes._box_aspect)
    assert aspect / aspect[0] == pytest.approx([1, 0.7, 0.65])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "Passive layers",
        "Detector layers",
        "Panels",
    ]


@pytest.mark.parametrize("elevation", [30, -30])
def test_what_is_nearer_is_painted_later_from_above_and_from_below(volume, elevation):
    axes = draw_volume(volume, **LIMITS)
    axes.view_init(elev=elevation)
    FigureCanvasAgg(axes.figure).draw()
    drawn = [c for c in axes.collections if isinstance(c, Poly3DCollection)]
    heights = [
        float(np.mean([np.mean(f, 0)[2] for f in c._faces])) for c in sorted(drawn, key=lambda c: c.get_zorder())
    ]
    assert heights == sorted(heights, reverse=elevation < 0)


def test_what_lies_outside_the_limits_is_cut_off(volume):
    axes = draw_volume(volume, xlim=(0.2, 0.8), ylim=(-1, 1), zlim=(0.45, 0.9))
    boxes = solids(axes, "passive layer")
    assert [(pytest.approx(low[2]), pytest.approx(high[2])) for low, high in boxes] == [
        (0.6, 0.7),
        (0.5, 0.6),
        (0.45, 0.5),
    ]
    for low, high in boxes + solids(axes, "panel"):
        assert low[0] >= 0.2
        assert high[0] <= 0.8
    assert len(solids(axes, "panel")) == 2  # of five: those at 0.75 and 0.85 m


def test_frames_of_the_detector_layers_have_twelve_edges(volume):
    axes = draw_volume(volume, **LIMITS)
    frames = [c for c in axes.collections if isinstance(c, Line3DCollection) and c.get_label() == "detector layer"]
    assert [len(f._segments3d) for f in frames] == [12, 12]


def test_given_axes_are_drawn_into_and_saved_where_asked(volume, tmp_path):
    figure = plt.figure()
    mine = figure.add_subplot(projection="3d")
    assert draw_volume(volume, **LIMITS, ax=mine, savename=tmp_path / "mine.png") is mine
    assert len(solids(mine, "panel")) == 5
    assert (tmp_path / "mine.png").stat().st_size > 10_000
    plt.close(figure)


def test_volume_draw_and_saving(volume, tmp_path):
    assert volume.draw(**LIMITS) is None
    draw_volume(volume, **LIMITS, savename=tmp_path / "v.png")
    assert (tmp_path / "v.png").stat().st_size > 10_000


@pytest.mark.parametrize("bad", [(1.0, 1.0), (1.0, 0.0), (0.0, float("nan")), (0.0, 1.0, 2.0)])
def test_limits_that_make_no_range(volume, bad):
    with pytest.raises(InputError, match="`ylim` must be"):
        draw_volume(volume, **{**LIMITS, "ylim": bad})


def test_heat_maps_are_drawn_at_their_effective_size():
    panel = DetectorHeatMap(res=1e4, eff=0.9, init_xyz=(0.5, 0.4, 0.9), init_xy_span=(0.0, 0.5))
    lw = torch.tensor([1.0, 0.6])
    volume = Volume([PanelDetectorLayer("above", lw=lw, z=1.0, size=0.3, panels=[panel])])
    axes = draw_volume(volume, xlim=(-2, 2), ylim=(-2, 2), zlim=(0, 1))
    ((low, high),) = solids(axes, "panel")
    expected = panel.get_scaled_xy_span().detach().numpy()
    assert high[:2] - low[:2] == pytest.approx(expected, rel=1e-5)
    assert (high + low) / 2 == pytest.approx([*panel.mu.detach().mean(0).tolist(), 0.9], abs=1e-5)


class Strip(AbsPanel):
    """A panel of another make: it says where it is through its response only."""

    def __init__(self, **parameters: torch.Tensor) -> None:
        super().__init__()
        self.z = torch.tensor([0.5])
        self.given = parameters

    def parameter_families(self) -> dict[str, nn.Parameter]:
        return {}

    def response_parameters(self) -> dict[str, torch.Tensor]:
        return self.given

    @staticmethod
    def response(xy, **parameters):
        return xy, xy[0]

    def get_cost(self):
        return torch.ones(())


def test_any_panel_that_says_where_it_is_can_be_drawn():
    strip = Strip(centre=torch.tensor([0.25, 0.5]), span=torch.tensor([0.5, 0.25]))
    assert panel_rectangle(strip) == ((0.0, 0.5), (0.375, 0.625), (0.5, 0.5))


def test_a_panel_that_does_not_is_refused_by_name():
    with pytest.raises(NotSupportedError, match=r"a Strip cannot be drawn.*`centre`.*it has width"):
        panel_rectangle(Strip(width=torch.ones(2)))
