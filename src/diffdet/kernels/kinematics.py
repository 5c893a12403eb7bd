"""Kinematics at colliders: transverse momentum, pseudorapidity and azimuth; separations; transverse and pair masses.

The beam runs along z. pt is the momentum across it, eta = asinh(pz / pt) the pseudorapidity, phi = atan2(py, px) the
azimuth. Natural units, c = 1: momenta, energies and masses share a unit, GeV unless stated. All functions are
element-wise, of any shape. Four-momenta as vectors are the business of `diffdet.kernels.lorentz`.

Reference: Particle Data Group, *Review of Particle Physics*, chapter "Kinematics".
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from diffdet.kernels.safe_math import safe_atan2, safe_divide, safe_sqrt

__all__ = [
    "cartesian_momentum",
    "collider_momentum",
    "delta_phi",
    "delta_r",
    "energy",
    "pair_mass",
    "rotate_azimuth",
    "transverse_mass",
    "twist",
]


def cartesian_momentum(
    pt: Float[Tensor, "*shape"], eta: Float[Tensor, "*shape"], phi: Float[Tensor, "*shape"]
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Momentum along x, y and z, (pt cos f, pt sin f, pt sinh eta).

    Differentiable in: all.

    Args:
        pt: Transverse momentum.
        eta: Pseudorapidity.
        phi: Azimuth, rad.

    Returns:
        px, py, pz, unit of ``pt``.
    """
    return pt * torch.cos(phi), pt * torch.sin(phi), pt * torch.sinh(eta)


