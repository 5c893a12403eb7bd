"""The loss of one training update as a function of the detector, with the same random numbers as often as wanted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import torch
from torch import Tensor, nn

from diffdet.core.errors import InputError, NoHitsError, PhysicsWarning
from diffdet.loop.callbacks import Callback as LoopCallback
from diffdet.loop.engine import Loop
from diffdet.loop.events import Fire
from diffdet.loop.update import Update
from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.optimisation.data.passives import PassiveYielder
from diffdet.tomography.optimisation.fit_params import FitParams
from diffdet.tomography.optimisation.step import PassiveVolume, VolumeStep, volume_batches
from diffdet.tomography.optimisation.wrapper.base import AbsVolumeWrapper

__all__ = ["ReplayedUpdate"]


class _KeepLoss(Update):
    """Keeps the loss, with its graph, instead of following it."""

    def __call__(self, loss: Tensor, fire: Fire) -> bool:
        """Keep the loss. No event of an update is fired: no callback repairs or limits anything."""
        del fire
        self.loss = loss
        return False


class ReplayedUpdate:
    """Loss of the first training update of a fit, of as many independent such updates as wanted.

    Call it with the number of an update: equal numbers mean equal volumes, muons and noise. The loss is the one that a
    fit would follow: callbacks act as in the first batch of the first epoch, from the beginning of the fit to the mean
    loss of the batch. Nothing is updated, no epoch ends, and what callbacks write goes to a folder that is removed.

    Use as a context manager: at its end the wrapper's volume, loss and state are as before.

    Args:
        wrapper: Volume, loss, inference and source of muons.
        passives: Volumes to train on.
        n_mu_per_volume: Muons to a volume.
        mu_bs: Most muons to a batch.
        passive_bs: Volumes to an update.
        cbs: Callbacks of the fit.
        n_epochs: Epochs that the fit would have.

    Raises:
        InputError: If the wrapper has no loss.
    """

    def __init__(
        self,
        wrapper: AbsVolumeWrapper,
        passives: PassiveYielder,
        *,
        n_mu_per_volume: int,
        mu_bs: int,
        passive_bs: int,
        cbs: Sequence[LoopCallback] = (),
        n_epochs: int = 1,
    ) -> None:
        if wrapper.loss_func is None:
            raise InputError("`wrapper` must have a loss to check the gradient of; its `loss_func` is None")
        self.wrapper = wrapper
        self.passives = passives
        self.passive_bs = passive_bs
        self.n_muons = 0
        self._folder = TemporaryDirectory(prefix="diffdet-check-")
        self._update = _KeepLoss({})
        self.step: VolumeStep = wrapper._step(self._update, n_mu_per_volume, mu_bs)
        self.state: FitParams = wrapper._begin(
            list(cbs),
            Path(self._folder.name),
            update=self._update,
            n_epochs=n_epochs,
            passive_bs=passive_bs,
            n_mu_per_volume=n_mu_per_volume,
            mu_bs=mu_bs,
            trn_passives=passives,
            val_passives=None,
        )
        self._loop: Loop[list[PassiveVolume]] = Loop(self.step, cbs, state=self.state)
        self._root = wrapper.stream.child("gradient check")

    def __enter__(self) -> Self:
        volume, loss = self.wrapper.volume, self.wrapper.loss_func
        self._volume_before = {name: value.clone() for name, value in volume.state_dict().items()}
        self._modes = {module: module.training for module in volume.modules()}
        self._loss_before = loss.state_dict() if isinstance(loss, nn.Module) else None
        return self

    def __exit__(self, *_: object) -> None:
        volume, loss = self.wrapper.volume, self.wrapper.loss_func
        for callback in self._loop.callbacks:
            callback.release()
        volume.load_state_dict(self._volume_before)
        volume.assign_budget()
        for module, mode in self._modes.items():
            module.training = mode
        if isinstance(loss, nn.Module) and self._loss_before is not None:
            loss.load_state_dict(self._loss_before)
        self._folder.cleanup()

    def __call__(self, number: int, *watchers: LoopCallback) -> Tensor:
        """Loss of an update, with its graph where gradients are recorded.

        Args:
            number: Number of the update.
            watchers: Further callbacks, told for this call only.

        Returns:
            ``()`` loss.

        Raises:
            NoHitsError: If no volume of the update gave a prediction.
            InputError: If the loss is no single number.
        """
        self.step.stream = self._root.child(number)
        self.state.phase, self.state.epoch = "train", 1
        self._update.loss = None
        with self._told(watchers), self.wrapper._in_progress(self.state, is_fit=False), warnings.catch_warnings():
            warnings.simplefilter("ignore", PhysicsWarning)  # the same muons fail a thousand times in the same way
            self.step.train(True)
            # The first two hooks bring callbacks back to where a fit begins: no call knows of the one before.
            self._loop.fire("on_train_begin")
            self._loop.fire("on_epoch_begin")
            batch = next(volume_batches(self.passives, self.passive_bs, self.step.stream.child("train", 1)))
            before = self.state.n_muons
            self.step(batch, self.state, self._loop.fire)
            self.n_muons += self.state.n_muons - before
        loss = self._update.loss
        if loss is None:
            raise NoHitsError(
                f"none of the {len(batch)} volumes of an update gave a prediction, so there is no gradient to check: "
                "no muon leaves two hits above and two below. Check the panels' positions and sizes"
            )
        if loss.numel() != 1:
            raise InputError(f"the loss must be a single number to have a gradient; got shape {tuple(loss.shape)}")
        return loss.reshape(())

    @contextmanager
    def _told(self, watchers: Sequence[LoopCallback]) -> Iterator[None]:
        """Tell further callbacks for the block."""
        callbacks = self._loop.callbacks
        self._loop.callbacks = [*watchers, *callbacks]
        for watcher in watchers:
            if isinstance(watcher, Callback):
                watcher.set_wrapper(self.wrapper)
            watcher.attach(self._loop)
        self._loop._listen()
        try:
            yield
        finally:
            self._loop.callbacks = callbacks

    @torch.no_grad()
    def value(self, number: int) -> float:
        """Loss of an update as a plain number."""
        return float(self(number))
