"""Layers that the networks share: weights divided by their largest singular value, norms steered by a condition.

The names of parameters and buffers (`u0`, `sv0`, `stored_mean`, `stored_var`) are those of published weights.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffdet.kernels import convolutions

__all__ = [
    "SN_EPS",
    "ConditionalBatchNorm2d",
    "EncoderLayer",
    "PlainBatchNorm2d",
    "RelationalEncoder",
    "SNConv2d",
    "SNEmbedding",
    "SNLinear",
]

SN_EPS: Final = 1e-6
"""Added nowhere; the smallest length that vectors are divided by while looking for the largest singular value."""


class _SpectralNorm(nn.Module):
    """A layer whose weight is divided by an estimate of its largest singular value.

    The estimate is one power iteration from `u0`. While training, `u0` follows and `sv0` records the estimate; in
    evaluation neither changes, and the divided weight is a constant that `normalised_weight` gives.
    """

    weight: nn.Parameter
    u0: Tensor
    sv0: Tensor

    def _register(self, n_rows: int) -> None:
        # Starts where nothing is random; training moves it within a few steps, weights that are loaded replace it.
        self.register_buffer("u0", torch.full((1, n_rows), n_rows**-0.5))
        self.register_buffer("sv0", torch.ones(1))

    def normalised_weight(self) -> Tensor:
        """The weight divided by its largest singular value, of the weight's shape."""
        sigma, u = convolutions.largest_singular_value(self.weight.flatten(1), self.u0, eps=SN_EPS)
        if self.training:
            with torch.no_grad():
                self.u0.copy_(u)
                self.sv0.copy_(sigma)
        return self.weight / sigma


class SNLinear(_SpectralNorm):
    """A linear layer under spectral norm.

    Args:
        n_in: Inputs.
        n_out: Outputs.
        bias: Whether something is added.
    """

    def __init__(self, n_in: int, n_out: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(n_out, n_in)))
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None
        self._register(n_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., n_in)`` to ``(..., n_out)``."""
        return functional.linear(x, self.normalised_weight(), self.bias)


class SNConv2d(_SpectralNorm):
    """A convolution under spectral norm, stride 1, with zeros at the borders so that the size stays.

    Args:
        n_in: Input channels.
        n_out: Output channels.
        size: Edge of the kernel; odd.
    """

    def __init__(self, n_in: int, n_out: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(n_out, n_in, size, size)))
        self.bias = nn.Parameter(torch.zeros(n_out))
        self._register(n_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, n_in, u, v)`` to ``(batch, n_out, u, v)``."""
        return functional.conv2d(x, self.normalised_weight(), self.bias, padding=self.weight.shape[-1] // 2)


class SNEmbedding(_SpectralNorm):
    """A table of vectors under spectral norm.

    Args:
        n_rows: Vectors.
        n_out: Length of each.
    """

    def __init__(self, n_rows: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(n_rows, n_out)))
        self._register(n_rows)

    def forward(self, index: Tensor) -> Tensor:
        """Vectors of indices, ``(..., n_out)``."""
        return functional.embedding(index, self.normalised_weight())


class _StoredNorm(nn.Module):
    """Batch norm without scale and shift of its own."""

    stored_mean: Tensor
    stored_var: Tensor
    eps: Final = 1e-5
    momentum: Final = 0.1

    def _register(self, n_channels: int) -> None:
        self.register_buffer("stored_mean", torch.zeros(n_channels))
        self.register_buffer("stored_var", torch.ones(n_channels))

    def _normalise(self, x: Tensor, gain: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        return functional.batch_norm(
            x, self.stored_mean, self.stored_var, gain, bias, self.training, self.momentum, self.eps
        )


class ConditionalBatchNorm2d(_StoredNorm):
    """Batch norm whose scale and shift are linear in a condition: norm(x) (1 + gain(c)) + bias(c).

    Args:
        n_channels: Channels.
        n_condition: Numbers of the condition.
    """

    def __init__(self, n_channels: int, n_condition: int) -> None:
        super().__init__()
        self.gain = SNLinear(n_condition, n_channels, bias=False)
        self.bias = SNLinear(n_condition, n_channels, bias=False)
        self._register(n_channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalise ``(batch, channel, u, v)`` under a condition ``(batch, n_condition)``."""
        gain, bias = 1 + self.gain(condition), self.bias(condition)
        return self._normalise(x) * gain[..., None, None] + bias[..., None, None]


class PlainBatchNorm2d(_StoredNorm):
    """Batch norm with scale and shift of its own, under the names `gain` and `bias`.

    Args:
        n_channels: Channels.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(n_channels))
        self.bias = nn.Parameter(torch.zeros(n_channels))
        self._register(n_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(batch, channel, u, v)``."""
        return self._normalise(x, self.gain, self.bias)


class _Attention(nn.Module):
    """Self-attention whose projection holds, for each head in turn, queries, keys and values."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv_proj = nn.Linear(width, 3 * width)
        self.o_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        projected = self.qkv_proj(x).view(batch, length, self.n_heads, 3 * width // self.n_heads)
        query, key, value = projected.transpose(1, 2).chunk(3, dim=-1)
        weight = (query @ key.transpose(-1, -2) / (width // self.n_heads) ** 0.5).softmax(-1)
        return self.o_proj((weight @ value).transpose(1, 2).reshape(batch, length, width))


class EncoderLayer(nn.Module):
    """A transformer's encoder layer that normalises first.

    Args:
        width: Numbers of each member of a sequence.
        n_heads: Heads of the attention.
        hidden: Width inside the two-layer network.
    """

    def __init__(self, width: int, n_heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = _Attention(width, n_heads)
        # The dropout has rate 0: it only keeps the places of the linear layers, which name their weights.
        self.linear_net = nn.Sequential(nn.Linear(width, hidden), nn.Dropout(0.0), nn.ReLU(), nn.Linear(hidden, width))
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, sequence, width)`` to the same shape."""
        x = x + self.self_attn(self.norm1(x))
        return x + self.linear_net(self.norm2(x))


class RelationalEncoder(nn.Module):
    """Lets the members of a sequence (the sensors of an event) know of each other.

    Args:
        width: Numbers of each member.
        n_heads: Heads of the attention.
        hidden: Width inside the two-layer network.
    """

    def __init__(self, width: int, n_heads: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([EncoderLayer(width, n_heads, hidden)])
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, sequence, width)`` to the same shape."""
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)
