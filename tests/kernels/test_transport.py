"""Flight through slabs: the voxels that a path meets, extreme muons, and independence of batches. See test_cross_slab
for the slab itself."""

import math

import pytest
import torch

from diffdet.kernels import scattering, transport

F64 = {"dtype": torch.float64}
SLAB = {"top": 0.8, "thickness": 0.1, "size": 0.1, "n_cells": 10}


def beam(n, seed=0, dtype=torch.float64, max_theta=1.2):
    draw = torch.rand((4, n), generator=torch.Generator().manual_seed(seed), **F64)
    theta, phi = max_theta * draw[0], 2 * math.pi * draw[1]
    direction = torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), -theta.cos()])
    xyz = torch.stack([1.2 * draw[2] - 0.1, 0.9 * draw[3] - 0.1, torch.full_like(theta, 0.9)])
    return xyz.to(dtype), direction.to(dtype)


def crossed(n, *, dtype=torch.float64, beta_p=5.0, per_length=None, seed=0, part=slice(None), **given):
    xyz, direction = beam(n, seed, dtype, **given)
    cells = torch.full((10, 7), 1 / 0.005612, dtype=dtype) if per_length is None else per_length
    normals = torch.randn((4, n), generator=torch.Generator().manual_seed(seed + 1), dtype=dtype)
    rows = (xyz, direction, torch.full((n,), beta_p, dtype=dtype), torch.zeros(n, dtype=dtype), normals)
    return transport.cross_slab(*(r[..., part].contiguous() for r in rows), transport.with_border(cells), **SLAB)


def test_falling_to_a_plane_and_back():
    xyz, direction = beam(100)
    low = transport.fall_to(xyz, direction, 0.2)
    torch.testing.assert_close(low[2], torch.full((100,), 0.2, **F64))
    along = low - xyz
    torch.testing.assert_close(along / along.norm(dim=0), direction)
    torch.testing.assert_close(transport.fall_to(low, direction, xyz[2]), xyz, rtol=0, atol=1e-12)


def test_voxels_along_a_path_are_those_at_the_middles_of_the_cells():
    per_length = torch.rand((10, 7), generator=torch.Generator().manual_seed(4), **F64)
    xyz, direction = beam(300)
    slope = direction[:2] / -direction[2]
    found = transport.sample_radiation_lengths(xyz[:2], slope, 0.1, transport.with_border(per_length), 0.1, 5)
    for m in range(300):
        for cell in range(5):
            depth = (cell + 0.5) / 5 * 0.1
            ix, iy = (math.floor((xyz[k, m].item() + slope[k, m].item() * depth) / 0.1) for k in range(2))
            inside = 0 <= ix < 10 and 0 <= iy < 7
            assert found[cell, m].item() == (per_length[ix, iy].item() if inside else 0.0)


def test_far_and_undefined_positions_find_vacuum():
    xy = torch.tensor([[-1e30, 1e30, math.nan, math.inf, -math.inf, -1e-9, 1.0], [0.35] * 7], **F64)
    found = transport.sample_radiation_lengths(
        xy, torch.zeros_like(xy), 0.1, transport.with_border(torch.ones((10, 7), **F64)), 0.1, 2
    )
    assert not found.any()


def test_results_do_not_depend_on_the_batch(dtype):
    whole = crossed(1000, dtype=dtype)
    for step in (1, 7, 64):
        pieces = [crossed(1000, dtype=dtype, part=slice(k, k + step)) for k in range(0, 1000 if step > 1 else 20, step)]
        for k, row in enumerate(whole):
            joined = torch.cat([piece[k] for piece in pieces], -1)
            assert torch.equal(joined, row[..., : joined.shape[-1]])


@pytest.mark.parametrize("beta_p", [1e-3, 1e-2, 0.1])
def test_slow_muons_are_deflected_far_but_stay_numbers(beta_p, dtype):
    out = crossed(500, dtype=dtype, beta_p=beta_p)
    for row in out:
        assert row.isfinite().all()
    torch.testing.assert_close(out.direction.norm(dim=0), torch.ones(500, dtype=dtype), rtol=1e-5, atol=0)
    if beta_p < 0.01:
        assert (out.direction[2] > 0).any()  # for the caller to remove


