"""Scattering drawn from tabulated quantiles instead of a formula: keeps the tails that a Gaussian lacks.

A table holds, for one thickness of one material and one bin of momenta, the quantiles of the size of the projected
scattering angle and of the projected displacement, in ascending order: entry i of n is the value at rank (i + 1/2) / n.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffdet.kernels import scattering

__all__ = ["TabulatedScattering", "bin_centre", "draw", "nearest_in_log", "signed_quantile", "strength_ratio"]

# Correlation of angle and displacement in one plane behind a homogeneous layer.
CORRELATION = math.sqrt(3) / 2


class TabulatedScattering(NamedTuple):
    """What one step does to each muon, in two orthogonal planes.

    Attributes:
        angle: ``(2, muon)`` deflection, rad.
        shift: ``(2, muon)`` displacement at right angles to the flight, m.
    """

    angle: Tensor
    shift: Tensor


def signed_quantile(
    normal: Float[Tensor, "*draw muon"], quantiles: Float[Tensor, "row rank"], row: Int[Tensor, " muon"]
) -> Float[Tensor, "*draw muon"]:
    """The value of a table, with a sign, at the rank that a standard normal number has.

    The size of a normal number z has the rank erf(|z| / sqrt 2); its sign is kept. So the result is symmetric, its size
    is distributed as tabulated, and results of correlated normals are correlated.

    Args:
        normal: Standard normal numbers.
        quantiles: Tables, one a row, ascending, >= 0.
        row: Which table each muon draws from.

    Returns:
        Signed values in the unit of the table.
    """
    n = quantiles.shape[-1]
    rank = (torch.special.erf(normal.abs() * math.sqrt(0.5)) * n).long().clamp_max(n - 1)
    return torch.copysign(quantiles.reshape(-1).take(row * n + rank), normal)


def draw(
    normals: Float[Tensor, "4 muon"],
    angles: Float[Tensor, "row rank"],
    shifts: Float[Tensor, "row rank"],
    row: Int[Tensor, " muon"],
    strength: Float[Tensor, " muon"],
    steps: Float[Tensor, " muon"],
    shift_power: float,
    max_angle: float = math.pi / 2.2,
) -> TabulatedScattering:
    """Deflection and displacement of muons that cross a thickness near that of the table.

    Angles grow with the root of the path, displacements with a power of it. Both are as tabulated for a path of one
    step; the normals behind them are correlated by sqrt(3)/2, as in any homogeneous layer, so that the vertex of a
    scatter lies in the middle of the step on average.

    Args:
        normals: Standard normals, rows (z_1, z_2) of the first plane, then of the second, as for
            `scattering.correlated_draw`.
        angles: Quantiles of the angle, rad.
        shifts: Quantiles of the displacement, m.
        row: Which table each muon draws from.
        strength: Factor on both, for what the table does not hold: a material or momentum in between. 0 is vacuum.
        steps: Path in units of the tabulated thickness.
        shift_power: Power of the path that displacements grow with.
        max_angle: Limit of the angle, rad.

    Returns:
        TabulatedScattering.

    Reference: PDG review "Passage of particles through matter", eq. (34.20)-(34.22), for the correlation.
    """
    z1, z2 = normals[0::2], normals[1::2]
    z_shift = CORRELATION * z2 + math.sqrt(1 - CORRELATION**2) * z1
    angle = signed_quantile(z2, angles, row) * (strength * steps.sqrt())
    shift = signed_quantile(z_shift, shifts, row) * (strength * steps.pow(shift_power))
    return TabulatedScattering(angle.clamp(-max_angle, max_angle), shift)


def nearest_in_log(values: Tensor, known: Float[Tensor, " known"]) -> Int[Tensor, "*shape"]:
    """Index of the known value whose logarithm is nearest; of any two the one on the same side of their geometric mean.

    Args:
        values: Any shape, > 0; infinity is nearest to the largest.
        known: > 0, in any order.
    """
    ordered, order = known.sort()
    return order[torch.bucketize(values, (ordered[1:] * ordered[:-1]).sqrt())]


def bin_centre(low: Tensor, high: Tensor) -> Tensor:
    """Momentum at which 1/p^2 equals its mean over a bin that is filled uniformly: the geometric mean of its edges.

    Scattering has that width whose variance goes as 1/p^2, so scaling from there is right for the bin's RMS.
    """
    return (low * high).sqrt()


def strength_ratio(n_rad: Tensor, n_rad_table: Tensor) -> Tensor:
    """Ratio of Highland's widths behind two thicknesses, for materials that the table does not hold; 0 for vacuum.

    Args:
        n_rad: Radiation lengths of the thickness in the actual material, >= 0.
        n_rad_table: Radiation lengths of it in the tabulated one, > 0.
    """
    return (scattering.highland_variance(n_rad) / scattering.highland_variance(n_rad_table)).sqrt()
