"""What every graph block is: objects in, objects out, and a mask of those that are present."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from diffdet.core.checks import check_choice, check_in_range, check_shape
from diffdet.core.errors import InputError, ShapeError
from diffdet.kernels.graphs import absmax_present, clear_absent, max_present, mean_present, sum_present
from diffdet.nn.models.blocks._dense import BatchNormClass, DenseStack, dense_stack
from diffdet.nn.models.blocks.abs_block import check_count
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init
from diffdet.nn.models.layers.activations import LookupAct, check_act, lookup_act

AGGREGATORS = {"mean": mean_present, "max": max_present, "absmax": absmax_present, "sum": sum_present}
"""Name of an aggregate -> function of features (..., object, feature) and a mask."""


class AbsGraphBlock(nn.Module, ABC):
    """A block that works on the objects of events.

    Args:
        n_v: V, number of objects.
        n_fpv: P, number of features of an object.
        do: Dropout rate in all dense layers.
        bn: Whether all dense layers have a batch norm, over objects or pairs that exist.
        act: Name of the activation of all dense layers.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        bn_class: Number of channels -> batch norm.

    Attributes:
        row_wise: Whether objects are rows, (B, V, P), rather than columns, (B, P, V).

    Raises:
        InputError: If a number is below 1, the rate outside [0, 1), or the activation unknown.
    """

    row_wise: bool = True

    def __init__(
        self,
        n_v: int,
        n_fpv: int,
        do: float = 0,
        bn: bool = False,
        act: str = "relu",
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        bn_class: BatchNormClass = nn.BatchNorm1d,
    ) -> None:
        super().__init__()
        self.n_v, self.n_fpv = check_count("n_v", n_v), check_count("n_fpv", n_fpv)
        check_in_range("do", do or 0, 0, 1, high_open=True)
        if lookup_act is _HOUSE_LOOKUP:
            check_act("act", act)
        self.do, self.bn, self.act = do or 0, bn, act
        self.lookup_init, self.lookup_act, self.bn_class = lookup_init, lookup_act, bn_class

    @abstractmethod
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pass objects through the block.

        Args:
            x: Objects, in the layout that `row_wise` says.
            mask: (B, V), true where an object is present; None when all are.
        """

    @abstractmethod
    def get_out_size(self) -> Any:
        """Width of the output, or (objects, features)."""

    def settings(self, **other: Any) -> dict[str, Any]:
        """What the block hands to its parts.

        Args:
            **other: Settings that differ for a part.
        """
        own = {"do": self.do, "bn": self.bn, "act": self.act, "lookup_init": self.lookup_init}
        return own | {"lookup_act": self.lookup_act, "bn_class": self.bn_class} | other

    def dense(self, n_in: int, widths: list[int], **other: Any) -> DenseStack:
        """Dense layers over the features of objects.

        Args:
            n_in: Width of the input.
            widths: Widths of the layers.
            **other: Settings that differ from those of the block.
        """
        return dense_stack(n_in, widths, **self.settings(**other), objects=True)

    def rows(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Objects as rows, zeros in the place of absent ones.

        Args:
            x: Objects, in the layout that `row_wise` says.
            mask: (B, V), true where an object is present; None when all are.

        Returns:
            (B, V, P).

        Raises:
            ShapeError: If a shape does not fit.
            InputError: If the mask holds no truth values.
        """
        check_shape("x", x, f"batch {self.n_v} {self.n_fpv}" if self.row_wise else f"batch {self.n_fpv} {self.n_v}")
        if mask is not None:
            if mask.dtype is not torch.bool:
                raise InputError(f"`mask` must hold truth values, true where an object is present; "
                                 f"got dtype {mask.dtype}")  # fmt: skip
            if mask.ndim != 2 or mask.shape[1] != self.n_v or mask.shape[0] != x.shape[0]:
                raise ShapeError(f"`mask` must have shape ({x.shape[0]}, {self.n_v}); got {tuple(mask.shape)}")
        return clear_absent(x if self.row_wise else x.transpose(1, 2), mask)


_HOUSE_LOOKUP = lookup_act


class AbsGraphFeatExtractor(AbsGraphBlock):
    """A graph block that gives every object new features."""

    @abstractmethod
    def get_out_size(self) -> tuple[int, int]:
        """Numbers of objects and of features of each."""


def with_means(x: Tensor, mask: Tensor | None) -> Tensor:
    """Every object with the mean of each feature over all objects appended.

    Args:
        x: (B, V, P).
        mask: (B, V), true where an object is present; None when all are.

    Returns:
        (B, V, 2 P): features, then means; the means stand at absent objects, too.
    """
    return torch.cat([x, mean_present(x, mask)[:, None].expand_as(x)], -1)


def check_aggregates(name: str, given: Any) -> list[str]:
    """Refuse aggregates that do not exist.

    Args:
        name: Name of the argument, for the message.
        given: Names of aggregates.

    Returns:
        The names in lower case.

    Raises:
        InputError: If there is none, or a name is unknown.
    """
    found = [given] if isinstance(given, str) else list(given)
    if not found:
        raise InputError(f"`{name}` must hold at least one of {', '.join(map(repr, AGGREGATORS))}")
    lower = [one.lower() if isinstance(one, str) else one for one in found]
    for one in lower:
        check_choice(name, one, AGGREGATORS)
    return lower


def aggregate(x: Tensor, mask: Tensor | None, methods: list[str]) -> Tensor:
    """Aggregates over the last axis but one, side by side.

    Args:
        x: (..., object, feature).
        mask: (..., object), true where an object is present; None when all are.
        methods: Names of aggregates.

    Returns:
        (..., feature times number of methods), method by method.
    """
    return torch.cat([AGGREGATORS[method](x, mask) for method in methods], -1)
