"""Flight through a slab of voxels: a scalar twin, exact sums, and the physical correlation."""

import math

import pytest
import torch

from diffdet.kernels import scattering, transport

A, B = scattering.SCATTER_COEF_A, scattering.SCATTER_COEF_B
SLAB = {"top": 0.8, "thickness": 0.1, "size": 0.1}


def muons(n, seed=0, dtype=torch.float64, max_theta=1.0):
    draw = torch.rand((4, n), generator=torch.Generator().manual_seed(seed), dtype=dtype)
    theta, phi = max_theta * draw[0], 2 * math.pi * draw[1]
    direction = torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), -theta.cos()])
    # a tenth of the muons outside the footprint of 1 m x 0.7 m
    xyz = torch.stack([1.1 * draw[2] - 0.05, 0.8 * draw[3] - 0.05, torch.full_like(theta, 0.83)])
    return xyz, direction


def layout(dtype=torch.float64):
    """7 of 10 x 7 voxels of 0.1 m are lead, the others beryllium; 1/X0, 1/m."""
    cells = torch.full((10, 7), 1 / 0.3528, dtype=dtype)
    cells[5, :] = 1 / 0.005612
    return cells


def bordered():
    return transport.with_border(layout())


def highland(n):
    return n * (1 + B * math.log(n)) ** 2 if n > 0 else 0.0


def crossed_by_hand(xyz, u, beta_p, n0, normals, per_length, n_cells):
    """One muon, one cell after the other, with vectors written out."""
    x, y, z = xyz
    ux, uy, uz = u
    x, y = x + ux / uz * (SLAB["top"] - z), y + uy / uz * (SLAB["top"] - z)
    length = SLAB["thickness"] / -uz
    powers, arms, n = [], [], n0
    for k in range(n_cells):
        depth = (k + 0.5) / n_cells * SLAB["thickness"]
        ix, iy = math.floor((x - ux / uz * depth) / SLAB["size"]), math.floor((y - uy / uz * depth) / SLAB["size"])
        inside = 0 <= ix < per_length.shape[0] and 0 <= iy < per_length.shape[1]
        step = float(per_length[ix, iy]) * length / n_cells if inside else 0.0
        powers.append(highland(n + step) - highland(n))
        arms.append((1 - (k + 0.5) / n_cells) * length)
        n += step
    variance = sum(powers)
    mean = sum(p * a for p, a in zip(powers, arms, strict=True)) / variance if variance else length / 2
    around = sum(p * (a - mean) ** 2 for p, a in zip(powers, arms, strict=True)) / variance if variance else 0.0
    spread = math.sqrt(around + (length / n_cells) ** 2 / 12)
    width = A / beta_p * math.sqrt(variance)
    angle = [width * normals[1], width * normals[3]]
    shift = [width * (mean * normals[2 * k + 1] + spread * normals[2 * k]) for k in range(2)]
    w = (ux / (1 - uz), uy / (1 - uz), -1.0)
    e1 = (1 - ux * w[0], -ux * w[1], -ux * w[2])
    e2 = (-uy * w[0], 1 - uy * w[1], -uy * w[2])
    turned = [c + math.tan(angle[0]) * p + math.tan(angle[1]) * q for c, p, q in zip(u, e1, e2, strict=True)]
    norm = math.sqrt(sum(c * c for c in turned))
    turned = [c / norm for c in turned]
    end = [
        start + c * length + shift[0] * p + shift[1] * q
        for start, c, p, q in zip((x, y, SLAB["top"]), u, e1, e2, strict=True)
    ]
    back = (end[2] - (SLAB["top"] - SLAB["thickness"])) / turned[2]
    return [end[0] - turned[0] * back, end[1] - turned[1] * back], turned, n


