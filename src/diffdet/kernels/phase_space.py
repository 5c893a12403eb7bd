"""Decays by phase space: momenta of decay products that obey energy and momentum conservation and nothing else.

Four-momenta are (px, py, pz, E) along the last axis; natural units, GeV unless stated. Random numbers are arguments:
each function says how many uniform ones in [0, 1) it needs.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from diffdet.kernels.lorentz import boost, mass
from diffdet.kernels.safe_math import safe_divide, safe_sqrt

__all__ = ["breakup_momentum", "isotropic", "many_body_decay", "two_body_decay"]


def breakup_momentum(
    m: Float[Tensor, "*batch"], m_a: Float[Tensor, "*batch"], m_b: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """Momentum of the products of a two-body decay in the rest frame of the parent.

    sqrt((m^2 - (m_a + m_b)^2) (m^2 - (m_a - m_b)^2)) / 2 m, 0 below the threshold.

    Differentiable in: all. Gradient at the edge: 0 at and below the threshold.

    Args:
        m: Mass of the parent.
        m_a: Mass of a product.
        m_b: Mass of the other.
    """
    above = (m - m_a - m_b).clamp_min(0) * (m + m_a + m_b)
    return safe_divide(safe_sqrt(above * (m - m_a + m_b) * (m + m_a - m_b)), 2 * m)


def isotropic(uniform: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 3"]:
    """Unit vectors, evenly over the sphere.

    Args:
        uniform: Numbers in [0, 1).
    """
    cos = 2 * uniform[..., 0] - 1
    sin = safe_sqrt(1 - cos * cos)
    phi = 2 * math.pi * uniform[..., 1]
    return torch.stack([sin * torch.cos(phi), sin * torch.sin(phi), cos], dim=-1)


def two_body_decay(
    parent: Float[Tensor, "*batch 4"],
    m_a: Float[Tensor, "*batch"],
    m_b: Float[Tensor, "*batch"],
    uniform: Float[Tensor, "*batch 2"],
) -> tuple[Float[Tensor, "*batch 4"], Float[Tensor, "*batch 4"]]:
    """Isotropic decay of a parent, seen from the laboratory.

    Args:
        parent: Four-momenta of the parents, with m >= m_a + m_b.
        m_a: Mass of a product.
        m_b: Mass of the other.
        uniform: Numbers in [0, 1).

    Returns:
        Four-momenta of the products; their sum is the parent.
    """
    m = mass(parent)
    p = breakup_momentum(m, m_a, m_b)
    direction = isotropic(uniform) * p[..., None]
    backwards = torch.cat([-parent[..., :3], parent[..., 3:]], dim=-1)
    first = torch.cat([direction, safe_sqrt(p * p + m_a * m_a)[..., None]], dim=-1)
    a = boost(first, backwards)
    return a, parent - a


def many_body_decay(
    parent: Float[Tensor, "*batch 4"],
    masses: Float[Tensor, "*batch n"],
    uniform: Float[Tensor, "*batch u"],
) -> tuple[Float[Tensor, "*batch n 4"], Float[Tensor, "*batch"]]:
    """Decay into n bodies by a chain of two-body decays, with the weight that makes it flat in phase space.

    The invariant masses along the chain are taken uniformly, in order; the weight is the product of the breakup momenta
    of all steps. Divided by the largest possible one (see Returns) it is a probability to accept with.

    Args:
        parent: Four-momenta of the parents, with m >= sum of the masses.
        masses: Masses of the products, n >= 2.
        uniform: 3 n - 4 numbers in [0, 1): n - 2 for the masses along the chain, 2 (n - 1) for directions.

    Returns:
        Four-momenta of the products, and weights from 0 to 1: breakup momenta over their bound, each with the parent's
        whole kinetic energy.

    Reference: E. Raubold and G. Lynch in F. James, "Monte Carlo phase space", CERN 68-15 (1968).
    """
    n = masses.shape[-1]
    m = mass(parent)
    free = (m - masses.sum(-1)).clamp_min(0)
    order = torch.sort(uniform[..., : n - 2], dim=-1).values
    sums = masses.cumsum(-1)
    # mass of the first k products together, k = 1 ... n
    steps = torch.cat([torch.zeros_like(order[..., :0]), order * free[..., None]], dim=-1) + sums[..., 1 : n - 1]
    chain = torch.cat([masses[..., :1], steps, m[..., None]], dim=-1)
    weight = torch.ones_like(m)
    products: list[Tensor] = []
    rest = parent
    for k in reversed(range(1, n)):
        directions = uniform[..., n - 2 + 2 * (k - 1) : n - 2 + 2 * k]
        weight = weight * breakup_momentum(chain[..., k], chain[..., k - 1], masses[..., k])
        top = breakup_momentum(free + sums[..., k], sums[..., k - 1], masses[..., k])
        weight = safe_divide(weight, top)
        rest, last = two_body_decay(rest, chain[..., k - 1], masses[..., k], directions)
        products.append(last)
    products.append(rest)
    return torch.stack(products[::-1], dim=-2), weight.clamp_max(1)  # above 1 is rounding
