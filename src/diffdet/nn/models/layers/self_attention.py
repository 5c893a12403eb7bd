"""Self-attention among the objects of an event: one head, every object with every other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffdet.core.checks import check_shape
from diffdet.core.errors import InputError
from diffdet.kernels.attention import offset_weights, scaled_weights
from diffdet.nn.models.blocks._dense import BatchNormClass, dense_layer, linear
from diffdet.nn.models.blocks.abs_block import check_count
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init
from diffdet.nn.models.layers.activations import LookupAct, lookup_act


class SelfAttention(nn.Module):
    """Adds to every object what it learns from the others: x + g(softmax(q k / sqrt(n_a)) v).

    q, k and v are linear in x; g is a dense layer: Linear, activation, batch norm, dropout.

    Source: A. Vaswani et al., "Attention is all you need", arXiv:1706.03762, section 3.2.1.

    Args:
        n_fpv: Features of an object.
        n_a: Width of queries and keys.
        do: Dropout rate of g; 0 or None for none.
        bn: Whether g has a batch norm.
        act: Name of the activation of g.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        bn_class: Number of channels -> batch norm.

    Raises:
        InputError: If a size is below 1, the activation unknown, or the rate outside [0, 1).
    """

    def __init__(
        self,
        n_fpv: int,
        n_a: int,
        do: float | None = 0,
        bn: bool = False,
        act: str = "relu",
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        bn_class: BatchNormClass = nn.BatchNorm1d,
    ) -> None:
        super().__init__()
        self.n_fpv, self.n_a = check_count("n_fpv", n_fpv), check_count("n_a", n_a)
        self.q = linear(n_fpv, n_a, act="linear", lookup_init=lookup_init)
        self.k = linear(n_fpv, n_a, act="linear", lookup_init=lookup_init)
        self.v = linear(n_fpv, n_fpv, act="linear", lookup_init=lookup_init)
        self.out = dense_layer(
            n_fpv,
            n_fpv,
            act=act,
            bn=bn,
            do=do,
            lookup_init=lookup_init,
            lookup_act=lookup_act,
            bn_class=bn_class,
            objects=True,
        )

    def _attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """What goes into the dense layer: (batch, ..., object, n_fpv)."""
        return scaled_weights(self.q(x), self.k(x), mask) @ self.v(x)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Let the objects of each event attend to each other.

        Args:
            x: (batch, ..., object, n_fpv).
            mask: (batch, ..., object), true for objects that are there; by default all. The others do not influence
                them, whatever their features are, and come out as zero.

        Returns:
            Tensor of the same shape.

        Raises:
            ShapeError: If x or the mask has another shape.
            InputError: If the mask is not boolean.
        """
        check_shape("x", x, f"*batch object {self.n_fpv}")
        if mask is None:
            return x + self.out(self._attend(x, None))
        check_shape("mask", mask, " ".join(map(str, x.shape[:-1])))
        if mask.dtype is not torch.bool:
            raise InputError(f"`mask` must be boolean, true for objects that are there; got {mask.dtype}")
        x = x.masked_fill(~mask.unsqueeze(-1), 0)
        return (x + self.out(self._attend(x, mask), mask)).masked_fill(~mask.unsqueeze(-1), 0)

    def get_out_size(self) -> int:
        """Features of an object, which do not change in number."""
        return self.n_fpv


class OffsetSelfAttention(SelfAttention):
    """Adds to every object what it differs by from what it attends to: x + g(x - A v).

    A is the softmax of q k over the queries, unscaled, with rows divided by their sums.

    Source: M.-H. Guo et al., "PCT: point cloud transformer", arXiv:2012.09688, section 3.3.

    Args:
        n_fpv: Features of an object.
        n_a: Width of queries and keys.
        do: Dropout rate of g; 0 or None for none.
        bn: Whether g has a batch norm.
        act: Name of the activation of g.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        bn_class: Number of channels -> batch norm.
    """

    def _attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return x - offset_weights(self.q(x), self.k(x), mask) @ self.v(x)
