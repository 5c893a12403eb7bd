"""Statistics that others have published, for a sample to be compared with when their events cannot be had.

`reference.json` holds, for a Geant4 overlay sample of 10,000 events, occupancy and mean charge of every sensor and the
spectrum of charges; and for four published networks the figures that follow from the same publication.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, Final

import torch

from diffdet.kernels.distances import ks_distance, wasserstein_1
from diffdet.overlay.fidelity.metrics import variance_over_mean
from diffdet.overlay.fidelity.summary import Summary
from diffdet.overlay.sensors import PXD

__all__ = ["PUBLISHED", "VARIANCE_OVER_MEAN", "against_published", "reference"]

PUBLISHED: Final[dict[str, str]] = {
    "occupancy_bias": "total number of digits, relative difference",
    "occupancy_sensor": "digits of a sensor, largest relative difference",
    "occupancy_sensor_rms": "digits of a sensor, RMS of the relative differences",
    "variance_over_mean": "variance over mean of a sensor's digits, largest relative difference of a layer",
    "charge_w1": "charge of a pixel, Wasserstein-1, ADU",
    "charge_ks": "charge of a pixel, Kolmogorov-Smirnov distance",
    "charge_sensor": "mean charge of a sensor, largest difference, ADU",
}
"""Figures that the publication allows; variance over mean for our sample only."""

VARIANCE_OVER_MEAN: Final = {1: 12.0, 2: 12.5}
"""Of the number of digits of a sensor, by layer: derived from the published histograms of occupancy."""


def reference() -> dict[str, Any]:
    """Content of `reference.json`."""
    text = (resources.files("diffdet.overlay.fidelity") / "reference.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def against_published(summary: Summary) -> dict[str, float]:
    """Figures of `PUBLISHED` for a sample.

    Args:
        summary: The sample.
    """
    real = reference()["stats"]["real"]
    wanted = torch.tensor(real["occupancy_per_sensor"], dtype=torch.float64) * PXD.n_pixels
    wanted_charge = torch.tensor(real["mean_charge_per_sensor"], dtype=torch.float64)
    spectrum = torch.tensor([0] * 7 + real["charge_counts_7_255"], dtype=torch.float64)
    ratio = summary.digits.mean(0) / wanted
    charges = summary.charges.sum(0)
    mean_charge = (summary.charges @ torch.arange(256, dtype=torch.float64)) / summary.charges.sum(1).clamp_min(1)
    spread = variance_over_mean(summary)
    layer = torch.tensor([sensor.layer for sensor in PXD])
    layers = [float(spread[layer == number].mean() / value - 1) for number, value in VARIANCE_OVER_MEAN.items()]
    return {
        "occupancy_bias": float(summary.digits.mean(0).sum() / wanted.sum() - 1),
        "occupancy_sensor": float((ratio - 1).abs().max()),
        "occupancy_sensor_rms": float((ratio - 1).square().mean().sqrt()),
        "variance_over_mean": max(layers, key=abs),
        "charge_w1": float(wasserstein_1(charges, spectrum)),
        "charge_ks": float(ks_distance(charges, spectrum)),
        "charge_sensor": float((mean_charge - wanted_charge).abs().max()),
    }
