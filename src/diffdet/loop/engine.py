"""The loop: when epochs, phases and batches happen. What happens to a batch is the step's business."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from signal import Signals
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import CheckpointError, InputError
from diffdet.loop.callbacks import Callback
from diffdet.loop.checkpoint import Checkpoints
from diffdet.loop.events import LOOP_EVENTS, Fire, Phase
from diffdet.loop.interrupts import Interruptible
from diffdet.loop.state import LoopState
from diffdet.loop.update import Update

__all__ = ["Data", "Loop", "Step"]

Batch_contra = TypeVar("Batch_contra", contravariant=True)
Batch = TypeVar("Batch")

Data = Iterable[Batch] | Callable[[int], Iterable[Batch]]
"""Batches of one epoch, or a function that gives those of an epoch by its number, counted from 1."""


class Step(Protocol[Batch_contra]):
    """What happens to one batch.

    A step that has optimisers offers them as ``updates: Sequence[Update]``; one whose run is to be saved has
    ``state_dict`` and ``load_state_dict`` for everything that it changes beside its updates.
    """

    @property
    def events(self) -> Iterable[str]:
        """Events that the step fires, beyond the loop's own."""
        ...

    @property
    def needs_grad(self) -> bool:
        """Whether evaluation must record gradients, too."""
        ...

    def __call__(self, batch: Batch_contra, state: LoopState, fire: Fire) -> Mapping[str, Tensor | float]:
        """Process a batch and return its metrics."""
        ...

    def train(self, mode: bool) -> object:
        """Change between training and evaluation."""
        ...


class _Stopped(Exception):  # noqa: N818 - not an error: how the loop leaves its inner loops
    """The run ends here; the state says why."""


