"""From scatterings to statements about the volume."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from diffdet.core.errors import InputError, NotSupportedError
from diffdet.core.random import MUON_BLOCK
from diffdet.kernels import poca_image
from diffdet.kernels.hit_counting import at_least_two
from diffdet.kernels.scattering import x0_from_angles
from diffdet.tomography.inference.scattering import ScatterBatch
from diffdet.tomography.volume.volume import Volume

__all__ = [
    "AbsIntClassifierFromX0",
    "AbsVolumeInferrer",
    "AbsX0Inferrer",
    "DenseBlockClassifierFromX0s",
    "PanelX0Inferrer",
    "panel_efficiency",
]


def panel_efficiency(scatters: ScatterBatch) -> Tensor:
    """``(muons,)`` probability that a muon leaves at least two hits above and two below."""
    above, below = scatters.hit_efficiencies()
    if len(above) != len(below):
        return at_least_two(above) * at_least_two(below)
    in_, out = at_least_two(torch.stack([above, below], 1))
    return in_ * out


class AbsVolumeInferrer(metaclass=ABCMeta):
    """Infers something about one loaded volume from all muons that crossed it.

    Scatter batches are added one after another; ``get_prediction`` speaks about all of them. Muons are treated in
    the order in which they came, in canonical groups, so that it does not matter how they were batched.

    Args:
        volume: the volume that the muons crossed.
    """

    rows_suffice: ClassVar[bool] = False
    """Whether the prediction needs nothing of a muon but what `rows` gives; then graphs need not be kept."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        """A class that adds scatterings in its own way has to say for itself that rows suffice."""
        super().__init_subclass__(**kwargs)
        if "add_scatters" in vars(cls) and "rows_suffice" not in vars(cls):
            cls.rows_suffice = False

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.scatter_batches: list[ScatterBatch] = []
        self.retain_muons = True
        """False lets the inferrer forget muons once it has taken from them what it needs: constant memory for
        streams of muons.
        """

    def add_scatters(self, scatters: ScatterBatch) -> None:
        """Add a batch."""
        self.scatter_batches.append(scatters)

    def rows(self, scatters: ScatterBatch) -> tuple[Tensor, ...]:
        """What the prediction needs of the muons of a batch, muon axis last.

        Raises:
            NotSupportedError: ``rows_suffice`` is false.
        """
        raise NotSupportedError(f"{type(self).__name__} needs the scatterings themselves: {len(scatters)} muons given")

    def add_rows(self, rows: tuple[Tensor, ...]) -> None:
        """Add a batch by what `rows` gave; the same as `add_scatters` without retaining muons.

        Raises:
            NotSupportedError: ``rows_suffice`` is false.
        """
        raise NotSupportedError(f"{type(self).__name__} needs the scatterings themselves, not {len(rows)} rows")

    @abstractmethod
    def compute_efficiency(self, scatters: ScatterBatch) -> Tensor:
        """``(muons,)`` probability that each muon is recorded, from its hits' efficiencies."""

    @abstractmethod
    def get_prediction(self) -> Tensor | None:
        """What all added batches say; None where they hold no usable muon."""


# Blocks of muons whose sums are formed together. More would leave the cache; fewer would spend the time on dispatch.
_BLOCKS_AT_A_TIME = 2


class _MuonTable(NamedTuple):
    """What X0 inference needs of muons, muon axis last."""

    poca: Tensor  # (3, muon)
    poca_sigma: Tensor  # (3, muon)
    values: Tensor  # (4, muon): total scatter, theta_in, theta_out, momentum
    sigmas: Tensor  # (3, muon): of the angles
    efficiency: Tensor  # (muon,)

    def cut(self, part: slice) -> _MuonTable:
        return _MuonTable(*(t[..., part] for t in self))

    def split(self, n: int) -> list[_MuonTable]:
        if self.efficiency.shape[-1] <= n:
            return [self] if self.efficiency.shape[-1] else []
        return [_MuonTable(*parts) for parts in zip(*(t.split(n, -1) for t in self), strict=True)]


def _join(tables: list[_MuonTable]) -> _MuonTable:
    if not tables:
        raise InputError("no scatter batches were added: call `add_scatters` first")
    if len(tables) == 1:
        return tables[0]
    return _MuonTable(*(torch.cat(column, -1) for column in zip(*tables, strict=True)))


