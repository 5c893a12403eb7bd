"""The model `ieagan`: every image for its sensor; as in Belle II's software, sensors are independent otherwise."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from diffdet.overlay.network_generators import paint_event
from diffdet.overlay.networks.iea import IeaGenerator

__all__ = ["Model", "generate"]


class Model(IeaGenerator):
    """The network `ieagan`; see `diffdet.overlay.networks.iea`.

    Args:
        rdof: Whether random numbers enter the relational part, as in the published variant.
    """

    def __init__(self, *, rdof: bool = False) -> None:
        super().__init__(rdof=rdof)


def generate(
    model: Model, *, generator: torch.Generator | None = None, class_order: str | Iterable[str] = "numeric"
) -> Tensor:
    """Images of one event, computed as documented: all forty in one pass.

    Args:
        model: With its weights, in evaluation.
        generator: Source of the random numbers, on the CPU; torch's own when None.
        class_order: Which label the weights use for which sensor: ``"numeric"``, ``"lexicographic"``, or names.

    Returns:
        ``(40, 250, 768)`` ADU, uint8, on the CPU; index i belongs to sensor i.
    """
    return paint_event(model, generator=generator, class_order=class_order)
