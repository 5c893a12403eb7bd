"""The generator `clusters`, the default of the package: see `diffdet.overlay.clusters`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from diffdet.core.checks import check_in_range
from diffdet.core.errors import CheckpointError
from diffdet.overlay.clusters.sampling import ClusterSampler
from diffdet.overlay.clusters.weights import FORMAT, ClusterWeights, default_path
from diffdet.overlay.conditions import NOMINAL, Conditions
from diffdet.overlay.digits import Digits
from diffdet.overlay.generator import AbsGenerator, event_stream

__all__ = ["ClusterGenerator"]


class ClusterGenerator(AbsGenerator):
    """Draws clusters and writes digits; sensors differ, and go together within an event.

    Args:
        weights: What was learned; the weights that ship with the package where None.
        scale: Factor on the rates of all sensors, for example for another luminosity.
        threads: Events that are drawn at the same time. They do not depend on it.
        conditions: What the detector delivers.
        sha256: Of the file of the weights, for `describe`.
    """

    name: ClassVar[str] = "clusters"

    def __init__(
        self,
        weights: ClusterWeights | None = None,
        *,
        scale: float = 1.0,
        threads: int = 1,
        conditions: Conditions = NOMINAL,
        sha256: str | None = None,
    ) -> None:
        super().__init__(conditions=conditions)
        check_in_range("threads", threads, 1)
        self.weights = ClusterWeights.load() if weights is None else weights
        self.scale = scale
        self.threads = threads
        self._sampler = ClusterSampler(self.weights, scale=scale)
        self._sha256 = _sha256(default_path()) if weights is None else sha256

    @classmethod
    def from_checkpoint(cls, checkpoint: str | Path | None = None, **options: Any) -> Self:
        """A generator with the weights of a file; those of the package when None. Options are those of the class."""
        path = default_path() if checkpoint is None else Path(checkpoint)
        if not path.is_file():
            raise CheckpointError(
                f"`checkpoint` must be a file of weights of 'clusters', such as `diffdet background train` writes; "
                f"got {str(path)!r}. Without `checkpoint`, the weights of the package are used"
            )
        return cls(ClusterWeights.load(path), sha256=_sha256(path), **options)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One event; see `AbsGenerator.draw`. Digits are ordered by sensor, v and u."""
        return self._sampler.draw(generator)

    def describe(self) -> dict[str, Any]:
        """What the generator is and what it was trained on."""
        return {
            "generator": self.name,
            "weights_format": FORMAT,
            "weights_sha256": self._sha256,
            "trained_on": str(self.weights.about.get("trained_on", "not said by the weights")),
            "scale": self.scale,
            "about": dict(self.weights.about),
        }

    def sample_events(self, numbers: Iterable[int], *, seed: int = 0, experiment: int = 0, run: int = 0) -> Digits:
        """Digits of the events with given numbers, in the given order; arguments as for `sample`."""
        listed = list(numbers)
        if not listed:
            return Digits.empty(layout=self.layout)

        def event(number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            return self.draw(event_stream(seed, experiment, run, number).generator())

        if self.threads > 1:
            with ThreadPoolExecutor(self.threads) as pool:
                columns = list(pool.map(event, listed))
        else:
            columns = [event(number) for number in listed]
        counts = torch.tensor([len(one[0]) for one in columns])
        sensor, u, v, charge = (torch.cat(column) for column in zip(*columns, strict=True))
        row = torch.repeat_interleave(counts)
        # in order, in range and without repeats by construction
        digits = Digits(row, sensor, u, v, charge, torch.tensor(listed, dtype=torch.int64), self.layout)
        return digits if self.conditions == NOMINAL else self.conditions.apply(digits)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
