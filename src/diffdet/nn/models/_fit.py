"""How `Model.fit` puts loop, step, data and callbacks together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from diffdet.core.errors import InputError
from diffdet.core.random import Stream, key_seed
from diffdet.loop.callbacks import Callback as LoopCallback
from diffdet.loop.callbacks import StopOnNonFinite
from diffdet.loop.checkpoint import Checkpoints
from diffdet.loop.engine import Loop
from diffdet.loop.history import ProgressLine
from diffdet.loop.update import Update
from diffdet.nn.callbacks.callback import Callback
from diffdet.nn.callbacks.cyclic_callbacks import AbsCyclicCallback
from diffdet.nn.callbacks.monitors import MetricLogger
from diffdet.nn.metrics import EvalMetric
from diffdet.nn.training import distributed
from diffdet.nn.training.batches import Batch, Rows, check_folds, fold_size, is_fold_source, load_fold
from diffdet.nn.training.epoch import training_batches
from diffdet.nn.training.fit_params import FitParams
from diffdet.nn.training.precision import ScaledUpdate, autocast_type
from diffdet.nn.training.step import GuardLoss, SupervisedStep

if TYPE_CHECKING:
    from diffdet.nn.models.model import Model

__all__ = ["begin", "check_count", "in_progress", "listed", "run_fit"]


def listed(cbs: Iterable[LoopCallback] | LoopCallback | None) -> list[LoopCallback]:
    """Callbacks as a list: the caller's own where it is one, so that what a fit returns is what was passed."""
    if cbs is None:
        return []
    if isinstance(cbs, LoopCallback):
        return [cbs]
    found = cbs if isinstance(cbs, list) else list(cbs)
    for callback in found:
        if not isinstance(callback, LoopCallback):
            given = callback.__name__ if isinstance(callback, type) else repr(callback)
            raise InputError(f"`cbs` must hold callbacks, made by their classes; got {given}")
    return found


