"""What a fit or a prediction of a network knows about itself: the object that callbacks read and write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from diffdet.loop.state import LoopState
from diffdet.nn.training import distributed

if TYPE_CHECKING:
    from diffdet.loop.callbacks import Callback as LoopCallback
    from diffdet.nn.callbacks.cyclic_callbacks import AbsCyclicCallback
    from diffdet.nn.callbacks.monitors import MetricLogger
    from diffdet.nn.metrics import EvalMetric
    from diffdet.nn.training.batches import Batch, Inputs

__all__ = ["SIZE", "FitParams"]

SIZE = "_size"
"""Name under which a batch reports how many samples it had; means over a phase are weighted by it."""


class FitParams(LoopState):
    """State of a fit or a prediction of a model.

    It is the state of the loop, with the documented fields of this wing: ``model.fit_params.epoch`` and
    ``callback.state.epoch`` are one thing. Setting a field that is not declared is an error.

    Args:
        **values: Fields to begin with.

    Attributes:
        state: ``"train"``, ``"valid"`` or ``"test"``; the loop's `phase`.
        x: Inputs of the batch: (sample, feature), or (flat, matrix).
        y: Targets of the batch.
        w: Weights of the batch, (sample, 1), or None.
        mask: Which objects exist, (sample, object), or None where all do.
        y_pred: Predictions of the batch.
        loss_val: Loss of the batch; `on_forwards_end` may replace it.
        by: The batch in progress, with its fold and its place in it.
        bs: Samples to a batch of training.
        n_batches: Batches of training in an epoch.
        trn_idxs: Folds to train on.
        val_idx: Fold to validate on.
        use_weights: Whether the weights of the data are used.
        cbs: Callbacks of the fit.
        cyclic_cbs: Those that are cyclic.
        loss_cbs: Those that have a validation loss of their own, such as weight averages.
        metric_cbs: Those that are metrics.
        metric_log: The first that logs metrics.
        cb_savepath: Where callbacks write to.
        opt: The optimiser.
        loss_func: The loss.
        fy: Where folds come from.
        stream_key: Root of the random streams of the fit.

    Raises:
        InputError: If a name is not a field.
    """

    x: Inputs | None = None
    y: Tensor | None = None
    w: Tensor | None = None
    mask: Tensor | None = None
    y_pred: Tensor | None = None
    loss_val: Tensor | None = None
    by: Batch | None = None
    bs: int | None = None
    n_batches: int | None = None
    trn_idxs: Sequence[int] | None = None
    val_idx: int | None = None
    use_weights: bool = True
    cbs: list[LoopCallback] | None = None
    cyclic_cbs: list[AbsCyclicCallback] | None = None
    loss_cbs: list[Any] | None = None
    metric_cbs: list[EvalMetric] | None = None
    metric_log: MetricLogger | None = None
    cb_savepath: Path | None = None
    opt: Optimizer | None = None
    loss_func: nn.Module | None = None
    fy: Any = None
    stream_key: tuple[int | str, ...] | None = None

    @property
    def state(self) -> str | None:
        """``"train"``, ``"valid"`` or ``"test"``."""
        return self.phase

    @state.setter
    def state(self, state: str | None) -> None:
        self.phase = state

    def take(self, batch: Batch | None) -> None:
        """Make a batch the one in progress; None lets go of it and of every graph."""
        self.by = batch
        self.y_pred = self.loss_val = None
        if batch is None:
            self.x = self.y = self.w = self.mask = None
        else:
            self.x, self.y, self.w, self.mask = batch.x, batch.y, batch.w, batch.mask

    def add(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Take the metrics of one batch into the means; without `SIZE` it counts as one sample."""
        super().add({SIZE: 1.0, **metrics} if metrics else metrics)

    def means(self) -> dict[str, float]:
        """Mean of every metric over the samples of this phase; over all processes where several train together."""
        sizes = [float(size) for size in self.running.get(SIZE, ())]
        found: dict[str, float] = {}
        for name, values in self.running.items():
            if name != SIZE and len(values) == len(sizes):
                found[name] = _weighted(values, sizes)
        if self.phase == "train":
            found = distributed.mean_over_processes(found)
        return found

    def describe(self) -> dict[str, Any]:
        """Where the fit stands, with the fold of the batch in progress."""
        fold = {} if self.by is None or self.by.fold is None else {"fold": self.by.fold}
        return {**super().describe(), **fold}


def _weighted(values: Sequence[Tensor | float], sizes: Sequence[float]) -> float:
    """Mean weighted by sizes; tensors are read from their device together."""
    if not all(isinstance(value, Tensor) for value in values):
        numbers = [float(value) for value in values]
    else:
        numbers = torch.stack([value.reshape(()) for value in values if isinstance(value, Tensor)]).tolist()
    return sum(number * size for number, size in zip(numbers, sizes, strict=True)) / sum(sizes)
