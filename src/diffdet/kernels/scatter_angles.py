"""Angles between and along fitted tracks, with their first derivatives by the slopes.

Slopes are dx/dz (z up), rows (in_x, in_y, out_x, out_y) or (x, y); a falling muon with slopes b moves along (-b_x,
-b_y, -1).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from diffdet.kernels.angles import clockwise
from diffdet.kernels.safe_math import safe_atan2, safe_norm, safe_sqrt

__all__ = ["azimuth", "polar", "projected", "total_scatter"]


def total_scatter(slope: Float[Tensor, "4 muon"]) -> tuple[Tensor, Tensor]:
    """Angle between the incoming and the outgoing track, and its derivatives by the four slopes.

    psi = atan2(|v_in x v_out|, v_in . v_out) with v = (b_x, b_y, 1), by the tangent of half of it, s / (c + |(s, c)|).
    With d the difference and b the mean of the slopes, s^2 = |v_in x v_out|^2 = d^2 + (d_x b_y - d_y b_x)^2, which does
    not cancel for small angles, and c = 1 + b^2 - d^2 / 4.

    Differentiable in: slope. At psi = 0 exactly the angle has a cone point: value 0, derivative 0.

    Args:
        slope: slopes of both tracks, dx/dz.

    Returns:
        ``(muon,)`` angle in [0, pi), rad, and ``(4, muon)`` derivatives.
    """
    d = slope[2:] - slope[:2]
    b = 0.5 * (slope[2:] + slope[:2])
    n = clockwise(b)
    dn = (d * n).sum(0)
    d2 = (d * d).sum(0)
    sine2 = torch.addcmul(d2, dn, dn)
    sine = safe_sqrt(sine2)
    cosine = 1 + (b * b).sum(0) - 0.25 * d2
    norm2 = torch.addcmul(sine2, cosine, cosine)
    angle = 2 * torch.atan(sine / (cosine + norm2.sqrt()))
    inv_norm2 = norm2.reciprocal()
    # d psi = (c ds - s dc) / (s^2 + c^2); where s is 0, so are d and dn
    by_sine = cosine * inv_norm2 / sine.clamp_min(torch.finfo(slope.dtype).tiny)
    by_cosine = sine * inv_norm2
    by_d = by_sine * torch.addcmul(d, dn, n) + 0.5 * by_cosine * d
    by_b = -0.5 * by_sine * dn * clockwise(d) - by_cosine * b
    return angle, torch.cat([by_b - by_d, by_b + by_d])


def polar(slope: Float[Tensor, "2 *of muon"]) -> tuple[Tensor, Tensor]:
    """Polar angle with respect to -z and its derivatives by the two slopes.

    theta = atan |b|. At b = 0 the derivative is taken along x: the uncertainty of a vertical track's polar angle is
    then that of one projected slope, instead of undefined.

    Args:
        slope: dx/dz and dy/dz of any number of tracks per muon.

    Returns:
        ``(*of, muon)`` theta in [0, pi/2), rad, and ``(2, *of, muon)`` derivatives.
    """
    size = safe_norm(slope, dim=0)
    vertical = size == 0
    safe = torch.where(vertical, torch.ones_like(size), size)
    unit_x = torch.where(vertical, torch.ones_like(size), slope[0] / safe)
    unit = torch.stack([unit_x, slope[1] / safe])
    return torch.atan(size), unit / (1 + size * size)


def azimuth(slope: Float[Tensor, "2 muon"]) -> tuple[Tensor, Tensor]:
    """Azimuth of a falling muon in [0, 2 pi) and its derivatives by the two slopes.

    phi = atan2(-b_y, -b_x). For a vertical track phi is 0 and its derivative 0: there is no azimuth to be uncertain of.
    """
    size2 = (slope * slope).sum(0)
    vertical = size2 == 0
    safe = torch.where(vertical, torch.ones_like(size2), size2)
    down_x = torch.where(vertical, torch.ones_like(size2), -slope[0])
    phi = torch.remainder(safe_atan2(-slope[1], down_x), 2 * math.pi)
    # remainder of a tiny negative angle rounds up to 2 pi itself
    phi = torch.where(phi >= 2 * math.pi, torch.zeros_like(phi), phi)
    return phi, torch.stack([-slope[1] / safe, slope[0] / safe])


def projected(slope: Float[Tensor, "2 muon"]) -> tuple[Tensor, Tensor]:
    """Projected angles theta_x, theta_y of a falling muon and their derivatives, each by its own slope.

    theta_x = atan(-b_x); positive while moving towards +x and falling.
    """
    return torch.atan(-slope), -1 / (1 + slope * slope)
