"""What a run knows about itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from torch import Tensor

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import CheckpointError, InputError
from diffdet.loop.history import History
from diffdet.loop.update import Update

__all__ = ["LoopState"]


@cache
def _fields(cls: type) -> frozenset[str]:
    """Names that a state class and its bases declare, properties included."""
    names: set[str] = set()
    for base in cls.__mro__:
        names |= set(vars(base).get("__annotations__", ())) | {
            name for name, value in vars(base).items() if isinstance(value, property)
        }
    return frozenset(name for name in names if not name.startswith("__"))


class LoopState:
    """Where a run stands: what callbacks read and write.

    Fields are declared; setting another one is an error, so that a misspelt name is told rather than ignored.

    Args:
        **values: Fields to begin with.

    Attributes:
        epoch: Epoch in progress, counted from 1; 0 before the first.
        n_epochs: How many there will be.
        phase: ``"train"``, ``"valid"`` or ``"test"``.
        batch: Batches of this phase that are done.
        n_epochs_done: Epochs that are done; less than `epoch` while one is in progress.
        metrics: Means over the batches of the phase, known at ``on_epoch_end``, where callbacks may add their own.
        history: Metrics of all phases that are done.
        best: Best value so far of the metric that the checkpoints monitor.
        update: The update in progress, or the last one.
        stop: Set it to true to end the run after the current epoch.
        stop_reason: Why the run ended, in a sentence.
        interrupted_by: Number of the signal that ended it, if one did.
        running: Metrics of the batches that are done, not yet averaged.
        failure: Error to raise when the current step is over and the state has been saved.

    Raises:
        InputError: If a name is not a field.
    """

    epoch: int = 0
    n_epochs: int | None = None
    phase: str | None = None
    batch: int = 0
    n_epochs_done: int = 0
    metrics: dict[str, float]
    history: History
    best: float | None = None
    update: Update | None = None
    stop: bool | None = None
    stop_reason: str | None = None
    interrupted_by: int | None = None
    failure: Exception | None = None
    running: dict[str, list[Tensor | float]]

    saved: ClassVar[tuple[str, ...]] = (
        "epoch",
        "phase",
        "batch",
        "best",
        "stop",
        "stop_reason",
        "n_epochs_done",
    )
    """Fields that a checkpoint keeps, beside history and running means; a subclass adds its own."""

    def __init__(self, **values: Any) -> None:
        self.metrics = {}
        self.history = History()
        self.running = {}
        for name, value in values.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        fields = _fields(type(self))
        if name not in fields:
            raise InputError(f"`{name}` is not a field of {type(self).__name__}{did_you_mean(name, sorted(fields))}")
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        where = f"epoch {self.epoch} of {self.n_epochs}, {self.phase}, batch {self.batch}"
        return f"{type(self).__name__}({where}{', ' + self.stop_reason if self.stop_reason else ''})"

    def describe(self) -> dict[str, Any]:
        """Where the run stands, for messages and for repeating the step in progress."""
        return {"epoch": self.epoch, "phase": self.phase, "batch": self.batch}

    # ------------------------------------------------------------------------------------------------- running means
    def add(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Take the metrics of one batch into the means; a tensor is not read until the means are asked for."""
        for name, value in metrics.items():
            self.running.setdefault(name, []).append(value.detach() if isinstance(value, Tensor) else value)

    def means(self) -> dict[str, float]:
        """Mean of every metric over the batches of this phase that reported it."""
        return {name: sum(map(float, values)) / len(values) for name, values in self.running.items()}

    # ------------------------------------------------------------------------------------------------- save and restore
    def state_dict(self) -> dict[str, Any]:
        """Position, counters, history and running means."""
        fields = {name: getattr(self, name) for name in self.saved}
        running = {name: [float(value) for value in values] for name, values in self.running.items()}
        return {"fields": fields, "running": running, "history": self.history.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            CheckpointError: If it is the state of another kind of run.
        """
        if set(state["fields"]) != set(self.saved):
            differ = sorted(set(state["fields"]) ^ set(self.saved))
            raise CheckpointError(f"the saved state does not fit {type(self).__name__}: they differ in {differ}")
        for name, value in state["fields"].items():
            setattr(self, name, value)
        self.running = {name: list(values) for name, values in state["running"].items()}
        self.history.load_state_dict(state["history"])
