"""Sums over muons that make an image from points of closest approach.

The probability of a point to lie in a voxel is a product of one factor per axis, so every weighted sum over muons is
a matrix product of (xy, muon) with (muon, z * quantities): memory and time are linear in muons and no array of muons
x voxels exists.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from diffdet.core.random import MUON_BLOCK
from diffdet.kernels.safe_math import safe_divide, safe_sqrt
from diffdet.kernels.voxels import signed_tail

__all__ = ["PROBABILITY_FLOOR", "SIGMA_FLOOR", "axis_masses", "rms_from_sums", "voxel_probabilities", "voxel_sums"]

SIGMA_FLOOR = 1e-7
"""Added to every uncertainty of a position, m: a point known exactly still has to lie in one voxel."""

PROBABILITY_FLOOR = 1e-15
"""Added to every probability, so that a voxel without muons shows their average instead of 0/0."""


class _EdgeMatrices(NamedTuple):
    """Constant matrices that treat the edges of three axes as one column, x before y before z.

    Attributes:
        axis: ``(edge, 3)`` one where an edge belongs to an axis: picks the axis' value for every edge.
        step: ``(interval, edge)`` the upper minus the lower edge of every interval.
    """

    axis: Tensor
    step: Tensor


@functools.lru_cache(maxsize=32)
def _edge_matrices(counts: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> _EdgeMatrices:
    # kept for later calls, so they must be ordinary tensors even when first asked for in inference mode
    with torch.inference_mode(False):
        axis = torch.block_diag(*(torch.ones(n, 1) for n in counts))
        step = torch.block_diag(*(torch.eye(n)[1:] - torch.eye(n)[:-1] for n in counts))
        return _EdgeMatrices(axis.to(device, dtype), step.to(device, dtype))


def axis_masses(
    poca: Float[Tensor, "3 muon"], sigma: Float[Tensor, "3 muon"], x_edges: Tensor, y_edges: Tensor, z_edges: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Probability per axis to lie between consecutive edges, ``(nx, muon)``, ``(ny, muon)``, ``(nz, muon)``.

    The same as ``voxels.interval_mass`` axis by axis, in a third of the operations: the edges of all axes are one
    column, and products with constant matrices pick the axis and take the differences. Every row of these has one or
    two entries of +-1, so the products are exact sums.
    """
    edges = (x_edges, y_edges, z_edges)
    counts = (len(x_edges), len(y_edges), len(z_edges))
    axis, step = _edge_matrices(counts, poca.dtype, poca.device)
    t = (torch.cat(edges).to(poca.dtype)[:, None] - axis @ poca) * (axis @ (sigma + SIGMA_FLOOR).reciprocal())
    side, tail = signed_tail(t)
    x, y, z = (0.5 * (step @ side - step @ tail)).split([n - 1 for n in counts])
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
    *,
    onto: Tensor | None = None,
    block: int = MUON_BLOCK,
) -> Float[Tensor, "8 z x y"]:
    """Weighted sums over muons for every voxel: sum w v^2 and sum w of four variables.

    The weight of muon i for variable v in voxel j is e_i p_ij / (2 v_i s_i)^2, the inverse variance of v^2; for the
    momentum, which is taken as known, e_i p_ij. Blocks of muons are summed in the type of the arguments and added one
    after another in float64: so long sums lose nothing, and do not depend on how whole blocks are dealt out to calls.

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
        onto: sums of earlier muons to add to.
        block: muons to a block.

    Returns:
        First the four sums of w v^2, then the four of w, float64.
    """
    x, y, z = axis_masses(poca, poca_sigma, x_edges, y_edges, z_edges)
    spread = 2 * values[:3] * sigmas
    usable = spread > 0
    inverse = torch.where(usable, spread, torch.ones_like(spread)).reciprocal()
    by_angle = torch.where(usable, inverse * inverse, torch.zeros_like(inverse)) * efficiency
    weight = torch.cat([by_angle, efficiency[None]])
    columns = torch.cat([weight * values * values, weight])
    sums = onto
    shape = (columns.shape[0], z.shape[0], x.shape[0], y.shape[0])
    # Factors of a product of matrices are made block by block: its digits depend on how they lie in memory.
    # split, not slices: the gradient of a slice is as large as the whole
    for x_part, y_part, z_part, part in zip(*(t.split(block, -1) for t in (x, y, z, columns)), strict=True):
        xy, zq = (x_part[:, None] * y_part).flatten(0, 1), (z_part * part[:, None]).flatten(0, 1)
        floor = PROBABILITY_FLOOR * part.sum(-1, dtype=torch.float64)
        of_block = (zq @ xy.T).to(torch.float64).reshape(shape) + floor[:, None, None, None]
        sums = of_block if sums is None else sums + of_block
    return columns.new_zeros(shape, dtype=torch.float64) if sums is None else sums


def rms_from_sums(sums: Float[Tensor, "8 z x y"]) -> Float[Tensor, "4 z x y"]:
    """Weighted RMS of the four variables from ``voxel_sums``; 0 where nothing has weight, as of angles that are 0."""
    return safe_sqrt(safe_divide(sums[:4], sums[4:]))
