"""Filters of profiles and cubes agree with SciPy's and with sums written out, rim included, and have gradients."""

import pytest
import torch
from scipy import ndimage
from torch.autograd import gradcheck

from diffdet.kernels import profile_filters


def values(*shape, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(7), dtype=dtype) + 0.1


def neighbours(sequence, k):
    return sequence[max(0, k - 1) : k + 2]


def test_mean_of_three_with_the_rim_left_out():
    x = values(2, 5)
    slow = [[sum(neighbours(row, k)) / len(neighbours(row, k)) for k in range(5)] for row in x.tolist()]
    assert torch.allclose(profile_filters.mean_1d(x), torch.tensor(slow, dtype=x.dtype))


def test_mean_of_twenty_seven_with_the_rim_left_out():
    x = values(4, 3, 5)
    total = ndimage.uniform_filter(x.numpy(), 3, mode="constant") * 27
    count = ndimage.uniform_filter(torch.ones_like(x).numpy(), 3, mode="constant") * 27
    assert torch.allclose(profile_filters.mean_3d(x), torch.from_numpy(total / count))


@pytest.mark.parametrize("kernel", [(-1, 0, -1), (1, -4, 1), (-1.0, 0.0, 1.0), (0.25, 0.5, 0.25)])
def test_correlation_repeats_the_outermost_value(kernel):
    x = values(3, 6)
    expected = ndimage.correlate1d(x.numpy(), kernel, axis=-1, mode="nearest")
    assert torch.allclose(profile_filters.correlate(x, kernel), torch.from_numpy(expected))
    assert torch.allclose(profile_filters.correlate(x, torch.tensor(kernel)), torch.from_numpy(expected))


def test_binomial_smoothing_is_the_kernel_of_sixty_four():
    one = torch.tensor([1.0, 2.0, 1.0])
    kernel = torch.einsum("i,j,k->ijk", one, one, one) / 64
    x = values(3, 4, 5)
    expected = ndimage.correlate(x.numpy(), kernel.double().numpy(), mode="nearest")
    assert torch.allclose(profile_filters.binomial_3d(x), torch.from_numpy(expected))


def test_extrema_of_three():
    x = values(2, 7) - 0.6  # of both signs
    high, low = profile_filters.running_extrema(x)
    rows = x.tolist()
    assert high.tolist() == [[max(neighbours(row, k)) for k in range(7)] for row in rows]
    assert low.tolist() == [[min(neighbours(row, k)) for k in range(7)] for row in rows]


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (profile_filters.mean_1d, (1,)),
        (profile_filters.mean_1d, (2, 3, 4)),
        (profile_filters.mean_3d, (1, 1, 1)),
        (profile_filters.mean_3d, (2, 3, 4, 5)),
        (profile_filters.binomial_3d, (2, 3, 4, 5)),
        (lambda x: profile_filters.correlate(x, (1, 2, 3)), (2, 4)),
        (lambda x: profile_filters.running_extrema(x)[1], (1,)),
    ],
)
def test_shape_and_type_are_kept(function, shape, dtype):
    x = values(*shape, dtype=dtype)
    y = function(x)
    assert y.shape == x.shape
    assert y.dtype == dtype


def test_a_constant_stays_what_it_is():
    x = torch.full((3, 4, 5), 2.5, dtype=torch.float64)
    for function in (profile_filters.mean_1d, profile_filters.mean_3d, profile_filters.binomial_3d):
        assert torch.allclose(function(x), x)


@pytest.mark.parametrize(
    "function",
    [
        profile_filters.mean_1d,
        profile_filters.mean_3d,
        profile_filters.binomial_3d,
        lambda x: profile_filters.correlate(x, (-1, 2, -1)),
        profile_filters.running_extrema,
    ],
)
def test_gradients(function):
    assert gradcheck(function, values(3, 3, 4).requires_grad_())


def test_gradient_by_the_kernel():
    kernel = torch.tensor([0.3, -1.0, 0.2], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda k: profile_filters.correlate(values(2, 5), k), kernel)
