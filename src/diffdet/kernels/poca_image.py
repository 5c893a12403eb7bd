"""Sums over muons that make an image from points of closest approach.

The probability of a point to lie in a voxel is a product of one factor per axis, so every weighted sum over muons is a matrix product
of (xy, muon) with (muon, z * quantities): memory and time are linear in muons and no array of muons x voxels exists.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from diffdet.kernels.voxels import interval_mass

__all__ = ["PROBABILITY_FLOOR", "SIGMA_FLOOR", "axis_masses", "rms_from_sums", "voxel_probabilities", "voxel_sums"]

SIGMA_FLOOR = 1e-7
"""Added to every uncertainty of a position, m: a point known exactly still has to lie in one voxel."""

PROBABILITY_FLOOR = 1e-15
"""Added to every probability, so that a voxel without muons shows their average instead of 0/0."""


def axis_masses(
    poca: Float[Tensor, "3 muon"], sigma: Float[Tensor, "3 muon"], x_edges: Tensor, y_edges: Tensor, z_edges: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Probability per axis to lie between consecutive edges, ``(nx, muon)``, ``(ny, muon)``, ``(nz, muon)``."""
    wide = sigma + SIGMA_FLOOR
    x, y, z = (interval_mass(poca[k], wide[k], e) for k, e in enumerate((x_edges, y_edges, z_edges)))
    return x, y, z


def voxel_probabilities(
    poca: Float[Tensor, "3 muon"], sigma: Float[Tensor, "3 muon"], x_edges: Tensor, y_edges: Tensor, z_edges: Tensor
) -> Float[Tensor, "muon z x y"]:
    """Probability of every muon's point to lie in every voxel, three independent Gaussians. Not for many muons."""
    x, y, z = axis_masses(poca, sigma, x_edges, y_edges, z_edges)
    return torch.einsum("zm,xm,ym->mzxy", z, x, y) + PROBABILITY_FLOOR


def voxel_sums(
    poca: Float[Tensor, "3 muon"],
    poca_sigma: Float[Tensor, "3 muon"],
    values: Float[Tensor, "4 muon"],
    sigmas: Float[Tensor, "3 muon"],
    efficiency: Float[Tensor, " muon"],
    x_edges: Tensor,
    y_edges: Tensor,
    z_edges: Tensor,
) -> Float[Tensor, "8 z x y"]:
    """Weighted sums over muons for every voxel: sum w v^2 and sum w of four variables.

    The weight of muon i for variable v in voxel j is e_i p_ij / (2 v_i s_i)^2, the inverse variance of v^2; for the momentum,
    which is taken as known, e_i p_ij.

    Differentiable in: everything but the edges.

    Args:
        poca: points of closest approach, m.
        poca_sigma: their uncertainties, m.
        values: total scatter, theta_in, theta_out [rad], momentum [GeV].
        sigmas: uncertainties of the three angles, rad.
        efficiency: weight of every muon.
        x_edges: ``(nx + 1,)`` m.
        y_edges: ``(ny + 1,)`` m.
        z_edges: ``(nz + 1,)`` m.

    Returns:
        First the four sums of w v^2, then the four of w.
    """
    x, y, z = axis_masses(poca, poca_sigma, x_edges, y_edges, z_edges)
    angles = values[:3]
    spread = 2 * angles * sigmas
    usable = spread > 0
    inverse = 1 / torch.where(usable, spread, torch.ones_like(spread))
    by_angle = torch.where(usable, inverse * inverse, torch.zeros_like(inverse)) * efficiency
    weight = torch.cat([by_angle, efficiency[None]])
    columns = torch.cat([weight * values * values, weight])
    xy = (x[:, None] * y).flatten(0, 1)
    zq = (z * columns[:, None]).flatten(0, 1)
    sums = (zq @ xy.T).reshape(columns.shape[0], z.shape[0], x.shape[0], y.shape[0])
    return sums + PROBABILITY_FLOOR * columns.sum(-1)[:, None, None, None]


def rms_from_sums(sums: Float[Tensor, "8 z x y"]) -> Float[Tensor, "4 z x y"]:
    """Weighted RMS of the four variables from ``voxel_sums``."""
    return (sums[:4] / sums[4:]).sqrt()
