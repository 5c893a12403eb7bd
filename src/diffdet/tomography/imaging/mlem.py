"""Scattering density by maximum likelihood."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from diffdet.core.checks import check_positive
from diffdet.core.constants import SCATTER_COEF_A
from diffdet.kernels import imaging
from diffdet.kernels.imaging import Posterior, VoxelGrid, Walk
from diffdet.tomography.imaging.base import LEAST_N, AbsImager, Progress
from diffdet.tomography.imaging.image import VoxelImage
from diffdet.tomography.imaging.tracks import MuonTracks

__all__ = ["MlemImager"]


class MlemImager(AbsImager):
    """The density that makes the measured angles and displacements most probable, by expectation maximisation.

    Every muon's scattering is divided among all voxels on its way, in proportion to what the present density and its
    angle and displacement make of it; the mean over muons is the next density. Likelihood grows with every iteration,
    and noise with it: stopping early keeps the image smooth.

    The uncertainty is the inverse root of a voxel's own Fisher information. For many iterations that is a lower bound,
    because neighbours along the tracks are taken for one another. Stopped early, images of the same object scatter less
    than that (measured: 0.4 to 0.6 of it after 50 iterations of 27,000 muons in 1,000 voxels), and what remains is
    memory of the homogeneous beginning.

    Args:
        grid: The voxels.
        cuts: Samples of a muon's way to a layer of voxels.
        iterations: How many.

    Reference: Schultz et al., IEEE Trans. Image Process. 16 (2007) 1985.
    """

    method = "mlem"
    keep_bytes = 1 << 29  # reading the file fifty times would take longer than the work itself

    def __init__(self, grid: VoxelGrid, *, cuts: int = 2, iterations: int = 50) -> None:
        super().__init__(grid, cuts=cuts)
        check_positive("iterations", iterations)
        self.iterations = int(iterations)

    def run(self, tracks: Iterable[MuonTracks], progress: Progress) -> VoxelImage:  # noqa: D102
        text = "expectation maximisation"
        density = self._start(tracks)
        for k in range(self.iterations):
            progress(k, self.iterations + 1, text)
            density = self._maximise(tracks, density)
        progress(self.iterations, self.iterations + 1, text)
        image = self._final(tracks, density)
        progress(self.iterations + 1, self.iterations + 1, text)
        return image

    def _start(self, tracks: Iterable[MuonTracks]) -> Tensor:
        """The homogeneous density that scatters as much as was measured."""
        scatter, length = 0.0, 0.0
        for chunk in tracks:
            square, noise = imaging.scatter_square(chunk.lines)
            scatter += float(((square - noise) * (chunk.beta_p / SCATTER_COEF_A).square()).sum())
            length += float(self._walk(chunk).length.sum())
        density = torch.full_like(self._zeros(), max(scatter, LEAST_N) / max(length, self.grid.size))
        density[-1] = 0
        return density

    def _expect(self, chunk: MuonTracks, density: Tensor) -> tuple[Walk, Tensor, Posterior]:
        """Ways, Highland brackets and what the tracks say about every sample."""
        way = self._walk(chunk)
        n_rad = density[way.voxel] * way.length
        bracket = imaging.highland_bracket(n_rad.sum(0))
        step = self.grid.size / self.cuts
        found = imaging.posterior_scatter(chunk.lines, chunk.z_ref, chunk.beta_p, n_rad * bracket, way, step)
        return way, bracket, found

    def _maximise(self, tracks: Iterable[MuonTracks], density: Tensor) -> Tensor:
        """One iteration."""
        above, samples = self._zeros(), self._zeros()
        for chunk in tracks:
            way, bracket, found = self._expect(chunk, density)
            inside = way.length > 0
            thickness = bracket * torch.where(inside, way.length, torch.ones_like(way.length))
            imaging.sum_by_voxel(torch.where(inside, found.square / thickness, 0.0), way.voxel, above)
            imaging.sum_by_voxel(inside, way.voxel, samples)
        density = above / samples.clamp_min(1)
        density[-1] = 0
        return density

    def _final(self, tracks: Iterable[MuonTracks], density: Tensor) -> VoxelImage:
        """The image of a density, with its uncertainty and likelihood."""
        information, counts, length = (self._zeros() for _ in range(3))
        n_muons, log_likelihood = 0, 0.0
        for chunk in tracks:
            way, bracket, found = self._expect(chunk, density)
            imaging.sum_squares_by_voxel(found.information.sqrt() * way.length * bracket, way, information)
            imaging.visits_by_voxel(way, counts)
            imaging.sum_by_voxel(way.length, way.voxel, length)
            n_muons += len(chunk)
            log_likelihood += float(found.log_likelihood.sum())
        variance = 1 / information.clamp_min(torch.finfo(information.dtype).tiny)
        settings = {"iterations": self.iterations, "log_likelihood": log_likelihood}
        return self._image(density, variance, counts, length, n_muons, settings)
