"""Objects that the loop tells what happens, and a few that every kind of training can use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor

from diffdet.core.checks import check_choice, check_positive
from diffdet.core.errors import CheckpointError, InputError, NonFiniteError

if TYPE_CHECKING:
    from diffdet.loop.engine import Loop
    from diffdet.loop.state import LoopState
    from diffdet.loop.update import Update

__all__ = ["Callback", "ClipUpdate", "Every", "StopOnNonFinite", "StopOnPlateau", "hook_without_effect"]

_log = logging.getLogger(__name__)

_Hook = TypeVar("_Hook", bound=Callable[..., None])


def hook_without_effect(method: _Hook) -> _Hook:
    """Mark a hook that does nothing, so that the loop need not call it."""
    method.does_nothing = True  # type: ignore[attr-defined]
    return method


class Callback:
    """Listens to a loop: a method with the name of an event is called whenever it happens, without arguments.

    What a callback learns while running must survive a kill, so a class lists it: attributes in `saved` are kept in
    checkpoints; those in `transient` need not be, because they are made anew when a run begins or are used up before
    the next checkpoint can be taken. A class with other needs overrides `state_dict` and `load_state_dict`.
    """

    saved: ClassVar[tuple[str, ...]] = ()
    transient: ClassVar[tuple[str, ...]] = ()

    loop: Loop | None = None

    def attach(self, loop: Loop) -> None:
        """Called by a loop that takes the callback on."""
        self.loop = loop

    @property
    def state(self) -> LoopState:
        """State of the loop that the callback is attached to.

        Raises:
            InputError: If it is attached to none.
        """
        if self.loop is None:
            raise InputError(f"`{type(self).__name__}` is not attached to a loop: pass it in `callbacks` of the loop")
        return self.loop.state

    def release(self) -> None:
        """Called once when a run or a prediction is over, also when it ended in an error: let go of files and lines."""

    def state_dict(self) -> dict[str, Any]:
        """What the callback has learnt while running."""
        return {name: getattr(self, name) for name in self._saved_names()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            CheckpointError: If it is the state of another class.
        """
        if set(state) != set(self._saved_names()):
            raise CheckpointError(
                f"the saved state of `{type(self).__name__}` holds {sorted(state)}; expected {self._saved_names()}"
            )
        for name, value in state.items():
            setattr(self, name, value)

    @classmethod
    def _saved_names(cls) -> list[str]:
        """Names in `saved` of the class and its bases."""
        return sorted({name for base in cls.__mro__ for name in vars(base).get("saved", ())})


class Every(Callback):
    """Calls a function every so many times that an event happens.

    Args:
        n: How many times to one call.
        function: What to call, with the state of the loop.
        event: Name of the event.
        phase: Count in this phase only; in all where None.

    Raises:
        InputError: If `n` is below 1.
    """

    saved = ("count",)

    def __init__(
        self,
        n: int,
        function: Callable[[LoopState], object],
        event: str = "on_epoch_end",
        phase: str | None = "train",
    ) -> None:
        if n < 1:
            raise InputError(f"`n` must be at least 1; got {n}")
        self.n = n
        self.function = function
        self.phase = phase
        self.count = 0
        setattr(self, event, self._happened)

    def _happened(self) -> None:
        if self.phase in (None, self.state.phase):
            self.count += 1
            if self.count % self.n == 0:
                self.function(self.state)


class StopOnPlateau(Callback):
    """Ends a run when a metric has not become better for a while.

    Args:
        metric: Name of the metric.
        patience: How many epochs it may stay without a new best.
        min_change: By how much a new best must be better, in units of the metric.
        phase: Phase whose metric counts.
        lower_is_better: Whether a lower value is better.

    Raises:
        InputError: If `patience` is below 1, or the phase unknown; while running, if there is no such metric.
    """

    saved = ("best", "n_waited")

    def __init__(
        self,
        metric: str = "loss",
        patience: int = 5,
        min_change: float = 0.0,
        phase: str = "valid",
        lower_is_better: bool = True,
    ) -> None:
        if patience < 1:
            raise InputError(f"`patience` must be at least 1 epoch; got {patience}")
        check_choice("phase", phase, ("train", "valid"))
        self.metric, self.patience, self.min_change, self.phase = metric, patience, min_change, phase
        self.sign = 1.0 if lower_is_better else -1.0
        self.best: float | None = None
        self.n_waited = 0

    def on_epoch_end(self) -> None:
        """Compare the metric with the best so far."""
        state = self.state
        if state.phase != self.phase:
            return
        if self.metric not in state.metrics:
            raise InputError(f"`metric` must be one of {sorted(state.metrics)}; got {self.metric!r}")
        value = state.metrics[self.metric]
        if self.best is None or self.sign * value < self.sign * self.best - self.min_change:
            self.best, self.n_waited = value, 0
            return
        self.n_waited += 1
        if self.n_waited >= self.patience:
            state.stop = True
            state.stop_reason = (
                f"the {self.phase} {self.metric} has not become better than {self.best:.6g} for {self.n_waited} epochs"
            )


