"""Angles and directions: reference values, round trips, edges at the vertical, and small angles in float32."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from diffdet.kernels import angles

THETAS = st.floats(0.0, 1.5)
PHIS = st.floats(0.0, 6.28)


def tensor(*values, **kwargs):
    return torch.tensor(values, dtype=torch.float64, **kwargs)


def test_projected_angles_have_the_reference_values():
    # The published package's projected angles of theta 0.5 at phi 1 and 4.
    theta_x, theta_y = angles.projected_from_polar(tensor(0.5, 0.5), tensor(1.0, 4.0))
    torch.testing.assert_close(theta_x, tensor(0.2870184, -0.3429745), rtol=0, atol=1e-7)
    torch.testing.assert_close(theta_y, tensor(0.4308892, -0.3920413), rtol=0, atol=1e-7)


def test_projected_increment_has_the_reference_value():
    theta_x, theta_y = angles.projected_from_polar(tensor(0.5), tensor(1.0))
    theta, phi = angles.polar_from_projected(theta_x + 0.01, theta_y - 0.02)
    assert theta.item() == pytest.approx(0.4892708, abs=1e-7)
    assert phi.item() == pytest.approx(0.9583930, abs=1e-6)


def test_two_hypotheses_have_the_reference_values():
    # (0.05, 0.1) -> (0.05, 3.2) passes through the vertical; (0.3, 6.2) -> (0.3, 0.1) turns across 2 pi.
    dtheta, dphi = angles.scatter_increments(tensor(0.05, 0.3), tensor(0.1, 6.2), tensor(0.05, 0.3), tensor(3.2, 0.1))
    torch.testing.assert_close(dtheta, tensor(0.1, 0.0), rtol=0, atol=1e-12)
    torch.testing.assert_close(dphi, tensor(0.0415926, 0.1831853), rtol=0, atol=1e-6)


@given(THETAS, PHIS, THETAS, PHIS)
def test_increments_equal_the_slow_twin(theta_in, phi_in, theta_out, phi_out):
    first = (abs(theta_in - theta_out), min(abs(phi_in - phi_out), 2 * math.pi - abs(phi_in - phi_out)))
    second = (theta_in + theta_out, math.pi - first[1])
    wanted = second if second[0] ** 2 + second[1] ** 2 < first[0] ** 2 + first[1] ** 2 else first
    got = angles.scatter_increments(tensor(theta_in), tensor(phi_in), tensor(theta_out), tensor(phi_out))
    assert math.hypot(got[0].item(), got[1].item()) == pytest.approx(math.hypot(*wanted), abs=1e-12)


@given(st.floats(1e-6, 1.5), PHIS)
def test_every_description_of_a_direction_leads_back(theta, phi):
    t, f = tensor(theta), tensor(phi)
    direction = angles.direction_from_polar(t, f)
    slope = angles.slope_from_polar(t, f)
    assert torch.linalg.vector_norm(direction, dim=0).item() == pytest.approx(1, abs=1e-14)
    torch.testing.assert_close(angles.slope_from_direction(direction), slope)
    torch.testing.assert_close(angles.direction_from_slope(slope), direction)
    for back in (
        angles.polar_from_direction(direction),
        angles.polar_from_slope(slope),
        angles.polar_from_projected(*angles.projected_from_polar(t, f)),
    ):
        assert back[0].item() == pytest.approx(theta, rel=1e-9, abs=1e-12)
        assert math.cos(back[1].item() - phi) == pytest.approx(1, abs=1e-12)


def test_slope_sign_follows_the_movement():
    # Falling towards +x: u_x > 0, and so are slope and projected angle.
    direction = angles.direction_from_polar(tensor(0.3), tensor(0.0))
    assert direction[0] > 0 > direction[2]
    assert angles.slope_from_direction(direction)[0] > 0
    assert angles.projected_from_polar(tensor(0.3), tensor(0.0))[0] > 0


def test_vertical_track_has_azimuth_zero_and_gradient_zero():
    for function, size in [(angles.polar_from_slope, 2), (angles.polar_from_direction, 3)]:
        vector = torch.zeros(size, 1, dtype=torch.float64)
        if size == 3:
            vector[2] = -1
        vector.requires_grad_()
        theta, phi = function(vector)
        assert theta.item() == phi.item() == 0
        assert torch.autograd.grad((theta + phi).sum(), vector)[0].isfinite().all()
    projected = tensor(0.0).requires_grad_()
    theta, phi = angles.polar_from_projected(projected, projected)
    assert theta.item() == phi.item() == 0
    assert torch.autograd.grad((theta + phi).sum(), projected)[0].item() == 0


def test_muons_that_do_not_fall_have_no_projected_angles():
    assert torch.cat(angles.projected_from_polar(tensor(math.pi / 2, 2.0), tensor(0.3, 0.3))).isnan().all()
    assert torch.cat(angles.polar_from_projected(tensor(math.pi / 2, 0.1), tensor(0.1, -1.6))).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wrap_stays_below_two_pi(dtype):
    phi = torch.tensor([-1e-9, -1e-30, 0.0, 2 * math.pi, -2 * math.pi, 7.0, -7.0, 1e3], dtype=dtype)
    wrapped = angles.wrap(phi)
    assert wrapped.dtype == dtype
    assert ((wrapped >= 0) & (wrapped < torch.tensor(2 * math.pi, dtype=dtype))).all()
    torch.testing.assert_close(torch.cos(wrapped), torch.cos(phi), rtol=0, atol=1e-4)


@pytest.mark.parametrize("angle", [0.0, 1e-6, 1e-4, 1e-2, 1.0, math.pi - 1e-3, math.pi])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_angle_between_is_accurate_at_every_size(angle, dtype):
    # Rotate one direction by a known angle about an axis normal to it, in float64; only then round to the dtype.
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(3, 500, generator=generator, dtype=torch.float64)
    a = a / torch.linalg.vector_norm(a, dim=0)
    axis = torch.linalg.cross(a, torch.randn(3, 500, generator=generator, dtype=torch.float64), dim=0)
    normal = axis / torch.linalg.vector_norm(axis, dim=0)
    b = math.cos(angle) * a + math.sin(angle) * torch.linalg.cross(normal, a, dim=0)
    found = angles.angle_between(a.to(dtype), b.to(dtype))
    tolerance = 4e-7 if dtype == torch.float32 else 1e-15
    assert (found.double() - angle).abs().max() < max(tolerance, 1e-15 * 4)


def test_angle_between_does_not_depend_on_length_or_rotation():
    generator = torch.Generator().manual_seed(4)
    a, b = torch.randn(2, 3, 50, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    reference = angles.angle_between(a, b)
    torch.testing.assert_close(angles.angle_between(3 * a, 0.2 * b), reference)
    torch.testing.assert_close(angles.angle_between(rotation @ a, rotation @ b), reference)


def test_gradients():
    theta, phi = tensor(0.3, 1.2, 0.01, requires_grad=True), tensor(0.1, 3.0, 5.5, requires_grad=True)
    slope = tensor([0.1, -0.4], [0.2, 0.0]).requires_grad_()
    a, b = tensor([0.1, 0.2], [0.3, -0.1], [-1.0, -1.0]), tensor([0.1, 0.25], [0.35, -0.1], [-1.0, -1.0])
    for function, inputs in [
        (angles.direction_from_polar, (theta, phi)),
        (angles.slope_from_polar, (theta, phi)),
        (angles.projected_from_polar, (theta, phi)),
        (angles.polar_from_projected, (theta.detach().requires_grad_(), phi.detach().mul(0.1).requires_grad_())),
        (angles.polar_from_slope, (slope,)),
        (angles.direction_from_slope, (slope,)),
        (angles.slope_from_direction, (a.requires_grad_(),)),
        (angles.polar_from_direction, (a,)),
        (angles.angle_between, (a, b.requires_grad_())),
        (angles.wrap, (phi,)),
        (angles.scatter_increments, (theta, phi, theta.detach().add(0.1), phi.detach().add(0.2))),
    ]:
        assert gradcheck(function, inputs)


def test_projected_angles_have_a_gradient_at_the_vertical():
    theta, phi = tensor(0.0, requires_grad=True), tensor(0.7, requires_grad=True)
    assert gradcheck(angles.projected_from_polar, (theta, phi))


def test_parallel_directions_have_gradient_zero():
    a = tensor([0.0], [0.6], [-0.8]).requires_grad_()
    angle = angles.angle_between(a, 2 * a.detach())
    assert angle.item() == 0
    assert torch.equal(torch.autograd.grad(angle.sum(), a)[0], torch.zeros_like(a))


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_follow_the_input(shape, dtype):
    theta = torch.full(shape, 0.2, dtype=dtype)
    direction = angles.direction_from_polar(theta, theta)
    slope = angles.slope_from_polar(theta, theta)
    assert direction.shape == (3, *shape)
    assert slope.shape == (2, *shape)
    for result in (
        *angles.polar_from_direction(direction),
        *angles.polar_from_slope(slope),
        *angles.projected_from_polar(theta, theta),
        angles.angle_between(direction, direction),
        angles.wrap(theta),
    ):
        assert result.shape == shape
        assert result.dtype == dtype
