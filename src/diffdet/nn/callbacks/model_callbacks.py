"""Callbacks that keep a second model beside the one that is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffdet.core.errors import InputError
from diffdet.nn.callbacks.callback import Callback
from diffdet.nn.training.batches import Batch, n_rows

__all__ = ["SWA", "refresh_batch_norm"]


class SWA(Callback):
    """Stochastic weight averaging: the mean of the weights at the ends of epochs, or of cycles.

    From ``start_epoch`` on, the weights are added to the average at the end of every epoch of training, or, where
    cyclic callbacks run and ``update_on_cycle_end`` says so, of every cycle. Statistics of batch-norm layers are taken
    anew for the averaged weights, on the training data. At the end of every validation the loss of the average is
    known: `SaveBest` keeps the average if that is the best. When the fit ends, the model gets the averaged weights
    where ``load_at_end`` says so.

    With ``renewal_period`` a second average is begun after so many updates of the first; after as many of its own it
    takes the first one's place if its loss is lower, and is begun anew in any case. Without one (the original crashed)
    there is a single average.

    Args:
        start_epoch: First epoch, counted from 1, whose weights are averaged.
        renewal_period: Updates between renewals; None for none.
        update_on_cycle_end: Whether to average at the ends of cycles; where there are cycles if None.
        load_at_end: Whether to load the average when the fit ends; put `SaveBest` after it to let the better one win.

    Raises:
        InputError: If a number is below 1.

    Reference: P. Izmailov et al., arXiv:1803.05407.
    """

    saved = ("n_averaged", "loss", "_average", "_second", "_n_second", "_fresh")

    def __init__(
        self,
        start_epoch: int,
        renewal_period: int | None = None,
        update_on_cycle_end: bool | None = None,
        load_at_end: bool = False,
    ) -> None:
        if start_epoch < 1:
            raise InputError(f"`start_epoch` must be at least 1; got {start_epoch}")
        if renewal_period is not None and renewal_period < 1:
            raise InputError(f"`renewal_period` must be at least 1, or None; got {renewal_period}")
        self.start_epoch = start_epoch
        self.renewal_period = renewal_period
        self.update_on_cycle_end = update_on_cycle_end
        self.load_at_end = load_at_end
        self._reset()

    def _reset(self) -> None:
        self.n_averaged = 0
        self.loss = math.inf
        self._average: dict[str, Tensor] = {}
        self._second: dict[str, Tensor] = {}
        self._n_second = 0
        self._fresh = False

    def on_train_begin(self) -> None:
        """Begin without an average."""
        super().on_train_begin()
        self._reset()

    def get_loss(self) -> float:
        """Validation loss of the average; infinite before there is one."""
        return self.loss

    def get_weights(self) -> Mapping[str, Tensor]:
        """State of the averaged network.

        Raises:
            InputError: If there is none yet.
        """
        if not self.n_averaged:
            raise InputError(f"`SWA` has averaged nothing yet: it begins with epoch {self.start_epoch}")
        return self._average

    def on_epoch_end(self) -> None:
        """Add the weights after training; know the average's loss after validation."""
        fit = self._fit
        if fit.state == "train":
            if fit.epoch >= self.start_epoch and self._due():
                self._add()
        elif self._fresh:
            self.loss = self._validate(self._average)
            self._renew()
            self._fresh = False

    def _due(self) -> bool:
        cyclic = self._fit.cyclic_cbs or ()
        if not cyclic or self.update_on_cycle_end is False:
            return True
        return any(callback.cycle_end for callback in cyclic)

    def _add(self) -> None:
        weights = {key: value.detach().clone() for key, value in self._model.net.state_dict().items()}
        self._average = _mean(self._average, weights, self.n_averaged)
        self.n_averaged += 1
        if self.renewal_period is not None and self.n_averaged > self.renewal_period:
            self._second = _mean(self._second, weights, self._n_second)
            self._n_second += 1
        self._average = self._with_statistics(self._average)
        self._fresh = True

    def _with_statistics(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights with batch-norm statistics taken anew, where the network has such layers."""
        net, fit = self._model.net, self._fit
        if not _batch_norms(net):
            return dict(weights)
        before = {key: value.clone() for key, value in net.state_dict().items()}
        try:
            net.load_state_dict(dict(weights))
            refresh_batch_norm(net, self._model.batches(fit.fy, fit.trn_idxs or (), fit.bs))
            return {key: value.detach().clone() for key, value in net.state_dict().items()}
        finally:
            net.load_state_dict(before)

    def _validate(self, weights: Mapping[str, Tensor]) -> float:
        """Validation loss of some weights."""
        net, fit = self._model.net, self._fit
        before = {key: value.clone() for key, value in net.state_dict().items()}
        training = net.training
        try:
            net.load_state_dict(dict(weights))
            assert fit.val_idx is not None
            batches = self._model.batches(fit.fy, [fit.val_idx], None, use_weights=fit.use_weights)
            return self._model.loss_of(batches, fit.loss_func)
        finally:
            net.load_state_dict(before)
            net.train(training)

    def _renew(self) -> None:
        """Let the second average take the first one's place where it is better, and begin it anew."""
        if self.renewal_period is None or self._n_second < self.renewal_period:
            return
        candidate = self._with_statistics(self._second)
        loss = self._validate(candidate)
        if loss < self.loss:
            self._average, self.n_averaged, self.loss = candidate, self._n_second, loss
        self._second, self._n_second = {}, 0

    def on_train_end(self) -> None:
        """Load the average into the model."""
        if self.load_at_end and self.n_averaged:
            self._model.set_weights(self._average)


def _mean(mean: Mapping[str, Tensor], new: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Mean of `count` states, of which `mean` is the mean, and one more; integers are those of the last."""
    if not count:
        return dict(new)
    return {
        key: mean[key] + (value - mean[key]) / (count + 1) if value.is_floating_point() else value
        for key, value in new.items()
    }


def _batch_norms(net: nn.Module) -> list[Any]:
    return [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]


def refresh_batch_norm(net: nn.Module, batches: Iterable[Batch]) -> None:
    """Take the statistics of batch-norm layers anew: means over batches, in training mode, without updates.

    Args:
        net: Network whose layers are changed; its mode is kept.
        batches: Data to take them on; those of a single sample, which have no variance, are left out.
            Dropout stays off.
    """
    layers = _batch_norms(net)
    training, momenta = net.training, [layer.momentum for layer in layers]
    net.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative mean
        layer.train()
    try:
        with torch.no_grad():
            for batch in batches:
                if n_rows(batch.x) < 2:
                    continue
                if batch.mask is None:
                    net(batch.x)
                else:
                    net(batch.x, mask=batch.mask)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        net.train(training)
