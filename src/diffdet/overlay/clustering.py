"""Clusters: lit pixels that touch, also at corners, and what can be measured of them.

Used to fit the generator `clusters`, and to compare samples (`diffdet.overlay.fidelity`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from diffdet.kernels.connected import components, touching
from diffdet.overlay.digits import Digits

__all__ = ["NEIGHBOURS", "Clusters", "find_clusters"]

NEIGHBOURS: Final = ((0, 1), (1, -1), (1, 0), (1, 1))
"""Steps in (v, u) to the neighbours that come later in the order of digits."""

_GAP: Final = 2
"""Empty lines between two sensors, so that pixels of different sensors never touch."""


@dataclass(frozen=True)
class Clusters:
    """Clusters of some digits, in the order of their first digit.

    Attributes:
        digits: The digits.
        label: ``(digit,)`` number of the cluster of every digit.
        pairs: For every step of `NEIGHBOURS`, indices of the two digits of every touching pair.
    """

    digits: Digits
    label: Tensor
    pairs: tuple[tuple[Tensor, Tensor], ...]

    def __len__(self) -> int:
        return len(self.size)

    @cached_property
    def size(self) -> Tensor:
        """``(cluster,)`` pixels."""
        return torch.bincount(self.label)

    @cached_property
    def first(self) -> Tensor:
        """``(cluster,)`` index of its first digit."""
        return torch.full_like(self.size, len(self.label)).scatter_reduce(
            0, self.label, torch.arange(len(self.label)), "amin"
        )

    @cached_property
    def sensor(self) -> Tensor:
        """``(cluster,)`` index of the sensor, int64."""
        return self.digits.sensor[self.first].to(torch.int64)

    @cached_property
    def event(self) -> Tensor:
        """``(cluster,)`` row of the event."""
        return self.digits.event[self.first]

    def lowest(self, values: Tensor) -> Tensor:
        """``(cluster,)`` smallest of some values of the digits, int64."""
        return self._reduced(values, "amin")

    def highest(self, values: Tensor) -> Tensor:
        """``(cluster,)`` largest of some values of the digits, int64."""
        return self._reduced(values, "amax")

    def _reduced(self, values: Tensor, how: str) -> Tensor:
        start = torch.zeros_like(self.size)
        return start.scatter_reduce(0, self.label, values.to(torch.int64), how, include_self=False)

    @cached_property
    def size_u(self) -> Tensor:
        """``(cluster,)`` extent along u, cells."""
        return self.highest(self.digits.u) - self.lowest(self.digits.u) + 1

    @cached_property
    def size_v(self) -> Tensor:
        """``(cluster,)`` extent along v, cells."""
        return self.highest(self.digits.v) - self.lowest(self.digits.v) + 1

    @cached_property
    def charge(self) -> Tensor:
        """``(cluster,)`` sum of charges, ADU."""
        return torch.zeros_like(self.size).index_add_(0, self.label, self.digits.charge.to(torch.int64))

    @cached_property
    def seed(self) -> Tensor:
        """``(cluster,)`` largest charge of a pixel, ADU."""
        return self.highest(self.digits.charge)


def find_clusters(digits: Digits) -> Clusters:
    """Find the clusters of every sensor and event.

    Args:
        digits: Digits of any number of events.

    Returns:
        The clusters.
    """
    layout = digits.layout
    u = digits.u.to(torch.int64)
    image = digits.event * len(layout) + digits.sensor
    line = image * (layout.n_v + _GAP) + digits.v
    key = line * layout.n_u + u
    pairs = tuple(touching(key, u, layout.n_u, step) for step in NEIGHBOURS)
    first, second = (torch.cat(ends) for ends in zip(*pairs, strict=True))
    root = components(len(key), first, second)
    # Roots are first digits, so their order is that of the clusters.
    is_root = root == torch.arange(len(root))
    number = is_root.to(torch.int64).cumsum(0) - 1
    return Clusters(digits, number[root], pairs)
