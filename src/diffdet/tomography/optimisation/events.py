"""The eighteen events of an optimisation, in their order, as data.

Nine belong to every loop (`diffdet.loop.events`), nine to the scan of volumes. Documentation, the hooks of
`diffdet.tomography.optimisation.callbacks.callback.Callback` and the test of the order are held to these tables.
"""

from __future__ import annotations

from typing import Final

from diffdet.loop.events import LOOP_EVENTS

__all__ = ["EVENTS", "VOLUME_EVENTS"]

VOLUME_EVENTS: Final[dict[str, str]] = {
    "on_volume_batch_begin": "a batch of passive volumes begins; not while predicting",
    "on_volume_begin": "a passive volume has been loaded",
    "on_mu_batch_begin": "a batch of muons exists, above the volume",
    "on_scatter_end": "the muons have crossed the volume and their scatterings are inferred",
    "on_mu_batch_end": "the scatterings have been added to the volume's inferrer",
    "on_x0_pred_begin": "all muons of a volume have been added, its prediction is about to be made",
    "on_x0_pred_end": "the prediction is made, the loss is not yet computed; it may be replaced",
    "on_volume_end": "the loss of a volume has been added to that of its batch",
    "on_volume_batch_end": "the mean loss of a batch of volumes is known and may be replaced; not while predicting",
}
"""Events of the scan of volumes, in their order."""

_BEFORE = ("on_train_begin", "on_epoch_begin")
_AFTER = tuple(event for event in LOOP_EVENTS if event not in _BEFORE)

EVENTS: Final[dict[str, str]] = {
    **{event: LOOP_EVENTS[event] for event in _BEFORE},
    **VOLUME_EVENTS,
    **{event: LOOP_EVENTS[event] for event in _AFTER},
}
"""All events, in their order: a fit from ``on_train_begin`` to ``on_train_end``, then those around predictions."""
