"""Angles of fitted tracks: twins in space, stated derivatives against autograd, vertical tracks, small angles."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from diffdet.kernels import angles, scatter_angles

F64 = {"dtype": torch.float64}


def slopes(n, rows=4, seed=0, size=1.0):
    return size * torch.randn((rows, n), generator=torch.Generator().manual_seed(seed), **F64)


def falling(slope):
    """Direction of a falling muon from dx/dz, dy/dz."""
    return torch.cat([-slope, -torch.ones_like(slope[:1])])


def stated_derivative_is_that_of_the_value(function, slope):
    leaf = slope.clone().requires_grad_()
    value, derivative = function(leaf)
    (by_autograd,) = torch.autograd.grad(value.sum(), leaf)
    torch.testing.assert_close(derivative.detach(), by_autograd, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("size", [1e-6, 0.05, 1.0, 30.0])
def test_total_scatter_is_the_angle_between_the_tracks(size):
    slope = slopes(100, size=size)
    angle, _ = scatter_angles.total_scatter(slope)
    between = angles.angle_between(falling(slope[:2]), falling(slope[2:]))
    torch.testing.assert_close(angle, between, rtol=1e-9, atol=1e-15)
    stated_derivative_is_that_of_the_value(scatter_angles.total_scatter, slope)


def test_total_scatter_beyond_a_right_angle():
    slope = torch.tensor([[2.0], [0.0], [-3.0], [0.0]], **F64)
    angle, _ = scatter_angles.total_scatter(slope)
    assert angle.item() == pytest.approx(math.atan(2) + math.atan(3), rel=1e-12)


@pytest.mark.parametrize("kink", [1e-7, 1e-5, 1e-3])
def test_small_angles_keep_their_digits_in_float32(kink):
    """The original took acos of a rounded cosine: everything below 0.3 mrad became 0."""
    base = slopes(500, 2, size=0.3).float()
    slope = torch.cat([base, base + kink * slopes(500, 2, seed=1).float()])
    single, derivative = scatter_angles.total_scatter(slope)
    double, wide = scatter_angles.total_scatter(slope.double())
    torch.testing.assert_close(single.double(), double, rtol=3e-6, atol=1e-12)
    torch.testing.assert_close(derivative.double(), wide, rtol=0, atol=2e-5)
    # The derivative has the size of a direction cosine, however small the angle.
    assert (derivative.abs().amax(0)[single > 0] > 0.3).all()


def test_no_scatter_has_angle_and_derivative_zero():
    slope = slopes(3, 2).repeat(2, 1).requires_grad_()
    angle, derivative = scatter_angles.total_scatter(slope)
    assert not angle.any()
    assert not derivative.any()
    (gradient,) = torch.autograd.grad(angle.sum() + derivative.sum(), slope)
    assert gradient.isfinite().all()


def test_polar_angle_and_azimuth_are_those_of_the_direction():
    slope = slopes(200, 2, size=0.7)
    theta, phi = angles.polar_from_direction(falling(slope))
    torch.testing.assert_close(scatter_angles.polar(slope)[0], theta, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(scatter_angles.azimuth(slope)[0], phi, rtol=1e-12, atol=1e-14)
    projected = torch.stack(angles.projected_from_polar(theta, phi))
    torch.testing.assert_close(scatter_angles.projected(slope)[0], projected, rtol=1e-12, atol=1e-14)
    for function in (scatter_angles.polar, scatter_angles.azimuth):
        stated_derivative_is_that_of_the_value(function, slope)
    leaf = slope.clone().requires_grad_()
    value, derivative = scatter_angles.projected(leaf)
    torch.testing.assert_close(derivative, torch.autograd.grad(value.sum(), leaf)[0], rtol=1e-10, atol=0)


def test_vertical_tracks_have_finite_angles_and_derivatives(dtype):
    slope = torch.zeros((2, 3), dtype=dtype, requires_grad=True)
    theta, by_theta = scatter_angles.polar(slope)
    phi, by_phi = scatter_angles.azimuth(slope)
    assert theta.tolist() == phi.tolist() == [0, 0, 0]
    # a vertical track is as uncertain in theta as in one projection, and has no azimuth to be uncertain of
    assert by_theta.tolist() == [[1, 1, 1], [0, 0, 0]]
    assert not by_phi.any()
    total = theta.sum() + phi.sum() + by_theta.sum() + by_phi.sum()
    assert torch.autograd.grad(total, slope)[0].isfinite().all()


def test_azimuth_never_is_a_full_turn(dtype):
    slope = torch.tensor([[-1.0, -1.0, -1.0], [1e-30, 1e-9, 0.0]], dtype=dtype)
    phi, _ = scatter_angles.azimuth(slope)
    assert ((phi >= 0) & (phi < 2 * math.pi)).all()


def test_gradients_of_values_and_of_derivatives():
    assert gradcheck(scatter_angles.total_scatter, slopes(3).requires_grad_())
    for function in (scatter_angles.polar, scatter_angles.azimuth, scatter_angles.projected):
        assert gradcheck(function, slopes(3, 2).requires_grad_())


@pytest.mark.parametrize("n", [0, 1])
def test_few_muons(n, dtype):
    slope = slopes(n).to(dtype)
    for function, rows in (
        (scatter_angles.total_scatter, 4),
        (scatter_angles.polar, 2),
        (scatter_angles.azimuth, 2),
        (scatter_angles.projected, 2),
    ):
        value, derivative = function(slope[:rows])
        assert value.shape[-1] == n
        assert derivative.shape == (rows, n)
        assert value.dtype == derivative.dtype == dtype
