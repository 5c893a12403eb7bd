"""`convnet`: a linear layer, five convolutions that each double the image, and one that paints it."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from torch import Tensor, nn

__all__ = ["LATENT", "ConvNet"]

LATENT: Final = 96
"""Normal numbers that an image is made of."""

_CHANNELS = (512, 512, 256, 128, 64, 32)


class ConvNet(nn.Module):
    """Paints sensor images from normal numbers; all sensors are painted alike.

    The state dict has the names and shapes of published weights: `fc`, `features.0`, `features.1`, `features.4`, ...
    """

    latent: Final = LATENT

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(LATENT, _CHANNELS[0] * 8 * 24)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(_CHANNELS):
            layers += [
                nn.Conv2d(n_in, n_out, 5, padding=2),
                nn.BatchNorm2d(n_out),
                nn.ReLU(inplace=True),
                nn.Upsample(scale_factor=2, mode="nearest"),
            ]
        self.features = nn.Sequential(*layers, nn.Conv2d(_CHANNELS[-1], 1, 5, padding=2), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """Images of latents.

        Args:
            z: ``(image, 96)`` standard normal numbers.

        Returns:
            ``(image, 1, 256, 768)`` from -1 (no charge) to 1.
        """
        return self.features(self.fc(z).view(-1, _CHANNELS[0], 8, 24))