class AbsX0Inferrer(AbsVolumeInferrer):
    """X0 of every voxel from points of closest approach.

    Each muon's whole scattering is assigned to its point of closest approach, spread over the voxels by three
    independent Gaussians of the point's uncertainty. Per voxel, weighted RMS values of the total scattering angle,
    of both inclinations and of the momentum are formed over all muons - weight: efficiency times probability,
    divided by the variance of the *square* of the variable - and Highland's formula without its logarithm is inverted.

    All sums over muons are small matrix products: nothing of size muons x voxels is ever held, and the sums are
    taken in groups of 1024 muons in the order of their coming and added in float64.

    The estimator is a relative image: it is biased where muons scatter in several voxels or where the angle is not
    much larger than its uncertainty. ``diffdet.tomography.imaging`` has a calibrated one for recorded data.

    Args:
        volume: the volume that the muons crossed.
    """

    rows_suffice = True

    def __init__(self, volume: Volume) -> None:
        super().__init__(volume)
        self._edges = volume.voxel_edges()
        self._sums: Tensor | None = None
        self._pending: list[_MuonTable] = []
        self._n_seen = 0

    # ---- accumulation
    def add_scatters(self, scatters: ScatterBatch) -> None:
        """Add a batch. With ``retain_muons`` False its sums are taken at once and the muons forgotten."""
        if not self.retain_muons:
            self.add_rows(self.rows(scatters))
            return
        self._forget_results()
        super().add_scatters(scatters)

    def _forget_results(self) -> None:
        for name in ("vox_zxy_x0_preds", "_muons"):
            vars(self).pop(name, None)

    def rows(self, scatters: ScatterBatch) -> tuple[Tensor, ...]:
        """Closest approach, angles, momentum, their uncertainties, and efficiency of every muon."""
        return self._table(scatters)

    def add_rows(self, rows: tuple[Tensor, ...]) -> None:
        """Take the sums of a batch at once; what fills no whole block waits for the next."""
        self._forget_results()
        table = _MuonTable(*rows)
        self._n_seen += table.efficiency.shape[-1]
        self._pending.append(table)
        if sum(t.efficiency.shape[-1] for t in self._pending) >= MUON_BLOCK:
            whole = _join(self._pending)
            n = whole.efficiency.shape[-1] // MUON_BLOCK * MUON_BLOCK
            self._sums = self._add_blocks(whole.cut(slice(0, n)), self._sums)
            self._pending = [whole.cut(slice(n, None))]

    def _table(self, scatters: ScatterBatch) -> _MuonTable:
        """The rows of one batch, without muons that have anything that is not finite."""
        values, sigmas = scatters.image_rows
        (poca, angles), (poca_sigma, angle_sigmas) = values.split(3), sigmas.split(3)
        with_momentum = torch.cat([angles, scatters.reco_mom[None]])
        rows = _MuonTable(poca, poca_sigma, with_momentum, angle_sigmas, self.compute_efficiency(scatters))
        # one number per muon that is not finite where one of its is not
        finite = (values + sigmas).detach().sum(0).isfinite()
        if bool(finite.all()):
            return rows
        idx = finite.nonzero().squeeze(-1)
        return _MuonTable(*(t.index_select(-1, idx) for t in rows))

    def _add_blocks(self, table: _MuonTable, sums: Tensor | None) -> Tensor | None:
        """Add the sums of these muons; some blocks at a time, so that memory does not grow with their number."""
        for part in table.split(_BLOCKS_AT_A_TIME * MUON_BLOCK):
            if self.retain_muons or not torch.is_grad_enabled():
                sums = poca_image.voxel_sums(*part, *self._edges, onto=sums)
            else:  # the graph of the sums is built again when it is needed: ten times larger than what it is built from
                sums = checkpoint(
                    poca_image.voxel_sums, *part, *self._edges, onto=sums, use_reentrant=False, preserve_rng_state=False
                )
        return sums

    @cached_property
    def _muons(self) -> _MuonTable:
        if not self.retain_muons:
            raise InputError("this inferrer was told to forget its muons (`retain_muons` is False)")
        return _join([self._table(s) for s in self.scatter_batches])

    # ---- per muon
    @property
    def n_mu(self) -> int:
        """Number of muons that the prediction rests on."""
        if not self.retain_muons:
            return self._n_seen
        return self._muons.efficiency.shape[-1] if self.scatter_batches else 0

    @property
    def muon_poca_xyz(self) -> Tensor:
        """``(muons, xyz)`` points of closest approach, m."""
        return self._muons.poca.T

    @property
    def muon_poca_xyz_unc(self) -> Tensor:
        """``(muons, xyz)`` their uncertainties, m."""
        return self._muons.poca_sigma.T

    @property
    def muon_total_scatter(self) -> Tensor:
        """``(muons, 1)`` total scattering angles, rad."""
        return self._muons.values[0][:, None]

    @property
    def muon_total_scatter_unc(self) -> Tensor:
        """``(muons, 1)`` their uncertainties, rad."""
        return self._muons.sigmas[0][:, None]

    @property
    def muon_theta_in(self) -> Tensor:
        """``(muons, 1)`` polar angles before, rad."""
        return self._muons.values[1][:, None]

    @property
    def muon_theta_in_unc(self) -> Tensor:
        """``(muons, 1)`` their uncertainties, rad."""
        return self._muons.sigmas[1][:, None]

    @property
    def muon_theta_out(self) -> Tensor:
        """``(muons, 1)`` polar angles behind, rad."""
        return self._muons.values[2][:, None]

    @property
    def muon_theta_out_unc(self) -> Tensor:
        """``(muons, 1)`` their uncertainties, rad."""
        return self._muons.sigmas[2][:, None]

    @property
    def muon_mom(self) -> Tensor:
        """``(muons, 1)`` momenta, GeV."""
        return self._muons.values[3][:, None]

    @property
    def muon_mom_unc(self) -> Tensor:
        """``(muons, 1)`` their uncertainties: zero, no momentum measurement is modelled, GeV."""
        return torch.zeros_like(self.muon_mom)

    @property
    def muon_efficiency(self) -> Tensor:
        """``(muons, 1)`` probabilities that the muons are recorded."""
        return self._muons.efficiency[:, None]

    @property
    def muon_probs_per_voxel_zxy(self) -> Tensor:
        """``(muons, z, x, y)`` probability that a muon's closest approach lies in a voxel. Large: for looking at few
        muons.
        """
        m = self._muons
        return poca_image.voxel_probabilities(m.poca, m.poca_sigma, *self._edges)

    # ---- prediction
    @cached_property
    def vox_zxy_x0_preds(self) -> Tensor:
        """``(z, x, y)`` X0 of the voxels, m."""
        if self.retain_muons:
            sums, table = None, self._muons
        else:
            sums, table = self._sums, _join(self._pending)
        total = self._add_blocks(table, sums)
        if total is None:
            raise InputError("no usable muon was added: there is nothing to infer X0 from")
        rms = poca_image.rms_from_sums(total).to(table.poca.dtype)
        cosine = 0.5 * (torch.cos(rms[1]) + torch.cos(rms[2]))
        return x0_from_angles(self.volume.passive_size, rms[0] / 2**0.5, cosine, rms[3])

    @property
    def vox_zxy_x0_pred_uncs(self) -> Tensor:
        """``(z, x, y)`` uncertainty of the X0, m: the muons' measurement errors propagated to first order.

        One vector-Jacobian product per voxel over the muons' rows: minutes for thousands of voxels.
        """
        m = self._muons
        leaf = _MuonTable(*(t.detach().clone().requires_grad_() for t in m))
        with torch.enable_grad():
            total = self._add_blocks(leaf, None)
            if total is None:
                raise InputError("no usable muon was added: there is nothing to infer X0 from")
            rms = poca_image.rms_from_sums(total)
            cosine = 0.5 * (torch.cos(rms[1]) + torch.cos(rms[2]))
            x0 = x0_from_angles(self.volume.passive_size, rms[0] / 2**0.5, cosine, rms[3])
            out = []
            for voxel in x0.flatten():
                by_poca, by_values = torch.autograd.grad(voxel, (leaf.poca, leaf.values), retain_graph=True)
                variance = (by_poca * m.poca_sigma).square().sum() + (by_values[:3] * m.sigmas).square().sum()
                out.append(variance.sqrt())
        return torch.stack(out).reshape(x0.shape).to(m.poca.dtype)

    def get_prediction(self) -> Tensor | None:
        """``(z, x, y)`` X0 of the voxels, m; None where no usable muon was added."""
        return self.vox_zxy_x0_preds if self.n_mu else None

    @staticmethod
    def x0_from_scatters(
        deltaz: float, total_scatter: Tensor, theta_in: Tensor, theta_out: Tensor, mom: Tensor
    ) -> Tensor:
        """X0 by inversion of Highland's formula without its logarithm.

        Args:
            deltaz: height of the voxels, m.
            total_scatter: RMS scattering angle *in one plane* (that of the angle in space is sqrt(2) larger), rad.
            theta_in: RMS polar angle before, rad.
            theta_out: RMS polar angle behind, rad.
            mom: RMS momentum, GeV.

        Returns:
            X0, m, in the shape of the arguments.
        """
        return x0_from_angles(deltaz, total_scatter, 0.5 * (torch.cos(theta_in) + torch.cos(theta_out)), mom)


