"""Predicted and true X0 stand side by side, highest layer first, each column with one range of colours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.colors import LogNorm, Normalize

from diffdet.core.errors import InputError, ShapeError
from diffdet.tomography.plotting.predictions import plot_pred_true_x0, pred_true_x0_figure

TRUE = torch.linspace(0.01, 0.05, 24).reshape(3, 4, 2)
PRED = TRUE.flip(0) * 2


def maps(figure):
    """Images by (column, row) from the top."""
    images = [axes.images[0] for axes in figure.axes if axes.images]
    n = len(images) // 2
    return {(c, r): images[c * n + r] for c in range(2) for r in range(n)}


def test_every_layer_is_shown_once_highest_first():
    shown = maps(pred_true_x0_figure(PRED.numpy(), TRUE.numpy()))
    assert len(shown) == 6
    for column, cube in enumerate((PRED, TRUE)):
        for row in range(3):
            # pictures have y downwards the rows: transposed, drawn from the lower edge
            assert np.asarray(shown[column, row].get_array()) == pytest.approx(cube[2 - row].T.numpy())
            assert shown[column, row].origin == "lower"


def test_labels():
    figure = pred_true_x0_figure(PRED, TRUE)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["Predicted", "True"]
    rows = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert rows == [f"AbsLayer {k}\ny [voxel]" for k in (2, 1, 0)]
    below = [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
    assert below == ["x [voxel]", "$X_0$ [m]"] * 2


def test_voxels_are_squares_and_extents_are_voxels():
    for image in maps(pred_true_x0_figure(PRED, TRUE)).values():
        assert tuple(image.get_extent()) == (0, 4, 0, 2)
        assert image.axes.get_aspect() == 1


def test_one_range_of_colours_a_column():
    shown = maps(pred_true_x0_figure(PRED, TRUE))
    for column, cube in enumerate((PRED, TRUE)):
        norms = [shown[column, row].norm for row in range(3)]
        assert all(n is norms[0] for n in norms)
        assert (norms[0].vmin, norms[0].vmax) == pytest.approx((float(cube.min()), float(cube.max())))
        assert not isinstance(norms[0], LogNorm)


def test_many_orders_of_magnitude_are_told_apart():
    true = TRUE.clone()
    true[2] = 303.9  # air above metal
    norm = maps(pred_true_x0_figure(PRED, true))[1, 0].norm
    assert isinstance(norm, LogNorm)
    assert norm(0.05) - norm(0.01) > 0.1


def test_missing_predictions_are_grey_and_do_not_spoil_the_range():
    pred = PRED.clone()
    pred[0, 0, 0], pred[1, 2, 1] = torch.nan, torch.inf
    shown = maps(pred_true_x0_figure(pred, TRUE))
    image = shown[0, 1]
    assert image.norm.vmax == pytest.approx(float(PRED.max()))
    colours = image.to_rgba(image.get_array())
    assert colours[1, 2, :3] == pytest.approx([0xD9 / 255] * 3, abs=0.01)


def test_a_uniform_cube_has_a_range_about_its_value():
    norm = maps(pred_true_x0_figure(PRED, torch.full_like(TRUE, 0.02)))[1, 0].norm
    assert isinstance(norm, Normalize)
    assert norm.vmin < 0.02 < norm.vmax


def test_saving(tmp_path):
    assert plot_pred_true_x0(PRED.numpy(), TRUE.numpy(), savename=str(tmp_path / "x0.pdf")) is None
    assert (tmp_path / "x0.pdf").read_bytes().startswith(b"%PDF")


def test_shapes_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"`pred` and `true` must have one shape; got \(3, 4, 2\) and \(2, 4, 2\)"):
        pred_true_x0_figure(PRED, TRUE[:2])
    with pytest.raises(ShapeError, match=r"`true` must have shape \(z, x, y\); got \(4, 2\)"):
        pred_true_x0_figure(PRED, TRUE[0])


def test_nothing_to_draw():
    with pytest.raises(
        InputError, match="`pred` must hold at least one finite radiation length; got none in 24 voxels"
    ):
        pred_true_x0_figure(torch.full_like(PRED, torch.nan), TRUE)
