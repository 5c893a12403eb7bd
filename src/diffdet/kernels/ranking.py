"""How well a statistic orders two kinds of things."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["order_error", "shares_below"]


def shares_below(values: Float[Tensor, " value"], others: Float[Tensor, " other"]) -> Float[Tensor, " value"]:
    """For each value the share of the others that lie below it; equal ones count half.

    Its mean is the area under the receiver operating characteristic of telling values from others.

    Args:
        values: at least one.
        others: at least one.

    Returns:
        Shares in [0, 1], float64.

    Reference: H. B. Mann and D. R. Whitney, Ann. Math. Stat. 18 (1947) 50.
    """
    ordered = others.contiguous().sort().values
    found = [torch.searchsorted(ordered, values.contiguous(), right=right).to(torch.float64) for right in (False, True)]
    return 0.5 * (found[0] + found[1]) / len(others)


def order_error(with_: Float[Tensor, " value"], without: Float[Tensor, " other"]) -> tuple[float, float]:
    """Probability that one of each kind come in the wrong order, and its standard error.

    Args:
        with_: the statistic where it should be large, two values at least.
        without: the statistic where it should be small, likewise.

    Returns:
        One minus the area under the receiver operating characteristic, and the standard error from the spread of
        the shares on both sides.

    Reference: E. R. DeLong, D. M. DeLong and D. L. Clarke-Pearson, Biometrics 44 (1988) 837.
    """
    high, low = shares_below(with_, without), shares_below(without, with_)
    error = float((high.var() / len(high) + low.var() / len(low)).sqrt())
    return 1 - float(high.mean()), error
