"""Predicted voxels beside true ones."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffdet.core.errors import InputError, ShapeError
from diffdet.tomography.plotting import appearance

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

__all__ = ["plot_pred_true_x0", "pred_true_x0_figure"]

# Radiation lengths that span more than this factor (steel and air: 17 000) can only be told apart by their logarithm.
_LOG_FROM = 20.0
# Width of a map and height of its row, inches.
_MAP = 2.3


def plot_pred_true_x0(
    pred: np.ndarray | Tensor, true: np.ndarray | Tensor, savename: str | os.PathLike[str] | None = None
) -> None:
    """Draw predicted and true X0, layer by layer, and show them where there is somebody to show them to.

    Args:
        pred: ``(z, x, y)`` predicted X0, lowest layer first, m; NaN where there is none.
        true: ``(z, x, y)`` true X0, m.
        savename: File to save the figure to.

    Raises:
        ShapeError: If they are not two cubes of one shape.
        InputError: If one of them holds no finite number.
    """
    appearance.present(pred_true_x0_figure(pred, true), savename)


def pred_true_x0_figure(pred: np.ndarray | Tensor, true: np.ndarray | Tensor) -> Figure:
    """One row a layer, the highest first: prediction on the left, truth on the right.

    All layers of a column share a range of colours, logarithmic where it spans more than a factor of 20; voxels without
    a prediction are grey. Layers are numbered from the lowest, 0.

    Args:
        pred: ``(z, x, y)`` predicted X0, lowest layer first, m; NaN where there is none.
        true: ``(z, x, y)`` true X0, m.

    Returns:
        The figure.

    Raises:
        ShapeError: If they are not two cubes of one shape.
        InputError: If one of them holds no finite number.
    """
    cubes = {"Predicted": _cube("pred", pred), "True": _cube("true", true)}
    if cubes["Predicted"].shape != cubes["True"].shape:
        raise ShapeError(
            f"`pred` and `true` must have one shape; got {tuple(cubes['Predicted'].shape)} "
            f"and {tuple(cubes['True'].shape)}"
        )
    n_z, n_x, n_y = cubes["True"].shape
    width, height = _MAP * n_x / max(n_x, n_y), _MAP * n_y / max(n_x, n_y)
    with appearance.style(0.55):
        figure = appearance.new_figure(2 * width + 1.5, n_z * (height + 0.15) + 1.5)
        grid = figure.add_gridspec(n_z + 1, 2, height_ratios=[*[height] * n_z, 0.12])
        first = None
        for column, (name, cube) in enumerate(cubes.items()):
            norm = _norm(cube)
            colours = None
            for row in range(n_z):
                layer = n_z - 1 - row
                axes = figure.add_subplot(grid[row, column], sharex=first, sharey=first)
                first = first or axes
                colours = axes.imshow(
                    cube[layer].T.numpy(force=True),
                    origin="lower",
                    extent=(0, n_x, 0, n_y),
                    norm=norm,
                    cmap=_cmap(),
                    interpolation="nearest",
                )
                axes.grid(visible=False)
                axes.tick_params(labelleft=column == 0, labelbottom=row == n_z - 1)
                if column == 0:
                    axes.set_ylabel(f"AbsLayer {layer}\ny [voxel]")
                if row == 0:
                    axes.set_title(name, loc="center")
                if row == n_z - 1:
                    axes.set_xlabel("x [voxel]")
            assert colours is not None  # there is at least one layer
            bar = figure.add_subplot(grid[n_z, column])
            figure.colorbar(colours, cax=bar, orientation="horizontal", label="$X_0$ [m]")
    return figure


def _cube(name: str, values: Any) -> Tensor:
    cube = torch.as_tensor(values).detach()
    cube = cube if cube.is_floating_point() else cube.to(torch.get_default_dtype())
    if cube.ndim != 3 or cube.numel() == 0:
        raise ShapeError(f"`{name}` must have shape (z, x, y); got {tuple(cube.shape)}")
    if not bool(cube.isfinite().any()):
        raise InputError(f"`{name}` must hold at least one finite radiation length; got none in {cube.numel()} voxels")
    return torch.where(cube.isfinite(), cube, torch.full_like(cube, torch.nan))


def _norm(cube: Tensor) -> Any:
    """Colours of a column."""
    from matplotlib.colors import LogNorm, Normalize

    values = cube[cube.isfinite()]
    low, high = float(values.min()), float(values.max())
    if low > 0 and high > _LOG_FROM * low:
        return LogNorm(low, high)
    return Normalize(low, high) if high > low else Normalize(low - 0.05 * abs(low), high + 0.05 * abs(high))


def _cmap() -> Any:
    from matplotlib import colormaps

    return colormaps[appearance.CMAP].with_extremes(bad=appearance.MISSING)
