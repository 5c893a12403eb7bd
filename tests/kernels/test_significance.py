"""Significance of a counting experiment: closed forms, limits, digits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from diffdet.kernels.significance import asimov_significance, yields_above


def z(s, b, sigma=0.0, dtype=torch.float64):
    return asimov_significance(*(torch.tensor(v, dtype=dtype) for v in (s, b, sigma))).item()


def exact(s, b, sigma):
    from mpmath import mp, mpf

    with mp.workdps(120):
        s, b, v = mpf(s), mpf(b), mpf(sigma) ** 2
        if v == 0:
            return float(mp.sqrt(2 * ((s + b) * mp.log(1 + s / b) - s)))
        first = (s + b) * mp.log((s + b) * (b + v) / (b * b + (s + b) * v))
        return float(mp.sqrt(2 * (first - b * b / v * mp.log(1 + v * s / (b * (b + v))))))


def test_significance_has_known_values():
    # (s, b) = (10, 100): sqrt(2 (110 ln 1.1 - 10)), and with 10 % uncertainty.
    assert z(10.0, 100.0) == pytest.approx(math.sqrt(2 * (110 * math.log(1.1) - 10)), rel=1e-12)
    assert z(10.0, 100.0, 10.0) == pytest.approx(exact(10, 100, 10), rel=1e-12)


@given(st.floats(1e-3, 1e4), st.floats(1e-2, 1e6), st.one_of(st.just(0.0), st.floats(1e-6, 1)))
def test_all_regimes_equal_the_exact_formula(s, b, relative):
    assert z(s, b, relative * b) == pytest.approx(exact(s, b, relative * b), rel=1e-12)


def test_a_small_signal_gives_s_over_root_b():
    assert z(1e-3, 1e6) == pytest.approx(1e-6, rel=1e-6)
    assert z(1e-3, 1e6, 1e3) == pytest.approx(1e-3 / math.sqrt(2e6), rel=1e-6)
    assert z(1.0, 1e5, dtype=torch.float32) == pytest.approx(exact(1, 1e5, 0), rel=1e-4)


def test_nothing_is_worth_nothing():
    assert z(0.0, 10.0) == z(0.0, 10.0, 3.0) == z(5.0, 0.0) == 0


def test_gradients_are_right_and_finite():
    s, b, sigma = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (12.0, 50.0, 4.0))
    assert gradcheck(asimov_significance, (s, b, sigma))
    zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    asimov_significance(zero, b, sigma).sum().backward()
    assert torch.isfinite(zero.grad).all()


def test_yields_equal_the_slow_twin():
    draw = torch.Generator().manual_seed(0)
    scores = (torch.rand(300, generator=draw) * 20).round() / 20
    signal = torch.rand(300, generator=draw) < 0.4
    weights = torch.rand(300, generator=draw)
    cuts, s, b, b_squared, n = yields_above(scores, signal, weights)
    assert torch.equal(cuts, scores.unique())
    for k, cut in enumerate(cuts):
        above = scores >= cut
        assert s[k].item() == pytest.approx(weights[above & signal].double().sum().item())
        assert b[k].item() == pytest.approx(weights[above & ~signal].double().sum().item())
        assert b_squared[k].item() == pytest.approx(weights[above & ~signal].double().square().sum().item())
        assert n[k].item() == (above & ~signal).sum().item()
