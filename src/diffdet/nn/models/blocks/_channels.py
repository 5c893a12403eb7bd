"""What works on the channels of (batch, channel, *positions): weighs them, or pools their positions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffdet.nn.models.blocks._dense import activation, linear
from diffdet.nn.models.blocks.abs_block import check_count
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init
from diffdet.nn.models.layers.activations import LookupAct, lookup_act


class _SEBlock(nn.Module):
    """Weighs channels by what is in all of them: squeeze and excitation.

    The mean of every channel over its positions goes through Linear[n_in -> max(2, n_in // r)], the activation,
    Linear[-> n_in] and a sigmoid; channels are multiplied by the result.

    Source: J. Hu et al., "Squeeze-and-excitation networks", arXiv:1709.01507, section 3.

    Args:
        n_in: Number of channels.
        r: By how much the first linear layer reduces them.
        act: Name of the activation.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.

    Raises:
        InputError: If a number is below 1 or the activation unknown.
    """

    def __init__(
        self,
        n_in: int,
        r: int,
        act: str = "relu",
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
    ) -> None:
        super().__init__()
        self.n_in, self.r = check_count("n_in", n_in), check_count("r", r)
        n_mid = max(2, n_in // r)
        layers = (
            linear(n_in, n_mid, act=act, lookup_init=lookup_init),
            activation(act, lookup_act),
            linear(n_mid, n_in, act="sigmoid", lookup_init=lookup_init),
            nn.Sigmoid(),
        )
        self.layers = nn.Sequential(*(layer for layer in layers if layer is not None))

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels.

        Args:
            x: (batch, n_in, *positions).

        Returns:
            Tensor of the same shape.
        """
        weights = self.layers(x.flatten(2).mean(2))
        return x * weights.reshape(*weights.shape, *(1 for _ in x.shape[2:]))


class SEBlock1d(_SEBlock):
    """Squeeze and excitation of (batch, channel, position)."""


class SEBlock2d(_SEBlock):
    """Squeeze and excitation of (batch, channel, row, column)."""


class SEBlock3d(_SEBlock):
    """Squeeze and excitation of (batch, channel, depth, row, column)."""


class _AdaptiveAvgMaxConcatPool(nn.Module):
    """Largest and mean value of each of `sz` regions, twice as many channels: the largest first."""

    average: Callable[[int | tuple[int, ...]], nn.Module]
    largest: Callable[[int | tuple[int, ...]], nn.Module]

    def __init__(self, sz: int | tuple[int, ...] | None = None) -> None:
        super().__init__()
        sz = 1 if sz is None else sz
        self.sz = sz
        self.max_pool, self.avg_pool = type(self).largest(sz), type(self).average(sz)

    def forward(self, x: Tensor) -> Tensor:
        """Pool the positions.

        Args:
            x: (batch, channel, *positions).

        Returns:
            (batch, 2 channel, *sz): largest values of all channels, then means of all channels.
        """
        return torch.cat((self.max_pool(x), self.avg_pool(x)), 1)


class AdaptiveAvgMaxConcatPool1d(_AdaptiveAvgMaxConcatPool):
    """Largest and mean values of (batch, channel, position) in `sz` regions.

    Args:
        sz: Number of regions; 1 by default.
    """

    average, largest = nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d


class AdaptiveAvgMaxConcatPool2d(_AdaptiveAvgMaxConcatPool):
    """Largest and mean values of (batch, channel, row, column) in `sz` regions.

    Args:
        sz: Number of regions along both axes, or along each; 1 by default.
    """

    average, largest = nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d


class AdaptiveAvgMaxConcatPool3d(_AdaptiveAvgMaxConcatPool):
    """Largest and mean values of (batch, channel, depth, row, column) in `sz` regions.

    Args:
        sz: Number of regions along all axes, or along each; 1 by default.
    """

    average, largest = nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d
