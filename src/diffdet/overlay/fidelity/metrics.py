"""Figures of how far two samples are apart.

All are distances: 0 where the samples agree, and on the level of the noise floor where they agree as well as two halves
of one sample do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from diffdet.core.random import Stream
from diffdet.kernels.distances import ks_distance, spearman, wasserstein_1
from diffdet.overlay.digits import Digits
from diffdet.overlay.fidelity.separation import copy_overlap, frechet, kernel_distance, two_sample_auc
from diffdet.overlay.fidelity.summary import CLASSES, Summary, group_of_sensors
from diffdet.overlay.sensors import PXD

__all__ = ["METRICS", "TARGETS", "compare", "variance_over_mean"]

METRICS: Final[dict[str, str]] = {
    "occupancy_bias": "total number of digits, relative difference",
    "occupancy_sensor": "digits of a sensor, largest relative difference",
    "occupancy_sensor_rms": "digits of a sensor, RMS of the relative differences",
    "variance_over_mean": "variance over mean of a sensor's digits, largest relative difference of a kind of sensor",
    "occupancy_w1": "digits of a sensor and event, Wasserstein-1 relative to the mean, mean over sensors",
    "event_total_ks": "digits of an event, Kolmogorov-Smirnov distance",
    "charge_w1": "charge of a pixel, Wasserstein-1, ADU",
    "charge_ks": "charge of a pixel, Kolmogorov-Smirnov distance",
    "charge_sensor": "mean charge of a sensor, largest difference, ADU",
    "size_w1": "pixels of a cluster, Wasserstein-1",
    "size_u_w1": "extent of a cluster in u, Wasserstein-1",
    "size_v_w1": "extent of a cluster in v, Wasserstein-1",
    "cluster_charge_ks": "charge of a cluster, Kolmogorov-Smirnov distance",
    "seed_share_ks": "share of the largest pixel of a cluster, Kolmogorov-Smirnov distance",
    "class_share": "shares of soft, hard and charged clusters, largest difference",
    "profile_u": "profile along u, chi-squared per degree of freedom less 1",
    "profile_v": "profile along v, chi-squared per degree of freedom less 1",
    "pitch_step": "digits per cell across the change of pitch, relative difference of the step",
    "neighbour_ks": "distance to the nearest cluster, Kolmogorov-Smirnov distance",
    "spearman": "rank correlation of sensors, RMS difference of the matrices",
    "auc": "area under the curve of a classifier of clusters, 0.5 when it cannot tell",
    "frechet": "Frechet distance of features of images",
    "kernel": "kernel distance of features of images",
    "copies": "largest share of lit pixels that an event has in common with one of the other sample",
}
"""What is compared, with a line on each."""

TARGETS: Final[dict[str, float]] = {
    "occupancy_sensor": 0.02,
    "variance_over_mean": 0.10,
    "charge_w1": 0.5,
    "auc": 0.6,
}
"""Where a generator should stay below."""


def variance_over_mean(summary: Summary) -> Tensor:
    """``(sensor,)`` variance over mean of the number of digits."""
    return summary.digits.var(0) / summary.digits.mean(0).clamp_min(1e-9)


def compare(sample: Summary, real: Summary, *, seed: int = 0) -> dict[str, float]:
    """All figures of `METRICS`.

    Args:
        sample: What is examined.
        real: What it should be like.
        seed: Of the classifier.

    Returns:
        Figures by name.
    """
    group = group_of_sensors()
    mean, wanted = sample.digits.mean(0), real.digits.mean(0).clamp_min(1e-9)
    spread, wanted_spread = (
        torch.stack([variance_over_mean(one)[group == kind].mean() for kind in range(4)]) for one in (sample, real)
    )
    charges, wanted_charges = sample.charges.sum(0), real.charges.sum(0)
    adu = torch.arange(256, dtype=torch.float64)
    mean_charge, wanted_charge = ((one.charges @ adu) / one.charges.sum(1).clamp_min(1) for one in (sample, real))
    classes, wanted_classes = (one.classes.sum(0) / one.classes.sum().clamp_min(1) for one in (sample, real))
    figures: dict[str, float] = {
        "occupancy_bias": float((mean.sum() / wanted.sum() - 1).abs()),
        "occupancy_sensor": float((mean / wanted - 1).abs().max()),
        "occupancy_sensor_rms": float((mean / wanted - 1).square().mean().sqrt()),
        "variance_over_mean": float((spread / wanted_spread - 1).abs().max()),
        "occupancy_w1": _occupancy_w1(sample.digits, real.digits),
        "event_total_ks": _sorted_ks(sample.digits.sum(1), real.digits.sum(1)),
        "charge_w1": float(wasserstein_1(charges, wanted_charges)),
        "charge_ks": float(ks_distance(charges, wanted_charges)),
        "charge_sensor": float((mean_charge - wanted_charge).abs().max()),
        "size_w1": float(wasserstein_1(sample.sizes.sum(0), real.sizes.sum(0))),
        "size_u_w1": float(wasserstein_1(sample.sizes_u.sum(0), real.sizes_u.sum(0))),
        "size_v_w1": float(wasserstein_1(sample.sizes_v.sum(0), real.sizes_v.sum(0))),
        "cluster_charge_ks": float(ks_distance(sample.cluster_charges.sum(0), real.cluster_charges.sum(0))),
        "seed_share_ks": float(ks_distance(sample.seed_share.sum(0), real.seed_share.sum(0))),
        "class_share": float((classes - wanted_classes)[: len(CLASSES) - 1].abs().max()),
        "profile_u": _profile(sample.profile_u, real.profile_u),
        "profile_v": _profile(sample.profile_v, real.profile_v),
        "pitch_step": max(abs(_pitch_step(sample, kind) - _pitch_step(real, kind)) for kind in range(4)),
        "neighbour_ks": _sorted_ks(nearest_distances(sample.events), nearest_distances(real.events)),
        "spearman": float((spearman(sample.digits) - spearman(real.digits)).square().mean().sqrt()),
        "auc": two_sample_auc(sample, real, Stream("overlay-fidelity", seed)),
        "frechet": frechet(sample.image_features, real.image_features),
        "kernel": kernel_distance(sample.image_features, real.image_features),
        "copies": copy_overlap(sample.events, real.events),
    }
    return figures


def missed(figures: Mapping[str, float], floor: Mapping[str, float]) -> list[str]:
    """Targets that figures miss, as sentences; what the noise floor misses as well cannot be told.

    Args:
        figures: Of the sample.
        floor: Of one half of the real events against the other.
    """
    found = []
    for name, target in TARGETS.items():
        if figures[name] >= target:
            text = f"{METRICS[name]}: {figures[name]:.3g}, target {target:g}"
            if floor[name] >= 0.7 * target:
                found.append(
                    f"With so many events it cannot be told whether a target is met. {text}, floor {floor[name]:.3g}"
                )
            else:
                found.append(f"Target missed. {text}")
    return found


def _occupancy_w1(first: Tensor, second: Tensor) -> float:
    """Mean over sensors of the Wasserstein-1 distance of numbers of digits, relative to the mean."""
    levels = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    difference = torch.quantile(first, levels, dim=0) - torch.quantile(second, levels, dim=0)
    return float((difference.abs().mean(0) / second.mean(0).clamp_min(1e-9)).mean())


def _sorted_ks(first: Tensor, second: Tensor) -> float:
    """Kolmogorov-Smirnov distance of two sets of numbers."""
    if not len(first) or not len(second):
        return 0.0
    first, second = first.double().sort().values, second.double().sort().values
    points = torch.cat((first, second))
    one = torch.searchsorted(first, points, right=True).double() / len(first)
    other = torch.searchsorted(second, points, right=True).double() / len(second)
    return float((one - other).abs().max())


def _profile(first: Tensor, second: Tensor) -> float:
    """Largest chi-squared per degree of freedom less 1, over kinds of sensors.

    Digits of one cluster come together, so a count varies by more than its root; the factor is taken as 3.
    """
    worst = 0.0
    for one, other in zip(first, second, strict=True):
        total, wanted = one.sum().clamp_min(1), other.sum().clamp_min(1)
        difference = one / total - other / wanted
        variance = 3 * (one.clamp_min(1) / total.square() + other.clamp_min(1) / wanted.square())
        worst = max(worst, float((difference.square() / variance).mean()) - 1)
    return max(worst, 0.0)


def _pitch_step(summary: Summary, kind: int) -> float:
    """Digits per cell in the sixty-four cells after the change of pitch over those before it."""
    sensor = next(one for one in PXD if int(group_of_sensors()[one.index]) == kind)
    border, profile = sensor.v_border, summary.profile_v[kind]
    before, after = profile[border - 64 : border].sum(), profile[border : border + 64].sum()
    return float(after / before.clamp_min(1))


def nearest_distances(events: list[Digits]) -> Tensor:
    """Distance from the first pixel of every cluster to that of the nearest other one of its sensor, cells.

    Args:
        events: Single events; four are used.
    """
    from diffdet.overlay.clustering import find_clusters

    found = []
    for event in events[:4]:
        clusters = find_clusters(event)
        places = torch.stack((event.u[clusters.first], event.v[clusters.first]), dim=1).double()
        for sensor in range(0, len(PXD), 4):
            here = places[clusters.sensor == sensor]
            if len(here) > 1:
                distance = torch.cdist(here, here).fill_diagonal_(torch.inf)
                found.append(distance.min(1).values)
    return torch.cat(found) if found else torch.zeros(0)
