"""GravNet: messages from the nearest objects in a space that is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffdet.core.errors import InputError
from diffdet.kernels.graphs import clear_absent, gather_objects, gravity, nearest
from diffdet.nn.models.blocks._dense import BatchNormClass
from diffdet.nn.models.blocks._graph.base import AbsGraphFeatExtractor, aggregate, check_aggregates, with_means
from diffdet.nn.models.blocks._graph.interaction import check_widths
from diffdet.nn.models.blocks.abs_block import check_count
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init
from diffdet.nn.models.layers.activations import LookupAct, lookup_act
from diffdet.nn.models.layers.self_attention import SelfAttention


class GravNetLayer(AbsGraphFeatExtractor):
    """One layer of GravNet. Objects are rows, (B, V, P).

    A dense network gives every object coordinates s in a learned space and a message l. Every object j looks at the k
    nearest ones, itself included, weighs their messages by the distance,

        h_jk = l_k exp(-10 |s_j - s_k|^2),

    aggregates them, and a second dense network works on [x_j ; aggregates]. Source: S. R. Qasim et al., "Learning
    representations of irregular particle-detector geometry with distance-weighted graph networks", arXiv:1902.07987.

    Distances, neighbours and gathered messages take B V^2 and B V k n_lr numbers, nothing B V^2 n_lr.

    Args:
        n_v: V, number of objects.
        n_fpv: P, number of features of an object.
        cat_means: Whether to append the mean of every feature over objects to each object first.
        f_slr_depth: Number of dense layers of the first network; all but the last are 2 (n_s + n_lr) wide.
        n_s: Number of coordinates.
        n_lr: Width of a message.
        k: Number of neighbours, at most V; with a mask, at most the number of objects present.
        f_out_depth: Number of dense layers of the second network; all but the last are 2 n_out wide.
        n_out: Number of new features.
        agg_methods: Aggregates of messages, from ``mean``, ``max``, ``absmax`` and ``sum``.
        use_sa: Whether the messages of the neighbours attend to each other before they are aggregated.
        do: Dropout rate in all dense layers.
        bn: Whether all dense layers have a batch norm.
        act: Name of the activation of all dense layers, the last ones included.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        bn_class: Number of channels -> batch norm.
        sa_width: Width of queries and keys with `use_sa`; by default a quarter of that of a message, at least 1.

    Raises:
        InputError: As `AbsGraphBlock`; if `k` is above V, or an aggregate is unknown.
    """

    def __init__(
        self,
        n_v: int,
        n_fpv: int,
        cat_means: bool,
        f_slr_depth: int,
        n_s: int,
        n_lr: int,
        k: int,
        f_out_depth: int,
        n_out: int,
        agg_methods: Sequence[str] = ("mean", "max"),
        use_sa: bool = False,
        do: float = 0,
        bn: bool = False,
        act: str = "relu",
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        bn_class: BatchNormClass = nn.BatchNorm1d,
        *,
        sa_width: int | None = None,
    ) -> None:
        super().__init__(n_v, n_fpv, do, bn, act, lookup_init, lookup_act, bn_class)
        self.cat_means = cat_means
        self.n_s, self.n_lr = check_count("n_s", n_s), check_count("n_lr", n_lr)
        self.k, self.n_out = check_count("k", k), check_count("n_out", n_out)
        if self.k > self.n_v:
            raise InputError(f"`k` must be at most the number of objects, {self.n_v}; got {k}")
        self.agg_methods = check_aggregates("agg_methods", agg_methods)
        n_in, both = self.n_fpv * (2 if cat_means else 1), self.n_s + self.n_lr
        self.f_slr = self.dense(n_in, [2 * both] * (check_count("f_slr_depth", f_slr_depth) - 1) + [both])
        n_mid = n_in + self.n_lr * len(self.agg_methods)
        hidden = [2 * self.n_out] * (check_count("f_out_depth", f_out_depth) - 1)
        self.f_out = self.dense(n_mid, [*hidden, self.n_out])
        sa_width = max(1, self.n_lr // 4) if sa_width is None else sa_width
        self.sa_agg = SelfAttention(self.n_lr, sa_width, **self.settings()) if use_sa else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Let every object hear its neighbours.

        Args:
            x: (B, V, P), objects.
            mask: (B, V), true where an object is present; None when all are.

        Returns:
            (B, V, n_out); zeros for absent objects.
        """
        x = self.rows(x, mask)
        x = with_means(x, mask) if self.cat_means else x
        slr = clear_absent(self.f_slr(x, mask), mask)
        place, message = slr[..., : self.n_s], slr[..., self.n_s :]
        index, there = nearest(place, self.k, mask)
        apart = (place[:, :, None] - gather_objects(place, index)).square().sum(-1)
        heard = gather_objects(message, index) * gravity(apart)[..., None]
        if self.sa_agg is not None:
            heard = self.sa_agg(heard, there)
        return clear_absent(self.f_out(torch.cat([x, aggregate(heard, there, self.agg_methods)], -1), mask), mask)

    def get_out_size(self) -> tuple[int, int]:
        """Numbers of objects and of features of each."""
        return self.n_v, self.n_out


