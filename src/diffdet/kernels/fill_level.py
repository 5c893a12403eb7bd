"""A fill height from points of closest approach."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from diffdet.kernels.panel_response import sigmoid
from diffdet.kernels.poca_image import SIGMA_FLOOR
from diffdet.kernels.statistics import quantile
from diffdet.kernels.voxels import interval_mass

__all__ = ["central_weight", "fit_correction", "robust_height", "unexplained_fraction"]

_ONE_SIGMA = 0.158655  # share of a normal distribution below -1 standard deviation


def central_weight(
    poca_xy: Float[Tensor, "2 muon"], sigma_xy: Float[Tensor, "2 muon"], x_edges: Tensor, y_edges: Tensor, smooth: Tensor | float
) -> Float[Tensor, " muon"]:
    """How much a point of closest approach belongs to the middle of the furnace rather than to its walls.

    Sum over the pixels of the probability that the point lies in the pixel times a gate G = 2 (s - 1/2) per axis, s the sigmoid
    profile of half width lw/2 about the middle: 1 in the middle, 0 at the edge. Gate and probability are products of one factor
    per axis, so the sum over pixels is the product of two sums.

    Differentiable in: poca_xy, sigma_xy, smooth.

    Args:
        poca_xy: points, m.
        sigma_xy: their uncertainties, m.
        x_edges: ``(nx + 1,)`` pixel edges, m.
        y_edges: ``(ny + 1,)`` pixel edges, m.
        smooth: width of the gate's edge in half widths.

    Returns:
        Weights in [0, 1].
    """
    factors = []
    for k, edges in enumerate((x_edges, y_edges)):
        mass = interval_mass(poca_xy[k], sigma_xy[k] + SIGMA_FLOOR, edges)
        centres = 0.5 * (edges[1:] + edges[:-1])
        low, high = edges[0], edges[-1]
        profile = sigmoid(centres[None], 0.5 * (low + high), high - low, smooth)[0]
        factors.append(((2 * profile - 1)[:, None] * mass).sum(0))
    return factors[0] * factors[1]


def robust_height(
    z: Float[Tensor, " muon"], sigma_z: Float[Tensor, " muon"], weight: Float[Tensor, " muon"]
) -> Float[Tensor, "1"]:
    """Weighted mean height with limited influence of single muons.

    Uncertainties are clipped to the central 68 % of their own distribution, w = weight / sigma^2, and w is clipped at its own
    84 % quantile; clipping limits carry no gradient.

    Differentiable in: z, sigma_z, weight.

    Args:
        z: heights, m.
        sigma_z: their uncertainties, m.
        weight: prior weights, >= 0.

    Returns:
        Mean height, m.
    """
    clipped = sigma_z.clamp(quantile(sigma_z.detach(), _ONE_SIGMA), quantile(sigma_z.detach(), 1 - _ONE_SIGMA))
    # in units of the smallest uncertainty, so that float32 squares neither overflow nor vanish
    w = weight * (clipped.detach().min() / clipped).square()
    w = w.clamp_max(quantile(w.detach(), 1 - _ONE_SIGMA))
    return ((w * z).sum() / w.sum()).reshape(1)


def fit_correction(prediction: Float[Tensor, " volume"], target: Float[Tensor, " volume"]) -> tuple[Tensor, Tensor]:
    """Weight and bias of the straight line that turns predictions into targets with the least mean squared error.

    Differentiable in: prediction, target.

    Args:
        prediction: at least two different values.
        target: truth, same unit.

    Returns:
        Slope and intercept of target = slope * prediction + intercept; slope 0 where all predictions agree.
    """
    p_mean, t_mean = prediction.mean(), target.mean()
    p, t = prediction - p_mean, target - t_mean
    variance = (p * p).sum()
    slope = (p * t).sum() / torch.where(variance > 0, variance, torch.ones_like(variance))
    return slope, t_mean - slope * p_mean


def unexplained_fraction(prediction: Float[Tensor, " volume"], target: Float[Tensor, " volume"]) -> Tensor:
    """Share of the targets' variance that the best straight line through the predictions leaves: 1 - R^2.

    The mean squared error *after* the linear correction, in units of the targets' variance: what a bias-corrected estimator
    is judged by, without having to know the correction. Does not change under any linear map of the predictions.

    Differentiable in: prediction, target.

    Args:
        prediction: at least three values.
        target: truth, with at least two different values.

    Returns:
        ``()`` in [0, 1].
    """
    slope, intercept = fit_correction(prediction, target)
    residual = target - slope * prediction - intercept
    return residual.square().sum() / (target - target.mean()).square().sum()
