"""Curves that judge predictions: receiver operating characteristics with bands, calibration, errors in bins."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffdet.kernels.safe_math import safe_divide

__all__ = ["binned_quantiles", "calibration", "interpolate", "roc_band", "roc_curve"]


def interpolate(
    x: Float[Tensor, " new"], known_x: Float[Tensor, " known"], known_y: Float[Tensor, " known"]
) -> Float[Tensor, " new"]:
    """Straight lines between known points; beyond them their first and last value.

    Args:
        x: Where to evaluate.
        known_x: Ascending; equal neighbours make a step, whose upper end counts.
        known_y: Values there.
    """
    place = torch.searchsorted(known_x, x, right=True).clamp(1, len(known_x) - 1)
    left, right = known_x[place - 1], known_x[place]
    share = safe_divide(x - left, right - left, fallback=1.0).clamp(0, 1)
    return known_y[place - 1] + share * (known_y[place] - known_y[place - 1])


def roc_curve(
    scores: Float[Tensor, " sample"], is_signal: Bool[Tensor, " sample"], weights: Float[Tensor, " sample"]
) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"]]:
    """Share of signal that is kept against the share of background that is kept, over all cuts on the score.

    Args:
        scores: Larger for signal.
        is_signal: Which samples are signal.
        weights: Weight of each sample.

    Returns:
        Shares of background and of signal, ascending from (0, 0) to (1, 1), one point for each different score.
    """
    order, ends = _descending(scores)
    return _shares(is_signal[order], weights.to(torch.float64)[order], ends)


def _descending(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Order of descending scores, and the last place of each different one."""
    ordered, order = torch.sort(scores, descending=True, stable=True)
    last = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
    last[:-1] = ordered[1:] != ordered[:-1]
    return order, last.nonzero()[:, 0]


def _shares(signal: Tensor, weights: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    start = weights.new_zeros(1)
    kept = [torch.cat([start, (weights * side).cumsum(0)[ends]]) for side in (~signal, signal)]
    background, found = (safe_divide(part, part[-1], fallback=float("nan")) for part in kept)
    return background, found


def roc_band(
    scores: Float[Tensor, " sample"],
    is_signal: Bool[Tensor, " sample"],
    weights: Float[Tensor, " sample"],
    grid: Float[Tensor, " point"],
    counts: Int[Tensor, "replicate sample"],
) -> Float[Tensor, "replicate point"]:
    """Receiver operating characteristics of resampled samples, at given shares of background.

    Scores are sorted once; a replicate costs one pass.

    Args:
        scores: Larger for signal.
        is_signal: Which samples are signal.
        weights: Weight of each sample.
        grid: Shares of background that are kept, ascending.
        counts: How often each replicate holds each sample: Poisson counts of mean 1 are a bootstrap.

    Returns:
        Share of signal that is kept, by replicate; NaN where a replicate has only one kind.
    """
    order, ends = _descending(scores)
    signal, ordered = is_signal[order], weights.to(torch.float64)[order]
    grid = grid.to(torch.float64)
    return torch.stack([interpolate(grid, *_shares(signal, ordered * count[order], ends)) for count in counts])


def calibration(
    scores: Float[Tensor, " sample"],
    is_signal: Bool[Tensor, " sample"],
    weights: Float[Tensor, " sample"],
    edges: Float[Tensor, " edge"],
) -> tuple[Float[Tensor, " bin"], Float[Tensor, " bin"], Float[Tensor, " bin"], Float[Tensor, " bin"]]:
    """Share of signal among samples of like score: equal to the score where it is a probability.

    Args:
        scores: Predicted probabilities.
        is_signal: Which samples are signal.
        weights: Weight of each sample.
        edges: Edges of the bins, ascending; the last bin holds its upper edge.

    Returns:
        Mean score, share of signal, its standard error (at least that of one sample more), and weight, by bin; NaN in
        bins without a sample.
    """
    weights = weights.to(torch.float64)
    n_bins = len(edges) - 1
    place = torch.searchsorted(edges, scores, right=True).clamp(1, n_bins) - 1

    def summed(values: Tensor) -> Tensor:
        return weights.new_zeros(n_bins).index_add(0, place, values.to(torch.float64))

    total = summed(weights)
    mean = safe_divide(summed(weights * scores), total, fallback=float("nan"))
    share = safe_divide(summed(weights * is_signal), total, fallback=float("nan"))
    # Effective number of samples; the share is pulled towards 1/2 by one sample of each kind, as Laplace would, so that
    # bins of one kind have an error, too.
    effective = safe_divide(total.square(), summed(weights.square()))
    pulled = (share * effective + 1) / (effective + 2)
    return mean, share, (pulled * (1 - pulled) / (effective + 2)).sqrt(), total


def binned_quantiles(
    x: Float[Tensor, " sample"],
    values: Float[Tensor, " sample"],
    edges: Float[Tensor, " edge"],
    q: tuple[float, ...],
    at_least: int = 10,
) -> Float[Tensor, "quantile bin"]:
    """Quantiles of values in bins of another quantity.

    Args:
        x: Decides the bin.
        values: What quantiles are taken of.
        edges: Edges of the bins, ascending.
        q: Quantiles, 0 to 1.
        at_least: Fewest samples of a bin that has quantiles.

    Returns:
        One row for each quantile; NaN in bins with too few samples.
    """
    found = values.new_full((len(q), len(edges) - 1), float("nan"))
    place = torch.searchsorted(edges, x, right=True).clamp(1, len(edges) - 1) - 1
    order = torch.argsort(place, stable=True)
    for k, chosen in enumerate(values[order].split(torch.bincount(place, minlength=len(edges) - 1).tolist())):
        if len(chosen) >= at_least:
            found[:, k] = torch.quantile(chosen, torch.tensor(q, dtype=values.dtype, device=values.device))
    return found
