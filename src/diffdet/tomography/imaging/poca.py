"""Scattering density from points of closest approach."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from diffdet.core.checks import check_positive
from diffdet.core.constants import SCATTER_COEF_A
from diffdet.kernels import imaging
from diffdet.kernels.imaging import VoxelGrid
from diffdet.tomography.imaging.base import LEAST_N, AbsImager, Progress, thickness_of
from diffdet.tomography.imaging.image import VoxelImage
from diffdet.tomography.imaging.tracks import MuonTracks

__all__ = ["PocaImager"]


class _Sums:
    """What one pass over the muons adds up, by voxel and in all."""

    def __init__(self, n: int) -> None:
        self.scatter, self.exposed, self.squares, self.counts, self.length = torch.zeros((5, n), dtype=torch.float64)
        self.n_muons, self.total, self.weight = 0, 0.0, 0.0

    @property
    def density(self) -> Tensor:
        """Scattering by path, zero outside."""
        density = self.scatter / torch.where(self.exposed > 0, self.exposed, torch.ones_like(self.exposed))
        density[-1] = 0
        return density

    @property
    def variance(self) -> Tensor:
        """Of the density: the muons that cross a voxel scatter about their own mean."""
        spread = (self.squares - self.scatter.square() / self.counts.clamp_min(2)).clamp_min(0)
        return spread / torch.where(self.exposed > 0, self.exposed, torch.ones_like(self.exposed)).square()

    @property
    def mean(self) -> float:
        """Weighted mean scattering of a muon."""
        return self.total / self.weight if self.weight else 0.0


class PocaImager(AbsImager):
    """All of a muon's scattering happens at its point of closest approach, as far as the point is known.

    With S_i the squared scattering of muon i in units of (13.6 MeV / beta p)^2 less the mean of its measurement error,
    l_i^2 the Highland bracket of its whole way, s_ij the part of the point's probability that lies in voxel j, and L_ij
    the path there,

        1 / X0_j = sum_i w_i s_ij S_i / l_i^2 / sum_i w_i L_ij.

    Summed over the voxels of a way this is the muon's thickness in radiation lengths, so total scattering is unbiased.
    The weights w_i = (1 + noise_i / S_mean)^-2 lower those whose error, which grows with p^2, drowns the scattering;
    they depend on no measured angle. l_i^2 comes from the image of the pass before.

    Args:
        grid: The voxels.
        cuts: Samples of a muon's way to a layer of voxels.
        passes: Times that the muons are gone through; each but the first puts the logarithm right, the second to
            within 1 %.
    """

    method = "poca"

    def __init__(self, grid: VoxelGrid, *, cuts: int = 2, passes: int = 2) -> None:
        super().__init__(grid, cuts=cuts)
        check_positive("passes", passes)
        self.passes = int(passes)

    def run(self, tracks: Iterable[MuonTracks], progress: Progress) -> VoxelImage:  # noqa: D102
        text = "points of closest approach"
        progress(0, self.passes, text)
        sums = self._pass(tracks, None, 1.0)
        for k in range(1, self.passes):
            progress(k, self.passes, text)
            reference = max(sums.mean, LEAST_N)
            # The first pass had no logarithm; the mean thickness has most of what is missing.
            factor = thickness_of(reference) / reference if k == 1 else 1.0
            sums = self._pass(tracks, sums.density * factor, reference)
        progress(self.passes, self.passes, text)
        return self._image(sums.density, sums.variance, sums.counts, sums.length, sums.n_muons, {"passes": self.passes})

    def _pass(self, tracks: Iterable[MuonTracks], density: Tensor | None, reference: float) -> _Sums:
        """Go through the muons once, with the density of the pass before and the mean scattering to expect."""
        sums = _Sums(self.grid.n_voxels + 1)
        for chunk in tracks:
            way = self._walk(chunk)
            square, noise = imaging.scatter_square(chunk.lines)
            unit = (chunk.beta_p / SCATTER_COEF_A).square()
            weight = (1 + noise * unit / reference).pow(-2)
            scatter = (square - noise) * unit * weight
            sums.total += float(scatter.sum())
            sums.weight += float(weight.sum())
            sums.n_muons += len(chunk)
            if density is not None:
                n_rad = (density[way.voxel] * way.length).sum(0).clamp_min(LEAST_N)
                scatter = scatter / imaging.highland_bracket(n_rad)
            given = way.share * scatter
            imaging.sum_by_voxel(given, way.voxel, sums.scatter)
            imaging.sum_by_voxel(way.length * weight, way.voxel, sums.exposed)
            imaging.sum_squares_by_voxel(given, way, sums.squares)
            imaging.visits_by_voxel(way, sums.counts)
            imaging.sum_by_voxel(way.length, way.voxel, sums.length)
        return sums
