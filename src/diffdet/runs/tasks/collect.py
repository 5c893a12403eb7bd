"""A callback that evaluates a loss on predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from diffdet.tomography.optimisation.callbacks.pred_callbacks import PredHandler

if TYPE_CHECKING:
    from diffdet.tomography.volume.volume import Volume


class CollectLosses(PredHandler):
    """Keeps the error of every prediction, and the first prediction with the truth.

    Args:
        loss: Loss of a prediction; of its parts only the error counts, because the cost is a figure of its own.
    """

    saved = ()
    transient = ("losses", "first", "n_without")

    def __init__(self, loss: Callable[[Tensor, Volume], Tensor]) -> None:
        super().__init__()
        self.loss = loss
        self.losses: list[float] = []
        self.first: tuple[Tensor, Tensor] | None = None
        self.n_without = 0

    def on_pred_begin(self) -> None:
        """Forget what was collected before."""
        super().on_pred_begin()
        self.losses, self.first, self.n_without = [], None, 0

    def on_x0_pred_end(self) -> None:
        """Evaluate the loss of a volume."""
        pred, volume = self._fit.pred, self._wrapper.volume
        if pred is None:
            self.n_without += 1
            return
        loss = self.loss(pred, volume)
        parts: dict[str, Any] = getattr(self.loss, "sub_losses", {})
        self.losses.append(float(parts.get("error", loss).detach().reshape(())))
        if self.first is None:
            self.first = (pred.detach(), volume.get_rad_cube().detach())
