"""Probabilities of numbers of hits."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["at_least_two"]


def at_least_two(efficiency: Float[Tensor, "hit muon"]) -> Float[Tensor, " muon"]:
    """Probability that at least two of several independent hits are recorded.

    Recursion over the hits for "none", "one" and "two or more": every term is positive, so nothing cancels - the
    textbook form 1 - P(0) - P(1) loses all digits where efficiencies are small.

    Differentiable in: efficiency.

    Args:
        efficiency: probability of each hit, in [0, 1].

    Returns:
        Probability; zero where there are fewer than two hits.
    """
    none = torch.ones_like(efficiency[0])
    one, two = torch.zeros_like(none), torch.zeros_like(none)
    for hit in efficiency.unbind(0):
        two = two + one * hit
        miss = 1 - hit
        one = one * miss + none * hit
        none = none * miss
    return two
