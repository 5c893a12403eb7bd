"""Digits: lit pixels of many events as columns, and their way to images and back.

A sensor has 192,000 pixels of which about one in a hundred is lit, so an event travels as a list of digits. Columns are
sorted by (event, sensor, v, u), the order that clustering wants.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Final, Self

import torch
from torch import Tensor

from diffdet.core.errors import InputError, ShapeError
from diffdet.kernels import pixels
from diffdet.overlay.sensors import PXD, SensorLayout

__all__ = ["COLUMNS", "Counts", "Digits", "tidy_columns"]

COLUMNS: Final[tuple[str, ...]] = ("event", "sensor", "u", "v", "charge")
"""Columns of digits, in order."""


@dataclass
class Counts:
    """What `tidy_columns` found and did, in digits.

    Attributes:
        kept: Digits in the result.
        unknown_sensor: Dropped, because no such sensor exists.
        outside: Dropped, because the cell does not exist.
        empty: Dropped, because the charge is 0 or below.
        clipped: Kept with the largest charge, because theirs was larger.
        merged: Added to another digit of the same pixel.
    """

    kept: int = 0
    unknown_sensor: int = 0
    outside: int = 0
    empty: int = 0
    clipped: int = 0
    merged: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    @property
    def problems(self) -> dict[str, int]:
        """What is not as it should be, by name; empty when all is well."""
        return {f.name: n for f in fields(self) if f.name != "kept" and (n := getattr(self, f.name))}

    def __str__(self) -> str:
        words = {
            "unknown_sensor": "of unknown sensors dropped",
            "outside": "of cells outside the sensor dropped",
            "empty": "without charge dropped",
            "clipped": "clipped to 255 ADU",
            "merged": "added to another digit of their pixel",
        }
        parts = [f"{number:,} {words[name]}" for name, number in self.problems.items()]
        return f"{self.kept:,} digits" + (f" ({', '.join(parts)})" if parts else "")


@dataclass(frozen=True, eq=False)
class Digits:
    """Lit pixels of some events.

    Make one with `from_columns`, `from_images`, `concatenate`, or from whatever `tidy_columns` mends; the constructor
    itself trusts its caller: columns are sorted, in range, and no pixel stands twice.

    Attributes:
        event: ``(digit,)`` row of the event among `numbers`, int64, from 0.
        sensor: ``(digit,)`` index of the sensor, int32.
        u: ``(digit,)`` cell along r-phi, int32.
        v: ``(digit,)`` cell along z, int32.
        charge: ``(digit,)`` ADU from 1 to 255, int32.
        numbers: ``(event,)`` number of every event, int64, also of those without digits.
        layout: The sensors.
    """

    event: Tensor
    sensor: Tensor
    u: Tensor
    v: Tensor
    charge: Tensor
    numbers: Tensor
    layout: SensorLayout = field(default=PXD, repr=False)

    @classmethod
    def from_columns(
        cls,
        event: Tensor,
        sensor: Tensor,
        u: Tensor,
        v: Tensor,
        charge: Tensor,
        *,
        numbers: Tensor | Iterable[int] | None = None,
        n_events: int | None = None,
        layout: SensorLayout = PXD,
    ) -> Self:
        """Digits of columns in any order and of any integer type.

        Args:
            event: Row of the event, from 0.
            sensor: Index of the sensor.
            u: Cell along r-phi.
            v: Cell along z.
            charge: ADU, from 1 to 255.
            numbers: Number of every event; 0, 1, ... when None.
            n_events: How many events there are, where `numbers` does not say; up to the last one with a digit when
                neither is given.
            layout: The sensors.

        Raises:
            ShapeError: If the columns differ in length.
            InputError: If a value is out of range or a pixel stands twice in an event; the message says how many.
                `tidy_columns` mends such columns, and counts.
        """
        columns: dict[str, Tensor] = dict(zip(COLUMNS, (event, sensor, u, v, charge), strict=True))
        _check_columns(columns)
        if numbers is None:
            if n_events is None:
                n_events = int(event.max()) + 1 if event.numel() else 0
            numbers = torch.arange(n_events)
        numbers = torch.as_tensor(numbers if isinstance(numbers, Tensor) else list(numbers), dtype=torch.int64)
        if n_events is not None and len(numbers) != n_events:
            raise InputError(f"`numbers` must name each of the {n_events} events; got {len(numbers)} numbers")
        limits = {
            "event": (0, len(numbers) - 1),
            "sensor": (0, len(layout) - 1),
            "u": (0, layout.n_u - 1),
            "v": (0, layout.n_v - 1),
            "charge": (1, pixels.HIGHEST_CHARGE),
        }
        for name, (low, high) in limits.items():
            bad = (columns[name] < low) | (columns[name] > high)
            if n_bad := int(bad.sum()):
                first = int(bad.nonzero()[0])
                raise InputError(
                    f"`{name}` must lie in [{low}, {high}]; {n_bad} of {len(bad)} digits do not, the first, number "
                    f"{first}, has {columns[name][first].item()}"
                )
        digits = cls._sorted(columns, numbers, layout)
        repeated = (digits._key()[1:] == digits._key()[:-1]).sum()
        if n_repeated := int(repeated):
            raise InputError(
                f"a pixel may stand once in an event; {n_repeated} of {len(digits)} digits repeat another's pixel. "
                "`tidy_columns` adds their charges"
            )
        return digits

    @classmethod
    def _sorted(cls, columns: dict[str, Tensor], numbers: Tensor, layout: SensorLayout) -> Self:
        event = columns["event"].to(torch.int64)
        sensor, u, v, charge = (columns[name].to(torch.int32) for name in COLUMNS[1:])
        digits = cls(event, sensor, u, v, charge, numbers.to(event.device), layout)
        key = digits._key()
        if bool((key[1:] < key[:-1]).any()):
            order = key.argsort()
            digits = cls(event[order], sensor[order], u[order], v[order], charge[order], digits.numbers, layout)
        return digits

    @classmethod
    def from_images(
        cls, images: Tensor, *, numbers: Tensor | Iterable[int] | None = None, layout: SensorLayout = PXD
    ) -> Self:
        """Digits of images.

        Args:
            images: ``(event, sensor, u, v)`` or, for one event, ``(sensor, u, v)``; ADU, uint8.
            numbers: Number of every event; 0, 1, ... when None.
            layout: The sensors.

        Raises:
            InputError: If the images are not uint8.
            ShapeError: If their shape is not that of the sensors.
        """
        if images.dtype != torch.uint8:
            raise InputError(f"`images` must be of dtype uint8; got {images.dtype}")
        shape = (len(layout), layout.n_u, layout.n_v)
        if images.ndim == 3:
            images = images.unsqueeze(0)
        if images.ndim != 4 or tuple(images.shape[1:]) != shape:
            raise ShapeError(
                f"`images` must have shape (event, {', '.join(map(str, shape))}); got {tuple(images.shape)}"
            )
        position, charge = pixels.lit_pixels(images.contiguous())
        v = position % layout.n_v
        row = position // layout.n_v
        u = row % layout.n_u
        image = row // layout.n_u
        columns = {"event": image // len(layout), "sensor": image % len(layout), "u": u, "v": v, "charge": charge}
        found = torch.arange(len(images)) if numbers is None else torch.as_tensor(numbers, dtype=torch.int64)
        if len(found) != len(images):
            raise InputError(f"`numbers` must name each of the {len(images)} events; got {len(found)} numbers")
        return cls._sorted(columns, found, layout)

    @classmethod
    def empty(cls, numbers: Tensor | Iterable[int] = (), *, layout: SensorLayout = PXD) -> Self:
        """Events without digits."""
        none = torch.zeros(0, dtype=torch.int64)
        return cls.from_columns(none, none, none, none, none, numbers=numbers, layout=layout)

    @classmethod
    def concatenate(cls, parts: Iterable[Digits]) -> Self:
        """The events of several digits, one after the other.

        Raises:
            InputError: If there is no part, or their sensors differ.
        """
        listed = list(parts)
        if not listed:
            raise InputError("`parts` must hold at least one set of digits; got none")
        layout = listed[0].layout
        if any(part.layout is not layout for part in listed):
            raise InputError(f"`parts` must share their sensors; got {[part.layout.name for part in listed]}")
        starts = torch.tensor([0] + [part.n_events for part in listed]).cumsum(0).tolist()
        event = torch.cat([part.event + start for part, start in zip(listed, starts, strict=False)])
        rest = {name: torch.cat([getattr(part, name) for part in listed]) for name in (*COLUMNS[1:], "numbers")}
        return cls(event, **rest, layout=layout)

    def __len__(self) -> int:
        """How many digits there are."""
        return len(self.event)

    @property
    def n_events(self) -> int:
        """How many events there are, those without digits included."""
        return len(self.numbers)

    @property
    def offsets(self) -> Tensor:
        """``(event + 1,)`` where the digits of every event begin, int64; the last element is their number."""
        rows = torch.arange(self.n_events + 1, device=self.event.device)
        return torch.searchsorted(self.event, rows)

    @property
    def event_number(self) -> Tensor:
        """``(digit,)`` number of the event of every digit, int64."""
        return self.numbers[self.event]

    def _key(self) -> Tensor:
        """A number that rises in the order of (event, sensor, v, u)."""
        layout = self.layout
        return ((self.event * len(layout) + self.sensor) * layout.n_v + self.v) * layout.n_u + self.u

    def counts(self) -> Tensor:
        """``(event, sensor)`` how many digits each sensor has in each event, int64."""
        n_sensors = len(self.layout)
        cell = self.event * n_sensors + self.sensor
        return torch.bincount(cell, minlength=self.n_events * n_sensors).view(self.n_events, n_sensors)

    def occupancy(self) -> Tensor:
        """``(event, sensor)`` share of lit pixels, float64."""
        return self.counts().to(torch.float64) / self.layout.n_pixels

    def to_images(self) -> Tensor:
        """Images of all events: ``(event, sensor, u, v)``, ADU, uint8. 7.7 MB an event: mind the memory."""
        layout = self.layout
        image = self.event * len(layout) + self.sensor
        position = (image * layout.n_u + self.u) * layout.n_v + self.v
        flat = pixels.paint_pixels(position, self.charge, self.n_events * len(layout) * layout.n_pixels)
        return flat.view(self.n_events, len(layout), layout.n_u, layout.n_v)

    def select(self, start: int, stop: int) -> Self:
        """The events of the rows start to stop.

        Raises:
            InputError: If the rows are not 0 <= start <= stop <= events.
        """
        if not 0 <= start <= stop <= self.n_events:
            raise InputError(
                f"`start` and `stop` must satisfy 0 <= start <= stop <= {self.n_events}; got {start} and {stop}"
            )
        low, high = self.offsets[[start, stop]].tolist()
        cut = {name: getattr(self, name)[low:high] for name in COLUMNS[1:]}
        return type(self)(self.event[low:high] - start, **cut, numbers=self.numbers[start:stop], layout=self.layout)

    def events(self) -> Iterator[Self]:
        """One set of digits for every event, in order."""
        offsets = self.offsets.tolist()
        for row, (low, high) in enumerate(pairwise(offsets)):
            cut = {name: getattr(self, name)[low:high] for name in COLUMNS[1:]}
            numbers = self.numbers[row : row + 1]
            yield type(self)(torch.zeros_like(self.event[low:high]), **cut, numbers=numbers, layout=self.layout)

    def keep(self, mask: Tensor) -> Self:
        """The digits where a mask is true; all events stay.

        Raises:
            ShapeError: If the mask has another length.
        """
        if mask.shape != self.event.shape or mask.dtype != torch.bool:
            raise ShapeError(f"`mask` must be bool of shape ({len(self)},); got {mask.dtype} of {tuple(mask.shape)}")
        cut = {name: getattr(self, name)[mask] for name in COLUMNS}
        return type(self)(**cut, numbers=self.numbers, layout=self.layout)

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        moved = {name: getattr(self, name).to(device) for name in (*COLUMNS, "numbers")}
        return type(self)(**moved, layout=self.layout)

    def equal(self, other: Digits) -> bool:
        """Whether all columns and the numbers of the events are the same."""
        names = (*COLUMNS, "numbers")
        return all(torch.equal(getattr(self, name), getattr(other, name)) for name in names)


def _check_columns(columns: dict[str, Tensor]) -> None:
    for name, column in columns.items():
        if not isinstance(column, Tensor):
            raise InputError(f"`{name}` must be a tensor; got {type(column).__name__}")
        if column.dtype.is_floating_point or column.dtype.is_complex or column.dtype is torch.bool:
            raise InputError(f"`{name}` must hold whole numbers; got dtype {column.dtype}")
    shapes = {name: tuple(column.shape) for name, column in columns.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ShapeError(f"columns must be of one length; got {shapes}")


def tidy_columns(
    event: Tensor,
    sensor: Tensor,
    u: Tensor,
    v: Tensor,
    charge: Tensor,
    *,
    numbers: Tensor | Iterable[int],
    layout: SensorLayout = PXD,
) -> tuple[Digits, Counts]:
    """Digits of columns that may be faulty, and what was wrong with them.

    Unknown sensors, cells outside and charges below 1 are dropped; charges of one pixel are added, as the overlay does;
    charges above 255 become 255. The columns are those of `Digits.from_columns`; an index of -1 is an unknown sensor.

    Returns:
        The digits that could be used, and counts of all that was done.

    Raises:
        ShapeError: If the columns differ in length.
        InputError: If an event is out of range: then the columns are not what they are said to be.
    """
    columns: dict[str, Tensor] = dict(zip(COLUMNS, (event, sensor, u, v, charge), strict=True))
    _check_columns(columns)
    columns = {name: column.to(torch.int64) for name, column in columns.items()}
    numbers = torch.as_tensor(numbers if isinstance(numbers, Tensor) else list(numbers), dtype=torch.int64)
    if event.numel() and not 0 <= int(event.min()) <= int(event.max()) < len(numbers):
        raise InputError(f"`event` must lie in [0, {len(numbers) - 1}]; got {int(event.min())} to {int(event.max())}")
    known = (columns["sensor"] >= 0) & (columns["sensor"] < len(layout))
    inside = (columns["u"] >= 0) & (columns["u"] < layout.n_u) & (columns["v"] >= 0) & (columns["v"] < layout.n_v)
    charged = columns["charge"] > 0
    counts = Counts(
        unknown_sensor=int((~known).sum()),
        outside=int((known & ~inside).sum()),
        empty=int((known & inside & ~charged).sum()),
    )
    keep = known & inside & charged
    columns = {name: column[keep] for name, column in columns.items()}
    image = columns["event"] * len(layout) + columns["sensor"]
    key = (image * layout.n_v + columns["v"]) * layout.n_u + columns["u"]
    unique, place = torch.unique(key, return_inverse=True)
    total = torch.zeros(len(unique), dtype=torch.int64, device=key.device).index_add_(0, place, columns["charge"])
    counts.merged = len(key) - len(unique)
    counts.clipped = int((total > pixels.HIGHEST_CHARGE).sum())
    counts.kept = len(unique)
    image, pixel = unique // layout.n_pixels, unique % layout.n_pixels
    tidy = {
        "event": image // len(layout),
        "sensor": image % len(layout),
        "u": pixel % layout.n_u,
        "v": pixel // layout.n_u,
        "charge": total.clamp(max=pixels.HIGHEST_CHARGE),
    }
    return Digits._sorted(tidy, numbers, layout), counts
