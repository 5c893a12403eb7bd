"""Straight flight: along a direction by a distance, or onto horizontal planes.

Component axis first, muon axis last. A muon that meets several planes is moved to all of them in one operation.
"""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["along", "at_planes", "fall", "to_plane"]


def along(
    position: Float[Tensor, "3 *shape"], direction: Float[Tensor, "3 *shape"], distance: float | Tensor
) -> Float[Tensor, "3 *shape"]:
    """Position after flying a distance along the direction of motion.

    Differentiable in: position, direction, distance.

    Args:
        position: Start, m.
        direction: Unit vectors of motion.
        distance: Path length, m; a number, or broadcastable to ``(*shape)``. Negative flies back.

    Returns:
        End, m.
    """
    return position + direction * distance


def fall(
    position: Float[Tensor, "3 *shape"], direction: Float[Tensor, "3 *shape"], drop: float | Tensor
) -> Float[Tensor, "3 *shape"]:
    """Position after losing a height along the direction of motion.

    Differentiable in: position, direction, drop.

    Args:
        position: Start, m.
        direction: Vectors of motion of any length, with u_z != 0; a horizontal muon ends at infinity.
        drop: Height lost, m, positive downwards; a number, or broadcastable to ``(*shape)``.

    Returns:
        End, m; its z is exactly ``position[2] - drop``.
    """
    xy = position[:2] - direction[:2] * (drop / direction[2])
    z = (position[2] - drop).expand_as(xy[0])
    return torch.cat([xy, z[None]])


def to_plane(
    position: Float[Tensor, "3 *shape"], direction: Float[Tensor, "3 *shape"], z: float | Tensor
) -> Float[Tensor, "3 *shape"]:
    """Position where the line of flight meets a horizontal plane, up or down.

    Differentiable in: position, direction, z.

    Args:
        position: Start, m.
        direction: Vectors of motion of any length, with u_z != 0; a horizontal muon ends at infinity.
        z: Height of the plane, m; a number, or broadcastable to ``(*shape)``.

    Returns:
        End, m; its z is exactly that of the plane.
    """
    xy = position[:2] + direction[:2] * ((z - position[2]) / direction[2])
    height = torch.as_tensor(z, dtype=xy.dtype, device=xy.device).expand_as(xy[0])
    return torch.cat([xy, height[None]])


def at_planes(
    xy: Float[Tensor, "2 muon"],
    slope: Float[Tensor, "2 muon"],
    z: float | Tensor,
    planes: Float[Tensor, " plane"],
) -> Float[Tensor, "plane 2 muon"]:
    """Where straight tracks meet several horizontal planes.

    xy_p = xy + slope (z - z_p). This is how a panel's height reaches its hits: the derivative by z_p is minus the
    slope.

    Differentiable in: all.

    Args:
        xy: Positions at height ``z``, m.
        slope: dx/d(-z) and dy/d(-z), positive while moving to +x and falling.
        z: Height at which ``xy`` holds, m; a number, or broadcastable to ``(muon,)``.
        planes: Heights of the planes, m.

    Returns:
        Positions on every plane, m.
    """
    return xy + slope * (z - planes[:, None, None])
