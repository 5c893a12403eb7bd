"""Inference of the fill height of a ladle furnace."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from diffdet.core.checks import check_positive
from diffdet.core.errors import InputError
from diffdet.kernels import fill_level
from diffdet.tomography.benchmarks.ladle_furnace._correction import LinearCorrectionCallback as LinearCorrectionCallback
from diffdet.tomography.benchmarks.ladle_furnace._edge_detection import (
    EdgeDetLadleFurnaceFillLevelInferrer as EdgeDetLadleFurnaceFillLevelInferrer,
)
from diffdet.tomography.inference.scattering import ScatterBatch
from diffdet.tomography.inference.volume import AbsVolumeInferrer, panel_efficiency
from diffdet.tomography.volume.volume import Volume

__all__ = ["EdgeDetLadleFurnaceFillLevelInferrer", "LinearCorrectionCallback", "PocaZLadleFurnaceFillLevelInferrer"]


class PocaZLadleFurnaceFillLevelInferrer(AbsVolumeInferrer):
    """Fill height as the weighted mean height of the points of closest approach.

    The weight of a muon is its efficiency, times how centrally it scattered (``kernels.fill_level.central_weight``),
    over the variance of the height. The mean is pulled towards the middle of the furnace: it needs a linear
    correction, see ``LinearCorrectionCallback``.

    Args:
        volume: the volume that the muons crossed.
        smooth: width of the lateral gate's edge in half widths of the furnace.
    """

    rows_suffice = True

    def __init__(self, volume: Volume, smooth: float = 0.1) -> None:
        super().__init__(volume)
        check_positive("smooth", smooth)
        x_edges, y_edges, _ = volume.voxel_edges()
        self._edges = x_edges, y_edges
        self._smooth = x_edges.new_tensor(float(smooth))
        self._rows: list[Tensor] = []

    @property
    def smooth(self) -> Tensor:
        """Width of the lateral gate's edge, ``()``."""
        return self._smooth

    def add_scatters(self, scatters: ScatterBatch) -> None:
        """Add a batch. Of every muon three numbers are kept; its hits only with ``retain_muons``."""
        if self.retain_muons:
            super().add_scatters(scatters)
        self.add_rows(self.rows(scatters))

    def rows(self, scatters: ScatterBatch) -> tuple[Tensor, ...]:
        """Height of the closest approach, its uncertainty, and the weight of every muon, ``(3, muons)``."""
        xyz, variance = scatters.poca_xyz.T, scatters.poca_var
        sigma = variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()
        weight = fill_level.central_weight(xyz[:2], sigma[:2], *self._edges, self._smooth)
        rows = torch.stack([xyz[2], sigma[2], weight * self.compute_efficiency(scatters)])
        finite = rows.detach().isfinite().all(0)
        return (rows if bool(finite.all()) else rows.index_select(1, finite.nonzero().squeeze(-1)),)

    def add_rows(self, rows: tuple[Tensor, ...]) -> None:
        """Keep the rows of a batch."""
        for name in ("_height", "_table"):
            vars(self).pop(name, None)
        self._rows.extend(rows)

    def compute_efficiency(self, scatters: ScatterBatch) -> Tensor:
        """``(muons,)`` probability of at least two hits above and two below."""
        return panel_efficiency(scatters)

    @cached_property
    def _table(self) -> Tensor:
        if not self._rows:
            raise InputError("no scatter batches were added: call `add_scatters` first")
        return torch.cat(self._rows, 1)

    def _joined(self, name: str) -> Tensor:
        if not self.scatter_batches:
            raise InputError(f"`{name}` needs the muons: none were added, or `retain_muons` is False")
        return torch.cat([getattr(s, name) for s in self.scatter_batches])

    @property
    def n_mu(self) -> int:
        """Number of muons that the prediction rests on."""
        return self._table.shape[1] if self._rows else 0

    @property
    def muon_poca_xyz(self) -> Tensor:
        """``(muons, xyz)`` points of closest approach, m."""
        return self._joined("poca_xyz")

    @property
    def muon_poca_xyz_unc(self) -> Tensor:
        """``(muons, xyz)`` their uncertainties, m."""
        return self._joined("poca_xyz_unc")

    @property
    def muon_efficiency(self) -> Tensor:
        """``(muons, 1)`` probabilities that the muons are recorded."""
        self._joined("poca_xyz")
        return torch.cat([self.compute_efficiency(s) for s in self.scatter_batches])[:, None]

    @cached_property
    def _height(self) -> tuple[Tensor, Tensor]:
        return fill_level.robust_height(*self._table)

    @property
    def pred_height(self) -> Tensor:
        """``(1,)`` fill height, m."""
        return self._height[0]

    @property
    def pred_height_var(self) -> Tensor:
        """``(1,)`` statistical variance of ``pred_height``, m^2."""
        return self._height[1]

    def get_prediction(self) -> Tensor | None:
        """``(1,)`` fill height, m; None where no muon has weight."""
        if self.n_mu == 0 or not bool((self._table[2].detach() > 0).any()):
            return None
        return self.pred_height
