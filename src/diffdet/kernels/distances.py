"""Distances between distributions that are given as histograms or samples."""

import torch
from jaxtyping import Float
from torch import Tensor

from diffdet.kernels.safe_math import safe_sqrt

__all__ = ["frechet_distance", "ks_distance", "polynomial_mmd", "ranks", "spearman", "wasserstein_1"]


def _cumulative(counts: Float[Tensor, "*batch bin"]) -> Float[Tensor, "*batch bin"]:
    total = counts.sum(-1, keepdim=True)
    return counts.cumsum(-1) / torch.where(total > 0, total, torch.ones_like(total))


def wasserstein_1(first: Float[Tensor, "*batch bin"], second: Float[Tensor, "*batch bin"]) -> Float[Tensor, "*batch"]:
    """Wasserstein-1 distance of two histograms with bins of width 1: the area between their cumulative distributions.

    Args:
        first: Counts; their sum does not matter.
        second: Likewise.

    Returns:
        In units of the width of a bin.
    """
    return (_cumulative(first) - _cumulative(second)).abs().sum(-1)


def ks_distance(first: Float[Tensor, "*batch bin"], second: Float[Tensor, "*batch bin"]) -> Float[Tensor, "*batch"]:
    """Kolmogorov-Smirnov distance of two histograms: the largest difference of their cumulative distributions."""
    return (_cumulative(first) - _cumulative(second)).abs().amax(-1)


def ranks(values: Float[Tensor, "row column"]) -> Float[Tensor, "row column"]:
    """Rank of every value in its column; equal values share the mean of their ranks."""
    columns = []
    for column in values.unbind(1):
        ordered = column.sort().values
        low = torch.searchsorted(ordered, column.contiguous(), right=False)
        high = torch.searchsorted(ordered, column.contiguous(), right=True)
        columns.append(0.5 * (low + high - 1).to(values.dtype))
    return torch.stack(columns, dim=1)


def spearman(values: Float[Tensor, "row column"]) -> Float[Tensor, "column column"]:
    """Spearman's rank correlation of the columns; 0 with a column that does not vary.

    Reference: C. Spearman, Am. J. Psychol. 15 (1904) 72.
    """
    rank = ranks(values)
    rank = rank - rank.mean(0)
    length = safe_sqrt(rank.square().sum(0))
    unit = rank / torch.where(length > 0, length, torch.ones_like(length))
    return unit.T @ unit


def frechet_distance(first: Float[Tensor, "a feature"], second: Float[Tensor, "b feature"]) -> Float[Tensor, ""]:
    """Squared Frechet distance of the normal distributions with the moments of two samples.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)); the trace of the root is that of the roots of the eigenvalues of the
    symmetric S1^(1/2) S2 S1^(1/2).

    Reference: D. C. Dowson and B. V. Landau, J. Multivariate Anal. 12 (1982) 450; for simulations arXiv:2211.10295.
    """
    one, other = torch.cov(first.T), torch.cov(second.T)
    values, vectors = torch.linalg.eigh(one)
    root = (vectors * safe_sqrt(values)) @ vectors.T
    cross = safe_sqrt(torch.linalg.eigvalsh(root @ other @ root)).sum()
    return (first.mean(0) - second.mean(0)).square().sum() + torch.trace(one) + torch.trace(other) - 2 * cross


def polynomial_mmd(first: Float[Tensor, "a feature"], second: Float[Tensor, "b feature"]) -> Float[Tensor, ""]:
    """Unbiased squared maximum mean discrepancy with the kernel (x . y / d + 1)^3; may be below 0.

    Reference: arXiv:2211.10295.
    """

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    own, their = kernel(first, first), kernel(second, second)
    n, m = len(first), len(second)
    within = (own.sum() - own.trace()) / (n * (n - 1)) + (their.sum() - their.trace()) / (m * (m - 1))
    return within - 2 * kernel(first, second).mean()
