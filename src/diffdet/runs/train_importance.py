"""What each feature is worth to trained models: how much worse predictions become when its values are shuffled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from diffdet.core.random import Stream
from diffdet.runs.train_data import Prepared

__all__ = ["permutation_importance"]


def permutation_importance(
    predict: Callable[..., np.ndarray],
    loss: Callable[[np.ndarray, Any], float],
    folds: Prepared,
    idxs: list[int],
    repeats: int,
    seed: int,
    tell: Callable[[int, int], None],
) -> list[dict[str, Any]]:
    """Rise of the loss when a feature's values are shuffled among events, relative to the loss.

    A feature of objects is shuffled among all objects that exist, so that their number tells what it did before.

    Args:
        predict: Gives predictions for inputs and, as ``mask``, which objects exist.
        loss: Loss of predictions for a fold.
        folds: Where events come from.
        idxs: Folds to measure on.
        repeats: Permutations of each feature.
        seed: Root of the random numbers.
        tell: Called with the number of features that are done, of all.

    Returns:
        For each feature its name, the mean rise over permutations (``importance``) and its standard error
        (``importance_se``); the largest first.

    Reference: L. Breiman, "Random forests", Machine Learning 45 (2001) 5, section 10.
    """
    rises: dict[str, np.ndarray] = {}
    parts = [folds.get_fold(idx) for idx in idxs]
    sizes = np.array([folds.fold_size(idx) for idx in idxs], dtype=np.float64)
    plain = [loss(predict(fold["inputs"], mask=fold.get("mask")), fold) for fold in parts]
    reference = float(np.average(plain, weights=sizes))
    features = list(_features(folds, parts[0]))
    for done, (name, kind, column) in enumerate(features):
        found = np.zeros(repeats)
        for repeat in range(repeats):
            losses = []
            for number, fold in enumerate(parts):
                stream = Stream(seed, "importance", name, repeat, number)
                shuffled = _shuffled(fold, kind, column, folds.row_wise, stream)
                losses.append(loss(predict(shuffled, mask=fold.get("mask")), fold))
            found[repeat] = np.average(losses, weights=sizes) - reference
        rises[name] = found / abs(reference) if reference else found
        tell(done + 1, len(features))
    told = [
        {
            "feature": name,
            "kind": kind,
            "importance": float(rises[name].mean()),
            "importance_se": float(rises[name].std(ddof=1) / np.sqrt(repeats)),
        }
        for name, kind, _ in features
    ]
    return sorted(told, key=lambda entry: -entry["importance"])


def _features(folds: Prepared, fold: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Name, kind and column of every feature that the network sees."""
    inputs = fold["inputs"]
    flat = inputs[0] if isinstance(inputs, tuple) else None if folds.row_wise is not None else inputs
    if flat is not None:
        names = [*folds.data.cont_feats, *folds.folds.get_use_cat_feats()]
        yield from ((name, "flat", column) for column, name in enumerate(names))
    if folds.row_wise is not None:
        names = list(folds.data.objects["feats_per_vec"])
        yield from ((f"objects: {name}", "objects", column) for column, name in enumerate(names))


def _shuffled(fold: dict[str, Any], kind: str, column: int, row_wise: bool | None, stream: Stream) -> Any:
    """Inputs of a fold with one feature shuffled."""
    inputs = fold["inputs"]
    flat, matrix = inputs if isinstance(inputs, tuple) else (inputs, None) if row_wise is None else (None, inputs)
    if kind == "flat":
        flat = np.array(flat, copy=True)
        flat[:, column] = flat[_order(len(flat), stream), column]
    else:
        matrix = np.array(matrix, copy=True)
        values = matrix[:, :, column] if row_wise else matrix[:, column, :]
        mask = fold.get("mask")
        exists = np.ones(values.shape, dtype=bool) if mask is None else np.asarray(mask).astype(bool)
        present = values[exists]
        values[exists] = present[_order(len(present), stream)]
    return matrix if flat is None else flat if matrix is None else (flat, matrix)


def _order(n: int, stream: Stream) -> np.ndarray:
    return torch.randperm(n, generator=stream.generator()).numpy()