class PanelX0Inferrer(AbsX0Inferrer):
    """X0 of every voxel from the hits of panels, see AbsX0Inferrer.

    Args:
        volume: the volume that the muons crossed.
    """

    def compute_efficiency(self, scatters: ScatterBatch) -> Tensor:
        """``(muons,)`` probability of at least two hits above and two below."""
        return panel_efficiency(scatters)


class _PartialX0Inferrer(Protocol):
    def __call__(self, *, volume: Volume) -> AbsX0Inferrer: ...


class _FromX0(AbsVolumeInferrer):
    """Shared by inferrers that start from an X0 map made by another inferrer."""

    def __init__(self, partial_x0_inferrer: _PartialX0Inferrer, volume: Volume) -> None:
        super().__init__(volume)
        self.x0_inferrer = partial_x0_inferrer(volume=volume)

    def compute_efficiency(self, scatters: ScatterBatch) -> Tensor:
        """As the X0 inferrer computes it."""
        return self.x0_inferrer.compute_efficiency(scatters)

    def add_scatters(self, scatters: ScatterBatch) -> None:
        """Pass a batch on to the X0 inferrer."""
        self.x0_inferrer.retain_muons = self.retain_muons
        self.x0_inferrer.add_scatters(scatters)


class DenseBlockClassifierFromX0s(_FromX0):
    """Whether a small amount of dense material is present, from the contrast of the lowest X0 to the rest.

    The k lowest voxels (softly: by a sigmoid about the k-th value) are the block, the others the background; with
    the weighted mean X0 of both, r = 2 (m_bkg - m_blk) / (m_bkg + m_blk) and the statistic is sigmoid(ratio_coef (r
    + ratio_offset)).

    Args:
        n_block_voxels: how many voxels the block would fill.
        partial_x0_inferrer: called with ``volume=`` for the inferrer of X0.
        volume: the volume that the muons crossed.
        use_avgpool: average X0 over 3 x 3 x 3 neighbours first.
        cut_coef: sharpness of the split, 1/m.
        ratio_offset: offset of r.
        ratio_coef: scale of r.
    """

    def __init__(
        self,
        n_block_voxels: int,
        partial_x0_inferrer: _PartialX0Inferrer,
        volume: Volume,
        use_avgpool: bool = True,
        cut_coef: float = 1e4,
        ratio_offset: float = -1.0,
        ratio_coef: float = 1.0,
    ) -> None:
        super().__init__(partial_x0_inferrer, volume)
        nz, nx, ny = volume.n_zxy
        if not 0 < n_block_voxels < nz * nx * ny:
            raise InputError(
                f"`n_block_voxels` must lie between 0 and the {nz * nx * ny} voxels of the volume; "
                f"given: {n_block_voxels}"
            )
        self.frac = n_block_voxels / (nz * nx * ny)
        self.use_avgpool = use_avgpool
        self.cut_coef = cut_coef
        self.ratio_offset = ratio_offset
        self.ratio_coef = ratio_coef

    def get_prediction(self) -> Tensor | None:
        """``(1, 1)`` statistic in (0, 1): near 1 where a block is present; None without usable muons."""
        x0 = self.x0_inferrer.get_prediction()
        if x0 is None:
            return None
        if self.use_avgpool:
            x0 = torch.nn.functional.avg_pool3d(x0[None, None], 3, stride=1, padding=1, count_include_pad=False)[0, 0]
        flat = x0.flatten()
        k = 1 + round(self.frac * (flat.numel() - 1))
        cut = flat.kthvalue(k).values
        background = torch.sigmoid(self.cut_coef * (flat - cut))
        block = 1 - background
        mean_bkg = (background * flat).sum() / background.sum()
        mean_blk = (block * flat).sum() / block.sum()
        r = 2 * (mean_bkg - mean_blk) / (mean_bkg + mean_blk)
        return torch.sigmoid(self.ratio_coef * (r + self.ratio_offset)).reshape(1, 1)


