"""Hits of many muons in memory: one slot a hit, muons last, so that kernels can fit all tracks at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffdet.tomography.io.formats.base import Array, Arrays

__all__ = ["MAX_SLOTS", "HitTable"]

MAX_SLOTS: Final = 64
"""Hits on one side that a muon may have; events with more are dropped, lest one noisy event widen the whole chunk."""


@dataclass(frozen=True)
class HitTable:
    """Hits of complete events, padded to the same number of slots on either side of the volume.

    Side 0 is above the volume, side 1 below. Slots without a hit have ``mask`` False, coordinates 0 and uncertainty 1.

    Attributes:
        events: numbers of the events, in the order of the file.
        x: measured positions, m.
        y: m.
        z: m.
        x_unc: standard deviations, m.
        y_unc: m.
        plane: detector planes, counted from the top; -1 where there is no hit.
        mask: which slots hold a hit.
        momentum: of the muon at its highest hit, GeV; None if the file has none.
        momentum_unc: GeV; None if the file has none.
        time: of the highest hit, s; None if the file has none.
        true_x: positions without measurement error, m; None if the file has none.
        true_y: m.
        n_rows: rows of the file that these events took, those of dropped events included.
        dropped: number of events that are not in the table, by reason.
    """

    events: Int[Tensor, " event"]
    x: Float[Tensor, "side slot event"]
    y: Float[Tensor, "side slot event"]
    z: Float[Tensor, "side slot event"]
    x_unc: Float[Tensor, "side slot event"]
    y_unc: Float[Tensor, "side slot event"]
    plane: Int[Tensor, "side slot event"]
    mask: Bool[Tensor, "side slot event"]
    momentum: Float[Tensor, " event"] | None = None
    momentum_unc: Float[Tensor, " event"] | None = None
    time: Float[Tensor, " event"] | None = None
    true_x: Float[Tensor, "side slot event"] | None = None
    true_y: Float[Tensor, "side slot event"] | None = None
    n_rows: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.events.shape[0]

    @property
    def n_events(self) -> int:
        """Events that were read, dropped ones included."""
        return len(self) + sum(self.dropped.values())

    @classmethod
    def from_rows(cls, rows: Arrays) -> HitTable:
        """Arrange the rows of complete events.

        Events with two hits in one plane on one side, or with more than `MAX_SLOTS` hits on a side, are dropped: which
        of their hits belong to the muon cannot be told here.

        Args:
            rows: Columns as `HitsReader.rows` gives them: checked, rows of one event together. ``plane`` may be absent;
                it is then the rank of the hit's height within its event.
        """
        events, sides = rows["event"], rows["position"].astype(np.int64)
        starts = np.flatnonzero(np.diff(events, prepend=events[:1] - 1))
        muon = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(events)))
        plane = rows["plane"].astype(np.int64) if "plane" in rows else _ranks(muon, rows["z"], starts)
        slot = _slots(muon, sides, starts)
        keep, dropped = _usable(muon, sides, plane, slot, len(starts))
        chosen = keep[muon]
        new = np.cumsum(keep) - 1
        at = (sides[chosen], slot[chosen], new[muon[chosen]])
        n_slots = int(at[1].max()) + 1 if len(at[1]) else 0
        shape = (2, n_slots, int(keep.sum()))

        def padded(values: Array, fill: Any, dtype: Any) -> Tensor:
            box = np.full(shape, fill, dtype=dtype)
            box[at] = values[chosen]
            return torch.from_numpy(box)

        def reals(name: str, fill: float = 0.0) -> Tensor:
            return padded(rows[name], fill, np.float64)

        highest = _highest(muon, rows["z"], starts)[keep]
        per_event = {
            name: torch.from_numpy(np.ascontiguousarray(rows[name][highest]))
            for name in ("momentum", "momentum_unc", "time")
            if name in rows
        }
        true = {name: reals(name) for name in ("true_x", "true_y") if name in rows}
        return cls(
            events=torch.from_numpy(np.ascontiguousarray(events[starts][keep])),
            x=reals("x"),
            y=reals("y"),
            z=reals("z"),
            x_unc=reals("x_unc", 1.0),
            y_unc=reals("y_unc", 1.0),
            plane=padded(plane, -1, np.int64),
            mask=padded(np.ones(len(events), dtype=bool), False, np.bool_),
            n_rows=len(events),
            dropped=dropped,
            **per_event,
            **true,
        )

    def to_rows(self) -> dict[str, Array]:
        """The hits as rows, events in order and planes in order within each; what `from_rows` reads."""
        muon, side, slot = (index.numpy() for index in self.mask.permute(2, 0, 1).nonzero(as_tuple=True))
        plane = self.plane.numpy()[side, slot, muon]
        order = np.lexsort((plane, side, muon))
        at = (side[order], slot[order], muon[order])
        rows: dict[str, Array] = {
            "event": self.events.numpy()[at[2]],
            "plane": plane[order].astype(np.int32),
            "position": at[0].astype(np.uint8),
        }
        for name in ("x", "y", "z", "x_unc", "y_unc"):
            rows[name] = getattr(self, name).numpy()[at]
        for name in ("momentum", "momentum_unc", "time"):
            if getattr(self, name) is not None:
                rows[name] = getattr(self, name).numpy()[at[2]]
        for name in ("true_x", "true_y"):
            if getattr(self, name) is not None:
                rows[name] = getattr(self, name).numpy()[at]
        return rows


def _slots(muon: Array, sides: Array, starts: Array) -> Array:
    """Rank of every hit among those of its event and side, in the order of the file."""
    slot = np.empty(len(muon), dtype=np.int64)
    for side in (0, 1):
        here = sides == side
        before = np.cumsum(here) - here
        slot[here] = (before - before[starts][muon])[here]
    return slot


def _ranks(muon: Array, z: Array, starts: Array) -> Array:
    """Rank of every hit among those of its event, highest first."""
    order = np.lexsort((-z, muon))
    ranks = np.empty(len(muon), dtype=np.int64)
    ranks[order] = np.arange(len(muon)) - starts[muon]
    return ranks


def _highest(muon: Array, z: Array, starts: Array) -> Array:
    """Row of the highest hit of every event."""
    return np.lexsort((-z, muon))[starts]


def _usable(muon: Array, sides: Array, plane: Array, slot: Array, n_events: int) -> tuple[Array, dict[str, int]]:
    """Which events can be arranged, and how many cannot, by reason."""
    order = np.lexsort((plane, sides, muon))
    same = [np.diff(values[order]) == 0 for values in (muon, sides, plane)]
    keep = np.ones(n_events, dtype=bool)
    crowded = np.unique(muon[slot >= MAX_SLOTS])
    keep[crowded] = False
    double = np.unique(muon[order][1:][same[0] & same[1] & same[2]])
    double = double[keep[double]]
    keep[double] = False
    counts = {f"more than {MAX_SLOTS} hits on one side": len(crowded), "two hits in one plane": len(double)}
    return keep, {reason: count for reason, count in counts.items() if count}
