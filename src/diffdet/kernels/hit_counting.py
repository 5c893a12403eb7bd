"""Probabilities of numbers of hits."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["at_least_two"]


def at_least_two(efficiency: Float[Tensor, "hit *of muon"]) -> Float[Tensor, "*of muon"]:
    """Probability that at least two of several independent hits are recorded.

    Recursion over the hits for "none", "one" and "two or more": every term is positive, so nothing cancels - the
    textbook form 1 - P(0) - P(1) loses all digits where efficiencies are small.

    Differentiable in: efficiency.

    Args:
        efficiency: probability of each hit, in [0, 1]; at least one hit, any number of groups of hits per muon.

    Returns:
        Probability; zero where there are fewer than two hits.
    """
    first, *others = efficiency.unbind(0)
    none, one, two = 1 - first, first, torch.zeros_like(first)
    for hit in others:
        miss = 1 - hit
        two = torch.addcmul(two, one, hit)
        one = torch.addcmul(one * miss, none, hit)
        none = none * miss
    return two
