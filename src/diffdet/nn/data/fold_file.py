"""Fold files: tables dealt to folds in HDF5, written whole or not at all.

Layout: groups ``fold_0``, ``fold_1``, ... each with ``inputs`` (sample, feature) float32, ``targets`` (sample,) or
(sample, target), and, where there are any, ``weights`` (sample,), ``matrix_inputs`` (sample, row, column),
``matrix_mask`` (sample, object), further columns and saved predictions; and a group ``meta_data`` of JSON texts:
``cont_feats``, ``cat_feats``, ``cat_maps``, ``targ_feats``, ``wgt_feat``, ``matrix_feats``, ``target_tensor``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from diffdet.core.errors import InputError
from diffdet.core.patient_file import PatientFile
from diffdet.core.storage import replacing
from diffdet.nn.data._fold_layout import FoldLayout
from diffdet.nn.data._folds import Array, check_names
from diffdet.nn.data.fold_yielder import fold_ids

__all__ = ["FoldFileWriter", "FoldLayout", "add_meta_data", "df2foldfile", "fold2foldfile"]


class FoldFileWriter:
    """Writes a fold file piece by piece; what it replaces stays as it was until `close`.

    Use it with `with`. Memory is that of a piece.

    Args:
        savename: Where to; ``.hdf5`` is added where there is no suffix.
        n_folds: Number of folds.
        compression: Of HDF5: ``"gzip"``, ``"lzf"`` or None.

    Raises:
        StorageError: If it cannot be written.
    """

    def __init__(self, savename: str | os.PathLike[str], n_folds: int, compression: str | None = None) -> None:
        path = Path(savename)
        self.path = path if path.suffix else path.with_suffix(".hdf5")
        self.n_folds = n_folds
        self.compression = compression
        self._meta: dict[str, Any] = {}

    def __enter__(self) -> FoldFileWriter:
        import h5py

        self._place = replacing(self.path)
        temporary = self._place.__enter__()
        try:
            self._raw = PatientFile(temporary)
            self._file: Any = h5py.File(self._raw, "w", libver=("v110", "v110"))
            self._groups = [self._file.create_group(f"fold_{k}") for k in range(self.n_folds)]
        except BaseException as error:
            self._place.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def write(self, arrays: Mapping[str, Array], ids: Array) -> None:
        """Append samples.

        Args:
            arrays: What a fold holds by name, one row a sample.
            ids: Number of the fold of each sample.
        """
        for k, group in enumerate(self._groups):
            rows = np.flatnonzero(ids == k)
            for name, values in arrays.items():
                _append(group, name, values[rows], self.compression)
            self._raw.check()

    def set_meta_data(self, meta: Mapping[str, Any]) -> None:
        """Set the meta data."""
        self._meta = dict(meta)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                _write_meta(self._file, self._meta)
                self._file.close()
                self._raw.check()
                self._raw.close()
                self._raw.check()
        except BaseException as late:
            kind, error, trace = type(late), late, late.__traceback__
        if kind is not None:
            with suppress(Exception):  # the file is about to be deleted, and the first error is the one to tell
                self._file.close()
            self._raw.close()
            if not self._place.__exit__(kind, error, trace):
                raise error
            return
        self._place.__exit__(None, None, None)


def _append(group: Any, name: str, values: Array, compression: str | None) -> None:
    if name not in group:
        group.create_dataset(
            name, data=values, maxshape=(None, *values.shape[1:]), chunks=_chunks(values), compression=compression
        )
        return
    start = group[name].shape[0]
    group[name].resize(start + len(values), axis=0)
    group[name][start:] = values


def _chunks(values: Array) -> tuple[int, ...]:
    """Chunks of about a quarter of a MiB of whole samples."""
    row = max(1, values.dtype.itemsize * int(np.prod(values.shape[1:], dtype=np.int64)))
    return (max(1, (1 << 18) // row), *values.shape[1:])


def _write_meta(file: Any, meta: Mapping[str, Any]) -> None:
    group = file.require_group("meta_data")
    for name, value in meta.items():
        if name in group:
            del group[name]
        group.create_dataset(name, data=json.dumps(value))


def df2foldfile(
    df: Any,
    n_folds: int,
    cont_feats: Sequence[str],
    cat_feats: Sequence[str],
    targ_feats: Sequence[str] | str,
    savename: str | os.PathLike[str],
    targ_type: str,
    strat_key: str | None = None,
    misc_feats: Sequence[str] | None = None,
    wgt_feat: str | None = None,
    cat_maps: Mapping[str, Mapping[int, Any]] | None = None,
    matrix_vecs: Sequence[str] | None = None,
    matrix_feats_per_vec: Sequence[str] | None = None,
    matrix_row_wise: bool = True,
    tensor_data: Any = None,
    tensor_name: str | None = None,
    compression: str | None = None,
    *,
    mask: Any = None,
    seed: int = 0,
    append: Iterable[tuple[Any, Any]] = (),
) -> Path:
    """Write a table as a fold file; see `FoldLayout` for the arguments that are not listed.

    Args:
        df: Mapping of names to arrays, or a DataFrame of pandas.
        n_folds: Number of folds.
        cont_feats: Continuous features.
        cat_feats: Categorical features.
        targ_feats: Target or targets.
        savename: Where to; ``.hdf5`` is added where there is no suffix. What is there is replaced when all is written.
        targ_type: ``"int"`` or ``"float"``.
        strat_key: Column whose values every fold holds evenly.
        misc_feats: Further columns to keep.
        wgt_feat: Weight.
        cat_maps: For each categorical feature what its codes mean.
        matrix_vecs: Objects of the matrix.
        matrix_feats_per_vec: Features of the objects.
        matrix_row_wise: Whether an object is a row of the matrix.
        tensor_data: The matrix as an array (sample, row, column), instead of columns.
        tensor_name: Its name; ``"matrix"`` where None.
        compression: ``"gzip"``, ``"lzf"`` or None.
        mask: Which objects exist, (sample, object). Without, objects whose features are all NaN do not.
        seed: Seed of the dealing.
        append: Further columns to keep as pairs (name, values), of any shape (sample, ...).

    Returns:
        Path of the file.

    Raises:
        InputError: If a column is not there, or consists of something that its place does not take.
        StorageError: If the file cannot be written.
    """
    name = None if tensor_data is None else tensor_name or "matrix"
    layout = FoldLayout(
        *(list(cont_feats), list(cat_feats), targ_feats, targ_type, wgt_feat, misc_feats, cat_maps, matrix_vecs),
        *(matrix_feats_per_vec, matrix_row_wise, name),
    )
    arrays = layout.arrays(df, tensor_data, mask) | {key: np.asarray(values) for key, values in append}
    n = len(next(iter(arrays.values())))
    strat = None
    if strat_key is not None:
        check_names("strat_key", [strat_key], [str(c) for c in (df.columns if hasattr(df, "columns") else df)])
        strat = np.asarray(df[strat_key])
    ids = fold_ids(n, n_folds, strat=strat, seed=seed)
    with FoldFileWriter(savename, n_folds, compression) as writer:
        writer.write(arrays, ids)
        writer.set_meta_data(layout.meta_data())
    return writer.path


def fold2foldfile(df: Any, out_file: Any, fold_idx: int, layout: FoldLayout, tensor_data: Any = None) -> None:
    """Write a table as one fold into an HDF5 file that is open for writing.

    Args:
        df: Mapping of names to arrays, or a DataFrame of pandas.
        out_file: Open file of h5py.
        fold_idx: Number of the fold.
        layout: Which columns go where.
        tensor_data: The matrix as an array (sample, row, column), instead of columns.

    Raises:
        InputError: If a column is not there, or the fold is there already.
    """
    if f"fold_{fold_idx}" in out_file:
        raise InputError(f"`fold_idx` must be a fold that is not in {out_file.filename} yet; got {fold_idx}")
    arrays = layout.arrays(df, tensor_data)
    group = out_file.create_group(f"fold_{fold_idx}")
    for name, values in arrays.items():
        _append(group, name, values, None)


def add_meta_data(out_file: Any, layout: FoldLayout) -> None:
    """Set the names of features in a fold file.

    Args:
        out_file: Path of a file, which is then replaced as a whole; or an open file of h5py.
        layout: Which columns went where.

    Raises:
        StorageError: If the file cannot be read or written.
    """
    import h5py

    if isinstance(out_file, h5py.File):
        _write_meta(out_file, layout.meta_data())
        return
    with replacing(out_file) as temporary:
        shutil.copyfile(out_file, temporary)
        raw = PatientFile(temporary)
        with h5py.File(raw, "r+") as file:
            _write_meta(file, layout.meta_data())
        raw.close()
        raw.check()
