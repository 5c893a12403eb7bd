"""The discriminator of IEA-GAN: scores of images, and embeddings that know of the other images of their event."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffdet.overlay.networks.layers import SNConv2d, SNEmbedding, SNLinear

__all__ = ["Discriminator", "Judgement"]

_CHANNELS: Final = (64, 128, 256, 256, 512, 512)
_STEM: Final = 32
_EMBEDDING: Final = 1024
_HEADS: Final = 4
_ATTENTION_AFTER: Final = 3
N_CLASSES: Final = 40


class Judgement(NamedTuple):
    """What the discriminator says of the images of an event.

    Attributes:
        score: ``(image,)`` higher for what looks real.
        embedding: ``(image, 1024)`` of length 1.
        proxy: ``(image, 1024)`` of the images' classes, of length 1.
    """

    score: Tensor
    embedding: Tensor
    proxy: Tensor


class _Block(nn.Module):
    """A bottleneck of 1x1, 3x3, 3x3 and 1x1 convolutions beside a shortcut; halves height and width where asked."""

    def __init__(self, n_in: int, n_out: int, *, down: bool, activate_first: bool = True) -> None:
        super().__init__()
        hidden = n_out // 4
        self.down, self.activate_first = down, activate_first
        self.conv1 = SNConv2d(n_in, hidden, 1)
        self.conv2 = SNConv2d(hidden, hidden, 3)
        self.conv3 = SNConv2d(hidden, hidden, 3)
        self.conv4 = SNConv2d(hidden, n_out, 1)
        self.more = SNConv2d(n_in, n_out - n_in, 1) if n_out > n_in else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(torch.relu(x) if self.activate_first else x)
        h = self.conv3(torch.relu(self.conv2(torch.relu(h))))
        h = torch.relu(h)
        if self.down:
            h, x = functional.avg_pool2d(h, 2), functional.avg_pool2d(x, 2)
        shortcut = x if self.more is None else torch.cat((x, self.more(x)), dim=1)
        return self.conv4(h) + shortcut


class _ImageAttention(nn.Module):
    """Self-attention over the places of a map, with a weight that begins at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key = SNConv2d(channels, channels // 8, 1), SNConv2d(channels, channels // 8, 1)
        self.value, self.out = SNConv2d(channels, channels // 2, 1), SNConv2d(channels // 2, channels, 1)
        for conv in (self.query, self.key, self.value, self.out):
            conv.register_parameter("bias", None)
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2).transpose(1, 2)
        key = functional.max_pool2d(self.key(x), 2).flatten(2)
        value = functional.max_pool2d(self.value(x), 2).flatten(2)
        mixed = value @ torch.softmax(query @ key, dim=-1).transpose(1, 2)
        return x + self.weight * self.out(mixed.reshape(len(x), -1, *x.shape[2:]))


class _Relations(nn.Module):
    """One encoder layer over the images of an event, every linear layer under spectral norm; norms come first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.out = SNLinear(width, 3 * width), SNLinear(width, width)
        self.hidden, self.back = SNLinear(width, width), SNLinear(width, width)
        self.norm1, self.norm2, self.norm = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        n, width = x.shape
        heads = self.qkv(self.norm1(x)).reshape(n, _HEADS, 3, width // _HEADS).permute(2, 1, 0, 3)
        mixed = functional.scaled_dot_product_attention(heads[0][None], heads[1][None], heads[2][None])[0]
        x = x + self.out(mixed.transpose(0, 1).reshape(n, width))
        return self.norm(x + self.back(torch.relu(self.hidden(self.norm2(x)))))


class Discriminator(nn.Module):
    """Judges the images of one event together."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SNConv2d(1, _STEM, 3)
        blocks: list[nn.Module] = []
        n_in = _STEM
        for stage, n_out in enumerate(_CHANNELS):
            blocks.append(_Block(n_in, n_out, down=True, activate_first=bool(stage)))
            blocks.append(_Block(n_out, n_out, down=False))
            if stage + 1 == _ATTENTION_AFTER:
                blocks.append(_ImageAttention(n_out))
            n_in = n_out
        self.blocks = nn.Sequential(*blocks)
        self.score = SNLinear(n_in, 1)
        self.relations = _Relations(n_in)
        self.embed = nn.Sequential(SNLinear(n_in, _EMBEDDING), nn.LayerNorm(_EMBEDDING))
        self.proxies = SNEmbedding(N_CLASSES, _EMBEDDING)

    def forward(self, image: Tensor, labels: Tensor) -> Judgement:
        """Judge an event.

        Args:
            image: ``(image, 1, 256, 768)``.
            labels: ``(image,)`` sensor of each.
        """
        h = torch.relu(self.blocks(self.stem(image))).sum((2, 3))
        embedding = functional.normalize(self.embed(self.relations(h)), dim=1)
        return Judgement(self.score(h)[:, 0], embedding, functional.normalize(self.proxies(labels), dim=1))