def check_count(name: str, value: int) -> None:
    """Refuse what is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise InputError(f"`{name}` must be a whole number of at least 1; got {value!r}")


def begin(model: Model, callbacks: Sequence[LoopCallback], cb_savepath: str | Path, **fields: Any) -> FitParams:
    """State of a fit or prediction that begins, known to its callbacks."""
    if model.fit_params is not None:
        raise InputError("a fit or prediction of this model is running already")
    for callback in callbacks:
        if isinstance(callback, Callback):
            callback.set_model(model)
    return FitParams(
        cbs=list(callbacks),
        cyclic_cbs=[cb for cb in callbacks if isinstance(cb, AbsCyclicCallback)],
        loss_cbs=[cb for cb in callbacks if hasattr(cb, "get_loss")],
        metric_cbs=[cb for cb in callbacks if isinstance(cb, EvalMetric)],
        metric_log=next((cb for cb in callbacks if isinstance(cb, MetricLogger)), None),
        cb_savepath=Path(cb_savepath),
        **fields,
    )


@contextmanager
def in_progress(model: Model, fit_params: FitParams, *, remember: bool) -> Iterator[None]:
    """While in the block, the model's `fit_params` is this one; mode and torch's generators are restored after it."""
    training = model.net.training
    cuda = [model.device] if model.device.type == "cuda" else []
    model.fit_params = fit_params
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        model.fit_params = None
        fit_params.take(None)
        if remember:
            model.last_fit = fit_params
        model.net.train(training)


@dataclass(frozen=True)
class _Data:
    """Where a fit takes its batches from."""

    model: Model
    fy: Any
    bs: int
    trn_idxs: list[int]
    val_idx: int | None
    bulk_move: bool
    use_weights: bool
    drop_last: bool
    step: SupervisedStep
    fit: FitParams
    part: tuple[int, int] | None

    def _load(self, idx: int, stream: Stream | None) -> Rows:
        return load_fold(
            self.fy,
            idx,
            dtype=self.model.dtype,
            classes=self.model.n_classes,
            labels=self.model.labels,
            use_weights=self.use_weights,
            input_mask=self.model.input_mask,
            stream=stream,
        )

    def training(self, epoch: int) -> Iterator[Batch]:
        """Batches of an epoch of training."""
        assert self.step.seed_key is not None
        return training_batches(
            self.fy,
            self.trn_idxs,
            self.bs,
            Stream(*self.step.seed_key, "train", epoch),
            self._load,
            bulk_device=self.model.device if self.bulk_move else None,
            device=self.model.device,
            drop_last=self.drop_last,
            part=self.part,
            stopped=lambda: bool(self.fit.stop),
        )

    def validation(self, _epoch: int) -> Iterator[Batch]:
        """Batches of the validation."""
        assert self.val_idx is not None
        bs = None if self.bulk_move else self.bs
        return self.model.batches(self.fy, [self.val_idx], bs, use_weights=self.use_weights, bulk_move=self.bulk_move)

    def n_batches(self) -> int:
        """Batches of training in an epoch."""
        drop = self.drop_last or self.part is not None
        sizes = [fold_size(self.fy, idx) for idx in self.trn_idxs]
        return sum(size // self.bs if drop else -(-size // self.bs) for size in sizes)


def run_fit(
    model: Model,
    n_epochs: int,
    fy: Any,
    bs: int,
    *,
    bulk_move: bool,
    train_on_weights: bool,
    trn_idxs: Sequence[int] | None,
    val_idx: int | None,
    cbs: Iterable[LoopCallback] | LoopCallback | None,
    cb_savepath: str | Path,
    seed: int | None,
    drop_last: bool,
    checkpoint: Checkpoints | str | Path | None,
    resume: bool,
    progress: bool,
    interruptible: bool,
    amp: bool | str,
) -> list[LoopCallback]:
    """Train a model; see `Model.fit`."""
    check_count("n_epochs", n_epochs)
    check_count("bs", bs)
    if not is_fold_source(fy):
        raise InputError(f"`fy` must yield folds, as `FoldYielder` does; got {type(fy).__name__}")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, Integral)):
        raise InputError(f"`seed` must be a whole number, or None; got {seed!r}")
    if val_idx is not None:
        (val_idx,) = check_folds("val_idx", [val_idx], len(fy))
    chosen = [k for k in range(len(fy)) if k != val_idx] if trn_idxs is None else trn_idxs
    chosen = check_folds("trn_idxs", chosen, len(fy))
    loss_func = model.loss()
    if isinstance(loss_func, nn.Module):
        loss_func.to(model.device)
    callbacks = listed(cbs)
    shared = distributed.world_size() > 1
    key = Stream.from_torch().key if seed is None else (int(seed),)
    key = distributed.same_key(key)
    autocast = autocast_type(amp, model.device)
    update_class = ScaledUpdate if autocast is torch.float16 else Update
    update = update_class({"opt": model.opt})
    plan = {"opt": type(model.opt).__name__, "bs": int(bs), "trn_idxs": chosen, "val_idx": val_idx}
    plan |= {"train_on_weights": bool(train_on_weights), "drop_last": bool(drop_last)}
    plan |= {} if seed is None else {"seed": int(seed)}
    step = SupervisedStep(
        model.net, loss_func=loss_func, update=update, seed_key=("fit", *key), autocast=autocast, plan=plan
    )
    fit = begin(
        model,
        callbacks,
        cb_savepath,
        update=update,
        n_epochs=n_epochs,
        bs=bs,
        trn_idxs=chosen,
        val_idx=val_idx,
        use_weights=train_on_weights,
        opt=model.opt,
        loss_func=loss_func,
        fy=fy,
    )
    part = distributed.part_of_batch(bs) if shared else None
    data = _Data(model, fy, bs, chosen, val_idx, bulk_move, train_on_weights, drop_last, step, fit, part)
    fit.n_batches = data.n_batches()
    listeners = _listeners(model, callbacks, progress, shared=shared, interruptible=interruptible)
    checkpoints = Checkpoints(checkpoint) if isinstance(checkpoint, str | Path) else checkpoint
    if checkpoints is not None and not distributed.is_writer():
        checkpoints = distributed.FollowerCheckpoints(checkpoints, resume=resume)
    loop: Loop[Batch] = Loop(
        step, listeners, state=fit, checkpoints=checkpoints, interruptible=interruptible and not shared
    )
    with in_progress(model, fit, remember=True):
        if resume:
            distributed.wait()
        torch.manual_seed(key_seed(*key, "begin"))
        loop.run(data.training, None if val_idx is None else data.validation, n_epochs=int(n_epochs), resume=resume)
    return callbacks


def _listeners(
    model: Model, callbacks: Sequence[LoopCallback], progress: bool, *, shared: bool, interruptible: bool
) -> list[LoopCallback]:
    """The callbacks of a fit and those of the house around them."""
    found: list[LoopCallback] = []
    if shared:
        found.append(distributed.AverageGradients(model.net, interruptible=interruptible))
    if not any(isinstance(callback, StopOnNonFinite) for callback in callbacks):
        found.append(GuardLoss())
    found += callbacks
    if progress and distributed.is_writer():
        found.append(ProgressLine())
    return found
