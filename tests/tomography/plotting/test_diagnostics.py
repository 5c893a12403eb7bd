"""Histograms of hits and scatters hold every recorded position once, layer by layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffdet.core.errors import InputError, ShapeError
from diffdet.tomography.plotting.diagnostics import density_figure, plot_hit_density, plot_scatter_density


class Frame:
    """What the functions need of a DataFrame: columns by name, each with `to_numpy`."""

    class Column:
        def __init__(self, values):
            self.values = np.asarray(values)

        def to_numpy(self):
            return self.values

    def __init__(self, columns):
        self.columns = {name: Frame.Column(values) for name, values in columns.items()}

    def __getitem__(self, name):
        return self.columns[name]

    def __contains__(self, name):
        return name in self.columns

    def keys(self):
        return self.columns.keys()


def record(n=3000):
    """Uniform positions on 1 m x 0.5 m in three layers, named in no order."""
    uniform = torch.rand((3, n), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    layer = (uniform[2] * 6).floor() % 3
    return {"x": uniform[0], "y": 0.5 * uniform[1], "z": 2 - 0.5 * layer, "layer": layer}


def maps(figure):
    return [axes for axes in figure.axes if axes.get_title(loc="left")]


def counts(axes):
    return np.asarray(axes.collections[0].get_array())


def test_one_map_a_layer_ascending_and_every_entry_counted():
    table = record()
    shown = maps(density_figure(table, "hits"))
    assert len(shown) == 3
    for k, axes in enumerate(shown):
        n = int((table["layer"] == k).sum())
        assert counts(axes).sum() == n
        assert axes.get_title(loc="left") == f"Layer {k}, z = {2 - 0.5 * k:.3g} m\n{n:,} hits"


def test_columns_are_x_and_rows_are_y():
    # all entries of one quadrant: low x, high y
    generator = torch.Generator().manual_seed(2)
    corner = torch.rand((2, 400), generator=generator, dtype=torch.float64) * 0.2
    table = {
        "x": torch.cat([corner[0], torch.tensor([0.0, 1.0])]),
        "y": torch.cat([0.8 + corner[1], torch.tensor([0.0, 1.0])]),
        "layer": torch.zeros(402),
    }
    (axes,) = maps(density_figure({**table, "x": table["x"], "y": table["y"]}, "PoCAs"))
    hist = counts(axes)
    rows, columns = hist.shape
    # the two far entries lie outside the range of the bulk and are said to
    assert "outside" in axes.get_title(loc="left")
    assert axes.get_ylim()[0] > 0.7
    assert axes.get_xlim()[1] < 0.3
    assert hist.sum() == 400
    assert rows > 1
    assert columns > 1


def test_layers_share_range_bins_colours_and_scale():
    figure = density_figure(record(), "hits")
    shown = maps(figure)
    assert len({axes.get_xlim() for axes in shown}) == 1
    assert len({counts(axes).shape for axes in shown}) == 1
    assert {axes.collections[0].get_clim() for axes in shown} == {(0.0, max(counts(a).max() for a in shown))}
    assert {axes.get_aspect() for axes in shown} == {1.0}
    assert shown[0].get_ylabel() == "y [m]"
    assert all(axes.get_xlabel() == "x [m]" for axes in shown)
    bar = next(axes for axes in figure.axes if axes not in shown)
    assert bar.get_ylabel().startswith("hits per ")
    assert bar.get_ylabel().count(" cm") == 2


def test_bins_are_about_square():
    (axes, *_) = maps(density_figure(record(), "hits"))
    mesh = axes.collections[0].get_coordinates()
    width, height = mesh[0, 1, 0] - mesh[0, 0, 0], mesh[1, 0, 1] - mesh[0, 0, 1]
    assert width == pytest.approx(height, rel=0.15)


def test_positions_without_end_do_not_squeeze_the_picture():
    table = record()
    table["x"][:5] = 1e6  # a hit recorded far beside the panel
    shown = maps(density_figure(table, "hits"))
    assert shown[0].get_xlim()[1] < 1.5
    outside = [int(t.split(", ")[-1].split()[0]) for a in shown if "outside" in (t := a.get_title(loc="left"))]
    assert sum(outside) == 5
    assert sum(counts(axes).sum() for axes in shown) == 2995


def test_missing_hits_are_not_counted():
    table = record()
    table["y"][:7] = torch.nan
    assert sum(counts(axes).sum() for axes in maps(density_figure(table, "hits"))) == 2993


def test_data_frames_mappings_and_tensors_give_one_picture(tmp_path):
    hits = torch.rand((50, 4, 3), generator=torch.Generator().manual_seed(3))
    columns = {
        "x": hits[..., 0].flatten(),
        "y": hits[..., 1].flatten(),
        "layer": torch.arange(4).repeat(50),
    }
    of_tensor = [counts(axes) for axes in maps(density_figure(hits, "hits"))]
    of_mapping = [counts(axes) for axes in maps(density_figure(columns, "hits"))]
    of_frame = [counts(axes) for axes in maps(density_figure(Frame(columns), "hits"))]
    assert len(of_tensor) == 4
    for a, b, c in zip(of_tensor, of_mapping, of_frame, strict=True):
        assert (a == b).all()
        assert (a == c).all()
    assert plot_hit_density(Frame(columns), str(tmp_path / "hits.png")) is None
    assert (tmp_path / "hits.png").stat().st_size > 5_000


def test_scatters_as_a_tensor_are_one_layer(tmp_path):
    pocas = torch.rand((200, 3), generator=torch.Generator().manual_seed(4))
    (axes,) = maps(density_figure(pocas, "PoCAs"))
    assert axes.get_title(loc="left") == "All layers\n200 PoCAs"
    assert counts(axes).sum() == 200
    plot_scatter_density(pocas, tmp_path / "pocas.png")
    assert (tmp_path / "pocas.png").stat().st_size > 5_000


def test_wrong_records():
    with pytest.raises(InputError, match=r"columns 'x', 'y' and 'layer'.*dict with 'x', 'y'"):
        density_figure({"x": [0.0], "y": [0.0]}, "hits")
    with pytest.raises(ShapeError, match=r"one length; got \{'x': 2, 'y': 1, 'layer': 1\}"):
        density_figure({"x": [0.0, 1.0], "y": [0.0], "layer": [0]}, "hits")
    with pytest.raises(ShapeError, match=r"\(muon, 3\) or \(muon, hit, 3\); got \(5, 2\)"):
        density_figure(torch.zeros(5, 2), "hits")
    with pytest.raises(InputError, match="at least one finite position to draw the density of PoCAs; got none"):
        density_figure(torch.full((5, 3), torch.nan), "PoCAs")