def test_fast_muons_fly_straight():
    out = crossed(200, beta_p=1e9)
    xyz, direction = beam(200)
    torch.testing.assert_close(out.direction, direction, rtol=0, atol=1e-9)
    torch.testing.assert_close(out.xyz, transport.fall_to(xyz, direction, 0.7), rtol=0, atol=1e-9)


def test_nearly_horizontal_muons_leave_sideways_without_trouble(dtype):
    """cos theta = 1e-6: the original did not finish."""
    n = 100
    direction = torch.tensor([[1.0], [0.0], [-1e-6]], dtype=dtype).expand(3, n).clone()
    xyz = torch.tensor([[0.5], [0.35], [0.8]], dtype=dtype).expand(3, n).clone()
    normals = torch.randn((4, n), generator=torch.Generator().manual_seed(1), dtype=dtype)
    bordered = transport.with_border(torch.full((10, 7), 1 / 0.3528, dtype=dtype))
    ones, zeros = torch.full((n,), 5.0, dtype=dtype), torch.zeros(n, dtype=dtype)
    out = transport.cross_slab(xyz, direction, ones, zeros, normals, bordered, **SLAB)
    assert out.xyz.isfinite().all()
    assert out.direction.isfinite().all()


def test_radiation_lengths_of_a_vertical_path():
    xyz = torch.tensor([[0.55], [0.35], [0.9]], **F64)
    direction = torch.tensor([[0.0], [0.0], [-1.0]], **F64)
    cells = torch.full((10, 7), 2.0, **F64)
    five = torch.full((1,), 5.0, **F64)
    out = transport.cross_slab(
        xyz, direction, five, five, torch.zeros((4, 1), **F64), transport.with_border(cells), **SLAB
    )
    assert out.n_rad.item() == pytest.approx(5 + 0.2, rel=1e-12)
    assert out.xyz[:, 0].tolist() == pytest.approx([0.55, 0.35, 0.7], abs=1e-12)


def test_spread_behind_a_layer_is_highlands_whatever_the_inclination():
    """40,000 muons at 0, 0.6 and 1.2 rad through lead: a width from both planes is known to 0.25 %; five of them."""
    n = 40_000
    for theta in (0.0, 0.6, 1.2):
        u = torch.tensor([math.sin(theta) * 0.6, math.sin(theta) * 0.8, -math.cos(theta)], **F64)
        direction = u[:, None].expand(3, n)
        xyz = torch.tensor([50.0, 50.0, 0.8], **F64)[:, None].expand(3, n)
        normals = torch.randn((4, n), generator=torch.Generator().manual_seed(7), **F64)
        lead = transport.with_border(torch.full((100, 100), 1 / 0.005612, **F64))
        wide = {**SLAB, "size": 1.0}
        out = transport.cross_slab(
            xyz, direction, torch.full((n,), 50.0, **F64), torch.zeros(n, **F64), normals, lead, **wide
        )
        e1, e2 = scattering.transverse_frame(direction)
        planes = torch.stack([(out.direction * e).sum(0) for e in (e1, e2)])
        n_rad = torch.tensor(0.1 / math.cos(theta) / 0.005612, **F64)
        expected = scattering.highland_width(n_rad, torch.tensor(50.0, **F64)).item()
        assert planes.std().item() == pytest.approx(expected, rel=0.0125)
        # displacement at right angles to the track, extrapolated along the new direction: L width / sqrt 3
        straight = transport.fall_to(xyz, direction, 0.7)
        across = torch.stack([((out.xyz - straight) * e).sum(0) for e in (e1, e2)])
        length = 0.1 / math.cos(theta)
        # the logarithm weights the end of the path a little more: 2 % less than L / sqrt 3
        assert across.std().item() == pytest.approx(expected * length / math.sqrt(3), rel=0.05)
