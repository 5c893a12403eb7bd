"""Moments of masked rows and of running sums."""

from __future__ import annotations

import pytest
import torch

from diffdet.kernels.normalisation import masked_moments, running_moments, running_weight


def test_masked_moments_are_those_of_the_rows_that_are_there(dtype):
    x = torch.randn(40, 3, dtype=dtype) + 100
    mask = torch.rand(40) > 0.4
    mean, variance, count = masked_moments(x, mask)
    torch.testing.assert_close(mean, x[mask].mean(0))
    torch.testing.assert_close(variance, x[mask].var(0, correction=0), rtol=1e-4, atol=0)
    assert count == mask.sum()


@pytest.mark.parametrize("filler", [1e300, float("nan"), float("inf")])
def test_what_stands_in_masked_rows_does_not_matter(filler):
    x = torch.randn(10, 2, dtype=torch.float64)
    mask = torch.arange(10) < 6
    spoiled = x.masked_fill(~mask.unsqueeze(1), filler).requires_grad_()
    sum(part.sum() for part in masked_moments(spoiled, mask)).backward()
    assert torch.isfinite(spoiled.grad).all()
    for ours, theirs in zip(masked_moments(spoiled, mask), masked_moments(x, mask), strict=True):
        assert torch.equal(ours, theirs)


def test_moments_of_nothing_are_zero():
    found = masked_moments(torch.randn(4, 2), torch.zeros(4, dtype=torch.bool))
    assert all(bool((value == 0).all()) for value in found)


def test_gradients_of_masked_moments():
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([True, False, True, True, False, True])
    assert torch.autograd.gradcheck(lambda x: masked_moments(x, mask)[:2], (x,))


@pytest.mark.parametrize(("samples", "weight"), [(1, 0.1), (2, 0.1), (5, 0.55), (82, 0.9)])
def test_larger_batches_are_trusted_more(samples, weight):
    # 1 - 0.9 / sqrt(n - 1); a batch of one counts like one of two
    assert running_weight(0.1, samples) == pytest.approx(weight, abs=1e-5)


def test_running_moments_of_one_batch_are_its_moments(dtype):
    x = torch.randn(50, 3, dtype=dtype)
    mean, variance = running_moments(x.sum(0), x.square().sum(0), torch.tensor(50.0, dtype=dtype))
    torch.testing.assert_close(mean, x.mean(0))
    torch.testing.assert_close(variance, x.var(0, correction=0))


def test_before_anything_was_seen_numbers_are_taken_as_normal():
    mean, variance = running_moments(torch.zeros(2), torch.zeros(2), torch.tensor(0.0))
    assert mean.tolist() == [0, 0]
    assert variance.tolist() == [1, 1]


def test_rounding_does_not_make_variances_negative():
    mean, variance = running_moments(torch.tensor([1e4]), torch.tensor([0.999999e8]), torch.tensor(1.0))
    assert mean == 1e4
    assert variance == 0
