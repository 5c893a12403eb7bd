"""What happens to a batch: forward, loss, and in training an update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from diffdet.core.errors import CheckpointError, InputError, NonFiniteError
from diffdet.core.random import key_seed
from diffdet.loop.callbacks import Callback
from diffdet.loop.events import Fire
from diffdet.loop.state import LoopState
from diffdet.loop.update import Update
from diffdet.nn.training import distributed
from diffdet.nn.training.batches import Batch, n_rows
from diffdet.nn.training.events import BATCH_EVENTS
from diffdet.nn.training.fit_params import SIZE, FitParams
from diffdet.nn.training.loading import load_state

__all__ = ["GuardLoss", "SupervisedStep", "compute_loss"]


def compute_loss(loss_func: Any, pred: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """Loss of a batch in which every sample has its weight.

    Args:
        loss_func: Called with predictions and targets. Weights are put on its attribute ``weights``, or, where it has
            none, on ``weight``, for the time of the call. Losses of torch that know no weights of samples, such as
            `torch.nn.MSELoss`, or whose ``weight`` is that of classes, are formed for each sample and weighted here.
        pred: Predictions, (sample, ...).
        target: True values.
        weights: Weights, (sample, 1), or None.

    Returns:
        Single number.

    Raises:
        InputError: If there are weights and the loss has no place for them.
    """
    if weights is None:
        return _call(loss_func, pred, target)
    if not hasattr(loss_func, "weights") and isinstance(loss_func, nn.modules.loss._Loss):
        if loss_func.reduction not in ("mean", "sum"):
            raise InputError(f"`loss` must be reduced by 'mean' or 'sum' to be weighted; got {loss_func.reduction!r}")
        if not isinstance(loss_func, nn.BCELoss | nn.BCEWithLogitsLoss):
            return _weighted_by_sample(loss_func, pred, target, weights)
    name = "weights" if hasattr(loss_func, "weights") else "weight"
    if not hasattr(loss_func, name):
        raise InputError(
            f"`loss` must have an attribute `weights` to weight samples; {type(loss_func).__name__} has none: "
            "derive it from `AbsWeightedLoss`, or train without weights"
        )
    before = getattr(loss_func, name)
    if name == "weight" and weights.ndim != pred.ndim:
        weights = weights.reshape(-1, *[1] * (pred.ndim - 1))
    setattr(loss_func, name, weights)
    try:
        return _call(loss_func, pred, target)
    finally:
        setattr(loss_func, name, before)


def _call(loss_func: Any, pred: Tensor, target: Tensor) -> Tensor:
    """A loss, which for predictions that are not finite is NaN also where torch would raise an error of its own.

    That of `torch.nn.BCELoss` names no cause, and on a GPU ends the process.
    """
    if not isinstance(loss_func, nn.BCELoss):
        return loss_func(pred, target)
    finite = torch.isfinite(pred)
    loss = loss_func(torch.where(finite, pred, 0.5), target)
    return torch.where(finite.all(), loss, torch.nan)


def _weighted_by_sample(loss_func: Any, pred: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean, or sum, of the errors of samples times their weights, for a loss of torch that would ignore them."""
    reduction = loss_func.reduction
    loss_func.reduction = "none"
    try:
        errors = loss_func(pred, target)
    finally:
        loss_func.reduction = reduction
    if not errors.ndim or len(errors) != len(weights):
        raise InputError(
            f"`loss` must give an error for each sample to be weighted; {type(loss_func).__name__} gives shape "
            f"{tuple(errors.shape)} for {len(weights)} samples"
        )
    weighted = errors * weights.to(errors).reshape(-1, *[1] * (errors.ndim - 1))
    return weighted.sum() if reduction == "sum" else weighted.mean()


