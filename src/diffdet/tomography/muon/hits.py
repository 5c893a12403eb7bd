"""Hits of a batch of muons in one group of detectors, stacked."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffdet.core.checks import check_finite
from diffdet.core.errors import InputError, ShapeError

__all__ = ["HitBatch"]

_KEYS = ("reco_xyz", "gen_xyz", "unc_xyz", "eff")


@dataclass(frozen=True)
class HitBatch:
    """What a group of panels saw of a batch of muons; hit axis first, muon axis last.

    Every muon has an entry for every panel. Where a panel did not see the muon, ``valid`` is False and the numbers are
    finite stand-ins that must not be used (``reco_xy`` and ``gen_xy`` the true position, ``unc_xy`` one, ``eff`` zero).

    Attributes:
        reco_xy: ``(hit, 2, muon)`` recorded positions, m.
        gen_xy: ``(hit, 2, muon)`` true positions, m.
        z: ``(hit, 1 or muon)`` heights of the hits, m; differentiable in the panels' z.
        unc_xy: ``(hit, 2, muon)`` standard deviations of the recorded positions, m.
        eff: ``(hit, muon)`` probability that the hit is recorded.
        valid: ``(hit, muon)`` which hits exist, or None where all do.
    """

    reco_xy: Tensor
    gen_xy: Tensor
    z: Tensor
    unc_xy: Tensor
    eff: Tensor
    valid: Tensor | None = None

    def __len__(self) -> int:
        return self.reco_xy.shape[0]

    @property
    def n_muons(self) -> int:
        """Number of muons."""
        return self.reco_xy.shape[-1]

    @classmethod
    def cat(cls, parts: list[HitBatch]) -> HitBatch:
        """Hits of several groups of panels after one another."""
        if len(parts) == 1:
            return parts[0]
        n = parts[0].n_muons
        valid = None
        if any(p.valid is not None for p in parts):
            valid = torch.cat([p.mask for p in parts])
        return cls(
            torch.cat([p.reco_xy for p in parts]),
            torch.cat([p.gen_xy for p in parts]),
            torch.cat([p.z.expand(-1, n) for p in parts]),
            torch.cat([p.unc_xy for p in parts]),
            torch.cat([p.eff for p in parts]),
            valid,
        )

    def repeat_first(self, n: int) -> HitBatch:
        """The first hit of every muon ``n`` times."""
        return self.select_hits(torch.zeros(n, dtype=torch.int64, device=self.eff.device))

    def select_hits(self, idx: Tensor) -> HitBatch:
        """The hits with these indices of all muons."""
        reco_xy, gen_xy, z, unc_xy, eff = (
            t.index_select(0, idx) for t in (self.reco_xy, self.gen_xy, self.z, self.unc_xy, self.eff)
        )
        valid = None if self.valid is None else self.valid.index_select(0, idx)
        return HitBatch(reco_xy, gen_xy, z, unc_xy, eff, valid)

    @property
    def mask(self) -> Tensor:
        """``(hit, muon)`` True where the hit exists."""
        if self.valid is None:
            return torch.ones(self.eff.shape, dtype=torch.bool, device=self.eff.device)
        return self.valid

    def select(self, keep: Tensor) -> HitBatch:
        """The same hits of the muons where ``keep`` is True (or of the listed indices)."""
        idx = keep.nonzero().squeeze(-1) if keep.dtype == torch.bool else keep
        return replace(
            self,
            reco_xy=self.reco_xy.index_select(-1, idx),
            gen_xy=self.gen_xy.index_select(-1, idx),
            z=self.z if self.z.shape[-1] == 1 else self.z.index_select(-1, idx),
            unc_xy=self.unc_xy.index_select(-1, idx),
            eff=self.eff.index_select(-1, idx),
            valid=None if self.valid is None else self.valid.index_select(-1, idx),
        )

    @classmethod
    def from_dict(cls, hits: dict[str, Tensor]) -> HitBatch:
        """One panel's hits from the documented dictionary of ``(muons, ...)`` tensors.

        Raises:
            InputError: a key is missing.
            ShapeError: a tensor has another shape than documented.
        """
        missing = [k for k in _KEYS if k not in hits]
        if missing:
            raise InputError(f"`hits` must have the keys {list(_KEYS)}; missing: {missing}, given: {sorted(hits)}")
        n = hits["reco_xyz"].shape[0]
        for key in _KEYS:
            wanted = (n, 1) if key == "eff" else (n, 3)
            if tuple(hits[key].shape) != wanted:
                raise ShapeError(f"`hits[{key!r}]` must have the shape {wanted}; given: {tuple(hits[key].shape)}")
        reco, gen, unc = (hits[k].T for k in _KEYS[:3])
        eff = hits["eff"].T
        seen = torch.isfinite(reco[:2]).all(0) & torch.isfinite(unc[:2]).all(0)
        check_finite("hits['gen_xyz']", gen)
        valid = None if bool(seen.all()) else seen[None]
        one = torch.ones_like(unc[:2])
        return cls(
            torch.where(seen, reco[:2], gen[:2])[None],
            gen[:2].contiguous()[None],
            torch.where(seen, reco[2:3], gen[2:3]),
            torch.where(seen, unc[:2], one)[None],
            torch.where(seen, eff, torch.zeros_like(eff)),
            valid,
        )

    def to_dict(self) -> dict[str, Tensor]:
        """The documented form: ``(muons, hits, ...)`` tensors, NaN positions and infinite uncertainties where a hit
        is missing.
        """
        n = self.n_muons
        z = self.z.expand(-1, n)[:, None]
        reco, unc, gen = self.reco_xy, self.unc_xy, self.gen_xy
        if self.valid is not None:
            seen = self.valid[:, None]
            reco = torch.where(seen, reco, torch.full_like(reco, torch.nan))
            unc = torch.where(seen, unc, torch.full_like(unc, torch.inf))
        columns = {
            "reco_xyz": torch.cat([reco, z], 1),
            "gen_xyz": torch.cat([gen, z], 1),
            "unc_xyz": torch.cat([unc, torch.zeros_like(z)], 1),
            "eff": self.eff[:, None],
        }
        return {key: value.permute(2, 0, 1) for key, value in columns.items()}
