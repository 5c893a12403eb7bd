"""The model `clusters`: its weights come with the package. It draws clusters, and images only where they are asked for.

Here it wears the clothes of the other models, so that what works with them works with it; the module itself writes its
digits directly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffdet.core.random import Stream
from diffdet.overlay.clusters.generator import ClusterGenerator
from diffdet.overlay.digits import Digits
from diffdet.overlay.generator import AbsGenerator

__all__ = ["Model", "generate"]


class Model(nn.Module):
    """The generator `clusters` with the weights of the package; it has no parameters to load."""

    def __init__(self) -> None:
        super().__init__()
        self.source: AbsGenerator = ClusterGenerator.from_checkpoint()


def generate(model: Model, *, generator: torch.Generator | None = None) -> Tensor:
    """Images of one event.

    Args:
        model: The generator.
        generator: Source of the random numbers, on the CPU; a key is drawn from torch's own when None.

    Returns:
        ``(40, 250, 768)`` ADU, uint8, on the CPU; index i belongs to sensor i.
    """
    if generator is None:
        generator = Stream.from_torch().generator()
    sensor, u, v, charge = model.source.draw(generator)
    digits = Digits.from_columns(torch.zeros_like(sensor), sensor, u, v, charge, n_events=1)
    return model.source.conditions.apply(digits).to_images()[0]
