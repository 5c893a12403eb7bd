"""The one way to build dense layers and stacks of them: Linear, activation, batch norm, dropout."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from diffdet.core.checks import check_in_range
from diffdet.nn.models.blocks.abs_block import check_count
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init
from diffdet.nn.models.layers.activations import LookupAct, lookup_act
from diffdet.nn.models.layers.batchnorms import LCBatchNorm1d

BatchNormClass = Callable[[int], nn.Module]
"""Number of channels -> a batch norm."""


def dropout(do: float | None, act: str) -> nn.Module | None:
    """The dropout that belongs to an activation.

    Args:
        do: Rate in [0, 1); 0 or None for none.
        act: Name of the activation: ``selu`` takes `nn.AlphaDropout`, which keeps mean and variance.

    Returns:
        A layer, or None.

    Raises:
        InputError: If the rate is outside [0, 1).
    """
    if do is None:
        return None
    check_in_range("do", do, 0, 1, high_open=True)
    if not do:
        return None
    return nn.AlphaDropout(do) if act == "selu" else nn.Dropout(do)


def linear(n_in: int, n_out: int, *, act: str, lookup_init: LookupInit) -> nn.Linear:
    """A linear layer with weights for the activation that follows and zero bias.

    Args:
        n_in: Width of the input.
        n_out: Width of the output.
        act: Name of the activation.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.

    Raises:
        InputError: If a width is below 1, or the activation unknown.
    """
    layer = nn.Linear(check_count("n_in", n_in), check_count("n_out", n_out))
    lookup_init(act, n_in, n_out)(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def activation(act: str, look_up: LookupAct) -> nn.Module | None:
    """The layer of an activation, None for ``linear``.

    Args:
        act: Name of the activation.
        look_up: Name -> layer, or function.
    """
    if act == "linear":
        return None
    found = look_up(act)
    return found if isinstance(found, nn.Module) else _Function(found)


class _Function(nn.Module):
    """A plain function in the place of a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class DenseLayer(nn.Sequential):
    """Linear, then activation, batch norm and dropout where asked for; made by `dense_layer`."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] - nn.Sequential calls x `input`
        self, x: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Pass features through the layers.

        Args:
            x: (..., n_in).
            mask: (...), true where an object is present: batch norms over the last axis take their statistics from
                these only. What stands at absent ones is computed too and means nothing.

        Returns:
            (..., n_out).
        """
        for layer in self:
            x = layer(x, mask) if isinstance(layer, LCBatchNorm1d) else layer(x)
        return x


class DenseStack(nn.Sequential):
    """Dense layers one after the other; made by `dense_stack`."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] - nn.Sequential calls x `input`
        self, x: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Pass features through the stack.

        Args:
            x: (..., n_in).
            mask: (...), true where an object is present; see `DenseLayer`.

        Returns:
            (..., last width).
        """
        for layer in self:
            x = layer(x, mask)
        return x


def dense_layer(
    n_in: int,
    n_out: int,
    *,
    act: str,
    bn: bool = False,
    do: float | None = 0.0,
    lookup_init: LookupInit = lookup_normal_init,
    lookup_act: LookupAct = lookup_act,
    bn_class: BatchNormClass = nn.BatchNorm1d,
    objects: bool = False,
) -> DenseLayer:
    """One dense layer: Linear, activation (none for ``linear``), batch norm, dropout.

    Args:
        n_in: Width of the input.
        n_out: Width of the output.
        act: Name of the activation.
        bn: Whether to add a batch norm.
        do: Dropout rate; 0 or None for none.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        bn_class: Number of channels -> batch norm.
        objects: Whether the input is (batch, ..., features) with axes between: the batch norm then works on the last
            axis, over all others.

    Returns:
        The layer; keys ``0`` Linear, ``1`` activation, ``2`` batch norm, ``3`` dropout, numbered without gaps.

    Raises:
        InputError: If a width is below 1, the activation unknown or the rate outside [0, 1).
    """
    layers: list[Any] = [linear(n_in, n_out, act=act, lookup_init=lookup_init), activation(act, lookup_act)]
    if bn:
        layers.append(LCBatchNorm1d(bn_class(n_out)) if objects else bn_class(n_out))
    layers.append(dropout(do, act))
    return DenseLayer(*(layer for layer in layers if layer is not None))


def dense_stack(n_in: int, widths: Iterable[int], **settings: Any) -> DenseStack:
    """Dense layers one after the other.

    Args:
        n_in: Width of the input.
        widths: Widths of the layers.
        **settings: What `dense_layer` takes.

    Returns:
        The stack; keys ``{i}.0`` Linear, ``{i}.1`` activation, and so on as in `dense_layer`.

    Raises:
        InputError: As `dense_layer`.
    """
    stack = DenseStack()
    for width in widths:
        stack.append(dense_layer(n_in, width, **settings))
        n_in = width
    return stack
