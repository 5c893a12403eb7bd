"""What a detector delivers in a given run: sensors that are absent, pixels that are dead, gates that were closed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from diffdet.core.errors import InputError, ShapeError
from diffdet.overlay.digits import Digits
from diffdet.overlay.sensors import PXD, SensorLayout

__all__ = ["GATE_ROWS", "NOMINAL", "THRESHOLD", "Conditions", "gate_of"]

THRESHOLD: Final = 7
"""The smallest charge that the read-out delivers, ADU."""

GATE_ROWS: Final = 4
"""Rows of v that are read together: one gate, about 104 ns."""


def gate_of(v: Tensor, sensor: Tensor, layout: SensorLayout = PXD) -> Tensor:
    """Number of the gate that reads a cell, in the order of reading: along v, and against it in layer 1.

    Args:
        v: Cells along z.
        sensor: Indices of sensors, of the same shape.
        layout: The sensors.
    """
    first_layer = torch.tensor([member.layer == 1 for member in layout], device=v.device)[sensor]
    return torch.where(first_layer, layout.n_v - 1 - v, v) // GATE_ROWS


@dataclass(frozen=True)
class Conditions:
    """What is taken out of generated events. Nothing is drawn, so the rest of an event stays as it is.

    Attributes:
        missing: Names of sensors that are absent, such as ``("2.1.1", "2.1.2")``.
        dead: ``(sensor, u, v)`` bool, true where a pixel delivers nothing; None when all work.
        gates: First gate and number of gates that delivered nothing, on all sensors; wraps around. None when all did.
            A veto of injected bunches closes about 13.
        threshold: Smallest charge that is delivered, ADU.
        layout: The sensors.
    """

    missing: tuple[str, ...] = ()
    dead: Tensor | None = None
    gates: tuple[int, int] | None = None
    threshold: int = THRESHOLD
    layout: SensorLayout = PXD

    def __post_init__(self) -> None:
        for name in self.missing:
            self.layout.by_name(name)
        shape = (len(self.layout), self.layout.n_u, self.layout.n_v)
        if self.dead is not None and (tuple(self.dead.shape) != shape or self.dead.dtype != torch.bool):
            raise ShapeError(
                f"`dead` must be bool of shape {shape}; got {self.dead.dtype} of shape {tuple(self.dead.shape)}"
            )
        n_gates = self.layout.n_v // GATE_ROWS
        if self.gates is not None and not (0 <= self.gates[0] < n_gates and 0 <= self.gates[1] <= n_gates):
            raise InputError(f"`gates` must be a gate below {n_gates} and a number up to {n_gates}; got {self.gates}")
        if not 0 <= self.threshold <= 255:
            raise InputError(f"`threshold` must lie in [0, 255]; got {self.threshold}")

    def apply(self, digits: Digits) -> Digits:
        """The digits that are delivered; all events stay, also empty ones."""
        keep = digits.charge >= self.threshold
        if self.missing:
            present = torch.ones(len(self.layout), dtype=torch.bool, device=keep.device)
            present[[self.layout.by_name(name).index for name in self.missing]] = False
            keep &= present[digits.sensor]
        if self.dead is not None:
            keep &= ~self.dead.to(keep.device)[digits.sensor, digits.u, digits.v]
        if self.gates is not None:
            first, count = self.gates
            n_gates = self.layout.n_v // GATE_ROWS
            keep &= (gate_of(digits.v, digits.sensor, self.layout) - first) % n_gates >= count
        return digits if bool(keep.all()) else digits.keep(keep)

    def describe(self) -> dict[str, Any]:
        """As JSON, for files."""
        return {
            "missing": list(self.missing),
            "n_dead_pixels": 0 if self.dead is None else int(self.dead.sum()),
            "closed_gates": list(self.gates) if self.gates else None,
            "threshold_adu": self.threshold,
        }


NOMINAL: Final = Conditions()
"""All sensors and pixels, all gates, the nominal threshold."""
