"""Importance of features by permutation: how much worse predictions become when one feature tells nothing any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffdet.core.errors import InputError
from diffdet.core.random import Stream
from diffdet.nn.training.step import compute_loss

if TYPE_CHECKING:
    from diffdet.nn.ensemble.ensemble import Ensemble
    from diffdet.nn.models.model import Model
    from diffdet.nn.plotting.plot_settings import PlotSettings

__all__ = ["bootstrap_error", "get_ensemble_feat_importance", "get_nn_feat_importance", "permuted"]

Metric = Callable[[np.ndarray, np.ndarray, "np.ndarray | None"], float]
"""A figure of predictions, targets and weights; lower is better."""


def bootstrap_error(values: np.ndarray, n: int, seed: int, *key: int | str) -> float:
    """Standard error of the mean, from resampling values with replacement.

    Args:
        values: Values, (value,).
        n: Number of resamplings.
        seed: Seed.
        *key: What the values are, so that each has random numbers of its own.

    Returns:
        Standard deviation of the means; 0 for a single value.
    """
    rows = torch.randint(len(values), (n, len(values)), generator=Stream(seed, "bootstrap", *key).generator()).numpy()
    return float(values[rows].mean(axis=1).std())


def get_nn_feat_importance(
    model: Model,
    fy: Any,
    bs: int | None = None,
    eval_metric: Metric | None = None,
    plot: bool = False,
    savename: str | None = None,
    settings: PlotSettings | None = None,
    *,
    idxs: Sequence[int] | None = None,
    repeats: int = 1,
    seed: int = 0,
    n_bootstrap: int = 1000,
) -> dict[str, Any]:
    """Importance of every feature that a model sees.

    The values of a feature are permuted among the samples of a fold, so that it keeps its distribution and tells
    nothing. A feature of objects is permuted among all objects of the fold that exist. The importance is the rise of
    the loss, relative to the loss; its mean over folds comes with an uncertainty from resampling the folds.

    Features that say the same share their importance. Use folds that the model was not trained on.

    Args:
        model: A trained model.
        fy: Source of folds, with names of features.
        bs: Samples to a batch.
        eval_metric: Figure to use instead of the loss: a function of predictions (probabilities for classes), targets
            and weights; lower is better.
        plot: Whether to draw the result.
        savename: Where to save the picture.
        settings: Appearance of the picture.
        idxs: Which folds; all where None.
        repeats: Permutations of each feature in each fold.
        seed: Seed.
        n_bootstrap: Number of resamplings.

    Returns:
        Columns ``Feature``, ``Importance``, ``Uncertainty``, ``Kind`` (``"flat"`` or ``"objects"``), largest first;
        `pandas.DataFrame` takes them.

    Raises:
        InputError: If a fold has no targets, or there is none.

    Reference: L. Breiman, "Random forests", Machine Learning 45 (2001) 5, section 10.
    """
    loss = getattr(model, "loss", None)
    return _importance(model, loss, fy, bs, eval_metric, plot, savename, settings, idxs, repeats, seed, n_bootstrap)


def get_ensemble_feat_importance(
    ensemble: Ensemble,
    fy: Any,
    bs: int | None = None,
    eval_metric: Metric | None = None,
    plot: bool = False,
    savename: str | None = None,
    settings: PlotSettings | None = None,
    *,
    idxs: Sequence[int] | None = None,
    repeats: int = 1,
    seed: int = 0,
    n_bootstrap: int = 1000,
) -> dict[str, Any]:
    """Importance of every feature for the predictions of an ensemble; see `get_nn_feat_importance`."""
    if not ensemble.models:
        raise InputError("`ensemble` must have models; got none")
    loss = ensemble.models[0].loss
    return _importance(ensemble, loss, fy, bs, eval_metric, plot, savename, settings, idxs, repeats, seed, n_bootstrap)


def _importance(
    predictor: Any,
    loss: Any,
    fy: Any,
    bs: int | None,
    eval_metric: Metric | None,
    plot: bool,
    savename: str | None,
    settings: PlotSettings | None,
    idxs: Sequence[int] | None,
    repeats: int,
    seed: int,
    n_bootstrap: int,
) -> dict[str, Any]:
    chosen = list(range(len(fy))) if idxs is None else list(idxs)
    if not chosen or repeats < 1:
        raise InputError(f"`idxs` and `repeats` must be at least one; got {chosen} and {repeats}")
    classes = "multiclass" in str(getattr(predictor, "objective", None) or _objective(predictor)).lower()
    parts = [fy.get_fold(idx) for idx in chosen]
    missing = [idx for idx, fold in zip(chosen, parts, strict=True) if fold.get("targets") is None]
    if missing:
        raise InputError(f"folds of `fy` must have targets to judge predictions by; folds {missing} have none")

    def score(inputs: Any, fold: dict[str, Any]) -> float:
        preds = np.asarray(predictor.predict(inputs, bs=bs, mask=fold.get("mask")))
        if eval_metric is not None:
            return float(eval_metric(preds, fold["targets"], fold.get("weights")))
        return _loss(loss, preds, fold, classes)

    reference = [score(fold["inputs"], fold) for fold in parts]
    features = list(_features(fy, parts[0]))
    rises = np.zeros((len(features), len(parts)))
    for row, (name, kind, column) in enumerate(features):
        for place, (idx, fold) in enumerate(zip(chosen, parts, strict=True)):
            streams = [Stream(seed, "importance", name, idx, repeat) for repeat in range(repeats)]
            losses = [score(permuted(fold, kind, column, _row_wise(fy), stream), fold) for stream in streams]
            rises[row, place] = (np.mean(losses) - reference[place]) / (abs(reference[place]) or 1.0)
    order = np.argsort(-rises.mean(axis=1), kind="stable")
    found: dict[str, Any] = {
        "Feature": [features[k][0] for k in order],
        "Importance": rises.mean(axis=1)[order],
        "Uncertainty": np.array([bootstrap_error(rises[k], n_bootstrap, seed, features[k][0]) for k in order]),
        "Kind": [features[k][1] for k in order],
    }
    if plot or savename is not None:
        from diffdet.nn.plotting.interpretation import plot_feat_importance

        plot_feat_importance(found, savename=savename, settings=settings)
    return found


def _objective(predictor: Any) -> str:
    return str(predictor.models[0].objective)


def _loss(loss: Any, preds: np.ndarray, fold: dict[str, Any], classes: bool) -> float:
    values = torch.from_numpy(np.ascontiguousarray(preds)).to(torch.float64)
    targets = torch.from_numpy(np.asarray(fold["targets"], dtype=np.float64))
    weights = fold.get("weights")
    if weights is not None:
        weights = torch.from_numpy(np.asarray(weights, dtype=np.float64)).reshape(-1, 1)
    if classes:
        return float(compute_loss(loss(), values.clamp_min(1e-30).log(), targets.reshape(-1).long(), weights))
    return float(compute_loss(loss(), values, targets.reshape(values.shape), weights))


def _features(fy: Any, fold: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Name, kind and column of every feature."""
    inputs = fold["inputs"]
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    for part in map(np.asarray, parts):
        if part.ndim == 2:
            names = [*fy.get_use_cont_feats(), *fy.get_use_cat_feats()] if hasattr(fy, "get_use_cont_feats") else []
            names = names or [f"x{k}" for k in range(part.shape[1])]
            yield from ((name, "flat", column) for column, name in enumerate(names))
        else:
            n = part.shape[2] if _row_wise(fy) else part.shape[1]
            names = list(getattr(fy, "matrix_feats", {}).get("feats_per_vec") or ())
            names = names if len(names) == n else [f"feature {k}" for k in range(n)]
            yield from ((f"objects: {name}", "objects", column) for column, name in enumerate(names))


