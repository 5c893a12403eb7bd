"""The events of fits and predictions of networks, in their order, as data.

Nine belong to every loop (`diffdet.loop.events`), five to folds and batches. The hooks of
`diffdet.nn.callbacks.callback.Callback` and the test of the order are held to these tables.
"""

from __future__ import annotations

from typing import Final

from diffdet.loop.events import LOOP_EVENTS

__all__ = ["BATCH_EVENTS", "EVENTS"]

BATCH_EVENTS: Final[dict[str, str]] = {
    "on_fold_begin": "the first batch of a fold is about to be used; not while predicting arrays",
    "on_batch_begin": "a batch is in `fit_params.x`, `y`, `w` and `mask`, and may be replaced",
    "on_forwards_end": "predictions are known and, except while predicting, the loss, which may be replaced",
    "on_batch_end": "the batch is done",
    "on_fold_end": "all batches of a fold are done; a fit that is to stop does so here",
}
"""Events of folds and batches, in their order."""

_BEFORE = ("on_train_begin", "on_epoch_begin")
_BACKWARDS = ("on_backwards_begin", "on_backwards_end", "on_step_end")
_FORWARD = ("on_fold_begin", "on_batch_begin", "on_forwards_end")
_AFTER = ("on_epoch_end", "on_train_end", "on_pred_begin", "on_pred_end")

EVENTS: Final[dict[str, str]] = {
    **{event: LOOP_EVENTS[event] for event in _BEFORE},
    **{event: BATCH_EVENTS[event] for event in _FORWARD},
    **{event: LOOP_EVENTS[event] for event in _BACKWARDS},
    **{event: BATCH_EVENTS[event] for event in ("on_batch_end", "on_fold_end")},
    **{event: LOOP_EVENTS[event] for event in _AFTER},
}
"""All events, in their order: a fit from ``on_train_begin`` to ``on_train_end``, then those around predictions."""
