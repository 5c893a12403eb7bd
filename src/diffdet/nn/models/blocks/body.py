"""Bodies: the hidden layers between head and tail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from diffdet.core.checks import check_finite, check_shape, did_you_mean
from diffdet.core.errors import InputError
from diffdet.core.modules import register_constant
from diffdet.nn.models.blocks._dense import (
    BatchNormClass,
    DenseLayer,
    DenseStack,
    dense_layer,
    dense_stack,
)
from diffdet.nn.models.blocks.abs_block import AbsBlock, check_count
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init
from diffdet.nn.models.layers import activations
from diffdet.nn.models.layers.activations import LookupAct, lookup_act

__all__ = ["AbsBody", "FullyConnected", "IdentBody", "MultiBlock"]

FeatMap = Mapping[str, Sequence[int]]
"""Name of an input feature -> columns of the head's output that it has a part in."""


class AbsBody(AbsBlock):
    """Base of bodies: (batch, n_in) -> (batch, `get_out_size()`).

    Args:
        n_in: Width of the input.
        feat_map: Name of a feature -> columns of the input that it has a part in.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        freeze: Whether all parameters start as not trainable.

    Raises:
        InputError: If `n_in` is below 1.
    """

    def __init__(
        self,
        n_in: int,
        feat_map: FeatMap,
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        freeze: bool = False,
    ) -> None:
        super().__init__(lookup_init=lookup_init, freeze=freeze)
        self.n_in = check_count("n_in", n_in)
        self.feat_map = {name: list(columns) for name, columns in feat_map.items()}
        self.lookup_act = lookup_act


class IdentBody(AbsBody):
    """Passes its input through: for heads whose output is ready for the tail.

    Args:
        n_in: Width of the input.
        feat_map: Not used.
        lookup_init: Not used.
        lookup_act: Not used.
        freeze: Not used: there are no parameters.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The input itself."""
        return x

    def get_out_size(self) -> int:
        """Width of the input."""
        return self.n_in


def _widths(depth: int, width: int, growth_rate: float) -> list[int]:
    """Width of every layer: width (1 + d growth_rate), the growth cut to a whole number, never below 1."""
    return [max(1, width + int(width * d * growth_rate)) for d in range(depth)]


