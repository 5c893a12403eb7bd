"""Fitted tracks before and after the passive volume, and which muons are fit to be used."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffdet.kernels import lines as line_kernels
from diffdet.kernels.lines import Lines
from diffdet.tomography.muon.hits import HitBatch

__all__ = ["MAX_HIT_SIGMA", "HitPair", "TrackPair", "fit_tracks", "pair_hits", "usable"]

# A hit whose position is known to no better than this [m] says nothing; keeping it would only invite overflow.
MAX_HIT_SIGMA = 1e10
# Square roots of fit weights [1/m] below this would underflow when squared in float32.
MIN_WEIGHT_ROOT = 1e-15
# A hit measured this much worse than the best on its side tells nothing beside it, and a slope that rests on it is
# unknown.
MIN_RELATIVE_ROOT = 1e-5
# Tracks that enter or leave further out than this, in units of the block's extent, cannot have crossed it.
MAX_EXTRAPOLATION = 10.0


@dataclass(frozen=True)
class HitPair:
    """Hits above and below, brought to one shape ``(side, hit, ..., muon)``; a side with fewer panels is padded.

    Attributes:
        xy: ``(2, H, 2, muon)`` positions used for the fit, m.
        z: ``(2, H, 1, 1 or muon)`` heights, m.
        sigma: ``(2, H, 2, muon)`` standard deviations, m.
        weight: ``(2, H, 2, muon)`` fit weights (eff / sigma)^2, zero for a hit that is not there.
        n_hits: ``(2, muon)`` usable hits on each side.
    """

    xy: Tensor
    z: Tensor
    sigma: Tensor
    weight: Tensor
    n_hits: Tensor


@dataclass(frozen=True)
class TrackPair:
    """Lines fitted above (in) and below (out), at one common reference height.

    Attributes:
        lines: ``(4, muon)`` lines, rows (in_x, in_y, out_x, out_y).
        z_ref: the common height, m.
    """

    lines: Lines
    z_ref: Tensor

    def select(self, idx: Tensor) -> TrackPair:
        """The tracks of the muons with these indices."""
        position, slope, var_position, cov, var_slope = (t.index_select(-1, idx) for t in self.lines[:5])
        return TrackPair(Lines(position, slope, var_position, cov, var_slope, self.z_ref), self.z_ref)


def pair_hits(above: HitBatch, below: HitBatch, *, generated: bool = False) -> HitPair:
    """Bring the hits of both sides into one tensor.

    Args:
        above: hits above the passive volume.
        below: hits below.
        generated: use the true positions with equal weights instead of the recorded ones.
    """
    n_max = max(len(above), len(below))
    sides = [_padded(above, n_max), _padded(below, n_max)]
    reco = torch.stack([hits.reco_xy for hits in sides])
    unc = torch.stack([hits.unc_xy for hits in sides])
    if generated:
        xy, sigma = torch.stack([hits.gen_xy for hits in sides]), torch.ones_like(unc)
        root = sigma
    else:
        xy, sigma = reco, unc
        root = torch.stack([hits.eff for hits in sides])[:, :, None] / unc
    least = (root.detach().amax(1, keepdim=True) * MIN_RELATIVE_ROOT).clamp_min(MIN_WEIGHT_ROOT)
    in_x, in_y = ((unc < MAX_HIT_SIGMA) & (reco.abs() < math.inf) & (root > least)).unbind(2)
    there = in_x & in_y
    if any(hits.valid is not None for hits in sides):
        there = there & torch.stack([hits.mask for hits in sides])
    n_hits = there.sum(1)
    # A muon without two hits on each side will be dropped; until then its fit must stay finite, or its NaN would
    # reach the panels' gradients through the sum over muons. So it is fitted to stand-ins.
    enough = (n_hits >= 2).all(0)
    there = there[:, :, None]
    if not bool(there.all()):
        root = torch.where(enough, torch.where(there, root, 0.0), 1.0)
        sigma = torch.where(there & enough, sigma, 1.0)
    heights = [hits.z[:, None] for hits in sides]
    if heights[0].shape != heights[1].shape:
        heights = [z.expand(-1, -1, above.n_muons) for z in heights]
    return HitPair(xy, torch.stack(heights), sigma, root.square(), n_hits)


def _padded(hits: HitBatch, n: int) -> HitBatch:
    """The hits, and copies of the first that do not exist, ``n`` in all."""
    pad = n - len(hits)
    if not pad:
        return hits
    longer = HitBatch.cat([hits, hits.repeat_first(pad)])
    return replace(longer, valid=torch.cat([hits.mask, hits.mask.new_zeros((pad, hits.n_muons))]))


def fit_tracks(hits: HitPair, z_ref: Tensor) -> TrackPair:
    """Weighted line fits on both sides, brought to the height ``z_ref`` between them.

    Args:
        hits: hits of both sides.
        z_ref: common height; half-way between the detector groups keeps the lever arms short, m.
    """
    own = line_kernels.fit_weighted(hits.xy, hits.z, hits.weight, hits.sigma)
    flat = Lines(*(t.flatten(0, 1) for t in own))
    return TrackPair(line_kernels.at_plane(flat, z_ref), z_ref)


@torch.no_grad()
def usable(
    hits: HitPair, tracks: TrackPair, box: tuple[tuple[float, float, float], tuple[float, float, float]]
) -> Tensor:
    """Which muons can be used: two hits on each side, finite tracks that are not exactly parallel and pass near the
    block.

    Unlike in the original, a muon does not need a hit in *every* panel; two on each side determine it.

    Args:
        hits: hits of both sides.
        tracks: fitted tracks.
        box: low and high corner of the passive block, m.

    Returns:
        ``(muon,)`` bool.
    """
    slope, position = tracks.lines.slope, tracks.lines.position
    kink = slope[2:] - slope[:2]
    (_, _, low_z), (size_x, size_y, high_z) = box
    height = slope.new_tensor([high_z, high_z, low_z, low_z])[:, None] - tracks.z_ref
    limit = slope.new_tensor([size_x, size_y, size_x, size_y])[:, None] * MAX_EXTRAPOLATION
    # comparisons are False for NaN and infinity
    near = torch.addcmul(position, slope, height).abs() < limit
    known = tracks.lines.var_slope < 0.1 * line_kernels.UNKNOWN_VARIANCE
    return (near & known).all(0) & ((kink * kink).sum(0) > 0) & (hits.n_hits >= 2).all(0)
