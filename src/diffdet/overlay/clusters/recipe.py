"""The recipe of the weights that ship with the package: simulate the stand-in, learn from it, set measured figures.

Reproduce them::

    python -m diffdet.overlay.clusters.recipe REFERENCE.json OUT.safetensors

The stand-in is a simulation, tuned to published statistics; it is no sample of Belle II data, and whatever the
statistics do not say (sizes and profiles of clusters, correlation of sensors) is the simulation's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from diffdet._version import __version__
from diffdet.overlay.clusters.fit import Targets, fit_clusters
from diffdet.overlay.clusters.weights import ClusterWeights
from diffdet.overlay.digits import Digits
from diffdet.overlay.standin.sample import simulate_digits
from diffdet.overlay.standin.tuning import Reference

__all__ = ["N_EVENTS", "SEED", "TRAINED_ON", "make"]

N_EVENTS: Final = 200
SEED: Final = 1

TRAINED_ON: Final = (
    "a stand-in simulation of diffdet, tuned to published statistics of a Geant4 overlay sample; not on Belle II data"
)


def make(
    reference: str | Path,
    *,
    n_events: int = N_EVENTS,
    seed: int = SEED,
    sample: Digits | None = None,
    told: Callable[[str], None] | None = None,
) -> ClusterWeights:
    """Make the weights.

    Args:
        reference: File of measured statistics, format ``pxd-reference-stats/1``.
        n_events: Events of the stand-in to learn from.
        seed: Of the stand-in and of the fit.
        sample: The events, where they have been simulated already.
        told: Told what is being done.
    """
    measured = Reference.load(reference)
    digits = simulate_digits(n_events, seed=seed) if sample is None else sample
    targets = Targets(measured.digits, measured.variance_over_mean, measured.spectrum)
    about: dict[str, Any] = {
        "model": "clusters",
        "trained_on": TRAINED_ON,
        "statistics": "occupancy, charge spectrum, variance over mean: evaluation output published with IEA-GAN (MIT)",
        "events": digits.n_events,
        "seed": seed,
        "recipe": "python -m diffdet.overlay.clusters.recipe REFERENCE.json OUT.safetensors",
        "licence": "BSD-3-Clause",
        "versions": {"diffdet": __version__, "torch": str(torch.__version__)},
    }
    return fit_clusters(digits, seed=seed, targets=targets, about=about, told=told)


if __name__ == "__main__":
    sys.stdout.write(make(sys.argv[1]).save(sys.argv[2]) + "\n")
