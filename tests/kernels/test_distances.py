"""Distances of distributions: closed forms, invariances, agreement with SciPy."""

from __future__ import annotations

import pytest
import torch

from diffdet.kernels import distances


def test_moving_a_histogram_by_three_bins_is_a_wasserstein_distance_of_three(dtype):
    counts = torch.zeros(20, dtype=dtype)
    counts[4:7] = torch.tensor([1.0, 2.0, 3.0], dtype=dtype)
    assert distances.wasserstein_1(counts, counts.roll(3)).item() == pytest.approx(3, rel=1e-5)
    assert distances.wasserstein_1(counts, 7 * counts).item() == pytest.approx(0, abs=1e-6)


def test_histograms_that_do_not_overlap_have_a_ks_distance_of_one(dtype):
    first, second = torch.zeros(2, 6, dtype=dtype)
    first[1], second[4] = 5, 2
    assert distances.ks_distance(first, second).item() == 1


def test_rank_correlation_agrees_with_scipy_ties_included():
    stats = pytest.importorskip("scipy.stats")
    values = torch.randint(0, 6, (40, 4), generator=torch.Generator().manual_seed(2)).double()
    assert torch.allclose(distances.spearman(values), torch.as_tensor(stats.spearmanr(values.numpy()).statistic))


def test_rank_correlation_with_a_constant_is_zero(dtype):
    values = torch.stack((torch.arange(5), torch.ones(5)), dim=1).to(dtype)
    assert distances.spearman(values)[0, 1].item() == 0


def test_frechet_distance_of_shifted_and_stretched_samples_in_closed_form():
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shift = torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64)
    assert distances.frechet_distance(x, x + shift).item() == pytest.approx(5, rel=1e-6)
    # the same directions, twice the spread: tr(S + 4 S - 4 S) = tr S, and the mean moves to twice itself
    wanted = torch.trace(torch.cov(x.T)) + x.mean(0).square().sum()
    assert distances.frechet_distance(x, 2 * x).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_discrepancy_is_near_zero_for_equal_distributions_and_above_it_for_others():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, 800, 4, generator=generator, dtype=torch.float64)
    assert abs(distances.polynomial_mmd(x, y).item()) < 0.05
    assert distances.polynomial_mmd(x, y + 0.5).item() > 0.3
