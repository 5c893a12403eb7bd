"""Which object attends to which, and how much.

Scores are (..., query, key): row q tells what object q attends to. Objects that a mask leaves out are neither attended
to nor attending: their columns and rows are zero, and the rest is as if they were not there.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["offset_weights", "scaled_weights"]

Scores = Float[Tensor, "*batch query key"]
Present = Bool[Tensor, "*batch key"]


def _softmax(scores: Tensor, dim: int, keep: Tensor) -> Tensor:
    """Softmax along an axis among what is kept; zero for the rest, and where nothing is kept."""
    lowest = torch.finfo(scores.dtype).min  # finite, so that a row with nothing to keep has finite gradients
    return scores.masked_fill(~keep, lowest).softmax(dim).masked_fill(~keep, 0)


def scaled_weights(
    query: Float[Tensor, "*batch query channel"], key: Float[Tensor, "*batch key channel"], mask: Present | None = None
) -> Scores:
    """Softmax over keys of q k / sqrt(channels).

    Source: A. Vaswani et al., "Attention is all you need", arXiv:1706.03762, equation 1.

    Args:
        query: What objects look for.
        key: What objects offer.
        mask: True for objects that are there; by default all. Queries and keys are then the same objects.

    Returns:
        Weights; rows sum to 1, or are 0 for objects that are not there.
    """
    scores = query @ key.transpose(-1, -2) / key.shape[-1] ** 0.5
    if mask is None:
        return scores.softmax(-1)
    return _softmax(scores, -1, mask.unsqueeze(-2) & mask.unsqueeze(-1))


def offset_weights(
    query: Float[Tensor, "*batch query channel"], key: Float[Tensor, "*batch key channel"], mask: Present | None = None
) -> Scores:
    """Softmax over queries of q k, then rows divided by their sums.

    Source: M.-H. Guo et al., "PCT: point cloud transformer", arXiv:2012.09688, equation 7.

    Args:
        query: What objects look for.
        key: What objects offer.
        mask: True for objects that are there; by default all. Queries and keys are then the same objects.

    Returns:
        Weights; rows sum to 1, or are 0 for objects that are not there.
    """
    scores = query @ key.transpose(-1, -2)
    if mask is None:
        weights = scores.softmax(-2)
    else:
        weights = _softmax(scores, -2, mask.unsqueeze(-2) & mask.unsqueeze(-1))
    # A row can underflow as a whole; the floor is the published one where the type has it, else its smallest number.
    floor = max(1e-17, torch.finfo(weights.dtype).tiny)  # not of the scores: a softmax may be wider, under autocast
    return weights / (weights.sum(-1, keepdim=True) + floor)
