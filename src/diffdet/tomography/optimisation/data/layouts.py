"""Passive layouts: which radiation length every voxel of a layer has.

A layout is a value. It is called once per layer, as `diffdet.tomography.core.RadLengthFunc` says, and answers the same
each time; everything random about it was drawn before it was made.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffdet.core.errors import GeometryError
from diffdet.kernels import voxels

__all__ = ["BlockLayout", "VoxelLayout", "layer_index", "layer_shape"]


def layer_shape(lw: Tensor, size: float) -> tuple[int, int]:
    """Number of voxels of a layer in x and y.

    Args:
        lw: ``(2,)`` extent in x and y, m.
        size: Voxel edge, m.
    """
    return round(float(lw[0]) / size), round(float(lw[1]) / size)


def layer_index(z: Tensor | float, z_low: float, size: float) -> int:
    """Number of the layer whose top is at ``z``, counted from 0 at the bottom of the passive block.

    Args:
        z: Top of the layer, m.
        z_low: Bottom of the block, m.
        size: Thickness of a layer, m.
    """
    return round((float(z) - z_low) / size) - 1


@dataclass(frozen=True)
class BlockLayout:
    """A cuboid of one material in another. A voxel belongs to the block that holds its centre.

    Attributes:
        x0: Radiation length of the background, m.
        block_x0: Radiation length of the block, m.
        low: Lowest corner of the block in x, y, z, m.
        high: Highest corner of the block in x, y, z, m.
    """

    x0: float
    block_x0: float
    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def __call__(self, *, z: Tensor, lw: Tensor, size: float) -> Tensor:
        """X0 of a layer, ``(nx, ny)`` in m; see `diffdet.tomography.core.RadLengthFunc`."""
        n_x, n_y = layer_shape(lw, size)
        in_z = self._holds(2, torch.tensor([float(z) - size / 2], dtype=torch.float64), size)
        in_x, in_y = (
            self._holds(axis, voxels.centres(0.0, n, size, dtype=torch.float64), size)
            for axis, n in enumerate((n_x, n_y))
        )
        layer = torch.full((n_x, n_y), self.x0, dtype=lw.dtype, device=lw.device)
        layer[(in_x[:, None] & in_y & in_z).to(lw.device)] = self.block_x0
        return layer

    def _holds(self, axis: int, centres: Tensor, size: float) -> Tensor:
        """Which voxel centres the block holds along one axis: low end included, high end not, to within rounding."""
        slack = voxels.EDGE_TOLERANCE * size
        return (centres >= self.low[axis] - slack) & (centres < self.high[axis] - slack)


@dataclass(frozen=True)
class VoxelLayout:
    """A radiation length for every voxel.

    Attributes:
        cube: ``(z, x, y)`` radiation lengths, m, lowest layer first.
        z_low: Bottom of the lowest layer, m.
    """

    cube: Tensor = field(repr=False)
    z_low: float

    def __call__(self, *, z: Tensor, lw: Tensor, size: float) -> Tensor:
        """X0 of a layer, ``(nx, ny)`` in m; see `diffdet.tomography.core.RadLengthFunc`.

        Raises:
            GeometryError: If the layer is not one of the layout's.
        """
        index, shape = layer_index(z, self.z_low, size), layer_shape(lw, size)
        if not 0 <= index < len(self.cube) or shape != tuple(self.cube.shape[1:]):
            raise GeometryError(
                f"a layout of {tuple(self.cube.shape)} voxels (z, x, y) from z = {self.z_low:g} m has no layer of "
                f"{shape} voxels with its top at z = {float(z):g} m; load it into the volume that it was made for"
            )
        return self.cube[index].to(lw)
