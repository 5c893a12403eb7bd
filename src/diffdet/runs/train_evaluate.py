"""What trained models are worth on events that training has not seen, with uncertainties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from diffdet.core.random import Stream
from diffdet.core.storage import replacing
from diffdet.nn.ensemble.ensemble import Ensemble
from diffdet.nn.training.step import compute_loss
from diffdet.runs.config.train import TrainConfig
from diffdet.runs.folder import RunFolder
from diffdet.runs.train_build import BuiltTraining
from diffdet.runs.train_importance import permutation_importance

__all__ = ["PREDICTIONS", "evaluate", "figures"]

PREDICTIONS = "predictions.npz"
"""File of a run folder with targets, predictions and weights of the test events."""


def figures(
    objective: str, pred: np.ndarray, target: np.ndarray, weight: np.ndarray, rows: np.ndarray | None = None
) -> dict[str, float]:
    """Figures of predictions.

    Args:
        objective: ``"classification"``, ``"multiclass"`` or ``"regression"``.
        pred: Predictions, (event, output); probabilities for classes.
        target: True values, (event, output), or class numbers (event, 1).
        weight: Weight of each event.
        rows: Events to count, by number; all where None.

    Returns:
        For classes ``log_loss``, ``accuracy``, ``roc_auc`` (the mean of each class against the rest for several); for
        regression ``bias`` (mean error), ``resolution`` (standard deviation of the error), ``mean_abs_error``.
    """
    from diffdet.kernels.classifier_scores import area_under_roc

    if rows is not None:
        pred, target, weight = pred[rows], target[rows], weight[rows]
    share = weight / weight.sum()
    if objective == "regression":
        errors = pred - target
        per_output = 1.0 / errors.shape[1]
        bias = float((share[:, None] * errors).sum() * per_output)
        spread = float(np.sqrt((share[:, None] * np.square(errors - bias)).sum() * per_output))
        size = float((share[:, None] * np.abs(errors)).sum() * per_output)
        return {"resolution": spread, "bias": bias, "mean_abs_error": size}

    def area(scores: np.ndarray, signal: np.ndarray) -> float:
        parts = (torch.from_numpy(np.ascontiguousarray(part)) for part in (scores, signal, weight))
        return area_under_roc(*parts).item()

    if objective == "multiclass":
        classes = target[:, 0].astype(np.int64)
        chosen = pred[np.arange(len(pred)), classes]
        right = pred.argmax(1) == classes
        areas = [area(pred[:, k], classes == k) for k in range(pred.shape[1])]
        losses = -np.log(np.clip(chosen, 1e-30, None))
    else:
        inside = np.clip(pred, 1e-7, 1 - 1e-7)
        losses = -(target * np.log(inside) + (1 - target) * np.log1p(-inside)).mean(1)
        right = ((pred >= 0.5) == (target > 0.5)).mean(1)
        areas = [area(pred[:, k], target[:, k] > 0.5) for k in range(pred.shape[1])]
    return {
        "log_loss": float((share * losses).sum()),
        "accuracy": float((share * right).sum()),
        "roc_auc": float(np.mean(areas)),
    }


def with_errors(objective: str, events: tuple[np.ndarray, np.ndarray, np.ndarray], n: int, seed: int) -> dict[str, Any]:
    """Figures with standard errors, ``NAME_se``, from resampling the events with replacement."""
    pred, target, weight = events
    found = figures(objective, pred, target, weight)
    samples: dict[str, list[float]] = {name: [] for name in found}
    for repeat in range(n):
        generator = Stream(seed, "bootstrap", repeat).generator()
        rows = torch.randint(len(pred), (len(pred),), generator=generator).numpy()
        for name, value in figures(objective, pred, target, weight, rows).items():
            samples[name].append(value)
    told: dict[str, Any] = {}
    for name, value in found.items():
        told |= {name: value, f"{name}_se": float(np.nanstd(samples[name], ddof=1))}
    return told


def evaluate(
    config: TrainConfig,
    built: BuiltTraining,
    ensemble: Ensemble,
    folder: RunFolder,
    tell: Callable[[int, int], None],
) -> dict[str, Any]:
    """Figures on the test folds, what a constant would reach, and what each feature is worth.

    Args:
        config: The configuration.
        built: Data and network.
        ensemble: The trained models.
        folder: Receives `PREDICTIONS`.
        tell: Called with the number of features whose importance is known, of all.

    Returns:
        Entries of `result.json`.
    """
    objective, plain, idxs = config.network.objective, built.plain, built.data.test_idxs
    size = 65536 if built.device.type != "cpu" else None

    def predict(inputs: Any, mask: Any = None) -> np.ndarray:
        return ensemble.predict(inputs, mask=mask, bs=size)

    parts = [plain.get_fold(idx) for idx in idxs]
    pred = np.concatenate([predict(fold["inputs"], fold.get("mask")) for fold in parts]).astype(np.float64)
    target = np.concatenate([np.asarray(fold["targets"], dtype=np.float64) for fold in parts]).reshape(len(pred), -1)
    weight = np.concatenate(
        [np.ones(len(f["targets"])) if f["weights"] is None else np.asarray(f["weights"]).reshape(-1) for f in parts]
    ).astype(np.float64)
    _write(folder, built, pred, target, weight)
    events = (pred, target, weight)
    settings = (config.evaluation.bootstrap, config.seed)
    found: dict[str, Any] = {
        "final": with_errors(objective, events, *settings),
        "baselines": {
            "constant": with_errors(objective, (_constant(objective, pred, target, weight), *events[1:]), *settings)
        },
        "test_events": len(pred),
    }
    if config.evaluation.importance:
        make = ensemble.models[0].loss

        def loss(values: np.ndarray, fold: dict[str, Any]) -> float:
            return _loss(objective, make, values, fold)

        found["importance"] = permutation_importance(
            predict, loss, plain, idxs, config.evaluation.repeats, config.seed, tell
        )
    return found


def _constant(objective: str, pred: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The best prediction that knows no feature: share of each class, or mean of the targets."""
    share = weight / weight.sum()
    if objective == "multiclass":
        classes = target[:, 0].astype(np.int64)
        mean = np.array([share[classes == k].sum() for k in range(pred.shape[1])])
    else:
        mean = (share[:, None] * target).sum(0)
    return np.broadcast_to(mean, pred.shape)


