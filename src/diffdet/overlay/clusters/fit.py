"""Learning the distributions of `clusters` from a sample of digits, from whatever source.

Everything is counted, nothing is descended: rates, covariance between sensors, profiles, shapes, charges by role, and
how charges of one cluster go together. One thing cannot be counted: clusters that lie side by side in the sample are
found as one, and drawn ones merge in the same way. So the fit closes the loop: it draws events, finds their clusters,
and corrects rates and probabilities of sizes until found sizes agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from diffdet.core.errors import InputError
from diffdet.core.random import Stream
from diffdet.overlay.clustering import Clusters, find_clusters
from diffdet.overlay.clusters.roles import N_ROLES, SIZE_CLASSES, role_of, size_class
from diffdet.overlay.clusters.sampling import ClusterSampler, group_of_sensors, quantile_scores
from diffdet.overlay.clusters.weights import N_DRAWS, N_GROUPS, U_BINS, V_BINS, ClusterWeights
from diffdet.overlay.digits import Digits
from diffdet.overlay.sensors import PXD

__all__ = ["Targets", "fit_clusters", "sample_digits"]

SIZE_BINS: Final = (1, 2, 3, 4, 5, 6, 7, 9, 12, 16, 23, 32, 46, 64, 90, 130)
"""Smallest number of pixels of the bins in which sizes are made to agree."""

MAX_SHAPES: Final = 16000
"""Shapes that are kept; those seen most often, and of the rest a random choice."""

MAX_EXTENT: Final = 255
_CHARGE_EVENTS: Final = 60
_HASH: Final = 0x9E3779B97F4A7C15 - (1 << 64)


@dataclass(frozen=True)
class Targets:
    """Figures that drawn events shall have, where they are known better than from the sample.

    Attributes:
        digits: ``(sensor,)`` mean number of digits in an event.
        variance_over_mean: ``(group,)`` of the number of digits of a sensor.
        spectrum: ``(256,)`` relative frequency of charges, all sensors together.
    """

    digits: Tensor | None = None
    variance_over_mean: Tensor | None = None
    spectrum: Tensor | None = None


def fit_clusters(
    digits: Digits,
    *,
    seed: int = 0,
    rounds: int = 3,
    check_events: int = 40,
    targets: Targets | None = None,
    max_shapes: int = MAX_SHAPES,
    about: Mapping[str, Any] | None = None,
    told: Callable[[str], None] | None = None,
) -> ClusterWeights:
    """Learn from a sample.

    Args:
        digits: Events; some hundreds are enough.
        seed: Of the choice of rare shapes and of the events that are drawn for the corrections.
        rounds: How often to correct.
        check_events: Events to draw for each correction.
        targets: Figures to reach in place of the sample's own.
        max_shapes: How many shapes to keep.
        about: What the model card says.
        told: Told what is being done.

    Returns:
        The weights.

    Raises:
        InputError: If there are fewer than two events, or no digits.
    """
    if digits.n_events < 2 or not len(digits):
        raise InputError(f"`digits` must hold at least 2 events with digits; got {digits.n_events} and {len(digits)}")
    say = told or _silent
    wanted = _wanted(digits, targets or Targets())
    say("finding clusters")
    clusters = find_clusters(digits)
    say("counting shapes")
    shapes, draws, bins = _shapes(clusters, max_shapes, Stream("overlay-clusters-fit", seed).generator("shapes"))
    say("measuring charges")
    charge, common, opposed = _charges(clusters)
    rate, covariance = _rates(clusters)
    profile_u, profile_v = _profiles(clusters)
    weights = ClusterWeights(
        rate=rate,
        mixing=_root(covariance),
        profile_u=profile_u,
        profile_v=profile_v,
        shape_draws=_whole(draws, shapes["shape_size"]),
        **shapes,
        charge=charge.to(torch.uint8),
        common=common,
        opposed=opposed,
        about=dict(about or {}),
    )
    found_sizes = _sizes(clusters)
    for number in range(rounds):
        say(f"correcting sizes, round {number + 1} of {rounds}")
        drawn = sample_digits(weights, check_events, Stream("overlay-clusters-fit", seed, number))
        ratio = (found_sizes + 1) / (_sizes(find_clusters(drawn)) + 1)
        draws = draws * ratio[:, bins]
        # the sum changes with the number of clusters; the rest is the change of shapes
        change = draws.sum(1)
        draws = draws / change[:, None]
        rate = (weights.rate * change[group_of_sensors()]).to(torch.float32)
        weights = replace(weights, rate=rate, shape_draws=_whole(draws, weights.shape_size))
    for number in range(3):
        say(f"correcting rates and charges, round {number + 1} of 3")
        drawn = sample_digits(weights, 12 * check_events, Stream("overlay-clusters-fit", seed, "figures", number))
        charge = _shifted(charge, _spectra(drawn), wanted.spectra)
        covariance = _widened(covariance, weights.rate, drawn, wanted)
        weights = replace(
            weights,
            rate=_scaled(weights.rate, drawn, wanted.digits),
            mixing=_root(covariance),
            charge=_dithered(charge),
        )
    return weights


def _silent(text: str) -> None:
    """Progress that nobody asked for."""


@dataclass(frozen=True)
class _Wanted:
    """Figures to reach: digits of every sensor, variance over mean and spectrum of every group."""

    digits: Tensor
    variance_over_mean: Tensor
    spectra: Tensor


def _wanted(digits: Digits, targets: Targets) -> _Wanted:
    """Figures of the sample, with the targets in their place where there are any."""
    mean = digits.counts().double().mean(0) if targets.digits is None else targets.digits.double()
    spectra = _spectra(digits)
    if targets.spectrum is not None:
        everything = spectra.sum(0)
        aim = targets.spectrum.double()
        ratio = aim / aim.sum() * everything.sum() / everything.clamp_min(1)
        spectra = spectra * torch.where(everything > 0, ratio, torch.ones_like(ratio))
    spread = _variance_over_mean(digits) if targets.variance_over_mean is None else targets.variance_over_mean
    return _Wanted(mean, spread.double(), spectra)


def _spectra(digits: Digits) -> Tensor:
    """Digits of every group and charge, ``(group, 256)``."""
    cell = group_of_sensors()[digits.sensor.to(torch.int64)] * 256 + digits.charge
    return torch.bincount(cell, minlength=N_GROUPS * 256).reshape(N_GROUPS, 256).double()


def _variance_over_mean(digits: Digits) -> Tensor:
    """Variance over mean of the number of digits of a sensor, ``(group,)``, mean over the sensors of the group."""
    counts = digits.counts().double()
    ratio = counts.var(0) / counts.mean(0).clamp_min(1e-9)
    return torch.stack([ratio[group_of_sensors() == kind].mean() for kind in range(N_GROUPS)])


def _widened(covariance: Tensor, rate: Tensor, drawn: Digits, wanted: _Wanted) -> Tensor:
    """The covariance of numbers of clusters, with what is missing of the variance of the digits on its diagonal."""
    group, counts = group_of_sensors(), drawn.counts().double()
    mean = counts.mean(0)
    missing = (wanted.variance_over_mean - _variance_over_mean(drawn))[group] * mean
    return covariance + torch.diag(missing * (rate.double() / mean.clamp_min(1e-9)).square())


def _root(covariance: Tensor) -> Tensor:
    """A matrix whose square is the covariance, as far as it is one."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0).sqrt()).to(torch.float32)


