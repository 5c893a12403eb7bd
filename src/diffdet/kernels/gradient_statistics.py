"""How well two gradients agree, and how much of a noisy gradient is signal."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Noise", "cosine", "ratio_and_error", "relative_errors", "signal_and_noise"]


class Noise(NamedTuple):
    """A gradient that was drawn several times.

    Attributes:
        mean: ``(parameter,)`` mean over the draws.
        signal: ``()`` length of the true mean, with what chance adds to the length of the average taken out; >= 0.
        variance: ``()`` variance of one draw, summed over the parameters.
    """

    mean: Tensor
    signal: Tensor
    variance: Tensor

    @property
    def signal_to_noise(self) -> float | None:
        """Signal over the standard deviation of one draw; None where nothing varies."""
        if not float(self.variance) > 0:
            return None
        return float(self.signal) / float(self.variance) ** 0.5


def cosine(a: Float[Tensor, " parameter"], b: Float[Tensor, " parameter"]) -> float | None:
    """Cosine of the angle between two gradients, a.b / (|a| |b|).

    Args:
        a: One gradient.
        b: The other.

    Returns:
        From -1 to 1; None where one of them is zero, because then there is no angle.
    """
    lengths = float(a.norm()) * float(b.norm())
    return max(-1.0, min(1.0, float(a @ b) / lengths)) if lengths > 0 else None


def relative_errors(
    value: Float[Tensor, " parameter"], reference: Float[Tensor, " parameter"], floor: float
) -> Float[Tensor, " parameter"]:
    """Deviation of every component over its size, |v - r| / max(|v|, |r|, rms(r) / 100, floor).

    A component far below the others cannot be compared with itself: what is left of it after a finite difference is
    rounding. A hundredth of the root mean square takes its place.

    Args:
        value: What is judged.
        reference: What it is judged by.
        floor: Size below which components are rounding, > 0.

    Returns:
        Relative errors, from 0 to 2.
    """
    typical = reference.square().mean().sqrt() / 100
    size = torch.maximum(torch.maximum(value.abs(), reference.abs()), typical).clamp_min(floor)
    return (value - reference).abs() / size


def signal_and_noise(draws: Float[Tensor, "draw parameter"]) -> Noise:
    """Mean, signal and variance of a gradient from independent draws.

    The squared length of the average of K draws is expected to be |g|^2 + V/K, with V the summed variance; V/K is taken
    out, and what is left below zero is no signal.

    Args:
        draws: Gradients of independent draws, at least two.

    Returns:
        Noise.
    """
    mean, variance = draws.mean(0), draws.var(0).sum()
    signal = (mean.square().sum() - variance / draws.shape[0]).clamp_min(0).sqrt()
    return Noise(mean, signal, variance)


def ratio_and_error(part: Float[Tensor, " draw"], whole: Float[Tensor, " draw"]) -> tuple[float, float] | None:
    """Ratio of two means that were measured together, and its standard error.

    With r = mean(part) / mean(whole), the error is that of mean(part - r whole) over |mean(whole)|: what varies in both
    alike cancels.

    Args:
        part: At least two draws.
        whole: As many, in the same order.

    Returns:
        Ratio and standard error; None where the mean of the whole is zero.

    Reference: ratio estimator, Cochran, Sampling Techniques, 3rd ed., eq. (6.13).
    """
    mean = float(whole.mean())
    if mean == 0:
        return None
    ratio = float(part.mean()) / mean
    return ratio, float((part - ratio * whole).std()) / part.shape[0] ** 0.5 / abs(mean)
