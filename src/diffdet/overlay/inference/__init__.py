"""Networks rewritten for speed: what their weights decide is computed once, no result changes beyond rounding.

Rewrites that all painters share: norms and spectral norms are folded into weights; doubling an image and convolving it
becomes four small convolutions (`diffdet.kernels.convolutions`); rows that would be cut off are not painted; channels
are last in memory; a few images at a time pass through, so that they stay in the cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from diffdet.overlay.inference.painter import Painter

__all__ = ["accelerate"]


def accelerate(model: nn.Module, *, precision: str = "float32", images: int | None = None) -> Painter:
    """A fast painter of the same images as a network.

    Args:
        model: A `ConvNet`, `ResNet` or `IeaGenerator`. Its weights are read, not kept.
        precision: ``"float32"``: results equal the network's to rounding. ``"float64"`` likewise, for checks.
            ``"bf16"``: faster where the processor has it, with 8 bits of precision in between: charges move by a
            few per cent.
        images: How many images pass at a time; what is best on the device when None.

    Returns:
        The painter, on the device of the model.

    Raises:
        InputError: If the model has no painter, or an argument is out of range.
    """
    from diffdet.core.errors import InputError
    from diffdet.overlay.inference.convnet import ConvNetPainter
    from diffdet.overlay.inference.iea import IeaPainter
    from diffdet.overlay.inference.resnet import ResNetPainter
    from diffdet.overlay.networks.convnet import ConvNet
    from diffdet.overlay.networks.iea import IeaGenerator
    from diffdet.overlay.networks.resnet import ResNet

    if isinstance(model, ConvNet):
        return ConvNetPainter(model, precision=precision, images=images)
    if isinstance(model, ResNet):
        return ResNetPainter(model, precision=precision, images=images)
    if isinstance(model, IeaGenerator):
        return IeaPainter(model, precision=precision, images=images)
    raise InputError(f"`model` must be a ConvNet, ResNet or IeaGenerator; got {type(model).__name__}")
