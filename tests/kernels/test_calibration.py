"""Claims of `kernels.calibration`: it finds the log-odds that generated the data, and stays finite where it must."""

from __future__ import annotations

import math

import pytest
import torch

from diffdet.kernels.calibration import fit_log_odds


def normals(n, mean, width, seed):
    draws = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return mean + width * draws


def test_two_normals_of_equal_width_have_linear_log_odds():
    """ln(p1/p0) = (m1 - m0) x / s^2 - (m1^2 - m0^2) / (2 s^2); 200,000 values pin the slope to 1 %."""
    n, high, low, width = 200_000, 1.5, -0.5, 2.0
    slope, offset = fit_log_odds(normals(n, high, width, 1), normals(n, low, width, 2))
    assert slope == pytest.approx((high - low) / width**2, rel=0.01)
    assert offset == pytest.approx(-(high**2 - low**2) / (2 * width**2), abs=0.01)


def test_what_is_calibrated_already_stays_as_it_is():
    odds = normals(400_000, 0.0, 1.5, 3)
    yes = torch.rand(len(odds), dtype=torch.float64, generator=torch.Generator().manual_seed(4)) < torch.sigmoid(odds)
    slope, offset = fit_log_odds(odds[yes], odds[~yes])
    assert slope == pytest.approx(1.0, abs=0.02)
    assert offset == pytest.approx(0.0, abs=0.02)


def test_scale_and_shift_of_the_statistic_do_not_matter():
    with_, without = normals(50, 1.0, 1.0, 5), normals(40, 0.0, 1.0, 6)
    slope, offset = fit_log_odds(with_, without)
    scaled, shifted = fit_log_odds(1e6 * with_ + 3e7, 1e6 * without + 3e7)
    torch.testing.assert_close(slope * with_ + offset, scaled * (1e6 * with_ + 3e7) + shifted, rtol=1e-5, atol=1e-6)


def test_kinds_that_do_not_overlap_leave_the_slope_finite():
    """The fitted probabilities are those of the smoothed targets, (n + 1) / (n + 2) and 1 / (m + 2)."""
    slope, offset = fit_log_odds(torch.full((8,), 100.0), torch.full((3,), -100.0))
    assert 1 / (1 + math.exp(-(100 * slope + offset))) == pytest.approx(9 / 10, abs=1e-6)
    assert 1 / (1 + math.exp(-(-100 * slope + offset))) == pytest.approx(1 / 5, abs=1e-6)


@pytest.mark.parametrize(
    ("with_", "without"), [(torch.zeros(5), torch.zeros(5)), (torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0]))]
)
def test_a_statistic_that_says_nothing_or_the_opposite_gets_no_slope(with_, without):
    slope, offset = fit_log_odds(with_, without)
    assert (slope, offset) == (0.0, pytest.approx(0.0))


def test_values_far_out_do_not_stop_the_search():
    with_, without = torch.tensor([1e4, 1.0, 0.5, -2.0]), torch.tensor([-1e5, 0.0, 0.6, -1.0])
    slope, offset = fit_log_odds(with_, without)
    assert slope > 0
    assert math.isfinite(offset)
