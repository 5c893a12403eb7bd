"""The objective that the built-in optimisation of the ladle furnace follows."""

from __future__ import annotations

import torch
from torch import Tensor

from diffdet.core.errors import InputError
from diffdet.kernels.fill_level import unexplained_fraction
from diffdet.tomography.optimisation.callbacks.callback import Callback

__all__ = ["CorrectedErrorLoss"]


class CorrectedErrorLoss(Callback):
    """Replaces the mean loss of a batch of volumes by the error that is left after the best linear correction.

    The fill-level prediction is pulled towards the middle of the furnace and only useful after a linear correction, so what
    counts is the mean squared error behind it; divided by the variance of the targets that is 1 - R^2. Compared with
    ``SpreadRangeLoss`` (spread at equal height over spread of the means) it also sees where the response is not linear, it needs no
    two volumes of equal height, and its noise is smaller.

    Each batch of volumes must hold at least three predictions and two different targets.
    """

    def __init__(self) -> None:
        super().__init__()
        self._predictions: list[Tensor] = []
        self._targets: list[Tensor] = []

    def on_volume_batch_begin(self) -> None:
        """Forget the last batch."""
        self._predictions, self._targets = [], []

    def on_x0_pred_end(self) -> None:
        """Note a volume's prediction and target."""
        pred, target = self.wrapper.fit_params.pred, self.wrapper.volume.target
        if pred is None or self.wrapper.fit_params.state == "test":
            return
        if target is None:
            raise InputError("`CorrectedErrorLoss` needs volumes with a target; the loaded one has none")
        self._predictions.append(pred.reshape(()))
        self._targets.append(target.detach().to(pred).reshape(()))

    def on_volume_batch_end(self) -> None:
        """Set the mean loss."""
        if len(self._predictions) < 3 or len({float(t) for t in self._targets}) < 2:
            raise InputError(
                f"`CorrectedErrorLoss` needs at least three predictions of two different targets in a batch of volumes; given: "
                f"{len(self._predictions)} predictions of {len({float(t) for t in self._targets})} targets"
            )
        self.wrapper.fit_params.mean_loss = unexplained_fraction(
            torch.stack(self._predictions), torch.stack(self._targets)
        )
        self._predictions, self._targets = [], []
