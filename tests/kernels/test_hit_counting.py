"""Probability of at least two hits: reference values, enumeration, tiny efficiencies, gradients."""

import itertools

import pytest
import torch
from torch.autograd import gradcheck

from diffdet.kernels.hit_counting import at_least_two

F64 = {"dtype": torch.float64}


def column(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)[:, None]


@pytest.mark.parametrize(
    ("above", "below", "expected"),
    [
        ([0.9] * 2, [0.9] * 2, 0.6561),
        ([0.9] * 4, [0.9] * 4, 0.9926),
        # 0.4263 with the original's rounding; the enumeration of all outcomes gives this
        ([0.6, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8], 0.4832 * 0.882),
    ],
)
def test_reference_values(above, below, expected):
    both = at_least_two(column(*above)) * at_least_two(column(*below))
    assert both.item() == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("n_hits", [1, 2, 3, 6])
def test_agrees_with_enumeration_of_all_outcomes(n_hits):
    efficiency = torch.rand((n_hits, 20), generator=torch.Generator().manual_seed(1), **F64)
    expected = torch.zeros(20, **F64)
    for outcome in itertools.product((0, 1), repeat=n_hits):
        if sum(outcome) >= 2:
            seen = torch.tensor(outcome, dtype=torch.bool)[:, None]
            expected += torch.where(seen, efficiency, 1 - efficiency).prod(0)
    torch.testing.assert_close(at_least_two(efficiency), expected, rtol=1e-13, atol=1e-16)


def test_one_hit_is_not_enough(dtype):
    assert at_least_two(torch.ones((1, 3), dtype=dtype)).tolist() == [0, 0, 0]


def test_ideal_panels_always_see():
    assert at_least_two(torch.ones((2, 3))).tolist() == [1, 1, 1]
    assert at_least_two(torch.tensor([[1.0], [1.0], [0.0]])).item() == 1


def test_tiny_efficiencies_do_not_cancel_in_float32():
    """Three hits of 1e-5: 3e-10. One minus the rest would be 0 or 1e-7."""
    assert at_least_two(torch.full((3, 1), 1e-5)).item() == pytest.approx(3e-10, rel=1e-4)


def test_order_and_hits_without_efficiency_are_of_no_consequence():
    efficiency = torch.rand((5, 10), generator=torch.Generator().manual_seed(2), **F64)
    expected = at_least_two(efficiency)
    torch.testing.assert_close(at_least_two(efficiency.flip(0)), expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(at_least_two(torch.cat([torch.zeros((2, 10), **F64), efficiency])), expected)


def test_it_grows_with_every_efficiency_and_stays_a_probability():
    efficiency = torch.rand((4, 200), generator=torch.Generator().manual_seed(3), **F64).requires_grad_()
    value = at_least_two(efficiency)
    assert ((value >= 0) & (value <= 1)).all()
    assert (torch.autograd.grad(value.sum(), efficiency)[0] >= 0).all()


def test_gradients():
    efficiency = torch.rand((4, 3), generator=torch.Generator().manual_seed(4), **F64).requires_grad_()
    assert gradcheck(at_least_two, efficiency)
    edges = column(0.0, 1.0, 1.0).requires_grad_()
    assert gradcheck(at_least_two, edges)


def test_few_muons(dtype):
    for n in (0, 1):
        value = at_least_two(torch.rand((3, n), dtype=dtype))
        assert value.shape == (n,)
        assert value.dtype == dtype
