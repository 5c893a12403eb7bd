"""A head behind fixed scales, so that a network takes its inputs as they are measured."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffdet.core.checks import check_finite, check_positive, did_you_mean
from diffdet.core.errors import InputError
from diffdet.core.modules import register_constant
from diffdet.nn.models.blocks.head import AbsHead, AbsMatrixHead, CatEmbHead
from diffdet.nn.models.helpers import CatEmbedder
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init
from diffdet.nn.models.layers.activations import LookupAct, lookup_act

__all__ = ["StandardisedHead"]


class StandardisedHead(AbsHead):
    """Standardises continuous features, ``(x - mean) / width``, before another head sees them.

    Scales are fixed when the network is described, and saved with that description: files, exports and predictions then
    take inputs in their own units. Features without a scale, and categories, pass as they are. A mask means what it
    means to the head behind: absent objects are taken out after scaling, so they stay zero.

    Args:
        cont_feats: Names of the continuous columns, in their order.
        scales: Mean and width of a feature by its name. Features of objects go by the name of their column,
            ``jet0_pt``, or for all objects alike by that of the feature, ``pt``.
        head: Class of the head behind, or a partial.
        cat_embedder: Passed to it, as are the others.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        freeze: Whether all parameters start as not trainable.
        **kargs: Further arguments of the head.

    Raises:
        InputError: If a scale belongs to no feature, is not finite, or a width is not positive.
    """

    mean: Tensor
    width: Tensor
    object_mean: Tensor
    object_width: Tensor

    def __init__(
        self,
        cont_feats: Sequence[str],
        scales: Mapping[str, Sequence[float]],
        head: Callable[..., Any] = CatEmbHead,
        cat_embedder: CatEmbedder | None = None,
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        freeze: bool = False,
        **kargs: Any,
    ) -> None:
        super().__init__(cont_feats, cat_embedder, lookup_init=lookup_init, freeze=freeze)
        self.scales = {name: (float(mean), float(width)) for name, (mean, width) in scales.items()}
        common: dict[str, Any] = {"cat_embedder": cat_embedder, "lookup_init": lookup_init, "freeze": freeze}
        if not _fixes(head, "lookup_act") and _takes(head, "lookup_act"):
            common["lookup_act"] = lookup_act
        self.head = head(cont_feats=list(cont_feats), **(common | kargs))
        self._columns = list(cont_feats)
        self._check()
        self._set_buffers()
        for name in ("cont_feats", "cat_feats", "matrix_feats", "n_cont_in", "n_cat_in", "n_matrix_in"):
            setattr(self, name, getattr(self.head, name))
        self._map_outputs()

    @property
    def _objects(self) -> AbsMatrixHead | None:
        """The head of objects, where there is one."""
        found = getattr(self.head, "matrix_head", self.head)
        return found if isinstance(found, AbsMatrixHead) else None

    def _check(self) -> None:
        features = [] if self._objects is None else list(self._objects.feats_per_vec)
        known = [*self._columns, *features]
        for name, (mean, width) in self.scales.items():
            if name not in known:
                raise InputError(f"`scales` must name features; got {name!r}{did_you_mean(name, known)}")
            check_finite(f"scales[{name!r}][0]", mean)
            check_positive(f"scales[{name!r}][1]", width)

    def _set_buffers(self) -> None:
        """Mean and width of every flat column, and of every feature of objects in the layout of their head."""
        flat = [self._scale_of(name) for name in self._columns]
        register_constant(self, "mean", [mean for mean, _ in flat])
        register_constant(self, "width", [width for _, width in flat])
        features = [] if self._objects is None else self._objects.feats_per_vec
        cells = torch.tensor([self.scales.get(name, (0.0, 1.0)) for name in features]).reshape(-1, 2)
        row_wise = getattr(self._objects, "row_wise", False)
        shape = (1, -1) if row_wise else (-1, 1)
        for name, column in (("object_mean", cells[:, 0]), ("object_width", cells[:, 1])):
            register_constant(self, name, column.reshape(shape).to(self.mean).clone())

    def _scale_of(self, column: str) -> tuple[float, float]:
        if column in self.scales:
            return self.scales[column]
        if self._objects is not None:
            for vec in self._objects.vecs:
                feature = column.removeprefix(f"{vec}_")
                if feature != column and feature in self.scales:
                    return self.scales[feature]
        return 0.0, 1.0

    @property
    def vecs(self) -> list[str]:
        """Names of the objects; empty for heads without."""
        return [] if self._objects is None else list(self._objects.vecs)

    def _map_outputs(self) -> None:
        self.feat_map = dict(self.head.feat_map)

    def get_out_size(self) -> Any:
        """Width of the output of the head behind."""
        return self.head.get_out_size()

    def forward(self, x: Tensor | tuple[Tensor, Tensor], mask: Tensor | None = None) -> Tensor:
        """Scale the inputs and pass them on.

        Args:
            x: What the head behind takes.
            mask: (B, V), true where an object is present; None when all are.

        Returns:
            Output of the head behind.
        """
        if isinstance(x, tuple | list):
            scaled: Any = (self._flat(x[0]), self._matrix(x[1]))
        else:
            scaled = self._matrix(x) if x.ndim > 2 else self._flat(x)
        return self.head(scaled) if mask is None else self.head(scaled, mask=mask)

    def _flat(self, x: Tensor) -> Tensor:
        """Flat columns; those of a tuple are the columns that are in no cell of the matrix."""
        n_cont = len(self._columns)
        mean, width = self.mean, self.width
        if x.shape[-1] < n_cont:
            n_cont = x.shape[-1] - self.n_cat_in
            places = [k for k, name in enumerate(self._columns) if name in self.cont_feats]
            mean, width = mean[places], width[places]
        scaled = (x[:, :n_cont] - mean) / width
        return scaled if n_cont == x.shape[-1] else torch.cat([scaled, x[:, n_cont:]], 1)

    def _matrix(self, x: Tensor) -> Tensor:
        return (x - self.object_mean) / self.object_width


def _fixes(factory: Callable[..., Any], name: str) -> bool:
    """Whether a partial has set an argument already."""
    return name in getattr(factory, "keywords", {})


def _takes(factory: Callable[..., Any], name: str) -> bool:
    """Whether a class or partial names an argument."""
    return name in inspect.signature(factory).parameters
