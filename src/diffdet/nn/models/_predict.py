"""How `Model.predict` works: few large batches, no gradients, callbacks in between."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from diffdet.core.errors import InputError
from diffdet.loop.engine import Loop
from diffdet.nn.callbacks.pred_handlers import PredHandler
from diffdet.nn.models._fit import begin, check_count, in_progress, listed
from diffdet.nn.training.batches import Batch, Rows, to_rows
from diffdet.nn.training.step import SupervisedStep

if TYPE_CHECKING:
    from diffdet.loop.callbacks import Callback as LoopCallback
    from diffdet.nn.models.model import Model

__all__ = ["batch_size", "default_size", "predict_array", "predict_folds"]

ROWS_CPU, ROWS_DEVICE = 8192, 65536
"""Samples to a batch: on a CPU activations should stay in the cache, elsewhere the device should be kept busy."""


def default_size(model: Model) -> int:
    """Samples to a batch where the caller has no wish."""
    return ROWS_CPU if model.device.type == "cpu" else ROWS_DEVICE


def batch_size(model: Model, bs: int | None) -> int:
    """Samples to a batch, after refusing a wish that is no such number.

    Raises:
        InputError: If it is no whole number of at least 1.
    """
    if bs is None:
        return default_size(model)
    check_count("bs", bs)
    return int(bs)


def _run(
    model: Model,
    rows: Rows,
    handler: PredHandler,
    cbs: Iterable[LoopCallback] | LoopCallback | None,
    bs: int | None,
) -> Tensor:
    """Predictions for some samples."""
    size = batch_size(model, bs)
    callbacks = [*listed(cbs), handler]
    fit = begin(model, callbacks, ".", bs=size)
    loop: Loop[Batch] = Loop(SupervisedStep(model.net), callbacks, state=fit)
    with in_progress(model, fit, remember=False):
        loop.predict(rows.batches(size, device=model.device))
        return handler.get_preds()


def predict_array(
    model: Model,
    inputs: Any,
    as_np: bool,
    pred_cb: PredHandler | None,
    cbs: Iterable[LoopCallback] | LoopCallback | None,
    bs: int | None,
    *,
    mask: Any = None,
) -> np.ndarray | Tensor:
    """Predictions for an array; see `Model.predict`."""
    rows = to_rows(inputs, mask=mask, dtype=model.dtype, input_mask=model.input_mask)
    if not len(rows):
        raise InputError("`inputs` must have at least one sample; got none")
    preds = _run(model, rows, PredHandler() if pred_cb is None else pred_cb, cbs, bs)
    return _to_numpy(model, preds) if as_np else preds


def _to_numpy(model: Model, preds: Tensor) -> np.ndarray:
    """Predictions as an array; those of multiclass models as probabilities."""
    preds = preds.detach().cpu()
    return (preds.exp() if model.classes else preds).numpy()


def predict_folds(
    model: Model,
    fy: Any,
    pred_name: str,
    pred_cb: PredHandler | None,
    cbs: Iterable[LoopCallback] | LoopCallback | None,
    bs: int | None,
) -> None:
    """Predictions for all folds, written into them under a name; see `Model.predict`.

    Where a source changes its data for tests (``test_time_folds``), predictions for the variants are averaged.
    """
    for idx in range(len(fy)):
        preds = mean_over_variants(
            [_to_numpy(model, _of_fold(model, data, pred_cb, cbs, bs)) for data in variants(fy, idx)]
        )
        fy.save_fold_pred(preds[:, 0] if preds.ndim > 1 and preds.shape[1] == 1 else preds, idx, pred_name=pred_name)


def variants(fy: Any, idx: int) -> list[Mapping[str, Any]]:
    """What a fold looks like at test time: itself, or the variants that an augmenting source makes of it."""
    make = getattr(fy, "get_test_folds", None)
    return [fy.get_fold(idx)] if make is None else list(make(idx))


def mean_over_variants(preds: list[np.ndarray]) -> np.ndarray:
    """Mean of the predictions for the variants of a fold."""
    return preds[0] if len(preds) == 1 else np.mean(np.stack(preds), axis=0, dtype=preds[0].dtype)


def _of_fold(
    model: Model,
    data: Mapping[str, Any],
    pred_cb: PredHandler | None,
    cbs: Iterable[LoopCallback] | LoopCallback | None,
    bs: int | None,
) -> Tensor:
    rows = to_rows(data["inputs"], mask=data.get("mask"), dtype=model.dtype, input_mask=model.input_mask)
    with torch.no_grad():
        return _run(model, rows, PredHandler() if pred_cb is None else pred_cb, cbs, bs)
