"""Images of scattering density from tracks before and after a volume: where muons went, and where they scattered.

Component axis first, muon axis last. Tracks are four lines at one common height, rows (in_x, in_y, out_x, out_y),
slopes dx/dz, as ``lines.fit_weighted`` and ``lines.at_plane`` give them. Scattering is measured in units of
Highland's constant,

    S = (beta p / 13.6 MeV)^2 theta^2,

so that the expectation of S, theta being the angle in one plane, is F(n) = n (1 + 0.038 ln n)^2 behind n radiation
lengths.

A muon's way through the volume is cut into samples of equal height, ``cuts`` to a layer of voxels, and each sample
belongs to the voxel at its middle. All work is linear in muons times layers; no array of muons x voxels exists.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from diffdet.core.constants import SCATTER_COEF_A, SCATTER_COEF_B
from diffdet.kernels import lines as line_kernels
from diffdet.kernels.lines import Lines
from diffdet.kernels.scatter_angles import total_scatter
from diffdet.kernels.voxels import interval_mass

__all__ = [
    "SHARE_FLOOR",
    "Posterior",
    "VoxelGrid",
    "Walk",
    "closest_depth",
    "highland_bracket",
    "posterior_scatter",
    "scatter_square",
    "sum_by_voxel",
    "sum_squares_by_voxel",
    "visits_by_voxel",
    "walk",
]

SHARE_FLOOR = 1e-3
"""Part of a muon's scattering that is spread evenly over its way, whatever its point of closest approach says: a
point far outside the volume then still has a place inside. If it grew to 1, the image would be an average along the
tracks."""

_MIN_BRACKET = 0.2
"""Least Highland bracket 1 + B ln n; 0.2 is reached at n = 7e-10, thinner than 10 nm of air."""


class VoxelGrid(NamedTuple):
    """Cubic voxels in a box. Flat indices run over (z, x, y), y fastest; one more stands for everything outside.

    Attributes:
        low: low corner x, y, z, m.
        counts: number of voxels in x, y, z.
        size: voxel edge, m.
    """

    low: tuple[float, float, float]
    counts: tuple[int, int, int]
    size: float

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return math.prod(self.counts)

    @property
    def z_range(self) -> tuple[float, float]:
        """Bottom and top, m."""
        return self.low[2], self.low[2] + self.counts[2] * self.size


class Walk(NamedTuple):
    """Samples along the ways of muons through a grid, from the bottom to the top.

    Attributes:
        voxel: ``(sample, muon)`` flat index of the voxel; ``grid.n_voxels`` outside.
        length: ``(sample, muon)`` path length, zero outside, m.
        share: ``(sample, muon)`` part of the muon's scattering that happened here, zero outside; adds up to 1 over the
            samples inside.
        z: ``(sample, 1)`` heights of the middles, m.
        cuts: samples to a layer of voxels.
    """

    voxel: Tensor
    length: Tensor
    share: Tensor
    z: Tensor
    cuts: int


class Posterior(NamedTuple):
    """What the tracks say about the scattering in every sample, given the density.

    Attributes:
        square: ``(sample, muon)`` expectation of the squared angle in one plane, in units of (13.6 MeV / beta p)^2.
        information: ``(sample, muon)`` Fisher information about the sample's scattering variance, in the same units
            to the power -2.
        log_likelihood: ``(muon,)`` log of the probability density of the measured angle and displacement.
    """

    square: Tensor
    information: Tensor
    log_likelihood: Tensor


def scatter_square(tracks: Lines) -> tuple[Float[Tensor, " muon"], Float[Tensor, " muon"]]:
    """Squared scattering angle in one plane, and what measurement errors add to it on average.

    The angle in space is psi = ``total_scatter``; scattering acts in two planes alike, so one plane has psi^2 / 2.
    With d the difference and b the mean of the slopes, psi^2 = <d, d> / (1 + b^2)^2 for small angles, <d, d> = d^2 +
    (d.n)^2, n = (b_y, -b_x); independent errors of d add var(d_x) (1 + b_y^2) + var(d_y) (1 + b_x^2) to <d, d>.

    Args:
        tracks: four lines.

    Returns:
        ``(muon,)`` psi^2 / 2 and the mean that measurement errors alone would give it, rad^2.

    Reference: PDG review "Passage of particles through matter", below eq. (34.16); error propagation.
    """
    psi, _ = total_scatter(tracks.slope)
    b2 = (0.5 * (tracks.slope[2:] + tracks.slope[:2])).square()
    variance = tracks.var_slope[2:] + tracks.var_slope[:2]
    stretch = (1 + b2.sum(0)).square()
    return 0.5 * psi * psi, 0.5 * (variance * (1 + b2.flip(0))).sum(0) / stretch


def closest_depth(tracks: Lines, z_ref: float) -> tuple[Float[Tensor, " muon"], Float[Tensor, " muon"]]:
    """Height of the point of closest approach and its standard deviation.

    Errors of the point are almost entirely along the track, so its height is all there is to know.

    Args:
        tracks: four lines at ``z_ref``.
        z_ref: common height of the lines, m.

    Returns:
        ``(muon,)`` height and standard deviation, m; ``z_ref`` and infinity for parallel tracks.
    """
    point = line_kernels.closest_approach(tracks.position, tracks.slope, z_ref)
    by_position, by_slope = point.d_position[2], point.d_slope[2]
    variance = (
        by_position.square() * tracks.var_position
        + 2 * by_position * by_slope * tracks.cov
        + by_slope.square() * tracks.var_slope
    ).sum(0)
    known = torch.isfinite(point.xyz[2]) & torch.isfinite(variance)
    z = torch.where(known, point.xyz[2], torch.full_like(variance, z_ref))
    return z, torch.where(known, variance, torch.full_like(variance, torch.inf)).sqrt()


def walk(tracks: Lines, z_ref: float, depth: Tensor, sigma: Tensor, grid: VoxelGrid, cuts: int = 2) -> Walk:
    """Follow muons through a grid: along the incoming line above the point of closest approach, the outgoing one below.

    Where the point lies is known to a Gaussian in height. At height z the muon has scattered with probability
    P = Phi((depth - z) / sigma), and its expected position is (1 - P) in + P out; a sample's share of the scattering
    is the Gaussian's mass in it, over that of all samples inside the grid. So a poorly known point spreads along the
    whole way.

    Args:
        tracks: four lines at ``z_ref``.
        z_ref: common height, m.
        depth: ``(muon,)`` height of the point of closest approach, m.
        sigma: its standard deviation, m; may be infinite.
        grid: the voxels.
        cuts: samples to a layer.

    Returns:
        Walk of ``nz * cuts`` samples.
    """
    nx, ny, nz = grid.counts
    n_samples = nz * cuts
    step = grid.size / cuts
    like = tracks.position
    edges = grid.low[2] + step * torch.arange(n_samples + 1, dtype=like.dtype, device=like.device)
    z = (edges[:-1] + 0.5 * step)[:, None]
    width = sigma.clamp_min(1e-3 * step)
    scattered = 0.5 * torch.special.erfc((z - depth) / width * math.sqrt(0.5))
    incoming, outgoing = (tracks.position[rows, None] + tracks.slope[rows, None] * (z - z_ref) for rows in _SIDES)
    place = torch.lerp(incoming, outgoing, scattered)
    slant = (1 + torch.stack([tracks.slope[rows].square().sum(0) for rows in _SIDES])).sqrt()
    length = step * torch.lerp(slant[0], slant[1], scattered)
    at_x = torch.floor((place[0] - grid.low[0]) / grid.size)
    at_y = torch.floor((place[1] - grid.low[1]) / grid.size)
    inside = (at_x >= 0) & (at_x < nx) & (at_y >= 0) & (at_y < ny)
    layer = torch.arange(n_samples, device=like.device)[:, None] // cuts
    flat = (layer * nx + torch.where(inside, at_x, 0 * at_x)) * ny + torch.where(inside, at_y, 0 * at_y)
    voxel = torch.where(inside, flat, torch.full_like(flat, grid.n_voxels)).to(torch.int64)
    mass = torch.where(inside, interval_mass(depth, width, edges) + SHARE_FLOOR / n_samples, torch.zeros_like(length))
    total = mass.sum(0)
    share = mass / torch.where(total > 0, total, torch.ones_like(total))
    return Walk(voxel, torch.where(inside, length, torch.zeros_like(length)), share, z, cuts)


_SIDES = (slice(0, 2), slice(2, 4))


def highland_bracket(n_rad: Tensor) -> Tensor:
    """(1 + B ln n)^2, the factor between the radiation lengths n of a whole way and its mean squared scattering F(n)
    / n.
    """
    bracket = 1 + SCATTER_COEF_B * torch.log(n_rad.clamp_min(torch.finfo(n_rad.dtype).tiny))
    return bracket.clamp_min(_MIN_BRACKET).square()


def sum_by_voxel(values: Shaped[Tensor, "*shape"], voxel: Int[Tensor, "*shape"], onto: Tensor) -> None:
    """Add values to the sums of their voxels.

    Args:
        values: one for each sample.
        voxel: flat indices.
        onto: ``(n_voxels + 1,)`` sums so far, in float64; changed in place.
    """
    onto.index_add_(0, voxel.reshape(-1), values.reshape(-1).to(onto.dtype))


def sum_squares_by_voxel(values: Float[Tensor, "sample muon"], path: Walk, onto: Tensor) -> None:
    """Add the square of what each *muon* gives to a voxel, its samples there added up first.

    Args:
        values: one for each sample.
        path: where the samples are. A muon's samples in one voxel are neighbours in one layer, because tracks are
            straight to far better than a voxel between its faces.
        onto: ``(n_voxels + 1,)`` sums so far, in float64; changed in place.
    """
    parts, voxel = (sample.unflatten(0, (-1, path.cuts)) for sample in (values, path.voxel))
    running = torch.zeros_like(parts[:, 0])
    for k in range(path.cuts):
        # (a + b)^2 = a^2 + b (b + 2 a), a what the muon gave this voxel before
        before = running if k == 0 else torch.where(voxel[:, k] == voxel[:, k - 1], running, torch.zeros_like(running))
        sum_by_voxel(parts[:, k] * (parts[:, k] + 2 * before), voxel[:, k], onto)
        running = before + parts[:, k]


def visits_by_voxel(path: Walk, onto: Tensor) -> None:
    """Count the muons that cross each voxel, each muon once.

    Args:
        path: where the samples are.
        onto: ``(n_voxels + 1,)`` counts so far; changed in place.
    """
    voxel = path.voxel.unflatten(0, (-1, path.cuts))
    new = torch.ones_like(voxel, dtype=torch.bool)
    new[:, 1:] = voxel[:, 1:] != voxel[:, :-1]
    sum_by_voxel(new, voxel, onto)


def posterior_scatter(
    tracks: Lines, z_ref: float, beta_p: Tensor, variance: Float[Tensor, "sample muon"], path: Walk, step: float
) -> Posterior:
    """Expected squared scattering of every sample, given what the tracks measured and a density.

    In the plane of the track and the one at right angles to it, with slopes divided by the stretch of either plane,
    scattering in sample k turns the track by an angle d_k of variance v_k, and what is measured is

        slope difference = sum d_k,   displacement at z_ref = sum d_k (z_ref - z_k),

    plus errors of known covariance: a linear Gaussian model. With g_k = (1, z_ref - z_k), the measured pair o and its
    covariance M = sum v_k g_k g_k^T + N, the expectation of d_k^2 is v_k - v_k^2 g_k^T M^-1 g_k + (v_k g_k^T M^-1 o)^2.
    This is the expectation step of the maximum-likelihood reconstruction by expectation maximisation. The extent of a
    sample, scattering anywhere in it, adds step^2 / 12 to the square of its arm in M, which d_k is not told about: a
    sample is short beside the distance to the detectors.

    Args:
        tracks: four lines at ``z_ref``.
        z_ref: common height, m.
        beta_p: ``(muon,)`` beta times momentum, GeV.
        variance: v_k in units of (13.6 MeV / beta p)^2.
        path: the samples.
        step: height of a sample, m.

    Returns:
        Posterior, averaged over the two planes.

    Reference: Schultz et al., IEEE Trans. Image Process. 16 (2007) 1985, eq. (24)-(33).
    """
    scale = (SCATTER_COEF_A / beta_p).square()
    arm = z_ref - path.z
    power = variance * scale
    moments = torch.stack([power.sum(0), (power * arm).sum(0), (power * (arm.square() + step * step / 12)).sum(0)])
    square, information, log_likelihood = torch.zeros_like(power), torch.zeros_like(power), torch.zeros_like(beta_p)
    for measured, noise in _planes(tracks):
        m_dd, m_dr, m_rr = moments + noise
        determinant = m_dd * m_rr - m_dr * m_dr
        inverse_dd, inverse_dr, inverse_rr = m_rr / determinant, -m_dr / determinant, m_dd / determinant
        pull_d = inverse_dd * measured[0] + inverse_dr * measured[1]
        pull_r = inverse_dr * measured[0] + inverse_rr * measured[1]
        mean = power * (pull_d + arm * pull_r)
        precision = inverse_dd + arm * (2 * inverse_dr + arm * inverse_rr)
        square += 0.5 * (mean.square() + power * (1 - power * precision))
        information += 0.5 * (precision * scale).square()
        distance = measured[0] * pull_d + measured[1] * pull_r
        log_likelihood -= 0.5 * (determinant.log() + distance) + math.log(2 * math.pi)
    return Posterior(square / scale, information, log_likelihood)


def _planes(tracks: Lines) -> list[tuple[Tensor, Tensor]]:
    """Measured (angle, displacement) and the covariance (dd, dr, rr) of their errors, along and across the mean
    track.
    """
    d, r = tracks.slope[2:] - tracks.slope[:2], tracks.position[2:] - tracks.position[:2]
    b = 0.5 * (tracks.slope[2:] + tracks.slope[:2])
    errors = torch.stack([t[2:] + t[:2] for t in (tracks.var_slope, tracks.cov, tracks.var_position)])
    b2 = b.square().sum(0)
    vertical = b2 < torch.finfo(b.dtype).eps
    safe = torch.where(vertical, torch.ones_like(b2), b2).sqrt()
    along = torch.stack(
        [torch.where(vertical, torch.ones_like(b2), b[0] / safe), torch.where(vertical, b2, b[1] / safe)]
    )
    across = torch.stack([-along[1], along[0]])
    stretch = 1 + b2
    planes = []
    for axis, factor in ((along, 1 / stretch), (across, stretch.rsqrt())):
        measured = torch.stack([(axis * d).sum(0), (axis * r).sum(0)]) * factor
        # errors of x and y are independent; their mixture along the axis is what the plane sees
        planes.append((measured, (axis.square() * errors).sum(1) * factor.square()))
    return planes
