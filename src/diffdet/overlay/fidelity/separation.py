"""Tests whether two samples can be told apart: a classifier of clusters, distances of features, a search for copies."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from diffdet.core.random import Stream
from diffdet.kernels.distances import frechet_distance, polynomial_mmd
from diffdet.overlay.digits import Digits
from diffdet.overlay.fidelity.summary import Summary
from diffdet.overlay.sensors import PXD

__all__ = ["copy_overlap", "frechet", "kernel_distance", "two_sample_auc"]

_STEPS, _BATCH, _WIDTH = 400, 1024, 48
_MOST = 2000


def two_sample_auc(sample: Summary, real: Summary, stream: Stream) -> float:
    """Area under the curve of a small network that learns to tell clusters of two samples apart.

    Half of the clusters of each sample train it, the other half tells how well it does. 0.5: not at all.

    Args:
        sample: One sample.
        real: The other.
        stream: Source of its first weights and batches.
    """
    n = min(len(sample.features), len(real.features))
    if n < 200:
        return 0.5
    x = torch.cat((_with_group(sample)[:n], _with_group(real)[:n]))
    y = torch.cat((torch.ones(n), torch.zeros(n)))
    x = ((x - x.mean(0)) / x.std(0).clamp_min(1e-9)).to(torch.float32)
    generator = stream.generator("classifier")
    order = torch.randperm(2 * n, generator=generator)
    train, test = order[:n], order[n:]
    network = nn.Sequential(
        nn.Linear(x.shape[1], _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, 1)
    )
    with torch.no_grad():
        for parameter in network.parameters():
            bound = (1 / parameter.shape[-1]) ** 0.5
            parameter.copy_(bound * (2 * torch.rand(parameter.shape, generator=generator) - 1))
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    with torch.enable_grad():
        for _ in range(_STEPS):
            rows = train[torch.randint(0, n, (min(_BATCH, n),), generator=generator)]
            loss = nn.functional.binary_cross_entropy_with_logits(network(x[rows])[:, 0], y[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        score = network(x[test])[:, 0]
    return _auc(score[y[test] == 1], score[y[test] == 0])


def _with_group(summary: Summary) -> Tensor:
    """Features of clusters, and which kind of sensor they lie on."""
    kinds = nn.functional.one_hot(summary.feature_group, 4).double()
    return torch.cat((summary.features, kinds), dim=1)


def _auc(positive: Tensor, negative: Tensor) -> float:
    """Probability that a positive score is above a negative one."""
    ordered = negative.sort().values
    low = torch.searchsorted(ordered, positive.contiguous(), right=False)
    high = torch.searchsorted(ordered, positive.contiguous(), right=True)
    return float((0.5 * (low + high)).double().mean() / max(len(negative), 1))


def frechet(sample: Tensor, real: Tensor) -> float:
    """Frechet distance of features of images ``(event, sensor, feature)``, in units of the spread of the real ones.

    Every sensor is standardised by the real mean and spread first, so that what differs between sensors by nature does
    not hide what differs between samples.
    """
    if len(sample) < 2 or len(real) < 2:
        return 0.0
    first, second = _standardised(sample, real)
    return float(frechet_distance(first, second))


def kernel_distance(sample: Tensor, real: Tensor) -> float:
    """Kernel distance of features of images, as `frechet`; 0 where it comes out below."""
    if len(sample) < 2 or len(real) < 2:
        return 0.0
    first, second = _standardised(sample, real)
    return max(0.0, float(polynomial_mmd(_thinned(first), _thinned(second))))


def _standardised(sample: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    mean, spread = real.mean(0), real.std(0).clamp_min(1e-9)
    first, second = ((one - mean) / spread for one in (sample, real))
    return first.reshape(-1, first.shape[-1]), second.reshape(-1, second.shape[-1])


def _thinned(rows: Tensor) -> Tensor:
    step = max(1, len(rows) // _MOST)
    return rows[::step]


def copy_overlap(events: list[Digits], others: list[Digits]) -> float:
    """Largest share of lit pixels that one event has in common with one of the others.

    Independent events share what chance makes coincide, about the occupancy; a generator that repeats what it has
    learnt from shares more.
    """
    lit = [[_pixels(event) for event in some] for some in (events, others)]
    worst = 0.0
    for one in lit[0]:
        for other in lit[1]:
            if len(one) and len(other):
                worst = max(worst, len(np.intersect1d(one, other, assume_unique=True)) / min(len(one), len(other)))
    return worst


def _pixels(event: Digits) -> np.ndarray:
    return ((event.sensor.to(torch.int64) * PXD.n_v + event.v) * PXD.n_u + event.u).numpy()