class AbsIntClassifierFromX0(_FromX0):
    """An integer class from the X0 map. Inherit and say how X0 becomes class probabilities.

    Args:
        partial_x0_inferrer: called with ``volume=`` for the inferrer of X0.
        volume: the volume that the muons crossed.
        output_probs: predict the probabilities instead of the most probable class.
        class2float: turns the class ``(...)`` and the volume into a number.
    """

    def __init__(
        self,
        partial_x0_inferrer: _PartialX0Inferrer,
        volume: Volume,
        output_probs: bool = True,
        class2float: Callable[[Tensor, Volume], Tensor] | None = None,
    ) -> None:
        super().__init__(partial_x0_inferrer, volume)
        self.output_probs = output_probs
        self.class2float = class2float

    @abstractmethod
    def x02probs(self, vox_preds: Tensor) -> Tensor:
        """``(..., classes)`` class probabilities from ``(z, x, y)`` X0 [m]."""

    def get_prediction(self) -> Tensor | None:
        """Probabilities, the most probable class, or ``class2float`` of it; None without usable muons."""
        x0 = self.x0_inferrer.get_prediction()
        if x0 is None:
            return None
        probs = self.x02probs(x0)
        if self.output_probs:
            return probs
        best = probs.argmax(-1)
        return best if self.class2float is None else self.class2float(best, self.volume)
