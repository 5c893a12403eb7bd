"""From the features of objects to those of the event, or to a prediction for every object."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffdet.core.errors import InputError
from diffdet.kernels.graphs import clear_absent
from diffdet.nn.models.blocks._dense import BatchNormClass, DenseStack, activation, linear
from diffdet.nn.models.blocks._graph.base import AbsGraphBlock, aggregate, check_aggregates, with_means
from diffdet.nn.models.blocks._graph.interaction import check_widths
from diffdet.nn.models.blocks.abs_block import check_count
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init
from diffdet.nn.models.layers.activations import LookupAct, lookup_act
from diffdet.nn.models.layers.self_attention import SelfAttention


class AbsGraphCollapser(AbsGraphBlock):
    """A graph block that stands last: a row of features an event, or predictions."""

    @abstractmethod
    def get_out_size(self) -> Any:
        """Width of the output, or its shape without the batch axis."""


class GraphCollapser(AbsGraphCollapser):
    """Dense layers, self-attention, dense layers, then objects flattened or aggregated. Objects are rows, (B, V, P).

    Each stage is left out unless asked for. Layers of self-attention follow each other; the outputs of all are
    handed on together.

    Args:
        n_v: V, number of objects.
        n_fpv: P, number of features of an object.
        flatten: Whether to put all objects side by side, object by object, instead of aggregating them.
        f_initial_outs: Widths of dense layers that come first; None for none.
        n_sa_layers: Number of layers of self-attention.
        sa_width: Width of their queries and keys.
        f_final_outs: Widths of dense layers that come last; None for none.
        global_feat_vec: Whether to append the mean of every feature over objects to each object, before the first
            stage that exists.
        agg_methods: Aggregates over objects, from ``mean``, ``max``, ``absmax`` and ``sum``.
        do: Dropout rate in all dense layers.
        bn: Whether all dense layers have a batch norm.
        act: Name of the activation of all dense layers, the last ones included.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        bn_class: Number of channels -> batch norm.

    Raises:
        InputError: As `AbsGraphBlock`; if there is self-attention but no width for it, or an aggregate is unknown.
    """

    def __init__(
        self,
        n_v: int,
        n_fpv: int,
        flatten: bool,
        f_initial_outs: Sequence[int] | None = None,
        n_sa_layers: int = 0,
        sa_width: int | None = None,
        f_final_outs: Sequence[int] | None = None,
        global_feat_vec: bool = False,
        agg_methods: Sequence[str] | str = ("mean", "max"),
        do: float = 0,
        bn: bool = False,
        act: str = "relu",
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        bn_class: BatchNormClass = nn.BatchNorm1d,
    ) -> None:
        super().__init__(n_v, n_fpv, do, bn, act, lookup_init, lookup_act, bn_class)
        self.flatten, self.global_feat_vec = flatten, global_feat_vec
        self.n_sa_layers = check_count("n_sa_layers", n_sa_layers, low=0)
        if self.n_sa_layers and sa_width is None:
            raise InputError(f"`sa_width` must be given with `n_sa_layers` = {n_sa_layers}")
        self.agg_methods = check_aggregates("agg_methods", agg_methods)
        width = self.n_fpv * (2 if global_feat_vec else 1)
        self.f_inital: DenseStack | None = None  # spelled as in the older package, whose weights have this key
        self.f_final: DenseStack | None = None
        if f_initial_outs:
            widths = check_widths("f_initial_outs", f_initial_outs)
            self.f_inital, width = self.dense(width, widths), widths[-1]
        sa: dict[str, Any] = self.settings()
        self.sa_layers = nn.ModuleList(SelfAttention(width, sa_width or width, **sa) for _ in range(self.n_sa_layers))
        width *= max(1, self.n_sa_layers)
        if f_final_outs:
            widths = check_widths("f_final_outs", f_final_outs)
            self.f_final, width = self._final(width, widths), widths[-1]
        self.width = width

    def _final(self, n_in: int, widths: list[int]) -> DenseStack:
        """The dense layers that come last."""
        return self.dense(n_in, widths)

    def objects(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Objects behind all stages, not yet flattened or aggregated.

        Args:
            x: (B, V, P), objects.
            mask: (B, V), true where an object is present; None when all are.

        Returns:
            (B, V, width); zeros for absent objects.
        """
        x = self.rows(x, mask)
        if self.global_feat_vec:
            x = clear_absent(with_means(x, mask), mask)
        if self.f_inital is not None:
            x = clear_absent(self.f_inital(x, mask), mask)
        if self.n_sa_layers:
            found = []
            for layer in self.sa_layers:
                x = layer(x, mask)
                found.append(x)
            x = torch.cat(found, -1)
        if self.f_final is not None:
            x = clear_absent(self.f_final(x, mask), mask)
        return x

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pass the objects through all stages, and flatten or aggregate them.

        Args:
            x: (B, V, P), objects.
            mask: (B, V), true where an object is present; None when all are.

        Returns:
            (B, width).
        """
        x = self.objects(x, mask)
        return x.flatten(1) if self.flatten else aggregate(x, mask, self.agg_methods)

    def get_out_size(self) -> int:
        """Width of the output."""
        return self.width * (self.n_v if self.flatten else len(self.agg_methods))


class _LinearLast(DenseStack):
    """Dense layers, the last one without anything behind its linear map."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for layer in self:
            x = layer(x) if isinstance(layer, nn.Linear) else layer(x, mask)
        return x


