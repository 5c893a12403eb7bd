"""Mixtures of axis-aligned Gaussians in the plane: the shape of a detector that is spread out instead of cut to a
rectangle.

Positions are ``(..., 2, muon)``, clusters ``(..., cluster, 2)``. Densities are computed as logarithms, so that far
tails keep a value and a slope. Memory is (cluster x muon): hand over muons in chunks.
"""

import math

import torch
from torch import Tensor

from diffdet.kernels.safe_math import sum_rows

__all__ = ["cost", "efficiency", "log_density", "log_peak", "resolution", "response"]

LOG_TWO_PI = math.log(2 * math.pi)


def log_density(xy: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """Logarithm of a uniformly weighted mixture, ln[ (1/K) sum_k N(x; m_kx, s_kx) N(y; m_ky, s_ky) ].

    Differentiable in: xy, mean, sigma.

    Args:
        xy: ``(..., 2, muon)`` positions, m.
        mean: ``(..., cluster, 2)`` centres, m.
        sigma: ``(..., cluster, 2)`` standard deviations, m, > 0.

    Returns:
        ``(..., muon)`` logarithm of the density in m^-2.
    """
    # c clusters, d = x or y, m muons: pull (..., c, d, m) from positions (..., 1, d, m) and clusters (..., c, d, 1)
    pull = (xy.unsqueeze(-3) - mean.unsqueeze(-1)) / sigma.unsqueeze(-1)
    log_norm = LOG_TWO_PI + sigma.log().sum(-1) + math.log(mean.shape[-2])
    terms = -0.5 * pull.square().sum(-2) - log_norm.unsqueeze(-1)
    highest = terms.detach().amax(-2).clamp_min(torch.finfo(terms.dtype).min)
    return highest + sum_rows(torch.exp(terms - highest.unsqueeze(-2)), -2).log()


def log_peak(mean: Tensor, sigma: Tensor) -> Tensor:
    """Logarithm of the largest density at a cluster's centre, max_k ln p(m_k).

    Differentiable in: mean, sigma; where several centres tie, the gradient is shared among them.

    Args:
        mean: ``(..., cluster, 2)`` centres, m.
        sigma: ``(..., cluster, 2)`` standard deviations, m, > 0.

    Returns:
        ``(...)`` logarithm of the density in m^-2.
    """
    return log_density(mean.transpose(-1, -2), mean, sigma).amax(dim=-1)


def response(xy: Tensor, mean: Tensor, sigma: Tensor, norm: float | Tensor) -> Tensor:
    """Root of the mixture relative to its highest cluster centre, sqrt(norm p(xy) / max_k p(m_k)).

    Differentiable in: xy, mean, sigma, norm (> 0). Far outside it underflows to 0 with gradient 0.

    Args:
        xy: ``(..., 2, muon)`` positions, m.
        mean: ``(..., cluster, 2)`` centres, m.
        sigma: ``(..., cluster, 2)`` standard deviations, m, > 0.
        norm: Value of the square at the highest centre; a number, or broadcastable to ``(..., muon)``.

    Returns:
        ``(..., muon)`` response >= 0; about sqrt(norm) at the highest centre.
    """
    relative = log_density(xy, mean, sigma) - log_peak(mean, sigma).unsqueeze(-1)
    return torch.exp(0.5 * relative) * torch.as_tensor(norm, dtype=xy.dtype, device=xy.device).sqrt()


def resolution(response: Tensor, res: float | Tensor, floor: float) -> Tensor:
    """Resolution of both axes, max(R g, floor).

    Differentiable in: response, res. Gradient at the edge: 0 below the floor.

    Args:
        response: ``(..., muon)`` from `response`.
        res: Nominal resolution R, 1/m.
        floor: Smallest value, 1/m; keeps uncertainties finite where the response underflows.

    Returns:
        ``(..., 2, muon)`` resolution, 1/m, equal for both axes.
    """
    both = (response * res).clamp(min=floor).unsqueeze(-2)
    return both.expand(*both.shape[:-2], 2, both.shape[-1])


def efficiency(response: Tensor, eff: float | Tensor) -> Tensor:
    """Probability that the hit is recorded, E min(1, g)^2.

    Differentiable in: response, eff. Gradient at the edge: 0 where the response exceeds 1.

    Args:
        response: ``(..., muon)`` from `response`.
        eff: Nominal efficiency E in [0, 1].

    Returns:
        ``(..., muon)`` efficiency in [0, 1].
    """
    return response.clamp(max=1).square() * eff


def cost(sigma: Tensor, m2_cost: float | Tensor) -> Tensor:
    """Cost by mean area of the clusters, m2_cost mean_k(s_kx s_ky).

    Differentiable in: sigma, m2_cost.

    Args:
        sigma: ``(..., cluster, 2)`` standard deviations, m.
        m2_cost: Unit currency per m^2.

    Returns:
        ``(...)`` cost, unit currency.
    """
    return m2_cost * sigma.prod(-1).mean(-1)
