"""How probable the scattering of muons is, given what they may have crossed.

Between the lines fitted above and below, a muon shows two numbers in each of two planes: by how much its slope changed,
and by how much the outgoing line misses the incoming one. Both are normal, with a covariance that follows from where
along the path material lies: material high up moves the outgoing line further than the same material low down. So
hypotheses about the material can be weighed against each other, each muon with the errors of its own measurement.

Component axis first, muon axis last; a plane axis of 2 holds the plane of the track and the vertical, then the one at
right angles to it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from diffdet.core.constants import SCATTER_COEF_A
from diffdet.kernels.lines import Lines
from diffdet.kernels.scattering import variance_increment
from diffdet.kernels.voxels import EDGE_TOLERANCE

__all__ = [
    "Kinks",
    "bhattacharyya_distance",
    "kinks",
    "log_density",
    "path_covariance",
    "share_inside",
    "straight_path",
]

_LEAST_SQUARE = 1e-12
"""Squared slope below which a track counts as vertical: its plane can then be any."""


class Kinks(NamedTuple):
    """What muons show of their scattering, in the two planes of each, and how well it is measured.

    Attributes:
        slope: ``(2, muon)`` outgoing minus incoming slope.
        offset: ``(2, muon)`` incoming minus outgoing position at the reference height, m. A kink of slope k at a height
            d above the reference makes an offset k d.
        var_slope: variance of ``slope`` from the hits.
        cov: covariance of ``slope`` and ``offset`` from the hits, m.
        var_offset: variance of ``offset`` from the hits, m^2.
        stretch: variance of the slope per variance of the angle: sec^4 in the plane of the track, sec^2 across.
    """

    slope: Tensor
    offset: Tensor
    var_slope: Tensor
    cov: Tensor
    var_offset: Tensor
    stretch: Tensor


def kinks(tracks: Lines) -> Kinks:
    """Kinks of muons from the lines fitted above and below.

    Differentiable in: tracks. The planes, which the scattering hardly turns, carry no gradient, and errors
    in x and y are taken as independent in the turned frame, too (exact where they are equal, as for square panels).

    Args:
        tracks: ``(4, muon)`` lines at one common height, rows (in_x, in_y, out_x, out_y), slopes dx/dz.

    Returns:
        Kinks.
    """
    mean = 0.5 * (tracks.slope[:2] + tracks.slope[2:]).detach()
    square = mean[0] * mean[0] + mean[1] * mean[1]
    upright = square < _LEAST_SQUARE
    root = torch.where(upright, torch.ones_like(square), square).sqrt()
    cosine, sine = torch.where(upright, torch.ones_like(square), mean[0] / root), mean[1] / root

    def turned(vector: Tensor) -> Tensor:
        return torch.stack([cosine * vector[0] + sine * vector[1], cosine * vector[1] - sine * vector[0]])

    def of_both(variance: Tensor) -> Tensor:
        x, y = variance[:2] + variance[2:]
        return torch.stack([cosine * cosine * x + sine * sine * y, sine * sine * x + cosine * cosine * y])

    sec2 = 1 + square
    return Kinks(
        turned(tracks.slope[2:] - tracks.slope[:2]),
        turned(tracks.position[:2] - tracks.position[2:]),
        of_both(tracks.var_slope),
        -of_both(tracks.cov),
        of_both(tracks.var_position),
        torch.stack([sec2 * sec2, sec2]),
    )


def straight_path(
    tracks: Lines, top: float, bottom: float, heights: Float[Tensor, " cell"]
) -> tuple[Float[Tensor, "2 cell muon"], Float[Tensor, " muon"]]:
    """Where muons are at given heights between two faces, as if they flew straight from face to face.

    Args:
        tracks: as for `kinks`.
        top: height of the upper face, where the incoming line ends, m.
        bottom: height of the lower face, where the outgoing line begins, m.
        heights: m.

    Returns:
        x and y at the heights, m, and length of path per height; without gradient, because they choose what material is
        looked at.
    """
    position, slope, z_ref = tracks.position.detach(), tracks.slope.detach(), tracks.z_ref.detach()
    entry = position[:2] + slope[:2] * (top - z_ref)
    leave = position[2:] + slope[2:] * (bottom - z_ref)
    share = ((top - heights) / (top - bottom))[:, None]
    mean = (entry - leave) / (top - bottom)
    stretch = (1 + mean[0] * mean[0] + mean[1] * mean[1]).sqrt()
    return entry[:, None] + share * (leave - entry)[:, None], stretch


def share_inside(xy: Tensor, low: tuple[float, float], high: tuple[float, float]) -> Tensor:
    """1 where a point ``(xy, *points)`` lies in a rectangle (lower edges belong to it), else 0, in its dtype."""
    slack = EDGE_TOLERANCE * (high[0] - low[0])
    x, y = xy
    inside = (x >= low[0] - slack) & (x < high[0] - slack) & (y >= low[1] - slack) & (y < high[1] - slack)
    return inside.to(xy.dtype)


def path_covariance(
    n_cells: Float[Tensor, "*of cell muon"],
    arms: Float[Tensor, " cell"],
    thickness: float,
    beta_p: Float[Tensor, " muon"],
) -> Float[Tensor, "3 *of muon"]:
    """Covariance of a kink's angle and its offset from scattering along a path, in one plane.

    A cell at height d above the reference bends the muon by an angle whose variance is the increment of Highland's in
    it, F(n after) - F(n before) with F(n) = n (1 + 0.038 ln n)^2 in units of (13.6 MeV / beta c p)^2, so that all cells
    together give the formula's own width; the bend makes an offset of d times the angle, and the cell's own thickness
    adds thickness^2 / 12 to d^2.

    Args:
        n_cells: radiation lengths of each cell of the path, upper cell first, >= 0.
        arms: height of the cells' middles above the reference, m.
        thickness: height of a cell, m.
        beta_p: beta times momentum, GeV.

    Returns:
        Variance of the angle, covariance [m], and variance of the offset [m^2].

    Reference: PDG review "Passage of particles through matter", eq. (34.16) and (34.20)-(34.22).
    """
    after = torch.cumsum(n_cells, -2)
    power = variance_increment(after - n_cells, n_cells)
    levers = torch.stack([torch.ones_like(arms), arms, arms * arms + thickness * thickness / 12])
    return torch.stack([(power * lever[:, None]).sum(-2) for lever in levers]) * (SCATTER_COEF_A / beta_p) ** 2


def log_density(kinks: Kinks, scattering: Float[Tensor, "3 *of muon"]) -> Float[Tensor, "*of muon"]:
    """Logarithm of the probability density of kinks, both planes together, up to a constant.

    In each plane (slope, offset) is normal about 0 with covariance stretch * scattering + hits. It is taken apart into
    the slope and the offset given the slope, each a normal in one dimension.

    Differentiable in: everything.

    Args:
        kinks: of the muons.
        scattering: see `path_covariance`.

    Returns:
        Logarithm of the density, one for each hypothesis and muon.

    Reference: L. J. Schultz et al., IEEE Trans. Image Process. 16 (2007) 1985.
    """
    found = torch.zeros_like(scattering[0])
    for plane in range(2):
        normal = _normal(kinks, scattering, plane)
        slope, offset = kinks.slope[plane], kinks.offset[plane]
        miss = offset - normal.carried * slope
        square = slope * slope / normal.variance + miss * miss / normal.rest
        found = found - 0.5 * (_log_determinant(normal) + square)
    return found


def bhattacharyya_distance(
    kinks: Kinks, one: Float[Tensor, "3 *#of muon"], other: Float[Tensor, "3 *#of muon"]
) -> Tensor:
    """How well a muon tells two hypotheses apart, whatever its kink turns out to be: no kink enters, only its errors.

    For normals about 0 with covariances A and B, D = 1/2 ln(det((A + B) / 2) / sqrt(det A det B)), both planes added.
    Over independent muons distances add up, and a decision between equally probable hypotheses goes wrong with a
    probability of at most exp(-sum D) / 2.

    Differentiable in: everything.

    Args:
        kinks: of the muons; their errors are used.
        one: covariance of the scattering under one hypothesis, see `path_covariance`.
        other: the same under the other.

    Returns:
        ``(*of, muon)`` distances, 0 where the hypotheses are the same.

    Reference: T. Kailath, IEEE Trans. Commun. Technol. 15 (1967) 52.
    """
    found = torch.zeros_like(other[0] + one[0])
    mean = 0.5 * (one + other)
    for plane in range(2):
        middle, first, second = (_log_determinant(_normal(kinks, s, plane)) for s in (mean, one, other))
        found = found + 0.5 * (middle - 0.5 * (first + second))
    return found


class _Normal(NamedTuple):
    """A normal of slope and offset as one of the slope and one of the offset given the slope.

    Attributes:
        variance: of the slope.
        carried: offset per slope, m.
        rest: variance of the offset given the slope, m^2.
    """

    variance: Tensor
    carried: Tensor
    rest: Tensor


def _normal(kinks: Kinks, scattering: Tensor, plane: int) -> _Normal:
    """Scattering and errors of the hits together, in one plane."""
    stretch = kinks.stretch[plane]
    variance = torch.addcmul(kinks.var_slope[plane], stretch, scattering[0])
    carried = torch.addcmul(kinks.cov[plane], stretch, scattering[1]) / variance
    spread = torch.addcmul(kinks.var_offset[plane], stretch, scattering[2])
    # what rounding leaves of the difference says nothing where the hits fix neither slope nor offset
    least = 16 * torch.finfo(scattering.dtype).eps
    return _Normal(variance, carried, torch.maximum(spread - carried * carried * variance, least * spread))


def _log_determinant(normal: _Normal) -> Tensor:
    return normal.variance.log() + normal.rest.log()