class ClipUpdate(Callback):
    """Limits how far one update can move a parameter, element by element.

    Args:
        max_change: Largest change of an element, in units of the parameter; one number for all, or one for each
            optimiser by name, where those not named move freely.

    Raises:
        InputError: If a limit is not positive.
    """

    transient = ("_before",)

    def __init__(self, max_change: float | Mapping[str, float]) -> None:
        for name, limit in max_change.items() if isinstance(max_change, Mapping) else [("max_change", max_change)]:
            check_positive(name, limit)
        self.max_change = max_change
        self._before: list[tuple[Tensor, Tensor, float]] = []

    def on_backwards_end(self) -> None:
        """Remember where the parameters are."""
        update = self.state.update
        self._before = []
        for name, optimiser in update.optimisers.items() if update is not None else ():
            limit = self.max_change.get(name) if isinstance(self.max_change, Mapping) else self.max_change
            if limit is not None:
                parameters = [p for group in optimiser.param_groups for p in group["params"]]
                self._before += [(p, p.detach().clone(), limit) for p in parameters]

    def on_step_end(self) -> None:
        """Bring back those that moved too far."""
        with torch.no_grad():
            for parameter, before, limit in self._before:
                parameter.copy_(before + (parameter - before).clamp(-limit, limit))
        self._before = []


def all_finite(tensors: list[Tensor]) -> bool:
    """Whether every element of every tensor is finite; one look at the device for tensors that can be joined."""
    if not tensors:
        return True
    if len({(t.dtype, t.device) for t in tensors}) == 1:
        return bool(torch.isfinite(torch.cat([t.reshape(-1) for t in tensors])).all())
    return all(bool(torch.isfinite(t).all()) for t in tensors)


class StopOnNonFinite(Callback):
    """Keeps numbers that are not finite out of the parameters, and ends the run where they come again and again.

    When the loss or a gradient is NaN or infinite, the update is skipped. When an update leaves a parameter that is not
    finite, parameters and optimisers are put back to where they were before it. In both cases the parameters equal
    those before the step. The run ends after `n_in_a_row` such steps: the state is saved, then `NonFiniteError` is
    raised, which says what was not finite and how to repeat the step. Put it after callbacks that repair gradients.

    Args:
        n_in_a_row: How many steps in a row may be spoilt; at 1 the first ends the run.

    Raises:
        InputError: If `n_in_a_row` is below 1.
    """

    saved = ("n_spoilt",)
    transient = ("_before",)

    def __init__(self, n_in_a_row: int = 1) -> None:
        if n_in_a_row < 1:
            raise InputError(f"`n_in_a_row` must be at least 1; got {n_in_a_row}")
        self.n_in_a_row = n_in_a_row
        self.n_spoilt = 0
        self._before: _Snapshot | None = None

    def on_backwards_end(self) -> None:
        """Look at the loss and the gradients; remember parameters and optimisers."""
        update = self._update()
        self._before = None
        loss_is_bad = update.loss is not None and not update.repaired and not all_finite([update.loss.detach()])
        with_gradient = [p for p in update.parameters if p.grad is not None]
        spoilt = [] if all_finite([p.grad for p in with_gradient if p.grad is not None]) else with_gradient
        names = [update.name_of(p) for p in spoilt if p.grad is not None and not all_finite([p.grad])]
        if loss_is_bad or names:
            update.skip = True
            loss = float("nan") if update.loss is None else float(update.loss.detach().reshape(()))
            self._spoilt("backward", f"loss {loss:g}, gradients of {_listed(names)}", names)
        elif not update.frozen:
            self._before = _Snapshot(update)

    def on_step_end(self) -> None:
        """Look at the parameters; put them back where one is not finite."""
        update = self._update()
        if self._before is None:
            return
        names = (
            []
            if all_finite([p.detach() for p in update.parameters])
            else [update.name_of(p) for p in update.parameters if not all_finite([p.detach()])]
        )
        if names:
            self._before.restore()
            update.skip = True
            self._spoilt("optimiser step", f"parameters {_listed(names)}", names)
        else:
            self.n_spoilt = 0
        self._before = None

    def _update(self) -> Update:
        update = self.state.update
        assert update is not None
        return update

    def _spoilt(self, operation: str, what: str, names: list[str]) -> None:
        """Count a spoilt step, tell it, and ask for the end of the run where it was one too many."""
        self.n_spoilt += 1
        where = self.state.describe()
        place = ", ".join(f"{key} {value}" for key, value in where.items())
        message = (
            f"not finite after {operation}: {what}; at {place}. The step was skipped, parameters are those before it"
        )
        _log.warning("%s (%d in a row)", message, self.n_spoilt)
        if self.n_spoilt >= self.n_in_a_row:
            details = {"operation": operation, "parameters": names, **where}
            self.state.failure = NonFiniteError(f"{message}. Spoilt steps in a row: {self.n_spoilt}", details)


def _listed(names: list[str], most: int = 6) -> str:
    """Names for a message: the first few, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "no parameter"


class _Snapshot:
    """Parameters of an update and the inner state of its optimisers, to be put back."""

    def __init__(self, update: Update) -> None:
        self._parameters = [(p, p.detach().clone()) for p in update.parameters]
        self._states = [
            (
                optimiser,
                {
                    parameter: {k: v.clone() if isinstance(v, Tensor) else v for k, v in state.items()}
                    for parameter, state in optimiser.state.items()
                },
            )
            for optimiser in update.optimisers.values()
        ]

    def restore(self) -> None:
        with torch.no_grad():
            for parameter, before in self._parameters:
                parameter.copy_(before)
        for optimiser, state in self._states:
            optimiser.state.clear()
            optimiser.state.update(state)
