"""Reading out all panels of a layer at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffdet.tomography.muon.hits import HitBatch

if TYPE_CHECKING:
    from diffdet.tomography.muon.muon_batch import MuonBatch
    from diffdet.tomography.volume.panel import AbsPanel

__all__ = ["record_hits", "stack_parameters"]


def record_hits(panels: Sequence[AbsPanel], mu: MuonBatch, purpose: str = "hits") -> HitBatch:
    """Hits of all ``panels``, from the highest to the lowest.

    The muon's position at a panel is taken on its straight line at the panel's *learnable* height, so a gradient by
    z moves the hit along the track. Noise is keyed by muon and by the panel's place in the list, not by its height:
    the loss stays continuous when two panels pass each other.

    Args:
        panels: at least one.
        mu: muons with straight lines through all panels; not moved.
        purpose: name of the random draw.

    Returns:
        HitBatch with the panels' gradients.
    """
    heights = torch.stack([p.z.reshape(()) for p in panels])
    order = sorted(range(len(panels)), key=heights.tolist().__getitem__, reverse=True)
    noise = mu.draw_normal(purpose, (len(panels), 2))
    if order != list(range(len(panels))):
        heights, noise = heights[order], noise[order]
    z = heights.to(mu.dtype)[:, None]
    direction, position = mu.direction, mu.position
    slope = direction[:2] / direction[2]
    gen = torch.addcmul(position[:2], slope, (z - position[2])[:, None])

    parameters = [panels[k].response_parameters() for k in order]
    groups: dict[Any, list[int]] = {}
    for place, k in enumerate(order):
        groups.setdefault(_group_key(panels[k], parameters[place]), []).append(place)
    if len(groups) == 1:
        return _read_out(panels[order[0]], stack_parameters(parameters, gen), gen, z, noise)
    parts = []
    for places in groups.values():
        stacked = stack_parameters([parameters[j] for j in places], gen)
        parts.append(_read_out(panels[order[places[0]]], stacked, gen[places], z[places], noise[places]))
    back = torch.tensor([j for places in groups.values() for j in places], device=gen.device).argsort()
    whole = HitBatch.cat(parts)
    return replace(
        whole,
        **{n: getattr(whole, n)[back] for n in ("reco_xy", "gen_xy", "z", "unc_xy", "eff")},
        valid=None if whole.valid is None else whole.valid[back],
    )


def _group_key(panel: AbsPanel, parameters: dict[str, Tensor]) -> Any:
    return type(panel), panel.is_physical, tuple((name, t.shape) for name, t in parameters.items())


def stack_parameters(rows: Sequence[dict[str, Tensor]], like: Tensor) -> dict[str, Tensor]:
    """Response parameters of panels of one kind: ``(panel, ..., 1)``, scalars as ``(panel, 1, 1)``.

    Args:
        rows: parameters of each panel, all of the same names and shapes.
        like: gives the dtype.
    """
    stacked = {}
    for name in rows[0]:
        column = torch.stack([r[name] for r in rows]).to(like.dtype).unsqueeze(-1)
        stacked[name] = column if column.ndim > 2 else column.unsqueeze(-1)
    return stacked


def _read_out(kind: AbsPanel, parameters: dict[str, Tensor], gen: Tensor, z: Tensor, noise: Tensor) -> HitBatch:
    """Hits of panels of one kind, with stacked parameters, at true positions ``gen`` (panel, 2, muon)."""
    if not kind.is_physical:
        res, eff = kind.response(gen, **parameters)
        sigma = res.reciprocal()
        return HitBatch(kind.recorded(gen, noise, sigma, **parameters), gen, z, sigma, eff)
    res, eff = kind.physical_response(gen, **parameters)
    seen = (res > 0).all(-2) & (eff > 0)
    sigma = torch.where(seen[:, None], res, torch.ones_like(res)).reciprocal()
    reco = torch.where(seen[:, None], kind.physical_recorded(gen, noise, sigma, **parameters), gen)
    return HitBatch(reco, gen, z, sigma, torch.where(seen, eff, torch.zeros_like(eff)), seen)
