"""Which columns of a table go where in a fold file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffdet.core.checks import check_choice
from diffdet.core.errors import InputError, ShapeError
from diffdet.nn.data._folds import Array, check_names

__all__ = ["FoldLayout"]


def _listed(names: Sequence[str] | str | None) -> list[str]:
    return [] if names is None else [names] if isinstance(names, str) else list(names)


@dataclass(frozen=True)
class FoldLayout:
    """Which columns of a table go where in a fold file.

    Attributes:
        cont_feats: Continuous features. Those that the matrix holds are left out of the flat inputs.
        cat_feats: Categorical features, integer codes.
        targ_feats: Target or targets.
        targ_type: ``"int"`` or ``"float"``.
        wgt_feat: Weight.
        misc_feats: Further columns to keep.
        cat_maps: For each categorical feature what its codes mean.
        matrix_vecs: Objects of the matrix; the cell of object v and feature f is column ``{v}_{f}``.
        matrix_feats_per_vec: Features of the objects.
        matrix_row_wise: Whether an object is a row of the matrix.
        tensor_name: Name of a matrix that is given as an array instead.
    """

    cont_feats: Sequence[str]
    cat_feats: Sequence[str] = ()
    targ_feats: Sequence[str] | str = ()
    targ_type: str = "float"
    wgt_feat: str | None = None
    misc_feats: Sequence[str] | None = None
    cat_maps: Mapping[str, Mapping[int, Any]] | None = None
    matrix_vecs: Sequence[str] | None = None
    matrix_feats_per_vec: Sequence[str] | None = None
    matrix_row_wise: bool = True
    tensor_name: str | None = None
    _kept: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice("targ_type", self.targ_type, ("int", "float"))
        if (self.matrix_vecs is None) != (self.matrix_feats_per_vec is None):
            raise InputError("`matrix_vecs` and `matrix_feats_per_vec` must be given together; got one of them")
        check_names("cat_maps", list(self.cat_maps or {}), list(self.cat_feats))

    @property
    def cells(self) -> list[str]:
        """Name of every cell of the matrix, in the order of the matrix."""
        vecs, feats = list(self.matrix_vecs or ()), list(self.matrix_feats_per_vec or ())
        if self.matrix_row_wise:
            return [f"{v}_{f}" for v in vecs for f in feats]
        return [f"{v}_{f}" for f in feats for v in vecs]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        n_vecs, n_feats = len(self.matrix_vecs or ()), len(self.matrix_feats_per_vec or ())
        return (n_vecs, n_feats) if self.matrix_row_wise else (n_feats, n_vecs)

    @property
    def flat_feats(self) -> list[str]:
        """Continuous features of the flat inputs."""
        cells = set() if self.tensor_name else set(self.cells)
        return [name for name in self.cont_feats if name not in cells]

    def arrays(self, table: Any, tensor: Any = None, mask: Any = None) -> dict[str, Array]:
        """The arrays of a fold file, from columns.

        Args:
            table: Mapping of names to columns, or a DataFrame of pandas.
            tensor: The matrix, (sample, row, column), instead of columns.
            mask: Which objects exist, (sample, object). Without, objects whose features are all NaN do not.

        Raises:
            InputError: If a column is not there, or consists of something that its place does not take.
            ShapeError: If a column is of another length.
        """
        known = [str(name) for name in (table.columns if hasattr(table, "columns") else table)]
        flat_names = self.flat_feats + list(self.cat_feats)
        target_names, misc = _listed(self.targ_feats), _listed(self.misc_feats)
        for name, names in (
            ("cont_feats", self.flat_feats),
            ("cat_feats", self.cat_feats),
            ("targ_feats", target_names),
            ("misc_feats", misc),
            ("wgt_feat", _listed(self.wgt_feat)),
        ):
            check_names(name, list(names), known)
        n = _length(table, known, tensor)
        taken = {name: _column(table, name, n) for name in dict.fromkeys(flat_names + target_names + misc)}
        arrays: dict[str, Array] = {}
        if flat_names:
            for name in self.cat_feats:
                _check_codes(name, taken[name])
            arrays["inputs"] = np.stack([taken[name].astype(np.float32) for name in flat_names], axis=1)
        if target_names:
            targets = np.stack([taken[name] for name in target_names], axis=1)
            if not np.isfinite(targets).all():
                raise InputError(f"`targ_feats` must be finite; {int((~np.isfinite(targets)).sum())} values are not")
            targets = targets.astype(np.int64 if self.targ_type == "int" else np.float32)
            arrays["targets"] = targets[:, 0] if len(target_names) == 1 else targets
        if self.wgt_feat is not None:
            weights = _column(table, self.wgt_feat, n).astype(np.float32)
            if not np.isfinite(weights).all():
                raise InputError(f"`wgt_feat` must be finite; {int((~np.isfinite(weights)).sum())} of {n} are not")
            arrays["weights"] = weights
        matrix = self._matrix(table, known, n, tensor)
        if matrix is not None:
            arrays["matrix_inputs"] = matrix
            object_axis = 1 if self.matrix_row_wise else 2
            if mask is None and matrix.ndim == 3:
                mask = ~np.isnan(matrix).all(axis=3 - object_axis)
            if mask is not None:
                mask = np.asarray(mask).astype(bool)
                if mask.shape != (n, matrix.shape[object_axis]):
                    expected = (n, matrix.shape[object_axis])
                    raise ShapeError(f"`mask` must have shape (sample, object) = {expected}; got {mask.shape}")
                arrays["matrix_mask"] = mask
        return arrays | {name: taken[name] for name in misc}

    def _matrix(self, table: Any, known: list[str], n: int, tensor: Any) -> Array | None:
        if tensor is not None:
            matrix = np.asarray(tensor, dtype=np.float32)
            if matrix.ndim < 3 or len(matrix) != n:
                raise ShapeError(f"`tensor_data` must have shape ({n}, row, column); got {matrix.shape}")
            self._kept.update(shape=list(matrix.shape[1:]), present=[])
            return matrix
        if self.matrix_vecs is None:
            return None
        present = [name for name in self.cells if name in known]
        if not present:
            raise InputError(f"`matrix_vecs` must name objects of the table; it has no column {self.cells[0]!r}")
        nothing = np.full(n, np.nan, dtype=np.float32)
        cells = [_column(table, name, n).astype(np.float32) if name in known else nothing for name in self.cells]
        self._kept.update(shape=list(self.shape), present=present)
        return np.stack(cells, axis=1).reshape(n, *self.shape)

    def meta_data(self) -> dict[str, Any]:
        """The meta data, after `arrays` has seen a table."""
        meta: dict[str, Any] = {
            "cont_feats": self.flat_feats,
            "cat_feats": list(self.cat_feats),
            "targ_feats": _listed(self.targ_feats),
            "wgt_feat": self.wgt_feat,
            "cat_maps": {name: {int(k): v for k, v in codes.items()} for name, codes in (self.cat_maps or {}).items()},
        }
        if self.matrix_vecs is not None or self.tensor_name is not None:
            present = self._kept.get("present") or self.cells or [self.tensor_name]
            meta["matrix_feats"] = {
                "present_feats": present,
                "vecs": list(self.matrix_vecs or ()),
                "feats_per_vec": list(self.matrix_feats_per_vec or ()),
                "missing": [] if self.tensor_name else [k for k, cell in enumerate(self.cells) if cell not in present],
                "row_wise": self.matrix_row_wise,
                "shape": self._kept.get("shape", list(self.shape)),
                "is_sparse": False,
            }
        return meta


def _length(table: Any, known: list[str], tensor: Any) -> int:
    if known:
        return max(len(table[name]) for name in known)
    if tensor is None:
        raise InputError("`df` must have columns; got none")
    return len(tensor)


def _column(table: Any, name: str, n: int) -> Array:
    """A column of numbers."""
    values = table[name]
    values = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
    if values.dtype.kind not in "biuf":
        kind = f"values such as {values.reshape(-1)[0]!r}" if values.size else f"dtype {values.dtype}"
        raise InputError(f"column `{name}` must consist of numbers; got {kind}. Code categories with `proc_cats`")
    if values.shape != (n,):
        raise ShapeError(f"column `{name}` must have one value for each of the {n} samples; got shape {values.shape}")
    return values


def _check_codes(name: str, codes: Array) -> None:
    bad = ~np.isfinite(codes) | (codes < 0) | (codes != np.floor(codes))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"category `{name}` must consist of whole numbers from 0 on; {int(bad.sum())} of {len(codes)} do not, "
            f"the first is sample {first}: {codes[first]}. Code them with `proc_cats`"
        )
