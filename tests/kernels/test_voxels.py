"""Voxel grids: edges to the last digit, rounding at edges, promised orders, and Gaussian mass in the tails."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.autograd import gradcheck

from diffdet.kernels import voxels

LOW = torch.tensor([0.0, 0.0, 0.2])
COUNTS = (10, 10, 6)


def test_edges_are_rounded_once():
    assert voxels.edges(0.2, 6, 0.1, dtype=torch.float64).tolist() == [0.2 + 0.1 * i for i in range(7)]
    single = voxels.edges(0.0, 1000, 0.1, dtype=torch.float32)
    assert torch.equal(single, torch.tensor([0.1 * i for i in range(1001)]))
    assert voxels.centres(0.2, 2, 0.1, dtype=torch.float64).tolist() == pytest.approx([0.25, 0.35])
    assert voxels.edges(0.0, 0, 0.1).shape == (1,)


def test_a_block_that_starts_off_the_grid_has_all_its_edges():
    # The published package rounds z/size: 0.75 to 1.05 with voxels of 0.1 then has two edges for three layers.
    assert voxels.edges(0.75, 3, 0.1, dtype=torch.float64).tolist() == pytest.approx([0.75, 0.85, 0.95, 1.05])


def test_positions_on_edges_belong_to_the_voxel_above():
    # The published package answers 0 and 4 in z, because 0.3 - 0.2 is less than 0.1 in float32.
    xyz = torch.tensor([[0.5, 0.2, 0.3], [0.3, 0.8, 0.7]]).T
    before = xyz.clone()
    assert voxels.index(xyz, LOW, 0.1, COUNTS).T.tolist() == [[5, 2, 1], [3, 8, 5]]
    assert torch.equal(xyz, before)


def test_the_grid_is_closed_and_outside_is_told():
    xyz = torch.tensor([[1.0, 1.0, 0.8], [0.0, 0.0, 0.2], [-0.01, 0.5, 0.5], [0.5, 0.5, 0.81], [0.5, 1.2, 0.5]]).T
    found = voxels.index(xyz, LOW, 0.1, COUNTS).T.tolist()
    assert found[0] == [9, 9, 5]
    assert found[1] == [0, 0, 0]
    assert found[2][0] == -1
    assert found[3][2] == 6
    assert voxels.inside(xyz, LOW, 0.1, COUNTS).tolist() == [True, True, False, False, False]


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 5), st.floats(0.01, 0.99))
def test_every_point_of_a_voxel_finds_it(ix, iy, iz, fraction):
    position = LOW + 0.1 * (torch.tensor([ix, iy, iz]) + fraction)
    assert voxels.index(position, LOW, 0.1, COUNTS).tolist() == [ix, iy, iz]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.05, 0.1, 1 / 3])
def test_low_corners_find_their_own_voxel(size, dtype):
    low, counts = (0.0, 0.0, 0.75), (7, 5, 9)
    corners = voxels.corner_table(low, counts, size, dtype=dtype)
    found = voxels.index(corners.T, torch.tensor(low, dtype=dtype), size, counts).T
    wanted = [[ix, iy, iz] for ix in range(7) for iy in range(5) for iz in range(9)]
    assert found.tolist() == wanted
    middle = voxels.corner_table(low, counts, size, offset=0.5, dtype=dtype)
    torch.testing.assert_close(middle - corners, torch.full_like(corners, size / 2), rtol=0, atol=1e-6)


def test_empty_and_batched_positions():
    assert voxels.index(torch.empty(3, 0), LOW, 0.1, COUNTS).shape == (3, 0)
    batch = torch.full((3, 2, 4), 0.45)
    assert voxels.index(batch, LOW, 0.1, COUNTS).shape == (3, 2, 4)
    assert voxels.inside(batch, LOW, 0.1, COUNTS).shape == (2, 4)


def test_mass_equals_the_slow_twin_and_sums_to_one():
    generator = torch.Generator().manual_seed(13)
    mean = torch.rand(30, generator=generator, dtype=torch.float64) * 2 - 0.5
    sigma = torch.rand(30, generator=generator, dtype=torch.float64) + 0.01
    edges = voxels.edges(0.0, 10, 0.1, dtype=torch.float64)
    mass = voxels.interval_mass(mean, sigma, edges)
    assert mass.shape == (10, 30)
    for i in range(10):
        for k in range(30):
            cdf = [
                0.5 * (1 + math.erf((e - mean[k].item()) / (sigma[k].item() * math.sqrt(2)))) for e in edges[i : i + 2]
            ]
            assert mass[i, k].item() == pytest.approx(cdf[1] - cdf[0], abs=1e-14)
    wide = voxels.interval_mass(mean, sigma, voxels.edges(-50.0, 1000, 0.1, dtype=torch.float64))
    torch.testing.assert_close(wide.sum(0), torch.ones_like(mean))


@pytest.mark.parametrize("width", [0.01, 0.1, 1.0])
def test_float32_mass_is_right_in_both_tails(width):
    # Interval [t, t + width] in units of sigma, up to 8 sigma away; the reference is SciPy's, in float64.
    t = torch.linspace(-8, 8, 801)
    edges = torch.tensor([0.0, width])
    mass = voxels.interval_mass(-t, torch.ones_like(t), edges)[0].double()
    low, high = t.double(), t.double() + edges[1].double()
    upper = torch.as_tensor(stats.norm.sf(low) - stats.norm.sf(high))
    lower = torch.as_tensor(stats.norm.cdf(high) - stats.norm.cdf(low))
    exact = torch.where(low > 0, upper, lower)
    assert ((mass - exact).abs() / exact).max() < 1e-4


def test_mass_is_symmetric_and_shifts():
    mean = torch.tensor([0.3, 5.0, -2.0], dtype=torch.float64)
    sigma = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    edges = torch.tensor([-1.0, 0.0, 0.5, 4.0], dtype=torch.float64)
    mass = voxels.interval_mass(mean, sigma, edges)
    torch.testing.assert_close(voxels.interval_mass(-mean, sigma, -edges.flip(0)), mass.flip(0))
    torch.testing.assert_close(voxels.interval_mass(mean + 7, sigma, edges + 7), mass)


def test_limits_of_the_width():
    mean, edges = torch.tensor([0.25]), torch.tensor([0.0, 0.2, 0.4])
    assert voxels.interval_mass(mean, torch.tensor([1e-30]), edges).squeeze().tolist() == [0, 1]
    assert voxels.interval_mass(mean, torch.tensor([math.inf]), edges).squeeze().tolist() == [0, 0]


def test_gradients_also_where_an_edge_meets_the_mean():
    mean = torch.tensor([0.0, 0.5, 3.0, 0.1], dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor([1.0, 1.0, 1.0, 0.3], dtype=torch.float64, requires_grad=True)
    edges = torch.linspace(-5, 5, 11, dtype=torch.float64, requires_grad=True)
    assert gradcheck(voxels.interval_mass, (mean, sigma, edges))


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mass_follows_shape_and_dtype(shape, dtype):
    mass = voxels.interval_mass(
        torch.zeros(shape, dtype=dtype), torch.ones(shape, dtype=dtype), torch.ones(4, dtype=dtype)
    )
    assert mass.shape == (3, *shape)
    assert mass.dtype == dtype