def collider_momentum(
    px: Float[Tensor, "*shape"], py: Float[Tensor, "*shape"], pz: Float[Tensor, "*shape"]
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Transverse momentum, pseudorapidity and azimuth.

    Along the beam eta is plus or minus infinity; of the null vector all three are 0. Along -x the azimuth is +pi,
    whether py is 0.0 or -0.0.

    Differentiable in: all, off the beam. Gradient at the edge: 0 of pt and phi on the beam.

    Args:
        px: Momentum along x.
        py: Momentum along y.
        pz: Momentum along z.

    Returns:
        pt (unit of ``px``), eta, phi in (-pi, pi], rad.
    """
    pt = safe_sqrt(px * px + py * py)
    on_beam = pt == 0
    ratio = pz / torch.where(on_beam, torch.ones_like(pt), pt)
    beam = torch.where(pz == 0, torch.zeros_like(pz), torch.copysign(torch.full_like(pz, math.inf), pz)).detach()
    eta = torch.where(on_beam, beam, torch.asinh(torch.where(on_beam, torch.zeros_like(ratio), ratio)))
    return pt, eta, safe_atan2(py + 0.0, px)  # -0.0 + 0.0 is 0.0


def energy(p_squared: Float[Tensor, "*shape"], mass: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Energy of a particle, sqrt(p^2 + m^2).

    Differentiable in: both. Gradient at the edge: 0 where both are 0.

    Args:
        p_squared: Squared momentum.
        mass: Mass.
    """
    return safe_sqrt(p_squared + mass * mass)


def delta_phi(phi_a: Float[Tensor, "*shape"], phi_b: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Azimuth of b as seen from a, phi_b - phi_a, in [-pi, pi).

    Differentiable in: both, with gradient -1 and 1 everywhere.

    Args:
        phi_a: Azimuth, rad.
        phi_b: Azimuth, rad.
    """
    difference = phi_b - phi_a
    # The number of turns is constant by parts, so it carries no gradient; small differences keep all their digits.
    turns = torch.floor((difference.detach() + math.pi) / (2 * math.pi))
    return difference - 2 * math.pi * turns


def delta_r(dphi: Float[Tensor, "*shape"], deta: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Angular separation, sqrt(dphi^2 + deta^2).

    Differentiable in: both. Gradient at the edge: 0 where both are 0.

    Args:
        dphi: Difference of azimuths, rad.
        deta: Difference of pseudorapidities or rapidities.
    """
    return safe_sqrt(dphi * dphi + deta * deta)


def twist(dphi: Float[Tensor, "*shape"], deta: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Twist of two directions, atan(|dphi / deta|): pi/2 for pairs apart in azimuth only, 0 for pairs apart in eta.

    Differentiable in: both. Gradient at the edge: 0 where both are 0.

    Args:
        dphi: Difference of azimuths, rad.
        deta: Difference of pseudorapidities.

    Reference: K. Black et al., "Multivariate discrimination and the Higgs + W/Z search", JHEP 04 (2011) 069,
        arXiv:1010.3698.
    """
    return safe_atan2(dphi.abs(), deta.abs())


def transverse_mass(
    pt_a: Float[Tensor, "*shape"], pt_b: Float[Tensor, "*shape"], dphi: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Transverse mass of two massless particles, sqrt(2 pt_a pt_b (1 - cos dphi)), as 2 sqrt(pt_a pt_b) |sin(dphi/2)|.

    Differentiable in: all. Gradient at the edge: 0 where the mass is 0.

    Args:
        pt_a: Transverse momentum.
        pt_b: Transverse momentum, or missing one.
        dphi: Difference of azimuths, rad.
    """
    return 2 * safe_sqrt(pt_a * pt_b * torch.sin(0.5 * dphi).square())


def pair_mass(
    pt: tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]],
    eta: tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]],
    phi: tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]],
    mass: tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]],
) -> Float[Tensor, "*shape"]:
    """Invariant mass of two particles, without the cancellation of sqrt(E^2 - p^2).

    With transverse masses M = sqrt(m^2 + pt^2) and rapidities y = asinh(pt sinh(eta) / M),

        m^2 = m_a^2 + m_b^2 + 2 [ (M_a M_b - pt_a pt_b) + 2 M_a M_b sinh^2(dy/2) + 2 pt_a pt_b sin^2(dphi/2) ]

    and M_a M_b - pt_a pt_b = (m_a^2 pt_b^2 + m_b^2 pt_a^2 + m_a^2 m_b^2) / (M_a M_b + pt_a pt_b): all terms are
    positive.

    Differentiable in: all. Gradient at the edge: 0 where the mass is 0.

    Args:
        pt: Transverse momenta.
        eta: Pseudorapidities.
        phi: Azimuths, rad.
        mass: Masses.

    Returns:
        Mass of the pair.
    """
    (pt_a, pt_b), (m_a, m_b) = pt, mass
    across_a, across_b = safe_sqrt(m_a * m_a + pt_a * pt_a), safe_sqrt(m_b * m_b + pt_b * pt_b)
    y_a = torch.asinh(safe_divide(pt_a * torch.sinh(eta[0]), across_a))
    y_b = torch.asinh(safe_divide(pt_b * torch.sinh(eta[1]), across_b))
    product = across_a * across_b
    masses = m_a.square() * pt_b.square() + m_b.square() * pt_a.square() + (m_a * m_b).square()
    rest = safe_divide(masses, product + pt_a * pt_b)
    along = 2 * product * torch.sinh(0.5 * (y_a - y_b)).square()
    around = 2 * pt_a * pt_b * torch.sin(0.5 * delta_phi(phi[0], phi[1])).square()
    return safe_sqrt(m_a.square() + m_b.square() + 2 * (rest + along + around))


def rotate_azimuth(
    px: Float[Tensor, "*shape"], py: Float[Tensor, "*shape"], angle: Float[Tensor, "*shape"]
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Momentum across the beam after a turn about it.

    Differentiable in: all.

    Args:
        px: Momentum along x.
        py: Momentum along y.
        angle: Angle to turn by, anticlockwise, rad.
    """
    cos, sin = torch.cos(angle), torch.sin(angle)
    return cos * px - sin * py, sin * px + cos * py
