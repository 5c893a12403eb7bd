"""Fitted tracks before and after the passive volume, and which muons are fit to be used."""

from __future__ import annotations

from dataclasses import dataclass

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
    sides = []
    for hits in (above, below):
        xy = hits.gen_xy if generated else hits.reco_xy
        sigma = torch.ones_like(hits.unc_xy) if generated else hits.unc_xy
        root = torch.ones_like(sigma) if generated else hits.eff[:, None] / sigma
        there = (hits.unc_xy < MAX_HIT_SIGMA).all(1) & torch.isfinite(hits.reco_xy).all(1)
        least = (root.detach().amax(0) * MIN_RELATIVE_ROOT).clamp_min(MIN_WEIGHT_ROOT)
        there = there & (root > least).all(1)
        if hits.valid is not None:
            there = there & hits.valid
        z = hits.z.expand(-1, hits.n_muons)[:, None] if hits.z.shape[-1] > 1 else hits.z[:, None]
        pad = n_max - len(hits)
        if pad:
            xy, sigma, root, z = (torch.cat([t, t[:1].expand(pad, *t.shape[1:])]) for t in (xy, sigma, root, z))
            there = torch.cat([there, torch.zeros_like(there[:1]).expand(pad, -1)])
        sides.append((xy, sigma, root, z, there))
    n = above.n_muons
    z = [s[3] if sides[0][3].shape == sides[1][3].shape else s[3].expand(-1, -1, n) for s in sides]
    xy, sigma, root = (torch.stack([sides[0][k], sides[1][k]]) for k in range(3))
    there = torch.stack([sides[0][4], sides[1][4]])
    n_hits = there.sum(1)
    # A muon without two hits on each side will be dropped; until then its fit must stay finite, or its NaN would
    # reach the panels' gradients through the sum over muons. So it is fitted to stand-ins.
    enough = (n_hits >= 2).all(0)
    one = torch.ones_like(root)
    weight = torch.where(there[:, :, None], root, torch.zeros_like(root)).square()
    weight = torch.where(enough, weight, one)
    sigma = torch.where(there[:, :, None] & enough, sigma, one)
    return HitPair(xy, torch.stack(z), sigma, weight, n_hits)


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
    enough = (hits.n_hits >= 2).all(0)
    kink = slope[2:] - slope[:2]
    (_, _, low_z), (size_x, size_y, high_z) = box
    faces = torch.stack(
        [position[:2] + slope[:2] * (high_z - tracks.z_ref), position[2:] + slope[2:] * (low_z - tracks.z_ref)]
    )
    limit = MAX_EXTRAPOLATION * faces.new_tensor([size_x, size_y])[None, :, None]
    near = (faces.abs() < limit).flatten(0, 1).all(0)  # False for NaN and infinity
    return (
        enough
        & near
        & ((kink * kink).sum(0) > 0)
        & (tracks.lines.var_slope < 0.1 * line_kernels.UNKNOWN_VARIANCE).all(0)
    )
