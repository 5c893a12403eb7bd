"""Elementary functions with a finite value and a finite gradient where the textbook form has none.

Each function replaces the dangerous argument *before* it is used (`torch.where` on the input, then on the result),
because masking afterwards leaves a NaN in the gradient. NaN in the input stays NaN: these functions mend edges, they do
not hide mistakes.

Here too are functions whose textbook form torch rounds differently according to where an element stands in its tensor:
on a CPU, `torch.atan2`, `torch.hypot`, `torch.sigmoid` and sums over more than four rows treat what is left over behind
whole vector registers with other code, and products of matrices choose theirs by size. A muon's numbers may not depend
on the batch it travels in, so what is written here, with operations that treat every element alike, is used instead.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["logistic", "safe_atan2", "safe_divide", "safe_log", "safe_norm", "safe_sqrt", "sum_rows"]


def safe_sqrt(x: Tensor) -> Tensor:
    """Square root that is 0 with gradient 0 for x <= 0.

    Below zero is what rounding leaves of a quantity that cannot be negative, such as a variance; it counts as zero.

    Differentiable in: x. Gradient at the edge: 0 at x <= 0 (the true one diverges at 0).

    Args:
        x: Any shape.

    Returns:
        Same shape; unit is the root of that of ``x``.
    """
    # half the operations of two `where`, and the square root of NaN times False is NaN, too
    return x.clamp_min(torch.finfo(x.dtype).tiny).sqrt() * (x > 0)


def safe_norm(x: Tensor, dim: int = 0, keepdim: bool = False) -> Tensor:
    """Euclidean length along one axis, with gradient 0 for the null vector.

    Differentiable in: x, any number of times. Gradient at the edge: 0 at x = 0, the middle of the cone's subgradients.

    Args:
        x: Vectors; their components run along ``dim``.
        dim: Axis of the components.
        keepdim: Whether that axis stays, with length 1.

    Returns:
        Lengths, in the unit of ``x``. Squares are formed, so lengths below 1e-19 are 0 in float32.
    """
    return safe_sqrt((x * x).sum(dim=dim, keepdim=keepdim))


def safe_log(x: Tensor, floor: float | None = None) -> Tensor:
    """Natural logarithm of max(x, floor), with gradient 0 below the floor.

    Differentiable in: x. Gradient at the edge: 0 at x <= floor.

    Args:
        x: Any shape.
        floor: Smallest argument, > 0. None takes the smallest normal number of the dtype.

    Returns:
        Same shape, dimensionless.
    """
    lowest = torch.finfo(x.dtype).tiny if floor is None else floor
    edge = x <= lowest
    return torch.where(edge, torch.full_like(x, lowest), x).log()


def safe_divide(numerator: Tensor, denominator: Tensor, fallback: float = 0.0) -> Tensor:
    """Quotient that takes a stated value, with gradient 0, where the denominator is exactly 0.

    Differentiable in: numerator, denominator. Gradient at the edge: 0 where the denominator is 0.

    Args:
        numerator: Any shape.
        denominator: Broadcastable to ``numerator``.
        fallback: Value where the denominator is 0.

    Returns:
        Broadcast shape.
    """
    edge = denominator == 0
    quotient = numerator / torch.where(edge, torch.ones_like(denominator), denominator)
    return torch.where(edge, torch.full_like(quotient, fallback), quotient)


def safe_atan2(y: Tensor, x: Tensor) -> Tensor:
    """atan2(y, x) that is 0 with gradient 0 at the origin, where no angle exists.

    Written as the arc tangent of the smaller over the larger coordinate plus a multiple of pi/2. Unlike `torch.atan2`,
    it gives an element the same digits wherever it stands in its tensor.

    Differentiable in: y, x. Gradient at the edge: 0 at y = x = 0.

    Args:
        y: Any shape.
        x: Same shape, dtype and unit as ``y``.

    Returns:
        Angle in [-pi, pi], rad.
    """
    steep = y.abs() > x.abs()
    numerator, denominator = torch.where(steep, -x, y), torch.where(steep, y, x)
    origin = denominator == 0
    numerator = torch.where(origin, torch.zeros_like(numerator), numerator)
    denominator = torch.where(origin, torch.ones_like(denominator), denominator)
    half_turns = torch.where(steep, 0.5, (x < 0).to(x.dtype))
    return torch.atan(numerator / denominator) + torch.copysign(half_turns * math.pi, y.detach())


def logistic(x: Tensor) -> Tensor:
    """Logistic function 1 / (1 + exp(-x)).

    Unlike `torch.sigmoid`, it gives an element the same digits wherever it stands in its tensor. Right to a few
    roundings in both tails; it ends at exp(-80) in float32, exp(-640) in float64, far below anything that counts.

    Differentiable in: x. Gradient at the edge: 0 where the function has ended.

    Args:
        x: Any shape.

    Returns:
        Same shape, in (0, 1].
    """
    lowest = -0.9 * math.log(torch.finfo(x.dtype).max)
    return 1 / (1 + torch.exp(-x.clamp_min(lowest)))


def sum_rows(x: Tensor, dim: int = 0) -> Tensor:
    """Sum over a short axis that is not the last.

    Unlike `torch.sum` and matrix products, it gives an element the same digits wherever it stands along the last axis:
    rows are added in pairs, which is also the more accurate order.

    Differentiable in: x.

    Args:
        x: Any shape with at least one row along ``dim``.
        dim: Axis to sum over.

    Returns:
        Shape without that axis.
    """
    # up to four rows torch adds one after another, whatever their length
    while x.shape[dim] > 4:
        half = x.shape[dim] // 2
        pairs = x.narrow(dim, 0, half) + x.narrow(dim, half, half)
        x = torch.cat([pairs, x.narrow(dim, 2 * half, 1)], dim) if x.shape[dim] % 2 else pairs
    return x.sum(dim)
