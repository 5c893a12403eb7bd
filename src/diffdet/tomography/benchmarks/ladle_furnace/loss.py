"""Losses for the fill height of a ladle furnace."""

from __future__ import annotations

import torch
from torch import Tensor

from diffdet.core.errors import InputError
from diffdet.tomography.benchmarks.ladle_furnace._correction import target_of
from diffdet.tomography.benchmarks.ladle_furnace._level_loss import LadleFurnaceIntClassLoss
from diffdet.tomography.optimisation.callbacks.callback import Callback

__all__ = ["LadleFurnaceIntClassLoss", "SpreadRangeLoss"]


class SpreadRangeLoss(Callback):
    """Replaces the mean loss of a batch of volumes by how much predictions of one target spread, over their range.

    Predictions are grouped by target; with s and m the standard deviation and mean of a group, the loss is
    mean(s) / std(m), over the groups with two predictions or more. No linear correction of the predictions changes it.

    Raises:
        InputError: While fitting, if a prediction or target is not one number, or a batch of volumes does not hold two
            targets with two predictions each.
    """

    transient = ("_preds",)

    def __init__(self) -> None:
        self._preds: dict[float, list[Tensor]] = {}

    def on_volume_batch_begin(self) -> None:
        """Forget the predictions of the last batch."""
        self._preds = {}

    def on_x0_pred_end(self) -> None:
        """Note the prediction of a volume."""
        fit = self._fit
        if fit.pred is None or fit.state == "test":
            return
        target = target_of(self, fit.pred, self._wrapper.volume)
        self._preds.setdefault(float(target), []).append(fit.pred.reshape(()))

    def on_volume_batch_end(self) -> None:
        """Set the mean loss, ``(1,)``."""
        groups = [torch.stack(preds) for preds in self._preds.values() if len(preds) >= 2]
        if len(groups) < 2:
            sizes = {target: len(preds) for target, preds in self._preds.items()}
            raise InputError(
                "`SpreadRangeLoss` needs a batch of volumes with at least two targets that have two predictions each; "
                f"got these numbers of predictions by target: {sizes}"
            )
        spread = torch.stack([group.std() for group in groups]).mean()
        middle = torch.stack([group.mean() for group in groups])
        self._fit.mean_loss = (spread / middle.std()).reshape(1)
        self._preds = {}
