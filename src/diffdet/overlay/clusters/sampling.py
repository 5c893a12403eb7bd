"""Drawing events from learned distributions of clusters.

An event: one set of normal numbers changes the rates of all sensors together; numbers of clusters are Poisson; every
cluster draws a shape, a mirror image and a place; every pixel draws a charge from the distribution of its role, with
parts of the randomness shared in the cluster. Pixels that two clusters share add their charges. The cost follows the
number of digits, not that of pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from diffdet.core.checks import check_in_range
from diffdet.overlay.clustering import NEIGHBOURS
from diffdet.overlay.clusters.roles import role_of, size_class
from diffdet.overlay.clusters.weights import N_DRAWS, N_QUANTILES, U_BINS, V_BINS, ClusterWeights
from diffdet.overlay.sensors import PXD

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ClusterSampler", "group_of_sensors", "quantile_scores"]

_BOX: Final = 256
_STEPS_TO_SIGMA: Final = 32
_LOW: Final = 9
_ROLE: Final = 255
"""Layout of a pixel of a shape in one number: place from bit 9, role from bit 1, parity in bit 0."""

_FINE: Final = 1 << 12
"""Steps of the tables from which places and roles' charges are looked up."""


def quantile_scores() -> Tensor:
    """Normal numbers in the middle of the steps at which charges are tabulated: tails are resolved to four sigma."""
    return (torch.arange(N_QUANTILES, dtype=torch.float64) + 0.5 - N_QUANTILES // 2) / _STEPS_TO_SIGMA


def group_of_sensors() -> Tensor:
    """Kind of every sensor: layer and side, 0 to 3."""
    return torch.tensor([2 * (sensor.layer - 1) + sensor.sensor - 1 for sensor in PXD])


class ClusterSampler:
    """Draws digits of single events.

    Args:
        weights: What was learned.
        scale: Factor on all rates.

    Raises:
        InputError: If `scale` is negative.
    """

    def __init__(self, weights: ClusterWeights, *, scale: float = 1.0) -> None:
        check_in_range("scale", scale, 0)
        self.weights = weights
        self._rate = weights.rate.double() * scale
        self._mixing = weights.mixing.double() * scale**0.5
        group = group_of_sensors()
        self._group = group.to(torch.int32).numpy()
        draws = [torch.repeat_interleave(row.to(torch.int64)) for row in weights.shape_draws]
        self._shape_of_draw = torch.cat(draws).to(torch.int32).numpy()
        size = weights.shape_size.to(torch.int64)
        owner = torch.repeat_interleave(size)
        u, v = weights.shape_u.to(torch.int64), weights.shape_v.to(torch.int64)
        none = torch.zeros_like(size)
        width, height = (none.scatter_reduce(0, owner, place, "amax") for place in (u, v))
        role = role_of(size[owner], _pairs_in_shapes(owner, u, v))
        self._size = size.to(torch.int32).numpy()
        self._start = (size.cumsum(0) - size).to(torch.int32).numpy()
        self._width, self._height = width.to(torch.float32).numpy(), height.to(torch.float32).numpy()
        # Everything about a pixel of a shape in one number, for each of the four mirror images: its way from the corner
        # of the box, its role, and whether it is odd on the chessboard.
        odd, packed = (u + v) & 1, []
        for turn in range(4):
            place_u = width[owner] - u if turn & 1 else u
            place_v = height[owner] - v if turn & 2 else v
            packed.append((place_v * PXD.n_u + place_u) << _LOW | role << 1 | odd)
        self._pixels = torch.cat(packed).to(torch.int32).numpy()
        self._n_pixels = len(u)
        self._charge = weights.charge.reshape(-1).numpy()
        self._charges_of_group = weights.charge.shape[1] * N_QUANTILES
        classes = size_class(size)
        common, opposed = weights.common[:, classes], weights.opposed[:, classes]
        own = torch.sqrt((1 - common.square() - opposed.square()).clamp_min(0))
        self._shares = [part.reshape(-1).numpy() for part in (common, opposed, own)]
        self._place_u = torch.stack([_quantiles(row, PXD.n_u // U_BINS) for row in weights.profile_u]).numpy()
        self._place_v = torch.stack([_quantiles(row, PXD.n_v // V_BINS) for row in weights.profile_v]).numpy()

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw one event.

        Args:
            generator: Source of random numbers; the event is a function of its state.

        Returns:
            Sensor, u, v and charge of every digit, int32, ordered by sensor, v and u.
        """
        latent = torch.randn(len(PXD), generator=generator, dtype=torch.float64)
        rate = (self._rate + (self._mixing * latent).sum(1)).clamp_min(0)
        number = torch.poisson(rate, generator=generator).to(torch.int64)
        sensor = np.repeat(np.arange(len(PXD), dtype=np.int32), number.numpy())
        n_clusters = len(sensor)
        # One integer gives two places in tables and two mirror images: 12 + 12 + 1 + 1 bits.
        draws = torch.randint(0, N_DRAWS, (n_clusters,), generator=generator).numpy().astype(np.int32)
        bits = torch.randint(0, 1 << 26, (n_clusters,), generator=generator).numpy().astype(np.int32)
        fine = torch.rand((2, n_clusters), generator=generator).numpy()
        shared = torch.randn((2, n_clusters), generator=generator).numpy()
        group = self._group[sensor]
        shape = self._shape_of_draw[draws + group * N_DRAWS]
        width, height = self._width[shape], self._height[shape]
        # the corner of the box, so that its middle falls on the drawn place
        corner_u = np.floor(_look_up(self._place_u, group, bits % _FINE, fine[0]) - 0.5 * width).astype(np.int32)
        corner_v = np.floor(_look_up(self._place_v, group, bits // _FINE % _FINE, fine[1]) - 0.5 * height).astype(
            np.int32
        )
        size = self._size[shape]
        ends = np.cumsum(size, dtype=np.int32)
        start = self._start[shape] + (bits >> 24) * self._n_pixels
        cluster = _owners(ends)
        pixel = np.take(start - (ends - size), cluster) + np.arange(len(cluster), dtype=np.int32)
        packed = np.take(self._pixels, pixel)
        charge = self._charges(packed, group, shape, cluster, shared, generator)
        offset = packed >> _LOW
        key = np.take((sensor * PXD.n_v + corner_v) * PXD.n_u + corner_u, cluster) + offset
        cut = (corner_u < 0) | (corner_u + width >= PXD.n_u) | (corner_v < 0) | (corner_v + height >= PXD.n_v)
        if cut.any():
            rows = np.flatnonzero(np.take(cut, cluster))
            cluster = cluster[rows]
            u = corner_u[cluster] + offset[rows] % PXD.n_u
            v = corner_v[cluster] + offset[rows] // PXD.n_u
            keep = np.ones(len(key), dtype=np.bool_)
            keep[rows] = (u >= 0) & (u < PXD.n_u) & (v >= 0) & (v < PXD.n_v)
            key, charge = key[keep], charge[keep]
        return _summed(key, charge)

    def _charges(
        self,
        packed: NDArray[Any],
        group: NDArray[Any],
        shape: NDArray[Any],
        cluster: NDArray[Any],
        shared: NDArray[Any],
        generator: torch.Generator,
    ) -> NDArray[Any]:
        """Charges of pixels: normal numbers with shared parts, looked up in the distribution of their role."""
        row = group * len(self._size) + shape
        common, opposed, own = (part[row] for part in self._shares)
        odd = (1 - 2 * (packed & 1)).astype(np.int8)
        normal = torch.randn(len(packed), generator=generator).numpy()
        normal = normal * np.take(own, cluster) + np.take(common * shared[0], cluster)
        normal += odd * np.take(opposed * shared[1], cluster)
        quantile = np.clip(normal * _STEPS_TO_SIGMA + N_QUANTILES // 2, 0, N_QUANTILES - 1).astype(np.int32)
        role = packed >> 1 & _ROLE
        return np.take(self._charge, np.take(group * self._charges_of_group, cluster) + role * N_QUANTILES + quantile)


def _owners(ends: NDArray[Any]) -> NDArray[Any]:
    """Number of the cluster of every pixel, where clusters end before given pixels; every one has a pixel.

    Looking up by it is several times faster than `numpy.repeat`, and leaves other threads their turn.
    """
    step = np.zeros(ends[-1] if len(ends) else 0, dtype=np.int32)
    step[ends[:-1]] = 1
    return np.cumsum(step, dtype=np.int32)


def _summed(key: NDArray[Any], charge: NDArray[Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sort pixels and add the charges of those that stand more than once.

    Key and charge fit one 32-bit number together (23 and 8 bits), which sorts ten times faster than an index would.
    """
    packed = np.sort(key.astype(np.int32) << 8 | charge)
    pixel, adu = packed >> 8, packed & 0xFF
    again = pixel[1:] == pixel[:-1]
    if again.any():
        first = np.concatenate(([True], ~again))
        start = np.flatnonzero(first)
        adu = np.minimum(np.add.reduceat(adu, start), 255).astype(np.int32)
        pixel = pixel[start]
    line = pixel // PXD.n_u
    sensor = line // PXD.n_v
    u, v = pixel - line * PXD.n_u, line - sensor * PXD.n_v
    return torch.from_numpy(sensor), torch.from_numpy(u), torch.from_numpy(v), torch.from_numpy(adu)


def _quantiles(profile: Tensor, width: int) -> Tensor:
    """Edges of `_FINE` cells of equal probability of a distribution over bins of a width, in cells of the sensor."""
    edges = torch.zeros(len(profile) + 1, dtype=torch.float64)
    edges[1:] = profile.double().cumsum(0)
    edges = edges / edges[-1]
    wanted = torch.arange(_FINE + 1, dtype=torch.float64) / _FINE
    upper = torch.searchsorted(edges, wanted, right=True).clamp(1, len(profile))
    low, high = edges[upper - 1], edges[upper]
    part = torch.where(high > low, (wanted - low) / (high - low).clamp_min(1e-12), torch.zeros_like(wanted))
    return ((upper - 1) + part).to(torch.float32) * width


def _look_up(table: NDArray[Any], group: NDArray[Any], cell: NDArray[Any], fine: NDArray[Any]) -> NDArray[Any]:
    """A place between the edges of a cell of equal probability."""
    flat = table.reshape(-1)
    index = group * table.shape[1] + cell
    low = flat[index]
    return low + fine * (flat[index + 1] - low)


def _pairs_in_shapes(owner: Tensor, u: Tensor, v: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """Touching pixels of the same shape, for every step of `NEIGHBOURS`."""
    # Boxes are at most 256 wide; a margin keeps shapes and lines apart.
    stride = _BOX + 2
    key = (owner * stride + v) * stride + u
    order = key.argsort()
    ordered = key[order]
    pairs = []
    for lines, places in NEIGHBOURS:
        wanted = key + lines * stride + places
        where = torch.searchsorted(ordered, wanted).clamp_max(len(key) - 1)
        found = (ordered[where] == wanted).nonzero()[:, 0]
        pairs.append((found, order[where[found]]))
    return tuple(pairs)
