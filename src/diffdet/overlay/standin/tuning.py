"""How often each population occurs: a fit of their rates to measured statistics.

The particles of a population, simulated one by one, have a spectrum of pixel charges, a mean number of pixels k in a
sensor and a mean of k^2. All figures that were measured are sums over populations with the rates as weights: the number
of digits of a group of sensors, the spectrum, the mean charge, and the variance of the number of digits, which for
independent particles is the sum of rate times <k^2>. So the rates are the solution of a least-squares problem with
rates of at least zero. It has many solutions; a weak pull towards a smooth prior (falling spectra, all directions)
picks one that is not made of a few spikes.

Reproduce `rates.json`::

    python -m diffdet.overlay.standin.tuning REFERENCE.json OUT.json
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from diffdet.core.extras import require
from diffdet.core.random import Stream
from diffdet.overlay.standin import deposits, populations
from diffdet.overlay.standin.geometry import GROUPS, N_SENSORS, N_U, N_V, Geometry, group_of
from diffdet.overlay.standin.simulation import Rates

if TYPE_CHECKING:
    from diffdet.overlay.standin.populations import Crossing

__all__ = ["Reference", "measure", "solve", "tune"]

VARIANCE_OVER_MEAN: Final = {1: 12.0, 2: 12.5}
"""Variance over mean of the number of digits of a sensor, by layer."""

N_CURLERS: Final = 24000
N_LOCAL: Final = 1500
_PRIOR: Final = {"curler": 0.3, "passing": 0.45, "stopping": 0.2, "recoil": 0.05}
_PULL: Final = 0.02


@dataclass(frozen=True)
class Reference:
    """Measured statistics.

    Attributes:
        digits: Mean number of digits of every sensor and event.
        mean_charge: Of every sensor, ADU.
        spectrum: Digits an event of every charge 0 to 255, all sensors.
        variance_over_mean: Of the number of digits, of every group.
    """

    digits: Tensor
    mean_charge: Tensor
    spectrum: Tensor
    variance_over_mean: Tensor

    @classmethod
    def load(cls, path: str | Path, key: str = "real") -> Reference:
        """Read a file of the format ``pxd-reference-stats/1``."""
        data = json.loads(Path(path).read_text(encoding="utf-8"))["stats"][key]
        digits = torch.tensor(data["occupancy_per_sensor"], dtype=torch.float64) * N_U * N_V
        counts = torch.tensor([0] * 7 + data["charge_counts_7_255"], dtype=torch.float64)
        layers = [int(name.split()[1]) for name in GROUPS]
        return cls(
            digits,
            torch.tensor(data["mean_charge_per_sensor"], dtype=torch.float64),
            counts * (digits.sum() / counts.sum()),
            torch.tensor([VARIANCE_OVER_MEAN[layer] for layer in layers], dtype=torch.float64),
        )


@dataclass(frozen=True)
class Features:
    """What one particle of every population leaves, on average.

    Attributes:
        spectrum: Digits by charge, ``(population, group, 256)``; of a curler in all sensors of the group, of another
            particle in its sensor.
        squares: Mean of k^2, ``(population, group)``.
        sensors: Digits of a curler in every sensor, ``(curler, sensor)``.
    """

    spectrum: Tensor
    squares: Tensor
    sensors: Tensor


def measure(seed: int = 0) -> Features:
    """Simulate particles of every population one by one.

    Args:
        seed: Of the particles.

    Returns:
        What they leave.
    """
    geometry, electronics, stream = Geometry(), deposits.Electronics(), Stream("overlay-standin-tuning", seed)
    spectra, squares, sensors = [], [], []

    def add(found: deposits.Deposits, count: float, generator: torch.Generator) -> Tensor:
        owner, pixel, energy = deposits.cells(found, geometry, electronics, generator)
        key, charge = deposits.read_out(owner * (N_SENSORS * N_U * N_V) + pixel, energy, electronics, generator)
        where = key // (N_U * N_V)
        group = group_of()[where % N_SENSORS]
        spectra.append(torch.bincount(group * 256 + charge, minlength=4 * 256).reshape(4, 256) / count)
        particle, k = torch.unique_consecutive(where, return_counts=True)
        squared = torch.zeros(4, dtype=torch.float64)
        squares.append(squared.index_add_(0, group_of()[particle % N_SENSORS], k.double().square()) / count)
        return torch.bincount(where % N_SENSORS, minlength=N_SENSORS) / count

    def cross(one: Crossing, generator: torch.Generator) -> deposits.Deposits:
        columns = (one.particle, one.sensor, one.u, one.v, one.slope_u, one.slope_v, one.density)
        return deposits.tracks(*columns, geometry.thickness, generator)

    for kind in range(len(populations.CURLERS)):
        generator = stream.generator("curler", kind)
        curlers = populations.curl(torch.full((N_CURLERS,), kind), geometry, generator)
        sensors.append(add(cross(curlers, generator), N_CURLERS, generator))
    one_of_each = torch.tensor([int((group_of() == group).nonzero()[0]) for group in range(4)]).repeat(N_LOCAL)
    for kind in range(len(populations.PASSING)):
        generator = stream.generator("passing", kind)
        passing = populations.scatter(torch.full((4 * N_LOCAL,), kind), one_of_each, geometry, generator)
        add(cross(passing, generator), N_LOCAL, generator)
    for kind in range(len(populations.STOPPING)):
        generator = stream.generator("stopping", kind)
        u, v, energy, ranging = populations.convert(torch.full((4 * N_LOCAL,), kind), one_of_each, geometry, generator)
        owner = torch.arange(len(u))
        columns = (owner, one_of_each, u, v, energy, geometry.thickness, generator)
        add(deposits.stopped(*columns, ranging=ranging), N_LOCAL, generator)
    return Features(torch.stack(spectra).double(), torch.stack(squares), torch.stack(sensors).double())


def solve(features: Features, reference: Reference, about: dict[str, Any] | None = None) -> Rates:
    """Find the rates.

    Args:
        features: What the particles leave.
        reference: What was measured.
        about: What to say of the rates.

    Returns:
        The rates.
    """
    optimize = require("scipy.optimize", "hep", "tuning the stand-in")
    names, n_curlers, group = populations.names(), len(populations.CURLERS), group_of()
    digits = torch.zeros(4, dtype=torch.float64).index_add_(0, group, reference.digits)
    mean = torch.zeros(4, dtype=torch.float64).index_add_(0, group, reference.digits * reference.mean_charge) / digits
    adu = torch.arange(256, dtype=torch.float64)
    total, seen = digits.sum(), reference.spectrum > 0
    # half way between equal weights of bins and equal weights of their relative errors
    weight = 8 / torch.sqrt(reference.spectrum[seen].clamp_min(2e-4 * total) * total)

    columns, prior = [], []
    for k, name in enumerate(names):
        masks = [torch.ones(4, dtype=torch.float64)] if k < n_curlers else list(torch.eye(4, dtype=torch.float64))
        for mask in masks:
            spectrum = features.spectrum[k] * mask[:, None]
            number = spectrum.sum(1)
            columns.append(
                torch.cat(
                    (
                        spectrum.sum(0)[seen] * weight,
                        30 * number / digits,
                        15 * (features.squares[k] * mask / reference.variance_over_mean - number) / digits,
                        30 * (spectrum @ adu - mean * number) / (mean * digits),
                    )
                )
                / number.sum().clamp_min(1e-9)  # the unknowns are digits, not particles
            )
            share = _PRIOR[name.split()[0]] * _shape(k)
            prior.append(share * (total if k < n_curlers else digits[mask > 0][0]))
    matrix, target = torch.stack(columns, 1), torch.cat((reference.spectrum[seen] * weight, 30 * torch.ones(4)))
    target = torch.cat((target, torch.zeros(8)))
    expected = torch.stack([torch.as_tensor(x, dtype=torch.float64) for x in prior])
    pull = _PULL / torch.sqrt(expected * total)
    rows = np.concatenate((matrix.numpy(), torch.diag(pull).numpy() * 8))
    solution, _ = optimize.nnls(rows, np.concatenate((target.numpy(), (pull * expected * 8).numpy())))
    found = torch.as_tensor(solution)
    number = features.spectrum.sum(2)
    curlers = found[:n_curlers] / number[:n_curlers].sum(1)
    sensors_of_group = torch.bincount(group, minlength=4).double()
    local = found[n_curlers:].reshape(-1, 4) / number[n_curlers:].clamp_min(1e-9) / sensors_of_group
    return Rates(curlers, local, _irradiation(curlers, local, features, reference), about or {})


def _shape(k: int) -> float:
    """Share of a population in the prior of its kind."""
    if k < len(populations.CURLERS):
        weights = [1 / one.low - 1 / one.high for one in populations.CURLERS]
        return weights[k] / sum(weights)
    k -= len(populations.CURLERS)
    if k < len(populations.PASSING):
        weights = [one.density**-3 / one.low**0.25 for one in populations.PASSING]
        return weights[k] / sum(weights)
    k -= len(populations.PASSING)
    weights = [one.low**-0.5 for one in populations.STOPPING if one.ranging == populations.STOPPING[k].ranging]
    return populations.STOPPING[k].low ** -0.5 / sum(weights)


def _irradiation(curlers: Tensor, local: Tensor, features: Features, reference: Reference) -> Tensor:
    """Factor of every sensor on the local rates that leaves its measured number of digits, beside the curlers'."""
    group = group_of()
    from_curlers = (curlers[:, None] * features.sensors).sum(0)
    one_sensor = (local * features.spectrum[len(curlers) :].sum(2)).sum(0)[group]
    return ((reference.digits - from_curlers) / one_sensor).clamp_min(0)


def tune(reference: str | Path, out: str | Path, *, seed: int = 0) -> Rates:
    """Measure, solve, and write the rates.

    Args:
        reference: File of measured statistics, format ``pxd-reference-stats/1``.
        out: File to write.
        seed: Of the particles.

    Returns:
        The rates.
    """
    about = {
        "reference": Path(reference).name,
        "seed": seed,
        "recipe": "python -m diffdet.overlay.standin.tuning REFERENCE.json OUT.json",
    }
    rates = solve(measure(seed), Reference.load(reference), about)
    rates.save(out)
    return rates


if __name__ == "__main__":
    tune(sys.argv[1], sys.argv[2])
