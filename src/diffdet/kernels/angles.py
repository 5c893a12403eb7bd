"""Angles and directions of muons: polar, projected, slopes and unit vectors, and differences between them.

Frame: z points up and muons fall. theta is the angle to the *negative* z axis, phi runs anticlockwise from +x, and the
unit vector of motion is u = (sin t cos f, sin t sin f, -cos t). A projected angle is that of the track's shadow in the
xz or yz plane, theta_x = atan(tan t cos f), positive while moving towards +x and falling; its tangent is the slope s_x
= dx/d(-z).

Component axis first: scalars have any shape ``(*shape)``, vectors ``(3, *shape)``, slopes ``(2, *shape)``.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from diffdet.kernels.safe_math import safe_atan2, safe_norm

__all__ = [
    "angle_between",
    "direction_from_polar",
    "direction_from_slope",
    "polar_from_direction",
    "polar_from_projected",
    "polar_from_slope",
    "projected_from_polar",
    "scatter_increments",
    "slope_from_direction",
    "slope_from_polar",
    "wrap",
]

TWO_PI = 2 * math.pi


def wrap(phi: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Angle modulo 2 pi, in [0, 2 pi).

    Differentiable in: phi, with gradient 1 everywhere.

    Args:
        phi: Angle, rad.

    Returns:
        The same direction in [0, 2 pi), rad; never 2 pi itself, which the remainder of a tiny negative number rounds
        to.
    """
    wrapped = torch.remainder(phi, TWO_PI)
    return torch.where(wrapped >= TWO_PI, wrapped - TWO_PI, wrapped)


def direction_from_polar(theta: Float[Tensor, "*shape"], phi: Float[Tensor, "*shape"]) -> Float[Tensor, "3 *shape"]:
    """Unit vector of motion, u = (sin t cos f, sin t sin f, -cos t).

    Differentiable in: theta, phi.

    Args:
        theta: Angle to -z, rad.
        phi: Azimuth, rad.

    Returns:
        Unit vectors.
    """
    sine = torch.sin(theta)
    return torch.stack([sine * torch.cos(phi), sine * torch.sin(phi), -torch.cos(theta)])


