"""A fill height from points of closest approach."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from diffdet.kernels.panel_response import sigmoid
from diffdet.kernels.poca_image import SIGMA_FLOOR
from diffdet.kernels.safe_math import sum_rows
from diffdet.kernels.statistics import quantile
from diffdet.kernels.voxels import interval_mass

__all__ = ["central_weight", "corrected_error", "fit_correction", "robust_height"]

_ONE_SIGMA = 0.158655  # share of a normal distribution below -1 standard deviation


def central_weight(
    poca_xy: Float[Tensor, "2 muon"],
    sigma_xy: Float[Tensor, "2 muon"],
    x_edges: Tensor,
    y_edges: Tensor,
    smooth: Tensor | float,
) -> Float[Tensor, " muon"]:
    """How much a point of closest approach belongs to the middle of the furnace rather than to its walls.

    Sum over the pixels of the probability that the point lies in the pixel times a gate G = 2 (s - 1/2) per axis, s
    the sigmoid profile of half width lw/2 about the middle: 1 in the middle, 0 at the edge. Gate and probability are
    products of one factor per axis, so the sum over pixels is the product of two sums.

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
        factors.append(sum_rows((2 * profile - 1)[:, None] * mass))
    return factors[0] * factors[1]


def robust_height(
    z: Float[Tensor, " muon"], sigma_z: Float[Tensor, " muon"], weight: Float[Tensor, " muon"]
) -> tuple[Float[Tensor, 1], Float[Tensor, 1]]:
    """Weighted mean height with limited influence of single muons, and its statistical variance.

    Uncertainties are clipped to the central 68 % of their own distribution, w = weight / sigma^2, and w is clipped
    at its own 84 % quantile; clipping limits carry no gradient. The variance of the mean is estimated from the
    scatter of the muons themselves, sum (w/W)^2 (z - mean)^2: it holds whatever the muons' own uncertainties are worth.

    Differentiable in: z, sigma_z, weight.

    Args:
        z: heights, m.
        sigma_z: their uncertainties, m.
        weight: prior weights, >= 0.

    Returns:
        Mean height, m, and its variance, m^2.

    Reference: variance of a ratio estimator, e.g. Cochran, Sampling Techniques, 3rd ed., eq. (6.13).
    """
    clipped = sigma_z.clamp(quantile(sigma_z.detach(), _ONE_SIGMA), quantile(sigma_z.detach(), 1 - _ONE_SIGMA))
    # in units of the smallest uncertainty, so that float32 squares neither overflow nor vanish
    w = weight * (clipped.detach().min() / clipped).square()
    limit = quantile(w.detach(), 1 - _ONE_SIGMA)
    # where nearly all muons have no weight at all, there is nothing to clip the others to
    w = w.clamp_max(torch.where(limit > 0, limit, torch.inf))
    share = w / w.sum()
    mean = (share * z).sum()
    return mean.reshape(1), (share * (z - mean)).square().sum().reshape(1)


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


def corrected_error(
    prediction: Float[Tensor, " volume"], variance: Float[Tensor, " volume"], target: Float[Tensor, " volume"]
) -> Tensor:
    """Expected squared error behind the best linear correction, in units of the targets' variance.

    Predictions of equal target are averaged; a straight line through the averages (slope a per unit of prediction)
    is the correction. What is left is what the line does not follow plus what chance adds to a single prediction,

        [ mean (t - a m_t - c)^2 - (1 - 2/L) a^2 mean(variance of m_t) + a^2 mean(variance) ] / Var(t).

    The middle term takes out what chance in the L averages adds to the first one (two degrees of freedom go to the
    line).

    Taking chance from the estimated variance of every prediction, instead of from the scatter of a few predictions
    of equal target, leaves a hundredth of the noise: each prediction's variance is itself an average over many muons.

    Differentiable in: prediction, variance.

    Args:
        prediction: m.
        variance: statistical variance of every prediction, m^2.
        target: truth, m, with at least two different values.

    Returns:
        ``()``; about 1 for a detector that knows nothing.
    """
    levels, place = torch.unique(target, return_inverse=True)
    counts = torch.zeros_like(levels).index_add(0, place, torch.ones_like(target))
    means = torch.zeros_like(prediction[: len(levels)]).index_add(0, place, prediction) / counts
    slope, intercept = fit_correction(means, levels)
    bent = (levels - slope * means - intercept).square().mean()
    chance = torch.zeros_like(means).index_add(0, place, variance) / counts.square()
    bent = bent - (1 - 2 / len(levels)) * slope.square() * chance.mean()
    return (bent + slope.square() * variance.mean()) / (levels - levels.mean()).square().mean()
