"""Line fits and closest approach: textbook twins, derivatives, covariance of repeated measurements, float32."""

import pytest
import torch
from torch.autograd import gradcheck

from diffdet.kernels import lines
from diffdet.kernels.lines import Lines
from diffdet.kernels.uncertainty import line_variance

F64 = {"dtype": torch.float64}


def hits(n, n_hits=4, seed=0, dtype=torch.float64):
    """Hits (hit, 2, muon), heights (hit, 1, 1), weights and widths of random tracks near z = 0.9."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(shape, generator=generator, **F64)

    z = 0.99 - 0.05 * torch.arange(n_hits, **F64)[:, None, None] + 0.01 * draw(n_hits, 1, 1)
    xy = draw(1, 2, n) + (draw(1, 2, n) - 0.5) * (z - 0.9) + 1e-3 * draw(n_hits, 2, n)
    weight, sigma = 1 + 10 * draw(n_hits, 2, n), 1e-3 * (1 + draw(n_hits, 2, n))
    return [t.to(dtype) for t in (xy, z, weight, sigma)]


def fitted_by_hand(xy, z, weight, sigma):
    """Position at z = 0, slope and their covariance by the normal equations, one line at a time."""
    n_hits, n_proj, n = xy.shape
    estimate, covariance = torch.zeros(2, n_proj, n, **F64), torch.zeros(2, 2, n_proj, n, **F64)
    for p in range(n_proj):
        for m in range(n):
            a = torch.stack([torch.ones(n_hits, **F64), z[:, 0, 0]], 1)
            w = torch.diag(weight[:, p, m])
            gain = torch.linalg.inv(a.T @ w @ a) @ a.T @ w
            estimate[:, p, m] = gain @ xy[:, p, m]
            covariance[:, :, p, m] = gain @ torch.diag(sigma[:, p, m] ** 2) @ gain.T
    return estimate, covariance


@pytest.mark.parametrize("n_hits", [2, 3, 4, 7])
def test_fit_agrees_with_the_normal_equations(n_hits):
    given = hits(20, n_hits)
    at_zero = lines.at_plane(lines.fit_weighted(*given), 0.0)
    estimate, covariance = fitted_by_hand(*given)
    torch.testing.assert_close(at_zero.position, estimate[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(at_zero.slope, estimate[1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(at_zero.var_position, covariance[0, 0], rtol=1e-8, atol=0)
    torch.testing.assert_close(at_zero.cov, covariance[0, 1], rtol=1e-8, atol=1e-18)
    torch.testing.assert_close(at_zero.var_slope, covariance[1, 1], rtol=1e-8, atol=0)


def test_reference_fit():
    """Four hits with weights 1/sigma^2; values of the published package, which rounds in float32."""
    xyz = torch.tensor([[0.10, 0.20, 1.0], [0.12, 0.19, 0.9], [0.15, 0.21, 0.8], [0.17, 0.18, 0.7]], **F64)
    sigma = 1e-3 * torch.tensor([[1.0, 2], [2, 1], [1, 1], [3, 1]], **F64)[:, :, None]
    line = lines.at_plane(lines.fit_weighted(xyz[:, :2, None], xyz[:, 2:, None], sigma**-2, sigma), 1.0)
    torch.testing.assert_close(line.position[:, 0], torch.tensor([0.0996598, 0.2021051], **F64), rtol=0, atol=2e-6)
    torch.testing.assert_close(-0.1 * line.slope[:, 0], torch.tensor([0.0246120, -0.0044736], **F64), rtol=0, atol=2e-6)


def test_moving_the_plane_changes_neither_line_nor_covariance():
    line = lines.fit_weighted(*hits(10))
    there = lines.at_plane(line, -3.0)
    back = lines.at_plane(there, line.z_ref)
    for a, b in zip(back[:5], line[:5], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(there.position, line.position + line.slope * (-3.0 - line.z_ref))
    # position and slope are uncorrelated at the weighted mean height only if the weights are 1/sigma^2
    xy, z, _, sigma = hits(10)
    best = lines.fit_weighted(xy, z, sigma**-2, sigma)
    assert (best.cov.abs() < 1e-12 * (best.var_position * best.var_slope).sqrt()).all()


def test_weights_of_inverse_variance_are_the_best():
    xy, z, weight, sigma = hits(50)
    best, other = lines.fit_weighted(xy, z, sigma**-2, sigma), lines.fit_weighted(xy, z, weight, sigma)
    assert (best.var_slope <= other.var_slope * (1 + 1e-12)).all()


def test_common_factor_of_the_weights_is_of_no_consequence():
    xy, z, weight, sigma = hits(10)
    for a, b in zip(
        lines.fit_weighted(xy, z, weight, sigma), lines.fit_weighted(xy, z, 1e8 * weight, sigma), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-16)


def test_a_hit_without_weight_takes_no_part_in_value_or_gradient():
    xy, z, weight, sigma = hits(6)
    weight[2] = 0
    without = [t[[0, 1, 3]] for t in (xy, z, weight, sigma)]
    for a, b in zip(lines.fit_weighted(xy, z, weight, sigma), lines.fit_weighted(*without), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-18)
    leaves = [t.clone().requires_grad_() for t in (xy, z.expand_as(xy), weight, sigma)]
    fit = lines.fit_weighted(*leaves)
    for gradient in torch.autograd.grad(sum(t.sum() for t in fit[:5]), leaves):
        assert gradient.isfinite().all()
    assert not torch.autograd.grad(lines.fit_weighted(*leaves).slope.sum(), leaves[0])[0][2].any()


def test_a_line_at_one_height_says_so_and_keeps_gradients_finite():
    xy, z, weight, sigma = (t.clone().requires_grad_() for t in hits(6))
    flat = torch.zeros_like(weight)
    flat[0] = 1
    mixed = torch.where(torch.arange(6) < 2, flat, weight)
    fit = lines.fit_weighted(xy, z, mixed, sigma)
    assert (fit.var_slope[:, :2] == lines.UNKNOWN_VARIANCE).all()
    assert (fit.var_slope[:, 2:] < 1).all()
    kept = fit.slope[:, 2:].sum() + fit.var_slope[:, 2:].log().sum()
    for gradient in torch.autograd.grad(kept, (xy, z, weight, sigma)):
        assert gradient.isfinite().all()


def test_fit_gradients():
    xy, z, weight, sigma = hits(2, 3)
    leaves = [t.clone().requires_grad_() for t in (xy, z, weight, 1e3 * sigma)]
    assert gradcheck(lambda *t: lines.fit_weighted(t[0], t[1], t[2], 1e-3 * t[3])[:5], leaves)
    fit = [t.detach().clone().requires_grad_() for t in lines.fit_weighted(xy, z, weight, sigma)]
    height = torch.tensor(0.3, requires_grad=True, **F64)
    assert gradcheck(lambda h, *t: lines.at_plane(Lines(*t), h)[:5], (height, *fit))


def test_covariance_is_that_of_repeated_measurements():
    """200,000 repetitions: variances are known to 0.32 %; five standard errors."""
    _, z, weight, sigma = hits(1)
    n = 200_000
    noise = torch.randn((4, 2, n), generator=torch.Generator().manual_seed(1), **F64)
    wide = weight.expand(4, 2, n), sigma.expand(4, 2, n)
    true = torch.tensor([0.3, 0.6], **F64)[:, None] + torch.tensor([0.2, -0.1], **F64)[:, None] * (z - 0.9)
    repeated = lines.at_plane(lines.fit_weighted(true + sigma * noise, z, *wide), 0.5)
    for measured, stated in [
        (repeated.position.var(-1), repeated.var_position[:, 0]),
        (repeated.slope.var(-1), repeated.var_slope[:, 0]),
    ]:
        torch.testing.assert_close(measured, stated, rtol=0.016, atol=0)
    correlation = torch.stack([torch.corrcoef(torch.stack([p, s]))[0, 1] for p, s in zip(*repeated[:2], strict=True)])
    stated = repeated.cov[:, 0] / (repeated.var_position[:, 0] * repeated.var_slope[:, 0]).sqrt()
    torch.testing.assert_close(correlation, stated, rtol=0, atol=0.011)


@pytest.mark.parametrize("decades", [0.0, 2.0, 4.9])
def test_float32_fits_are_within_a_thousandth_of_their_uncertainty(decades):
    """Panels at 1.45 to 1.48 m, hits of 0.1 mm to ``decades`` orders of magnitude worse."""
    generator = torch.Generator().manual_seed(2)
    z = torch.tensor([1.48, 1.47, 1.46, 1.45])[:, None, None]
    slopes = torch.rand((1, 2, 5000), generator=generator) - 0.5
    xy = 0.5 + slopes * (z - 1.4)
    sigma = 1e-4 * 10 ** (decades * torch.rand((4, 2, 5000), generator=generator))
    single = lines.fit_weighted(xy, z, sigma**-2, sigma)
    double = lines.fit_weighted(xy.double(), z.double(), sigma.double() ** -2, sigma.double())
    assert ((single.slope - double.slope).abs() / double.var_slope.sqrt()).max() < 1e-3
    assert (single.var_slope / double.var_slope - 1).abs().max() < 0.02
    assert (single.var_slope / double.var_slope - 1).abs().median() < 1e-6
    moved = lines.at_plane(single, 0.9), lines.at_plane(double, 0.9)
    assert (moved[0].var_position / moved[1].var_position - 1).abs().max() < 0.02


# ---- closest approach


def tracks(n, kink=0.05, seed=3):
    """Positions (4, n) at z = 0.5 and slopes (4, n) of pairs that differ by about ``kink`` in slope."""
    generator = torch.Generator().manual_seed(seed)
    position = torch.rand((4, n), generator=generator, **F64)
    position[2:] = position[:2] + 0.02 * torch.randn((2, n), generator=generator, **F64)
    slope = torch.rand((4, n), generator=generator, **F64) - 0.5
    slope[2:] = slope[:2] + kink * torch.randn((2, n), generator=generator, **F64)
    return position, slope


def textbook(position, slope, z_ref):
    """Midpoint of the common perpendicular and the vector along it, by cross product and a 3 x 3 system per muon."""
    n = position.shape[1]
    z, one = torch.full((1, n), z_ref, **F64), torch.ones((1, n), **F64)
    start_in, start_out = torch.cat([position[:2], z]), torch.cat([position[2:], z])
    along_in, along_out = torch.cat([slope[:2], one]), torch.cat([slope[2:], one])
    cross = torch.linalg.cross(along_in, along_out, dim=0)
    # start_in + s along_in + t cross = start_out + u along_out
    matrix = torch.stack([along_in, cross, -along_out]).permute(2, 1, 0)
    s, t, _ = torch.linalg.solve(matrix, (start_out - start_in).T).T
    return start_in + s * along_in + 0.5 * t * cross, (t * cross)[:2]


def test_closest_approach_agrees_with_the_textbook_and_so_do_all_its_derivatives():
    position, slope = tracks(30)
    ours = lines.closest_approach(position, slope, 0.5)
    p, s = position.clone().requires_grad_(), slope.clone().requires_grad_()
    xyz, gap = textbook(p, s, 0.5)
    torch.testing.assert_close(ours.xyz, xyz.detach(), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(ours.gap, gap.detach(), rtol=1e-9, atol=1e-10)
    for k, value in enumerate([*xyz, *gap]):
        by_position, by_slope = torch.autograd.grad(value.sum(), (p, s), retain_graph=True)
        torch.testing.assert_close(ours.d_position[k], by_position, rtol=1e-8, atol=1e-7)
        torch.testing.assert_close(ours.d_slope[k], by_slope, rtol=1e-8, atol=1e-6)


def test_closest_approach_gradients_including_those_of_its_derivatives():
    position, slope = (t.requires_grad_() for t in tracks(3, kink=0.3))
    assert gradcheck(lambda p, s: lines.closest_approach(p, s, 0.5), (position, slope))


def test_the_gap_is_at_right_angles_to_both_tracks_and_halved_by_the_point():
    position, slope = tracks(100)
    out = lines.closest_approach(position, slope, 0.5)
    dz = -(out.gap * (slope[:2] + slope[2:]) / 2).sum(0)  # the gap is at right angles to the mean direction, too
    gap = torch.cat([out.gap, dz[None]])
    for rows in (slice(0, 2), slice(2, 4)):
        along = torch.cat([slope[rows], torch.ones(1, 100, **F64)])
        assert ((gap * along).sum(0).abs() < 1e-12).all()
    for sign, rows in ((-0.5, slice(0, 2)), (0.5, slice(2, 4))):
        foot = out.xyz + sign * gap
        on_track = position[rows] + slope[rows] * (foot[2] - 0.5)
        torch.testing.assert_close(foot[:2], on_track, rtol=0, atol=1e-11)


def test_tracks_that_meet_meet_there():
    _, slope = tracks(50)
    point = torch.tensor([0.2, 0.7, 0.35], **F64)[:, None]
    position = point[[0, 1, 0, 1]] + slope * (0.5 - point[2])
    out = lines.closest_approach(position, slope, 0.5)
    torch.testing.assert_close(out.xyz, point.expand(3, 50), rtol=0, atol=1e-10)
    assert (out.gap.abs() < 1e-12).all()


def test_closest_approach_does_not_depend_on_the_plane_the_side_or_the_frame():
    position, slope = tracks(50)
    out = lines.closest_approach(position, slope, 0.5)
    elsewhere = lines.closest_approach(position - 2 * slope, slope, -1.5)
    torch.testing.assert_close(elsewhere.xyz, out.xyz, rtol=1e-9, atol=1e-10)
    swapped = lines.closest_approach(position[[2, 3, 0, 1]], slope[[2, 3, 0, 1]], 0.5)
    torch.testing.assert_close(swapped.xyz, out.xyz, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(swapped.gap, -out.gap, rtol=1e-9, atol=1e-12)
    turn = torch.linalg.qr(torch.randn((2, 2), generator=torch.Generator().manual_seed(4), **F64))[0]
    both = torch.block_diag(turn, turn)
    turned = lines.closest_approach(both @ position, both @ slope, 0.5)
    torch.testing.assert_close(turned.xyz[:2], turn @ out.xyz[:2], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(turned.xyz[2], out.xyz[2], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kink", [1e-4, 1e-3, 1e-2])
def test_float32_keeps_points_and_uncertainties_of_nearly_parallel_tracks(kink):
    """Hits of 0.1 mm, the same float32 numbers in. The textbook form gets uncertainties wrong by 19 % in the median."""
    position, slope = (t.float() for t in tracks(4000, kink))
    position[2:] = position[:2] + 0.3 * (slope[2:] - slope[:2]) + 1e-4 * torch.randn((2, 4000))
    covariance = torch.full((4, 4000), 1e-8), torch.full((4, 4000), -2e-8), torch.full((4, 4000), 1e-6)

    def evaluated(dtype):
        p, s, *c = (t.to(dtype) for t in (position, slope, *covariance))
        out = lines.closest_approach(p, s, 0.5)
        fitted = Lines(p, s, *c, torch.tensor(0.5, dtype=dtype))
        variance = line_variance(out.d_position, out.d_slope, fitted)
        return torch.cat([out.xyz, out.gap]).double(), variance.sqrt().double()

    (value, sigma), (expected, true_sigma) = evaluated(torch.float32), evaluated(torch.float64)
    assert ((value - expected).abs() / true_sigma).max() < 2e-2
    assert (sigma / true_sigma - 1).abs().median() < 1e-5
    assert (sigma / true_sigma - 1).abs().max() < 1e-2


def test_parallel_tracks_have_no_point():
    position, slope = tracks(2)
    slope[2:] = slope[:2]
    assert not lines.closest_approach(position, slope, 0.5).xyz.isfinite().any()


@pytest.mark.parametrize("n", [0, 1])
def test_few_muons(n, dtype):
    given = hits(n, dtype=dtype)
    line = lines.fit_weighted(*given)
    assert line.slope.shape == (2, n)
    assert line.slope.dtype == dtype
    position, slope = (t.to(dtype) for t in tracks(n))
    out = lines.closest_approach(position, slope, 0.5)
    assert out.xyz.shape == (3, n)
    assert out.d_slope.shape == (5, 4, n)
    assert out.d_slope.dtype == dtype