def polar_from_direction(
    direction: Float[Tensor, "3 *shape"],
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """theta and phi of a direction of motion.

    Differentiable in: direction. Gradient at the edge: a vertical direction has phi = 0, and both angles gradient 0.

    Args:
        direction: Vectors of any length > 0.

    Returns:
        theta in [0, pi] and phi in [0, 2 pi), rad.
    """
    theta = safe_atan2(safe_norm(direction[:2]), -direction[2])
    return theta, wrap(safe_atan2(direction[1], direction[0]))


def slope_from_polar(theta: Float[Tensor, "*shape"], phi: Float[Tensor, "*shape"]) -> Float[Tensor, "2 *shape"]:
    """Slopes (dx/d(-z), dy/d(-z)) = tan t (cos f, sin f).

    Differentiable in: theta, phi.

    Args:
        theta: Angle to -z, rad, below pi/2: a horizontal muon has no slope.
        phi: Azimuth, rad.

    Returns:
        Slopes, dimensionless.
    """
    tangent = torch.tan(theta)
    return torch.stack([tangent * torch.cos(phi), tangent * torch.sin(phi)])


def polar_from_slope(slope: Float[Tensor, "2 *shape"]) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """theta and phi of a falling muon with given slopes.

    Differentiable in: slope. Gradient at the edge: slope 0 has theta = phi = 0, and both angles gradient 0.

    Args:
        slope: dx/d(-z) and dy/d(-z).

    Returns:
        theta in [0, pi/2) and phi in [0, 2 pi), rad.
    """
    return torch.atan(safe_norm(slope)), wrap(safe_atan2(slope[1], slope[0]))


def direction_from_slope(slope: Float[Tensor, "2 *shape"]) -> Float[Tensor, "3 *shape"]:
    """Unit vector of a falling muon with given slopes, u = (s_x, s_y, -1) / sqrt(1 + s^2).

    Differentiable in: slope.

    Args:
        slope: dx/d(-z) and dy/d(-z).

    Returns:
        Unit vectors with negative z component.
    """
    cosine = torch.rsqrt(1 + (slope * slope).sum(0))
    return torch.cat([slope * cosine, -cosine[None]])


def slope_from_direction(direction: Float[Tensor, "3 *shape"]) -> Float[Tensor, "2 *shape"]:
    """Slopes of a direction of motion, s = u_xy / (-u_z).

    Differentiable in: direction.

    Args:
        direction: Vectors of any length with u_z != 0; a horizontal one gives infinite slopes.

    Returns:
        dx/d(-z) and dy/d(-z).
    """
    return direction[:2] / -direction[2]


def projected_from_polar(
    theta: Float[Tensor, "*shape"], phi: Float[Tensor, "*shape"]
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Projected angles theta_x = atan(tan t cos f) and theta_y = atan(tan t sin f).

    Written as atan2(sin t cos f, cos t), which is the same below pi/2 and stays finite at pi/2.

    Differentiable in: theta, phi.

    Args:
        theta: Angle to -z, rad. At pi/2 and beyond a muon does not fall and has no projected angles: the result is NaN.
        phi: Azimuth, rad.

    Returns:
        theta_x and theta_y in (-pi/2, pi/2), rad.
    """
    sine, cosine = torch.sin(theta), torch.cos(theta)
    falls = theta < math.pi / 2
    # NaN enters through a multiplication so that its gradient is NaN too, as befits a quantity that does not exist.
    exists = torch.where(falls, torch.ones_like(theta), torch.full_like(theta, math.nan))
    cosine = torch.where(falls, cosine, torch.ones_like(cosine))
    return safe_atan2(sine * torch.cos(phi), cosine) * exists, safe_atan2(sine * torch.sin(phi), cosine) * exists


def polar_from_projected(
    theta_x: Float[Tensor, "*shape"], theta_y: Float[Tensor, "*shape"]
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """theta = atan sqrt(tan^2 theta_x + tan^2 theta_y) and phi = atan2(tan theta_y, tan theta_x).

    Differentiable in: theta_x, theta_y. Gradient at the edge: a vertical track has theta = phi = 0, and both angles
    gradient 0.

    Args:
        theta_x: Projected angle in xz, rad, in (-pi/2, pi/2); outside no falling muon has it and both results are NaN.
        theta_y: Projected angle in yz, likewise.

    Returns:
        theta in [0, pi/2) and phi in [0, 2 pi), rad.
    """
    exists = (theta_x.abs() < math.pi / 2) & (theta_y.abs() < math.pi / 2)
    nan = torch.full_like(theta_x, math.nan)
    slope = torch.stack([torch.tan(theta_x), torch.tan(theta_y)])
    theta, phi = polar_from_slope(slope)
    return torch.where(exists, theta, nan), torch.where(exists, phi, nan)


def clockwise(v: Float[Tensor, "2 *shape"]) -> Float[Tensor, "2 *shape"]:
    """Vectors of a plane turned by -90 degrees, (v_y, -v_x)."""
    return torch.stack([v[1], -v[0]])


def angle_between(a: Float[Tensor, "3 *shape"], b: Float[Tensor, "3 *shape"]) -> Float[Tensor, "*shape"]:
    """Angle between two vectors, atan2(|a x b|, a . b).

    Accurate to a few roundings (about 1e-7 rad in float32) at every angle; acos(a . b) loses everything below 0.3 mrad
    in float32.

    Differentiable in: a, b. Gradient at the edge: 0 for parallel and antiparallel vectors, where the angle has a cone
    point.

    Args:
        a: Vectors of any length > 0.
        b: Vectors of any length > 0.

    Returns:
        Angle in [0, pi], rad.
    """
    # Products and differences apart, not fused: equal directions then give exactly 0.
    cross = a.roll(-1, 0) * b.roll(-2, 0) - a.roll(-2, 0) * b.roll(-1, 0)
    return safe_atan2(safe_norm(cross), (a * b).sum(0))


def scatter_increments(
    theta_in: Float[Tensor, "*shape"],
    phi_in: Float[Tensor, "*shape"],
    theta_out: Float[Tensor, "*shape"],
    phi_out: Float[Tensor, "*shape"],
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Smallest changes of theta and phi that turn the incoming into the outgoing direction.

    Two readings exist, because (theta, phi) and (-theta, phi + pi) are one direction:
    A keeps the sign, dtheta = |t_in - t_out| and dphi = the shorter way round;
    B passes through the vertical, dtheta = t_in + t_out and dphi = pi - dphi_A.
    The one with the smaller dtheta^2 + dphi^2 is taken, A when they tie.

    Differentiable in: all, piecewise. Gradient at the edge: 0 for dtheta where t_in = t_out, and for dphi where f_in =
    f_out.

    Args:
        theta_in: Incoming angle to -z, rad, >= 0.
        phi_in: Incoming azimuth, rad, in [0, 2 pi).
        theta_out: Outgoing angle to -z, rad, >= 0.
        phi_out: Outgoing azimuth, rad, in [0, 2 pi).

    Returns:
        dtheta >= 0 and dphi in [0, pi], rad.
    """
    dtheta_a = (theta_in - theta_out).abs()
    turn = (phi_in - phi_out).abs()
    dphi_a = torch.where(turn > math.pi, TWO_PI - turn, turn)
    dtheta_b, dphi_b = theta_in + theta_out, math.pi - dphi_a
    flips = dtheta_b.square() + dphi_b.square() < dtheta_a.square() + dphi_a.square()
    return torch.where(flips, dtheta_b, dtheta_a), torch.where(flips, dphi_b, dphi_a)
