"""The sensors of a pixel detector: what they are called, where they are, how large their pixels are.

`PXD` is the pixel detector of Belle II: two layers of ladders around the beam, two sensors to a ladder, forty in all.
A sensor's index (axis 0 of every image, column `sensor` of every digit) counts layer, ladder and sensor, in that order.

Frames. Global: z along the axis of the detector, azimuth from x towards y. Local: the origin is the middle of the
active area, u points along r-phi (rising azimuth), v along global +z, w outwards. Cells of u and v count from the low
end of their axis; sensor 1 of a ladder is the forward one (+z).

This module needs the standard library only, so that names and numbers are at hand where torch is not installed; methods
that return tensors load torch when they are called.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import index as as_integer
from typing import TYPE_CHECKING, Final, overload

from diffdet.core.errors import InputError
from diffdet.core.units import deg, mm, um
from diffdet.core.words import nearest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["PXD", "SEGMENT_BITS", "Sensor", "SensorLayout", "pack_vxdid", "unpack_vxdid"]

SEGMENT_BITS: Final = 0x1F
"""The low bits of a VxdID that number a segment; some files keep a frame number there. They are no part of a sensor."""

U_CENTRE: Final = 2.65 * mm
"""Middle of the active area along u from the foot of the ladder's normal (the ladders are set like a windmill), m."""

THICKNESS: Final = 75 * um
"""Active silicon, m."""


def pack_vxdid(layer: int, ladder: int, sensor: int, segment: int = 0) -> int:
    """The 16-bit identifier of a sensor.

    The layer stands in bits 13 to 15, the ladder in 8 to 12, the sensor in 5 to 7, the segment in 0 to 4.

    Example:
        >>> pack_vxdid(1, 1, 1), pack_vxdid(2, 12, 2)
        (8480, 19520)

    Raises:
        InputError: If a number does not fit its bits.
    """
    for name, value, bits in (
        ("layer", layer, 3),
        ("ladder", ladder, 5),
        ("sensor", sensor, 3),
        ("segment", segment, 5),
    ):
        if not 0 <= value < 1 << bits:
            raise InputError(f"`{name}` must lie in [0, {(1 << bits) - 1}]; got {value}")
    return layer << 13 | ladder << 8 | sensor << 5 | segment


def unpack_vxdid(vxdid: int) -> tuple[int, int, int, int]:
    """Layer, ladder, sensor and segment of a 16-bit identifier.

    Raises:
        InputError: If the identifier has more than 16 bits.
    """
    if not 0 <= vxdid < 1 << 16:
        raise InputError(f"`vxdid` must lie in [0, 65535]; got {vxdid}")
    return vxdid >> 13, vxdid >> 8 & 0x1F, vxdid >> 5 & 0x7, vxdid & SEGMENT_BITS


