"""The loop's own events, in the order in which they happen, and the phases of a run.

Events are data: documentation, the check of callbacks and the test of the order are made from these tables. A step adds
events of its own, which it fires between those of the loop.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

from diffdet.loop.update import Update

__all__ = ["LOOP_EVENTS", "PHASES", "Fire", "Phase"]

Phase = Literal["train", "valid", "test"]

PHASES: Final[dict[str, str]] = {
    "train": "parameters are updated",
    "valid": "after the training of every epoch, on other data, without updates",
    "test": "predictions, outside of a run",
}
"""What happens in each phase."""

LOOP_EVENTS: Final[dict[str, str]] = {
    "on_train_begin": "a run begins, before the first epoch",
    "on_epoch_begin": "the training or the validation of an epoch begins",
    "on_backwards_begin": "the loss is known, gradients are not; they have been set to zero",
    "on_backwards_end": "gradients are known, parameters have not been changed",
    "on_step_end": "parameters have been changed, unless the update is frozen",
    "on_epoch_end": "the training or the validation of an epoch ends; its metrics are known",
    "on_train_end": "a run ends, for whatever reason it was stopped",
    "on_pred_begin": "predictions begin",
    "on_pred_end": "predictions end",
}
"""Meaning of every event of the loop itself, in the order of a run."""


class Fire(Protocol):
    """How a step tells that something happened: the callbacks that listen to the event are called in their order."""

    def __call__(self, event: str, *, update: Update | None = None) -> None:
        """Call the callbacks that listen to an event; `update` becomes the state's current one."""
        ...
