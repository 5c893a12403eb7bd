"""How well a rectangular panel measures a muon at a given place: smooth models to learn with, the hard edge to judge
with.

A *profile* is the fraction of the panel's nominal resolution that is left, per axis, with value 1 at the centre.
Resolution and efficiency follow from it. All functions broadcast: positions ``(..., 2, muon)``, centres and spans
``(..., 2, 1)``, so all panels of a layer are evaluated in one call with leading axis ``panel``.

| model | profile at distance d from the centre, in half spans | half-way | edge | to learn with |
|---|---|---|---|---|
| `gaussian` | exp(-2 d^2) | 0.61 | 0.14 | yes |
| `sigmoid` | sigmoid((1 - d)/smooth) / sigmoid(1/smooth) | by smooth | 0.5 to 1 | yes; becomes `hard` as smooth -> 0 |
| `hard` | 1 inside, 0 outside | 1 | 1 (low edge) or 0 (high edge) | no gradient |
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffdet.kernels.safe_math import logistic, safe_divide

__all__ = [
    "RESOLUTION_FLOOR",
    "budget_scale",
    "cost",
    "efficiency",
    "gaussian",
    "hard",
    "inside",
    "resolution",
    "sigma",
    "sigmoid",
    "smear",
]

RESOLUTION_FLOOR = 1e-10
"""Smallest resolution of the smooth models, 1/m, and efficiency of the sigmoid one.

