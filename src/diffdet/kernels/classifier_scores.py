"""How well scores tell two kinds of samples apart, with a weight per sample."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["area_under_roc", "share_of_correct"]


def area_under_roc(
    scores: Float[Tensor, " sample"], is_signal: Bool[Tensor, " sample"], weights: Float[Tensor, " sample"]
) -> Float[Tensor, ""]:
    """Area under the receiver operating characteristic: the probability that a signal has the higher score.

    ``sum_ij w_i w_j [s_i > s_j] + [s_i = s_j] / 2`` over pairs of signal i and background j, divided by the sum of
    ``w_i w_j``; by sorting, so that n samples cost n log n. Equal scores count half.

    Args:
        scores: Larger for signal.
        is_signal: Which samples are signal.
        weights: Weight of each sample.

    Returns:
        The area; NaN where one of the two kinds has no weight.

    Reference: T. Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27 (2006) 861, section 7.
    """
    weights = weights.to(torch.promote_types(weights.dtype, torch.double))
    levels, level = torch.unique(scores, sorted=True, return_inverse=True)
    empty = weights.new_zeros(len(levels))
    signal = empty.index_add(0, level[is_signal], weights[is_signal])
    background = empty.index_add(0, level[~is_signal], weights[~is_signal])
    below = background.cumsum(0) - 0.5 * background
    return (signal * below).sum() / (signal.sum() * background.sum())


def share_of_correct(correct: Bool[Tensor, " sample"], weights: Float[Tensor, " sample"]) -> Float[Tensor, ""]:
    """Weight of the samples that are right, over the weight of all.

    Args:
        correct: Which samples are right.
        weights: Weight of each sample.
    """
    return weights[correct].sum() / weights.sum()
