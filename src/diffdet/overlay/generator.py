"""Generators of background: given the name of an event, its digits.

An event's random numbers are keyed by (seed, experiment, run, event), so an event is the same in any order, batch,
process or worker, alone or among others. A generator that is made once can be asked for events for ever; it keeps no
state between them.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import torch
from torch import Tensor

from diffdet.core.checks import check_choice
from diffdet.core.errors import InputError
from diffdet.core.random import Stream
from diffdet.overlay.conditions import NOMINAL, Conditions
from diffdet.overlay.digits import Digits
from diffdet.overlay.sensors import PXD, SensorLayout

__all__ = ["DEFAULT", "GENERATORS", "AbsGenerator", "event_stream", "make_generator"]

GENERATORS: Final[dict[str, str]] = {
    "clusters": "diffdet.overlay.clusters.generator:ClusterGenerator",
    "convnet": "diffdet.overlay.network_generators:ConvNetGenerator",
    "resnet": "diffdet.overlay.network_generators:ResNetGenerator",
    "ieagan": "diffdet.overlay.network_generators:IeaGanGenerator",
}
"""Generators by name, and where their classes are; a class is loaded when it is asked for."""

DEFAULT: Final = "clusters"
"""The generator whose weights come with the package."""


def event_stream(seed: int, experiment: int, run: int, event: int) -> Stream:
    """The random stream of an event: the whole identity of what is drawn for it.

    Args:
        seed: Any integer.
        experiment: Number of the experiment.
        run: Number of the run.
        event: Number of the event.
    """
    return Stream("overlay", seed, experiment, run, event)


class AbsGenerator(ABC):
    """Makes the digits of events.

    A subclass says how one event is drawn from its random numbers (`draw`), where it comes from (`from_checkpoint`) and
    what it is (`describe`); the rest is here. `draw` must depend on the given generator alone and leave no trace in the
    object, so that events may be asked for in any order and from several threads.

    Args:
        conditions: What the detector delivers.
    """

    name: ClassVar[str]
    """Under which the generator is registered."""

    layout: SensorLayout = PXD

    def __init__(self, *, conditions: Conditions = NOMINAL) -> None:
        self.conditions = conditions

    @classmethod
    @abstractmethod
    def from_checkpoint(cls, checkpoint: str | Path | None = None, **options: Any) -> Self:
        """Make a generator with the weights of a file.

        Args:
            checkpoint: The file; the default of the package, where it has one, when None.
            **options: Those of the class.

        Raises:
            CheckpointError: If the weights do not fit, or there is no default.
            StorageError: If the file cannot be read.
        """

    @abstractmethod
    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One event.

        Args:
            generator: Source of all random numbers of the event, at its beginning; on the CPU.

        Returns:
            Sensor, u, v and charge (ADU, 1 to 255) of its digits, integers, in any order, no pixel twice.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the generator is, as JSON: at least `generator`, `weights_sha256` and `trained_on`. Files carry it."""

    def sample(self, n_events: int, *, seed: int = 0, experiment: int = 0, run: int = 0, start: int = 0) -> Digits:
        """Digits of consecutive events.

        Args:
            n_events: How many.
            seed: Any integer; another seed gives other events.
            experiment: Number of the experiment.
            run: Number of the run.
            start: Number of the first event.

        Raises:
            InputError: If `n_events` is negative.
        """
        if n_events < 0:
            raise InputError(f"`n_events` must be at least 0; got {n_events}")
        return self.sample_events(range(start, start + n_events), seed=seed, experiment=experiment, run=run)

    def sample_events(self, numbers: Iterable[int], *, seed: int = 0, experiment: int = 0, run: int = 0) -> Digits:
        """Digits of the events with given numbers, in the given order; arguments as for `sample`."""
        listed = list(numbers)
        columns = [self.draw(event_stream(seed, experiment, run, number).generator()) for number in listed]
        if not columns:
            return Digits.empty(layout=self.layout)
        counts = torch.tensor([len(charge) for *_, charge in columns])
        sensor, u, v, charge = (torch.cat([event[k].cpu() for event in columns]) for k in range(4))
        event = torch.repeat_interleave(counts)
        digits = Digits.from_columns(event, sensor, u, v, charge, numbers=listed, layout=self.layout)
        return self.conditions.apply(digits)

    def blocks(
        self, n_events: int, *, seed: int = 0, experiment: int = 0, run: int = 0, start: int = 0, block: int = 50
    ) -> Iterator[Digits]:
        """The events of `sample` in blocks, so that memory does not grow with their number.

        Args:
            n_events: How many.
            seed: As for `sample`, like the next three.
            experiment: Number of the experiment.
            run: Number of the run.
            start: Number of the first event.
            block: Events to a block; the events do not depend on it.
        """
        if block < 1:
            raise InputError(f"`block` must be at least 1; got {block}")
        for first in range(start, start + n_events, block):
            size = min(block, start + n_events - first)
            yield self.sample(size, seed=seed, experiment=experiment, run=run, start=first)


def make_generator(name: str = DEFAULT, checkpoint: str | Path | None = None, **options: Any) -> AbsGenerator:
    """Make a generator by its name.

    Args:
        name: One of `GENERATORS`.
        checkpoint: File with its weights; the package's default, where it has one, when None.
        **options: Those of its class, for example ``precision="bf16"`` of the networks.

    Raises:
        InputError: If there is no generator of that name.
        CheckpointError: If the weights do not fit, or there is no default.
        StorageError: If the file cannot be read.
    """
    check_choice("name", name, GENERATORS)
    module, _, attribute = GENERATORS[name].partition(":")
    found: type[AbsGenerator] = getattr(importlib.import_module(module), attribute)
    return found.from_checkpoint(checkpoint, **options)
