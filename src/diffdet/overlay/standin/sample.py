"""Events of the stand-in as digits."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from diffdet.overlay.digits import Digits
from diffdet.overlay.standin.simulation import Rates, StandIn

__all__ = ["simulate_digits"]


def simulate_digits(
    events: int | Iterable[int],
    *,
    seed: int = 0,
    experiment: int = 0,
    run: int = 0,
    scale: float = 1.0,
    rates: Rates | None = None,
) -> Digits:
    """Simulate events; half a second each.

    Args:
        events: How many, from number 0; or their numbers.
        seed: With `experiment`, `run` and its number, all that an event depends on.
        experiment: Number of the experiment.
        run: Number of the run.
        scale: Factor on all rates.
        rates: Mean numbers of particles; those that ship with the package where None.

    Returns:
        Their digits.
    """
    numbers = list(range(events)) if isinstance(events, int) else list(events)
    simulation = StandIn(rates, scale=scale, seed=seed, experiment=experiment, run=run)
    parts = [simulation.columns(number) for number in numbers]
    event = torch.repeat_interleave(torch.tensor([len(part[0]) for part in parts], dtype=torch.int64))
    if not parts:
        return Digits.empty()
    columns = (torch.cat(column) for column in zip(*parts, strict=True))
    return Digits.from_columns(event, *columns, numbers=numbers)
