"""Budget penalty and allocation."""

import pytest
import torch
from torch.autograd import gradcheck

from diffdet.core.errors import InputError
from diffdet.kernels import budget

COSTS = (0.0, 5.0, 9.0, 10.0, 11.0, 15.0, 20.0, 40.0)
REFERENCE = {
    # the published package at budget 10 and smoothing 10
    True: (9.1e-5, 0.013386, 0.537883, 1, 1.5, 3.5, 6, 16),
    False: (9.1e-5, 0.013386, 0.537883, 1, 1.562117, 2.486614, 2.999909, 5),
}


@pytest.mark.parametrize("steep", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_penalty_has_the_reference_values(steep, dtype):
    found = budget.penalty(torch.tensor(COSTS, dtype=dtype), 10.0, 10.0, steep=steep)
    assert found.dtype == dtype
    torch.testing.assert_close(found, torch.tensor(REFERENCE[steep], dtype=dtype), rtol=0, atol=1e-6)


def test_penalty_depends_on_the_ratio_only_and_rises():
    cost = torch.linspace(0, 30, 301, dtype=torch.float64)
    for steep in (True, False):
        found = budget.penalty(cost, 10.0, steep=steep)
        torch.testing.assert_close(budget.penalty(7 * cost, 70.0, steep=steep), found)
        assert (found.diff() > 0).all()


def test_steep_penalty_continues_value_and_slope_at_the_budget():
    cost = torch.tensor([10 - 1e-9, 10.0, 10 + 1e-9], dtype=torch.float64, requires_grad=True)
    found = budget.penalty(cost, 10.0)
    slope = torch.autograd.grad(found.sum(), cost)[0]
    torch.testing.assert_close(found, torch.ones_like(found), rtol=0, atol=1e-8)
    torch.testing.assert_close(slope, torch.full_like(slope, 0.5), rtol=0, atol=1e-8)


def test_corner_of_the_other_form_takes_the_lower_slope():
    cost = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(budget.penalty(cost, 10.0, steep=False), cost)[0].item() == 0.5


def test_far_costs_stay_finite():
    cost = torch.tensor([-1e30, 0.0, 1e30], requires_grad=True)
    for steep in (True, False):
        found = budget.penalty(cost, 1.0, steep=steep)
        assert found.isfinite().all()
        assert torch.autograd.grad(found.sum(), cost)[0].isfinite().all()


def test_gradients():
    cost = torch.tensor([0.0, 5.0, 10.0, 15.0], dtype=torch.float64, requires_grad=True)
    target = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
    assert gradcheck(budget.penalty, (cost, target))
    off_corner = torch.tensor([0.0, 5.0, 15.0], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda c, b: budget.penalty(c, b, steep=False), (off_corner, target))
    weights = torch.tensor([0.0, 1.0, -2.0], dtype=torch.float64, requires_grad=True)
    assert gradcheck(budget.allocate, (weights, target))


def test_nonsense_is_refused():
    with pytest.raises(InputError, match="`budget` must be greater than 0; got 0"):
        budget.penalty(torch.tensor(1.0), 0.0)
    with pytest.raises(InputError, match="`smoothing`"):
        budget.penalty(torch.tensor(1.0), 1.0, smoothing=-1.0)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (0,)])
def test_allocation_is_positive_and_sums_to_the_budget(shape):
    weights = 5 * torch.randn(shape, generator=torch.Generator().manual_seed(14), dtype=torch.float64)
    shares = budget.allocate(weights, 6.0)
    assert shares.shape == shape
    assert (shares > 0).all()
    torch.testing.assert_close(budget.allocate(weights + 3, 6.0), shares)
    if shape[-1]:
        torch.testing.assert_close(shares.sum(-1), torch.full(shape[:-1], 6.0, dtype=torch.float64))


def test_equal_weights_share_equally():
    assert budget.allocate(torch.zeros(8, dtype=torch.float64), 6.0).tolist() == [0.75] * 8
