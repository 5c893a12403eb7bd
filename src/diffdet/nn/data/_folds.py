"""What every yielder of folds shares: names of features, checks, columns, predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from diffdet.core.errors import InputError, ShapeError
from diffdet.core.extras import require
from diffdet.nn.data._fold_arrays import Array, as_columns, check_names, filled, split

__all__ = ["AbsFoldYielder", "Array", "Fold", "FoldInputs", "check_names"]

FoldInputs = Array | tuple[Array, Array]
"""Flat features (sample, feature), a matrix, or both as a tuple (flat, matrix)."""

Fold = dict[str, Any]
"""One fold: ``inputs``, ``targets``, ``weights`` (or None) and, where objects can be absent, ``mask``."""


class AbsFoldYielder(ABC):
    """Numbered folds of samples, each a dict of arrays. Inherit to read them from somewhere else.

    `get_fold` gives ``inputs`` (flat (sample, feature), a matrix (sample, row, column), or a tuple of both),
    ``targets`` ((sample, 1) where they are 1-D), ``weights`` ((sample, 1) or None) and, where the data have one,
    ``mask`` (sample, object), true where an object exists. Continuous features come first in flat inputs, then one
    column of integer codes for each categorical feature. Continuous features and matrices that are NaN are yielded as
    0. (The original leaves NaN in matrices, so that a network's output becomes NaN.)

    Args:
        n_folds: Number of folds.
        cont_feats: Names of the continuous columns of the flat inputs, in order.
        cat_feats: Names of the categorical columns, which follow.
        ignore_feats: Flat features not to yield.
        targ_feats: Names of the targets.
        wgt_feat: Name of the weight, where it has one.
        cat_maps: For each categorical feature what its codes mean: ``{"jets": {0: "none", 1: "one"}}``.
        matrix_feats: Description of the matrix: ``present_feats``, ``vecs``, ``feats_per_vec``, ``missing``,
            ``row_wise``, ``shape``.
        input_pipe: What scaled the continuous features, with `inverse_transform`; used by `get_df` only.
        output_pipe: What scaled the targets, with `inverse_transform`; used by `get_df` only.
        yield_matrix: Whether to yield the matrix where there is one.
        matrix_pipe: What scaled the matrix, with `inverse_transform`; used by `get_matrix` only.
        row_wise: Whether to yield an object as a row of the matrix, as some heads take it, or as a column, as others
            do; None as it is stored.

    Raises:
        InputError: If a name is there twice, or an ignored feature unknown.
    """

    def __init__(
        self,
        n_folds: int,
        *,
        cont_feats: Sequence[str] = (),
        cat_feats: Sequence[str] = (),
        ignore_feats: Sequence[str] | str | None = None,
        targ_feats: Sequence[str] | str | None = None,
        wgt_feat: str | None = None,
        cat_maps: Mapping[str, Mapping[int, Any]] | None = None,
        matrix_feats: Mapping[str, Any] | None = None,
        input_pipe: Any = None,
        output_pipe: Any = None,
        yield_matrix: bool = True,
        matrix_pipe: Any = None,
        row_wise: bool | None = None,
    ) -> None:
        self.n_folds = n_folds
        self.cont_feats = list(cont_feats)
        self.cat_feats = list(cat_feats)
        self.targ_feats = [targ_feats] if isinstance(targ_feats, str) else list(targ_feats or ())
        self.wgt_feat = wgt_feat
        self.cat_maps = {name: {int(k): v for k, v in codes.items()} for name, codes in (cat_maps or {}).items()}
        self.matrix_feats = dict(matrix_feats or {})
        self.input_pipe, self.output_pipe, self.matrix_pipe = input_pipe, output_pipe, matrix_pipe
        self.yield_matrix = yield_matrix
        self.row_wise = bool(self.matrix_feats.get("row_wise", True)) if row_wise is None else row_wise
        self.ignore_feats: list[str] = []
        names = self.cont_feats + self.cat_feats
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"`cont_feats` and `cat_feats` must name every column once; got {twice} more than once")
        check_names("cat_maps", list(self.cat_maps), self.cat_feats)
        if ignore_feats is not None:
            self.add_ignore(ignore_feats)

    # --- to be provided ---

    @abstractmethod
    def _read(self, name: str, idx: int) -> Array | None:
        """An array of one fold as it is stored, or None where there is no such array."""

    @abstractmethod
    def _write(self, name: str, idx: int, values: Array) -> None:
        """Keep an array with one fold."""

    @abstractmethod
    def columns(self) -> list[str]:
        """Names of the arrays that a fold holds."""

    @abstractmethod
    def fold_size(self, idx: int) -> int:
        """Number of samples of a fold."""

    # --- folds ---

    def __len__(self) -> int:
        return self.n_folds

    def __getitem__(self, idx: int) -> Fold:
        return self.get_fold(idx)

    def __iter__(self) -> Iterator[Fold]:
        for idx in range(self.n_folds):
            yield self.get_fold(idx)

    def get_fold(self, idx: int) -> Fold:
        """One fold.

        Args:
            idx: Number of the fold; negative ones count from the end.

        Returns:
            ``{"inputs", "targets", "weights"}`` and, where the data have one, ``"mask"``.

        Raises:
            InputError: If there is no such fold, or a category is no whole number from 0 on, or one without a meaning.
        """
        idx = self._checked_idx(idx)
        fold: Fold = {
            "inputs": self._inputs(idx),
            "targets": as_columns(self._read("targets", idx)),
            "weights": as_columns(self._read("weights", idx)),
        }
        mask = self._mask(idx) if self.has_matrix and self.yield_matrix else None
        if mask is not None:
            fold["mask"] = mask
        return fold

    @property
    def has_matrix(self) -> bool:
        """Whether the data have a matrix of objects."""
        return "matrix_inputs" in self.columns()

    def _inputs(self, idx: int) -> FoldInputs:
        flat = self._flat(idx)
        matrix = self._matrix(idx) if self.has_matrix and self.yield_matrix else None
        if matrix is None:
            if flat is None:
                raise InputError(f"fold {idx} has no flat features; got `yield_matrix=False`, which leaves nothing")
            return flat
        return matrix if flat is None else (flat, matrix)

    def _flat(self, idx: int) -> Array | None:
        """Flat features to be used, NaN as 0; None where there are none."""
        flat = self._read("inputs", idx)
        if flat is None:
            return None
        flat = np.asarray(flat)
        n_cont = len(self.cont_feats)
        for column, name in enumerate(self.cat_feats, start=n_cont):
            self._check_codes(name, flat[:, column], idx)
        if self.ignore_feats:
            names = self.cont_feats + self.cat_feats
            flat = flat[:, [k for k, name in enumerate(names) if name not in self.ignore_feats]]
        return filled("inputs", flat, idx)

    def _matrix(self, idx: int) -> Array | None:
        matrix = self._read("matrix_inputs", idx)
        if matrix is None:
            return None
        matrix = filled("matrix_inputs", np.asarray(matrix), idx)
        if matrix.ndim == 3 and self.row_wise != bool(self.matrix_feats.get("row_wise", True)):
            matrix = np.ascontiguousarray(np.swapaxes(matrix, 1, 2))
        return matrix

    def _mask(self, idx: int) -> Array | None:
        mask = self._read("matrix_mask", idx)
        return None if mask is None else np.asarray(mask).astype(bool)

    def _check_codes(self, name: str, codes: Array, idx: int) -> None:
        """Refuse categories that are no codes."""
        bad = ~np.isfinite(codes) | (codes < 0) | (codes != np.floor(codes))
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            raise InputError(
                f"category `{name}` must consist of whole numbers from 0 on; {int(bad.sum())} of {len(codes)} samples "
                f"of fold {idx} do not, the first is sample {first}: {codes[first]}. Code them with `proc_cats`"
            )
        meanings = self.cat_maps.get(name)
        top = int(codes.max()) if len(codes) else 0
        if meanings and top > max(meanings):
            raise InputError(f"category `{name}` must be a code from 0 to {max(meanings)}; fold {idx} holds {top}")

    def _checked_idx(self, idx: int) -> int:
        if not -self.n_folds <= idx < self.n_folds:
            raise InputError(f"`idx` must be the number of a fold, 0 to {self.n_folds - 1}; got {idx}")
        return idx % self.n_folds

    # --- features ---

    def add_ignore(self, feats: Sequence[str] | str) -> None:
        """Leave out flat features from now on.

        Args:
            feats: Name or names.

        Raises:
            InputError: If a name is unknown.
        """
        names = [feats] if isinstance(feats, str) else list(feats)
        check_names("ignore_feats", names, self.cont_feats + self.cat_feats)
        self.ignore_feats += [name for name in names if name not in self.ignore_feats]

    def get_use_cont_feats(self) -> list[str]:
        """Continuous features that are yielded, in order."""
        return [name for name in self.cont_feats if name not in self.ignore_feats]

    def get_use_cat_feats(self) -> list[str]:
        """Categorical features that are yielded, in order."""
        return [name for name in self.cat_feats if name not in self.ignore_feats]

    def get_ignore(self) -> list[str]:
        """Features that are left out."""
        return list(self.ignore_feats)

    # --- columns ---

    def get_data_count(self, idxs: int | Sequence[int] | None = None) -> int:
        """Number of samples of some folds; of all where None."""
        return sum(self.fold_size(idx) for idx in self._idxs(idxs))

    def get_column(
        self, column: str, n_folds: int | None = None, fold_idx: int | Sequence[int] | None = None
    ) -> Array | None:
        """An array of several folds, one after the other, as it is stored.

        Args:
            column: Name: one of `columns`, or of a flat feature.
            n_folds: Take the first so many; all where None.
            fold_idx: Take these instead.

        Returns:
            The values, or None where ``weights`` are asked for and there are none.

        Raises:
            InputError: If there is no such column or fold.
        """
        features = self.cont_feats + self.cat_feats
        if column not in self.columns():
            if column == "weights":
                return None
            check_names("column", [column], self.columns() + features)
            flat = self.get_column("inputs", n_folds, fold_idx)
            return None if flat is None else flat[:, features.index(column)]
        idxs = self._idxs(list(range(self.n_folds))[:n_folds] if fold_idx is None else fold_idx)
        parts = [self._read(column, idx) for idx in idxs]
        missing = [idx for idx, part in zip(idxs, parts, strict=True) if part is None]
        if missing:
            raise InputError(f"`column` must be there in every fold; {column!r} is not in folds {missing}")
        return np.concatenate([np.asarray(part) for part in parts if part is not None])

    def get_table(
        self,
        *,
        pred_name: str = "pred",
        targ_name: str = "targets",
        wgt_name: str = "weights",
        n_folds: int | None = None,
        fold_idx: int | Sequence[int] | None = None,
        inc_inputs: bool = False,
        deprocess: bool = False,
        nan_to_num: bool = False,
        inc_ignore: bool = False,
    ) -> dict[str, Array]:
        """Targets, weights, predictions and, if wanted, inputs of several folds as named columns.

        Args:
            pred_name: Name of saved predictions; left out where there are none.
            targ_name: Name of the targets.
            wgt_name: Name of the weights.
            n_folds: See `get_column`.
            fold_idx: See `get_column`.
            inc_inputs: Whether to include flat inputs under their names.
            deprocess: Whether to undo the scaling of inputs and targets by `input_pipe` and `output_pipe`.
            nan_to_num: Whether to replace NaN of inputs by 0.
            inc_ignore: Whether to include ignored features.

        Returns:
            Columns ``gen_target`` (``gen_target_0``, ... where there are several), ``gen_weight``, ``pred`` likewise.

        Raises:
            InputError: If there are no such columns or folds.
        """
        pick = {"n_folds": n_folds, "fold_idx": fold_idx}
        table: dict[str, Array] = {}
        if inc_inputs and "inputs" in self.columns():
            flat = np.array(self.get_column("inputs", **pick), copy=True)
            n_cont = len(self.cont_feats)
            if deprocess and self.input_pipe is not None and n_cont:
                flat[:, :n_cont] = self.input_pipe.inverse_transform(flat[:, :n_cont])
            flat = np.nan_to_num(flat) if nan_to_num else flat
            for k, name in enumerate(self.cont_feats + self.cat_feats):
                if inc_ignore or name not in self.ignore_feats:
                    table[name] = flat[:, k]
        if targ_name in self.columns():
            targets = np.asarray(self.get_column(targ_name, **pick))
            if deprocess and self.output_pipe is not None:
                targets = self.output_pipe.inverse_transform(targets.reshape(len(targets), -1)).reshape(targets.shape)
            table |= split("gen_target", targets)
        if wgt_name in self.columns():
            table["gen_weight"] = np.asarray(self.get_column(wgt_name, **pick)).reshape(-1)
        if pred_name in self.columns():
            table |= split("pred", np.asarray(self.get_column(pred_name, **pick)))
        return table

    def get_df(self, **kwargs: Any) -> Any:
        """The table of `get_table` as a DataFrame of pandas; same arguments.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        pandas = require("pandas", "pandas", "a DataFrame")
        return pandas.DataFrame(self.get_table(**kwargs))

    def get_matrix(self, fold_idx: int | Sequence[int] | None = None, *, deprocess: bool = False) -> Array:
        """Matrices of several folds, one after the other, as they are stored.

        Args:
            fold_idx: See `get_column`.
            deprocess: Whether to undo the scaling by `matrix_pipe`.

        Raises:
            InputError: If the data have no matrix.
        """
        matrix = np.asarray(self.get_column("matrix_inputs", fold_idx=fold_idx))
        if deprocess and self.matrix_pipe is not None:
            matrix = self.matrix_pipe.inverse_transform(matrix)
        return matrix

    def check_momenta(self, tolerance: float = 1e-3) -> None:
        """Refuse data whose objects have four-momenta that no particle can have; costs a pass over all folds.

        Args:
            tolerance: How far the momentum may exceed the energy, relative to itself.

        Raises:
            InputError: If objects have no features px, py, pz, E, or one that exists has E < |p|; the message names the
                fold and the object.
        """
        from diffdet.nn.physics.kinematics import check_four_momenta

        feats = list(self.matrix_feats.get("feats_per_vec", ()))
        check_names("px, py, pz, E", ["px", "py", "pz", "E"], feats)
        columns = [feats.index(name) for name in ("px", "py", "pz", "E")]
        for idx in range(self.n_folds):
            rows = self.get_matrix(idx, deprocess=True)
            rows = rows if self.matrix_feats.get("row_wise", True) else np.swapaxes(rows, 1, 2)
            p, mask = rows[..., columns], self._mask(idx)
            there = ~np.isnan(p).any(axis=-1) if mask is None else mask
            try:
                check_four_momenta(p, there, tolerance)
            except InputError as error:
                raise InputError(f"fold {idx}: {error} (event, object)") from None

    def save_fold_pred(self, pred: Array, fold_idx: int, pred_name: str = "pred") -> None:
        """Keep the predictions of a fold.

        Args:
            pred: Predictions, one row for each sample.
            fold_idx: Number of the fold.
            pred_name: Name of the column.

        Raises:
            ShapeError: If there is not one row for each sample.
            InputError: If the name is that of the data.
        """
        idx = self._checked_idx(fold_idx)
        if pred_name in ("inputs", "targets", "weights", "matrix_inputs", "matrix_mask"):
            raise InputError(f"`pred_name` must not be the name of data; got {pred_name!r}")
        pred = np.asarray(pred)
        if len(pred) != self.fold_size(idx):
            raise ShapeError(
                f"`pred` must have one row for each of the {self.fold_size(idx)} samples of fold {idx}; got {len(pred)}"
            )
        self._write(pred_name, idx, pred)

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Close what is open; nothing where nothing is."""

    def _idxs(self, idxs: int | Sequence[int] | None) -> list[int]:
        if idxs is None:
            return list(range(self.n_folds))
        return [self._checked_idx(int(idx)) for idx in ([idxs] if isinstance(idxs, int | np.integer) else idxs)]

    def __repr__(self) -> str:
        n_flat = len(self.get_use_cont_feats()), len(self.get_use_cat_feats())
        return (
            f"{type(self).__name__}({self.n_folds} folds, {self.get_data_count():,} samples, "
            f"{n_flat[0]} continuous and {n_flat[1]} categorical features{', matrix' if self.has_matrix else ''})"
        )
