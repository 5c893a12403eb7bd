"""Multiple Coulomb scattering: Highland's width, its accumulation along a path, displacements, frames, and X0 from
angles.

Lengths in m, momenta in GeV, angles in rad. Path lengths enter in units of the radiation length, n = integral ds / X0.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from diffdet.core.constants import MUON_MASS, SCATTER_COEF_A, SCATTER_COEF_B
from diffdet.kernels.safe_math import sum_rows

__all__ = [
    "PathMoments",
    "PathScattering",
    "beta_momentum",
    "correlated_draw",
    "deflect",
    "highland_variance",
    "highland_width",
    "path_scattering",
    "transverse_frame",
    "transverse_vectors",
    "variance_increment",
    "x0_from_angles",
]

# Below this n, 1 + B ln n is negative and Highland's formula is meaningless; the width is zero there (n < 4e-12).
_N_FLOOR = math.exp(-1 / SCATTER_COEF_B)


class PathMoments(NamedTuple):
    """Lever arms of the scattering along a path, weighted by scattering power, towards the path's end.

    Attributes:
        mean: ``(muon,)`` mean lever arm, m.
        spread: ``(muon,)`` standard deviation of the lever arm, m.
    """

    mean: Tensor
    spread: Tensor


def beta_momentum(momentum: Tensor, mass: float = MUON_MASS) -> Tensor:
    """beta * p = p^2 / sqrt(p^2 + m^2), GeV."""
    return momentum * momentum / torch.sqrt(momentum * momentum + mass * mass)


def highland_width(n_rad: Tensor, beta_p: Tensor, *, log_term: bool = True) -> Tensor:
    """Width of the projected scattering angle behind ``n_rad`` radiation lengths.

    theta_0 = (13.6 MeV / (beta c p)) sqrt(n) (1 + 0.038 ln n), zero where the bracket would be negative.

    Differentiable in: n_rad (n > 0), beta_p.

    Args:
        n_rad: path length in radiation lengths, >= 0.
        beta_p: beta times momentum, GeV.
        log_term: False leaves out the logarithm.

    Returns:
        Standard deviation of the angle in one plane, rad.

    Reference: Lynch and Dahl, NIM B 58 (1991) 6; PDG review "Passage of particles through matter", eq. (34.16).
    """
    safe = n_rad.clamp_min(_N_FLOOR)
    bracket = 1 + SCATTER_COEF_B * torch.log(safe) if log_term else torch.ones_like(safe)
    return SCATTER_COEF_A / beta_p * torch.sqrt(n_rad.clamp_min(0)) * bracket


def highland_variance(n_rad: Tensor) -> Tensor:
    """F(n) = n (1 + B ln n)^2: the variance of the projected angle in units of (13.6 MeV / beta c p)^2."""
    bracket = 1 + SCATTER_COEF_B * torch.log(n_rad.clamp_min(_N_FLOOR))
    return n_rad * bracket * bracket


def variance_increment(n_before: Tensor, n_step: Tensor) -> Tensor:
    """F(n_before + n_step) - F(n_before) without cancellation.

    Highland's formula describes a *total* thickness; applied to pieces it is not additive, because of the logarithm.
    Adding the increments of F step by step gives the formula's own width for the total, whatever the steps. With
    l = 1 + B ln n before and after,

        F_1 - F_0 = n_step l_1^2 + n_before B ln(1 + n_step / n_before) (l_0 + l_1),

    whose terms are all positive (n > 4e-12).

    Args:
        n_before: radiation lengths crossed before the step, >= 0.
        n_step: radiation lengths of the step, >= 0.

    Returns:
        Increment of the variance, in units of (13.6 MeV / beta c p)^2.
    """
    l_after = 1 + SCATTER_COEF_B * torch.log((n_before + n_step).clamp_min(_N_FLOOR))
    # l_0 = l_1 - growth, so l_0 + l_1 needs no further logarithm; where n_before is 0 the whole second term is
    growth = SCATTER_COEF_B * torch.log1p(n_step / n_before.clamp_min(_N_FLOOR))
    return n_step * l_after * l_after + n_before * growth * (2 * l_after - growth)


class PathScattering(NamedTuple):
    """What a path through cells of material does to a muon.

    Attributes:
        variance: ``(muon,)`` variance of the projected angle, in units of (13.6 MeV / beta c p)^2.
        moments: lever arms of the scattering.
        n_rad: ``(muon,)`` radiation lengths crossed at the path's end.
    """

    variance: Tensor
    moments: PathMoments
    n_rad: Tensor


@functools.lru_cache(maxsize=64)
def _arm_powers(n_cells: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Powers 0, 1, 2 of the lever arm of every cell, in units of the path's length, ``(3, cell, 1)``."""
    # kept for later calls, so it must be an ordinary tensor even when first asked for in inference mode
    with torch.inference_mode(False):
        arms = 1 - (torch.arange(n_cells, dtype=dtype, device=device) + 0.5) / n_cells
        return torch.stack([torch.ones_like(arms), arms, arms * arms])[:, :, None]


