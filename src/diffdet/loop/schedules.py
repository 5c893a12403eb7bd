"""How a quantity changes as a run goes on: pure functions of progress, and the callback that applies them.

Progress goes from 0 (the first update) to 1 (the last one); a schedule turns it into a factor, usually of a learning
rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from diffdet.core.checks import check_in_range, check_positive
from diffdet.core.errors import InputError
from diffdet.loop.callbacks import Callback

__all__ = ["Schedule", "ScheduleRate", "cosine", "linear", "linear_warm_up", "logarithmic", "one_cycle", "triangle"]

Schedule = Callable[[float], float]
"""From progress, 0 to 1, to a factor."""


def cosine(progress: float, start: float, end: float) -> float:
    """Half a period of a cosine from one value to another: start + (end - start) (1 - cos(pi p)) / 2.

    Args:
        progress: p, 0 at the start to 1 at the end; values outside are taken as the nearest of the two.
        start: Value at 0.
        end: Value at 1.

    Returns:
        Value at p, exactly `start` and `end` at the ends.
    """
    if progress <= 0.0:
        return start
    if progress >= 1.0:
        return end
    return start + (end - start) * 0.5 * (1.0 - math.cos(math.pi * progress))


def linear(progress: float, start: float, end: float) -> float:
    """In a straight line from one value to another: start + (end - start) p.

    Args:
        progress: p, 0 at the start to 1 at the end; values outside are taken as the nearest of the two.
        start: Value at 0.
        end: Value at 1.
    """
    return start + (end - start) * min(1.0, max(0.0, progress))


def triangle(progress: float, start: float, turn: float) -> float:
    """In a straight line from one value to another and back: start + (turn - start) (1 - |2 p - 1|).

    Args:
        progress: p, 0 at the start to 1 at the end; values outside are taken as the nearest of the two.
        start: Value at 0 and at 1.
        turn: Value in the middle.
    """
    return start + (turn - start) * (1.0 - abs(2.0 * min(1.0, max(0.0, progress)) - 1.0))


def one_cycle(progress: float, init: float, mid: float, final: float, turn: float) -> float:
    """Up and down again: a cosine from `init` to `mid`, then one from `mid` to `final`.

    Args:
        progress: 0 to 1.
        init: Value at 0.
        mid: Value at `turn`.
        final: Value at 1.
        turn: Where the first part ends, 0 to 1.

    Returns:
        Value at this progress.

    Reference: L. N. Smith, "A disciplined approach to neural network hyper-parameters: Part 1", arXiv:1803.09820.
    """
    if progress < turn:
        return cosine(progress / turn, init, mid)
    return cosine((progress - turn) / (1.0 - turn) if turn < 1.0 else 0.0, mid, final)


def linear_warm_up(progress: float, length: float) -> float:
    """A straight line from 0 to 1 over the first part of a run, then 1.

    Args:
        progress: 0 to 1.
        length: Share of the run that it takes, above 0 to 1.
    """
    return min(1.0, progress / length)


def logarithmic(progress: float, start: float, end: float) -> float:
    """From one positive value to another in equal ratios: start (end / start)^p.

    Args:
        progress: p, 0 to 1; values outside are taken as the nearest of the two.
        start: Value at 0, above 0.
        end: Value at 1, above 0.
    """
    check_positive("start", start)
    check_positive("end", end)
    if progress <= 0.0:
        return start
    if progress >= 1.0:
        return end
    return start * (end / start) ** progress


class ScheduleRate(Callback):
    """Multiplies learning rates by a factor that depends on the progress of the run.

    Args:
        schedule: Factor by progress. The factor of every update is set before it.
        updates_per_epoch: How many updates an epoch has.
        optimisers: Names of the optimisers that it applies to; all where None.

    Raises:
        InputError: If `updates_per_epoch` is below 1; when the run begins, if a name is not known.
    """

    saved = ("rates", "count")

    def __init__(self, schedule: Schedule, updates_per_epoch: int, optimisers: Iterable[str] | None = None) -> None:
        check_in_range("updates_per_epoch", updates_per_epoch, 1)
        self.schedule = schedule
        self.updates_per_epoch = updates_per_epoch
        self.optimisers = None if optimisers is None else list(optimisers)
        self.rates: dict[str, list[float]] = {}
        self.count = 0

    def on_train_begin(self) -> None:
        """Note the learning rates, and set those of the first update."""
        known = self._known()
        unknown = set(self.optimisers or ()) - known.keys()
        if unknown:
            raise InputError(f"`optimisers` must be among {sorted(known)}; got {sorted(unknown)}")
        names = known if self.optimisers is None else self.optimisers
        self.count = 0
        self.rates = {name: [group["lr"] for group in known[name].param_groups] for name in names}
        self._apply()

    def on_step_end(self) -> None:
        """Set the learning rates of the next update."""
        update = self.state.update
        if update is not None and not update.frozen and any(name in update.optimisers for name in self.rates):
            self.count += 1
            self._apply()

    def _apply(self) -> None:
        total = self.updates_per_epoch * (self.state.n_epochs or 1)
        factor = self.schedule(min(1.0, self.count / max(1, total - 1)))
        known = self._known()
        for name, rates in self.rates.items():
            for group, rate in zip(known[name].param_groups, rates, strict=True):
                group["lr"] = rate * factor

    def _known(self) -> dict[str, Any]:
        assert self.loop is not None
        return {name: opt for update in self.loop.updates for name, opt in update.optimisers.items()}
