"""Data of a training: built-in problems, files of folds, tables; and which folds are for what."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdet.core.errors import InputError
from diffdet.runs.config.train import TrainConfig
from diffdet.runs.messages import at

if TYPE_CHECKING:
    from diffdet.nn.data.fold_yielder import AbsFoldYielder

__all__ = ["Prepared", "TrainData", "fit_scales", "load_data"]


@dataclass(frozen=True)
class TrainData:
    """Folds and their division.

    Attributes:
        folds: All folds.
        learn_idxs: Folds to train and validate on.
        test_idxs: Folds that training never sees.
    """

    folds: AbsFoldYielder
    learn_idxs: list[int]
    test_idxs: list[int]

    @property
    def objects(self) -> Mapping[str, Any]:
        """Description of the matrix of objects; empty where there is none."""
        return self.folds.matrix_feats if self.folds.has_matrix and self.folds.yield_matrix else {}

    @property
    def cont_feats(self) -> list[str]:
        """Continuous flat features."""
        return self.folds.get_use_cont_feats()

    @property
    def matrix_names(self) -> list[str]:
        """Names of the cells of the matrix that have a value, ``{object}_{feature}``."""
        found = self.objects
        if not found:
            return []
        missing = set(found.get("missing") or ())
        names = [f"{vec}_{feat}" for vec in found["vecs"] for feat in found["feats_per_vec"]]
        return [name for name in names if name not in missing]


def load_data(config: TrainConfig) -> TrainData:
    """Read or make the data of a configuration.

    Raises:
        InputError: If they cannot be used; the message begins with the path of the field.
        StorageError: If a file cannot be read.
    """
    data = config.data
    if data.example is not None:
        module = importlib.import_module(f"diffdet.nn.examples.{data.example}")
        with at("data.events"):
            folds = module.make(data.events, config.seed).fold_yielder(data.folds, seed=config.seed, scale=False)
    elif data.is_table:
        from diffdet.runs.train_table import read_table

        folds = read_table(config)
    else:
        from diffdet.nn.data.fold_yielder import FoldYielder

        assert data.file is not None
        with at("data.file"):
            folds = FoldYielder(data.file)
    if len(folds) - data.test_folds < 2:
        raise InputError(
            f"data.test_folds: expected at most {len(folds) - 2}, so that two folds remain to train and validate, "
            f"given {data.test_folds}"
        )
    n_learn = len(folds) - data.test_folds
    _check_targets(config, folds)
    return TrainData(folds, list(range(n_learn)), list(range(n_learn, len(folds))))


def _check_targets(config: TrainConfig, folds: Any) -> None:
    """Refuse targets that do not suit the objective."""
    targets = folds[0]["targets"]
    network = config.network
    if targets is None:
        raise InputError("data: expected targets, given data without")
    values = np.asarray(targets)
    if not np.isfinite(values.astype(np.float64)).all():
        raise InputError("data: expected targets that are finite, given some that are not")
    if network.objective == "multiclass":
        top = int(values.max())
        if values.min() < 0 or top >= network.outputs or (values != np.floor(values)).any():
            raise InputError(
                f"network.outputs: expected classes numbered 0 to {network.outputs - 1}, given targets from "
                f"{values.min():g} to {values.max():g}"
            )
        return
    n_columns = values.reshape(len(values), -1).shape[1]
    if n_columns != network.outputs:
        raise InputError(f"network.outputs: expected {n_columns}, the number of targets, given {network.outputs}")
    if network.objective == "classification" and (values.min() < 0 or values.max() > 1):
        raise InputError(
            f"network.objective: expected targets from 0 to 1 for classification, given {values.min():g} to "
            f"{values.max():g}"
        )


class Prepared:
    """Folds as a network takes them: the matrix in the layout of its head, weights of mean 1, balanced if asked for.

    Args:
        data: The data.
        row_wise: Layout of the head of objects; None where the network takes none.
        objects_only: Whether the network takes objects without flat features.
        classes: Weight of each class beside that of the events, by number; empty for none.
        weight_scale: Factor on all weights.
    """

    def __init__(
        self,
        data: TrainData,
        *,
        row_wise: bool | None,
        objects_only: bool = False,
        classes: Mapping[int, float] | None = None,
        weight_scale: float = 1.0,
    ) -> None:
        self.data = data
        self.folds = data.folds
        self.row_wise = row_wise
        self.objects_only = objects_only
        self.classes = dict(classes or {})
        self.weight_scale = weight_scale

    def __len__(self) -> int:
        return len(self.folds)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        return self.get_fold(idx)

    def __getattr__(self, name: str) -> Any:
        if name == "folds":
            raise AttributeError(name)
        return getattr(self.folds, name)

    def fold_size(self, idx: int) -> int:
        """Number of events of a fold."""
        return self.folds.fold_size(idx)

    def get_fold(self, idx: int) -> dict[str, Any]:
        """One fold."""
        fold = dict(self.folds.get_fold(idx))
        fold["inputs"] = self._inputs(fold["inputs"])
        if self.row_wise is None:
            fold.pop("mask", None)
        weights = fold.get("weights")
        if self.classes:
            classes = np.asarray(fold["targets"]).reshape(-1).astype(np.int64)
            factors = np.array([self.classes.get(k, 1.0) for k in range(max(self.classes) + 1)])[classes]
            weights = factors if weights is None else np.asarray(weights).reshape(-1) * factors
        if weights is not None:
            fold["weights"] = (np.asarray(weights).reshape(-1, 1) * self.weight_scale).astype(np.float32)
        return fold

    def _inputs(self, inputs: Any) -> Any:
        if not self.data.objects:
            return inputs
        flat, matrix = inputs if isinstance(inputs, tuple) else (None, inputs)
        if self.row_wise is None:
            return flat
        if bool(self.data.objects.get("row_wise", True)) != self.row_wise:
            matrix = np.swapaxes(matrix, 1, 2)
        return matrix if flat is None or self.objects_only else (flat, matrix)


def fit_scales(data: TrainData) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of every continuous feature, and of the features of the objects that exist.

    Args:
        data: The data, of which the folds to learn from are read.

    Returns:
        By the name of a flat feature, or of a feature of objects. Features that are constant are left out.
    """
    sums: dict[str, np.ndarray] = {}
    row_wise = bool(data.objects.get("row_wise", True)) if data.objects else True
    for idx in data.learn_idxs:
        fold = data.folds.get_fold(idx)
        inputs = fold["inputs"]
        flat, matrix = inputs if isinstance(inputs, tuple) else (None, inputs) if data.objects else (inputs, None)
        if flat is not None:
            for k, name in enumerate(data.cont_feats):
                _add(sums, name, np.asarray(flat)[:, k])
        if matrix is not None:
            rows = np.asarray(matrix if row_wise else np.swapaxes(matrix, 1, 2))
            mask = fold.get("mask")
            rows = rows.reshape(-1, rows.shape[-1]) if mask is None else rows[np.asarray(mask).astype(bool)]
            for k, name in enumerate(data.objects["feats_per_vec"]):
                _add(sums, name, rows[:, k])
    found: dict[str, tuple[float, float]] = {}
    for name, (n, total, squares) in sums.items():
        mean = total / n if n else 0.0
        width = float(np.sqrt(max(squares / n - mean * mean, 0.0))) if n else 0.0
        if np.isfinite(mean) and width > 1e-6 * max(1.0, abs(mean)):
            found[name] = (float(mean), width)
    return found


def _add(sums: dict[str, np.ndarray], name: str, values: np.ndarray) -> None:
    """Count, sum and sum of squares of a feature."""
    values = values.astype(np.float64)
    part = np.array([len(values), values.sum(), np.square(values).sum()])
    sums[name] = sums[name] + part if name in sums else part
