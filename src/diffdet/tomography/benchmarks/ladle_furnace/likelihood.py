"""Fill height of a ladle furnace from how probable each height makes the scattering of the muons."""

from __future__ import annotations

import torch
from torch import Tensor

from diffdet.core.checks import check_in_range, check_positive
from diffdet.core.errors import GeometryError
from diffdet.core.materials import material
from diffdet.kernels import scatter_likelihood
from diffdet.kernels.lines import Lines
from diffdet.kernels.scattering import beta_momentum
from diffdet.tomography.inference.likelihood import AbsKinkInferrer
from diffdet.tomography.volume.volume import Volume

__all__ = ["LikelihoodLadleFurnaceFillLevelInferrer"]

_CELLS_PER_VOXEL = 2
"""Cells of the path in the height of a voxel."""


class LikelihoodLadleFurnaceFillLevelInferrer(AbsKinkInferrer):
    """Fill height as the mean of its posterior, from angles and offsets of all muons, walls and floor being known.

    For every height of a grid, from the empty to the full furnace, the radiation lengths along the path of each muon
    give the covariance of its kink (`kernels.scatter_likelihood`), to which the errors of the hits are added. The
    logarithms of the densities, each times the efficiency of the muon, are summed over muons; with a flat prior they
    give the posterior of the height.

    It uses how strongly a muon was scattered, where the weighted mean of points of closest approach
    (`PocaZLadleFurnaceFillLevelInferrer`) uses only where, and weighs muons by what they can tell; what it
    predicts needs no correction. It must know the furnace: its walls, what it is filled with, and the
    thickness of the slag.

    Args:
        volume: the volume that the muons crossed.
        x0_furnace: radiation length of floor and walls, which are one voxel thick, m.
        fill_material: what fills the furnace.
        slag_material: what floats on it.
        slag_thickness: of the slag, m.
        level_step: distance of heights in the grid, in voxels.

    Raises:
        InputError: If a number is not positive or a material unknown.
        GeometryError: If the volume is too small to have a floor, walls, and something inside.
    """

    def __init__(
        self,
        volume: Volume,
        x0_furnace: float = 0.01782,
        fill_material: str = "hot liquid steel",
        slag_material: str = "slag",
        slag_thickness: float = 0.1,
        level_step: float = 0.2,
    ) -> None:
        super().__init__(volume)
        check_positive("x0_furnace", x0_furnace)
        check_in_range("slag_thickness", slag_thickness, 0.0, unit="m")
        check_in_range("level_step", level_step, 0.0, 1.0, low_open=True)
        if min(volume.n_zxy) < 3:
            raise GeometryError(f"a furnace needs at least 3 voxels in every direction; got {volume.n_zxy} in z, x, y")
        (_, _, bottom), (_, _, top) = volume.passive_box
        size, like = volume.passive_size, volume.lw
        self._thickness = size / _CELLS_PER_VOXEL
        n_cells = volume.n_zxy[0] * _CELLS_PER_VOXEL
        steps = torch.arange(n_cells, dtype=torch.float64)
        heights = top - (steps + 0.5) * self._thickness
        n_levels = round((volume.n_zxy[0] - 1) / level_step) + 1
        levels = torch.linspace(bottom + size, top, n_levels, dtype=torch.float64)
        filled = self._share_below(levels, heights)
        covered = self._share_below((levels + slag_thickness).clamp_max(top), heights)
        density = (
            filled / material(fill_material).x0
            + (covered - filled) / material(slag_material).x0
            + (1 - covered) / material("air").x0
        )
        density[:, heights < bottom + size] = 1 / x0_furnace
        self._heights, self._levels, self._density = (t.to(like) for t in (heights, levels, density))
        self._x0_furnace, self._x0_air = float(x0_furnace), material("air").x0
        self._box = volume.passive_box

    def _share_below(self, levels: Tensor, heights: Tensor) -> Tensor:
        """``(level, cell)`` share of every cell below a level."""
        return ((levels[:, None] - heights) / self._thickness + 0.5).clamp(0, 1)

    @property
    def levels(self) -> Tensor:
        """``(levels,)`` heights that are weighed, m."""
        return self._levels

    def _sum_over(self, tracks: Lines, efficiency: Tensor, momentum: Tensor) -> Tensor:
        """Logarithm of the density at every level, ``(levels,)``."""
        (x0, y0, bottom), (x1, y1, top) = self._box
        xy, stretch = scatter_likelihood.straight_path(tracks, top, bottom, self._heights)
        size = self.volume.passive_size
        inside = scatter_likelihood.share_inside(xy, (x0 + size, y0 + size), (x1 - size, y1 - size))
        wall = scatter_likelihood.share_inside(xy, (x0, y0), (x1, y1)) - inside
        around = wall / self._x0_furnace + (1 - wall - inside) / self._x0_air
        cells = torch.addcmul(around, self._density[:, :, None], inside) * (self._thickness * stretch)
        scattering = scatter_likelihood.path_covariance(
            cells, self._heights - self._z_ref.reshape(()), self._thickness, beta_momentum(momentum)
        )
        density = scatter_likelihood.log_density(scatter_likelihood.kinks(tracks), scattering)
        # only differences between levels matter, and they are small beside what all levels share
        return ((density - density.mean(0)) * efficiency).to(torch.float64).sum(1)

    @property
    def posterior(self) -> Tensor:
        """``(levels,)`` probability of each of ``levels``."""
        return torch.softmax(self._total, 0).to(self._levels)

    @property
    def pred_height(self) -> Tensor:
        """``(1,)`` mean of the posterior, m."""
        return (self.posterior * self._levels).sum().reshape(1)

    @property
    def pred_height_var(self) -> Tensor:
        """``(1,)`` variance of the posterior, m^2."""
        return (self.posterior * (self._levels - self.pred_height).square()).sum().reshape(1)

    def get_prediction(self) -> Tensor | None:
        """``(1,)`` fill height, m; None without usable muons."""
        return self.pred_height if self.n_mu else None
