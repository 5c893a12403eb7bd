"""Helices and planes: closed form against stepping, radius, turns."""

from __future__ import annotations

import math

import pytest
import torch

from diffdet.kernels import helix


def test_radius_of_a_slow_electron_in_the_field_of_the_pixel_detector():
    # 2.2 mm per MeV at 1.5 T
    assert helix.radius(torch.tensor(1e-3), 1.5).item() == pytest.approx(2.224e-3, rel=1e-3)


def crossings_by_stepping(start, azimuth, dip, r, sense, psi, distance, n_turns):
    """Slow twin: follow the helix in small steps and look for changes of side."""
    n = 200_000 * n_turns
    turned = torch.linspace(0, 2 * math.pi * n_turns, n, dtype=torch.float64)
    centre = (start[0] - sense * r * math.sin(azimuth), start[1] + sense * r * math.cos(azimuth))
    first = math.atan2(start[1] - centre[1], start[0] - centre[0])
    angle = first + sense * turned
    x, y = centre[0] + r * torch.cos(angle), centre[1] + r * torch.sin(angle)
    side = math.cos(psi) * x + math.sin(psi) * y - distance
    rows = ((side[1:] > 0) != (side[:-1] > 0)).nonzero()[:, 0]
    along = math.cos(psi) * y - math.sin(psi) * x
    return turned[rows], along[rows], start[2] + r * dip * turned[rows]


@pytest.mark.parametrize("sense", [1.0, -1.0])
@pytest.mark.parametrize(("azimuth", "psi"), [(0.3, 0.0), (2.5, 1.9), (-1.0, 4.2)])
def test_crossings_are_those_that_stepping_finds(sense, azimuth, psi):
    start, dip, r, distance = (1e-3, -5e-4, 2e-3), 0.4, 0.012, 0.014
    wanted = crossings_by_stepping(start, azimuth, dip, r, sense, psi, distance, 2)
    one = {"dtype": torch.float64}
    found = helix.plane_crossings(
        torch.tensor(start, **one)[:, None],
        torch.tensor([azimuth], **one),
        torch.tensor([dip], **one),
        torch.tensor([r], **one),
        torch.tensor([sense], **one),
        torch.tensor([psi], **one),
        torch.tensor([distance], **one),
        2,
    )
    assert bool(found.hit.all()) == (len(wanted[0]) > 0)
    order = found.turned[found.hit].argsort()
    for name, value in zip(("turned", "along", "z"), wanted, strict=True):
        assert torch.allclose(getattr(found, name)[found.hit][order], value, atol=1e-4)


def test_direction_is_a_unit_vector_and_points_along_the_motion(dtype):
    generator = torch.Generator().manual_seed(1)
    n = 50
    angle = 6 * torch.rand(n, generator=generator, dtype=dtype)
    r = 0.01 + 0.01 * torch.rand(n, generator=generator, dtype=dtype)
    found = helix.plane_crossings(
        torch.zeros(3, n, dtype=dtype),
        angle,
        torch.randn(n, generator=generator, dtype=dtype),
        r,
        torch.ones(n, dtype=dtype),
        torch.tensor([0.0, 1.0], dtype=dtype),
        torch.tensor([0.014, 0.014], dtype=dtype),
        1,
    )
    length = found.normal**2 + found.tangent**2 + found.axial**2
    assert torch.allclose(length[found.hit], torch.ones_like(length[found.hit]), atol=1e-4)
    # whoever starts inside goes out first
    first = found.turned[0].argmin(0)
    outwards = found.normal[0].gather(0, first[None])[0]
    assert (outwards[found.hit[0, 0]] >= 0).all()
