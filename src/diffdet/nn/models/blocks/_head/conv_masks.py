"""Convolutional networks over events with different numbers of objects.

Objects are packed to the front, and the number of columns that exist is followed through the network: behind every part
that mixes columns, those that a shorter matrix would not have are set to zero, which is what the padding of the next
convolution would be. An event then gives what it gives alone, in a matrix of just its objects.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffdet.core.errors import NotSupportedError
from diffdet.kernels.graphs import max_present, mean_present
from diffdet.nn.models.blocks._dense import _Function
from diffdet.nn.models.blocks.conv_blocks import (
    AdaptiveAvgMaxConcatPool1d,
    Conv1DBlock,
    Res1DBlock,
    SEBlock1d,
    _EvenConv1d,
)
from diffdet.nn.models.layers.activations import Swish
from diffdet.nn.models.layers.batchnorms import LCBatchNorm1d, RunningBatchNorm1d
from diffdet.nn.models.layers.mish import Mish

_COLUMN_BY_COLUMN = (
    *(nn.ReLU, nn.PReLU, nn.SELU, nn.ELU, nn.GELU, nn.LeakyReLU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Identity),
    *(nn.Dropout, nn.AlphaDropout, nn.Dropout1d, Swish, Mish, _Function),
)
"""Parts that treat every column, or every number, by itself."""


def carry(part: nn.Module, x: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """Pass columns through a part of a network, and say how many there are behind it.

    A part of your own takes part if it has a method ``carry_mask(x, mask) -> (x, mask)``, with x (B, C, L) and mask
    (B, L) true for columns that exist, which must be the first ones.

    Args:
        part: Layer, block, or sequence of them.
        x: (B, C, L), zero behind the columns that exist.
        number: (B,), how many columns exist.

    Returns:
        What the part gives, zero behind the columns that exist, and how many these are.

    Raises:
        NotSupportedError: If it is not known what the part does to the number of columns.
    """
    if hasattr(part, "carry_mask"):
        out, mask = part.carry_mask(x, _exists(x, number))  # type: ignore[operator]
        return out, mask.sum(1)
    found = _carry_block(part, x, number)
    found = _carry_pool(part, x, number) if found is None else found
    found = _carry_layer(part, x, number) if found is None else found
    if found is None:
        raise NotSupportedError(
            f"`mask` cannot be followed through {type(part).__name__}: give it a method `carry_mask(x, mask)` that "
            "returns both as they are behind it, or zero the objects in the input and give no mask"
        )
    return found


def _carry_block(part: nn.Module, x: Tensor, number: Tensor) -> tuple[Tensor, Tensor] | None:
    """Sequences, convolution blocks and squeeze and excitation."""
    forward = type(part).forward
    if forward is nn.Sequential.forward:
        for child in part.children():
            x, number = carry(child, x, number)
        return x, number
    if isinstance(part, Conv1DBlock) and forward is Conv1DBlock.forward:
        return carry(part.layers, x, number)
    if isinstance(part, Res1DBlock) and forward is Res1DBlock.forward:
        inner, count = carry(part.layers, x, number)
        if part.shortcut is not None:
            x, count = carry(part.shortcut, x, number)
        return inner + x, count
    if isinstance(part, SEBlock1d) and forward is SEBlock1d.forward:
        weights = part.layers(mean_present(x.transpose(1, 2), _exists(x, number)))
        return x * weights[:, :, None], number
    return None


def _carry_pool(part: nn.Module, x: Tensor, number: Tensor) -> tuple[Tensor, Tensor] | None:
    """Pools of all columns to one, and of windows."""
    if isinstance(part, nn.AdaptiveAvgPool1d | nn.AdaptiveMaxPool1d | AdaptiveAvgMaxConcatPool1d):
        size = part.sz if isinstance(part, AdaptiveAvgMaxConcatPool1d) else part.output_size
        if size not in (1, (1,)):
            raise NotSupportedError(f"`mask` needs pools to 1 column; {type(part).__name__} pools to {size}")
        rows, mask = x.transpose(1, 2), _exists(x, number)
        if isinstance(part, nn.AdaptiveAvgPool1d):
            pooled = mean_present(rows, mask)
        elif isinstance(part, nn.AdaptiveMaxPool1d):
            pooled = max_present(rows, mask)
        else:
            pooled = torch.cat([max_present(rows, mask), mean_present(rows, mask)], 1)
        return pooled[:, :, None], torch.ones_like(number)
    if isinstance(part, nn.MaxPool1d) and not part.return_indices and not part.ceil_mode:
        lowest = torch.full_like(x, -math.inf)
        return _with_number(part(torch.where(_exists(x, number)[:, None], x, lowest)), part, number)
    if isinstance(part, nn.AvgPool1d) and part.count_include_pad and not part.ceil_mode:
        return _with_number(part(x), part, number)
    return None


def _carry_layer(part: nn.Module, x: Tensor, number: Tensor) -> tuple[Tensor, Tensor] | None:
    """Convolutions, batch norms, and what treats columns one by one."""
    if isinstance(part, nn.Conv1d) and part.padding_mode == "zeros":
        return _with_number(part(x), part, number)
    if isinstance(part, nn.BatchNorm1d | RunningBatchNorm1d):
        return _clear(LCBatchNorm1d(part)(x.transpose(1, 2), _exists(x, number)).transpose(1, 2), number)
    if type(part) in _COLUMN_BY_COLUMN:
        return _clear(part(x), number)
    return None


def _with_number(
    out: Tensor, part: nn.Conv1d | nn.MaxPool1d | nn.AvgPool1d, number: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The output of a moving window, cleared behind the columns that exist."""
    kernel, stride = _one(part.kernel_size), _one(part.stride)
    span = _one(getattr(part, "dilation", 1)) * (kernel - 1) + 1
    if isinstance(part, _EvenConv1d) or part.padding == "same":
        padding = span - 1
    else:
        padding = 0 if part.padding == "valid" else 2 * _one(part.padding)
    there = torch.div(number + padding - span, stride, rounding_mode="floor") + 1
    return _clear(out, there.clamp(0, out.shape[2]))


def _one(size: object) -> int:
    """The number in a size that torch keeps as a number or as a tuple of one."""
    return int(size[0]) if isinstance(size, tuple) else int(size)  # type: ignore[call-overload]


def _exists(x: Tensor, number: Tensor) -> Tensor:
    """(B, L), true for columns that exist."""
    return torch.arange(x.shape[2], device=x.device) < number[:, None]


def _clear(x: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """Zero behind the columns that exist."""
    return torch.where(_exists(x, number)[:, None], x, torch.zeros_like(x)), number
