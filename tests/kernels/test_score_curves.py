"""Curves of predictions: slow twins, limits, coverage of bands."""

from __future__ import annotations

import pytest
import torch

from diffdet.kernels.classifier_scores import area_under_roc
from diffdet.kernels.score_curves import binned_quantiles, calibration, interpolate, roc_band, roc_curve


def samples(n=400, seed=0, ties=True):
    draw = torch.Generator().manual_seed(seed)
    signal = torch.rand(n, generator=draw) < 0.4
    scores = torch.randn(n, generator=draw, dtype=torch.float64) + 1.5 * signal
    return (scores * 5).round() / 5 if ties else scores, signal, torch.rand(n, generator=draw, dtype=torch.float64)


def test_shares_equal_the_slow_twin():
    scores, signal, weights = samples()
    background, found = roc_curve(scores, signal, weights)
    assert (background[0], found[0], background[-1], found[-1]) == (0, 0, 1, 1)
    for k, cut in enumerate(scores.unique().flip(0), start=1):
        above = scores >= cut
        assert found[k].item() == pytest.approx((weights[above & signal].sum() / weights[signal].sum()).item())
        assert background[k].item() == pytest.approx((weights[above & ~signal].sum() / weights[~signal].sum()).item())


def test_the_area_below_is_that_of_the_pairs():
    scores, signal, weights = samples()
    background, found = roc_curve(scores, signal, weights)
    assert torch.trapezoid(found, background).item() == pytest.approx(area_under_roc(scores, signal, weights).item())


def test_a_replicate_with_every_sample_once_is_the_curve():
    scores, signal, weights = samples()
    grid = torch.linspace(0, 1, 21, dtype=torch.float64)
    once = torch.ones(1, len(scores), dtype=torch.int64)
    torch.testing.assert_close(
        roc_band(scores, signal, weights, grid, once)[0], interpolate(grid, *roc_curve(scores, signal, weights))
    )


def test_bootstrap_bands_are_as_wide_as_repeated_samples_scatter():
    grid = torch.tensor([0.2], dtype=torch.float64)
    repeated = torch.cat(
        [roc_band(*samples(2000, seed, False), grid, torch.ones(1, 2000, dtype=torch.int64)) for seed in range(200)]
    )
    counts = torch.poisson(torch.ones(200, 2000), generator=torch.Generator().manual_seed(1)).long()
    resampled = roc_band(*samples(2000, 7, False), grid, counts)
    assert resampled.std().item() == pytest.approx(repeated.std().item(), rel=0.25)


def test_lines_between_points():
    x, y = torch.tensor([0.0, 1, 1, 3]), torch.tensor([0.0, 2, 4, 8])
    assert interpolate(torch.tensor([-1.0, 0.5, 1, 2, 9]), x, y).tolist() == [0, 1, 4, 6, 8]


def test_probabilities_are_calibrated_and_others_are_not():
    draw = torch.Generator().manual_seed(0)
    p = torch.rand(40_000, generator=draw, dtype=torch.float64)
    signal = torch.rand(40_000, generator=draw) < p
    edges = torch.linspace(0, 1, 11, dtype=torch.float64)
    mean, share, error, total = calibration(p, signal, torch.ones_like(p), edges)
    assert total.sum() == 40_000
    assert ((mean - share).abs() / error).square().mean() < 2.5
    mean, share, error, _ = calibration(p.square(), signal, torch.ones_like(p), edges)
    assert ((mean - share).abs() / error).max() > 10


def test_bins_of_one_kind_have_an_error_and_empty_ones_are_nan():
    edges = torch.tensor([0.0, 0.5, 1])
    mean, share, error, total = calibration(
        torch.tensor([0.1, 0.2]), torch.tensor([False, False]), torch.ones(2), edges
    )
    assert share[0] == 0
    assert error[0] > 0.1
    assert torch.isnan(mean[1])
    assert total.tolist() == [2, 0]


def test_quantiles_in_bins_equal_the_slow_twin():
    x, values = torch.rand(500, dtype=torch.float64), torch.randn(500, dtype=torch.float64)
    edges = torch.tensor([0, 0.3, 0.99, 1.0], dtype=torch.float64)
    got = binned_quantiles(x, values, edges, (0.16, 0.5))
    inside = values[(x >= 0.3) & (x < 0.99)]
    assert got[1, 1].item() == pytest.approx(inside.median().item(), abs=0.05)
    assert got[0, 1].item() == pytest.approx(torch.quantile(inside, 0.16).item())
    if ((x >= 0.99) & (x <= 1)).sum() < 10:
        assert torch.isnan(got[:, 2]).all()
