"""What part a pixel plays in its cluster: how large the cluster is and on which sides other pixels touch it.

The charge of a pixel depends on its role: ends of a track hold less than its middle, single pixels have a spectrum of
their own. Roles are counted the same way for clusters that were found and for shapes that will be drawn.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

__all__ = ["N_ROLES", "SIZE_CLASSES", "role_of", "size_class"]

SIZE_CLASSES: Final = (1, 2, 3, 4, 6, 10, 20)
"""Smallest number of pixels of every class of size."""

_N_SIDES: Final = 27

N_ROLES: Final = len(SIZE_CLASSES) * _N_SIDES
"""Number of roles."""


def size_class(size: Tensor) -> Tensor:
    """Class of size, 0 to ``len(SIZE_CLASSES) - 1``, of clusters of some numbers of pixels."""
    return torch.searchsorted(torch.tensor(SIZE_CLASSES), size, right=True) - 1


def role_of(size: Tensor, pairs: tuple[tuple[Tensor, Tensor], ...]) -> Tensor:
    """Role of every pixel.

    Args:
        size: ``(pixel,)`` number of pixels of the cluster that each belongs to.
        pairs: Touching pixels, for every step of `diffdet.overlay.clustering.NEIGHBOURS`: along u, two diagonals with
            v between them.

    Returns:
        ``(pixel,)`` roles, from 0 to ``N_ROLES - 1``.
    """
    n = len(size)
    along_u, first_diagonal, along_v, second_diagonal = (
        torch.bincount(one, minlength=n) + torch.bincount(other, minlength=n) for one, other in pairs
    )
    diagonal = (first_diagonal + second_diagonal).clamp_max(2)
    return (size_class(size) * 3 + along_u) * 9 + along_v * 3 + diagonal
