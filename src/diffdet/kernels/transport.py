"""Flight of many muons at once through one slab of voxels. Runs without a graph: no detector parameter enters.

Component axis first, muon axis last. ``direction`` is the unit vector (sin t cos f, sin t sin f, -cos t).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from diffdet.kernels import scattering

__all__ = ["SlabPassage", "cross_slab", "fall_to", "sample_radiation_lengths", "with_border"]


class SlabPassage(NamedTuple):
    """State of the muons on the lower face of a slab.

    Attributes:
        xyz: ``(3, muon)`` positions, m.
        direction: ``(3, muon)`` unit directions.
        n_rad: ``(muon,)`` radiation lengths crossed so far.
    """

    xyz: Tensor
    direction: Tensor
    n_rad: Tensor


def fall_to(xyz: Float[Tensor, "3 muon"], direction: Float[Tensor, "3 muon"], z: Tensor | float) -> Tensor:
    """Positions on the plane at height ``z`` along straight lines (up or down)."""
    return xyz + direction * ((z - xyz[2]) / direction[2])


def with_border(per_length: Float[Tensor, "nx ny"]) -> Float[Tensor, "nx+2 ny+2"]:
    """1/X0 of a layer's voxels with a border of vacuum, which catches everything outside the footprint."""
    return torch.nn.functional.pad(per_length, (1, 1, 1, 1))


@functools.lru_cache(maxsize=64)
def _cell_middles(n_cells: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "cell 1"]:
    """Depth of the middle of every cell, as a fraction of the layer's."""
    with torch.inference_mode(False):  # kept for later calls
        return ((torch.arange(n_cells, dtype=dtype, device=device) + 0.5) / n_cells)[:, None]


@functools.lru_cache(maxsize=64)
def _last_place(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "2 1 1"]:
    """Highest index of a table in x and y."""
    with torch.inference_mode(False):  # kept for later calls
        return torch.tensor([n - 1 for n in shape], dtype=dtype, device=device)[:, None, None]


def sample_radiation_lengths(
    xy: Float[Tensor, "2 muon"],
    slope: Float[Tensor, "2 muon"],
    thickness: float,
    bordered: Float[Tensor, "bx by"],
    size: float,
    n_cells: int,
) -> Float[Tensor, "cell muon"]:
    """1/X0 in the middle of each of ``n_cells`` cells of equal depth, along straight paths through one voxel layer.

    Args:
        xy: positions on the upper face, m.
        slope: transverse movement per unit of fall.
        thickness: of the layer, m.
        bordered: 1/X0 of every voxel, see ``with_border``, 1/m.
        size: transverse voxel edge, m.
        n_cells: number of cells.

    Returns:
        1/X0, 1/m; 0 outside the footprint.
    """
    fall = _cell_middles(n_cells, xy.dtype, xy.device) * (thickness / size)
    place = torch.addcmul((xy / size + 1)[:, None], slope[:, None], fall)
    # Shifted by the border, truncation is floor. NaN, which no index can be, goes to the border.
    last = _last_place(bordered.shape, xy.dtype, xy.device)
    ix, iy = place.nan_to_num(0.0).clamp_min(0).minimum(last).to(torch.int32)
    flat = torch.add(iy, ix, alpha=bordered.shape[1])
    return bordered.flatten().index_select(0, flat.flatten()).view_as(flat)


def cross_slab(
    xyz: Float[Tensor, "3 muon"],
    direction: Float[Tensor, "3 muon"],
    beta_p: Float[Tensor, " muon"],
    n_rad: Float[Tensor, " muon"],
    normals: Float[Tensor, "4 muon"],
    bordered: Float[Tensor, "bx by"],
    *,
    top: float,
    thickness: float,
    size: float,
    n_cells: int,
) -> SlabPassage:
    """Carry muons through one layer of voxels with multiple scattering, all of them in one step.

    The path through the layer is straight at first order; its radiation lengths are sampled in ``n_cells`` cells.
    The angle's variance is the increment of Highland's formula for everything crossed so far, the displacement
    follows from the lever arms of the cells (``scattering.path_scattering``), and muons end on the lower face along
    their new direction. The width of the angle behind a homogeneous block therefore does not depend on how it is cut
    into layers or cells, and that of the displacement, with five cells or more to a layer, to 0.5 %.

    Args:
        xyz: positions, m.
        direction: unit directions; all must point down.
        beta_p: beta times momentum, GeV.
        n_rad: radiation lengths crossed before.
        normals: standard normals, see ``scattering.correlated_draw``.
        bordered: 1/X0 of the layer's voxels, see ``with_border``, 1/m.
        top: height of the upper face, m.
        thickness: of the layer, m.
        size: transverse voxel edge, m.
        n_cells: number of cells in which X0 is looked up.

    Returns:
        SlabPassage. Directions may point up (|cos| <= 0) after an extreme scatter: the caller removes those.
    """
    fall = -1 / direction[2]
    slope = direction[:2] * fall
    xy = xyz[:2] + slope * (xyz[2] - top)
    length = thickness * fall
    cells = sample_radiation_lengths(xy, slope, thickness, bordered, size, n_cells) * (length / n_cells)
    path = scattering.path_scattering(cells, n_rad, length)
    width = scattering.SCATTER_COEF_A * path.variance.sqrt() / beta_p
    angle, shift = scattering.correlated_draw(normals, width, path.moments)
    tangent = torch.tan(angle)
    across, along = scattering.transverse_vectors(direction, torch.stack([tangent, shift], 1))
    inv_norm = torch.rsqrt(1 + (tangent * tangent).sum(0))
    turned_xy, turned_z = (direction[:2] + across[:, 0]) * inv_norm, (direction[2] + along[0]) * inv_norm
    # The shift is at right angles to the track: its z part leaves the lower face; the new direction leads back to it.
    xy = xy + slope * thickness + across[:, 1] - turned_xy * (along[1] / turned_z)
    bottom = torch.full_like(turned_z, top - thickness)
    return SlabPassage(torch.cat([xy, bottom[None]]), torch.cat([turned_xy, turned_z[None]]), path.n_rad)
