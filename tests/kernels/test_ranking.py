"""Order statistics of two kinds: counting by hand, ties, the standard error."""

import itertools

import pytest
import torch

from diffdet.kernels.ranking import order_error, shares_below

F64 = {"dtype": torch.float64}


def test_shares_are_counted_and_ties_count_half():
    values, others = torch.tensor([1.0, 2.0, 5.0], **F64), torch.tensor([0.0, 2.0, 2.0, 3.0], **F64)
    assert shares_below(values, others).tolist() == [0.25, 0.5, 1.0]


def test_the_error_is_the_share_of_pairs_in_the_wrong_order():
    generator = torch.Generator().manual_seed(1)
    high, low = torch.randn(30, generator=generator, **F64) + 1, torch.randn(20, generator=generator, **F64)
    wrong = sum(float(h < w) for h, w in itertools.product(high.tolist(), low.tolist())) / 600
    assert order_error(high, low)[0] == pytest.approx(wrong)


def test_perfect_and_reversed_order():
    low, high = torch.arange(3.0, **F64), torch.arange(3.0, **F64) + 10
    assert order_error(high, low) == (0.0, 0.0)
    assert order_error(low, high) == (1.0, 0.0)


def test_the_standard_error_is_the_spread_of_repetitions():
    generator = torch.Generator().manual_seed(2)
    found = [
        order_error(torch.randn(40, generator=generator, **F64) + 0.8, torch.randn(40, generator=generator, **F64))
        for _ in range(400)
    ]
    errors, stated = torch.tensor(found, **F64).T
    # the spread of 400 repetitions is known to 3.5 per cent
    assert float(stated.square().mean().sqrt()) == pytest.approx(float(errors.std()), rel=0.14)
