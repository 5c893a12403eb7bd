"""Straight flight: reference values, geometry, and the derivative by the height of a plane."""

import pytest
import torch
from torch.autograd import gradcheck

from diffdet.kernels import angles, propagation


def muons(n=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    position = torch.rand(3, n, generator=generator, dtype=torch.float64)
    theta, phi = torch.rand(2, n, generator=generator, dtype=torch.float64)
    return position.to(dtype), angles.direction_from_polar(theta, 6 * phi).to(dtype)


def test_reference_values():
    # 0.1 m along the track from (0.1, 0.2, 1) at theta 0.5, phi 1; then 0.1 m down.
    start = torch.tensor([0.1, 0.2, 1.0], dtype=torch.float64)
    direction = angles.direction_from_polar(torch.tensor(0.5).double(), torch.tensor(1.0).double())
    flown = propagation.along(start, direction, 0.1)
    wanted = torch.tensor([0.1259035, 0.2403423, 0.9122418], dtype=torch.float64)
    torch.testing.assert_close(flown, wanted, rtol=0, atol=2e-7)
    fallen = propagation.fall(flown, direction, 0.1)
    wanted = torch.tensor([0.1554203, 0.2863120, 0.8122417], dtype=torch.float64)
    torch.testing.assert_close(fallen, wanted, rtol=0, atol=2e-7)


def test_all_routes_to_a_plane_agree():
    position, direction = muons()
    z = 0.25
    there = propagation.to_plane(position, direction, z)
    assert (there[2] == z).all()
    torch.testing.assert_close(propagation.fall(position, direction, position[2] - z), there)
    torch.testing.assert_close(propagation.along(position, direction, (z - position[2]) / direction[2]), there)
    slope = angles.slope_from_direction(direction)
    planes = propagation.at_planes(position[:2], slope, position[2], torch.tensor([z, 0.1], dtype=torch.float64))
    torch.testing.assert_close(planes[0], there[:2])


def test_flight_does_not_turn():
    position, direction = muons()
    there = propagation.to_plane(position, direction, -1.0)
    angle = angles.angle_between(there - position, direction)
    assert angle.max() < 1e-15 * 10


def test_there_and_back():
    position, direction = muons()
    back = propagation.to_plane(propagation.to_plane(position, direction, -3.0), direction, position[2])
    torch.testing.assert_close(back, position)


def test_moving_a_plane_moves_the_hit_along_the_track():
    position, direction = muons(1)
    slope = angles.slope_from_direction(direction)
    z = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    x = propagation.at_planes(position[:2], slope, position[2], z)[0, 0, 0]
    assert torch.autograd.grad(x, z)[0].item() == pytest.approx(-slope[0, 0].item(), rel=1e-14)


def test_gradients():
    position, direction = (t.requires_grad_() for t in muons(3))
    z = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64, requires_grad=True)
    for function in (propagation.along, propagation.fall, propagation.to_plane):
        assert gradcheck(function, (position, direction, z))
    slope = direction[:2].detach().requires_grad_()
    assert gradcheck(propagation.at_planes, (position[:2].detach().requires_grad_(), slope, 1.0, z))


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_follow_the_input(shape, dtype):
    position = torch.zeros(3, *shape, dtype=dtype)
    direction = torch.ones(3, *shape, dtype=dtype)
    for function in (propagation.along, propagation.fall, propagation.to_plane):
        result = function(position, direction, 0.5)
        assert result.shape == position.shape
        assert result.dtype == dtype


def test_float32_agrees_with_float64():
    exact = propagation.to_plane(*muons(100), 0.1)
    single = propagation.to_plane(*muons(100, torch.float32), 0.1)
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=1e-6)
