"""Small filters for smoothing voxel cubes and finding edges in profiles along one axis.

All keep the shape of their argument. Windows are three wide; at the rim they either end there (means and extrema: what
is outside takes no part) or the outermost value is repeated (correlations).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

__all__ = ["binomial_3d", "correlate", "mean_1d", "mean_3d", "running_extrema"]


def mean_1d(x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """Mean of each value and its neighbours along the last axis.

    Differentiable in: x.
    """
    flat = x.reshape(-1, 1, x.shape[-1])
    return functional.avg_pool1d(flat, 3, stride=1, padding=1, count_include_pad=False).reshape(x.shape)


def mean_3d(x: Float[Tensor, "*batch z x y"]) -> Float[Tensor, "*batch z x y"]:
    """Mean of each voxel and its neighbours, up to 27 voxels, along the last three axes.

    Differentiable in: x.
    """
    for axis in (-1, -2, -3):  # how many neighbours there are along one axis does not depend on the others
        x = mean_1d(x.movedim(axis, -1)).movedim(-1, axis)
    return x


def correlate(x: Float[Tensor, "*batch n"], kernel: Sequence[float] | Tensor) -> Float[Tensor, "*batch n"]:
    """Cross-correlation with a kernel of three values along the last axis, y_i = k_0 x_{i-1} + k_1 x_i + k_2 x_{i+1}.

    Differentiable in: x, kernel.

    Args:
        x: profiles.
        kernel: three weights, that of the lower neighbour first.

    Returns:
        Filtered profiles; beyond the rim the outermost value is repeated.
    """
    padded = torch.cat([x[..., :1], x, x[..., -1:]], -1)
    lower, own, upper = kernel
    return lower * padded[..., :-2] + own * x + upper * padded[..., 2:]


def binomial_3d(x: Float[Tensor, "*batch z x y"]) -> Float[Tensor, "*batch z x y"]:
    """Smoothing with (1, 2, 1)/4 along each of the last three axes: the binomial form of a Gaussian.

    Differentiable in: x.
    """
    for axis in (-1, -2, -3):
        x = correlate(x.movedim(axis, -1), (0.25, 0.5, 0.25)).movedim(-1, axis)
    return x


def running_extrema(x: Float[Tensor, "*batch n"]) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n"]]:
    """Largest and smallest of each value and its neighbours along the last axis.

    Differentiable in: x; where values tie, one of them takes the gradient.
    """
    flat = x.reshape(-1, 1, x.shape[-1])
    high = functional.max_pool1d(flat, 3, stride=1, padding=1)
    low = -functional.max_pool1d(-flat, 3, stride=1, padding=1)
    return high.reshape(x.shape), low.reshape(x.shape)
