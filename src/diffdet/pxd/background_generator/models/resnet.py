"""The model `resnet`: one image after the other, whatever the sensor."""

from __future__ import annotations

import torch
from torch import Tensor

from diffdet.overlay.network_generators import paint_event
from diffdet.overlay.networks.resnet import ResNet

__all__ = ["Model", "generate"]


class Model(ResNet):
    """The network `resnet`; see `diffdet.overlay.networks.resnet`."""


def generate(model: Model, *, generator: torch.Generator | None = None) -> Tensor:
    """Images of one event, computed as documented: all forty in one pass.

    Args:
        model: With its weights, in evaluation.
        generator: Source of the random numbers, on the CPU; torch's own when None.

    Returns:
        ``(40, 250, 768)`` ADU, uint8, on the CPU; index i belongs to sensor i.
    """
    return paint_event(model, generator=generator)