def path_scattering(n_cells: Float[Tensor, "cell muon"], n_before: Tensor, length: Tensor) -> PathScattering:
    """Variance of the angle behind a path, and mean and spread of the lever arm from where a muon scatters to the end.

    The path is cut into equal cells. The scattering power of a cell is the increment of Highland's variance in it, so
    their sum is the increment of the whole path, and a cell's own extent adds length^2 / 12. Given the angle at the
    end, the displacement at the end is angle * mean plus an independent part of width sigma_angle * spread; for a
    homogeneous path mean = L/2 and spread = L/sqrt(12), the PDG's pair (z_2/2, z_1/sqrt 12), but for the logarithm.

    Args:
        n_cells: radiation lengths of each cell, first cell first, >= 0.
        n_before: radiation lengths crossed before this path.
        length: length of the whole path, m.

    Returns:
        PathScattering. Where nothing scatters the variance is 0, and lever arms mean nothing.

    Reference: PDG review "Passage of particles through matter", eq. (34.20)-(34.21), with position-dependent power.
    """
    k = n_cells.shape[0]
    after = n_before + torch.cumsum(n_cells, 0)
    power = variance_increment(after - n_cells, n_cells)
    total, first, second = sum_rows(_arm_powers(k, n_cells.dtype, n_cells.device) * power, 1)
    inv_total = total.clamp_min(torch.finfo(total.dtype).tiny).reciprocal()
    mean = first * inv_total
    # the arms lie in [0, 1], so little cancels, and 1 / (12 k^2) is what a single cell has
    spread = (torch.addcmul(second * inv_total, mean, mean, value=-1).clamp_min(0) + 1 / (12 * k * k)).sqrt()
    return PathScattering(total, PathMoments(mean * length, spread * length), after[-1])


def correlated_draw(
    normals: Float[Tensor, "4 muon"], width: Tensor, moments: PathMoments, max_angle: float = math.pi / 2.2
) -> tuple[Float[Tensor, "2 muon"], Float[Tensor, "2 muon"]]:
    """Scattering angle and displacement in two orthogonal planes, with their physical correlation.

    angle = width * z_2, displacement = width * (mean * z_2 + spread * z_1): a muon deflected to one side ends up
    displaced to the *same* side (correlation +sqrt(3)/2 in a homogeneous path). Angles are limited to
    +-``max_angle``, where the small-angle picture has long ended.

    Args:
        normals: rows (z_1, z_2) of the first plane, then of the second.
        width: ``(muon,)`` standard deviation of the projected angle, rad.
        moments: lever arms of the path.
        max_angle: limit of the angle, rad.

    Returns:
        Angles (rad) and displacements (m).

    Reference: PDG review "Passage of particles through matter", eq. (34.20)-(34.22).
    """
    z1, z2 = normals[0::2], normals[1::2]
    angle = (width * z2).clamp(-max_angle, max_angle)
    displacement = width * (moments.mean * z2 + moments.spread * z1)
    return angle, displacement