class Loop(Generic[Batch]):
    """Runs a step over epochs of batches and tells callbacks what happens.

    Args:
        step: What happens to a batch.
        callbacks: Who is told, in this order at every event.
        state: State to run on; a fresh `LoopState` where None.
        checkpoints: Where to save the state while running; nowhere where None.
        interruptible: Whether SIGINT, SIGTERM and SIGUSR1 finish the step, save and end the run (see `Interruptible`).

    Raises:
        InputError: If a callback has a hook that no event of this loop would ever call, or checkpoints are wanted of a
            step that cannot be saved.
    """

    def __init__(
        self,
        step: Step[Batch],
        callbacks: Iterable[Callback] = (),
        *,
        state: LoopState | None = None,
        checkpoints: Checkpoints | None = None,
        interruptible: bool = False,
    ) -> None:
        self.step = step
        self.callbacks = list(callbacks)
        self.state = LoopState() if state is None else state
        self.checkpoints = checkpoints
        self.interruptible = interruptible
        self.events: tuple[str, ...] = (*LOOP_EVENTS, *step.events)
        self._listeners: dict[str, list[Callable[[], None]]] = {}
        self._interrupts: Interruptible | None = None
        if checkpoints is not None and not (hasattr(step, "state_dict") and hasattr(step, "load_state_dict")):
            raise InputError(f"`checkpoints` need a step with `state_dict` and `load_state_dict`; got {type(step)}")
        for callback in self.callbacks:
            self._check_hooks(callback)
            callback.attach(self)

    @property
    def updates(self) -> Sequence[Update]:
        """Updates of the step."""
        return getattr(self.step, "updates", ())

    # ----------------------------------------------------------------------------------------------------------- events
    def _check_hooks(self, callback: Callback) -> None:
        """Refuse a hook that would never be called."""
        for name in dir(callback):
            if name.startswith("on_") and name not in self.events and callable(getattr(callback, name)):
                raise InputError(
                    f"`{type(callback).__name__}.{name}` is not an event of this loop, so it would never be called"
                    f"{did_you_mean(name, self.events) or '. Events: ' + ', '.join(self.events)}"
                )

    def _listen(self) -> None:
        """Find out who listens to what, leaving out hooks that do nothing."""
        self._listeners = {event: [] for event in self.events}
        for callback in self.callbacks:
            for event in self.events:
                hook = getattr(callback, event, None)
                if hook is not None and not getattr(hook, "does_nothing", False):
                    self._listeners[event].append(hook)

    def fire(self, event: str, *, update: Update | None = None) -> None:
        """Call the callbacks that listen to an event.

        Raises:
            InputError: If the step has not declared the event.
        """
        if update is not None:
            self.state.update = update
        hooks = self._listeners.get(event)
        if hooks is None:
            raise InputError(f"`{event}` is not an event of this loop: add it to `events` of {type(self.step)}")
        for hook in hooks:
            hook()

    # -------------------------------------------------------------------------------------------------------------- run
    def run(
        self,
        train: Data[Batch],
        valid: Data[Batch] | None = None,
        *,
        n_epochs: int,
        resume: bool = False,
    ) -> LoopState:
        """Train for a number of epochs.

        Args:
            train: Batches to train on: an iterable that is begun anew every epoch, or a function that gives the batches
                of an epoch. When a run is resumed within an epoch, the batches that were done are passed over.
            valid: Batches to validate on after every epoch of training, likewise; none where None.
            n_epochs: Number of epochs after which the run ends.
            resume: Go on from the last checkpoint, if there is one.

        Returns:
            The state, whose `stop_reason` says why the run ended.

        Raises:
            InputError: If `n_epochs` is below 1, if there are no checkpoints to resume from or, without `resume`, the
                folder holds checkpoints of another run.
            CheckpointError: If the checkpoint was saved with other callbacks, optimisers or parameters.
            NonFiniteError: If `StopOnNonFinite` ended the run; the state has been saved.
        """
        if n_epochs < 1:
            raise InputError(f"`n_epochs` must be at least 1; got {n_epochs}")
        state = self.state
        state.n_epochs, state.stop_reason, state.interrupted_by, state.failure = n_epochs, None, None, None
        self._listen()
        with self._released(), Interruptible() if self.interruptible else _nothing() as self._interrupts:
            try:
                self._prepare_checkpoints(resume)
                self.fire("on_train_begin")
                if resume:
                    self._resume()
                with suppress(_Stopped):
                    self._epochs(train, valid, n_epochs)
                self.fire("on_train_end")
            except BaseException as error:
                state.stop_reason = f"{type(error).__name__}: {error}"
                raise
        return state

    def _epochs(self, train: Data[Batch], valid: Data[Batch] | None, n_epochs: int) -> None:
        """Go through the epochs that are not done."""
        state = self.state
        if state.n_epochs_done == 0 and state.epoch == 0 and self.checkpoints is not None:
            self.save()  # a folder that cannot be written to is told before the work
        while state.n_epochs_done < n_epochs and not state.stop:
            within = state.epoch > state.n_epochs_done
            phase_before = state.phase if within else None
            state.epoch = state.n_epochs_done + 1
            if phase_before != "valid":
                self._phase("train", train, within)
            if valid is not None:
                self._phase("valid", valid, phase_before == "valid")
            state.n_epochs_done = state.epoch
            self._end_epoch(n_epochs)
        if state.stop:
            state.stop_reason = state.stop_reason or "a callback asked to stop"
        else:
            state.stop_reason = f"all {n_epochs} epochs are done"

    def _phase(self, phase: Phase, data: Data[Batch], resumed: bool) -> None:
        """Go through one phase of an epoch, from its beginning or from where it was saved."""
        state, began = self.state, time.perf_counter()
        training = phase == "train"
        state.phase = phase
        self.step.train(training)
        if not resumed:
            state.batch, state.running, state.metrics = 0, {}, {}
            self.fire("on_epoch_begin")
        batches = data(state.epoch) if callable(data) else data
        for batch in itertools.islice(batches, state.batch, None):
            with torch.set_grad_enabled(training or self.step.needs_grad):
                metrics = self.step(batch, state, self.fire)
            state.add(metrics)
            state.batch += 1
            self._between_batches()
        state.metrics = state.means()
        self.fire("on_epoch_end")
        state.history.append(self._row(), time.perf_counter() - began)

    def _row(self) -> dict[str, Any]:
        """Row of the history for the phase that ends."""
        state, updates = self.state, self.updates
        row: dict[str, Any] = {"epoch": state.epoch, "phase": state.phase}
        if updates:
            row["frozen"] = all(update.frozen for update in updates)
        row |= state.metrics
        if updates and state.phase == "train":
            row["learning_rates"] = {k: v for update in updates for k, v in update.learning_rates().items()}
        return row

    def predict(self, batches: Iterable[Batch]) -> LoopState:
        """Pass batches through the step without training; callbacks collect what they want of it."""
        self._listen()
        state = self.state
        state.phase, state.batch, state.running = "test", 0, {}
        self.step.train(False)
        with self._released(), torch.set_grad_enabled(self.step.needs_grad):
            self.fire("on_pred_begin")
            for batch in batches:
                state.add(self.step(batch, state, self.fire))
                state.batch += 1
            state.metrics = state.means()
            self.fire("on_pred_end")
        return state

    @contextmanager
    def _released(self) -> Iterator[None]:
        """Let callbacks go of what they hold, however the block ends."""
        try:
            yield
        finally:
            for callback in self.callbacks:
                callback.release()

    # ------------------------------------------------------------------------------------------------- save and go on
    def _between_batches(self) -> None:
        """A moment at which the state can be saved: end the run if something asks for it, save if it is time."""
        state = self.state
        number = self._interrupts.signal_number if self._interrupts is not None else None
        if state.failure is not None or number is not None:
            self.save()
            self._end(state.failure, number)
        elif self.checkpoints is not None and self.checkpoints.due:
            self.save()

    def _end_epoch(self, n_epochs: int) -> None:
        """Find out whether this epoch was the best, and save."""
        state, checkpoints = self.state, self.checkpoints
        best = False
        if checkpoints is not None:
            value = state.metrics.get(checkpoints.monitor)
            if value is not None and checkpoints.better(value, state.best):
                state.best, best = value, True
            if best or state.stop or checkpoints.due_after(state.epoch, n_epochs) or checkpoints.due:
                self.save(best=best)
        number = self._interrupts.signal_number if self._interrupts is not None else None
        if number is not None and state.epoch < n_epochs and not state.stop:
            if checkpoints is not None and not best and not checkpoints.due_after(state.epoch, n_epochs):
                self.save()
            self._end(None, number)

    def _end(self, failure: Exception | None, signal_number: int | None) -> None:
        """Leave the loop with a reason."""
        state = self.state
        where = f"epoch {state.epoch}, {state.phase} batch {state.batch}"
        if failure is not None:
            raise failure
        assert signal_number is not None
        state.interrupted_by = signal_number
        state.stop_reason = f"interrupted by {Signals(signal_number).name} after {where}"
        raise _Stopped

    def interrupt(self, signal_number: int) -> None:
        """End the run after the batch in progress, as if this signal had arrived: the state is saved first."""
        if self._interrupts is None:
            self._interrupts = Interruptible()
        self._interrupts.signal_number = signal_number

    def save(self, *, best: bool = False) -> None:
        """Save the state to the checkpoints, if there are any."""
        if self.checkpoints is None:
            return
        state = self.state
        finite = {k: v if math.isfinite(v) else str(v) for k, v in state.metrics.items()}
        about = {"epoch": state.epoch, "epochs_done": state.n_epochs_done, "phase": state.phase, "batch": state.batch}
        self.checkpoints.save(self.state_dict(), best=best, about={**about, "metrics": finite})

    def state_dict(self) -> dict[str, Any]:
        """Everything that a run needs to go on bit for bit from here, between two batches."""
        return {
            "loop": self.state.state_dict(),
            "callbacks": [{"class": kind, "state": callback.state_dict()} for kind, callback in self._remembering()],
            "updates": [update.state_dict() for update in self.updates],
            "step": self.step.state_dict(),  # type: ignore[attr-defined]
            "torch_random": _random_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            CheckpointError: If callbacks, updates or parameters are others than those that were saved.
        """
        callbacks = self._remembering()
        saved, here = [entry["class"] for entry in state["callbacks"]], [kind for kind, _ in callbacks]
        if saved != here:
            raise CheckpointError(
                f"the run was saved with the callbacks {saved}; pass the same to resume it, not {here}"
            )
        if len(state["updates"]) != len(self.updates):
            raise CheckpointError(f"{len(state['updates'])} updates were saved, the step has {len(self.updates)}")
        self.step.load_state_dict(state["step"])  # type: ignore[attr-defined]
        for update, values in zip(self.updates, state["updates"], strict=True):
            update.load_state_dict(values)
        for (_, callback), entry in zip(callbacks, state["callbacks"], strict=True):
            callback.load_state_dict(entry["state"])
        self.state.load_state_dict(state["loop"])
        _set_random_state(state["torch_random"])

    def _remembering(self) -> list[tuple[str, Callback]]:
        """Callbacks that learn while running, with the names of their classes; others may come and go."""
        return [(type(callback).__qualname__, callback) for callback in self.callbacks if callback.state_dict()]

    def _prepare_checkpoints(self, resume: bool) -> None:
        """Refuse to mix two runs in one folder."""
        if self.checkpoints is None:
            if resume:
                raise InputError("`resume` needs `checkpoints` to resume from; got None")
            return
        if not resume and len(self.checkpoints):
            raise InputError(
                f"`{self.checkpoints.folder}` holds checkpoints of a run; pass `resume=True` to go on with it, "
                "or choose another folder"
            )
        self.checkpoints.start()

    def _resume(self) -> None:
        """Go back to the last checkpoint, if there is one."""
        assert self.checkpoints is not None
        saved = self.checkpoints.load("last")
        if saved is not None:
            self.load_state_dict(saved.tree)


@contextmanager
def _nothing() -> Iterator[None]:
    """A block without effect."""
    yield None


def _random_state() -> dict[str, Any]:
    """State of torch's default generators, for steps that draw from them."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
