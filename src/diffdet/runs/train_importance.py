"""What each feature is worth to trained models: how much worse predictions become when its values are shuffled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from diffdet.core.random import Stream
from diffdet.nn.interpretation.features import permuted
from diffdet.runs.train_data import Prepared

__all__ = ["BLOCKS", "permutation_importance"]

BLOCKS = 20
"""Equal parts of a fold between which the loss is compared, to tell how far it depends on which events there are."""


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
        (``importance_se``), from permutations and from the number of events: the scatter of the rise between
        permutations, and between `BLOCKS` equal parts of each fold, in quadrature. The largest first.

    Reference: L. Breiman, "Random forests", Machine Learning 45 (2001) 5, section 10.
    """
    rises: dict[str, np.ndarray] = {}
    errors: dict[str, float] = {}
    parts = [folds.get_fold(idx) for idx in idxs]
    sizes = np.array([folds.fold_size(idx) for idx in idxs], dtype=np.float64)
    preds = [predict(fold["inputs"], mask=fold.get("mask")) for fold in parts]
    plain = [loss(pred, fold) for pred, fold in zip(preds, parts, strict=True)]
    blocks = [_blocks(len(pred)) for pred in preds]
    plain_in_blocks = _in_blocks(loss, preds, parts, blocks)
    reference = float(np.average(plain, weights=sizes))
    features = list(_features(folds, parts[0]))
    for done, (name, kind, column) in enumerate(features):
        found, in_blocks = np.zeros(repeats), np.zeros_like(plain_in_blocks)
        for repeat in range(repeats):
            shuffled_preds = []
            for number, fold in enumerate(parts):
                stream = Stream(seed, "importance", name, repeat, number)
                shuffled = permuted(fold, kind, column, folds.row_wise, stream)
                shuffled_preds.append(predict(shuffled, mask=fold.get("mask")))
            losses = [loss(pred, fold) for pred, fold in zip(shuffled_preds, parts, strict=True)]
            in_blocks += (_in_blocks(loss, shuffled_preds, parts, blocks) - plain_in_blocks) / repeats
            found[repeat] = np.average(losses, weights=sizes) - reference
        scale = abs(reference) if reference else 1.0
        rises[name] = found / scale
        over_permutations = found.std(ddof=1) / np.sqrt(repeats)
        if reference:  # the loss itself, to which the rise is relative, is uncertain, too
            in_blocks = in_blocks - found.mean() / reference * plain_in_blocks
        errors[name] = float(np.hypot(over_permutations, _error_of_mean(in_blocks, blocks)) / scale)
        tell(done + 1, len(features))
    told = [
        {
            "feature": name,
            "kind": kind,
            "importance": float(rises[name].mean()),
            "importance_se": errors[name],
        }
        for name, kind, _ in features
    ]
    return sorted(told, key=lambda entry: -entry["importance"])


def _blocks(n: int) -> list[np.ndarray]:
    """Rows of a fold in equal parts."""
    return np.array_split(np.arange(n), min(BLOCKS, n))


def _in_blocks(
    loss: Callable[[np.ndarray, Any], float],
    preds: list[np.ndarray],
    parts: list[dict[str, Any]],
    blocks: list[list[np.ndarray]],
) -> np.ndarray:
    """Loss of every block of every fold."""
    found = []
    for pred, fold, rows in zip(preds, parts, blocks, strict=True):
        for block in rows:
            cut = {key: None if fold.get(key) is None else np.asarray(fold[key])[block] for key in _JUDGED}
            found.append(loss(pred[block], cut))
    return np.array(found)


_JUDGED = ("targets", "weights")
"""What of a fold a loss is formed from, beside predictions."""


def _error_of_mean(values: np.ndarray, blocks: list[list[np.ndarray]]) -> float:
    """Standard error of the mean over blocks; 0 where there is but one."""
    sizes = np.array([len(block) for rows in blocks for block in rows], dtype=np.float64)
    share, n = sizes / sizes.sum(), len(sizes)
    if n < 2:
        return 0.0
    deviations = share * (values - (share * values).sum())
    return float(np.sqrt(np.square(deviations).sum() * n / (n - 1)))


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
