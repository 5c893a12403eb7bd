"""Kinds of particles that background is made of, and how they are drawn.

Three kinds:

* **curlers**: electrons and positrons from the interaction point, followed along their helix through all forty planes,
  so that ladders, layers and sides share particles (two-photon pairs);
* **passing**: electrons that cross one sensor, by their slope and direction in the plane (secondaries of showers, whose
  way through the rest of the detector is not followed);
* **stopping**: photons that convert and slow electrons, by the energy that they leave (showers, synchrotron radiation).

How often each occurs is tuned to measured statistics (`diffdet.overlay.standin.tuning`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor

from diffdet.core.units import MeV, keV, mm
from diffdet.kernels import helix
from diffdet.overlay.standin.geometry import FIELD, Geometry

__all__ = ["CURLERS", "PASSING", "STOPPING", "Crossing", "Curler", "Passing", "Stopping", "curl", "names"]

N_TURNS: Final = 8
MEAN_TURNING: Final = 3 * math.pi
"""Mean angle that a curler turns before matter stops it, rad."""


@dataclass(frozen=True)
class Curler:
    """Electrons from the interaction point in a range of transverse momentum, GeV, falling as its inverse square."""

    low: float
    high: float

    @property
    def name(self) -> str:
        """Name in the table of rates."""
        return f"curler {self.low / MeV:g}-{self.high / MeV:g} MeV"


@dataclass(frozen=True)
class Passing:
    """Electrons that cross a sensor.

    Attributes:
        low: Least tangent of the angle to the normal.
        high: Largest; drawn evenly in its logarithm.
        direction: ``"u"`` or ``"v"``: within 20 degrees of that axis in the plane; ``"any"``.
        density: Energy loss in units of that of a minimum-ionising particle.
    """

    low: float
    high: float
    direction: str
    density: float = 1.0

    @property
    def name(self) -> str:
        """Name in the table of rates."""
        return f"passing {self.low:g}-{self.high:g} {self.direction} x{self.density:g}"


@dataclass(frozen=True)
class Stopping:
    """What leaves an energy between two bounds, GeV, even in its logarithm.

    Attributes:
        low: Least energy.
        high: Largest energy.
        ranging: Whether it is an electron with a range, from a photon or slow by itself; otherwise a nucleus that a
            neutron or a slow proton struck, whose range is far below a pixel.
    """

    low: float
    high: float
    ranging: bool = True

    @property
    def name(self) -> str:
        """Name in the table of rates."""
        return f"{'stopping' if self.ranging else 'recoil'} {self.low / keV:g}-{self.high / keV:g} keV"


CURLERS: Final = tuple(
    Curler(low * MeV, high * MeV)
    for low, high in ((3.5, 4.5), (4.5, 6.0), (6.0, 8.0), (8.0, 12.0), (12.0, 20.0), (20.0, 50.0))
)
_EDGES: Final = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_SLOPES: Final = ((1.0, ("u", "v", "any"), _EDGES), (2.0, ("any",), _EDGES), (4.0, ("any",), _EDGES[:5]))
PASSING: Final = tuple(
    Passing(low, high, direction, density)
    for density, directions, edges in _SLOPES
    for direction in directions
    for low, high in pairwise(edges)
)
_ENERGIES: Final = (5.0, 6.0, 7.0, 8.0, 10.0, 12.5, 16.0, 20.0, 26.0, 34.0, 45.0, 60.0, 80.0, 110.0, 150.0, 200.0)
STOPPING: Final = tuple(
    Stopping(low * keV, high * keV, ranging)
    for ranging, energies in ((True, _ENERGIES), (False, _ENERGIES[9:]))
    for low, high in pairwise(energies)
)


def names() -> tuple[str, ...]:
    """Names of all populations in the order of the table of rates: curlers, passing, stopping."""
    return tuple(kind.name for kind in (*CURLERS, *PASSING, *STOPPING))


@dataclass(frozen=True)
class Crossing:
    """Particles that cross sensors, one row a crossing.

    Attributes:
        particle: Number of the particle.
        sensor: Index of the sensor.
        u: Where, from the middle of the active area, m.
        v: Where, from its low end in z, m.
        slope_u: du/dw.
        slope_v: dv/dw.
        density: Energy loss in units of that of a minimum-ionising particle.
    """

    particle: Tensor
    sensor: Tensor
    u: Tensor
    v: Tensor
    slope_u: Tensor
    slope_v: Tensor
    density: Tensor


def curl(kind: Tensor, geometry: Geometry, generator: torch.Generator) -> Crossing:
    """Follow curlers through all sensors.

    Args:
        kind: Index in `CURLERS` of every particle.
        geometry: The sensors.
        generator: Source of random numbers.

    Returns:
        Their crossings.
    """
    low = torch.tensor([curler.low for curler in CURLERS])[kind]
    high = torch.tensor([curler.high for curler in CURLERS])[kind]
    numbers = torch.rand((4, len(kind)), generator=generator)
    momentum = 1 / (1 / low + numbers[0] * (1 / high - 1 / low))
    azimuth = 2 * math.pi * numbers[1]
    dip = torch.sinh(4.0 * numbers[2] - 2.0)
    sense = torch.where(numbers[3] < 0.5, -1.0, 1.0)
    start = torch.zeros(3, len(kind))
    start[2] = 5 * mm * torch.randn(len(kind), generator=generator)
    # -log(1 - u) of a uniform number is exponential
    ends = -MEAN_TURNING * torch.log1p(-torch.rand(len(kind), generator=generator))
    found = helix.plane_crossings(
        start,
        azimuth,
        dip,
        helix.radius(momentum, FIELD),
        sense,
        geometry.azimuth,
        geometry.distance,
        N_TURNS,
    )
    u = found.along - geometry.u_centre
    good = found.hit & (u.abs() < geometry.half_width) & (found.turned < ends)
    _, _, ladder, particle = rows = good.nonzero(as_tuple=True)
    u, z = u[rows], found.z[rows]
    normal, tangent, axial = found.normal[rows], found.tangent[rows], found.axial[rows]
    parts = []
    for side in (0, 1):
        sensor = 2 * ladder + side
        v = z - geometry.low_z[sensor]
        inside = (v > 0) & (v < geometry.length[sensor])
        shallow = torch.where(normal < 0, normal.clamp_max(-1e-3), normal.clamp_min(1e-3))
        parts.append(
            Crossing(
                particle[inside],
                sensor[inside],
                u[inside],
                v[inside],
                (tangent / shallow)[inside],
                (axial / shallow)[inside],
                torch.ones(int(inside.sum())),
            )
        )
    return _join(parts)


def _join(parts: list[Crossing]) -> Crossing:
    names = ("particle", "sensor", "u", "v", "slope_u", "slope_v", "density")
    return Crossing(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def scatter(kind: Tensor, sensor: Tensor, geometry: Geometry, generator: torch.Generator) -> Crossing:
    """Passing electrons, evenly over the active area.

    Args:
        kind: Index in `PASSING` of every particle.
        sensor: Sensor that each crosses.
        geometry: The sensors.
        generator: Source of random numbers.
    """
    numbers = torch.rand((5, len(kind)), generator=generator)
    low = torch.tensor([passing.low for passing in PASSING])[kind]
    high = torch.tensor([passing.high for passing in PASSING])[kind]
    slope = torch.where(numbers[4] < 0.5, -low, low) * (high / low) ** numbers[0]
    # u: within 20 degrees of the axis of u; v: of that of v; any: everywhere
    spread = torch.tensor([math.pi if one.direction == "any" else math.pi / 9 for one in PASSING])[kind]
    centre = torch.tensor([math.pi / 2 if one.direction == "v" else 0.0 for one in PASSING])[kind]
    angle = centre + spread * (2 * numbers[1] - 1)
    return Crossing(
        torch.arange(len(kind)),
        sensor,
        geometry.half_width * (2 * numbers[2] - 1),
        geometry.length[sensor] * numbers[3],
        slope * torch.cos(angle),
        slope * torch.sin(angle),
        torch.tensor([one.density for one in PASSING])[kind],
    )


def convert(
    kind: Tensor, sensor: Tensor, geometry: Geometry, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where photons convert and slow electrons stop, and the energy that they leave.

    Args:
        kind: Index in `STOPPING` of every particle.
        sensor: Sensor of each.
        geometry: The sensors.
        generator: Source of random numbers.

    Returns:
        u and v, m; energy, GeV; and whether it is an electron that ranges.
    """
    numbers = torch.rand((3, len(kind)), generator=generator)
    low = torch.tensor([one.low for one in STOPPING])[kind]
    high = torch.tensor([one.high for one in STOPPING])[kind]
    u = geometry.half_width * (2 * numbers[0] - 1)
    ranging = torch.tensor([one.ranging for one in STOPPING])[kind]
    return u, geometry.length[sensor] * numbers[1], low * (high / low) ** numbers[2], ranging
