"""Two generators that learn nothing, for a generator that learns to be compared with.

* **bootstrap**: every sensor shows the digits that it had in some event, each sensor from another event;
* **library**: Poisson numbers of clusters, taken with their charges from a library of that kind of sensor, anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from diffdet.core.random import Stream
from diffdet.overlay.clustering import find_clusters
from diffdet.overlay.digits import Digits, tidy_columns
from diffdet.overlay.fidelity.summary import group_of_sensors
from diffdet.overlay.sensors import PXD

__all__ = ["bootstrap", "library"]

_BLOCK = 10


def bootstrap(real: Digits, n_events: int, stream: Stream) -> Iterator[Digits]:
    """Events whose sensors come from different events of a sample.

    Args:
        real: The sample.
        n_events: How many events to make.
        stream: Source of the choices.
    """
    image = real.event * len(PXD) + real.sensor
    starts = torch.searchsorted(image, torch.arange(real.n_events * len(PXD) + 1))
    for first in range(0, n_events, _BLOCK):
        number = min(_BLOCK, n_events - first)
        generator = stream.generator("bootstrap", first)
        source = torch.randint(0, real.n_events, (number, len(PXD)), generator=generator)
        wanted = (source * len(PXD) + torch.arange(len(PXD))).reshape(-1)
        length = starts[wanted + 1] - starts[wanted]
        target = torch.repeat_interleave(length)
        ends = length.cumsum(0)
        rows = torch.arange(len(target)) + (starts[wanted] - (ends - length))[target]
        yield Digits(
            target // len(PXD),
            (target % len(PXD)).to(torch.int32),
            real.u[rows],
            real.v[rows],
            real.charge[rows],
            torch.arange(first, first + number),
        )


def library(real: Digits, n_events: int, stream: Stream) -> Iterator[Digits]:
    """Events of clusters of a sample at places drawn evenly.

    Args:
        real: The sample.
        n_events: How many events to make.
        stream: Source of numbers, choices and places.
    """
    clusters = find_clusters(real)
    group = group_of_sensors()
    order = clusters.label.argsort(stable=True)
    size = clusters.size
    start = size.cumsum(0) - size
    low_u, low_v = clusters.lowest(real.u), clusters.lowest(real.v)
    of_group = [(group[clusters.sensor] == kind).nonzero()[:, 0] for kind in range(4)]
    rate = torch.bincount(clusters.sensor, minlength=len(PXD)).double() / real.n_events
    for first in range(0, n_events, _BLOCK):
        number = min(_BLOCK, n_events - first)
        generator = stream.generator("library", first)
        counts = torch.poisson(rate.expand(number, -1).contiguous(), generator=generator).to(torch.int64)
        image = torch.repeat_interleave(counts.reshape(-1))
        kind = group[image % len(PXD)]
        chance = torch.rand((3, len(image)), generator=generator, dtype=torch.float64)
        chosen = torch.zeros_like(image)
        for one in range(4):
            here = kind == one
            chosen[here] = of_group[one][(chance[0, here] * len(of_group[one])).to(torch.int64)]
        corner_u = (chance[1] * (PXD.n_u - clusters.size_u[chosen] + 1)).to(torch.int64)
        corner_v = (chance[2] * (PXD.n_v - clusters.size_v[chosen] + 1)).to(torch.int64)
        length = size[chosen]
        cluster = torch.repeat_interleave(length)
        ends = length.cumsum(0)
        rows = order[torch.arange(len(cluster)) + (start[chosen] - (ends - length))[cluster]]
        u = corner_u[cluster] + real.u[rows] - low_u[chosen][cluster]
        v = corner_v[cluster] + real.v[rows] - low_v[chosen][cluster]
        where = image[cluster]
        numbers = torch.arange(first, first + number)
        charge = real.charge[rows].to(torch.int64)
        digits, _ = tidy_columns(where // len(PXD), where % len(PXD), u, v, charge, numbers=numbers)
        yield digits
