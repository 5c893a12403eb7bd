"""The model `convnet`: one image after the other, whatever the sensor."""

from __future__ import annotations

import torch
from torch import Tensor

from diffdet.overlay.network_generators import paint_event
from diffdet.overlay.networks.convnet import ConvNet

__all__ = ["Model", "generate"]


class Model(ConvNet):
    """The network `convnet`; see `diffdet.overlay.networks.convnet`."""


def generate(model: Model, *, generator: torch.Generator | None = None) -> Tensor:
    """Images of one event, computed as documented: all forty in one pass.

    Args:
        model: With its weights, in evaluation.
        generator: Source of the random numbers, on the CPU; torch's own when None.

    Returns:
        ``(40, 250, 768)`` ADU, uint8, on the CPU; index i belongs to sensor i.
    """
    return paint_event(model, generator=generator)