def _loss(objective: str, make: Callable[[], Any], pred: np.ndarray, fold: dict[str, Any]) -> float:
    """Loss of predictions for a fold, as training counts it."""
    values = torch.from_numpy(np.ascontiguousarray(pred)).to(torch.float64)
    target = torch.from_numpy(np.asarray(fold["targets"], dtype=np.float64)).reshape(len(values), -1)
    weights = fold.get("weights")
    if weights is not None:
        weights = torch.from_numpy(np.asarray(weights, dtype=np.float64)).reshape(-1, 1)
        weights = weights / weights.mean()
    if objective == "multiclass":
        values, target = values.clamp_min(1e-30).log(), target[:, 0].long()
    return float(compute_loss(make(), values, target, weights))


def _write(folder: RunFolder, built: BuiltTraining, pred: np.ndarray, target: np.ndarray, weight: np.ndarray) -> None:
    """Write targets, predictions and weights of the test events, and what the data say of them beside."""
    folds, idxs = built.data.folds, built.data.test_idxs
    arrays: dict[str, Any] = {"pred": pred, "target": target, "weight": weight}
    known = ("inputs", "targets", "weights", "matrix_inputs", "matrix_mask")
    for name in folds.columns():
        values = folds.get_column(name, fold_idx=idxs) if name not in known else None
        if values is not None and values.ndim == 1 and values.dtype.kind in "biuf":
            arrays[f"extra_{name}"] = values
    with replacing(folder.path / PREDICTIONS) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
