"""Straight tracks: weighted line fits with covariance, and the closest approach of two lines.

Component axis first, muon axis last. A track is written as ``x(z) = position + slope * (z - z_ref)`` per projection,
with slope = dx/dz; a muon that falls towards +x therefore has a negative slope in x.

Every expression is arranged so that float32 does not cancel: moments are centred before they are summed, and the
closest approach works with the *difference* and the *mean* of the two tracks instead of textbook cross products.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from diffdet.kernels.angles import clockwise
from diffdet.kernels.safe_math import sum_rows

__all__ = ["MIN_SPREAD", "UNKNOWN_VARIANCE", "ClosestApproach", "Lines", "at_plane", "closest_approach", "fit_weighted"]

MIN_SPREAD = 1e-18
"""Weighted variance of the hits' heights below which they count as one height, m^2 (two equal hits 2 nm apart)."""

UNKNOWN_VARIANCE = 1e18
"""Stands for the variance of a slope that the hits do not determine; its square is finite in float32."""


class Lines(NamedTuple):
    """Fitted lines in several projections, with their covariance.

    Attributes:
        position: ``(..., muon)`` coordinate at the plane ``z_ref``, m.
        slope: ``(..., muon)`` dx/dz.
        var_position: variance of ``position``, m^2.
        cov: covariance of ``position`` and ``slope``, m.
        var_slope: variance of ``slope``.
        z_ref: height at which ``position`` holds, broadcastable to ``position``, m.
    """

    position: Tensor
    slope: Tensor
    var_position: Tensor
    cov: Tensor
    var_slope: Tensor
    z_ref: Tensor


class ClosestApproach(NamedTuple):
    """Point of closest approach of an incoming and an outgoing track, with its first derivatives.

    The derivatives are taken with respect to the eight track parameters, ordered
    ``(in_x, in_y, out_x, out_y)`` for positions (``d_position``) and slopes (``d_slope``).

    Attributes:
        xyz: ``(3, muon)`` midpoint of the common perpendicular, m.
        gap: ``(2, muon)`` x and y of the vector from the incoming to the outgoing track, m.
        d_position: ``(5, 4, muon)`` derivatives of (x, y, z, gap_x, gap_y) by the positions; of the first three only
            where those of the gap were not asked for.
        d_slope: the same by the slopes, m.
    """

    xyz: Tensor
    gap: Tensor
    d_position: Tensor
    d_slope: Tensor


def fit_weighted(
    xy: Float[Tensor, "*side hit proj muon"],
    z: Tensor,
    weight: Float[Tensor, "*side hit proj muon"],
    sigma: Float[Tensor, "*side hit proj muon"],
) -> Lines:
    """Weighted least-squares line through hits, independently in every projection, with the sandwich covariance.

    With normalised weights p_j = w_j / sum w, mean height z_m = sum p_j z_j and d_j = z_j - z_m, the estimates are
    linear in the hits: position = sum p_j x_j at z_m and slope = sum p_j d_j x_j / S with S = sum p_j d_j^2. Their
    covariance for independent hits of standard deviation sigma_j follows exactly, also where the weights are not
    1/sigma^2: Var = sum c_j^2 sigma_j^2 for either row of coefficients c.

    Differentiable in: xy, z, weight, sigma. A hit of weight zero takes no part (its ``xy``, ``sigma`` must be finite).

    Args:
        xy: hit coordinates, m.
        z: hit heights, broadcastable to ``xy``, m.
        weight: non-negative weights in any common unit; at least two hits at different heights must have weight.
        sigma: standard deviations of the hits, m.

    Returns:
        Lines of shape ``(*side, proj, muon)`` at each line's own mean height. Where the weight lies at a single
        height, the slope says nothing and its variance is ``UNKNOWN_VARIANCE``: a finite stand-in, so that no NaN
        enters the gradients of the other muons. Not finite where no hit has weight.

    Reference: weighted linear least squares, e.g. PDG review "Statistics", eq. (40.15)-(40.17); sandwich form: White
    (1980).
    """
    share = weight / sum_rows(weight, -3).unsqueeze(-3)
    z_mean = sum_rows(share * z, -3).unsqueeze(-3)
    lever = z - z_mean
    share_lever = share * lever
    spread = sum_rows(share_lever * lever, -3).unsqueeze(-3)
    position = sum_rows(share * xy, -3).unsqueeze(-3)
    flat = spread < MIN_SPREAD
    coef_slope = share_lever / torch.where(flat, torch.ones_like(spread), spread)
    slope = sum_rows(coef_slope * (xy - position), -3)
    noise_position = share * sigma
    noise_slope = coef_slope * sigma
    var_slope = sum_rows(noise_slope.square(), -3)
    return Lines(
        position.squeeze(-3),
        slope,
        sum_rows(noise_position.square(), -3),
        sum_rows(noise_position * noise_slope, -3),
        torch.where(flat.squeeze(-3), torch.full_like(var_slope, UNKNOWN_VARIANCE), var_slope),
        z_mean.squeeze(-3),
    )


