"""From particles in silicon to digits: energy along tracks, spread of the charge, pixels, read-out.

Everything works on flat columns of many particles at once. A particle belongs to an *owner*: the event when digits of
an event are wanted, or the particle itself when its own pixels are (see `tuning`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from diffdet.core.units import keV, um
from diffdet.kernels import silicon
from diffdet.overlay.standin.geometry import N_U, N_V, Geometry

__all__ = ["GAIN", "THRESHOLD", "Deposits", "Electronics", "cells", "join", "read_out", "stopped", "tracks"]

GAIN: Final = 130.0 / 0.6
"""Electrons per ADU: 130 nA per ADU over 0.6 nA per electron."""

THRESHOLD: Final = 7
"""Zero suppression, ADU."""

STEP: Final = 5 * um
"""Length of the pieces of a track, m."""

_DELTA_FROM: Final = 15 * keV
"""Energy from which the range of a knocked-out electron matters beside the pixels, GeV."""

_PACKET: Final = 0.8 * keV
"""Energy up to which charge drifts together, about 220 electrons, GeV."""

_STEEPEST: Final = 40.0
"""Largest slope in the plane that is followed: 3 mm in 75 um."""


@dataclass(frozen=True)
class Electronics:
    """How charge spreads and is read out.

    Attributes:
        drift_sigma: Spread while drifting, m.
        border_u: Half width of the strip between two cells of u in which charge walks to either, m.
        border_v: Likewise for v, m.
        lorentz: Shift in u of charge that drifts through the whole thickness, m.
        noise: Of the electronics, ADU.
        pedestal: Mean of the pedestals, ADU.
        pedestal_sigma: Their spread, ADU.
    """

    drift_sigma: float = 4 * um
    border_u: float = 4 * um
    border_v: float = 7 * um
    lorentz: float = 10 * um
    noise: float = 150.0 / GAIN
    pedestal: float = 100.0
    pedestal_sigma: float = 30.0


@dataclass(frozen=True)
class Deposits:
    """Energy at points in the silicon of sensors, one row a point.

    Attributes:
        owner: Whose it is.
        sensor: Index of the sensor.
        u: Coordinate from the middle of the active area, m.
        v: Coordinate from its low end in z, m.
        depth: From the middle of the thickness, m.
        energy: GeV.
    """

    owner: Tensor
    sensor: Tensor
    u: Tensor
    v: Tensor
    depth: Tensor
    energy: Tensor


def join(*parts: Deposits) -> Deposits:
    """All rows of several tables."""
    names = ("owner", "sensor", "u", "v", "depth", "energy")
    return Deposits(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def tracks(
    owner: Tensor,
    sensor: Tensor,
    u: Tensor,
    v: Tensor,
    slope_u: Tensor,
    slope_v: Tensor,
    density: Tensor,
    thickness: float,
    generator: torch.Generator,
) -> Deposits:
    """Energy that charged particles leave which cross the whole thickness in a straight line.

    Args:
        owner: Whose each particle is.
        sensor: Index of the sensor.
        u: Where it crosses the middle plane, m.
        v: Likewise, m.
        slope_u: du/dw of its direction.
        slope_v: dv/dw.
        density: Energy loss in units of that of a minimum-ionising particle.
        thickness: m.
        generator: Source of random numbers.
    """
    slope_u, slope_v = slope_u.clamp(-_STEEPEST, _STEEPEST), slope_v.clamp(-_STEEPEST, _STEEPEST)
    length = thickness * torch.sqrt(1 + slope_u.square() + slope_v.square())
    n_steps = torch.ceil(length / STEP).to(torch.int64)
    row = torch.repeat_interleave(n_steps)
    number = torch.arange(len(row)) - torch.repeat_interleave(n_steps.cumsum(0) - n_steps, n_steps)
    depth = thickness * ((number + 0.5) / n_steps[row] - 0.5)
    soft = silicon.soft_loss((length / n_steps)[row], _normal(row.shape, generator), density[row])

    n_hard = torch.poisson(silicon.hard_collisions(length, density), generator=generator).to(torch.int64)
    hard_row = torch.repeat_interleave(n_hard)
    hard_depth = thickness * (_uniform(hard_row.shape, generator) - 0.5)
    hard = silicon.hard_collision(_uniform(hard_row.shape, generator))

    far = hard > _DELTA_FROM
    knocked = hard_row[far]
    parts = []
    for rows, deep, energy in ((row, depth, soft), (hard_row[~far], hard_depth[~far], hard[~far])):
        at_u, at_v = u[rows] + slope_u[rows] * deep, v[rows] + slope_v[rows] * deep
        parts.append(Deposits(owner[rows], sensor[rows], at_u, at_v, deep, energy))
    deep = hard_depth[far]
    ranging = stopped(
        owner[knocked],
        sensor[knocked],
        u[knocked] + slope_u[knocked] * deep,
        v[knocked] + slope_v[knocked] * deep,
        hard[far],
        thickness,
        generator,
        depth=deep,
    )
    return join(*parts, ranging)


def stopped(
    owner: Tensor,
    sensor: Tensor,
    u: Tensor,
    v: Tensor,
    energy: Tensor,
    thickness: float,
    generator: torch.Generator,
    *,
    depth: Tensor | None = None,
    ranging: Tensor | None = None,
) -> Deposits:
    """Energy of slow electrons that run in a random direction until they stop: photoelectrons, knocked-out electrons.

    Args:
        owner: Whose each is.
        sensor: Index of the sensor.
        u: Where it begins, m.
        v: Likewise, m.
        energy: Kinetic energy, GeV.
        thickness: m; what would leave it is lost.
        generator: Source of random numbers.
        depth: Where it begins, m; uniform where None.
        ranging: Which of them are electrons; the others stop where they begin. All where None.
    """
    start = thickness * (_uniform(u.shape, generator) - 0.5) if depth is None else depth
    # The path of a slow electron is crooked: it ends at about half its range from where it began.
    reach = 0.5 * silicon.electron_range(energy)
    reach = reach if ranging is None else reach * ranging
    cosine = 2 * _uniform(u.shape, generator) - 1
    sine = torch.sqrt((1 - cosine.square()).clamp_min(0))
    azimuth = 2 * torch.pi * _uniform(u.shape, generator)
    n_steps = torch.ceil(reach / STEP).clamp(1, 400).to(torch.int64)
    row = torch.repeat_interleave(n_steps)
    number = torch.arange(len(row)) - torch.repeat_interleave(n_steps.cumsum(0) - n_steps, n_steps)
    along = ((number + 0.5) / n_steps[row]) * reach[row]
    deep = start[row] + along * cosine[row]
    inside = deep.abs() <= 0.5 * thickness
    row, along, deep = row[inside], along[inside], deep[inside]
    return Deposits(
        owner[row],
        sensor[row],
        u[row] + along * (sine * torch.cos(azimuth))[row],
        v[row] + along * (sine * torch.sin(azimuth))[row],
        deep,
        (energy / n_steps)[row],
    )


def cells(
    deposits: Deposits, geometry: Geometry, electronics: Electronics, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels in which the charge of the deposits ends, packet by packet.

    Args:
        deposits: The deposits.
        geometry: The sensors.
        electronics: How charge spreads.
        generator: Source of random numbers.

    Returns:
        For every packet that ends in a pixel: its owner, the pixel's number ``(sensor * N_U + u) * N_V + v``, and its
        energy, GeV.
    """
    n_packets = torch.ceil(deposits.energy / _PACKET).clamp_min(1).to(torch.int64)
    packet = torch.repeat_interleave(n_packets)
    energy = (deposits.energy / n_packets)[packet]
    sensor, shape = deposits.sensor[packet], packet.shape
    shift = electronics.lorentz / geometry.thickness * deposits.depth
    u = (deposits.u + shift)[packet] + electronics.drift_sigma * _normal(shape, generator)
    v = deposits.v[packet] + electronics.drift_sigma * _normal(shape, generator)
    u_cell = geometry.u_cell(u)
    v_cell, pitch = geometry.v_cell(v, sensor)
    u_border = torch.full_like(u, electronics.border_u / geometry.u_pitch)
    u_cell = silicon.caught_in(u_cell, u_border, _uniform(shape, generator)).to(torch.int64)
    v_cell = silicon.caught_in(v_cell, electronics.border_v / pitch, _uniform(shape, generator)).to(torch.int64)
    rows = ((u_cell >= 0) & (u_cell < N_U) & (v_cell >= 0) & (v_cell < N_V)).nonzero()[:, 0]
    return deposits.owner[packet[rows]], (sensor[rows] * N_U + u_cell[rows]) * N_V + v_cell[rows], energy[rows]


def read_out(
    pixel: Tensor, energy: Tensor, electronics: Electronics, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Sum the energy in every pixel and read it out.

    Args:
        pixel: Number of a pixel, in any order and more than once.
        energy: GeV.
        electronics: Noise and pedestals.
        generator: Source of random numbers.

    Returns:
        Numbers of the pixels that are read out, ascending, and their charges, ADU.
    """
    order = pixel.argsort()
    found, counts = torch.unique_consecutive(pixel[order], return_counts=True)
    index = torch.repeat_interleave(counts)
    charge = torch.zeros(len(found), dtype=torch.float64).index_add_(0, index, energy[order].double())
    charge = charge / silicon.ENERGY_PER_PAIR
    pedestal = electronics.pedestal + electronics.pedestal_sigma * _normal(found.shape, generator)
    noise = electronics.noise * _normal(found.shape, generator)
    charges, kept = silicon.converted(charge, noise, pedestal, gain=GAIN, threshold=THRESHOLD)
    return found[kept], charges[kept]


def _normal(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator)


def _uniform(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator)
