"""The forty planes in space, for particles to cross: two layers of ladders around the beam, two sensors to a ladder.

The numbers are those of `diffdet.overlay.sensors`, as tensors, and in the frame of the ladders: u along r-phi, v along
z from the low end of a sensor, w outwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from diffdet.overlay.sensors import PXD, THICKNESS, U_CENTRE, Sensor

__all__ = ["FIELD", "GROUPS", "N_SENSORS", "N_U", "N_V", "Geometry", "group_of"]

N_SENSORS: Final = len(PXD)
N_U: Final = PXD.n_u
N_V: Final = PXD.n_v

FIELD: Final = 1.5
"""Magnetic field along z, T."""

GROUPS: Final = ("layer 1 forward", "layer 1 backward", "layer 2 forward", "layer 2 backward")
"""Sensors of a kind: they share distributions and differ in rates."""


def group_of() -> Tensor:
    """Index in `GROUPS` of every sensor."""
    return torch.tensor([2 * (sensor.layer - 1) + sensor.sensor - 1 for sensor in PXD])


def _ladders() -> list[Sensor]:
    return [sensor for sensor in PXD if sensor.is_forward]


def _pitch(large: bool) -> Tensor:
    choose = max if large else min
    return torch.tensor([choose(pitch for _, pitch in sensor.v_segments) for sensor in PXD])


@dataclass(frozen=True)
class Geometry:
    """Planes, pitches and frames of the sensors; the default is the nominal detector.

    Attributes:
        thickness: Of the active silicon, m.
        u_pitch: m.
        azimuth: Of the normal of every ladder, rad.
        distance: Of every ladder's plane from the beam, m.
        u_centre: Middle of the active area along u, from the foot of the normal, m.
        low_z: z of v = 0 of every sensor, m.
        small: Small pitch of v of every sensor, m.
        large: Large pitch, m.
        n_small: Cells of the small pitch.
        n_large: Cells of the large pitch.
    """

    thickness: float = THICKNESS
    u_pitch: float = PXD[0].u_pitch
    u_centre: float = U_CENTRE
    azimuth: Tensor = field(default_factory=lambda: torch.tensor([one.azimuth for one in _ladders()]))
    distance: Tensor = field(default_factory=lambda: torch.tensor([one.radius for one in _ladders()]))
    low_z: Tensor = field(default_factory=lambda: torch.tensor([sensor.low_z for sensor in PXD]))
    small: Tensor = field(default_factory=lambda: _pitch(large=False))
    large: Tensor = field(default_factory=lambda: _pitch(large=True))

    n_small: int = 256
    n_large: int = 512

    @property
    def half_width(self) -> float:
        """Half the active width along u, m."""
        return 0.5 * N_U * self.u_pitch

    @property
    def length(self) -> Tensor:
        """Active length of every sensor along v, m."""
        return self.n_small * self.small + self.n_large * self.large

    def u_cell(self, u: Tensor) -> Tensor:
        """Coordinate in cells of u, from 0 to `N_U`.

        Args:
            u: From the middle of the active area, m.
        """
        return (u + self.half_width) / self.u_pitch

    def v_cell(self, v: Tensor, sensor: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinate in cells of v, from 0 to `N_V`, and the pitch there.

        Sensor 1 of a ladder has its small cells first, sensor 2 last: they lie where the two are glued together.

        Args:
            v: From the low end, m.
            sensor: Index of the sensor.
        """
        small, large = self.small[sensor], self.large[sensor]
        forward = sensor % 2 == 0
        first, second = torch.where(forward, small, large), torch.where(forward, large, small)
        n_first = torch.where(forward, self.n_small, self.n_large)
        border = n_first * first
        cell = torch.where(v < border, v / first, n_first + (v - border) / second)
        return cell, torch.where(v < border, first, second)
