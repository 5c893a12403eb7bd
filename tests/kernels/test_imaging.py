"""Imaging kernels against explicit geometry, explicit Gaussian algebra, and slow twins."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import pytest
import torch
from torch import Tensor

from diffdet.core.random import Stream
from diffdet.kernels import imaging, lines
from diffdet.kernels.imaging import VoxelGrid
from diffdet.kernels.lines import Lines

GRID = VoxelGrid((-0.3, 0.1, 0.5), (4, 3, 5), 0.2)
Z_REF = 1.0


def normals(purpose: str, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=Stream(7, purpose).generator())


def tracks(n: int, kink: float = 0.02, sigma: float = 1e-3, dtype: torch.dtype = torch.float64) -> Lines:
    """Tracks through the middle of the grid with a kink there, and some covariance."""
    middle = torch.tensor([GRID.low[k] + 0.5 * GRID.counts[k] * GRID.size for k in range(2)], dtype=dtype)
    slope = 0.4 * normals("slope", 2, n, dtype=dtype)
    change = kink * normals("kink", 2, n, dtype=dtype)
    shift = 0.1 * normals("shift", 2, n, dtype=dtype)
    at = middle[:, None] + shift
    height = 0.3 * normals("height", n, dtype=dtype)  # of the kink above z_ref
    position = torch.cat([at - slope * height, at - (slope + change) * height])
    size = sigma * (1 + normals("size", 4, n, dtype=dtype).abs())
    return Lines(
        position,
        torch.cat([slope, slope + change]),
        size.square(),
        0.3 * size.square(),
        size.square(),
        at.new_tensor(Z_REF),
    )


def direction(slope: Tensor) -> Tensor:
    return torch.cat([slope, torch.ones_like(slope[:1])])


def test_scatter_square_is_half_the_square_of_the_angle_between_the_tracks() -> None:
    lines_ = tracks(50, kink=0.3)
    first, second = direction(lines_.slope[:2]), direction(lines_.slope[2:])
    angle = torch.atan2(torch.linalg.cross(first, second, dim=0).norm(dim=0), (first * second).sum(0))
    square, _ = imaging.scatter_square(lines_)
    torch.testing.assert_close(square, angle.square() / 2)


@pytest.mark.parametrize("slope", [(0.0, 0.0), (0.8, -0.3)])
def test_scatter_square_of_errors_alone_is_their_mean(slope: tuple[float, float]) -> None:
    """100,000 straight muons measured with unequal errors; the mean is right to 4 standard errors."""
    n = 100_000
    sigma = torch.tensor([1e-3, 3e-3, 2e-3, 1e-3], dtype=torch.float64)[:, None]
    true = torch.tensor([*slope, *slope], dtype=torch.float64)[:, None]
    zero = torch.zeros(4, n, dtype=torch.float64)
    measured = Lines(zero, true + sigma * normals("errors", 4, n), zero, zero, sigma.square().expand(4, n), zero[0])
    square, noise = imaging.scatter_square(measured)
    assert noise.std() < 0.02 * noise.mean()
    assert abs(float((square - noise).mean())) < 4 * float(square.std()) / math.sqrt(n)


def test_closest_depth_is_where_the_kink_was() -> None:
    lines_ = tracks(40)
    depth, _ = imaging.closest_depth(lines_, Z_REF)
    torch.testing.assert_close(depth, Z_REF + 0.3 * normals("height", 40))


def test_closest_depth_knows_its_uncertainty() -> None:
    """Pulls of 20,000 measured kinks have width 1 within 3 % and mean 0 within 4 standard errors."""
    n, sigma = 20_000, 2e-4
    true = tracks(1, kink=0.05)
    variance = torch.full((4, n), sigma**2, dtype=torch.float64)
    measured = Lines(
        true.position + sigma * normals("dp", 4, n), true.slope + sigma * normals("ds", 4, n),
        variance, torch.zeros_like(variance), variance, true.z_ref,
    )  # fmt: skip
    depth, width = imaging.closest_depth(measured, Z_REF)
    pull = (depth - imaging.closest_depth(true, Z_REF)[0]) / width
    assert abs(float(pull.std()) - 1) < 0.03
    assert abs(float(pull.mean())) < 4 / math.sqrt(n)


def test_closest_depth_of_parallel_tracks_is_unknown() -> None:
    lines_ = tracks(3, kink=0.0)
    parallel = lines_._replace(slope=lines_.slope[:2].repeat(2, 1), position=lines_.position[:2].repeat(2, 1))
    depth, sigma = imaging.closest_depth(parallel, Z_REF)
    assert depth.tolist() == [Z_REF] * 3
    assert sigma.tolist() == [math.inf] * 3


def walk_twin(lines_: Lines, depth: float, sigma: float, muon: int, cuts: int) -> list[tuple[int, float, float]]:
    """Voxel, length and share of each sample, with ordinary numbers."""
    samples = []
    nx, ny, nz = GRID.counts
    step = GRID.size / cuts

    def phi(z: float) -> float:
        return 0.5 * math.erfc((depth - z) / sigma / math.sqrt(2)) if math.isfinite(sigma) else 0.5

    for k in range(nz * cuts):
        z = GRID.low[2] + (k + 0.5) * step
        chance = 1 - phi(z)
        places, slants = [], []
        for row in (0, 2):
            b = [float(lines_.slope[row + axis, muon]) for axis in (0, 1)]
            places.append([float(lines_.position[row + axis, muon]) + b[axis] * (z - Z_REF) for axis in (0, 1)])
            slants.append(math.sqrt(1 + b[0] ** 2 + b[1] ** 2))
        place = [(1 - chance) * i + chance * o for i, o in zip(*places, strict=True)]
        ix, iy = (math.floor((place[axis] - GRID.low[axis]) / GRID.size) for axis in (0, 1))
        inside = 0 <= ix < nx and 0 <= iy < ny
        low = GRID.low[2] + k * step
        mass = phi(low + step) - phi(low) + imaging.SHARE_FLOOR / (nz * cuts)
        voxel = (k // cuts * nx + ix) * ny + iy if inside else GRID.n_voxels
        samples.append((voxel, step * ((1 - chance) * slants[0] + chance * slants[1]) * inside, mass * inside))
    total = sum(share for _, _, share in samples) or 1.0
    return [(voxel, length, share / total) for voxel, length, share in samples]


@pytest.mark.parametrize("cuts", [1, 3])
@pytest.mark.parametrize("sigma", [0.01, 0.3, math.inf])
def test_walk_against_twin(sigma: float, cuts: int) -> None:
    lines_ = tracks(25)
    depth = Z_REF + 0.6 * normals("depth", 25)
    path = imaging.walk(lines_, Z_REF, depth, torch.full_like(depth, sigma), GRID, cuts)
    for muon in range(25):
        twin = walk_twin(lines_, float(depth[muon]), sigma, muon, cuts)
        assert path.voxel[:, muon].tolist() == [voxel for voxel, _, _ in twin]
        torch.testing.assert_close(path.length[:, muon], torch.tensor([length for _, length, _ in twin]).double())
        torch.testing.assert_close(path.share[:, muon], torch.tensor([share for _, _, share in twin]).double())


def test_walk_conserves() -> None:
    """Shares add up to one for whoever is inside at all; lengths of straight tracks to their chord."""
    lines_ = tracks(200)
    depth, sigma = imaging.closest_depth(lines_, Z_REF)
    path = imaging.walk(lines_, Z_REF, depth, sigma, GRID)
    touched = (path.voxel < GRID.n_voxels).any(0)
    torch.testing.assert_close(path.share.sum(0), touched.double())
    vertical = Lines(*(torch.zeros(4, 1, dtype=torch.float64) + v for v in (0.3, 0.0, 1e-8, 0.0, 1e-8)), lines_.z_ref)
    whole = imaging.walk(vertical, Z_REF, torch.ones(1).double(), torch.ones(1).double(), GRID, 4)
    assert float(whole.length.sum()) == pytest.approx(GRID.counts[2] * GRID.size)


def test_known_point_takes_all_but_the_floor() -> None:
    lines_ = tracks(1)
    depth = torch.tensor([GRID.low[2] + 2.4 * GRID.size], dtype=torch.float64)
    path = imaging.walk(lines_, Z_REF, depth, torch.zeros_like(depth), GRID, 1)
    assert path.share[2, 0] > 1 - 2 * imaging.SHARE_FLOOR


def test_sums_against_twin() -> None:
    lines_ = tracks(60)
    depth, sigma = imaging.closest_depth(lines_, Z_REF)
    path = imaging.walk(lines_, Z_REF, depth, sigma, GRID, 3)
    values = normals("values", *path.voxel.shape)
    sums, squares, visits = (torch.zeros(GRID.n_voxels + 1, dtype=torch.float64) for _ in range(3))
    imaging.sum_by_voxel(values, path.voxel, sums)
    imaging.sum_squares_by_voxel(values, path, squares)
    imaging.visits_by_voxel(path, visits)
    by_voxel: dict[int, float] = defaultdict(float)
    by_pair: dict[tuple[int, int], float] = defaultdict(float)
    for sample, row in enumerate(path.voxel.tolist()):
        for muon, voxel in enumerate(row):
            by_voxel[voxel] += float(values[sample, muon])
            by_pair[voxel, muon] += float(values[sample, muon])
    seen = Counter(voxel for voxel, _ in by_pair)
    for voxel in range(GRID.n_voxels):  # outside, a muon's samples may lie apart
        assert float(sums[voxel]) == pytest.approx(by_voxel[voxel], abs=1e-12)
        expected = sum(value**2 for (at, _), value in by_pair.items() if at == voxel)
        assert float(squares[voxel]) == pytest.approx(expected, abs=1e-12)
        assert int(visits[voxel]) == seen[voxel]
    assert sum(seen[voxel] > 1 for voxel in range(GRID.n_voxels)) > 10


def posterior(lines_: Lines, variance: Tensor, step: float = 0.0) -> tuple[imaging.Posterior, imaging.Walk, Tensor]:
    depth, sigma = imaging.closest_depth(lines_, Z_REF)
    path = imaging.walk(lines_, Z_REF, depth, sigma, GRID, 1)
    beta_p = 1 + normals("p", variance.shape[1]).abs()
    return imaging.posterior_scatter(lines_, Z_REF, beta_p, variance, path, step), path, beta_p


def test_posterior_against_dense_algebra() -> None:
    """One muon at a time, conditioning the joint Gaussian of all samples and the measurement, in both planes."""
    lines_, n = tracks(6), 6
    variance = 0.5 + normals("variance", GRID.counts[2], n).abs()
    found, path, beta_p = posterior(lines_, variance)
    for muon in range(n):
        scale = (0.0136 / beta_p[muon]) ** 2
        arms = torch.stack([torch.ones_like(path.z[:, 0]), Z_REF - path.z[:, 0]])
        prior = torch.diag(variance[:, muon] * scale)
        d = lines_.slope[2:, muon] - lines_.slope[:2, muon]
        r = lines_.position[2:, muon] - lines_.position[:2, muon]
        b = 0.5 * (lines_.slope[2:, muon] + lines_.slope[:2, muon])
        along = b / b.norm()
        errors = [part[2:, muon] + part[:2, muon] for part in (lines_.var_slope, lines_.cov, lines_.var_position)]
        square, density = torch.zeros(len(arms[0])).double(), torch.zeros(()).double()
        for axis, stretch in ((along, 1 + b @ b), (torch.stack([-along[1], along[0]]), (1 + b @ b).sqrt())):
            o = torch.stack([axis @ d, axis @ r]) / stretch
            dd, dr, rr = ((axis.square() @ error) / stretch**2 for error in errors)
            covariance = arms @ prior @ arms.T + torch.stack([torch.stack([dd, dr]), torch.stack([dr, rr])])
            gain = prior @ arms.T @ torch.linalg.inv(covariance)
            mean, spread = gain @ o, prior - gain @ arms @ prior
            square += 0.5 * (mean.square() + spread.diagonal())
            density += torch.distributions.MultivariateNormal(torch.zeros(2).double(), covariance).log_prob(o)
        torch.testing.assert_close(found.square[:, muon], square / scale)
        torch.testing.assert_close(found.log_likelihood[muon], density)


def test_posterior_obeys_the_identity_of_fisher() -> None:
    """d log L / d v_k = (E[d_k^2] - v_k) / v_k^2, by autograd; expectation maximisation rests on it."""
    variance = (0.5 + normals("variance", GRID.counts[2], 30).abs()).requires_grad_()
    found, _, _ = posterior(tracks(30), variance)
    (slope,) = torch.autograd.grad(found.log_likelihood.sum(), variance)
    v = variance.detach()
    torch.testing.assert_close(slope, (found.square.detach() - v) / v.square())


def test_information_is_the_variance_of_the_score() -> None:
    """Over 20,000 measurements drawn from the model, the score of a sample has the stated information within 5 %."""
    n = 20_000
    base = tracks(1)
    variance = 0.5 + normals("variance", GRID.counts[2], 1).abs().expand(-1, n).clone()
    path = imaging.walk(base, Z_REF, torch.full((1,), Z_REF).double(), torch.ones(1).double(), GRID, 1)
    beta_p = torch.full((n,), 2.0).double()
    angles = normals("angles", 2, GRID.counts[2], n) * (variance.sqrt() * 0.0136 / 2)
    d, r = angles.sum(1), (angles * (Z_REF - path.z)).sum(1)
    sigma = 1e-3
    d, r = d + sigma * normals("ed", 2, n), r + sigma * normals("er", 2, n)
    zero = torch.zeros(4, n, dtype=torch.float64)
    half = torch.full_like(zero, sigma**2 / 2)
    measured = Lines(torch.cat([zero[:2], r]), torch.cat([-d / 2, d / 2]), half, zero, half, base.z_ref)
    variance.requires_grad_()
    found = imaging.posterior_scatter(measured, Z_REF, beta_p, variance, path, 0.0)
    (score,) = torch.autograd.grad(found.log_likelihood.sum(), variance)
    torch.testing.assert_close(score.square().mean(1), found.information.mean(1).detach(), rtol=0.05, atol=0)


def test_posterior_without_scattering_is_finite() -> None:
    found, _, _ = posterior(tracks(4), torch.zeros(GRID.counts[2], 4, dtype=torch.float64))
    assert found.square.abs().max() == 0
    assert torch.isfinite(found.log_likelihood).all()


def test_posterior_of_vertical_tracks_is_that_of_nearly_vertical_ones() -> None:
    lines_ = tracks(5)
    half = 0.5 * (lines_.slope[2:] - lines_.slope[:2])
    variance = torch.ones(GRID.counts[2], 5, dtype=torch.float64)
    results = []
    for tilt in (0.0, 1e-5):
        slope = torch.cat([tilt - half, tilt + half])
        even = Lines(lines_.position, slope, half.new_full((4, 5), 1e-6), *lines_[3:])._replace(
            cov=torch.zeros(4, 5).double(), var_slope=half.new_full((4, 5), 1e-6)
        )
        results.append(posterior(even, variance)[0].square)
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1])
def test_few_muons(n: int) -> None:
    lines_ = tracks(n)
    depth, sigma = imaging.closest_depth(lines_, Z_REF)
    path = imaging.walk(lines_, Z_REF, depth, sigma, GRID)
    assert path.share.shape == (GRID.counts[2] * 2, n)
    assert imaging.scatter_square(lines_)[0].shape == (n,)


def test_float32_gives_the_same_story() -> None:
    double, single = tracks(300), Lines(*(part.to(torch.float32) for part in tracks(300)))
    for one, other in zip(imaging.scatter_square(double), imaging.scatter_square(single), strict=True):
        torch.testing.assert_close(other.double(), one, rtol=2e-4, atol=1e-9)
    path = [imaging.walk(t, Z_REF, *imaging.closest_depth(t, Z_REF), GRID) for t in (double, single)]
    assert (path[0].voxel == path[1].voxel).double().mean() > 0.995
    assert path[1].share.dtype == torch.float32


def test_bracket() -> None:
    n = torch.tensor([1.0, math.e, 0.0], dtype=torch.float64)
    assert imaging.highland_bracket(n).tolist() == pytest.approx([1.0, 1.038**2, 0.04])


def test_least_squares_lines_feed_the_kernels() -> None:
    """Hits of a known kink, fitted and imaged: the depth comes back."""
    z = torch.tensor([[2.0, 1.9, 1.8], [0.2, 0.1, 0.0]], dtype=torch.float64)[:, :, None, None]
    kink, b = torch.tensor([0.03, -0.02]).double(), torch.tensor([[0.2, 0.1], [0.23, 0.08]]).double()
    xy = 0.1 + b[:, None, :, None] * (z - 0.9)
    sigma = torch.full((2, 3, 2, 1), 1e-4, dtype=torch.float64)
    fitted = lines.fit_weighted(xy, z.expand_as(xy), 1 / sigma.square(), sigma)
    flat = lines.at_plane(Lines(*(part.flatten(0, 1) for part in fitted)), Z_REF)
    depth, width = imaging.closest_depth(flat, Z_REF)
    assert float(depth) == pytest.approx(0.9)
    # errors of two slopes over an arm of about 0.95 m, against the kink
    slope = 1e-4 / math.sqrt(0.02)
    assert float(width) == pytest.approx(math.sqrt(2) * slope * 0.95 / float(kink.norm()), rel=0.1)
