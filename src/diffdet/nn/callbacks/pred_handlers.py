"""Callbacks that collect predictions."""

from __future__ import annotations

import torch
from torch import Tensor

from diffdet.core.errors import InputError
from diffdet.nn.callbacks.callback import Callback

__all__ = ["PredHandler"]


class PredHandler(Callback):
    """Collects the predictions of all batches. Inherit to collect something else.

    Memory is that of the predictions: a result on the network's device is filled batch by batch.
    """

    transient = ("preds",)

    def __init__(self) -> None:
        self.preds: list[Tensor] = []

    def on_pred_begin(self) -> None:
        """Forget the predictions before."""
        super().on_pred_begin()
        self.preds = []

    def on_forwards_end(self) -> None:
        """Keep the predictions of a batch, unless it belongs to a fit."""
        fit = self._fit
        if fit.state == "test" and fit.y_pred is not None:
            self.preds.append(fit.y_pred.detach())

    def get_preds(self) -> Tensor:
        """All predictions, (sample, ...), in the order of the samples; they are handed over, not kept.

        Raises:
            InputError: If nothing has been predicted.
        """
        if not self.preds:
            raise InputError("`PredHandler` holds no predictions: pass it as `pred_cb` of `predict` first")
        preds, self.preds = self.preds, []
        return preds[0] if len(preds) == 1 else torch.cat(preds)
