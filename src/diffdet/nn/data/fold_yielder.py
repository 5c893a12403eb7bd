"""Folds of samples, in memory and in HDF5 files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from diffdet.core.checks import check_choice
from diffdet.core.errors import FileDamagedError, InputError, NotSupportedError, ShapeError
from diffdet.core.random import Stream
from diffdet.nn.data._folds import AbsFoldYielder, Array, Fold, FoldInputs
from diffdet.nn.data._hdf5 import child, dataset, open_file, reading

__all__ = ["AbsFoldYielder", "ArrayFoldYielder", "Fold", "FoldInputs", "FoldYielder", "fold_ids"]


def fold_ids(n_samples: int, n_folds: int, *, strat: Any = None, seed: int = 0) -> Array:
    """Deal samples to folds at random, each class evenly.

    Folds differ by one sample at most, and so does the number of samples of each class in them.

    Args:
        n_samples: Number of samples.
        n_folds: Number of folds.
        strat: Class of each sample, anything that sorts, (sample,) or (sample, key); None for a single class.
        seed: Seed.

    Returns:
        Number of the fold of each sample, (sample,).

    Raises:
        InputError: If there are fewer samples than folds.
        ShapeError: If the classes are not as many as the samples.
    """
    if not 1 <= n_folds <= n_samples:
        raise InputError(f"`n_folds` must be from 1 to the number of samples, {n_samples}; got {n_folds}")
    chance = torch.randperm(n_samples, generator=Stream(seed, "folds").generator()).numpy()
    keys = [chance]
    if strat is not None:
        classes = np.asarray(strat)
        if len(classes) != n_samples:
            raise ShapeError(f"`strat` must have one row for each of the {n_samples} samples; got {len(classes)}")
        classes = classes.reshape(n_samples, -1)
        keys += [classes[:, k] for k in reversed(range(classes.shape[1]))]
    ids = np.empty(n_samples, dtype=np.int64)
    ids[np.lexsort(keys)] = np.arange(n_samples) % n_folds
    return ids


class ArrayFoldYielder(AbsFoldYielder):
    """Folds of arrays in memory.

    Args:
        inputs: Flat features (sample, feature), a matrix (sample, row, column), or a tuple of both. Tensors and tables
            of pandas do, too.
        targets: Targets, (sample,) or (sample, target, ...); None for data to predict on.
        weights: Weights, (sample,).
        mask: Which objects of the matrix exist, (sample, object).
        n_folds: Number of folds.
        cont_feats: Names of the continuous columns; those of a table, or ``x0``, ``x1``, ... where None.
        cat_feats: Names of the categorical columns, which follow the continuous ones.
        strat: Class of each sample: folds hold each class evenly. ``"targets"`` takes the targets where they are few
            different numbers (up to 50), else nothing.
        fold_idx: Number of the fold of each sample, instead of dealing them.
        seed: Seed of the dealing.
        extra: Further columns to keep with the samples, by name.
        **kwargs: Further arguments of `AbsFoldYielder`.

    Raises:
        ShapeError: If parts differ in their number of samples, or names in their number from columns.
        InputError: If something is no array of numbers, weights are not finite, or there are fewer samples than folds.

    Example:
        >>> fy = ArrayFoldYielder(np.zeros((10, 2)), np.arange(10) % 2, n_folds=5, cont_feats=["pt", "eta"])
        >>> len(fy), fy[0]["inputs"].shape, fy[0]["targets"].ravel().tolist()
        (5, (2, 2), [0, 1])
    """

    def __init__(
        self,
        inputs: Any,
        targets: Any = None,
        weights: Any = None,
        mask: Any = None,
        *,
        n_folds: int = 10,
        cont_feats: Sequence[str] | None = None,
        cat_feats: Sequence[str] = (),
        strat: Any = "targets",
        fold_idx: Any = None,
        seed: int = 0,
        extra: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        pair = inputs if isinstance(inputs, tuple) else (inputs,)
        if len(pair) not in (1, 2):
            raise InputError(f"`inputs` must be an array or a tuple (flat, matrix); got a tuple of {len(pair)}")
        arrays: dict[str, Array] = {}
        for part in pair:
            array = _numbers("inputs", part)
            name = "inputs" if array.ndim == 2 else "matrix_inputs"
            if array.ndim < 2 or name in arrays:
                shapes = [np.shape(p) for p in pair]
                raise ShapeError(f"`inputs` must be (sample, feature), (sample, row, column) or both; got {shapes}")
            arrays[name] = array
        if len(pair) == 2 and np.ndim(pair[0]) != 2:
            raise ShapeError(
                f"`inputs` must be a tuple (flat, matrix) in that order; got {[np.shape(p) for p in pair]}"
            )
        for name, part in (("targets", targets), ("weights", weights), ("matrix_mask", mask), *(extra or {}).items()):
            if part is not None:
                arrays[name] = _numbers(name, part)
        n_samples = len(next(iter(arrays.values())))
        for name, array in arrays.items():
            if array.ndim == 0 or len(array) != n_samples:
                raise ShapeError(f"`{name}` must have one row for each of the {n_samples} samples; got {array.shape}")
        if "weights" in arrays:
            arrays["weights"] = _weights(arrays["weights"])
        if mask is not None:
            arrays["matrix_mask"] = _mask(arrays["matrix_mask"], arrays.get("matrix_inputs"))
        cont_feats = _names(pair[0], arrays.get("inputs"), cont_feats, cat_feats)
        if fold_idx is None:
            strat = _classes(arrays.get("targets")) if isinstance(strat, str) and strat == "targets" else strat
            ids = fold_ids(n_samples, n_folds, strat=strat, seed=seed)
        else:
            ids = _given_ids(fold_idx, n_samples)
            n_folds = int(ids.max()) + 1
        self._arrays = arrays
        self._rows = [np.flatnonzero(ids == k) for k in range(n_folds)]
        self._kept: dict[str, dict[int, Array]] = {}
        super().__init__(n_folds, cont_feats=cont_feats, cat_feats=cat_feats, **kwargs)
        for column, name in enumerate(self.cat_feats, start=len(self.cont_feats)):
            for idx, rows in enumerate(self._rows):
                self._check_codes(name, arrays["inputs"][rows, column], idx)

    def _read(self, name: str, idx: int) -> Array | None:
        if name in self._kept:
            return self._kept[name].get(idx)
        return self._arrays[name][self._rows[idx]] if name in self._arrays else None

    def _write(self, name: str, idx: int, values: Array) -> None:
        self._kept.setdefault(name, {})[idx] = values

    def columns(self) -> list[str]:
        """Names of the arrays that a fold holds."""
        return [*self._arrays, *(name for name in self._kept if name not in self._arrays)]

    def fold_size(self, idx: int) -> int:
        """Number of samples of a fold."""
        return len(self._rows[self._checked_idx(idx)])

    def sample_rows(self, idx: int) -> Array:
        """Rows of the caller's arrays that a fold consists of, in order."""
        return self._rows[self._checked_idx(idx)]