def at_plane(lines: Lines, z: Tensor | float) -> Lines:
    """The same lines with position and covariance stated at height ``z``.

    Differentiable in: lines, z.

    Args:
        lines: lines at their own reference heights.
        z: new reference height, broadcastable to ``lines.position``, m.

    Returns:
        Lines whose ``z_ref`` is ``z``.
    """
    step = z - lines.z_ref
    step_var = step * lines.var_slope
    z_ref = z if isinstance(z, Tensor) else torch.full_like(lines.z_ref, z)
    return Lines(
        lines.position + step * lines.slope,
        lines.slope,
        lines.var_position + step * (2 * lines.cov + step_var),
        lines.cov + step_var,
        lines.var_slope,
        z_ref,
    )


@functools.lru_cache(maxsize=16)
def _unit_matrix(dtype: torch.dtype, device: torch.device) -> Float[Tensor, "2 1 2 1"]:
    with torch.inference_mode(False):  # kept for later calls
        return torch.eye(2, dtype=dtype, device=device)[:, None, :, None]


def closest_approach(
    position: Float[Tensor, "4 muon"],
    slope: Float[Tensor, "4 muon"],
    z_ref: Tensor | float,
    *,
    gap_derivatives: bool = True,
) -> ClosestApproach:
    """Point of closest approach of two lines, with all first derivatives in closed form.

    Rows are (in_x, in_y, out_x, out_y), positions at the common plane ``z_ref``. With r, d the differences (out -
    in) of positions and slopes, b the mean slope, n = (b_y, -b_x) and <u, v> = u.v + (u.n)(v.n), the squared
    distance of the lines at heights z_ref + t -+ tau/2 is least for

        t = -<r, d> / <d, d>,   c = r + t d,   tau = -(c.b) / (1 + b^2),

    and the midpoint is (p_mean + t b + tau d / 4, z_ref + t); the vector from the incoming to the outgoing line is
    (c + tau b, tau). Nothing in these expressions cancels for nearly parallel tracks, so they hold in float32, where
    the textbook form through v_in x v_out loses a fifth of the uncertainty.

    Differentiable in: position, slope. Not finite where the tracks are exactly parallel.

    Args:
        position: coordinates at ``z_ref``, m.
        slope: dx/dz.
        z_ref: common reference height, m.
        gap_derivatives: whether derivatives have the two rows of the gap, too; False saves their time.

    Returns:
        ClosestApproach.

    Reference: minimum of a quadratic form in (t, tau); derivation in docs/numerics/closest_approach.md.
    """
    both = torch.stack([position, slope])
    incoming, outgoing = both[:, :2], both[:, 2:]
    difference, (mean, b) = outgoing - incoming, 0.5 * (outgoing + incoming)
    r, d = difference
    n = clockwise(b)
    along_n = (difference * n).sum(1)
    rd, dd = (difference * d).sum(1) + along_n * along_n[1]
    rn, dn = along_n
    inv_dd = dd.reciprocal()  # unlike 1 / dd, one operation
    t = -rd * inv_dd
    c, cn = r + t * d, rn + t * dn
    inv_b2 = (1 + (b * b).sum(0)).reciprocal()
    tau = -(c * b).sum(0) * inv_b2
    xyz = torch.cat([mean + t * b + 0.25 * tau * d, (z_ref + t)[None]])

    # Derivatives of t and tau by r, d and b, (3, 2, muon); M u = u + (u.n) n is the metric of <.,.>.
    m_d, m_c = d + dn * n, c + cn * n
    by_n = dn * c + cn * d
    t_by = torch.stack([m_d, m_c + t * m_d, -clockwise(by_n)]) * -inv_dd
    tau_by = (torch.stack([b, t * b, c + 2 * tau * b]) + (d * b).sum(0) * t_by) * -inv_b2

    # Derivatives of x and y, of z, and of both components of the gap, (row, 3, 2, muon)
    rows_b, rows_d = b[:, None, None], d[:, None, None]
    unit = _unit_matrix(slope.dtype, slope.device)
    direct = torch.stack([torch.zeros_like(t), 0.25 * tau, t])[:, None]
    rows = [rows_b * t_by + 0.25 * rows_d * tau_by + unit * direct, t_by[None]]
    if gap_derivatives:
        direct = torch.stack([torch.ones_like(t), t, tau])[:, None]
        rows.append(rows_d * t_by + rows_b * tau_by + unit * direct)
    by_r, by_d, by_b = torch.cat(rows).unbind(1)
    by_mean = torch.zeros_like(by_r)
    by_mean[:2] = 0.5 * unit[:, 0]
    by_b = 0.5 * by_b
    return ClosestApproach(
        xyz,
        c + tau * b,
        torch.cat([by_mean - by_r, by_mean + by_r], 1),
        torch.cat([by_b - by_d, by_b + by_d], 1),
    )
