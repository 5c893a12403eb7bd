"""Agreement and noise of gradients: closed forms and a statistical test of the signal."""

from __future__ import annotations

import pytest
import torch

from diffdet.kernels.gradient_statistics import cosine, ratio_and_error, relative_errors, signal_and_noise


def test_cosine_of_known_angles():
    x, y = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 2.0])
    assert cosine(x, y) == 0
    assert cosine(x, x + 1.5 * y) == pytest.approx(0.5**0.5)
    assert cosine(x, -7 * x) == -1
    assert cosine(x, 0 * x) is None


def test_relative_errors_compare_each_component_with_its_size_down_to_a_hundredth_of_the_others():
    reference = torch.tensor([1.0, -1.0, 1e-9, 0.0], dtype=torch.float64)
    value = torch.tensor([1.01, -1.0, 2e-9, 1e-3], dtype=torch.float64)
    typical = 0.5**0.5 / 100
    expected = [0.01 / 1.01, 0.0, 1e-9 / typical, 1e-3 / typical]
    assert relative_errors(value, reference, 1e-30).tolist() == pytest.approx(expected)


def test_below_the_floor_everything_agrees():
    assert relative_errors(torch.tensor([1e-12]), torch.tensor([-1e-12]), 1e-6).item() == pytest.approx(2e-6)


def test_what_chance_adds_to_the_length_of_an_average_is_taken_out():
    """10,000 times 4 draws of 5 normals about a mean of length 2: the squared signal averages to 4 within 4 standard
    errors; without the correction it would be 5.25. (Clamping at 0 is rare here: less than one in 10,000.)"""
    generator = torch.Generator().manual_seed(3)
    mean = torch.tensor([2.0, 0, 0, 0, 0], dtype=torch.float64)
    draws = mean + torch.randn(10_000, 4, 5, generator=generator, dtype=torch.float64)
    squares = torch.stack([signal_and_noise(d).signal.square() for d in draws])
    assert squares.mean().item() == pytest.approx(4, abs=4 * float(squares.std()) / 100)
    variances = torch.stack([signal_and_noise(d).variance for d in draws])
    assert variances.mean().item() == pytest.approx(5, abs=4 * float(variances.std()) / 100)


def test_without_variation_there_is_no_ratio():
    noise = signal_and_noise(torch.ones(4, 3))
    assert noise.signal == pytest.approx(3**0.5)
    assert noise.signal_to_noise is None
    opposite = signal_and_noise(torch.tensor([[1.0], [-1.0]]))
    assert opposite.signal_to_noise == 0


def test_a_ratio_of_means_and_what_cancels_in_its_error():
    part, whole = torch.tensor([1.0, 2.0, 3.0, 6.0]), torch.tensor([2.0, 2.0, 2.0, 2.0])
    assert ratio_and_error(part, whole) == pytest.approx((1.5, (14 / 3) ** 0.5 / 4))
    assert ratio_and_error(3 * part, part) == pytest.approx((3, 0))
    assert ratio_and_error(part, torch.tensor([1.0, -1.0, 1.0, -1.0])) is None


def test_the_error_of_a_ratio_is_that_of_repetitions():
    """4,000 ratios of 50 pairs: their spread is known to 1.1 %, and the stated error is it within 5 %."""
    generator = torch.Generator().manual_seed(8)
    whole = 2 + torch.randn(4000, 50, generator=generator, dtype=torch.float64)
    part = 0.3 * whole + 0.5 * torch.randn(4000, 50, generator=generator, dtype=torch.float64)
    found = [ratio_and_error(p, w) for p, w in zip(part, whole, strict=True)]
    ratios, errors = (torch.tensor(column) for column in zip(*found, strict=True))
    assert errors.square().mean().sqrt().item() == pytest.approx(ratios.std().item(), rel=0.05)
