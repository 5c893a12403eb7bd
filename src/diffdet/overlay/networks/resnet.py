"""`resnet`: a linear layer, five residual blocks that each double the image, and a convolution that paints it."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["LATENT", "ResNet", "UpBlock"]

LATENT: Final = 96
"""Normal numbers that an image is made of."""

_CHANNELS = (256, 256, 128, 64, 32, 16)


class UpBlock(nn.Module):
    """A residual block that doubles the image; norms and activations come before convolutions.

    Args:
        n_in: Input channels.
        n_out: Output channels.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 1)
        self.norm1 = nn.BatchNorm2d(n_in)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(image, n_in, u, v)`` to ``(image, n_out, 2 u, 2 v)``."""
        h = functional.interpolate(functional.relu(self.norm1(x)), scale_factor=2.0, mode="nearest")
        h = self.conv2(functional.relu(self.norm2(self.conv1(h))))
        return h + self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class ResNet(nn.Module):
    """Paints sensor images from normal numbers; all sensors are painted alike.

    The state dict has the names and shapes of published weights: `fc`, `blocks.0.conv`, `blocks.0.norm1`, ...
    """

    latent: Final = LATENT

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(LATENT, _CHANNELS[0] * 8 * 24)
        self.blocks = nn.Sequential(*(UpBlock(n_in, n_out) for n_in, n_out in pairwise(_CHANNELS)))
        self.norm = nn.BatchNorm2d(_CHANNELS[-1])
        self.conv = nn.Conv2d(_CHANNELS[-1], 1, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Images of latents.

        Args:
            z: ``(image, 96)`` standard normal numbers.

        Returns:
            ``(image, 1, 256, 768)`` from -1 (no charge) to 1.
        """
        x = self.blocks(self.fc(z).view(-1, _CHANNELS[0], 8, 24))
        return self.conv(functional.relu(self.norm(x))).tanh()
