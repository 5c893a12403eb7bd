"""The width of what a network gives, found by trying."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffdet.core.errors import ShapeError


def trial_width(
    net: nn.Module, shape: tuple[int, ...], prepare: Callable[[Tensor], Tensor] = lambda x: x
) -> int:  # fmt: skip
    """Number of columns that a network gives for one random event.

    The network runs in evaluation mode, so that batch norms learn nothing from it, and without touching torch's global
    generator; every part is put back into the mode that it was in.

    Args:
        net: The network.
        shape: Shape of its input for one event, batch axis included.
        prepare: What to do with normal random numbers before they go in.

    Returns:
        Size of the last axis of the output.

    Raises:
        ShapeError: If the output is not (1, width).
    """
    some = next((p for p in net.parameters() if p.is_floating_point()), torch.empty(0))
    modes = {part: part.training for part in net.modules()}
    random = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    try:
        net.eval()
        with torch.no_grad():
            out = net(prepare(random.to(some)))
    finally:
        for part, mode in modes.items():
            part.training = mode
    if out.ndim != 2 or out.shape[0] != shape[0]:
        raise ShapeError(f"{type(net).__name__} must give (batch, width); got {tuple(out.shape)}")
    return int(out.shape[-1])