class GravNet(AbsGraphFeatExtractor):
    """Layers of GravNet in a chain; the output holds the new features of all layers. Objects are rows, (B, V, P).

    Args:
        n_v: V, number of objects.
        n_fpv: P, number of features of an object.
        cat_means: Whether every layer appends the mean of every feature over objects to each object first.
        f_slr_depth: Number of dense layers of each first network.
        n_s: Number of coordinates.
        n_lr: Width of a message.
        k: Number of neighbours, at most V.
        f_out_depth: Number of dense layers of each second network.
        n_out: Number of new features of each layer; as many layers as numbers.
        agg_methods: Aggregates of messages, from ``mean``, ``max``, ``absmax`` and ``sum``.
        use_sa: Whether the messages of the neighbours attend to each other before they are aggregated.
        do: Dropout rate in all dense layers.
        bn: Whether all dense layers have a batch norm.
        act: Name of the activation of all dense layers, the last ones included.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        bn_class: Number of channels -> batch norm.
        sa_width: Width of queries and keys with `use_sa`; by default a quarter of that of a message, at least 1.

    Attributes:
        grav_layers: The layers.

    Raises:
        InputError: As `GravNetLayer`; if there is no layer.
    """

    def __init__(
        self,
        n_v: int,
        n_fpv: int,
        cat_means: bool,
        f_slr_depth: int,
        n_s: int,
        n_lr: int,
        k: int,
        f_out_depth: int,
        n_out: int | Sequence[int],
        agg_methods: Sequence[str] = ("mean", "max"),
        use_sa: bool = False,
        do: float = 0,
        bn: bool = False,
        act: str = "relu",
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        bn_class: BatchNormClass = nn.BatchNorm1d,
        *,
        sa_width: int | None = None,
    ) -> None:
        super().__init__(n_v, n_fpv, do, bn, act, lookup_init, lookup_act, bn_class)
        self.n_out = check_widths("n_out", [n_out] if isinstance(n_out, int) else n_out)
        shared: dict[str, Any] = {"agg_methods": agg_methods, "use_sa": use_sa, "sa_width": sa_width}
        self.grav_layers = nn.ModuleList()
        for width in self.n_out:
            self.grav_layers.append(
                GravNetLayer(
                    self.n_v,
                    n_fpv,
                    cat_means,
                    f_slr_depth,
                    n_s,
                    n_lr,
                    k,
                    f_out_depth,
                    width,
                    **shared,
                    **self.settings(),
                )
            )
            n_fpv = width

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pass the objects through all layers.

        Args:
            x: (B, V, P), objects.
            mask: (B, V), true where an object is present; None when all are.

        Returns:
            (B, V, sum of n_out), layer by layer; zeros for absent objects.
        """
        found = []
        for layer in self.grav_layers:
            x = layer(x, mask)
            found.append(x)
        return torch.cat(found, -1)

    def get_out_size(self) -> tuple[int, int]:
        """Numbers of objects and of features of each."""
        return self.n_v, sum(self.n_out)