class SupervisedStep:
    """What happens to a batch of samples.

    In training it is passed through the network, the loss is formed with each sample's weight, and the update changes
    the network. Whatever the network draws while training, such as dropout, is keyed by (seed, epoch, batch, process),
    so that a resumed fit draws the same.

    Args:
        net: Network, called with inputs and mask.
        loss_func: Loss; None where only predictions are wanted.
        update: What changes the network in training; None where nothing does.
        seed_key: Key of the random numbers of the network; None leaves torch's generators alone.
        plan: What must be the same when a fit is resumed, by the name of the argument.
        autocast: Type of the network's arithmetic under automatic mixed precision; None for the network's own.
    """

    events = tuple(BATCH_EVENTS)
    needs_grad = False

    def __init__(
        self,
        net: nn.Module,
        *,
        loss_func: Any = None,
        update: Update | None = None,
        seed_key: tuple[int | str, ...] | None = None,
        autocast: torch.dtype | None = None,
        plan: Mapping[str, Any] | None = None,
    ) -> None:
        self.net = net
        self.loss_func = loss_func
        self.updates: Sequence[Update] = [] if update is None else [update]
        self.seed_key = seed_key
        self.autocast = autocast
        self.plan = dict(plan or {})

    def train(self, mode: bool) -> None:
        """Change the network between training and evaluation."""
        self.net.train(mode)

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        return nullcontext() if self.autocast is None else torch.autocast(device.type, dtype=self.autocast)

    def forward(self, fit: FitParams) -> Tensor:
        """Predictions for the batch in progress, in the type of its inputs."""
        x = fit.x
        assert x is not None
        first = x[0] if isinstance(x, tuple) else x
        with self._autocast(first.device):
            pred: Tensor = self.net(x) if fit.mask is None else self.net(x, mask=fit.mask)
        return pred if self.autocast is None else pred.to(first.dtype)

    def __call__(self, batch: Batch, state: LoopState, fire: Fire) -> Mapping[str, Tensor | float]:
        """Process a batch; in training, update the network."""
        fit = state
        assert isinstance(fit, FitParams)
        training = fit.phase == "train"
        if training and self.seed_key is not None:
            torch.manual_seed(key_seed(*self.seed_key, fit.epoch, fit.batch, distributed.rank()))
        fit.take(batch)
        whole_folds = batch.fold is not None
        if whole_folds and batch.begins_fold:
            fire("on_fold_begin")
        fire("on_batch_begin")
        fit.y_pred = self.forward(fit)
        if self.loss_func is not None and fit.y is not None:
            fit.loss_val = compute_loss(self.loss_func, fit.y_pred, fit.y, fit.w)
        fire("on_forwards_end")
        if training:
            assert fit.loss_val is not None
            self.updates[0](fit.loss_val, fire)
        # The values stay for whoever reads them; the graph behind them does not.
        fit.y_pred = fit.y_pred.detach()
        fit.loss_val = None if fit.loss_val is None else fit.loss_val.detach()
        fire("on_batch_end")
        if whole_folds and batch.ends_fold:
            fire("on_fold_end")
        if fit.loss_val is None or fit.phase == "test":
            return {}
        assert fit.x is not None
        return {"loss": fit.loss_val, SIZE: float(n_rows(fit.x))}

    # ------------------------------------------------------------------------------------------------- save and restore
    def state_dict(self) -> dict[str, Any]:
        """Network, loss, and where random numbers come from."""
        loss = self.loss_func.state_dict() if isinstance(self.loss_func, nn.Module) else {}
        return {"net": self.net.state_dict(), "loss": loss, "seed_key": self.seed_key, "plan": self.plan}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            CheckpointError: If the network is another one, or the fit has other arguments.
        """
        saved = state.get("plan") or {}
        for name, value in self.plan.items():
            if name in saved and saved[name] != value:
                raise CheckpointError(
                    f"`{name}` must be as in the fit to resume, {saved[name]!r}; got {value!r}: pass the same, or "
                    "begin anew"
                )
        load_state(self.net, state["net"], "the checkpoint")
        if isinstance(self.loss_func, nn.Module):
            load_state(self.loss_func, state["loss"], "the loss in the checkpoint")
        self.seed_key = None if state["seed_key"] is None else tuple(state["seed_key"])


class GuardLoss(Callback):
    """Ends a fit whose loss is not finite: the update is left out, the state saved, `NonFiniteError` raised.

    On the CPU every batch is looked at; on other devices the fold as a whole, so that the device need not wait. The
    network may then have taken updates since.
    """

    transient = ("_bad",)

    def __init__(self) -> None:
        self._bad: Tensor | None = None

    def on_backwards_end(self) -> None:
        """Look at the loss of a batch."""
        fit, update = self.state, self.state.update
        assert isinstance(fit, FitParams)
        if update is None or fit.loss_val is None:
            return
        loss = fit.loss_val.detach()
        if loss.device.type != "cpu":
            bad = ~torch.isfinite(loss)
            self._bad = bad if self._bad is None else self._bad | bad
        elif not bool(torch.isfinite(loss).all()):
            update.skip = True
            self._fail("The update was left out")

    def on_fold_end(self) -> None:
        """Look at the losses of a fold."""
        if self._bad is not None and bool(self._bad.any()):
            self._fail("Parameters may have become so, too: go on from an earlier checkpoint")
        self._bad = None

    def _fail(self, what: str) -> None:
        where = self.state.describe()
        place = ", ".join(f"{key} {value}" for key, value in where.items())
        self.state.failure = NonFiniteError(
            f"the loss is not finite at {place}. {what}. Look for values that are not finite in inputs, targets and "
            "weights, lower the learning rate, or limit gradients (`GradClip`)",
            where,
        )