@dataclass(frozen=True)
class Sensor:
    """One sensor: a flat rectangle of pixels.

    Attributes:
        index: Position in its layout.
        layer: From 1.
        ladder: From 1, with rising azimuth.
        sensor: From 1; 1 is the forward one.
        azimuth: Of the normal, rad.
        radius: Distance of the plane from the axis, m.
        u_centre: Middle of the active area along u from the foot of the normal, m.
        low_z: Global z of the low end of v, m.
        n_u: Cells along u.
        u_pitch: m.
        v_segments: Cells and pitch (m) of each stretch along v, from the low end.
        thickness: Of the active silicon, m.
    """

    index: int
    layer: int
    ladder: int
    sensor: int
    azimuth: float
    radius: float
    u_centre: float
    low_z: float
    n_u: int
    u_pitch: float
    v_segments: tuple[tuple[int, float], ...]
    thickness: float

    @property
    def name(self) -> str:
        """Layer, ladder and sensor with dots between, such as ``"1.1.1"``."""
        return f"{self.layer}.{self.ladder}.{self.sensor}"

    @property
    def vxdid(self) -> int:
        """The 16-bit identifier, with segment 0."""
        return pack_vxdid(self.layer, self.ladder, self.sensor)

    @property
    def n_v(self) -> int:
        """Cells along v."""
        return sum(cells for cells, _ in self.v_segments)

    @property
    def is_forward(self) -> bool:
        """Whether it is the sensor towards +z."""
        return self.sensor == 1

    @property
    def width(self) -> float:
        """Active length along u, m."""
        return self.n_u * self.u_pitch

    @property
    def length(self) -> float:
        """Active length along v, m."""
        return sum(cells * pitch for cells, pitch in self.v_segments)

    @property
    def high_z(self) -> float:
        """Global z of the high end of v, m."""
        return self.low_z + self.length

    @property
    def v_border(self) -> int:
        """The first cell of the second stretch of v, where the pitch changes."""
        return self.v_segments[0][0]

    @cached_property
    def v_edges(self) -> tuple[float, ...]:
        """Local v of the n_v + 1 edges of the cells, m, from -length/2 to length/2."""
        edges = [-0.5 * self.length]
        for cells, pitch in self.v_segments:
            start = edges[-1]
            edges.extend(start + (k + 1) * pitch for k in range(cells))
        return tuple(edges)

    @cached_property
    def u_edges(self) -> tuple[float, ...]:
        """Local u of the n_u + 1 edges of the cells, m, from -width/2 to width/2."""
        return tuple(-0.5 * self.width + k * self.u_pitch for k in range(self.n_u + 1))

    def v_pitch(self, cell: int) -> float:
        """Pitch of a cell of v, m.

        Raises:
            InputError: If there is no such cell.
        """
        if not 0 <= cell < self.n_v:
            raise InputError(f"`cell` must lie in [0, {self.n_v - 1}]; got {cell}")
        first = 0
        for cells, pitch in self.v_segments:
            if cell < first + cells:
                return pitch
            first += cells
        raise AssertionError("cells are covered by segments")

    def to_global(self, u: float, v: float, w: float = 0.0) -> tuple[float, float, float]:
        """Global x, y, z of a local point, m.

        Args:
            u: Along r-phi from the middle of the active area, m.
            v: Along z from the middle of the active area, m.
            w: Outwards from the middle of the silicon, m.
        """
        across, out = self.u_centre + u, self.radius + w
        x = out * math.cos(self.azimuth) - across * math.sin(self.azimuth)
        y = out * math.sin(self.azimuth) + across * math.cos(self.azimuth)
        return x, y, self.low_z + 0.5 * self.length + v

    def to_local(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        """Local u, v, w of a global point, m: the inverse of `to_global`."""
        out = x * math.cos(self.azimuth) + y * math.sin(self.azimuth)
        across = y * math.cos(self.azimuth) - x * math.sin(self.azimuth)
        return across - self.u_centre, z - self.low_z - 0.5 * self.length, out - self.radius


class SensorLayout(Sequence[Sensor]):
    """The sensors of a detector in the order of their index; all have the same number of cells.

    Args:
        name: Of the layout; files carry it.
        sensors: In the order of their index.

    Raises:
        InputError: If there is no sensor, an index is not its position, or the numbers of cells differ.
    """

    def __init__(self, name: str, sensors: Sequence[Sensor]) -> None:
        self.name = name
        self._sensors = tuple(sensors)
        if not self._sensors:
            raise InputError("`sensors` must hold at least one sensor; got none")
        grids = {(sensor.n_u, sensor.n_v) for sensor in self._sensors}
        if len(grids) > 1:
            raise InputError(f"`sensors` must have one number of cells; got {sorted(grids)}")
        if [sensor.index for sensor in self._sensors] != list(range(len(self._sensors))):
            raise InputError("`sensors` must stand in the order of their `index`, from 0")
        self.n_u, self.n_v = grids.pop()
        self._by_name = {sensor.name: sensor for sensor in self._sensors}
        self._by_vxdid = {sensor.vxdid: sensor for sensor in self._sensors}

    def __len__(self) -> int:
        return len(self._sensors)

    @overload
    def __getitem__(self, index: int) -> Sensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sensor]: ...
    def __getitem__(self, index: int | slice) -> Sensor | Sequence[Sensor]:
        return self._sensors[index]

    def __iter__(self) -> Iterator[Sensor]:
        return iter(self._sensors)

    def __repr__(self) -> str:
        return f"SensorLayout({self.name!r}, {len(self)} sensors of {self.n_u} x {self.n_v} cells)"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sensors, such as ``"1.1.1"``, in the order of their index."""
        return tuple(self._by_name)

    @property
    def lexicographic_names(self) -> tuple[str, ...]:
        """Names sorted as strings: ``"2.10.1"`` stands before ``"2.2.1"``. Some published weights count this way."""
        return tuple(sorted(self._by_name))

    @property
    def vxdids(self) -> tuple[int, ...]:
        """The 16-bit identifiers, in the order of the index."""
        return tuple(self._by_vxdid)

    @property
    def n_pixels(self) -> int:
        """Pixels of one sensor."""
        return self.n_u * self.n_v

    def by_name(self, name: str) -> Sensor:
        """The sensor of a name such as ``"2.10.1"``.

        Raises:
            InputError: If there is none; the message names the nearest.
        """
        if name not in self._by_name:
            near = nearest(str(name), self._by_name)
            hint = f". Did you mean {near!r}?" if near else ""
            raise InputError(f"`name` must be a sensor of {self.name}, such as {self.names[0]!r}; got {name!r}{hint}")
        return self._by_name[name]

    def by_vxdid(self, vxdid: int) -> Sensor:
        """The sensor of a 16-bit identifier; bits of a segment are ignored.

        Raises:
            InputError: If there is none.
        """
        found = self._by_vxdid.get(as_integer(vxdid) & ~SEGMENT_BITS)
        if found is None:
            raise InputError(f"`vxdid` must belong to a sensor of {self.name}; got {vxdid}")
        return found

    def index_of(self, layer: int, ladder: int, sensor: int) -> int:
        """Index of a sensor by its numbers.

        Example:
            >>> PXD.index_of(1, 1, 1), PXD.index_of(2, 12, 2)
            (0, 39)

        Raises:
            InputError: If there is none.
        """
        return self.by_name(f"{layer}.{ladder}.{sensor}").index

    def indices_of_vxdids(self, vxdids: Tensor) -> Tensor:
        """Indices of sensors by their identifiers, and -1 where there is no such sensor.

        Args:
            vxdids: Integers of any type and shape; bits of a segment are ignored.

        Returns:
            int64 tensor of the same shape.
        """
        import torch

        table = torch.full((1 << 11,), -1, dtype=torch.int64)
        for sensor in self:
            table[sensor.vxdid >> 5] = sensor.index
        wide = vxdids.to(torch.int64)
        inside = (wide >= 0) & (wide < 1 << 16)
        found = table.to(wide.device)[torch.where(inside, wide, 0) >> 5]
        return torch.where(inside, found, -1)

    def v_edges(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """Local v of the edges of all cells, m, of shape ``(sensor, n_v + 1)``."""
        import torch

        return torch.tensor([sensor.v_edges for sensor in self], dtype=dtype, device=device)

    def u_edges(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
        """Local u of the edges of all cells, m, of shape ``(sensor, n_u + 1)``."""
        import torch

        return torch.tensor([sensor.u_edges for sensor in self], dtype=dtype, device=device)


def _pxd() -> SensorLayout:
    # Nominal geometry: (ladders, radius of the silicon, large and small pitch of v, low z of sensors 1 and 2).
    layers = (
        (8, 13.985 * mm, 60 * um, 55 * um, (14.4255 * mm, -31.2255 * mm)),
        (12, 22.015 * mm, 85 * um, 70 * um, (19.4105 * mm, -42.8505 * mm)),
    )
    sensors: list[Sensor] = []
    for layer, (n_ladders, radius, large, small, low_z) in enumerate(layers, start=1):
        for ladder in range(1, n_ladders + 1):
            for sensor in (1, 2):
                # The small cells lie where the two sensors of a ladder are glued together, towards the middle.
                inner, outer = (256, small), (512, large)
                sensors.append(
                    Sensor(
                        index=len(sensors),
                        layer=layer,
                        ladder=ladder,
                        sensor=sensor,
                        azimuth=(ladder - 1) * 360 / n_ladders * deg,
                        radius=radius,
                        u_centre=U_CENTRE,
                        low_z=low_z[sensor - 1],
                        n_u=250,
                        u_pitch=50 * um,
                        v_segments=(inner, outer) if sensor == 1 else (outer, inner),
                        thickness=THICKNESS,
                    )
                )
    return SensorLayout("PXD", sensors)


PXD: Final = _pxd()
"""The forty sensors of the pixel detector of Belle II: indices 0 to 15 in layer 1, 16 to 39 in layer 2."""
