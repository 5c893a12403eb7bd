"""Helices in a uniform field along z, and where they cross planes that contain the direction of z.

Seen along z a helix is a circle and such a plane a line; they meet in two points or none, once in every turn. So all
crossings of all turns have a closed form, without stepping. Lengths in m, momenta in GeV, fields in tesla.
"""

import math
from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffdet.kernels.safe_math import safe_sqrt

__all__ = ["CURVATURE", "Crossings", "plane_crossings", "radius"]

CURVATURE: Final = 0.299792458
"""Momentum of a particle of unit charge on a circle of 1 m in 1 T, GeV: the speed of light in m/ns."""


class Crossings(NamedTuple):
    """Where helices cross planes; every field has shape ``(turn, side, plane, particle)`` after broadcasting.

    Attributes:
        along: Coordinate along the line in which the plane is seen, from the foot of the normal, m.
        z: Height, m.
        normal: Component of the direction of motion along the plane's normal, of a unit vector.
        tangent: Component along the line.
        axial: Component along z.
        turned: Angle that the helix has turned since its beginning, rad.
        hit: Whether circle and line meet.
    """

    along: Float[Tensor, "*shape"]
    z: Float[Tensor, "*shape"]
    normal: Float[Tensor, "*shape"]
    tangent: Float[Tensor, "*shape"]
    axial: Float[Tensor, "*shape"]
    turned: Float[Tensor, "*shape"]
    hit: Bool[Tensor, "*shape"]


def radius(transverse_momentum: Float[Tensor, "..."], field: float) -> Float[Tensor, "..."]:
    """Radius of the circle of a particle of unit charge: r = p_T / (c B), 2.2 mm per MeV in 1.5 T.

    Args:
        transverse_momentum: p_T, GeV.
        field: B, T.

    Returns:
        r, m.
    """
    return transverse_momentum / (CURVATURE * field)


def plane_crossings(
    start: Float[Tensor, "3 particle"],
    azimuth: Float[Tensor, " particle"],
    dip: Float[Tensor, " particle"],
    turning_radius: Float[Tensor, " particle"],
    sense: Float[Tensor, " particle"],
    plane_azimuth: Float[Tensor, " plane"],
    plane_distance: Float[Tensor, " plane"],
    n_turns: int,
) -> Crossings:
    """Cross helices with planes n . x = d, n = (cos psi, sin psi, 0).

    A helix turns about c = x_0 + s r (-sin phi, cos phi); at the turned angle t it is at c + r (cos a, sin a) with a =
    a_0 + s t, and at z_0 + r t p_z / p_T. It meets the plane where cos(a - psi) = (d - n . c) / r: twice in a turn. At
    an angle where the circle only touches the line both crossings coincide.

    Args:
        start: Where the particles begin, m.
        azimuth: phi of their first direction, rad.
        dip: p_z / p_T.
        turning_radius: r, m; above 0.
        sense: s, 1 for turning anticlockwise seen from positive z, -1 for clockwise.
        plane_azimuth: psi of the planes' normals, rad.
        plane_distance: d, m.
        n_turns: Turns to follow.

    Returns:
        The crossings, ordered by nothing: `turned` says when they happen.

    Reference: elementary geometry of circle and line; checked by stepping along the helix.
    """
    centre_x = start[0] - sense * turning_radius * torch.sin(azimuth)
    centre_y = start[1] + sense * turning_radius * torch.cos(azimuth)
    first = torch.atan2(start[1] - centre_y, start[0] - centre_x)
    cos_psi, sin_psi = torch.cos(plane_azimuth)[:, None], torch.sin(plane_azimuth)[:, None]
    cosine = (plane_distance[:, None] - (cos_psi * centre_x + sin_psi * centre_y)) / turning_radius
    hit = cosine.abs() <= 1
    cosine = cosine.clamp(-1, 1)
    sine = safe_sqrt(1 - cosine.square())
    opening = torch.atan2(sine, cosine)
    side = torch.stack((opening, -opening))  # (side, plane, particle)
    turned = torch.remainder(sense * (plane_azimuth[:, None] + side - first), 2 * math.pi)
    turns = 2 * math.pi * torch.arange(n_turns, dtype=start.dtype, device=start.device)
    turned = turns[:, None, None, None] + turned
    signed = torch.stack((sine, -sine))
    along = (cos_psi * centre_y - sin_psi * centre_x) + turning_radius * signed
    length = torch.sqrt(1 + dip.square())
    return Crossings(
        along=along.expand_as(turned),
        z=start[2] + turning_radius * dip * turned,
        normal=(-sense * signed / length).expand_as(turned),
        tangent=(sense * cosine / length).expand_as(turned),
        axial=(dip / length).expand_as(turned),
        turned=turned,
        hit=hit.expand_as(turned),
    )
