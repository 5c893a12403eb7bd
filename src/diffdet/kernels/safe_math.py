"""Elementary functions with a finite value and a finite gradient where the textbook form has none.

Each function replaces the dangerous argument *before* it is used (`torch.where` on the input, then on the result),
because masking afterwards leaves a NaN in the gradient. NaN in the input stays NaN: these functions mend edges, they do
not hide mistakes.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["safe_atan2", "safe_divide", "safe_log", "safe_norm", "safe_sqrt"]


def safe_sqrt(x: Tensor) -> Tensor:
    """Square root that is 0 with gradient 0 for x <= 0.

    Below zero is what rounding leaves of a quantity that cannot be negative, such as a variance; it counts as zero.

    Differentiable in: x. Gradient at the edge: 0 at x <= 0 (the true one diverges at 0).

    Args:
        x: Any shape.

    Returns:
        Same shape; unit is the root of that of ``x``.
    """
    edge = x <= 0
    return torch.where(edge, torch.zeros_like(x), torch.where(edge, torch.ones_like(x), x).sqrt())


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

    Differentiable in: y, x. Gradient at the edge: 0 at y = x = 0.

    Args:
        y: Any shape.
        x: Same shape, dtype and unit as ``y``.

    Returns:
        Angle in [-pi, pi], rad.
    """
    origin = (x == 0) & (y == 0)
    angle = torch.atan2(torch.where(origin, torch.zeros_like(y), y), torch.where(origin, torch.ones_like(x), x))
    return torch.where(origin, torch.zeros_like(angle), angle)
