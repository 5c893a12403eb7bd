"""The picture of one muon shows its hits, its fitted lines and its closest approach, in three projections."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffdet.core.errors import InputError
from diffdet.tomography.plotting.tracks import scatter_figure

PLANES = [(0, 2), (1, 2), (0, 1)]


def by_label(axes):
    return dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))


def whole(scatters):
    """A muon that left a hit in every panel."""
    return int(torch.isfinite(scatters.reco_hits).all(-1).all(-1).nonzero()[0])


@pytest.mark.parametrize("k", range(3))
def test_hits_and_errors(scatters, k):
    idx = whole(scatters)
    axes = scatter_figure(scatters, idx).axes[k]
    shown = by_label(axes)
    for side, hits, uncs in (
        ("in", scatters.above_hits, scatters.above_hit_uncs),
        ("out", scatters.below_hits, scatters.below_hit_uncs),
    ):
        points, _, bars = shown[f"hits {side}"].lines
        assert np.array(points.get_data()).T == pytest.approx(hits[idx][:, PLANES[k]].numpy())
        for along, bar in enumerate(bars):
            lengths = [abs(segment[1][along] - segment[0][along]) / 2 for segment in bar.get_segments()]
            assert lengths == pytest.approx(uncs[idx][:, PLANES[k][along]].tolist(), abs=1e-6)


@pytest.mark.parametrize("k", range(3))
def test_lines_pass_the_whole_apparatus_and_through_the_fit(scatters, k):
    idx = whole(scatters)
    shown = by_label(scatter_figure(scatters, idx).axes[k])
    for side, start, vector in (
        ("in", scatters.track_start_in, scatters.track_in),
        ("out", scatters.track_start_out, scatters.track_out),
    ):
        a, v = start[idx].numpy(), vector[idx].numpy()
        ends = np.stack([a + v * (z - a[2]) / v[2] for z in (1.0, 0.0)])  # volume's top and bottom
        assert np.array(shown[f"track {side}"].get_data()).T == pytest.approx(ends[:, PLANES[k]], abs=1e-5)


@pytest.mark.parametrize("k", range(3))
def test_closest_approach_and_its_uncertainty(scatters, k):
    idx = whole(scatters)
    point, _, bars = by_label(scatter_figure(scatters, idx).axes[k])["closest approach"].lines
    assert np.array(point.get_data())[:, 0] == pytest.approx(scatters.poca_xyz[idx, PLANES[k]].numpy())
    for along, bar in enumerate(bars):
        ((low, high),) = bar.get_segments()
        half = float(scatters.poca_xyz_unc[idx, PLANES[k][along]])
        assert (high[along] - low[along]) / 2 == pytest.approx(half, rel=1e-4)


def test_axes_are_named_have_one_scale_and_hold_everything(scatters):
    figure = scatter_figure(scatters, whole(scatters))
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes]
    assert labels == [("x [m]", "z [m]"), ("y [m]", "z [m]"), ("x [m]", "y [m]")]
    for axes in figure.axes:
        assert axes.get_aspect() == 1
        (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
        for line in axes.lines:
            x, y = (np.asarray(v) for v in line.get_data())
            assert ((x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)).all()
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["passive block", "track in", "track out", "hits in", "hits out", "closest approach"]


def test_angles_stand_below(scatters):
    idx = whole(scatters)
    captions = [axes.texts[0].get_text() for axes in scatter_figure(scatters, idx).axes]
    for caption, column, name in zip(captions, (0, 1), "xy", strict=False):
        rows = caption.splitlines()
        assert [row.partition(":")[0] for row in rows] == [
            f"$\\theta_{name}$ in",
            f"$\\theta_{name}$ out",
            f"$|\\Delta\\theta_{name}|$",
        ]
        values = [float(row.partition(":")[2].split()[0].replace("\N{MINUS SIGN}", "-")) for row in rows]
        expected = [scatters.theta_xy_in, scatters.theta_xy_out, scatters.dtheta_xy]
        assert values == pytest.approx([1e3 * float(e[idx, column]) for e in expected], abs=0.06)
    assert f"{1e3 * float(scatters.total_scatter[idx, 0]):.1f}"[:-1] in captions[2].splitlines()[-1]


def test_missing_hits_are_left_out(scatters):
    n_above = torch.isfinite(scatters.above_hits).all(-1).sum(1)
    idx = int((n_above < 3).nonzero()[0])
    points, _, _ = by_label(scatter_figure(scatters, idx).axes[0])["hits in"].lines
    assert len(points.get_xdata()) == int(n_above[idx]) == 2


def test_plot_scatter_of_the_batch_writes_the_file(scatters, tmp_path):
    assert scatters.plot_scatter(-1, tmp_path / "muon.png") is None
    assert (tmp_path / "muon.png").stat().st_size > 10_000


@pytest.mark.parametrize("idx", [10_000, -10_000])
def test_a_muon_that_is_not_there(scatters, idx):
    with pytest.raises(InputError, match=rf"`idx` must be the number of one of {len(scatters)} muons; got {idx}"):
        scatter_figure(scatters, idx)