@pytest.mark.parametrize("n_cells", [1, 10])
def test_agrees_with_one_muon_at_a_time(n_cells):
    xyz, direction = muons(60)
    normals = torch.randn((4, 60), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    n_rad = torch.rand(60, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    n_rad[::3] = 0
    beta_p = torch.full((60,), 5.0, dtype=torch.float64)
    out = transport.cross_slab(xyz, direction, beta_p, n_rad, normals, bordered(), n_cells=n_cells, **SLAB)
    for k in range(60):
        xy, turned, n = crossed_by_hand(
            xyz[:, k].tolist(),
            direction[:, k].tolist(),
            5.0,
            float(n_rad[k]),
            normals[:, k].tolist(),
            layout(),
            n_cells,
        )
        assert out.xyz[:2, k].tolist() == pytest.approx(xy, rel=0, abs=1e-12)
        assert out.direction[:, k].tolist() == pytest.approx(turned, rel=0, abs=1e-12)
        assert float(out.n_rad[k]) == pytest.approx(n, rel=1e-12)
    assert torch.equal(out.xyz[2], torch.full_like(out.xyz[2], SLAB["top"] - SLAB["thickness"]))


def test_float32_holds_positions_to_a_micrometre_and_angles_to_a_microradian():
    xyz, direction = muons(2000)
    normals = torch.randn((4, 2000), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    # whole cells are looked up alike in both types, so the comparison is of the arithmetic
    args = (
        xyz,
        direction,
        torch.full((2000,), 5.0, dtype=torch.float64),
        torch.zeros(2000, dtype=torch.float64),
        normals,
    )
    homogeneous = transport.with_border(torch.full((10, 7), 1 / 0.005612, dtype=torch.float64))
    wide = {**SLAB, "size": 1.0}
    fine = transport.cross_slab(*args, homogeneous, n_cells=10, **wide)
    coarse = transport.cross_slab(*(a.float() for a in args), homogeneous.float(), n_cells=10, **wide)
    same = (fine.n_rad - coarse.n_rad).abs() < 1e-3
    assert same.double().mean() > 0.99
    assert ((fine.xyz - coarse.xyz).abs().amax(0) < 1e-6)[same].all()
    assert ((fine.direction - coarse.direction).abs().amax(0) < 1e-6)[same].all()


@pytest.mark.parametrize("n_cells", [1, 3, 20])
def test_variance_of_a_path_is_the_increment_of_highland_however_it_is_cut(n_cells):
    total = torch.tensor([1e-4, 0.3, 18.0], dtype=torch.float64)
    before = torch.tensor([0.0, 2.0, 0.5], dtype=torch.float64)
    path = scattering.path_scattering((total / n_cells).expand(n_cells, 3), before, torch.ones(3, dtype=torch.float64))
    expected = scattering.highland_variance(before + total) - scattering.highland_variance(before)
    torch.testing.assert_close(path.variance, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(path.n_rad, before + total, rtol=1e-14, atol=0)


def test_where_nothing_scatters_all_is_finite_and_the_variance_zero():
    path = scattering.path_scattering(torch.zeros(10, 2), torch.zeros(2), torch.tensor([0.1, 0.2]))
    assert path.variance.tolist() == [0.0, 0.0]
    assert torch.isfinite(torch.stack(path.moments)).all()


def test_lever_arms_of_a_homogeneous_path_are_the_textbook_ones_but_for_the_logarithm():
    """Without its logarithm Highland's variance is proportional to n; deep in the material it nearly is."""
    before, length = torch.tensor([50.0], dtype=torch.float64), torch.tensor([0.1], dtype=torch.float64)
    path = scattering.path_scattering(torch.full((10, 1), 0.01, dtype=torch.float64), before, length)
    assert float(path.moments.mean) == pytest.approx(0.05, rel=1e-4)
    assert float(path.moments.spread) == pytest.approx(0.1 / math.sqrt(12), rel=1e-4)


def test_lever_arm_points_at_the_only_scatterer():
    cells = torch.zeros(10, 1, dtype=torch.float64)
    cells[2] = 1.0
    path = scattering.path_scattering(cells, torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    assert float(path.moments.mean) == pytest.approx(0.75, abs=1e-12)
    assert float(path.moments.spread) == pytest.approx(0.1 / math.sqrt(12), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_transverse_vectors_keep_length_and_are_at_right_angles(dtype):
    _, direction = muons(500, dtype=dtype, max_theta=1.57)
    direction[:, 0] = torch.tensor([0.0, 0.0, -1.0], dtype=dtype)
    components = torch.randn((2, 3, 500), generator=torch.Generator().manual_seed(3), dtype=dtype)
    xy, z = scattering.transverse_vectors(direction, components)
    vectors = torch.cat([xy, z[None]])
    tolerance = {"rtol": 0, "atol": 10 * torch.finfo(dtype).eps}
    torch.testing.assert_close((vectors * direction[:, None]).sum(0), torch.zeros_like(z), **tolerance)
    torch.testing.assert_close((vectors**2).sum(0), (components**2).sum(0), rtol=20 * torch.finfo(dtype).eps, atol=0)
    assert torch.equal(xy[:, :, 0], components[:, :, 0])


def test_muons_outside_the_footprint_fly_straight():
    xyz, direction = muons(400)
    normals = torch.randn((4, 400), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    xyz[0] += 5.0
    beta_p, n_rad = torch.full((400,), 5.0, dtype=torch.float64), torch.zeros(400, dtype=torch.float64)
    out = transport.cross_slab(xyz, direction, beta_p, n_rad, normals, bordered(), n_cells=10, **SLAB)
    torch.testing.assert_close(out.direction, direction, rtol=0, atol=1e-15)
    straight = transport.fall_to(xyz, direction, SLAB["top"] - SLAB["thickness"])
    torch.testing.assert_close(out.xyz, straight, rtol=0, atol=1e-12)
    assert not out.n_rad.any()


def test_a_muon_without_position_stays_without_position_and_disturbs_no_other():
    xyz, direction = muons(3)
    xyz[:, 1] = torch.nan
    normals = torch.zeros((4, 3), dtype=torch.float64)
    beta_p, n_rad = torch.full((3,), 5.0, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    out = transport.cross_slab(xyz, direction, beta_p, n_rad, normals, bordered(), n_cells=4, **SLAB)
    assert torch.isnan(out.xyz[:2, 1]).all()
    assert torch.isfinite(out.xyz[:, [0, 2]]).all()


def test_displacement_and_deflection_are_correlated_by_plus_half_root_three():
    """40,000 muons, homogeneous lead: the standard error of the correlation is (1 - r^2) / 200 = 0.00125; 5 of them."""
    n = 40_000
    down = torch.zeros((3, n), dtype=torch.float64)
    down[2] = -1
    xyz = torch.zeros((3, n), dtype=torch.float64)
    xyz[2] = SLAB["top"]
    normals = torch.randn((4, n), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    beta_p, n_rad = torch.full((n,), 5.0, dtype=torch.float64), torch.full((n,), 1.0, dtype=torch.float64)
    lead = transport.with_border(torch.full((4, 4), 1 / 0.005612, dtype=torch.float64))
    out = transport.cross_slab(xyz + 0.2, down, beta_p, n_rad, normals, lead, n_cells=10, **SLAB)
    pair = torch.stack([out.xyz[0] - 0.2, out.direction[0]])
    assert float(torch.corrcoef(pair)[0, 1]) == pytest.approx(math.sqrt(3) / 2, abs=0.0063)