class FullyConnected(AbsBody):
    """Dense layers, plain or with skip connections.

    A dense layer is Linear, activation, batch norm, dropout. Layer d = 0, 1, ... is width + width d growth_rate wide,
    the growth cut to a whole number, and never narrower than 1.

    With `res` every two layers are bridged by an addition, x <- BN(f(x) + x); the depth, then, counts the first layer
    and pairs, so an even depth is one more. The batch norm after the addition is there whatever `bn` says; `bn` adds
    one between the two layers of a pair. With `dense` layer d sees the outputs of all layers before it, the newest
    first, and the input last; the output is that of the last layer alone.

    Args:
        n_in: Width of the input.
        feat_map: Name of a feature -> columns of the input; stored, not used.
        depth: Number of layers.
        width: Width of the first layer; of all with `res`.
        do: Dropout rate; 0 or None for none.
        bn: Whether to use batch norms.
        act: Name of the activation.
        res: Whether to add skip connections.
        dense: Whether to concatenate what came before to the input of each layer.
        growth_rate: Growth of the width per layer, as a part of `width`; may be negative. Not used with `res`.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        freeze: Whether all parameters start as not trainable.
        bn_class: Number of channels -> batch norm.

    Attributes:
        layers: Dense layers; with `res`, the first layer and the pairs.
        res_bns: With `res`, the batch norms after the additions.

    Raises:
        InputError: If a size is below 1, the activation is unknown, the rate outside [0, 1), or both `res` and `dense`
            are set: the older package took `res` without a word.
    """

    layers: nn.ModuleList | DenseStack

    def __init__(
        self,
        n_in: int,
        feat_map: FeatMap,
        depth: int,
        width: int,
        do: float | None = 0,
        bn: bool = False,
        act: str = "relu",
        res: bool = False,
        dense: bool = False,
        growth_rate: float = 0,
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        freeze: bool = False,
        *,
        bn_class: BatchNormClass = nn.BatchNorm1d,
    ) -> None:
        super().__init__(n_in=n_in, feat_map=feat_map, lookup_init=lookup_init, lookup_act=lookup_act, freeze=freeze)
        self.depth, self.width = check_count("depth", depth), check_count("width", width)
        check_finite("growth_rate", growth_rate)
        if res and dense:
            raise InputError("`res` and `dense` exclude each other; got both")
        self.do, self.bn, self.act, self.res, self.dense = do, bn, act, res, dense
        self.growth_rate, self.bn_class = growth_rate, bn_class
        if res:
            self._build_residual()
        elif dense:
            self.layers = nn.ModuleList()
            for w in self._get_widths():
                self.layers.append(self._layer(n_in, w))
                n_in += w
        else:
            self.layers = dense_stack(n_in, self._get_widths(), **self._settings())

    def _settings(self) -> dict[str, object]:
        """What every dense layer shares."""
        return {
            "act": self.act,
            "bn": self.bn,
            "do": self.do,
            "lookup_init": self.lookup_init,
            "lookup_act": self.lookup_act,
            "bn_class": self.bn_class,
        }

    def _get_widths(self) -> list[int]:
        return _widths(self.depth, self.width, self.growth_rate)

    def _layer(self, n_in: int, n_out: int, **changed: object) -> DenseLayer:
        settings: dict[str, object] = {**self._settings(), **changed}
        return dense_layer(n_in, n_out, **settings)  # pyright: ignore[reportArgumentType] - keys are those above

    def _build_residual(self) -> None:
        """First layer and pairs; a pair is one sequence, so that its keys are ``layers.{i}.{j}``."""
        n_pairs = self.depth // 2
        # The batch norms come first in the state dict.
        self.res_bns = nn.ModuleList(self.bn_class(self.width) for _ in range(n_pairs))
        self.layers = nn.ModuleList([self._layer(self.n_in, self.width)])
        for _ in range(n_pairs):
            pair = (*self._layer(self.width, self.width), *self._layer(self.width, self.width, bn=False))
            self.layers.append(DenseLayer(*pair))

    def forward(self, x: Tensor) -> Tensor:
        """Pass features through the layers.

        Args:
            x: (batch, n_in); without batch norms any axes may come before the last.

        Returns:
            (batch, `get_out_size()`).

        Raises:
            ShapeError: If x has another width.
        """
        check_shape("x", x, f"*batch {self.n_in}")
        if self.res:
            x = self.layers[0](x)
            for layer, norm in zip(list(self.layers)[1:], self.res_bns, strict=True):
                x = norm(layer(x) + x)
            return x
        if self.dense:
            for layer in list(self.layers)[:-1]:
                x = torch.cat((layer(x), x), -1)
            return self.layers[-1](x)
        for layer in self.layers:
            x = layer(x)
        return x

    def get_out_size(self) -> int:
        """Width of the last layer."""
        return self.width if self.res else self._get_widths()[-1]


