"""Money: a smooth penalty on exceeding a target budget, and the division of a fixed budget among panels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from diffdet.core.errors import InputError

__all__ = ["BUDGET_SMOOTHING", "allocate", "penalty"]

BUDGET_SMOOTHING = 10.0
"""Default sharpness of the penalty's knee at the budget.

At 10 a detector that costs half its budget pays 0.013 of what one at its budget pays. If it grew to 100, the penalty
would be a wall without a slope to follow; at 1, cheap detectors would be pushed to be cheaper still."""


def penalty(
    cost: Float[Tensor, "*shape"], budget: float | Tensor, smoothing: float = BUDGET_SMOOTHING, *, steep: bool = True
) -> Float[Tensor, "*shape"]:
    """Penalty that is about 0 well below the budget, 1 at the budget, and rises with the excess.

    With d = S (cost - b)/b: steep is 2 sigmoid(d) up to the budget and 1 + d/2 above it, which continues value and
    slope; not steep is 2 sigmoid(d) + max(cost - b, 0)/b, which flattens to a slope of 1/b.

    Differentiable in: cost, budget. Gradient at the edge: at cost = b the steep form has S/(2b); the other has a corner
    there, with S/(2b) taken.

    Args:
        cost: Cost of the detector, unit currency.
        budget: Target b, > 0, unit currency.
        smoothing: S, > 0, dimensionless.
        steep: Which form.

    Returns:
        Penalty >= 0, dimensionless.

    Raises:
        InputError: If a number given as ``budget`` or ``smoothing`` is not positive.
    """
    if not isinstance(budget, Tensor) and not budget > 0:
        raise InputError(f"`budget` must be greater than 0; got {budget!r}")
    if not smoothing > 0:
        raise InputError(f"`smoothing` must be greater than 0; got {smoothing!r}")
    excess = (cost - budget) / budget
    d = smoothing * excess
    if not steep:
        return 2 * torch.sigmoid(d) + torch.relu(excess)
    return torch.where(d <= 0, 2 * torch.sigmoid(d), 1 + d / 2)


def allocate(weights: Float[Tensor, "*batch panel"], budget: float | Tensor) -> Float[Tensor, "*batch panel"]:
    """Division of a budget by weights, b_i = b softmax(w)_i: always positive, always summing to the budget.

    Differentiable in: weights, budget. A common shift of all weights changes nothing.

    Args:
        weights: Learnable numbers, one a panel, dimensionless; equal weights share equally.
        budget: What there is to spend, unit currency.

    Returns:
        Budget of each panel, unit currency.
    """
    return budget * torch.softmax(weights, dim=-1)