It keeps weights finite far outside a panel. If it grew to about 1, muons that miss the panel by metres would count."""


def gaussian(xy: Tensor, centre: Tensor, span: Tensor) -> Tensor:
    """Peak-normalised Gaussian per axis with sigma = span / 4: exp(-(p - c)^2 / (2 (w/4)^2)).

    Differentiable in: xy, centre, span. Gradient at the centre: 0, smooth.

    Args:
        xy: ``(..., 2, muon)`` positions, m.
        centre: ``(..., 2, 1)`` panel centres, m.
        span: ``(..., 2, 1)`` total widths, m, > 0.

    Returns:
        ``(..., 2, muon)`` profile in [0, 1]: 0.6065 half-way to the edge, 0.1353 at the edge.
    """
    return torch.exp(-0.5 * ((xy - centre) * (4 / span)).square())


def sigmoid(xy: Tensor, centre: Tensor, span: Tensor, smooth: float | Tensor) -> Tensor:
    """Soft edge per axis: s((1 - d)/smooth) / s(1/smooth), s the logistic function, d = |p - c| / (w/2).

    The logistic function ends near 0 instead of overflowing, so any ``smooth`` > 0 gives finite values and slopes.

    Differentiable in: xy, centre, span, smooth. Gradient at the centre: 0 by xy and centre, where |p - c| has a corner.

    Args:
        xy: ``(..., 2, muon)`` positions, m.
        centre: ``(..., 2, 1)`` panel centres, m.
        span: ``(..., 2, 1)`` total widths, m, > 0.
        smooth: Width of the edge in half spans, > 0; a number, or broadcastable to ``(..., 2, muon)``. Large values let
            the response fall already inside the panel; below 0.01 nearly no muon feels the edge and gradients become
            noisy.

    Returns:
        ``(..., 2, muon)`` profile in [0, 1]: 1 at the centre, 0.5 / s(1/smooth) at the edge.
    """
    width = torch.as_tensor(smooth, dtype=xy.dtype, device=xy.device)
    distance = (xy - centre).abs() * (2 / span)
    return logistic((1 - distance) / width) / logistic(1 / width)


def inside(xy: Tensor, centre: Tensor, span: Tensor) -> Tensor:
    """Whether positions lie on the panel: low edge included, high edge not.

    Args:
        xy: ``(..., 2, muon)`` positions, m.
        centre: ``(..., 2, 1)`` panel centres, m.
        span: ``(..., 2, 1)`` total widths, m.

    Returns:
        ``(..., muon)`` bool.
    """
    half = span / 2
    return ((xy >= centre - half) & (xy < centre + half)).all(dim=-2)


def hard(xy: Tensor, centre: Tensor, span: Tensor) -> Tensor:
    """The physical panel: 1 on both axes on the panel, 0 on both off it.

    Not differentiable: the result carries no gradient.

    Args:
        xy: ``(..., 2, muon)`` positions, m.
        centre: ``(..., 2, 1)`` panel centres, m.
        span: ``(..., 2, 1)`` total widths, m.

    Returns:
        ``(..., 2, muon)`` profile, 0 or 1, in the dtype of ``xy``.
    """
    on_panel = inside(xy, centre, span).to(xy.dtype)
    shape = torch.broadcast_shapes(xy.shape, centre.shape, span.shape)
    return on_panel.unsqueeze(-2).expand(shape)


def resolution(profile: Tensor, res: float | Tensor, floor: float = RESOLUTION_FLOOR) -> Tensor:
    """Resolution per axis, max(R g, floor).

    Differentiable in: profile, res. Gradient at the edge: 0 below the floor.

    Args:
        profile: ``(..., 2, muon)`` from one of the models.
        res: Nominal resolution R, 1/m; a number, or broadcastable to the profile.
        floor: Smallest value, 1/m; 0 for the hard model, where a muon off the panel has none.

    Returns:
        ``(..., 2, muon)`` resolution, 1/m.
    """
    return (profile * res).clamp(min=floor)


def efficiency(profile: Tensor, eff: float | Tensor, floor: float = 0.0) -> Tensor:
    """Probability that the hit is recorded, max(E g_x g_y, floor).

    Differentiable in: profile, eff. Gradient at the edge: 0 below the floor.

    Args:
        profile: ``(..., 2, muon)`` from one of the models.
        eff: Nominal efficiency E in [0, 1]; a number, or broadcastable to ``(..., muon)``.
        floor: Smallest value; the sigmoid panel uses `RESOLUTION_FLOOR`, the others 0.

    Returns:
        ``(..., muon)`` efficiency in [0, 1].
    """
    return (profile[..., 0, :] * profile[..., 1, :] * eff).clamp(min=floor)


def sigma(resolution: Tensor) -> Tensor:
    """Uncertainty of a hit, 1 / resolution: infinite, with gradient 0, where the resolution is 0.

    Differentiable in: resolution, where it is not 0.

    Args:
        resolution: Any shape, 1/m, >= 0.

    Returns:
        Same shape, m.
    """
    return safe_divide(torch.ones_like(resolution), resolution, fallback=math.inf)


def smear(xy: Tensor, resolution: Tensor, noise: Tensor, *, bounds: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Recorded position, xy + noise / resolution.

    Differentiable in: xy, resolution. Gradient at the edge: 0 by xy where a bound holds the hit.

    Args:
        xy: ``(..., 2, muon)`` true positions, m.
        resolution: ``(..., 2, muon)`` resolution, 1/m. Where it is 0 there is no hit, and the recorded position is NaN.
        noise: ``(..., 2, muon)`` standard normal numbers.
        bounds: Low and high edges of the panel, ``(..., 2, 1)`` each, m: hits are held inside, as a real panel records
            no position beyond its edge. None for the smooth models.

    Returns:
        ``(..., 2, muon)`` recorded positions, m.
    """
    recorded = xy + noise * safe_divide(torch.ones_like(resolution), resolution, fallback=math.nan)
    if bounds is None:
        return recorded
    return torch.minimum(torch.maximum(recorded, bounds[0]), bounds[1])


def cost(span: Tensor, m2_cost: float | Tensor) -> Tensor:
    """Cost of panels by area, m2_cost w_x w_y.

    Differentiable in: span, m2_cost.

    Args:
        span: ``(..., 2)`` effective widths, m.
        m2_cost: Unit currency per m^2; a number, or broadcastable to ``(...)``.

    Returns:
        ``(...)`` cost, unit currency.
    """
    return m2_cost * span[..., 0] * span[..., 1]


def budget_scale(budget: float | Tensor, m2_cost: float | Tensor, span: Tensor) -> Tensor:
    """Factor on both widths that makes a panel cost exactly its budget, sqrt(b / (m2_cost w_x w_y)).

    Differentiable in: budget (> 0), m2_cost, span.

    Args:
        budget: Unit currency, > 0; a number, or broadcastable to ``(...)``.
        m2_cost: Unit currency per m^2, > 0.
        span: ``(..., 2)`` widths before scaling, m, > 0.

    Returns:
        ``(...)`` factor.
    """
    return torch.sqrt(budget / cost(span, m2_cost))