def _numbers(name: str, values: Any) -> Array:
    """An array of numbers from an array, a tensor or a table."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    elif hasattr(values, "to_numpy"):
        values = values.to_numpy()
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise InputError(f"`{name}` must consist of numbers; got an array of dtype {array.dtype}")
    return array


def _weights(weights: Array) -> Array:
    weights = weights.reshape(len(weights), -1)
    if weights.shape[1] != 1:
        raise ShapeError(f"`weights` must have shape (sample,) or (sample, 1); got {weights.shape}")
    bad = ~np.isfinite(weights)
    if bad.any():
        raise InputError(f"`weights` must be finite; {int(bad.sum())} of {len(weights)} are not")
    return weights[:, 0]


def _mask(mask: Array, matrix: Array | None) -> Array:
    if matrix is None:
        raise InputError("`mask` must come with a matrix of objects; got flat inputs only")
    if mask.ndim != 2 or mask.shape[1] not in matrix.shape[1:]:
        raise ShapeError(f"`mask` must have shape (sample, object); got {mask.shape} for a matrix {matrix.shape}")
    return mask.astype(bool)


def _names(given: Any, flat: Array | None, cont_feats: Sequence[str] | None, cat_feats: Sequence[str]) -> list[str]:
    """Names of the continuous columns."""
    n_columns = 0 if flat is None else flat.shape[1]
    if cont_feats is None:
        found = [str(name) for name in given.columns] if hasattr(given, "columns") else None
        if found is None:
            return [f"x{k}" for k in range(n_columns - len(cat_feats))]
        if cat_feats and found[len(found) - len(cat_feats) :] != list(cat_feats):
            raise InputError(f"`cat_feats` must be the last columns of `inputs`, in order; got {list(cat_feats)}")
        return found[: len(found) - len(cat_feats)]
    if len(cont_feats) + len(cat_feats) != n_columns:
        raise ShapeError(
            f"`cont_feats` and `cat_feats` must name the {n_columns} flat columns of `inputs`; "
            f"got {len(cont_feats)} + {len(cat_feats)} names"
        )
    return list(cont_feats)


def _classes(targets: Array | None) -> Array | None:
    """The targets, where they are few different numbers."""
    if targets is None or targets.reshape(len(targets), -1).shape[1] != 1:
        return None
    flat = targets.reshape(-1)
    return flat if len(np.unique(flat)) <= 50 else None


def _given_ids(fold_idx: Any, n_samples: int) -> Array:
    ids = _numbers("fold_idx", fold_idx).reshape(-1).astype(np.int64)
    if len(ids) != n_samples:
        raise ShapeError(f"`fold_idx` must have one number for each of the {n_samples} samples; got {len(ids)}")
    if ids.min() < 0 or len(np.unique(ids)) != ids.max() + 1:
        raise InputError(f"`fold_idx` must be numbers from 0 on without a gap; got {sorted(set(ids.tolist()))[:20]}")
    return ids


class FoldYielder(AbsFoldYielder):
    """Folds of an HDF5 file in the layout of `diffdet.nn.data.fold_file`.

    The file is opened read-only: predictions are kept in memory, unless ``mode="r+"`` asks to write them. (The original
    opens every file for writing.) A file without meta data has features ``x0``, ``x1``, ... unless they are named here.

    Args:
        foldfile: Path, or an open file of h5py.
        cont_feats: Names of the continuous features; those of the file where None.
        cat_feats: Names of the categorical features; those of the file where None.
        ignore_feats: Flat features not to yield.
        input_pipe: What scaled the continuous features; see `AbsFoldYielder`.
        output_pipe: What scaled the targets.
        yield_matrix: Whether to yield the matrix where there is one.
        matrix_pipe: What scaled the matrix.
        mode: ``"r"``, or ``"r+"`` to write predictions into the file.
        mask_from_nan: Whether objects whose features are all NaN are absent where the file has no mask.
        row_wise: Whether to yield objects as rows or as columns; see `AbsFoldYielder`.

    Raises:
        StorageError: If there is no such file.
        FileDamagedError: If it is no fold file, or damaged.
        InputError: If names do not fit the columns.
        NotSupportedError: If its matrices are stored as sparse ones.
    """

    def __init__(
        self,
        foldfile: Any,
        cont_feats: Sequence[str] | None = None,
        cat_feats: Sequence[str] | None = None,
        ignore_feats: Sequence[str] | str | None = None,
        input_pipe: Any = None,
        output_pipe: Any = None,
        yield_matrix: bool = True,
        matrix_pipe: Any = None,
        *,
        mode: str = "r",
        mask_from_nan: bool = False,
        row_wise: bool | None = None,
    ) -> None:
        check_choice("mode", mode, ("r", "r+"))
        self._owns = isinstance(foldfile, str | os.PathLike)
        self.foldfile: Any = open_file(os.fspath(foldfile), mode) if self._owns else foldfile
        self.path = str(self.foldfile.filename)
        self._kept: dict[str, dict[int, Array]] = {}
        self._writes = mode == "r+" and self.foldfile.mode != "r"
        self.mask_from_nan = mask_from_nan
        try:
            n_folds = _count_folds(self.foldfile)
            meta = _read_meta(self.foldfile)
            self._columns = list(self._group(0))
            if self._columns and not {"inputs", "matrix_inputs"} & set(self._columns):
                raise FileDamagedError(
                    f"`{self.path}` is no fold file: fold_0 has neither `inputs` nor `matrix_inputs`"
                )
            if meta.get("matrix_feats", {}).get("is_sparse") or meta.get("target_tensor", {}).get("is_sparse"):
                raise NotSupportedError(f"`{self.path}` stores sparse matrices; write it with dense ones")
            n_flat = dataset(self._group(0), "inputs").shape[1] if "inputs" in self._columns else 0
            cats: list[str] = list(meta.get("cat_feats", []) if cat_feats is None else cat_feats)
            unnamed = [f"x{k}" for k in range(n_flat - len(cats))]
            conts: list[str] = list(meta.get("cont_feats", unnamed) if cont_feats is None else cont_feats)
            if len(conts) + len(cats) != n_flat:
                raise InputError(
                    f"`cont_feats` and `cat_feats` must name the {n_flat} flat columns of `{self.path}`; "
                    f"got {len(conts)} + {len(cats)} names"
                )
            maps = {name: codes for name, codes in meta.get("cat_maps", {}).items() if name in cats}
            super().__init__(
                n_folds,
                cont_feats=conts,
                cat_feats=cats,
                ignore_feats=ignore_feats,
                targ_feats=meta.get("targ_feats"),
                wgt_feat=meta.get("wgt_feat"),
                cat_maps=maps,
                matrix_feats=meta.get("matrix_feats"),
                input_pipe=input_pipe,
                output_pipe=output_pipe,
                yield_matrix=yield_matrix,
                matrix_pipe=matrix_pipe,
                row_wise=row_wise,
            )
        except BaseException:
            self.close()
            raise

    def _group(self, idx: int) -> Any:
        return child(self.foldfile, f"fold_{idx}")

    def _read(self, name: str, idx: int) -> Array | None:
        if name in self._kept:
            return self._kept[name].get(idx)
        group = self._group(idx)
        if name not in group:
            return None
        found = dataset(group, name)
        with reading(self.path):
            return found[()]

    def _mask(self, idx: int) -> Array | None:
        mask = super()._mask(idx)
        if mask is None and self.mask_from_nan:
            matrix = self._read("matrix_inputs", idx)
            if matrix is not None:
                return np.logical_not(np.isnan(matrix).all(axis=2 if self.matrix_feats.get("row_wise", True) else 1))
        return mask

    def _write(self, name: str, idx: int, values: Array) -> None:
        if not self._writes:
            self._kept.setdefault(name, {})[idx] = values
            return
        group = self._group(idx)
        if name in group:
            del group[name]
        group.create_dataset(name, data=values)
        self.foldfile.flush()
        if idx == 0:
            self._columns = list(group)

    def columns(self) -> list[str]:
        """Names of the arrays that a fold holds."""
        return [*self._columns, *(name for name in self._kept if name not in self._columns)]

    def fold_size(self, idx: int) -> int:
        """Number of samples of a fold."""
        group = self._group(self._checked_idx(idx))
        return int(dataset(group, "inputs" if "inputs" in group else "matrix_inputs").shape[0])

    def close(self) -> None:
        """Close the file, unless it was handed in open."""
        if self._owns:
            self.foldfile.close()

    def __enter__(self) -> FoldYielder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _count_folds(file: Any) -> int:
    """Number of folds, which must be numbered without a gap."""
    found = sorted(int(match[1]) for name in file if (match := re.fullmatch(r"fold_(\d{1,6})", name)))
    if not found:
        raise FileDamagedError(f"`{file.filename}` is no fold file: it has no group `fold_0`, but {list(file)[:10]}")
    if found != list(range(len(found))):
        raise FileDamagedError(f"`{file.filename}` must have folds numbered from 0 without a gap; it has {found}")
    return len(found)


def _read_meta(file: Any) -> dict[str, Any]:
    """Meta data: JSON texts; nothing where there are none."""
    if "meta_data" not in file:
        return {}
    group = child(file, "meta_data")
    meta: dict[str, Any] = {}
    for name in group:
        try:
            text = dataset(group, name)[()]
            text = text.reshape(-1)[0] if isinstance(text, np.ndarray) else text
            value = json.loads(text)
        except (ValueError, TypeError, IndexError) as error:
            raise FileDamagedError(f"`{file.filename}`: `meta_data/{name}` must be JSON ({error})") from error
        if value is not None:
            meta[name] = value
    return meta
