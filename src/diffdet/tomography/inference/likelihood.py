"""Inference that weighs hypotheses by how probable they make the kinks of all muons."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from diffdet.core.errors import InputError
from diffdet.core.random import MUON_BLOCK
from diffdet.kernels.lines import Lines
from diffdet.tomography.inference.scattering import ScatterBatch
from diffdet.tomography.inference.volume import AbsVolumeInferrer, panel_efficiency
from diffdet.tomography.volume.volume import Volume

__all__ = ["AbsKinkInferrer"]

_MOST = 1e6
"""Rows of muons with a larger entry are left out: a position known to no better than 1 km, or a slope than 1000; their
efficiency is next to nothing."""


class AbsKinkInferrer(AbsVolumeInferrer):
    """Sums something over the muons' fitted lines, in groups of 1024 in the order of their coming.

    Inherit, write `_sum_over`, and make a prediction of `_total`. Muons are forgotten when their group is full, but
    for their hits with ``retain_muons``. See `diffdet.kernels.scatter_likelihood` for what to sum.

    Args:
        volume: the volume that the muons crossed.
    """

    def __init__(self, volume: Volume) -> None:
        super().__init__(volume)
        self._pending: list[Tensor] = []
        self._sum: Tensor | None = None
        self._n_mu = 0

    @abstractmethod
    def _sum_over(self, tracks: Lines, efficiency: Tensor, momentum: Tensor) -> Tensor:
        """What a group of muons adds.

        Args:
            tracks: ``(4, muon)`` lines, rows (in_x, in_y, out_x, out_y).
            efficiency: ``(muon,)`` probability that each is recorded.
            momentum: ``(muon,)`` GeV.

        Returns:
            A sum of any shape, float64.
        """

    @property
    def n_mu(self) -> int:
        """Number of muons that the prediction rests on."""
        return self._n_mu

    def compute_efficiency(self, scatters: ScatterBatch) -> Tensor:
        """``(muons,)`` probability of at least two hits above and two below."""
        return panel_efficiency(scatters)

    def add_scatters(self, scatters: ScatterBatch) -> None:
        """Add a batch."""
        if self.retain_muons:
            super().add_scatters(scatters)
        vars(self).pop("_total", None)
        lines = scatters.tracks.lines
        self._z_ref = lines.z_ref
        rows = torch.cat([*lines[:5], self.compute_efficiency(scatters)[None], scatters.reco_mom[None]])
        known = (rows.detach().abs() < _MOST).all(0)  # False for NaN and infinity
        if not bool(known.all()):
            rows = rows.index_select(1, known.nonzero().squeeze(-1))
        self._n_mu += rows.shape[1]
        self._pending.append(rows)
        if sum(part.shape[1] for part in self._pending) >= MUON_BLOCK:
            blocks = torch.cat(self._pending, 1).split(MUON_BLOCK, 1)
            whole = [block for block in blocks if block.shape[1] == MUON_BLOCK]
            self._pending = list(blocks[len(whole) :])
            for block in whole:
                self._sum = self._added(block)

    def _added(self, rows: Tensor) -> Tensor:
        """The sum so far and the muons of a group."""
        position, slope, var_position, cov, var_slope, (efficiency, momentum) = rows.split(4)
        found = self._sum_over(Lines(position, slope, var_position, cov, var_slope, self._z_ref), efficiency, momentum)
        return found if self._sum is None else self._sum + found

    @cached_property
    def _total(self) -> Tensor:
        """The sum over all muons."""
        rest = torch.cat(self._pending, 1) if self._pending else None
        total = self._added(rest) if rest is not None and rest.shape[1] else self._sum
        if total is None:
            raise InputError("no usable muon was added: call `add_scatters` first")
        return total
