"""Weighted moments, quantiles and smooth extrema."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from diffdet.core.errors import InputError, ShapeError
from diffdet.kernels import statistics


def draws(*shape, seed=11):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_moments_equal_the_slow_twin():
    v, w = draws(7), draws(7, seed=12).abs()
    total = sum(w.tolist())
    mean = sum(a * b for a, b in zip(v.tolist(), w.tolist(), strict=True)) / total
    square = sum(a * a * b for a, b in zip(v.tolist(), w.tolist(), strict=True)) / total
    assert statistics.weighted_mean(v, w).item() == pytest.approx(mean, rel=1e-14)
    assert statistics.weighted_rms(v, w).item() == pytest.approx(math.sqrt(square), rel=1e-14)


def test_moments_scale_and_ignore_the_scale_of_the_weights():
    v, w = draws(4, 9), draws(4, 9, seed=12).abs()
    for moment in (statistics.weighted_mean, statistics.weighted_rms):
        torch.testing.assert_close(moment(3 * v, 5 * w), 3 * moment(v, w))
        torch.testing.assert_close(moment(v.T, w.T, dim=0), moment(v, w))
        assert moment(v, w, keepdim=True).shape == (4, 1)


def test_no_weight_is_said_and_carries_no_gradient():
    v = draws(3).requires_grad_()
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert statistics.weighted_mean(v, w).isnan()
    for moment in (statistics.weighted_mean, statistics.weighted_rms):
        result = moment(v, w, empty=0.0)
        assert result.item() == 0
        assert all(g.abs().max() == 0 for g in torch.autograd.grad(result, (v, w)))
    assert statistics.weighted_rms(torch.empty(0), torch.empty(0)).isnan()


def test_float32_sums_do_not_drift_with_the_number_of_values():
    n = 4_000_000
    value = statistics.weighted_mean(torch.full((n,), 0.1), torch.full((n,), 0.3))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(torch.tensor(0.1).item(), rel=1e-7)


@pytest.mark.parametrize("n", [1, 2, 5, 10, 11])
@pytest.mark.parametrize("q", [0.0, 0.15865, 0.5, 0.84135, 1.0])
def test_quantile_is_the_kth_smallest(n, q):
    v = draws(3, n)
    wanted = [sorted(row)[round(q * (n - 1))] for row in v.tolist()]
    assert statistics.quantile(v, q).tolist() == wanted
    assert statistics.quantile(v.T, q, dim=0, keepdim=True).shape == (1, 3)


def test_quantile_refuses_what_it_cannot_rank():
    with pytest.raises(InputError, match="`q` must lie in"):
        statistics.quantile(torch.ones(3), 1.5)
    with pytest.raises(ShapeError, match="at least one element"):
        statistics.quantile(torch.ones(2, 0), 0.5)


def test_smooth_extrema_lie_within_their_bound():
    v = draws(5, 16)
    for sharpness in (1.0, 10.0, 1e3):
        excess = statistics.smooth_max(v, sharpness) - v.amax(-1)
        assert ((excess >= -1e-12) & (excess <= math.log(16) / sharpness + 1e-12)).all()
        torch.testing.assert_close(statistics.smooth_min(v, sharpness), -statistics.smooth_max(-v, sharpness))
    with pytest.raises(InputError, match="`sharpness`"):
        statistics.smooth_max(v, 0.0)


def test_gradients():
    v, w = draws(2, 5).requires_grad_(), draws(2, 5, seed=12).abs().requires_grad_()
    assert gradcheck(statistics.weighted_mean, (v, w))
    assert gradcheck(statistics.weighted_rms, (v, w))
    assert gradcheck(lambda x: statistics.quantile(x, 0.3), (v,))
    assert gradcheck(lambda x: statistics.smooth_max(x, 5.0), (v,))
    assert gradcheck(lambda x: statistics.smooth_min(x, 5.0), (v,))


def test_rms_of_zeros_is_zero_with_gradient_zero():
    v = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    result = statistics.weighted_rms(v, torch.ones(4, dtype=torch.float64))
    assert result.item() == 0
    assert torch.autograd.grad(result, v)[0].abs().max() == 0


def test_weighted_quantile_with_equal_weights_counts_values():
    v = torch.tensor([5.0, 1.0, 3.0, 4.0, 2.0])
    one = torch.ones_like(v)
    found = [statistics.weighted_quantile(v, one, q).item() for q in (0.0, 0.2, 0.21, 0.5, 0.8, 1.0)]
    assert found == [1, 1, 2, 3, 4, 5]


def test_weighted_quantile_equals_that_of_repeated_values():
    v, counts = draws(40), torch.randint(0, 5, (40,), generator=torch.Generator().manual_seed(4))
    repeated = v.repeat_interleave(counts)
    for q in (0.1, 0.5, 0.6827, 0.95):
        place = max(math.ceil(q * len(repeated) - 1e-9), 1) - 1
        assert statistics.weighted_quantile(v, counts.double(), q) == repeated.sort().values[place]


def test_weighted_quantile_gives_its_gradient_to_one_value():
    v = torch.tensor([3.0, 1.0, 2.0], requires_grad=True)
    statistics.weighted_quantile(v, torch.tensor([1.0, 1.0, 0.0]), 0.9).backward()
    assert v.grad is not None
    assert v.grad.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("values", "weights", "q", "error"),
    [
        ([1.0], [1.0], 1.5, InputError),
        ([1.0], [1.0], math.nan, InputError),
        ([1.0], [0.0], 0.5, InputError),
        ([], [], 0.5, ShapeError),
        ([1.0, 2.0], [1.0], 0.5, ShapeError),
    ],
)
def test_weighted_quantile_refuses_what_has_none(values, weights, q, error):
    with pytest.raises(error):
        statistics.weighted_quantile(torch.tensor(values), torch.tensor(weights), q)
