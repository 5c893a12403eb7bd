"""Four-momenta: masses, boosts into a rest frame, angles between momenta.

Four-momenta are (px, py, pz, E) along the **last** axis, in natural units (c = 1), as networks hold them. A boost is
written with the four-velocity u = p / m of the frame instead of with its velocity beta: gamma = sqrt(1 + u^2) then
belongs to u whatever rounding did to the energy, so that every boost is a Lorentz transformation and keeps masses, and
no 1 - beta^2 is ever formed, which has no digits left for fast frames.

Frames without a rest frame (massless, unphysical, or absent: all zeros) are given one, so that values and gradients
stay finite; see `four_velocity`.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffdet.kernels.safe_math import safe_divide, safe_norm, safe_sqrt

__all__ = ["boost", "direction", "four_velocity", "is_physical", "mass", "mass_floor", "mass_squared", "pair_cosines"]


def mass_squared(p: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
    """Squared invariant mass, E^2 - |p|^2.

    Rounding leaves an error of about 1e-7 E^2 in float32, 1e-16 E^2 in float64: below m / E = 3e-4 (1e-8) the mass is
    not in the numbers any more.

    Differentiable in: p, any number of times.

    Args:
        p: Four-momenta.

    Returns:
        Squared mass, square of the unit of ``p``; negative for spacelike vectors.
    """
    momentum, energy = p[..., :3], p[..., 3]
    return energy.square() - momentum.square().sum(-1)


def mass(p: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
    """Invariant mass, sqrt(E^2 - |p|^2).

    Differentiable in: p. Gradient at the edge: 0 for massless and spacelike vectors, whose mass counts as 0.

    Args:
        p: Four-momenta.

    Returns:
        Mass, unit of ``p``.
    """
    return safe_sqrt(mass_squared(p))


def is_physical(p: Float[Tensor, "*batch 4"], tolerance: float | None = None) -> Bool[Tensor, "*batch"]:
    """Whether a four-momentum may belong to a particle: finite, and E >= |p| to within rounding.

    Args:
        p: Four-momenta.
        tolerance: How far |p| may exceed E, relative to |p|. None takes 16 roundings of the dtype.

    Returns:
        True where the vector is physical; the null vector is.
    """
    slack = 16 * torch.finfo(p.dtype).eps if tolerance is None else tolerance
    length = torch.linalg.vector_norm(p[..., :3], dim=-1)
    return (p[..., 3] >= length * (1 - slack)) & torch.isfinite(p).all(-1)


def mass_floor(dtype: torch.dtype) -> float:
    """Smallest m / E that a frame keeps by default: the root of one rounding, 3.5e-4 in float32, 1.5e-8 in float64.

    Args:
        dtype: Type of the numbers.
    """
    return math.sqrt(torch.finfo(dtype).eps)


def _size(p: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
    """sqrt(E^2 + |p|^2) as a constant to divide by.

    What follows does not depend on the scale of p, so that leaving the size out of the graph changes no derivative, of
    any order; and no derivative overflows on its way.
    """
    return safe_norm(p.detach(), -1)


def four_velocity(frame: Float[Tensor, "*batch 4"], floor: float | None = None) -> Float[Tensor, "*batch 3"]:
    """Spatial part of the four-velocity of a frame, u = p / m = gamma beta.

    The mass is kept above ``floor`` times the size sqrt(E^2 + |p|^2), so that massless and spacelike frames move fast
    but not at the speed of light. The null vector, an absent frame, stands still.

    Differentiable in: frame. Gradient at the edge: that of p / (floor size) below the floor; 0 for the null vector.

    Args:
        frame: Four-momenta whose rest frame is meant.
        floor: Smallest mass over size, > 0. None takes `mass_floor` of the dtype.

    Returns:
        gamma beta, dimensionless.
    """
    lowest = mass_floor(frame.dtype) if floor is None else floor
    size = _size(frame)
    scaled = safe_divide(frame, size[..., None])
    m_squared = safe_divide(mass_squared(frame), size.square())  # of unscaled numbers: one rounding less
    m_squared = torch.maximum(m_squared, lowest**2 * scaled.square().sum(-1))
    return safe_divide(scaled[..., :3], safe_sqrt(m_squared)[..., None])


def boost(
    q: Float[Tensor, "*batch 4"], frame: Float[Tensor, "*batch 4"], floor: float | None = None
) -> Float[Tensor, "*batch 4"]:
    """Four-momenta seen from the rest frame of others.

    With u = p_frame / m_frame and gamma = sqrt(1 + u^2),

        q'_vec = q_vec - u E + u (u . q_vec) / (gamma + 1)
        E'     = gamma E - u . q_vec

    which is the rotation-free boost of Jackson, *Classical Electrodynamics*, 3rd ed., eq. 11.19, in terms of u. It is a
    Lorentz transformation for every finite u: masses and scalar products are kept, up to roundings of gamma^2 eps.

    Differentiable in: q, frame. Gradient at the edge: as in `four_velocity`.

    Args:
        q: Four-momenta to boost.
        frame: Four-momenta of the frames; the boost of a frame by itself gives (0, 0, 0, m).
        floor: Smallest mass over size of a frame; see `four_velocity`.

    Returns:
        Boosted four-momenta, unit of ``q``.
    """
    u = four_velocity(frame, floor)
    momentum, energy = q[..., :3], q[..., 3:]
    gamma = (1 + u.square().sum(-1, keepdim=True)).sqrt()
    along = (u * momentum).sum(-1, keepdim=True)
    return torch.cat([momentum + u * (along / (gamma + 1) - energy), gamma * energy - along], -1)


def direction(p: Float[Tensor, "*batch 4"], floor: float | None = None) -> Float[Tensor, "*batch 3"]:
    """Unit vector of the momentum, shortened where the momentum is too small to have a direction.

    The length is kept above ``floor`` times the energy: after the boost of a frame by itself, what is left of the
    momentum is rounding, and its direction means nothing.

    Differentiable in: p. Gradient at the edge: that of p_vec / (floor E) below the floor; 0 for the null vector.

    Args:
        p: Four-momenta.
        floor: Smallest |p| over E, > 0. None takes `mass_floor` of the dtype.

    Returns:
        Vectors of length 1, shorter below the floor.
    """
    lowest = mass_floor(p.dtype) if floor is None else floor
    scaled = safe_divide(p, _size(p)[..., None])
    length = torch.maximum(safe_norm(scaled[..., :3], -1, keepdim=True), lowest * scaled[..., 3:].abs())
    return safe_divide(scaled[..., :3], length)


def pair_cosines(
    p: Float[Tensor, "*batch n 4"], first: Tensor, second: Tensor, floor: float | None = None
) -> Float[Tensor, "*batch pair"]:
    """Cosines of the angles between the momenta of pairs.

    Differentiable in: p. Gradient at the edge: as in `direction`; cosines of vanishing momenta are 0.

    Args:
        p: Four-momenta of n particles.
        first: Index of the first particle of every pair.
        second: Index of the second particle of every pair.
        floor: Smallest |p| over E that has a direction; see `direction`.

    Returns:
        One cosine a pair, in [-1, 1] up to rounding.
    """
    unit = direction(p, floor)
    return (unit[..., first, :] * unit[..., second, :]).sum(-1)
