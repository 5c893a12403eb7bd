"""What is counted of a sample, block by block, so that samples of any length fit.

Histograms are kept for every sensor or every kind of sensor (layer and side); what needs single clusters or whole
events keeps the first of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from diffdet.overlay.clustering import Clusters, find_clusters
from diffdet.overlay.digits import Digits
from diffdet.overlay.sensors import PXD

__all__ = ["CLASSES", "FEATURES", "GROUPS", "KEEP_CLUSTERS", "KEEP_EVENTS", "Summary", "group_of_sensors", "summarise"]

GROUPS: Final = ("layer 1 forward", "layer 1 backward", "layer 2 forward", "layer 2 backward")
CLASSES: Final = ("soft photon", "hard photon", "charged", "other")
FEATURES: Final = ("pixels", "extent in u", "extent in v", "charge", "largest pixel", "density", "u", "v")
"""Of single clusters, for the two-sample test."""

KEEP_EVENTS: Final = 12
"""Whole events that are kept, for nearest neighbours and for the search for copies."""

KEEP_CLUSTERS: Final = 60000
"""Clusters whose features are kept."""

N_SIZES: Final = 41
N_CHARGES: Final = 120
_KEV_PER_ADU: Final = 0.79
_SOFT: Final = (6.0, 10.0)
"""A single pixel between these is a soft photon, above the upper one a hard one, keV."""


def group_of_sensors() -> Tensor:
    """Kind of every sensor: layer and side, 0 to 3."""
    return torch.tensor([2 * (sensor.layer - 1) + sensor.sensor - 1 for sensor in PXD])


def _counts(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


@dataclass
class Summary:
    """Counts of a sample.

    Attributes:
        name: Of the sample.
        digits: ``(event, sensor)`` digits.
        clusters: ``(event, sensor)`` clusters.
        charges: ``(sensor, 256)`` digits by charge.
        sizes: ``(group, size)`` clusters by number of pixels; the last bin holds all larger ones. Likewise `sizes_u`
            and `sizes_v` by extent.
        cluster_charges: ``(group, bin)`` clusters by the logarithm of their charge.
        classes: ``(group, class)`` clusters by `CLASSES`.
        seed_share: ``(group, 20)`` clusters of two or more pixels by the share of the largest in their charge.
        profile_u: ``(group, 250)`` digits by cell of u.
        profile_v: ``(group, 768)`` digits by cell of v.
        image_features: Per event and sensor: digits, mean charge, clusters, mean size, mean extents.
        features: Of single clusters, `FEATURES`; the first `KEEP_CLUSTERS`.
        feature_group: Kind of sensor of those.
        events: The first whole events.
    """

    name: str
    digits: Tensor = field(default_factory=lambda: _counts(0, len(PXD)))
    clusters: Tensor = field(default_factory=lambda: _counts(0, len(PXD)))
    charges: Tensor = field(default_factory=lambda: _counts(len(PXD), 256))
    sizes: Tensor = field(default_factory=lambda: _counts(4, N_SIZES))
    sizes_u: Tensor = field(default_factory=lambda: _counts(4, N_SIZES))
    sizes_v: Tensor = field(default_factory=lambda: _counts(4, N_SIZES))
    cluster_charges: Tensor = field(default_factory=lambda: _counts(4, N_CHARGES))
    classes: Tensor = field(default_factory=lambda: _counts(4, len(CLASSES)))
    seed_share: Tensor = field(default_factory=lambda: _counts(4, 20))
    profile_u: Tensor = field(default_factory=lambda: _counts(4, PXD.n_u))
    profile_v: Tensor = field(default_factory=lambda: _counts(4, PXD.n_v))
    image_features: Tensor = field(default_factory=lambda: _counts(0, len(PXD), 6))
    features: Tensor = field(default_factory=lambda: _counts(0, len(FEATURES)))
    feature_group: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    events: list[Digits] = field(default_factory=list)

    @property
    def n_events(self) -> int:
        """Events seen."""
        return len(self.digits)

    def add(self, block: Digits) -> None:
        """Count some events."""
        if not block.n_events:
            return
        group, n_sensors = group_of_sensors(), len(PXD)
        sensor, charge = block.sensor.to(torch.int64), block.charge.to(torch.int64)
        kind = group[sensor]
        counts = block.counts().double()
        self.digits = torch.cat((self.digits, counts))
        self.charges += torch.bincount(sensor * 256 + charge, minlength=n_sensors * 256).reshape(n_sensors, 256)
        self.profile_u += _histogram(kind, block.u.to(torch.int64), PXD.n_u)
        self.profile_v += _histogram(kind, block.v.to(torch.int64), PXD.n_v)
        found = find_clusters(block)
        kind, total = group[found.sensor], found.charge.double()
        self.sizes += _histogram(kind, found.size.clamp_max(N_SIZES) - 1, N_SIZES)
        self.sizes_u += _histogram(kind, found.size_u.clamp_max(N_SIZES) - 1, N_SIZES)
        self.sizes_v += _histogram(kind, found.size_v.clamp_max(N_SIZES) - 1, N_SIZES)
        # forty bins to a factor of ten, from 5 ADU
        place = (torch.log10(total / 5) * 40).to(torch.int64).clamp(0, N_CHARGES - 1)
        self.cluster_charges += _histogram(kind, place, N_CHARGES)
        self.classes += _histogram(kind, _class(found.size, total), len(CLASSES))
        several = found.size > 1
        share = (found.seed[several] / total[several] * 20).to(torch.int64).clamp_max(19)
        self.seed_share += _histogram(kind[several], share, 20)
        self._images(block, found, counts)
        self._keep(block, found, kind)

    def _images(self, block: Digits, found: Clusters, counts: Tensor) -> None:
        """Features of every image."""
        n_images = block.n_events * len(PXD)
        image = block.event * len(PXD) + block.sensor
        number = counts.reshape(-1).clamp_min(1)
        mean_charge = torch.bincount(image, weights=block.charge.double(), minlength=n_images) / number
        image = found.event * len(PXD) + found.sensor
        clusters = torch.bincount(image, minlength=n_images).double()
        means = [
            torch.bincount(image, weights=values.double(), minlength=n_images) / clusters.clamp_min(1)
            for values in (found.size, found.size_u, found.size_v)
        ]
        columns = torch.stack((counts.reshape(-1), mean_charge, clusters, *means), dim=1)
        self.image_features = torch.cat((self.image_features, columns.reshape(block.n_events, len(PXD), -1)))
        self.clusters = torch.cat((self.clusters, clusters.reshape(block.n_events, len(PXD))))

    def _keep(self, block: Digits, found: Clusters, kind: Tensor) -> None:
        """Single clusters and whole events, as long as there is room."""
        room = KEEP_CLUSTERS - len(self.features)
        if room > 0:
            size, charge = found.size.double(), found.charge.double()
            columns = (
                torch.log(size),
                torch.log(found.size_u.double()),
                torch.log(found.size_v.double()),
                torch.log(charge),
                torch.log(found.seed.double()),
                size / (found.size_u * found.size_v),
                found.lowest(block.u).double() / PXD.n_u,
                found.lowest(block.v).double() / PXD.n_v,
            )
            self.features = torch.cat((self.features, torch.stack(columns, dim=1)[:room]))
            self.feature_group = torch.cat((self.feature_group, kind[:room]))
        while len(self.events) < KEEP_EVENTS and len(self.events) < self.n_events:
            row = len(self.events) - (self.n_events - block.n_events)
            if not 0 <= row < block.n_events:
                break
            self.events.append(block.select(row, row + 1))


def _histogram(group: Tensor, place: Tensor, n_bins: int) -> Tensor:
    return torch.bincount(group * n_bins + place, minlength=4 * n_bins).reshape(4, n_bins).double()


def _class(size: Tensor, charge: Tensor) -> Tensor:
    """Index in `CLASSES`: by number of pixels and energy, as for the monitoring of background."""
    energy = charge * _KEV_PER_ADU
    single, low, high = size == 1, energy >= _SOFT[0], energy > _SOFT[1]
    other = torch.full_like(size, 3)
    return torch.where(single & high, 1, torch.where(single & low, 0, torch.where(~single & high, 2, other)))


def summarise(name: str, blocks: Iterable[Digits]) -> Summary:
    """Count a sample.

    Args:
        name: Of the sample.
        blocks: Its events, in blocks of any size.

    Returns:
        The counts.
    """
    summary = Summary(name)
    for block in blocks:
        summary.add(block)
    return summary
