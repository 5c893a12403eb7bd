"""`ieagan`: the sensors of an event look at each other, then one deep generator paints each under its own condition.

There are two variants. The one in Belle II's software knows the sensor but nothing random enters the relational part,
so its images are independent given the sensor. The published one adds four normal numbers a sensor there (`rdof`),
which the attention mixes: only it can correlate the sensors of an event.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffdet.core.errors import ShapeError
from diffdet.overlay.networks.layers import (
    ConditionalBatchNorm2d,
    PlainBatchNorm2d,
    RelationalEncoder,
    SNConv2d,
    SNLinear,
)

__all__ = ["LATENT", "N_FREEDOM", "N_SENSORS", "BottleneckBlock", "IeaGenerator"]

LATENT: Final = 128
"""Normal numbers that an image is made of, besides its sensor."""

N_SENSORS: Final = 40
"""Sensors of an event: they are one sequence."""

N_FREEDOM: Final = 4
"""Normal numbers a sensor that enter the relational part of the published variant."""

_EMBEDDING = 128
_BOTTOM = (512, 4, 12)
_PAINTED = 32
# Input channels, output channels, whether the image doubles; hidden channels are a quarter of the input's.
_BLOCKS = tuple(
    (n_in, n_in if k == 0 else n_out, k == 1)
    for n_in, n_out in ((512, 512), (512, 256), (256, 256), (256, 128), (128, 64), (64, 32))
    for k in (0, 1)
)


class BottleneckBlock(nn.Module):
    """A residual block of four convolutions, narrow in between, whose norms are steered by a condition.

    Args:
        n_in: Input channels; a quarter of them in between.
        n_out: Output channels, not more than `n_in`; the shortcut keeps the first of them.
        upsample: Whether the image doubles.
        n_condition: Numbers of the condition.
    """

    def __init__(self, n_in: int, n_out: int, *, upsample: bool, n_condition: int) -> None:
        super().__init__()
        hidden = n_in // 4
        self.n_out = n_out
        self.upsample = upsample
        self.conv1 = SNConv2d(n_in, hidden, 1)
        self.conv2 = SNConv2d(hidden, hidden, 3)
        self.conv3 = SNConv2d(hidden, hidden, 3)
        self.conv4 = SNConv2d(hidden, n_out, 1)
        self.bn1 = ConditionalBatchNorm2d(n_in, n_condition)
        self.bn2 = ConditionalBatchNorm2d(hidden, n_condition)
        self.bn3 = ConditionalBatchNorm2d(hidden, n_condition)
        self.bn4 = ConditionalBatchNorm2d(hidden, n_condition)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map ``(image, n_in, u, v)`` to ``(image, n_out, u, v)``, or twice as large."""
        h = self.conv1(functional.relu(self.bn1(x, condition)))
        h = functional.relu(self.bn2(h, condition))
        x = x[:, : self.n_out]
        if self.upsample:
            h = functional.interpolate(h, scale_factor=2.0, mode="nearest")
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        h = self.conv2(h)
        h = self.conv3(functional.relu(self.bn3(h, condition)))
        h = self.conv4(functional.relu(self.bn4(h, condition)))
        return h + x


class IeaGenerator(nn.Module):
    """Paints the forty images of an event, each for its sensor.

    The state dict has the names and shapes of published weights. Spectral norms are frozen in evaluation.

    Args:
        rdof: Whether random numbers enter the relational part (the published variant), or not (Belle II's software).
    """

    latent: Final = LATENT

    def __init__(self, *, rdof: bool = False) -> None:
        super().__init__()
        self.rdof = rdof
        self.shared = nn.Embedding(N_SENSORS, _EMBEDDING)
        # Orthogonal start, like that of the layers under spectral norm.
        nn.init.orthogonal_(self.shared.weight)
        if rdof:
            self.linear_f = SNLinear(_EMBEDDING + N_FREEDOM, _EMBEDDING)
        self.RR_G = RelationalEncoder(_EMBEDDING, 2, _EMBEDDING)
        n_condition = _EMBEDDING + LATENT
        channels, height, width = _BOTTOM
        self.linear = SNLinear(n_condition, channels * height * width)
        self.blocks = nn.ModuleList(
            nn.ModuleList([BottleneckBlock(n_in, n_out, upsample=upsample, n_condition=n_condition)])
            for n_in, n_out, upsample in _BLOCKS
        )
        self.output_layer = nn.Sequential(PlainBatchNorm2d(_PAINTED), nn.ReLU(inplace=True), SNConv2d(_PAINTED, 1, 3))

    def condition(self, z: Tensor, labels: Tensor, freedom: Tensor | None = None) -> Tensor:
        """What steers the painting of every image of an event: what its sensor is, what the others are, and its latent.

        Args:
            z: ``(40, 128)`` standard normal numbers.
            labels: ``(40,)`` label of every image.
            freedom: ``(40, 4)`` standard normal numbers; needed where random numbers enter the relational part.

        Returns:
            ``(40, 256)``.

        Raises:
            ShapeError: If the numbers are not those of one event.
        """
        if z.shape != (len(labels), LATENT):
            raise ShapeError(f"`z` must have shape ({len(labels)}, {LATENT}); got {tuple(z.shape)}")
        embedded = self.shared(labels)
        if self.rdof:
            if freedom is None or freedom.shape != (len(labels), N_FREEDOM):
                given = None if freedom is None else tuple(freedom.shape)
                raise ShapeError(f"`freedom` must have shape ({len(labels)}, {N_FREEDOM}); got {given}")
            embedded = self.linear_f(torch.cat([embedded, freedom], dim=1))
        return torch.cat([self.RR_G(embedded.unsqueeze(0)).squeeze(0), z], dim=1)

    def paint(self, condition: Tensor) -> Tensor:
        """Images of conditions: ``(image, 256)`` to ``(image, 1, 256, 768)``. Images do not know of each other."""
        x = self.linear(condition).view(-1, *_BOTTOM)
        for stage in self.blocks:
            assert isinstance(stage, nn.ModuleList)
            for block in stage:
                x = block(x, condition)
        return self.output_layer(x).tanh()

    def forward(self, z: Tensor, labels: Tensor, freedom: Tensor | None = None) -> Tensor:
        """Images of one event; arguments as for `condition`.

        Returns:
            ``(40, 1, 256, 768)`` from -1 (no charge) to 1.
        """
        return self.paint(self.condition(z, labels, freedom))