class MultiBlock(AbsBody):
    """Several bodies side by side, each with features of its own; their outputs are concatenated.

    A body can also be given a summary of the features that it does not receive, through a linear layer of width
    `bottleneck_sz`. Bodies may be `MultiBlock` again: each gets a map of its features to the columns of its own input.

    Args:
        n_in: Width of the input.
        feat_map: Name of a feature -> columns of the input that it has a part in.
        blocks: Bodies to build: ``blocks[i](n_in=..., feat_map=..., lookup_init=..., lookup_act=..., freeze=...)``;
            give the rest by `functools.partial`. Look-ups and freezing that a partial sets itself are kept.
        feats_per_block: Names of the features of each body. A name may stand in several. Columns come in the order of
            `feat_map`, each once.
        bottleneck_sz: Width of the summary; 0 for none.
        bottleneck_act: Activation of the summary; None for none.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        freeze: Whether all parameters start as not trainable, those of the summaries too.

    Attributes:
        masks: Columns of the input for each body.
        bottleneck_masks: Columns that each summary is made of.
        blocks: The bodies.
        bottleneck_blocks: The summaries; none with `bottleneck_sz` = 0.

    Raises:
        InputError: If there is no body, the lists differ in length, a name is unknown, a body has no feature, a summary
            nothing to summarise, or `feat_map` has a column that is not in the input.
    """

    def __init__(
        self,
        n_in: int,
        feat_map: FeatMap,
        blocks: Sequence[Callable[..., AbsBlock]],
        feats_per_block: Sequence[Sequence[str]],
        bottleneck_sz: int = 0,
        bottleneck_act: str | None = None,
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        freeze: bool = False,
    ) -> None:
        super().__init__(n_in=n_in, feat_map=feat_map, lookup_init=lookup_init, lookup_act=lookup_act, freeze=freeze)
        self.feats_per_block = [list(names) for names in feats_per_block]
        self.bottleneck_sz = check_count("bottleneck_sz", bottleneck_sz, low=0)
        self.bottleneck_act = bottleneck_act
        if bottleneck_act is not None and lookup_act is activations.lookup_act:  # another may know other names
            activations.check_act("bottleneck_act", bottleneck_act)
        self._check(len(blocks))
        self.masks = [self._columns(names) for names in self.feats_per_block]
        self.bottleneck_masks = [
            self._columns([name for name in self.feat_map if name not in names]) for names in self.feats_per_block
        ]
        self.bottleneck_blocks = nn.ModuleList(self._bottleneck(i) for i in range(len(blocks)) if bottleneck_sz)
        self.blocks = nn.ModuleList(self._block(i, block) for i, block in enumerate(blocks))
        for i, (mask, rest) in enumerate(zip(self.masks, self.bottleneck_masks, strict=True)):
            register_constant(self, f"_mask_{i}", torch.tensor(mask))
            register_constant(self, f"_bottleneck_mask_{i}", torch.tensor(rest, dtype=torch.long))

    def _check(self, n_blocks: int) -> None:
        """Refuse names and numbers that do not fit together."""
        if n_blocks < 1 or n_blocks != len(self.feats_per_block):
            raise InputError(
                f"`blocks` and `feats_per_block` must have one entry a body, at least one; "
                f"got {n_blocks} and {len(self.feats_per_block)}"
            )
        for i, names in enumerate(self.feats_per_block):
            for name in names:
                if name not in self.feat_map:
                    raise InputError(
                        f"`feats_per_block` must name features of `feat_map`; got {name!r} for block {i}"
                        f"{did_you_mean(name, self.feat_map)}"
                    )
            if not self._columns(names):
                raise InputError(f"`feats_per_block` must give every block a feature; got {names!r} for block {i}")
        outside = {name: columns for name, columns in self.feat_map.items() if not _within(columns, self.n_in)}
        if outside:
            raise InputError(f"`feat_map` must name columns 0 to {self.n_in - 1} of the input; got {outside}")

    def _columns(self, names: Sequence[str]) -> list[int]:
        """Columns of some features in the order of the feature map, each once."""
        wanted = [column for name, columns in self.feat_map.items() if name in names for column in columns]
        return list(dict.fromkeys(wanted))

    def _bottleneck(self, i: int) -> DenseLayer:
        n_rest = len(self.bottleneck_masks[i])
        if not n_rest:
            raise InputError(f"`bottleneck_sz` must be 0 where a block receives every feature; got "
                             f"{self.bottleneck_sz}, and block {i} does")  # fmt: skip
        return dense_layer(
            n_rest,
            self.bottleneck_sz,
            act=self.bottleneck_act or "linear",
            lookup_init=self.lookup_init,
            lookup_act=self.lookup_act,
        )

    def _block(self, i: int, block: Callable[..., AbsBlock]) -> AbsBlock:
        """Body i, with a map of its features to the columns of its own input."""
        position = {column: k for k, column in enumerate(self.masks[i])}
        names = [name for name in self.feat_map if name in self.feats_per_block[i]]
        shared = {"lookup_init": self.lookup_init, "lookup_act": self.lookup_act, "freeze": self.freeze}
        own = getattr(block, "keywords", {})  # what a partial sets itself
        return block(
            n_in=len(self.masks[i]) + self.bottleneck_sz,
            feat_map={name: [position[column] for column in self.feat_map[name]] for name in names},
            **{key: value for key, value in shared.items() if key not in own},
        )

    def forward(self, x: Tensor) -> Tensor:
        """Pass features through the bodies.

        Args:
            x: (batch, n_in).

        Returns:
            (batch, sum of the widths of the bodies), in the order of the bodies.

        Raises:
            ShapeError: If x has another shape.
        """
        check_shape("x", x, f"batch {self.n_in}")
        outputs = []
        for i, block in enumerate(self.blocks):
            part = x.index_select(1, self.get_buffer(f"_mask_{i}"))
            if self.bottleneck_sz:
                rest = x.index_select(1, self.get_buffer(f"_bottleneck_mask_{i}"))
                part = torch.cat((part, self.bottleneck_blocks[i](rest)), 1)
            outputs.append(block(part))
        return torch.cat(outputs, 1)

    def get_out_size(self) -> int:
        """Sum of the widths of the bodies."""
        sizes = [block.get_out_size() for block in self.blocks if isinstance(block, AbsBlock)]
        return sum(sizes)

    def __getitem__(self, key: int | slice) -> nn.Module:
        return self.blocks[key]


def _within(columns: Sequence[int], n: int) -> bool:
    """Whether all columns are among n."""
    return all(0 <= column < n for column in columns)