def _row_wise(fy: Any) -> bool:
    return bool(getattr(fy, "row_wise", True))


def permuted(fold: dict[str, Any], kind: str, column: int, row_wise: bool | None, stream: Stream) -> Any:
    """Inputs of a fold with one feature permuted among samples, or among all objects that exist.

    Args:
        fold: Inputs, and which objects exist, if there is a ``mask``. Stays as it is.
        kind: ``"flat"`` or ``"objects"``.
        column: Column of the feature in its part of the inputs.
        row_wise: Whether matrices have a row for each object. Of no concern for flat features.
        stream: What the order is drawn from.

    Returns:
        Inputs in the same form.
    """
    inputs = fold["inputs"]
    parts = list(inputs) if isinstance(inputs, tuple) else [inputs]
    place = next(k for k, part in enumerate(parts) if (np.ndim(part) == 2) == (kind == "flat"))
    changed = np.array(parts[place], copy=True)
    if kind == "flat":
        changed[:, column] = changed[_order(len(changed), stream), column]
    else:
        values = changed[:, :, column] if row_wise else changed[:, column, :]
        mask = fold.get("mask")
        exists = np.ones(values.shape, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
        present = values[exists]
        values[exists] = present[_order(len(present), stream)]
    parts[place] = changed
    return tuple(parts) if isinstance(inputs, tuple) else parts[0]


def _order(n: int, stream: Stream) -> np.ndarray:
    return torch.randperm(n, generator=stream.generator()).numpy()
