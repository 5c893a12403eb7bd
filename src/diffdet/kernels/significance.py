"""Significance of a signal above a background in a counting experiment, and where to cut for it."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffdet.kernels.safe_math import safe_divide, safe_sqrt

__all__ = ["asimov_significance", "yields_above"]


def _log_excess(x: Tensor) -> Tensor:
    """((1 + x) ln(1 + x) - x) / x^2 for x > -1, by its series for small x, where the terms cancel; 1/2 at 0."""
    small = x.abs() < 0.03
    near = torch.where(small, x, torch.zeros_like(x))
    far = torch.where(small, torch.ones_like(x), x)
    series = torch.zeros_like(x)
    for k in reversed(range(8)):  # the next term is below 1e-14
        series = 1 / ((k + 1) * (k + 2)) - near * series
    return torch.where(small, series, ((1 + far) * torch.log1p(far) - far) / (far * far))


def asimov_significance(
    s: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"], sigma_b: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Median significance with which a signal s is expected to be discovered above a background b.

    Without uncertainty, Z = sqrt(2 [(s + b) ln(1 + s/b) - s]). With an uncertainty sigma of the background,

        Z^2 = 2 [ (s + b) ln( (s + b)(b + sigma^2) / (b^2 + (s + b) sigma^2) )
                  - b^2/sigma^2 ln( 1 + sigma^2 s / (b (b + sigma^2)) ) ]

    That is twice the logarithm of a likelihood ratio, which is evaluated as a sum of positive terms, without
    cancellation for small signals. With c = b + s sigma^2 / (b + sigma^2), the background that fits best alone,

        Z^2 = 2 [ c H((s + b) / c - 1) + b/sigma^2 c H(b / c - 1) ],    H(x) = (1 + x) ln(1 + x) - x

    Differentiable in: all. Gradient at the edge: 0 where Z = 0.

    Args:
        s: Expected signal, >= 0.
        b: Expected background, > 0.
        sigma_b: Standard deviation of the background's expectation, >= 0.

    Returns:
        Z, in standard deviations; 0 where b is 0.

    References: G. Cowan et al., "Asymptotic formulae for likelihood-based tests of new physics", Eur. Phys. J. C 71
        (2011) 1554, arXiv:1007.1727, eq. 97; G. Cowan, "Discovery sensitivity for a counting experiment with background
        uncertainty" (2012), eq. 20.
    """
    variance = sigma_b * sigma_b
    share = safe_divide(s, b + variance)
    fitted = b + share * variance
    up = safe_divide(share * b, fitted)  # (s + b) / c - 1
    down = safe_divide(share * variance, fitted)  # 1 - b / c
    excess = fitted * up * up * _log_excess(up) + b * share * down * _log_excess(-down)
    return torch.where(b > 0, safe_sqrt(2 * excess), torch.zeros_like(excess))


def yields_above(
    scores: Float[Tensor, " sample"], is_signal: Bool[Tensor, " sample"], weights: Float[Tensor, " sample"]
) -> tuple[
    Float[Tensor, " cut"],
    Float[Tensor, " cut"],
    Float[Tensor, " cut"],
    Float[Tensor, " cut"],
    Float[Tensor, " cut"],
]:
    """Weighted yields at and above every different score, by sorting: n samples cost n log n.

    Args:
        scores: Larger for signal.
        is_signal: Which samples are signal.
        weights: Weight of each sample.

    Returns:
        Cuts (different scores, ascending); signal and background with a score >= cut; sum of the squared weights of
        that background; and its number of samples.
    """
    cuts, level = torch.unique(scores, sorted=True, return_inverse=True)
    weights = weights.to(torch.float64)

    def above(values: Tensor) -> Tensor:
        summed = torch.zeros(len(cuts), dtype=torch.float64, device=scores.device).index_add(0, level, values)
        return summed.flip(0).cumsum(0).flip(0)

    background = (~is_signal).to(torch.float64)
    return (
        cuts,
        above(weights * is_signal),
        above(weights * background),
        above(weights * weights * background),
        above(background),
    )
