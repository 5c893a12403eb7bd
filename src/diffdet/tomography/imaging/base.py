"""The interface of imaging methods."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar, Final

import torch
from torch import Tensor

from diffdet.core.checks import check_positive
from diffdet.kernels import imaging
from diffdet.kernels.imaging import VoxelGrid, Walk
from diffdet.tomography.imaging.image import VoxelImage
from diffdet.tomography.imaging.tracks import MuonTracks

__all__ = ["LEAST_N", "AbsImager", "Progress", "thickness_of"]

Progress = Callable[[int, int | None, str], None]
"""Is told ``(done, total, text)``."""

LEAST_N: Final = 1e-4
"""Radiation lengths (34 mm of air) below which the logarithm, and the weights, are no longer adapted."""


class AbsImager(metaclass=ABCMeta):
    """A method that makes an image of scattering density.

    To add one, inherit, implement `run`, and add the class to `METHODS`.

    Args:
        grid: The voxels.
        cuts: Samples of a muon's way to a layer of voxels.
    """

    method: ClassVar[str]
    keep_bytes: ClassVar[int] = 1 << 25
    """Tracks worth keeping in memory between the passes, 184 bytes a muon; more are read and fitted again."""

    def __init__(self, grid: VoxelGrid, *, cuts: int = 2) -> None:
        check_positive("cuts", cuts)
        self.grid = grid
        self.cuts = int(cuts)

    @abstractmethod
    def run(self, tracks: Iterable[MuonTracks], progress: Progress) -> VoxelImage:
        """Make the image.

        Args:
            tracks: Chunks of tracks; gone through several times.
            progress: Told ``(passes done, passes in all, text)``.
        """

    def _zeros(self) -> Tensor:
        return torch.zeros(self.grid.n_voxels + 1, dtype=torch.float64)

    def _walk(self, chunk: MuonTracks) -> Walk:
        depth, sigma = imaging.closest_depth(chunk.lines, chunk.z_ref)
        return imaging.walk(chunk.lines, chunk.z_ref, depth, sigma, self.grid, self.cuts)

    def _image(
        self,
        density: Tensor,
        variance: Tensor,
        counts: Tensor,
        length: Tensor,
        n_muons: int,
        settings: dict[str, float | int],
    ) -> VoxelImage:
        """The image of sums over flat voxels, the one outside left out."""
        nx, ny, nz = self.grid.counts
        seen = counts > 0

        def cube(column: Tensor) -> Tensor:
            return column[:-1].reshape(nz, nx, ny)

        return VoxelImage(
            grid=self.grid,
            inverse_x0=cube(torch.where(seen, density, torch.nan)),
            inverse_x0_unc=cube(torch.where(seen, variance.sqrt(), torch.nan)),
            counts=cube(counts.long()),
            path_length=cube(length),
            method=self.method,
            n_muons=n_muons,
            settings={"cuts": self.cuts, **settings},
        )


def thickness_of(variance: float) -> float:
    """The radiation lengths n that scatter by F(n) = n (1 + B ln n)^2, by fixed-point iteration; F grows with n."""
    n = variance
    for _ in range(20):
        n = variance / float(imaging.highland_bracket(torch.tensor(max(n, 1e-12), dtype=torch.float64)))
    return n
