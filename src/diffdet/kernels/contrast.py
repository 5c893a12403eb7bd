"""How much an image looks like what it is an image of."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from diffdet.kernels.safe_math import safe_divide, safe_sqrt

__all__ = ["layer_correlation"]


def layer_correlation(image: Float[Tensor, "z x y"], truth: Float[Tensor, "z x y"]) -> Float[Tensor, ""]:
    """Correlation of two cubes, both without the mean of each of their layers.

    What an image says about a layer as a whole, such as a bias that grows with depth, does not enter, nor do scale and
    offset of the image.

    Differentiable in: image, truth.

    Args:
        image: any unit.
        truth: any unit.

    Returns:
        Correlation in [-1, 1]; 0 where one of them is the same all over each layer.
    """
    a, b = (cube - cube.mean((1, 2), keepdim=True) for cube in (image, truth))
    return safe_divide((a * b).sum(), safe_sqrt((a * a).sum()) * safe_sqrt((b * b).sum()))
