"""The base of all volume wrappers: a volume, its optimisers, and the fits and predictions that they make."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import InputError
from diffdet.core.random import Stream
from diffdet.loop.callbacks import Callback as LoopCallback
from diffdet.loop.callbacks import StopOnNonFinite
from diffdet.loop.checkpoint import Checkpoints
from diffdet.loop.engine import Loop
from diffdet.loop.history import ProgressLine
from diffdet.loop.update import Update
from diffdet.tomography.core import PartialOpt
from diffdet.tomography.inference.scattering import ScatterBatch
from diffdet.tomography.inference.volume import AbsVolumeInferrer
from diffdet.tomography.muon.generation import AbsMuonGenerator, MuonGenerator2016
from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.optimisation.callbacks.cyclic_callbacks import CyclicCallback
from diffdet.tomography.optimisation.callbacks.eval_metric import EvalMetric
from diffdet.tomography.optimisation.callbacks.monitors import MetricLogger
from diffdet.tomography.optimisation.callbacks.pred_callbacks import PredHandler
from diffdet.tomography.optimisation.callbacks.warmup_callbacks import WarmupCallback
from diffdet.tomography.optimisation.data.passives import PassiveYielder
from diffdet.tomography.optimisation.fit_params import FitParams
from diffdet.tomography.optimisation.step import LossFunction, PassiveVolume, VolumeStep, check_counts, volume_batches
from diffdet.tomography.optimisation.wrapper.persistence import load_wrapper, save_wrapper
from diffdet.tomography.volume.layer import AbsDetectorLayer
from diffdet.tomography.volume.volume import Volume

__all__ = ["AbsVolumeWrapper"]


class AbsVolumeWrapper(metaclass=ABCMeta):
    """Holds a volume and optimises the detectors in it.

    `fit` runs epochs of training and validation. In each, batches of passive volumes are loaded one by one, irradiated
    with muons, inferred and compared with the truth; in training, the mean loss of a batch moves the detectors.
    `predict` does the same without loss. Callbacks can interject at the events of
    `diffdet.tomography.optimisation.events.EVENTS`; what goes on is in ``fit_params``.

    Everything random is keyed by (seed, state, epoch, volume, muon): one seed gives one result, however muons are
    batched, with or without validation. Validation and prediction use the same muons every time.

    To write a wrapper, inherit and write `_build_opt`.

    Args:
        volume: Volume with the detectors.
        partial_opts: Optimisers that wait for their parameters, by name; passed to `_build_opt`.
        loss_func: Loss of a prediction, called with it and the volume; needed for `fit`.
        partial_scatter_inferrer: Class of the scatterings of a batch of muons, called with ``mu`` and ``volume``.
        partial_volume_inferrer: Class of what infers the volume, called with ``volume``.
        mu_generator: Source of muons; `MuonGenerator2016.from_volume` where None.
        seed: Root of all random numbers; where None, drawn from torch's default generator, once, here.

    Attributes:
        volume: The volume.
        opts: Optimisers by name. One can be replaced in place.
        fit_params: State of the fit or prediction in progress; None in between.
        last_fit: State of the last fit when it ended: `stop_reason`, `history`, `interrupted_by`.
        stream: Root of the random streams.

    Raises:
        InputError: If an optimiser is asked for parameters that the volume does not have.
    """

    opts: dict[str, Optimizer]
    fit_params: FitParams | None = None
    last_fit: FitParams | None = None

    def __init__(
        self,
        volume: Volume,
        *,
        partial_opts: Mapping[str, PartialOpt],
        loss_func: LossFunction | None = None,
        partial_scatter_inferrer: Callable[..., ScatterBatch],
        partial_volume_inferrer: Callable[..., AbsVolumeInferrer],
        mu_generator: AbsMuonGenerator | None = None,
        seed: int | None = None,
    ) -> None:
        self.volume = volume
        self.loss_func = loss_func
        self.partial_scatter_inferrer = partial_scatter_inferrer
        self.partial_volume_inferrer = partial_volume_inferrer
        self.mu_generator = MuonGenerator2016.from_volume(volume) if mu_generator is None else mu_generator
        self.stream = Stream.from_torch() if seed is None else Stream(seed)
        self.opts = {}
        self._build_opt(**partial_opts)

    @abstractmethod
    def _build_opt(self, **kwargs: PartialOpt) -> None:
        """Fill ``opts``: give each optimiser, by name, the parameters that it looks after."""

    # -------------------------------------------------------------------------------------------------------- detectors
    @property
    def device(self) -> torch.device:
        """Where the volume lives."""
        return self.volume.device

    def get_detectors(self) -> list[AbsDetectorLayer]:
        """All detector layers of the volume, highest first."""
        return self.volume.get_detectors()

    def get_param_count(self, trainable: bool = True) -> int:
        """Number of parameters of the volume.

        Args:
            trainable: Whether to count only those that require gradients.
        """
        return sum(p.numel() for p in self.volume.parameters() if p.requires_grad or not trainable)

    # ------------------------------------------------------------------------------------------------------- optimisers
    def _opt(self, opt: str) -> Optimizer:
        if opt not in self.opts:
            raise InputError(f"`opt` must be one of {sorted(self.opts)}; got {opt!r}{did_you_mean(opt, self.opts)}")
        return self.opts[opt]

    def get_opt_lr(self, opt: str) -> float:
        """Learning rate of an optimiser.

        Args:
            opt: Name of the optimiser.
        """
        return float(self._opt(opt).param_groups[0]["lr"])

    def set_opt_lr(self, lr: float, opt: str) -> None:
        """Set the learning rate of an optimiser.

        Args:
            lr: New learning rate.
            opt: Name of the optimiser.
        """
        self._opt(opt).param_groups[0]["lr"] = lr

    def get_opt_mom(self, opt: str) -> float:
        """Momentum, or beta_1, of an optimiser.

        Args:
            opt: Name of the optimiser.

        Raises:
            InputError: If it has neither.
        """
        group = self._opt(opt).param_groups[0]
        if "betas" in group:
            return float(group["betas"][0])
        if "momentum" in group:
            return float(group["momentum"])
        raise InputError(f"the optimiser {opt!r} ({type(self._opt(opt)).__name__}) has no momentum")

    def set_opt_mom(self, mom: float, opt: str) -> None:
        """Set the momentum, or beta_1, of an optimiser.

        Args:
            mom: New momentum.
            opt: Name of the optimiser.

        Raises:
            InputError: If it has neither.
        """
        self.get_opt_mom(opt)
        group = self._opt(opt).param_groups[0]
        if "betas" in group:
            group["betas"] = (mom, group["betas"][1])
        else:
            group["momentum"] = mom

    # -------------------------------------------------------------------------------------------------------------
    # files
    def save(self, name: str | Path) -> None:
        """Save the volume's parameters and all optimisers to a file, atomically: safetensors, never pickle.

        Args:
            name: Name of the file, any ending.

        Raises:
            StorageError: If it cannot be written.
        """
        save_wrapper(name, self.volume, self.opts)

    def load(self, name: str | Path) -> None:
        """Load parameters and optimisers that `save` saved, whatever the optimisers are called.

        Files of `torch.save` with the documented content (the state of the volume under ``"volume"``, those of
        optimisers under their names) are read, too; nothing in them is executed.

        Args:
            name: Name of the file.

        Raises:
            StorageError: If it is missing or cannot be read; `FileDamagedError` if it is not what was written.
            CheckpointError: If volume or optimisers are others than those that were saved; `VersionError` if a later
                version of diffdet wrote it.
        """
        load_wrapper(name, self.volume, self.opts)

    # ---------------------------------------------------------------------------------------------------------------
    # fit
    def fit(
        self,
        n_epochs: int,
        passive_bs: int,
        n_mu_per_volume: int,
        mu_bs: int,
        trn_passives: PassiveYielder,
        val_passives: PassiveYielder | None,
        cbs: list[LoopCallback] | None = None,
        cb_savepath: Path = Path("train_weights"),
        *,
        checkpoint: Checkpoints | str | Path | None = None,
        resume: bool = False,
        progress: bool = False,
        interruptible: bool = False,
    ) -> list[LoopCallback]:
        """Optimise the detectors.

        All layouts and all muons are used: a batch of volumes at the end of an epoch that is smaller than
        ``passive_bs`` makes an update of its own, with its own mean (the original dropped it), and so does a smaller
        batch of muons. The mean loss of a batch counts the volumes that gave a prediction.

        A fit ends with `NonFiniteError` when a loss or gradient is not finite, unless callbacks say otherwise
        (`NoMoreNaNs`, or a `StopOnNonFinite` of your own); parameters are then those before the step.

        Args:
            n_epochs: Epochs; one is a pass over the training volumes and one over the validation volumes.
            passive_bs: Passive volumes to a batch: the detectors are updated after each.
            n_mu_per_volume: Muons to a volume.
            mu_bs: Most muons to a batch: more are quicker, fewer need less memory, and results are the same.
            trn_passives: Volumes to train on.
            val_passives: Volumes to validate on; None for no validation.
            cbs: Callbacks, called in this order.
            cb_savepath: Where callbacks write to. Created only when one does.
            checkpoint: Folder, or `Checkpoints`, to save the state to, so that a killed fit can be resumed.
            resume: Go on from the last checkpoint, bit for bit, if there is one. Pass the same arguments as before.
            progress: Show progress on standard error.
            interruptible: Whether SIGINT, SIGTERM and SIGUSR1 finish the step, save, and end the fit; `last_fit` then
                says so.

        Returns:
            The list of callbacks.

        Raises:
            InputError: If there is no loss, or a number is out of range.
            CheckpointError: If the checkpoint was saved with another volume or other optimisers, callbacks or numbers.
            NonFiniteError: If a number that is not finite ended the fit.
            StorageError: If a checkpoint cannot be written.
        """
        if self.loss_func is None:
            raise InputError("`loss_func` must be given to the wrapper before it can `fit`; got None")
        check_counts(n_epochs=n_epochs, passive_bs=passive_bs, n_mu_per_volume=n_mu_per_volume, mu_bs=mu_bs)
        callbacks = [] if cbs is None else cbs
        update = Update(self.opts, after_step=self._conform)
        step = self._step(update, n_mu_per_volume, mu_bs)
        fit_params = self._begin(
            callbacks,
            cb_savepath,
            update=update,
            n_epochs=n_epochs,
            passive_bs=passive_bs,
            n_mu_per_volume=n_mu_per_volume,
            mu_bs=mu_bs,
            trn_passives=trn_passives,
            val_passives=val_passives,
        )
        listeners = list(callbacks)
        if not any(isinstance(callback, StopOnNonFinite) for callback in callbacks):
            listeners.append(StopOnNonFinite())
        if progress:
            listeners.append(ProgressLine())
        if isinstance(checkpoint, str | Path):
            checkpoint = Checkpoints(checkpoint)
        loop: Loop[list[PassiveVolume]] = Loop(
            step, listeners, state=fit_params, checkpoints=checkpoint, interruptible=interruptible
        )

        def training(epoch: int) -> Iterator[list[PassiveVolume]]:
            return volume_batches(trn_passives, passive_bs, step.stream.child("train", epoch))

        def validation(_epoch: int) -> Iterator[list[PassiveVolume]]:
            assert val_passives is not None
            return volume_batches(val_passives, passive_bs, step.stream.child("valid"))

        with self._in_progress(fit_params):
            loop.run(training, None if val_passives is None else validation, n_epochs=n_epochs, resume=resume)
            self.stream = step.stream  # a resumed fit brings the one it began with
        return callbacks

    @torch.no_grad()
    def predict(
        self,
        passives: PassiveYielder,
        n_mu_per_volume: int,
        mu_bs: int,
        pred_cb: PredHandler | None = None,
        cbs: list[LoopCallback] | None = None,
        cb_savepath: Path = Path("train_weights"),
        *,
        seed: int | None = None,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Predict volumes with the detectors as they are.

        Nothing that is passed in is changed, and layouts come in their own order. Memory does not grow with the number
        of muons, unless a callback keeps them.

        Args:
            passives: Volumes to predict.
            n_mu_per_volume: Muons to a volume.
            mu_bs: Most muons to a batch.
            pred_cb: Collects the predictions; a new `PredHandler` where None.
            cbs: Further callbacks, called before it.
            cb_savepath: Where callbacks write to.
            seed: Root of this call's random numbers: another seed gives other muons. The wrapper's own where None, with
                which volume number i is crossed by the same muons at every call.

        Returns:
            What ``pred_cb.get_preds()`` returns: prediction and target of every volume.

        Raises:
            InputError: If a number is out of range.
        """
        check_counts(n_mu_per_volume=n_mu_per_volume, mu_bs=mu_bs)
        handler = PredHandler() if pred_cb is None else pred_cb
        callbacks = [*(cbs or ()), handler]
        step = self._step(Update(self.opts), n_mu_per_volume, mu_bs)
        if seed is not None:
            step.stream = Stream(seed)
        fit_params = self._begin(
            callbacks, cb_savepath, phase="test", n_mu_per_volume=n_mu_per_volume, mu_bs=mu_bs, tst_passives=passives
        )
        loop: Loop[list[PassiveVolume]] = Loop(step, callbacks, state=fit_params)
        modes = {module: module.training for module in self.volume.modules()}
        try:
            with self._in_progress(fit_params, is_fit=False):
                loop.predict(volume_batches(passives, 1, step.stream.child("test"), shuffle=False))
        finally:
            for module, mode in modes.items():
                module.training = mode
        return handler.get_preds()

    def _step(self, update: Update, n_mu_per_volume: int, mu_bs: int) -> VolumeStep:
        return VolumeStep(
            self.volume,
            mu_generator=self.mu_generator,
            partial_scatter_inferrer=self.partial_scatter_inferrer,
            partial_volume_inferrer=self.partial_volume_inferrer,
            loss_func=self.loss_func,
            update=update,
            n_mu_per_volume=n_mu_per_volume,
            mu_bs=mu_bs,
            stream=self.stream,
        )

    def _begin(self, callbacks: Sequence[LoopCallback], cb_savepath: Path, **fields: Any) -> FitParams:
        """State of a new fit or prediction, with its callbacks sorted by kind."""
        for callback in callbacks:
            if not isinstance(callback, LoopCallback):
                raise InputError(f"`cbs` must hold callbacks; got {type(callback).__name__}")
            if isinstance(callback, Callback):
                callback.set_wrapper(self)
        return FitParams(
            cbs=list(callbacks),
            warmup_cbs=[callback for callback in callbacks if isinstance(callback, WarmupCallback)],
            cyclic_cbs=[callback for callback in callbacks if isinstance(callback, CyclicCallback)],
            metric_cbs=[callback for callback in callbacks if isinstance(callback, EvalMetric)],
            metric_log=next((callback for callback in callbacks if isinstance(callback, MetricLogger)), None),
            cb_savepath=Path(cb_savepath),
            device=self.device,
            **fields,
        )

    @contextmanager
    def _in_progress(self, fit_params: FitParams, *, is_fit: bool = True) -> Iterator[None]:
        """Make a state the current one while in the block; one that was current before comes back."""
        before, self.fit_params = self.fit_params, fit_params
        try:
            yield
        finally:
            fit_params.forget_muons()
            self.fit_params = before
            if is_fit:
                self.last_fit = fit_params

    def _conform(self) -> None:
        """Bring all detectors back into their bounds."""
        for detector in self.get_detectors():
            detector.conform_detector()