class NodePredictor(GraphCollapser):
    """A prediction for every object: the stages of `GraphCollapser` without flattening or aggregates.

    The last dense layer has no activation of its own, batch norm or dropout; `out_act` follows it.

    Args:
        n_v: V, number of objects.
        n_fpv: P, number of features of an object.
        f_final_outs: Widths of the dense layers that come last; the last one is the number of predictions an object.
        out_act: Name of the activation of predictions. ``softmax`` and ``logsoftmax`` go over axis 1: over predictions
            if transposed, else over objects, of which absent ones get no share.
        transpose_out: Whether to return predictions before objects.
        f_initial_outs: Widths of dense layers that come first; None for none.
        n_sa_layers: Number of layers of self-attention.
        sa_width: Width of their queries and keys.
        global_feat_vec: Whether to append the mean of every feature over objects to each object.
        do: Dropout rate in all dense layers but the last.
        bn: Whether all dense layers but the last have a batch norm.
        act: Name of the activation of all dense layers but the last.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        bn_class: Number of channels -> batch norm.

    Raises:
        InputError: As `GraphCollapser`; if there is no last dense layer, or `out_act` is unknown.
    """

    def __init__(
        self,
        n_v: int,
        n_fpv: int,
        f_final_outs: Sequence[int],
        out_act: str = "linear",
        transpose_out: bool = False,
        f_initial_outs: Sequence[int] | None = None,
        n_sa_layers: int = 0,
        sa_width: int | None = None,
        global_feat_vec: bool = False,
        do: float = 0,
        bn: bool = False,
        act: str = "relu",
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        bn_class: BatchNormClass = nn.BatchNorm1d,
    ) -> None:
        self._last_act = out_act
        super().__init__(
            n_v, n_fpv, False, f_initial_outs, n_sa_layers, sa_width, check_widths("f_final_outs", f_final_outs),
            global_feat_vec, ("mean",), do, bn, act, lookup_init, lookup_act, bn_class,
        )  # fmt: skip
        self.transpose_out = transpose_out
        self.out_act = activation(out_act, lookup_act)

    def _final(self, n_in: int, widths: list[int]) -> DenseStack:
        stack = _LinearLast(*self.dense(n_in, widths[:-1]))
        n_in = widths[-2] if len(widths) > 1 else n_in
        # Weights for the activation that follows in the end; the layer itself is linear.
        return stack.append(linear(n_in, widths[-1], act=self._last_act, lookup_init=self.lookup_init))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Predict for every object.

        Args:
            x: (B, V, P), objects.
            mask: (B, V), true where an object is present; None when all are.

        Returns:
            (B, V, predictions), transposed (B, predictions, V); zeros for absent objects.
        """
        x = self.objects(x, mask)
        over_objects = isinstance(self.out_act, nn.Softmax | nn.LogSoftmax) and not self.transpose_out
        if mask is not None and over_objects:
            lowest = torch.full_like(x, torch.finfo(x.dtype).min)
            x = torch.where(mask[..., None], x, lowest)
        present = None if mask is None else mask[..., None]
        if self.transpose_out:
            x, present = x.transpose(1, 2), None if mask is None else mask[:, None]
        x = x if self.out_act is None else self.out_act(x)
        return x if present is None else torch.where(present, x, torch.zeros_like(x))

    def get_out_size(self) -> tuple[int, int]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Shape of the output without the batch axis."""
        return (self.width, self.n_v) if self.transpose_out else (self.n_v, self.width)
