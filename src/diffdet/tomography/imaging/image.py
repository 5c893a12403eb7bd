"""Voxel images of radiation lengths, and the grids that they live on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffdet.core.checks import check_multiple
from diffdet.kernels import voxels
from diffdet.kernels.imaging import VoxelGrid

__all__ = ["VoxelImage", "make_grid"]


def make_grid(low: Iterable[float], high: Iterable[float], voxel: float) -> VoxelGrid:
    """Voxels that fill a box.

    Args:
        low: low corner x, y, z, m.
        high: high corner, m.
        voxel: edge of a voxel, m; every side of the box must be a whole multiple of it.

    Raises:
        InputError: If the box is empty or the voxel does not fit; the message names the side and the nearest lengths.
    """
    corner, opposite = tuple(map(float, low)), tuple(map(float, high))
    sides = (opposite[k] - corner[k] for k in range(3))
    counts = [
        check_multiple(f"length of the volume in {name}", side, voxel, "voxel")
        for name, side in zip("xyz", sides, strict=True)
    ]
    return VoxelGrid((corner[0], corner[1], corner[2]), (counts[0], counts[1], counts[2]), float(voxel))


@dataclass(frozen=True)
class VoxelImage:
    """Radiation lengths of voxels, ordered (z, x, y) with the lowest layer first.

    The estimate proper is the scattering density 1/X0: it is linear in what was measured, and zero in vacuum. Where
    it came out zero or negative, as in thin matter measurement errors make it do half of the time, X0 is infinite.
    Where no muon went, both are NaN.

    Attributes:
        grid: the voxels.
        inverse_x0: ``(z, x, y)`` 1/X0, 1/m.
        inverse_x0_unc: its standard deviation, 1/m.
        counts: muons that crossed the voxel.
        path_length: their path in the voxel together, m.
        method: how it was made.
        n_muons: muons used.
        settings: what else decided the result.
    """

    grid: VoxelGrid
    inverse_x0: Tensor
    inverse_x0_unc: Tensor
    counts: Tensor
    path_length: Tensor
    method: str
    n_muons: int
    settings: dict[str, float | int] = field(default_factory=dict)

    @property
    def x0(self) -> Tensor:
        """``(z, x, y)`` X0, m: infinite where the density is not positive, NaN where no muon went."""
        density = self.inverse_x0
        positive = density > 0
        safe = torch.where(positive, density, torch.ones_like(density))
        return torch.where(density.isnan(), density, torch.where(positive, 1 / safe, torch.inf))

    @property
    def x0_unc(self) -> Tensor:
        """``(z, x, y)`` standard deviation of X0 to first order, X0^2 times that of the density, m."""
        return torch.where(self.x0.isinf(), self.x0, self.x0.square() * self.inverse_x0_unc)

    @property
    def edges(self) -> tuple[Tensor, Tensor, Tensor]:
        """Faces of the voxels in x ``(nx + 1,)``, y and z, m."""
        low, counts, size = self.grid
        x, y, z = (voxels.edges(low[k], counts[k], size, dtype=torch.float64) for k in range(3))
        return x, y, z

    @property
    def exposure(self) -> float:
        """Muons used per horizontal area of the volume, 1/m^2."""
        nx, ny, _ = self.grid.counts
        return self.n_muons / (nx * ny * self.grid.size**2)