def _shifted(charge: Tensor, drawn: Tensor, wanted: Tensor) -> Tensor:
    """Tables of charges, moved so that the spectrum of every group becomes the wanted one: quantile to quantile."""
    result = charge.clone()
    grid = torch.arange(257, dtype=torch.float64) - 0.5
    for kind in range(N_GROUPS):
        have, want = (
            torch.cat((torch.zeros(1, dtype=torch.float64), one[kind].cumsum(0) / one[kind].sum().clamp_min(1e-9)))
            for one in (drawn, wanted)
        )
        level = _interpolated(charge[kind].reshape(-1), grid, have)
        moved = _interpolated(level, want + 1e-12 * torch.arange(257), grid)
        result[kind] = moved.reshape(charge[kind].shape)
    return result.clamp(7, 255)


def _interpolated(x: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """Straight lines between points, constant beyond them."""
    upper = torch.searchsorted(xs, x).clamp(1, len(xs) - 1)
    low, high = xs[upper - 1], xs[upper]
    part = ((x - low) / (high - low)).clamp(0, 1)
    return ys[upper - 1] + part * (ys[upper] - ys[upper - 1])


def _dithered(charge: Tensor) -> Tensor:
    """Whole charges whose mean over neighbouring levels is the given one: rounded up as often as the rest says."""
    steps = torch.remainder(torch.arange(charge.numel(), dtype=torch.float64) * 0.6180339887, 1.0)
    return (charge + steps.reshape(charge.shape)).floor().clamp(7, 255).to(torch.uint8)


def sample_digits(weights: ClusterWeights, n_events: int, stream: Stream) -> Digits:
    """Events of a model, each with a generator of its own."""
    sampler = ClusterSampler(weights)
    events = [sampler.draw(stream.generator(event)) for event in range(n_events)]
    number = torch.repeat_interleave(torch.tensor([len(event[0]) for event in events]))
    columns = (torch.cat(parts) for parts in zip(*events, strict=True))
    return Digits(number, *columns, numbers=torch.arange(n_events))


def _scaled(rate: Tensor, drawn: Digits, wanted: Tensor) -> Tensor:
    """Rates for a wanted number of digits: by sensor, smoothed so that the noise of the drawn events does not enter.

    What one cluster gives depends on the kind of the sensor, so the ratio of digits to clusters is pooled over a kind.
    Pixels that coincide make it fall with the rate, by their share of the sensor.
    """
    group = group_of_sensors()
    counts = drawn.counts().double().mean(0)
    per_cluster = torch.stack([counts[group == kind].sum() / rate[group == kind].sum() for kind in range(N_GROUPS)])[
        group
    ]
    mean = torch.stack([counts[group == kind].mean() for kind in range(N_GROUPS)])[group]
    crowding = 1 + 0.5 * (wanted - mean) / PXD.n_pixels
    return (wanted / per_cluster * crowding).to(torch.float32)


def _group(clusters: Clusters) -> Tensor:
    return group_of_sensors()[clusters.sensor]


def _sizes(clusters: Clusters) -> Tensor:
    """Digits an event and group in clusters of every bin of size, ``(group, bin)``."""
    bins = torch.searchsorted(torch.tensor(SIZE_BINS), clusters.size, right=True) - 1
    cell, n_cells = _group(clusters) * len(SIZE_BINS) + bins, N_GROUPS * len(SIZE_BINS)
    flat = torch.bincount(cell, weights=clusters.size.double(), minlength=n_cells)
    return flat.reshape(N_GROUPS, len(SIZE_BINS)) / clusters.digits.n_events


def _rates(clusters: Clusters) -> tuple[Tensor, Tensor]:
    """Mean number of clusters of every sensor, and their covariance beyond that of independent clusters."""
    n_events, n_sensors = clusters.digits.n_events, len(PXD)
    number = torch.bincount(clusters.event * n_sensors + clusters.sensor, minlength=n_events * n_sensors)
    number = number.reshape(n_events, n_sensors).double()
    mean = number.mean(0)
    excess = torch.cov(number.T) - torch.diag(mean)
    # Entries that the number of events cannot tell from zero are set to it.
    noise = torch.sqrt(torch.outer(mean, mean) / n_events)
    excess = torch.where(excess.abs() > 3 * noise, excess, torch.zeros_like(excess))
    # What a sensor varies by itself is the same for all of a kind, relative to its mean.
    own, group = excess.diagonal() / mean.clamp_min(1e-9), group_of_sensors()
    pooled = torch.stack([own[group == kind].mean() for kind in range(N_GROUPS)])[group] * mean
    excess = excess - torch.diag(excess.diagonal()) + torch.diag(pooled)
    return mean.to(torch.float32), excess


def _profiles(clusters: Clusters) -> tuple[Tensor, Tensor]:
    """Where the middles of clusters lie."""
    found = []
    for cells, n_cells, n_bins in ((clusters.digits.u, PXD.n_u, U_BINS), (clusters.digits.v, PXD.n_v, V_BINS)):
        middle = clusters.lowest(cells) + clusters.highest(cells) + 1  # in half cells
        place = (middle * n_bins).div(2 * n_cells, rounding_mode="floor").clamp_max(n_bins - 1)
        counts = torch.bincount(_group(clusters) * n_bins + place, minlength=N_GROUPS * n_bins)
        counts = counts.reshape(N_GROUPS, n_bins).double()
        found.append((counts / counts.sum(1, keepdim=True)).to(torch.float32))
    return found[0], found[1]


# --------------------------------------------------------------------------------------------------------------- shapes
def _shapes(
    clusters: Clusters, max_shapes: int, generator: torch.Generator
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Shapes, mirror images taken together: their pixels, probabilities ``(group, shape)``, and bins of size."""
    digits, label = clusters.digits, clusters.label
    fits = (clusters.size_u <= MAX_EXTENT) & (clusters.size_v <= MAX_EXTENT)
    u = digits.u.to(torch.int64) - clusters.lowest(digits.u)[label]
    v = digits.v.to(torch.int64) - clusters.lowest(digits.v)[label]
    far_u, far_v = (clusters.size_u - 1)[label], (clusters.size_v - 1)[label]
    images = [(u, v), (far_u - u, v), (u, far_v - v), (far_u - u, far_v - v)]
    hashes = torch.stack([_hash(clusters, one, other) for one, other in images])
    code, image = hashes.min(0)
    code = torch.where(fits, code, torch.zeros_like(code))
    distinct, shape, total = torch.unique(code, return_inverse=True, return_counts=True)
    n_shapes = len(distinct)
    counts = torch.bincount(_group(clusters) * n_shapes + shape, minlength=N_GROUPS * n_shapes)
    counts = counts.reshape(N_GROUPS, n_shapes).double()
    counts[:, distinct == 0] = 0
    example = torch.zeros(n_shapes, dtype=torch.int64).scatter_(0, shape, torch.arange(len(shape)))
    size = clusters.size[example]
    kept = _choice(total.double() * (distinct != 0), size, max_shapes, generator)
    bins = torch.searchsorted(torch.tensor(SIZE_BINS), size, right=True) - 1
    extents = torch.stack((size, clusters.size_u[example], clusters.size_v[example]), dim=1)
    counts = _kept_mass(counts, bins, extents, kept)
    bins, example, size = bins[kept], example[kept], size[kept]

    # the pixels of the examples, in the mirror image that has the code
    rank = torch.full((len(clusters),), -1).scatter_(0, example, torch.arange(len(example)))
    rows = (rank[label] >= 0).nonzero()[:, 0]
    rows = rows[rank[label[rows]].argsort(stable=True)]
    turned = image[label[rows]]
    place_u = torch.where((turned & 1) == 1, far_u[rows] - u[rows], u[rows])
    place_v = torch.where((turned >> 1) == 1, far_v[rows] - v[rows], v[rows])
    tensors = {
        "shape_size": size.to(torch.int16),
        "shape_u": place_u.to(torch.uint8),
        "shape_v": place_v.to(torch.uint8),
    }
    return tensors, counts / counts.sum(1, keepdim=True), bins


def _hash(clusters: Clusters, u: Tensor, v: Tensor) -> Tensor:
    """A number for the set of pixels of every cluster, whatever their order."""
    mixed = (u * 1021 + v + 1) * _HASH
    mixed = (mixed ^ (mixed >> 29)) * (_HASH ^ 0x5BD1E995)
    mixed = mixed ^ (mixed >> 32)
    return torch.zeros_like(clusters.size).index_add_(0, clusters.label, mixed)


def _choice(total: Tensor, size: Tensor, max_shapes: int, generator: torch.Generator) -> Tensor:
    """Indices of the shapes to keep: half of the places for the most frequent, half for the rest by chance."""
    seen = total.nonzero()[:, 0]
    if len(seen) <= max_shapes:
        return seen
    # Large shapes are nearly all different; every one that is kept stands for others of its size.
    chance = torch.rand(len(total), generator=generator, dtype=torch.float64)
    weight = total * size.clamp_max(24).double()
    score = torch.log(weight.clamp_min(1e-12)) - torch.log(-torch.log(chance.clamp(1e-12, 1 - 1e-12)))
    return score.topk(max_shapes).indices.sort().values


def _kept_mass(counts: Tensor, bins: Tensor, extents: Tensor, kept: Tensor) -> Tensor:
    """Counts of the kept shapes, weighted so that every bin of size keeps its clusters and mean extents in every group.

    Args:
        counts: ``(group, shape)`` of all shapes.
        bins: ``(shape,)`` bin of size.
        extents: ``(shape, 3)`` pixels, extent in u, extent in v.
        kept: Indices of the kept shapes.
    """
    result = counts[:, kept]
    everywhere = counts.sum(0)[kept]
    for one in range(1, len(SIZE_BINS)):
        inside = (bins[kept] == one).nonzero()[:, 0]
        if not len(inside):
            continue
        all_inside = counts[:, bins == one]
        features = extents[bins == one].double()
        for group in range(N_GROUPS):
            want = all_inside[group].sum()
            # rare shapes serve all kinds of sensors
            mixed = result[group, inside] + 0.25 * everywhere[inside] * want / all_inside.sum().clamp_min(1)
            mean = (all_inside[group, :, None] * features).sum(0) / want.clamp_min(1)
            result[group, inside] = _tilted(mixed, extents[kept[inside]].double(), mean) * want
    return result


def _tilted(weight: Tensor, features: Tensor, mean: Tensor) -> Tensor:
    """Probabilities that have given means of some features and are nearest to given weights: w exp(b . f), by Newton.

    Means that the features cannot reach are approached as far as a bounded b goes.
    """
    weight = weight / weight.sum().clamp_min(1e-12)
    spread = features.std(0, correction=0)
    scaled = (features - mean) / spread.clamp_min(1e-9) * (spread > 0)
    b = torch.zeros(features.shape[1], dtype=torch.float64)
    ridge = 1e-3 * torch.eye(len(b), dtype=torch.float64)
    result = weight
    for _ in range(30):
        exponent = (scaled @ b).clamp(-30, 30)
        result = weight * torch.exp(exponent - exponent.max())
        result = result / result.sum().clamp_min(1e-300)
        gradient = (result[:, None] * scaled).sum(0)
        centred = scaled - gradient
        curvature = (result[:, None] * centred).T @ centred
        step = torch.linalg.solve(curvature + ridge, gradient)
        b = (b - step.clamp(-0.5, 0.5)).clamp(-3, 3)
    return result


def _whole(probability: Tensor, size: Tensor) -> Tensor:
    """Whole numbers that sum to `N_DRAWS`: rounded sums of probabilities in the order of size, so that every stretch of
    sizes keeps its share, however rare its shapes are.
    """
    order = size.to(torch.int64).argsort(stable=True)
    sums = (probability[:, order].double().cumsum(1) / probability.double().sum(1, keepdim=True) * N_DRAWS).round()
    whole = torch.zeros_like(probability, dtype=torch.int32)
    whole[:, order] = torch.diff(sums, dim=1, prepend=torch.zeros(len(sums), 1, dtype=sums.dtype)).to(torch.int32)
    return whole


# -------------------------------------------------------------------------------------------------------------- charges
def _charges(clusters: Clusters) -> tuple[Tensor, Tensor, Tensor]:
    """Charges of every role, and what the charges of a cluster share."""
    few = clusters.digits.select(0, min(clusters.digits.n_events, _CHARGE_EVENTS))
    found = find_clusters(few)
    size = found.size[found.label]
    role = role_of(size, found.pairs)
    group = group_of_sensors()[few.sensor.to(torch.int64)]
    cell = group * N_ROLES + role
    histogram = torch.bincount(cell * 256 + few.charge, minlength=N_GROUPS * N_ROLES * 256)
    histogram = histogram.reshape(N_GROUPS, N_ROLES, 256).double()
    # roles that a kind of sensor hardly shows borrow from all kinds, then from their class of size, then from all
    pooled = histogram.sum(0, keepdim=True)
    classes = pooled.reshape(len(SIZE_CLASSES), -1, 256).sum(1).repeat_interleave(N_ROLES // len(SIZE_CLASSES), 0)
    everything = pooled.sum((0, 1))
    smooth = histogram
    for source, amount in ((pooled, 20.0), (classes[None], 2.0), (everything[None, None], 0.01)):
        smooth = smooth + amount * source / source.sum(-1, keepdim=True).clamp_min(1)
    cumulative = smooth.cumsum(-1) / smooth.sum(-1, keepdim=True)
    levels = torch.special.ndtr(quantile_scores())
    table = torch.searchsorted(cumulative.contiguous(), levels.expand(N_GROUPS, N_ROLES, -1).contiguous())
    table = table.clamp(7, 255)

    # normal scores: the middle of the probability that a charge covers in its role
    before = cumulative - smooth / smooth.sum(-1, keepdim=True)
    middle = (0.5 * (before + cumulative)).clamp(1e-4, 1 - 1e-4)
    score = torch.special.ndtri(middle).reshape(-1)[cell * 256 + few.charge]
    classes_of_digits = group * len(SIZE_CLASSES) + size_class(size)
    n_classes = N_GROUPS * len(SIZE_CLASSES)
    variance = _mean_by(score.square(), classes_of_digits, n_classes)
    odd = (found.pairs[0], found.pairs[2])
    even = (found.pairs[1], found.pairs[3])
    against = _mean_products(score, classes_of_digits, n_classes, odd) / variance
    alike = _mean_products(score, classes_of_digits, n_classes, even) / variance
    # Neighbours in a row have opposite parity: common^2 - opposed^2; those at corners the same: common^2 + opposed^2.
    only_rows = torch.tensor([size <= 2 for size in SIZE_CLASSES]).repeat(N_GROUPS)
    alike = torch.where(only_rows, against.abs(), torch.maximum(alike, against.abs()))
    common = (0.5 * (alike + against)).clamp(0, 0.9).sqrt()
    opposed = (0.5 * (alike - against)).clamp(0, 0.9).sqrt()
    length = torch.sqrt((common.square() + opposed.square()).clamp_min(1))
    shape = (N_GROUPS, len(SIZE_CLASSES))
    common, opposed = ((part / length * 0.9999).reshape(shape).to(torch.float32) for part in (common, opposed))
    return table.double(), common, opposed


def _mean_by(values: Tensor, index: Tensor, n: int) -> Tensor:
    total = torch.zeros(n, dtype=torch.float64).index_add_(0, index, values)
    return total / torch.bincount(index, minlength=n).clamp_min(1)


def _mean_products(score: Tensor, index: Tensor, n: int, pairs: tuple[tuple[Tensor, Tensor], ...]) -> Tensor:
    first, second = (torch.cat(ends) for ends in zip(*pairs, strict=True))
    return _mean_by(score[first] * score[second], index[first], n)
