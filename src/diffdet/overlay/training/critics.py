"""Critics that mirror the networks which they judge. Layer norms, no batch norms: an image is judged by itself."""

from __future__ import annotations

import itertools
from typing import Final

import torch
from torch import Tensor, nn

from diffdet.core.errors import InputError

__all__ = ["ConvCritic", "ResCritic", "critic_for"]

_CONV: Final = (1, 32, 64, 128, 256, 512)
_RES: Final = (1, 16, 32, 64, 128, 256)
_HEIGHT, _WIDTH = 256, 768


class ConvCritic(nn.Module):
    """Five strided convolutions of 5 x 5, the mirror image of `ConvNet`: ``(image, 1, 256, 768)`` to ``(image,)``."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        height, width = _HEIGHT, _WIDTH
        for number, (n_in, n_out) in enumerate(itertools.pairwise(_CONV)):
            layers.append(nn.Conv2d(n_in, n_out, 5, stride=2, padding=2))
            height, width = height // 2, width // 2
            if number:
                layers.append(nn.GroupNorm(1, n_out))
            layers.append(nn.LeakyReLU(0.2))
        self.features = nn.Sequential(*layers)
        self.score = nn.Linear(_CONV[-1] * height * width, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Scores of images; higher for what looks real."""
        return self.score(self.features(image).flatten(1))[:, 0]


class _DownBlock(nn.Module):
    """Two convolutions and a shortcut, each halving height and width; activations come first."""

    def __init__(self, n_in: int, n_out: int, *, first: bool) -> None:
        super().__init__()
        before = nn.Identity() if first else nn.Sequential(nn.GroupNorm(1, n_in), nn.ReLU())
        self.body = nn.Sequential(
            before,
            nn.Conv2d(n_in, n_out, 3, padding=1),
            nn.GroupNorm(1, n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, padding=1),
            nn.AvgPool2d(2),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(n_in, n_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class ResCritic(nn.Module):
    """Five residual blocks, the mirror image of `ResNet`: ``(image, 1, 256, 768)`` to ``(image,)``."""

    def __init__(self) -> None:
        super().__init__()
        channels = itertools.pairwise(_RES)
        self.blocks = nn.Sequential(
            *(_DownBlock(n_in, n_out, first=number == 0) for number, (n_in, n_out) in enumerate(channels))
        )
        self.score = nn.Linear(_RES[-1] * (_HEIGHT // 32) * (_WIDTH // 32), 1)

    def forward(self, image: Tensor) -> Tensor:
        """Scores of images; higher for what looks real."""
        return self.score(torch.relu(self.blocks(image)).flatten(1))[:, 0]


def critic_for(model: str) -> nn.Module:
    """The critic of a network by its name.

    Raises:
        InputError: If it is neither ``"convnet"`` nor ``"resnet"``.
    """
    kinds: dict[str, type[nn.Module]] = {"convnet": ConvCritic, "resnet": ResCritic}
    if model not in kinds:
        raise InputError(f"`model` must be one of {', '.join(map(repr, kinds))}; got {model!r}")
    return kinds[model]()
