"""Events of the stand-in: particles of every population thrown at the forty sensors, read out as digits.

An event's numbers come from one generator that is keyed by the seed and the event, so an event is the same whatever is
simulated before, after or beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from diffdet.core.errors import InputError
from diffdet.core.random import Stream
from diffdet.core.storage import write_json
from diffdet.overlay.standin import deposits, populations
from diffdet.overlay.standin.geometry import GROUPS, N_SENSORS, N_U, N_V, Geometry, group_of

__all__ = ["Rates", "StandIn", "default_rates"]

FORMAT: Final = "diffdet-standin-rates/1"


@dataclass(frozen=True)
class Rates:
    """How many particles of every population there are in an event, on average.

    Attributes:
        curlers: Of every kind of curler in the whole event.
        local: Of every other population ``(population, group)`` in one sensor of the group.
        irradiation: Factor of every sensor on `local`.
        about: How the rates were found.
    """

    curlers: Tensor
    local: Tensor
    irradiation: Tensor
    about: Mapping[str, Any]

    def per_sensor(self) -> Tensor:
        """Rates of the local populations in every sensor, ``(population, sensor)``."""
        return self.local[:, group_of()] * self.irradiation

    def save(self, path: str | Path) -> None:
        """Write the rates as JSON."""
        names = populations.names()
        n_curlers = len(self.curlers)
        write_json(
            path,
            {
                "format": FORMAT,
                "about": dict(self.about),
                "groups": list(GROUPS),
                "curlers": {name: round(float(x), 4) for name, x in zip(names, self.curlers, strict=False)},
                "local": {
                    name: [round(float(x), 5) for x in row]
                    for name, row in zip(names[n_curlers:], self.local, strict=True)
                },
                "irradiation": [round(float(x), 5) for x in self.irradiation],
            },
        )

    @classmethod
    def load(cls, path: Any) -> Rates:
        """Read rates that `save` wrote.

        Raises:
            InputError: If the file holds none, or rates of other populations.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"`path` must be a file of rates in JSON; {path} is not: {error}") from error
        names = populations.names()
        curlers = [one.name for one in populations.CURLERS]
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError(f"`path` must be a file of rates of the format {FORMAT}; {path} is not")
        if list(data["curlers"]) != curlers or list(data["local"]) != list(names[len(curlers) :]):
            raise InputError(f"{path} holds rates of other populations than this version knows")
        return cls(
            torch.tensor(list(data["curlers"].values())),
            torch.tensor(list(data["local"].values())),
            torch.tensor(data["irradiation"]),
            data["about"],
        )


def default_rates() -> Rates:
    """The rates that ship with the package, tuned to measured statistics; see `diffdet.overlay.standin.tuning`."""
    return Rates.load(resources.files("diffdet.overlay.standin") / "rates.json")


class StandIn:
    """The simulation.

    Args:
        rates: Mean numbers of particles; those that ship with the package where None.
        scale: Factor on all rates, for example for another luminosity.
        seed: Of the events.
        experiment: Part of the identity of the events.
        run: Part of the identity of the events.
        sources: Factors on single populations by the beginning of their names, such as ``{"curler": 2.0}``.
        missing: Indices of sensors that are absent.
        electronics: How charge spreads and is read out.

    Raises:
        InputError: If `scale` or a factor is negative, or a source or a sensor is not known.
    """

    def __init__(
        self,
        rates: Rates | None = None,
        *,
        scale: float = 1.0,
        seed: int = 0,
        experiment: int = 0,
        run: int = 0,
        sources: Mapping[str, float] | None = None,
        missing: Sequence[int] = (),
        electronics: deposits.Electronics | None = None,
    ) -> None:
        self.rates = default_rates() if rates is None else rates
        self.geometry = Geometry()
        self.electronics = deposits.Electronics() if electronics is None else electronics
        self.stream = Stream("overlay-standin", seed, experiment, run)
        factors = _factors(sources or {}, scale)
        n_curlers = len(self.rates.curlers)
        self._curlers = self.rates.curlers * factors[:n_curlers]
        self._local = self.rates.per_sensor() * factors[n_curlers:, None]
        self._missing = torch.zeros(N_SENSORS, dtype=torch.bool)
        for index in missing:
            if not 0 <= index < N_SENSORS:
                raise InputError(f"`missing` must hold indices of sensors, 0 to {N_SENSORS - 1}; got {index}")
            self._missing[index] = True

    def columns(self, event: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Digits of an event.

        Args:
            event: Number of the event.

        Returns:
            Sensor, u cell, v cell and charge (ADU) of every digit, int64, ordered by sensor, u and v.
        """
        generator = self.stream.generator(event)
        particles = torch.cat(list(self._energy(generator)), dim=1)
        pixel, charge = deposits.read_out(particles[0].to(torch.int64), particles[1], self.electronics, generator)
        sensor = pixel // (N_U * N_V)
        present = ~self._missing[sensor]
        pixel, charge, sensor = pixel[present], charge[present], sensor[present]
        return sensor, pixel // N_V % N_U, pixel % N_V, charge

    def _energy(self, generator: torch.Generator) -> Iterator[Tensor]:
        """Pixel numbers and energies of the packets of charge, one tensor of two rows for each kind of particle."""
        for found in self._deposits(generator):
            _, pixel, energy = deposits.cells(found, self.geometry, self.electronics, generator)
            yield torch.stack((pixel.double(), energy.double()))

    def _deposits(self, generator: torch.Generator) -> Iterator[deposits.Deposits]:
        thickness = self.geometry.thickness
        numbers = torch.poisson(self._curlers, generator=generator).to(torch.int64)
        crossings = [populations.curl(torch.repeat_interleave(numbers), self.geometry, generator)]
        numbers = torch.poisson(self._local, generator=generator).to(torch.int64)
        n_passing = len(populations.PASSING)
        kind, sensor = _identities(numbers[:n_passing])
        crossings.append(populations.scatter(kind, sensor, self.geometry, generator))
        for one in crossings:
            yield deposits.tracks(
                one.particle,
                one.sensor,
                one.u,
                one.v,
                one.slope_u,
                one.slope_v,
                one.density,
                thickness,
                generator,
            )
        kind, sensor = _identities(numbers[n_passing:])
        u, v, energy, ranging = populations.convert(kind, sensor, self.geometry, generator)
        yield deposits.stopped(torch.arange(len(u)), sensor, u, v, energy, thickness, generator, ranging=ranging)


def _identities(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Population and sensor of every particle, from a table of numbers."""
    flat = torch.repeat_interleave(numbers.reshape(-1))
    return flat // numbers.shape[1], flat % numbers.shape[1]


def _factors(sources: Mapping[str, float], scale: float) -> Tensor:
    """Factor on every population."""
    names = populations.names()
    factors = torch.full((len(names),), float(scale))
    for source, factor in {**sources, "": 1.0}.items():
        if not factor >= 0 or not scale >= 0:
            raise InputError(f"`scale` and `sources` must be factors of at least 0; got {scale} and {dict(sources)}")
        chosen = torch.tensor([name.startswith(source) for name in names])
        if not bool(chosen.any()):
            known = sorted({name.split()[0] for name in names})
            raise InputError(f"`sources` must name populations, such as {', '.join(known)}; got {source!r}")
        factors[chosen] *= factor
    return factors
