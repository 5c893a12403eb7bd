"""The linear correction of predicted fill heights, learnt while the detector is."""

from __future__ import annotations

import torch
from torch import Tensor

from diffdet.core.checks import check_finite
from diffdet.core.errors import InputError
from diffdet.kernels.fill_level import fit_correction
from diffdet.tomography.core import PartialOpt
from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.volume.volume import Volume

__all__ = ["LinearCorrectionCallback"]


def target_of(callback: Callback, pred: Tensor, volume: Volume) -> Tensor:
    """Target of the volume that is loaded, after refusing what is not one predicted number of one true number.

    Args:
        callback: Who needs it, for the message.
        pred: Prediction for the volume.
        volume: The volume.

    Raises:
        InputError: If prediction or target is not one number.
    """
    target, name = volume.target, type(callback).__name__
    if target is None:
        raise InputError(f"`{name}` needs volumes with a target; the loaded one has none")
    if pred.numel() != 1 or target.numel() != 1:
        raise InputError(
            f"`{name}` needs an inferrer that predicts one number, and targets of one number; got a prediction of "
            f"shape {tuple(pred.shape)} and a target of shape {tuple(target.shape)}"
        )
    return target


class LinearCorrectionCallback(Callback):
    """Replaces every prediction by ``weight * prediction + bias``, and in training fits both to the truth.

    Behind each backward pass, weight and bias become the exact minimiser of the mean squared error over the volumes of
    the batch: the solution of the normal equations, which is where any optimiser ends that runs long enough. (The
    original made 10,000 steps of one.) The next batch is corrected by them. Predictions that all agree say nothing
    about a slope and leave both as they are.

    Args:
        partial_opt: Accepted for compatibility and not needed: the minimum is computed, not searched for.
        init_weight: Weight to begin with.
        init_bias: Bias to begin with, m.

    Attributes:
        weight: Current weight, ``()``.
        bias: Current bias, ``()``, m.

    Raises:
        InputError: If an initial value is not finite; while training, if a prediction or target is not one number.
    """

    saved = ("weight", "bias")
    transient = ("_rows",)

    def __init__(self, partial_opt: PartialOpt | None = None, init_weight: float = 1.0, init_bias: float = 0.0) -> None:
        check_finite("init_weight", init_weight)
        check_finite("init_bias", init_bias)
        self.partial_opt = partial_opt
        self.weight = torch.tensor(float(init_weight), dtype=torch.float64)
        self.bias = torch.tensor(float(init_bias), dtype=torch.float64)
        self._rows: list[tuple[Tensor, Tensor]] = []

    def on_train_begin(self) -> None:
        """Forget the volumes of an earlier fit; weight and bias stay."""
        super().on_train_begin()
        self._rows = []

    def on_volume_batch_begin(self) -> None:
        """Forget the volumes of the last batch."""
        self._rows = []

    def on_x0_pred_end(self) -> None:
        """Correct the prediction of a volume; in training, note it as it was, and the truth."""
        fit = self._fit
        if fit.pred is None:
            return
        if fit.state == "train":
            target = target_of(self, fit.pred, self._wrapper.volume)
            self._rows.append((fit.pred.detach().reshape(()), target.detach().reshape(())))
        fit.pred = self.weight.to(fit.pred) * fit.pred + self.bias.to(fit.pred)

    def on_backwards_end(self) -> None:
        """Fit weight and bias to the volumes of this batch."""
        if self._fit.state != "train" or len(self._rows) < 2:
            return
        predictions, targets = (
            torch.stack(column).to("cpu", torch.float64) for column in zip(*self._rows, strict=True)
        )
        weight, bias = fit_correction(predictions, targets)
        if bool((predictions != predictions[0]).any()) and bool(torch.isfinite(weight + bias)):
            self.weight, self.bias = weight, bias
