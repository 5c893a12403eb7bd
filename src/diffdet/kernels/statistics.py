"""Weighted moments, order statistics and smooth extrema.

Sums over many muons are accumulated in float64 and returned in the dtype of the input: the result then does not depend
on how many muons there are, nor on the order in which threads add them, beyond the last digit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffdet.core.errors import InputError, ShapeError
from diffdet.kernels.safe_math import safe_divide, safe_sqrt

__all__ = ["quantile", "smooth_max", "smooth_min", "weighted_mean", "weighted_quantile", "weighted_rms"]


def weighted_mean(
    values: Tensor, weights: Tensor, dim: int = -1, keepdim: bool = False, *, empty: float = math.nan
) -> Tensor:
    """sum(w v) / sum(w) along one axis.

    Differentiable in: values, weights. Gradient at the edge: 0 where the weights sum to 0.

    Args:
        values: Any shape.
        weights: Broadcastable to ``values``, >= 0.
        dim: Axis to sum over.
        keepdim: Whether that axis stays, with length 1.
        empty: Result where the weights sum to 0: NaN says that there is nothing to average.

    Returns:
        Weighted mean, in the unit of ``values``.
    """
    values, weights = torch.broadcast_tensors(values, weights)
    total = (values * weights).sum(dim=dim, keepdim=keepdim, dtype=torch.float64)
    weight = weights.sum(dim=dim, keepdim=keepdim, dtype=torch.float64)
    return safe_divide(total, weight, fallback=empty).to(values.dtype)


def weighted_rms(
    values: Tensor, weights: Tensor, dim: int = -1, keepdim: bool = False, *, empty: float = math.nan
) -> Tensor:
    """Root of the weighted mean of squares, sqrt(sum(w v^2) / sum(w)). About zero: no mean is subtracted.

    Differentiable in: values, weights. Gradient at the edge: 0 where all values are 0, or the weights sum to 0.

    Args:
        values: Any shape.
        weights: Broadcastable to ``values``, >= 0.
        dim: Axis to sum over.
        keepdim: Whether that axis stays, with length 1.
        empty: Result where the weights sum to 0.

    Returns:
        Weighted root mean square, in the unit of ``values``.
    """
    return safe_sqrt(weighted_mean(values.square(), weights, dim, keepdim, empty=empty))


def quantile(values: Tensor, q: float, dim: int = -1, keepdim: bool = False) -> Tensor:
    """The k-th smallest value with k = 1 + round(q (n - 1)): a quantile without interpolation.

    One element is picked, so the gradient goes to that element alone. Rounding is to the nearest, halves to even.

    Differentiable in: values.

    Args:
        values: Any shape, at least one element along ``dim``.
        q: Fraction in [0, 1].
        dim: Axis along which to rank.
        keepdim: Whether that axis stays, with length 1.

    Returns:
        Quantile, in the unit of ``values``.

    Raises:
        InputError: If ``q`` is not in [0, 1].
        ShapeError: If there is no value along ``dim``.
    """
    if not 0 <= q <= 1:
        raise InputError(f"`q` must lie in [0, 1]; got {q!r}")
    n = values.shape[dim]
    if n == 0:
        raise ShapeError(f"`values` must have at least one element along axis {dim}; got shape {tuple(values.shape)}")
    return torch.kthvalue(values, 1 + round(q * (n - 1)), dim=dim, keepdim=keepdim).values


def weighted_quantile(values: Tensor, weights: Tensor, q: float) -> Tensor:
    """The smallest value at or below which at least the fraction q of the weight lies: without interpolation.

    One element is picked, so the gradient goes to that element alone; none goes to the weights.

    Differentiable in: values.

    Args:
        values: ``(n,)``, at least one.
        weights: ``(n,)``, >= 0, with a positive sum.
        q: Fraction in [0, 1].

    Returns:
        ``()`` quantile, in the unit of ``values``.

    Raises:
        InputError: If ``q`` is not in [0, 1], or nothing has weight.
        ShapeError: If there is no value, or the shapes differ.
    """
    if not 0 <= q <= 1:
        raise InputError(f"`q` must lie in [0, 1]; got {q!r}")
    if values.ndim != 1 or len(values) == 0 or values.shape != weights.shape:
        raise ShapeError(
            f"`values` and `weights` must be equally long, and not empty; got {tuple(values.shape)} and "
            f"{tuple(weights.shape)}"
        )
    order = values.detach().argsort()
    below = weights.detach()[order].cumsum(0, dtype=torch.float64)
    if not bool(below[-1] > 0):
        raise InputError("`weights` must have a positive sum")
    # a hair below the wanted weight, so that rounding of the sum does not pass over the value it ends at
    place = torch.searchsorted(below, (below[-1] * q * (1 - 1e-12)).reshape(1), right=False)
    return values[order[place.clamp_max(len(values) - 1)]].reshape(())


def smooth_max(values: Tensor, sharpness: float, dim: int = -1, keepdim: bool = False) -> Tensor:
    """Smooth maximum, log(sum(exp(a v))) / a.

    Lies above the true maximum by at most log(n)/a.

    Differentiable in: values; the gradient is a softmax over them.

    Args:
        values: Any shape.
        sharpness: a, > 0, in the inverse unit of ``values``. Too small and the result is far above the maximum; too
            large and only the largest value gets a gradient.
        dim: Axis along which to take the maximum.
        keepdim: Whether that axis stays, with length 1.

    Returns:
        Smooth maximum, in the unit of ``values``.
    """
    if not sharpness > 0:
        raise InputError(f"`sharpness` must be greater than 0; got {sharpness!r}")
    return torch.logsumexp(values * sharpness, dim=dim, keepdim=keepdim) / sharpness


def smooth_min(values: Tensor, sharpness: float, dim: int = -1, keepdim: bool = False) -> Tensor:
    """Smooth minimum, -log(sum(exp(-a v))) / a: below the true minimum by at most log(n)/a. See `smooth_max`."""
    return -smooth_max(-values, sharpness, dim, keepdim)
