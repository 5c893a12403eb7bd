"""Fill height from points of closest approach: slow twins, robustness, the stated variance, gradients."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from diffdet.kernels import fill_level
from diffdet.kernels.poca_image import SIGMA_FLOOR

F64 = {"dtype": torch.float64}
X_EDGES, Y_EDGES = torch.linspace(0, 1, 11, **F64), torch.linspace(0, 0.6, 7, **F64)
ONE_SIGMA = 0.158655


def rows(n, seed=0):
    """Heights, their uncertainties and weights of n muons."""
    generator = torch.Generator().manual_seed(seed)
    z = 0.9 + 0.3 * torch.randn(n, generator=generator, **F64)
    sigma = 0.01 + torch.rand(n, generator=generator, **F64) ** 2
    return z, sigma, 0.1 + 0.9 * torch.rand(n, generator=generator, **F64)


def phi(t):
    return 0.5 * math.erfc(-t / math.sqrt(2))


def gate(p, low, high, smooth):
    d = abs(p - 0.5 * (low + high)) / (0.5 * (high - low))
    profile = (1 + math.exp(-1 / smooth)) / (1 + math.exp(-(1 - d) / smooth))
    return 2 * (profile - 0.5)


@pytest.mark.parametrize("smooth", [0.1, 1.0])
def test_central_weight_agrees_with_the_sum_over_pixels(smooth):
    generator = torch.Generator().manual_seed(1)
    xy = torch.rand((2, 8), generator=generator, **F64) * torch.tensor([[1.2], [0.8]], **F64) - 0.1
    sigma = 0.01 + 0.1 * torch.rand((2, 8), generator=generator, **F64)
    weight = fill_level.central_weight(xy, sigma, X_EDGES, Y_EDGES, smooth)
    for m in range(8):
        expected = 0.0
        for i in range(10):
            for j in range(6):
                p = 1.0
                for k, (edges, at) in enumerate(((X_EDGES, i), (Y_EDGES, j))):
                    low, high = edges[at : at + 2].tolist()
                    mean, wide = xy[k, m].item(), sigma[k, m].item() + SIGMA_FLOOR
                    p *= phi((high - mean) / wide) - phi((low - mean) / wide)
                centre = [0.5 * (X_EDGES[i] + X_EDGES[i + 1]).item(), 0.5 * (Y_EDGES[j] + Y_EDGES[j + 1]).item()]
                expected += p * gate(centre[0], 0, 1, smooth) * gate(centre[1], 0, 0.6, smooth)
        assert weight[m].item() == pytest.approx(expected, rel=1e-10, abs=1e-14)


def test_central_weight_is_one_in_the_middle_and_zero_outside(dtype):
    xy = torch.tensor([[0.45, -3.0, 0.05], [0.25, 0.3, 0.3]], dtype=dtype)
    edges = X_EDGES.to(dtype), Y_EDGES.to(dtype)
    middle, outside, wall = fill_level.central_weight(xy, torch.zeros_like(xy), *edges, 0.05).tolist()
    assert middle == pytest.approx(1, abs=1e-3)
    assert outside == 0
    assert 0 < wall < 0.9


def robust_by_hand(z, sigma, weight):
    order = np.sort(sigma)
    n = len(z)
    low, high = order[round(ONE_SIGMA * (n - 1))], order[round((1 - ONE_SIGMA) * (n - 1))]
    w = weight / np.clip(sigma, low, high) ** 2
    w = np.minimum(w, np.sort(w)[round((1 - ONE_SIGMA) * (n - 1))])
    mean = (w * z).sum() / w.sum()
    return mean, ((w / w.sum()) ** 2 * (z - mean) ** 2).sum()


@pytest.mark.parametrize("n", [1, 2, 7, 200])
def test_robust_height_agrees_with_the_recipe(n):
    given = rows(n)
    mean, variance = fill_level.robust_height(*given)
    expected = robust_by_hand(*(t.numpy() for t in given))
    assert mean.shape == variance.shape == (1,)
    assert mean.item() == pytest.approx(expected[0], rel=1e-12)
    assert variance.item() == pytest.approx(expected[1], rel=1e-10, abs=1e-18)


def test_height_moves_with_the_muons_and_not_with_common_factors():
    z, sigma, weight = rows(100)
    mean, variance = fill_level.robust_height(z, sigma, weight)
    moved, same = fill_level.robust_height(2 * z + 1, 7 * sigma, 0.01 * weight)
    torch.testing.assert_close(moved, 2 * mean + 1)
    torch.testing.assert_close(same, 4 * variance)


def test_float32_holds_the_height_to_a_micrometre():
    given = rows(5000)
    mean, _ = fill_level.robust_height(*given)
    single, _ = fill_level.robust_height(*(t.float() for t in given))
    assert abs(single.item() - mean.item()) < 1e-6
    # the squares of sigmas of 1e-22 m and 1e22 m have no place in float32
    for factor in (1e-22, 1e22):
        tiny, _ = fill_level.robust_height(given[0].float(), (given[1] * factor).float(), given[2].float())
        assert tiny.item() == pytest.approx(mean.item(), abs=1e-5)


def test_one_wild_muon_of_a_thousand_moves_the_height_by_less_than_a_percent_of_its_distance():
    z, sigma, weight = rows(1000)
    wild = z.clone()
    wild[sigma.argmin()] += 10
    moved = fill_level.robust_height(wild, sigma, weight)[0] - fill_level.robust_height(z, sigma, weight)[0]
    assert 0 < moved.item() < 0.1


def test_the_stated_variance_is_that_of_repetitions():
    """2,000 repetitions of 300 muons: the variance of their means is known to 3.2 %; four of them, and 1 % of bias."""
    means, variances = zip(*(fill_level.robust_height(*rows(300, seed)) for seed in range(2000)), strict=True)
    measured = torch.cat(means).var().item()
    assert torch.cat(variances).mean().item() == pytest.approx(measured, rel=0.14)


def test_where_nearly_all_muons_have_no_weight_the_others_still_count():
    z, sigma, weight = rows(100)
    weight[3:] = 0
    leaves = [t.clone().requires_grad_() for t in (z, sigma, weight)]
    mean, variance = fill_level.robust_height(*leaves)
    assert z[:3].min() < mean.item() < z[:3].max()
    for gradient in torch.autograd.grad(mean + variance, leaves):
        assert gradient.isfinite().all()


def test_gradients_with_the_clipping_limits_held(monkeypatch):
    """Limits carry no gradient, as documented: here they are constants between two muons, where there is no corner."""
    z, sigma, weight = rows(12)
    low, high = (0.5 * (sigma.sort().values[k] + sigma.sort().values[k + 1]) for k in (1, 9))
    w = (weight * (low / sigma.clamp(low, high)).square()).sort().values
    held = itertools.cycle([low, high, 0.5 * (w[8] + w[9])])
    monkeypatch.setattr(fill_level, "quantile", lambda *_: next(held))
    assert gradcheck(fill_level.robust_height, [t.requires_grad_() for t in (z, sigma, weight)])


def test_central_weight_gradients():
    generator = torch.Generator().manual_seed(2)
    xy = torch.rand((2, 3), generator=generator, **F64).requires_grad_()
    sigma = (0.05 + torch.rand((2, 3), generator=generator, **F64)).requires_grad_()
    smooth = torch.tensor(0.4, requires_grad=True, **F64)
    assert gradcheck(lambda p, s, k: fill_level.central_weight(p, s, X_EDGES, Y_EDGES, k), (xy, sigma, smooth))


# ---- linear correction


def test_correction_is_the_least_squares_line():
    generator = np.random.default_rng(3)
    p, t = generator.normal(size=30), generator.normal(size=30)
    slope, intercept = fill_level.fit_correction(torch.tensor(p), torch.tensor(t))
    assert [slope.item(), intercept.item()] == pytest.approx(np.polyfit(p, t, 1).tolist(), rel=1e-10)


def test_equal_predictions_are_corrected_to_the_mean():
    slope, intercept = fill_level.fit_correction(torch.full((5,), 0.3, **F64), torch.arange(5, **F64))
    assert (slope.item(), intercept.item()) == (0, 2)


def test_corrected_error_of_a_linear_predictor_with_noise():
    """Predictions 0.5 t + 0.3 with noise of 0.02: after correction 0.04^2 is left, over the variance of the targets."""
    levels = torch.linspace(0.6, 1.3, 8, **F64)
    target = levels.repeat(40)
    generator = torch.Generator().manual_seed(4)
    exact = 0.5 * target + 0.3
    zero = torch.zeros_like(target)
    assert fill_level.corrected_error(exact, zero, target).item() == pytest.approx(0, abs=1e-12)
    expected = 0.04**2 / (levels - levels.mean()).square().mean().item()
    errors = []
    for _ in range(200):
        noisy = exact + 0.02 * torch.randn(target.shape, generator=generator, **F64)
        errors.append(fill_level.corrected_error(noisy, zero + 0.02**2, target).item())
    # the slope of 320 noisy predictions is known to 0.5 %, the mean of 200 such errors to 0.1 %
    assert np.mean(errors) == pytest.approx(expected, rel=0.01)


def test_corrected_error_gradients():
    generator = torch.Generator().manual_seed(5)
    target = torch.tensor([0.6, 0.8, 1.0, 1.2], **F64).repeat(3)
    prediction = (target + 0.1 * torch.randn(12, generator=generator, **F64)).requires_grad_()
    variance = torch.rand(12, generator=generator, **F64).requires_grad_()
    assert gradcheck(lambda p, v: fill_level.corrected_error(p, v, target), (prediction, variance))
