"""Error of every sample under the usual losses, and their weighted mean.

A loss of a batch is ``mean_i(w_i e_i)``: each sample's error counts with its own weight, and the sum is divided by the
number of samples, not by the sum of weights, so that a batch of heavy events pulls more than one of light events.
Sources: C. M. Bishop, *Pattern Recognition and Machine Learning*, sections 1.5.5 and 4.3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "absolute_errors",
    "binary_cross_entropies",
    "cross_entropies",
    "fractional_squared_errors",
    "squared_errors",
    "weighted_mean",
]


def _per_sample(errors: Tensor) -> Tensor:
    """Mean over everything but the first axis."""
    return errors if errors.ndim == 1 else errors.reshape(errors.shape[0], -1).mean(1)


def squared_errors(pred: Tensor, target: Tensor) -> Tensor:
    """Squared error of every sample, mean over its outputs.

    Args:
        pred: Predictions, (sample, ...).
        target: True values of the same shape.

    Returns:
        Errors, (sample,).
    """
    return _per_sample((pred - target).square())


def absolute_errors(pred: Tensor, target: Tensor) -> Tensor:
    """Absolute error of every sample, mean over its outputs; shapes as in `squared_errors`."""
    return _per_sample((pred - target).abs())


def fractional_squared_errors(pred: Tensor, target: Tensor, floor: float = 0.0) -> Tensor:
    """Squared error over the size of the target, ``(p - t)^2 / max(|t|, floor)``, of every sample, mean over outputs.

    Args:
        pred: Predictions, (sample, ...).
        target: True values of the same shape.
        floor: Smallest size of a target to divide by, in units of the target.

    Returns:
        Errors, (sample,).
    """
    return _per_sample((pred - target).square() / target.abs().clamp(min=floor))


def cross_entropies(log_scores: Tensor, target: Tensor) -> Tensor:
    """Negative logarithm of the probability of the true class, of every sample.

    Args:
        log_scores: Log-probabilities, or scores up to a constant per sample, (sample, class, ...).
        target: Number of the true class, (sample, ...), integers.

    Returns:
        Errors, (sample,), mean over further axes.
    """
    return _per_sample(functional.cross_entropy(log_scores, target, reduction="none"))


def binary_cross_entropies(pred: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of every sample, mean over its outputs; logarithms are bounded below by -100.

    Predictions that are not finite give NaN; torch's own function raises an error, which on a GPU ends the process.

    Args:
        pred: Probabilities, 0 to 1, (sample, ...).
        target: True values, 0 to 1, of the same shape.

    Returns:
        Errors, (sample,).
    """
    finite = torch.isfinite(pred)
    errors = functional.binary_cross_entropy(torch.where(finite, pred, 0.5), target, reduction="none")
    return _per_sample(torch.where(finite, errors, torch.nan))


def weighted_mean(errors: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of ``w_i e_i`` over the samples.

    Args:
        errors: Errors, (sample,).
        weights: Weights, (sample,); 1 where None.

    Returns:
        Single number.
    """
    return errors.mean() if weights is None else torch.mean(errors * weights)
