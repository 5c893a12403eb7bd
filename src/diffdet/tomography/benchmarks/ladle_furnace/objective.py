"""The objective that the built-in optimisation of the ladle furnace follows."""

from __future__ import annotations

import torch
from torch import Tensor

from diffdet.core.errors import InputError
from diffdet.kernels.fill_level import corrected_error
from diffdet.tomography.optimisation.callbacks.callback import Callback

__all__ = ["CorrectedErrorLoss"]


class CorrectedErrorLoss(Callback):
    """Replaces the mean loss of a batch of volumes by the error expected behind the best linear correction.

    The fill-level prediction is pulled towards the middle of the furnace and only useful after a linear correction,
    so what counts is the squared error behind it, in units of the variance of the targets
    (``kernels.fill_level.corrected_error``). Compared with ``SpreadRangeLoss`` (spread at equal height over spread
    of the means) it also sees where the response is not linear, needs no two volumes of equal height, and takes the
    spread from each prediction's own variance, with a fraction of the noise.

    Needs an inferrer with ``pred_height_var``, and in each batch of volumes at least three predictions of two
    different targets.
    """

    transient = ("_rows", "_n_blind")

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []
        self._n_blind = 0

    def on_volume_batch_begin(self) -> None:
        """Forget the last batch."""
        self._rows, self._n_blind = [], 0

    def on_x0_pred_end(self) -> None:
        """Note a volume's prediction, its variance and its target."""
        params = self._fit
        if params.state == "test":
            return
        if params.pred is None:
            self._n_blind += 1
            return
        target = self._wrapper.volume.target
        if target is None:
            raise InputError("`CorrectedErrorLoss` needs volumes with a target; the loaded one has none")
        variance = getattr(params.volume_inferrer, "pred_height_var", None)
        if variance is None:
            raise InputError(
                "`CorrectedErrorLoss` needs a volume inferrer with `pred_height_var`, such as "
                "PocaZLadleFurnaceFillLevelInferrer; given: "
                f"{type(params.volume_inferrer).__name__}"
            )
        pred = params.pred
        self._rows.append((pred.reshape(()), variance.reshape(()), target.detach().to(pred).reshape(())))

    def on_volume_batch_end(self) -> None:
        """Set the mean loss."""
        rows, self._rows = self._rows, []
        n_targets = len({float(row[2]) for row in rows})
        if len(rows) >= 3 and n_targets >= 2:
            prediction, variance, target = (torch.stack(column) for column in zip(*rows, strict=True))
            self._fit.mean_loss = corrected_error(prediction, variance, target)
            return
        self._fit.mean_loss = None
        if self._n_blind == 0:  # otherwise the detector sees next to nothing: the step says so and goes on
            raise InputError(
                f"`CorrectedErrorLoss` needs at least three volumes of two different targets in a batch; given: "
                f"{len(rows)} of {n_targets}. Raise `passive_bs`"
            )
