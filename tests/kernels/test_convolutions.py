"""Exact rewrites of convolutions and norms."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from diffdet.kernels import convolutions


def normal(*shape, dtype=torch.float64, seed=3):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (5, 7), (8, 24)], ids=str)
def test_phases_equal_doubling_and_convolving_borders_included(size, shape):
    image, weight, bias = normal(2, 3, *shape), normal(4, 3, size, size, seed=4), normal(4, seed=5)
    slow = functional.conv2d(
        functional.interpolate(image, scale_factor=2.0, mode="nearest"), weight, bias, padding=size // 2
    )
    fast = convolutions.convolve_doubled(image, convolutions.phase_kernels(weight), bias)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-13)


def test_phases_have_9_taps_for_25_and_4_for_9():
    assert convolutions.phase_kernels(normal(2, 3, 5, 5)).shape == (4, 2, 3, 3, 3)
    assert convolutions.phase_kernels(normal(2, 3, 3, 3)).shape == (4, 2, 3, 2, 2)
    with pytest.raises(ValueError, match="`weight`"):
        convolutions.phase_kernels(normal(2, 3, 7, 7))


def test_interleaved_phases_stand_where_they_should():
    phases = torch.arange(24.0).view(1, 4, 2, 3)
    large = convolutions.interleave(phases)
    for a in (0, 1):
        for b in (0, 1):
            assert torch.equal(large[0, 0, a::2, b::2], phases[0, 2 * a + b])


@pytest.mark.parametrize("n", [1, 2, 6])
def test_stretched_kernels_give_neighbours_in_one_step(n, dtype):
    image, weight = normal(2, 3, 5, 12, dtype=dtype), normal(1, 3, 3, 3, dtype=dtype, seed=4)
    slow = functional.conv2d(image, weight, padding=(0, 1))[:, 0]
    long = convolutions.stretched_kernels(weight, n)[:, 0]
    fast = functional.conv2d(image, long, stride=(1, n), padding=(0, 1)).permute(0, 2, 3, 1).flatten(2)
    torch.testing.assert_close(fast, slow)


def test_norm_in_evaluation_is_a_line_and_folds():
    image, weight, bias = normal(2, 3, 6, 6), normal(4, 3, 3, 3, seed=4), normal(4, seed=5)
    mean, variance, gain, shift = normal(4, seed=6), normal(4, seed=7).square(), normal(4, seed=8), normal(4, seed=9)
    slow = functional.batch_norm(functional.conv2d(image, weight, bias), mean, variance, gain, shift, eps=1e-5)
    line = convolutions.norm_as_line(mean, variance, gain, shift, eps=1e-5)
    fast = functional.conv2d(image, *convolutions.fold_scale(weight, bias, *line))
    torch.testing.assert_close(fast, slow)


def test_power_iteration_reaches_the_largest_singular_value():
    matrix, u = normal(6, 9), normal(1, 6, seed=4)
    for _ in range(400):
        sigma, u = convolutions.largest_singular_value(matrix, u, eps=1e-6)
    assert sigma.item() == pytest.approx(torch.linalg.matrix_norm(matrix, 2).item(), rel=1e-9)


def test_power_iteration_by_hand():
    matrix = torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    sigma, u = convolutions.largest_singular_value(matrix, torch.tensor([[2.0, 0.0]], dtype=torch.float64), eps=1e-6)
    assert sigma.item() == pytest.approx(3)  # it starts in the direction of the smaller one, and stays there
    assert u.tolist() == [[1, 0]]