def transverse_frame(direction: Float[Tensor, "3 muon"]) -> tuple[Float[Tensor, "3 muon"], Float[Tensor, "3 muon"]]:
    """Two unit vectors that form a right-angled frame with ``direction``.

    e_1 = (-sin f, cos f, 0) and e_2 = (-cos t cos f, -cos t sin f, -sin t) for a muon with polar angle t to -z and
    azimuth f; (1, 0, 0) and (0, 1, 0) for an exactly vertical one.

    Args:
        direction: unit vectors (sin t cos f, sin t sin f, -cos t).

    Returns:
        e_1, e_2.
    """
    ux, uy, uz = direction
    sine = torch.sqrt(ux * ux + uy * uy)
    vertical = sine == 0
    inv = 1 / torch.where(vertical, torch.ones_like(sine), sine)
    one, zero = torch.ones_like(sine), torch.zeros_like(sine)
    cos_f = torch.where(vertical, zero, ux * inv)
    sin_f = torch.where(vertical, -one, uy * inv)
    e1 = torch.stack([-sin_f, cos_f, zero])
    e2 = torch.stack([uz * cos_f, uz * sin_f, -sine])
    # with t = 0 the generic form gives (1, 0, 0) and (0, 1, 0): sin f = -1, uz = -1
    return e1, e2


def transverse_vectors(
    direction: Float[Tensor, "3 muon"], components: Float[Tensor, "2 *of muon"]
) -> tuple[Float[Tensor, "2 *of muon"], Float[Tensor, "*of muon"]]:
    """Vectors at right angles to ``direction`` from their two components, for muons that move down.

    The frame is (1, 0, 0), (0, 1, 0), turned with (0, 0, -1) into the direction by the shortest way:
    e_1 = (1, 0, 0) - u_x w and e_2 = (0, 1, 0) - u_y w with w = (u_x, u_y, u_z - 1) / (1 - u_z). It is smooth and
    needs no special case for vertical muons; it has another azimuth than ``transverse_frame``, which isotropic
    scattering does not feel.

    Args:
        direction: unit vectors, u_z < 0.
        components: along e_1 and e_2; any number of vectors per muon.

    Returns:
        x and y, and z of the vectors.

    Reference: Duff et al., J. Comput. Graph. Tech. 6 (2017) 1, for u_z < 0.
    """
    u = direction[:2].reshape(2, *(1,) * (components.ndim - 2), -1)
    along = (components * u).sum(0)
    return components - along * (u / (1 - direction[2])), along


def deflect(direction: Tensor, e1: Tensor, e2: Tensor, angle: Float[Tensor, "2 muon"]) -> Float[Tensor, "3 muon"]:
    """Unit direction after deflection in the frame (e1, e2): u + tan(a_1) e_1 + tan(a_2) e_2, normalised."""
    tangent = torch.tan(angle)
    turned = direction + tangent[0] * e1 + tangent[1] * e2
    return turned * torch.rsqrt((turned * turned).sum(0))


def x0_from_angles(thickness: Tensor | float, angle: Tensor, cosine: Tensor, momentum: Tensor) -> Tensor:
    """Radiation length from the RMS projected angle, Highland's formula without its logarithm inverted.

    X0 = (13.6 MeV / p)^2 thickness / (angle^2 cos).

    Differentiable in: everything.

    Args:
        thickness: vertical thickness, m.
        angle: RMS scattering angle in one plane, rad.
        cosine: cosine of the track's inclination.
        momentum: GeV.

    Returns:
        X0, m.

    Reference: PDG review "Passage of particles through matter", eq. (34.16).
    """
    return SCATTER_COEF_A**2 * thickness / ((momentum * angle).square() * cosine)
