"""Heads for objects: from flat columns named `{object}_{feature}` to a matrix, absent objects told by a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffdet.core.errors import InputError, ShapeError
from diffdet.core.words import nearest
from diffdet.nn.models.blocks._head.base import AbsHead, HeadInput, check_flat, names, refuse_unknown
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init
from diffdet.nn.models.layers.activations import LookupAct, lookup_act


class AbsMatrixHead(AbsHead):
    """A head whose input is a matrix of V objects with P features each.

    Input is either

    * flat, (B, F), one column for each of `cont_feats`; column `jet0_pt` becomes feature `pt` of object `jet0`, columns
      that are in no cell of the matrix are left out;
    * a matrix in the layout of the head: row-wise (B, V, P) or column-wise (B, P, V);
    * a tuple (flat, matrix), of which the matrix is taken.

    Cells without a column, such as the z component of missing energy, are zero, in a matrix that is handed over, too.
    The older package left those as they came, and files that store NaN there gave NaN.

    A mask (B, V) says which objects are present. Absent ones are as if they were not there: what stands in their place,
    NaN included, has no influence on output, gradients or the statistics of batch norms.

    Args:
        cont_feats: Names of the flat columns, in their order.
        vecs: Names of the objects.
        feats_per_vec: Names of the features of an object.
        row_wise: Whether the head works on (B, V, P) rather than on (B, P, V).
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        freeze: Whether all parameters start as not trainable.
        **kargs: Arguments that builders hand to all heads; others are refused.

    Attributes:
        n_v: V, number of objects.
        n_fpv: P, number of features an object.
        lookup: For every cell of the matrix in its layout, the column that it comes from; F where there is none.
        missing: For every cell of the matrix in its layout, whether it has no column.

    Raises:
        InputError: If a name stands twice, `row_wise` is neither true nor false, no column fits any cell, or an object
            or feature without any column looks like a misspelt one.
    """

    lookup: Tensor
    missing: Tensor

    def __init__(
        self,
        cont_feats: Sequence[str],
        vecs: Sequence[str],
        feats_per_vec: Sequence[str],
        row_wise: bool = True,
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        freeze: bool = False,
        **kargs: Any,
    ) -> None:
        super().__init__(cont_feats, lookup_init=lookup_init, freeze=freeze)
        refuse_unknown(self, kargs)
        if not isinstance(row_wise, bool):
            raise InputError(f"`row_wise` must be True for (B, objects, features) or False for (B, features, objects); "
                             f"got {row_wise!r}")  # fmt: skip
        self.vecs, self.feats_per_vec = names("vecs", vecs), names("feats_per_vec", feats_per_vec)
        if not self.vecs or not self.feats_per_vec:
            raise InputError("`vecs` and `feats_per_vec` must each hold at least one name")
        self.row_wise, self.lookup_act = row_wise, lookup_act
        self.n_v, self.n_fpv = len(self.vecs), len(self.feats_per_vec)
        self.matrix_feats, self.n_matrix_in = list(self.cont_feats), len(self.cont_feats)
        self._fill_cells()

    def _fill_cells(self) -> None:
        """Find the column of every cell."""
        column = {name: k for k, name in enumerate(self.cont_feats)}
        cells = [[f"{vec}_{feat}" for feat in self.feats_per_vec] for vec in self.vecs]
        taken = {name for row in cells for name in row} & set(column)
        spare = [name for name in self.cont_feats if name not in taken]
        groups = [("vecs", vec, row) for vec, row in zip(self.vecs, cells, strict=True)]
        groups += [("feats_per_vec", feat, [row[k] for row in cells]) for k, feat in enumerate(self.feats_per_vec)]
        for argument, name, group in groups:
            if taken.isdisjoint(group) and (not taken or any(nearest(cell, spare) for cell in group)):
                near = next(((cell, found) for cell in group if (found := nearest(cell, spare))), None)
                hint = f". Is {near[1]!r} meant for {near[0]!r}?" if near else ""
                raise InputError(f"`cont_feats` has no column for {name!r} of `{argument}`, which would be called "
                                 f"{group[0]!r} and so on{hint}")  # fmt: skip
        ordered = cells if self.row_wise else [list(row) for row in zip(*cells, strict=True)]
        shape = (len(ordered), len(ordered[0]))
        none = len(self.cont_feats)
        lookup = torch.tensor([column.get(name, none) for row in ordered for name in row], dtype=torch.int64)
        self.register_buffer("lookup", lookup, persistent=False)
        self.register_buffer("missing", (lookup == none).reshape(shape), persistent=False)
        self._any_missing = len(taken) < self.n_v * self.n_fpv

    def get_matrix(self, x: HeadInput, mask: Tensor | None = None) -> Tensor:
        """The matrix of objects, with zeros in the place of absent objects and of cells without a column.

        Args:
            x: Flat columns (B, F), the matrix in the layout of the head, or a tuple of both.
            mask: (B, V), true where an object is present; None when all are.

        Returns:
            (B, V, P) for a row-wise head, (B, P, V) for a column-wise one.

        Raises:
            ShapeError: If a shape does not fit.
            InputError: If the mask holds no truth values.
        """
        matrix = x[1] if isinstance(x, tuple | list) else x
        if matrix.ndim <= 2:
            check_flat(matrix, self.cont_feats)
            if self._any_missing:
                matrix = torch.cat([matrix, torch.zeros_like(matrix[:, :1])], 1)
            matrix = matrix[:, self.lookup].reshape(-1, *self.missing.shape)
        else:
            if matrix.ndim != 3 or matrix.shape[1:] != self.missing.shape:
                order = "objects, features" if self.row_wise else "features, objects"
                raise ShapeError(f"`x` must be a matrix of shape (batch, {order}) = (batch, {self.missing.shape[0]}, "
                                 f"{self.missing.shape[1]}); got {tuple(matrix.shape)}")  # fmt: skip
            if self._any_missing:
                matrix = torch.where(self.missing, torch.zeros_like(matrix), matrix)
        if mask is None:
            return matrix
        self.check_mask(mask, matrix.shape[0])
        return torch.where(mask[:, :, None] if self.row_wise else mask[:, None, :], matrix, torch.zeros_like(matrix))

    def check_mask(self, mask: Tensor, batch: int) -> None:
        """Refuse a mask that does not fit.

        Args:
            mask: What was given.
            batch: Number of events.

        Raises:
            InputError: If it holds no truth values.
            ShapeError: If it is not (batch, V).
        """
        if mask.dtype is not torch.bool:
            raise InputError(f"`mask` must hold truth values, true where an object is present; got dtype {mask.dtype}")
        if mask.ndim != 2 or mask.shape[1] != self.n_v or mask.shape[0] != batch:
            raise ShapeError(
                f"`mask` must have shape (batch, objects) = ({batch}, {self.n_v}); got {tuple(mask.shape)}"
            )

    def _map_outputs(self) -> None:
        """Every feature influences every output."""
        size = self.get_out_size()
        width = size[0] * size[1] if isinstance(size, tuple) else size
        self.feat_map = {name: list(range(width)) for name in self.cont_feats}
