"""Likelihood of kinks: hand-made tracks, closed forms, a slow twin, invariances, gradients."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from diffdet.core.constants import SCATTER_COEF_A, SCATTER_COEF_B
from diffdet.kernels import scatter_likelihood as sl
from diffdet.kernels.lines import Lines

F64 = {"dtype": torch.float64}
Z_REF = torch.tensor(0.9, **F64)


def tracks(position, slope, var_position=1e-8, cov=0.0, var_slope=1e-7):
    """Lines of muons at the height 0.9 m, rows (in_x, in_y, out_x, out_y)."""
    position, slope = torch.as_tensor(position, **F64), torch.as_tensor(slope, **F64)
    filled = (torch.full_like(position, value) for value in (var_position, cov, var_slope))
    return Lines(position, slope, *filled, Z_REF)


def random_tracks(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    slope = 0.3 * torch.randn(2, n, generator=generator, **F64)
    position = torch.rand(2, n, generator=generator, **F64)
    kink, shift = 0.02 * torch.randn(2, 2, n, generator=generator, **F64)
    sigma = 0.001 * (1 + torch.rand(2, 4, n, generator=generator, **F64))
    correlation = 0.8 * torch.rand(4, n, generator=generator, **F64)
    return Lines(
        torch.cat([position, position + shift]),
        torch.cat([slope, slope + kink]),
        sigma[0].square(),
        correlation * sigma[0] * sigma[1],
        sigma[1].square(),
        Z_REF,
    )


def test_a_kink_above_the_reference_moves_the_outgoing_line_by_its_lever_arm():
    # falls along x = 0.2, is bent by 0.01 at 1.3 m: below, x = 0.2 + 0.01 (z - 1.3), so 0.196 at 0.9 m
    found = sl.kinks(tracks([[0.2], [0.5], [0.196], [0.5]], [[0.0], [0.0], [0.01], [0.0]]))
    assert found.slope[0].item() == pytest.approx(0.01)
    assert found.offset[0].item() == pytest.approx(0.01 * (1.3 - 0.9))
    assert found.slope[1].item() == found.offset[1].item() == 0


def test_errors_of_both_lines_add_with_the_sign_of_the_offset():
    found = sl.kinks(tracks([[0.0]] * 4, [[0.0]] * 4, var_position=3e-8, cov=2e-8, var_slope=5e-8))
    assert found.var_slope[0].item() == pytest.approx(1e-7)
    assert found.cov[0].item() == pytest.approx(-4e-8)
    assert found.var_offset[0].item() == pytest.approx(6e-8)


def test_slopes_spread_more_than_angles():
    theta, h = 0.7, 1e-6
    found = sl.kinks(tracks([[0.0]] * 4, [[-math.tan(theta)], [0.0]] * 2))
    in_plane = (math.tan(theta + h) - math.tan(theta - h)) / (2 * h)
    across = 1 / math.cos(theta)  # a step of angle a on the sphere is a / cos(theta) in the plane z = 1
    assert found.stretch[:, 0].tolist() == pytest.approx([in_plane**2, across**2], rel=1e-6)


def test_the_straight_path_joins_the_ends_of_both_lines():
    lines = random_tracks(5)
    xy, stretch = sl.straight_path(lines, 1.4, 0.4, torch.tensor([1.4, 0.9, 0.4], **F64))
    assert torch.allclose(xy[:, 0], lines.position[:2] + lines.slope[:2] * 0.5)
    assert torch.allclose(xy[:, 2], lines.position[2:] - lines.slope[2:] * 0.5)
    assert torch.allclose(xy[:, 1], 0.5 * (xy[:, 0] + xy[:, 2]))
    assert torch.allclose(stretch, (1 + (xy[:, 0] - xy[:, 2]).square().sum(0)).sqrt())


def test_a_rectangle_holds_its_lower_edges():
    x = torch.tensor([0.1, 0.1 - 1e-6, 0.9, 0.5], **F64)
    y = torch.tensor([0.5, 0.5, 0.5, 0.95], **F64)
    assert sl.share_inside(torch.stack([x, y]), (0.1, 0.1), (0.9, 0.9)).tolist() == [1, 1, 0, 0]


def slab(n_cells, thin=(1.0,), length=0.5, x0=0.02, beta_p=3.0):
    """Covariance of vertical paths through slabs of one material, heights above their lower face; ``thin`` divides
    X0, one hypothesis each."""
    thickness = length / n_cells
    arms = length - (torch.arange(n_cells, **F64) + 0.5) * thickness
    cells = torch.tensor(thin, **F64)[:, None, None].expand(-1, n_cells, 1) * thickness / x0
    return sl.path_covariance(cells, arms, thickness, torch.tensor([beta_p], **F64))


@pytest.mark.parametrize("n_cells", [1, 2, 17])
def test_a_slab_bends_as_the_formula_says_however_it_is_cut(n_cells):
    variance = slab(n_cells)[0].item()
    width = SCATTER_COEF_A / 3.0 * math.sqrt(25) * (1 + SCATTER_COEF_B * math.log(25))
    assert variance == pytest.approx(width**2, rel=1e-12)


def test_a_slab_displaces_as_the_formula_says():
    # PDG: y = L theta / sqrt(3), correlation sqrt(3) / 2. The logarithm moves the scattering down by a few per cent
    variance, covariance, offset = slab(200)[:, 0, 0].tolist()
    assert offset == pytest.approx(0.25 * variance / 3, rel=0.08)
    assert covariance / math.sqrt(variance * offset) == pytest.approx(math.sqrt(3) / 2, rel=0.01)
    # one cell has no logarithm to share out
    variance, covariance, offset = slab(1)[:, 0, 0].tolist()
    assert offset == pytest.approx(0.25 * variance / 3, rel=1e-12)
    assert covariance / math.sqrt(variance * offset) == pytest.approx(math.sqrt(3) / 2, rel=1e-12)


def test_material_high_up_moves_muons_further():
    arms = torch.tensor([0.4, 0.1], **F64)
    cells = torch.tensor([[[5.0], [0.0]], [[0.0], [5.0]]], **F64)
    high, low = sl.path_covariance(cells, arms, 0.1, torch.tensor([3.0], **F64)).unbind(1)
    assert high[0] == low[0]
    assert high[1] == 4 * low[1]
    assert high[2].item() == pytest.approx((0.16 + 0.01 / 12) / (0.01 + 0.01 / 12) * low[2].item(), rel=1e-12)


def test_nothing_scatters_nothing():
    found = sl.path_covariance(torch.zeros(2, 1, **F64), torch.ones(2, **F64), 0.1, torch.ones(1, **F64))
    assert found.tolist() == [[0.0]] * 3


def test_the_density_is_the_bivariate_normal_of_both_planes():
    lines = random_tracks(6)
    kinks = sl.kinks(lines)
    scattering = slab(4, thin=(0.5, 2.0))
    found = sl.log_density(kinks, scattering.expand(3, 2, 6))
    for hypothesis in range(2):
        for muon in range(6):
            expected = 0.0
            for plane in range(2):
                k = [field[plane, muon].item() for field in kinks]
                s = [k[5] * value for value in scattering[:, hypothesis, 0].tolist()]
                matrix = np.array([[s[0] + k[2], s[1] + k[3]], [s[1] + k[3], s[2] + k[4]]])
                miss = np.array([k[0], k[1]])
                expected += -0.5 * (np.linalg.slogdet(matrix)[1] + miss @ np.linalg.solve(matrix, miss))
            assert found[hypothesis, muon].item() == pytest.approx(expected, rel=1e-10)


def test_turning_everything_about_the_vertical_changes_nothing():
    lines = random_tracks(20)
    lines = lines._replace(**{name: getattr(lines, name)[:1].expand(4, -1) for name in lines._fields[2:5]})
    turned = [torch.cat([-t[1:2], t[:1], -t[3:4], t[2:3]]) for t in (lines.position, lines.slope)]
    scattering = slab(4)[:, 0].expand(3, 20)
    before = sl.log_density(sl.kinks(lines), scattering)
    after = sl.log_density(sl.kinks(lines._replace(position=turned[0], slope=turned[1])), scattering)
    assert torch.allclose(before, after, rtol=1e-12)


def test_vertical_tracks_have_finite_gradients():
    slope = torch.zeros(4, 2, **F64, requires_grad=True)
    position = torch.zeros(4, 2, **F64, requires_grad=True)
    lines = tracks(torch.zeros(4, 2), torch.zeros(4, 2))._replace(slope=slope, position=position)
    scattering = slab(4)[:, 0].expand(3, 2)
    sl.log_density(sl.kinks(lines), scattering).sum().backward()
    assert slope.grad is not None
    assert position.grad is not None
    assert bool((slope.grad == 0).all() & (position.grad == 0).all())  # the density is greatest at no kink


def test_hits_that_fix_nothing_weigh_nothing_in_float32():
    """Errors of kilometres whose covariance rounding makes singular: finite, and the same for every hypothesis."""
    var = torch.full((4, 1), 9e5)
    lines = Lines(torch.zeros(4, 1), torch.full((4, 1), 0.1), var, var * (1 - 1e-9), var, torch.tensor(0.9))
    found = sl.log_density(sl.kinks(lines), slab(4, thin=(0.5, 2.0)).to(var))
    assert bool(found.isfinite().all())
    assert (found[0] - found[1]).abs().item() < 1e-3


def test_gradients():
    lines = random_tracks(3, seed=4)
    scattering = slab(4)[:, 0].expand(3, 3)
    scales = [torch.ones_like(t, requires_grad=True) for t in (*lines[2:5], scattering)]

    def density(*scales):
        errors = [t * scale for t, scale in zip(lines[2:5], scales[:3], strict=True)]
        return sl.log_density(sl.kinks(Lines(*lines[:2], *errors, Z_REF)), scattering * scales[3])

    assert gradcheck(density, scales)
    # of the lines themselves: positions only, because slopes also turn the planes, which carry no gradient
    position = lines.position.clone().requires_grad_()
    assert gradcheck(lambda p: sl.log_density(sl.kinks(lines._replace(position=p)), scattering), [position])


def test_the_distance_of_hypotheses_is_that_of_the_normals():
    """By its definition -ln integral sqrt(p q), on a grid, for one muon."""
    lines = random_tracks(1, seed=2)
    kinks = sl.kinks(lines)
    one, other = slab(4, thin=(0.5, 2.0)).unbind(1)
    total = 0.0
    for plane in range(2):
        field = [f[plane, 0].item() for f in kinks]
        matrices = []
        for s in (one, other):
            v = [field[5] * value for value in s[:, 0].tolist()]
            matrices.append(np.array([[v[0] + field[2], v[1] + field[3]], [v[1] + field[3], v[2] + field[4]]]))
        # in coordinates in which the first is round, so that one grid serves
        axes = np.linalg.cholesky(matrices[0])
        q = np.linalg.inv(axes) @ matrices[1] @ np.linalg.inv(axes).T
        u = np.linspace(-12, 12, 801)
        x, y = np.meshgrid(u, u)
        inverse = np.linalg.inv(q)
        p_square = x * x + y * y
        q_square = inverse[0, 0] * x * x + 2 * inverse[0, 1] * x * y + inverse[1, 1] * y * y
        both = np.exp(-0.25 * (p_square + q_square)).sum() * (u[1] - u[0]) ** 2 / (2 * math.pi)
        total += -math.log(both / np.linalg.det(q) ** 0.25)
    assert sl.bhattacharyya_distance(kinks, one, other).item() == pytest.approx(total, rel=1e-6)


def test_equal_hypotheses_have_no_distance_and_worse_hits_bring_others_nearer():
    lines = random_tracks(5)
    one, other = (s.expand(3, 5) for s in slab(4, thin=(0.5, 2.0)).unbind(1))
    assert sl.bhattacharyya_distance(sl.kinks(lines), one, one).abs().max().item() < 1e-12
    worse = lines._replace(**{name: getattr(lines, name) * 25 for name in lines._fields[2:5]})
    near = sl.bhattacharyya_distance(sl.kinks(worse), one, other)
    far = sl.bhattacharyya_distance(sl.kinks(lines), one, other)
    assert bool(((near > 0) & (near < far)).all())


def test_distance_gradients():
    lines = random_tracks(2, seed=6)
    one, other = (s.expand(3, 2) for s in slab(4, thin=(0.5, 2.0)).unbind(1))
    scales = [torch.ones_like(t, requires_grad=True) for t in (*lines[2:5], one, other)]

    def distance(*scales):
        errors = [t * scale for t, scale in zip(lines[2:5], scales[:3], strict=True)]
        tracks = Lines(*lines[:2], *errors, Z_REF)
        return sl.bhattacharyya_distance(sl.kinks(tracks), one * scales[3], other * scales[4])

    assert gradcheck(distance, scales)
