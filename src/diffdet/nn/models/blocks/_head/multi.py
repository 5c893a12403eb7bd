"""Two heads side by side: one for flat columns, one for objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import InputError
from diffdet.nn.models.blocks._head.base import (
    SHARED_ARGUMENTS,
    AbsHead,
    HeadInput,
    check_flat,
    named_parameters_of,
    preset,
)
from diffdet.nn.models.blocks._head.categorical import CatEmbHead
from diffdet.nn.models.blocks._head.matrix import AbsMatrixHead
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init

if TYPE_CHECKING:
    from diffdet.nn.models.helpers import CatEmbedder


class MultiHead(AbsHead):
    """A head for flat and categorical columns beside a head for objects; their outputs are put side by side.

    Of `cont_feats`, those that name a cell ``{object}_{feature}`` of the matrix go to the matrix head, the others to
    the flat head. Input is either flat, with the columns `cont_feats` and then the categorical ones, from which each
    head gets its own; or a tuple (flat, matrix), with the flat continuous columns and then the categorical ones, and
    the matrix in the layout of its head.

    Args:
        cont_feats: Names of the continuous columns, cells of the matrix among them, in the order of the input.
        matrix_head: What makes the matrix head, best a `functools.partial` that has set `vecs` and `feats_per_vec`.
        flat_head: What makes the flat head.
        cat_embedder: Names, cardinalities and embedding widths of the categorical columns; None when there are none.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        freeze: Whether all parameters of both heads start as not trainable.
        **kargs: More arguments; each head gets those that it has.

    Attributes:
        flat_head: The head for flat columns.
        matrix_head: The head for objects.
        cont_feats: Names of the flat continuous columns.
        matrix_feats: Names of the columns that are cells of the matrix.

    Raises:
        InputError: If the matrix head is not told `vecs` and `feats_per_vec`, no feature belongs to one of the heads,
            or an argument is none of either head.
    """

    def __init__(
        self,
        cont_feats: Sequence[str],
        matrix_head: Callable[..., AbsMatrixHead],
        flat_head: Callable[..., AbsHead] = CatEmbHead,
        cat_embedder: CatEmbedder | None = None,
        lookup_init: LookupInit = lookup_normal_init,
        freeze: bool = False,
        **kargs: Any,
    ) -> None:
        super().__init__(cont_feats, cat_embedder, lookup_init=lookup_init, freeze=freeze)
        columns = list(self.cont_feats)
        known = {**preset(matrix_head), **kargs}
        if missing := [name for name in ("vecs", "feats_per_vec") if name not in known]:
            raise InputError(f"`matrix_head` must be told {' and '.join(f'`{name}`' for name in missing)}: "
                             "functools.partial(InteractionNet, vecs=[...], feats_per_vec=[...], ...)")  # fmt: skip
        cells = {f"{vec}_{feat}" for vec in known["vecs"] for feat in known["feats_per_vec"]}
        self.matrix_feats = [name for name in columns if name in cells]
        self.cont_feats = [name for name in columns if name not in cells]
        self.n_matrix_in, self.n_cont_in = len(self.matrix_feats), len(self.cont_feats)
        self._columns = [*columns, *self.cat_feats]
        if not self.matrix_feats:
            raise InputError(f"`cont_feats` has no feature for `matrix_head`, such as {min(cells)!r}")
        if not self.cont_feats + self.cat_feats:
            raise InputError("`cont_feats` has no feature for `flat_head`: all are in the matrix, use its head alone")
        of_flat, of_matrix = _share(kargs, flat_head, matrix_head)
        common: dict[str, Any] = {"lookup_init": lookup_init, "freeze": freeze}
        self.flat_head = flat_head(cont_feats=self.cont_feats, cat_embedder=cat_embedder, **common, **of_flat)
        self.matrix_head = matrix_head(cont_feats=self.matrix_feats, cat_embedder=None, **common, **of_matrix)
        place = {name: k for k, name in enumerate(self._columns)}
        flat = [place[name] for name in (*self.cont_feats, *self.cat_feats)]
        self.register_buffer("flat_lookup", torch.tensor(flat), persistent=False)
        matrix = [place[name] for name in self.matrix_feats]
        self.register_buffer("matrix_lookup", torch.tensor(matrix), persistent=False)
        self.flat_lookup: Tensor
        self.matrix_lookup: Tensor
        self._map_outputs()

    def _map_outputs(self) -> None:
        shift = self.flat_head.get_out_size()
        self.feat_map = {name: list(columns) for name, columns in self.flat_head.feat_map.items()}
        for name, columns in self.matrix_head.feat_map.items():
            self.feat_map[name] = [column + shift for column in columns]

    def get_out_size(self) -> int:
        """Width of the output."""
        size = self.matrix_head.get_out_size()
        return self.flat_head.get_out_size() + (size[0] * size[1] if isinstance(size, tuple) else size)

    def forward(self, x: HeadInput, mask: Tensor | None = None) -> Tensor:
        """Pass each head its part of the input.

        Args:
            x: Flat columns (B, F), or a tuple (flat, matrix).
            mask: (B, V), true where an object is present; None when all are. For the matrix head.

        Returns:
            (B, width), the output of the flat head, then that of the matrix head.

        Raises:
            ShapeError: If a shape does not fit.
        """
        if isinstance(x, tuple | list):
            flat, matrix = x
        else:
            check_flat(x, self._columns)
            flat, matrix = x[:, self.flat_lookup], x[:, self.matrix_lookup]
        return torch.cat([self.flat_head(flat), self.matrix_head(matrix, mask).flatten(1)], 1)


def _share(
    given: dict[str, Any], flat_head: Callable[..., Any], matrix_head: Callable[..., Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments for each of two heads: those that it names, and those that it alone would take under any name."""
    (flat, flat_any), (matrix, matrix_any) = named_parameters_of(flat_head), named_parameters_of(matrix_head)
    for name in given:
        if name not in flat | matrix | set(SHARED_ARGUMENTS) and not (flat_any or matrix_any):
            hint = did_you_mean(name, flat | matrix)
            raise InputError(f"`{name}` is an argument of neither head{hint}")
    return (
        {name: value for name, value in given.items() if name in flat or (flat_any and name not in matrix)},
        {name: value for name, value in given.items() if name in matrix or (matrix_any and name not in flat)},
    )
