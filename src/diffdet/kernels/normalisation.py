"""Moments for batch norms: of the rows that a mask keeps, and of everything seen lately."""

from __future__ import annotations

import math

from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["masked_moments", "running_moments", "running_weight"]


def masked_moments(
    x: Float[Tensor, "row channel"], mask: Bool[Tensor, " row"]
) -> tuple[Float[Tensor, " channel"], Float[Tensor, " channel"], Float[Tensor, ""]]:
    """Mean and variance of the rows that a mask keeps.

    Equal to those of ``x[mask]``, at fixed shapes: two passes, so that nothing is lost where the mean is large.

    Args:
        x: Numbers by row and channel; those of rows that are left out may be anything, NaN too.
        mask: True for the rows that count.

    Returns:
        Mean, biased variance (divided by the number of rows), number of rows. Zero, zero, zero without rows.
    """
    keep = mask.unsqueeze(-1)
    count = keep.sum().to(x.dtype)
    rows = count.clamp_min(1)
    mean = x.masked_fill(~keep, 0).sum(0) / rows
    variance = (x - mean).masked_fill(~keep, 0).square().sum(0) / rows
    return mean, variance, count


def running_weight(momentum: float, samples: int, eps: float = 1e-5) -> float:
    """How far running sums move towards those of a batch: 1 - (1 - momentum) / sqrt(samples - 1).

    The larger the batch, the more its sums are trusted. A batch of one sample counts like one of two: the formula as it
    stands would give -infinity.

    Source: J. Howard, "Running batch norm", fast.ai course 2019, lesson 10.

    Args:
        momentum: Share of a batch of two samples.
        samples: Size of the batch.
        eps: Added under the root.

    Returns:
        The weight, in [momentum - eps, 1).
    """
    return 1 - (1 - momentum) / math.sqrt(max(samples - 1, 1) + eps)


def running_moments(
    sums: Float[Tensor, " channel"], squares: Float[Tensor, " channel"], count: Float[Tensor, ""]
) -> tuple[Float[Tensor, " channel"], Float[Tensor, " channel"]]:
    """Mean and variance from running sums.

    Args:
        sums: Running sum of the numbers.
        squares: Running sum of their squares.
        count: Running number of them; 0 before anything was seen.

    Returns:
        sums / count and squares / count - mean^2, not below 0; mean 0 and variance 1 before anything was seen.
    """
    seen = count > 0
    number = count.where(seen, count.new_ones(()))
    mean = sums / number
    variance = (squares / number - mean.square()).clamp_min(0)
    return mean, variance.where(seen, variance.new_ones(()))
