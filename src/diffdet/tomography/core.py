"""Names that all of tomography shares: the default device, physical constants, materials, and two types of function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from diffdet.core.constants import SCATTER_COEF_A, SCATTER_COEF_B
from diffdet.core.materials import DENSITIES, X0

__all__ = ["DENSITIES", "DEVICE", "SCATTER_COEF_A", "SCATTER_COEF_B", "X0", "PartialOpt", "RadLengthFunc"]

DEVICE = torch.device("cpu")
"""Default device of everything that takes one."""

PartialOpt = Callable[[Iterator[nn.Parameter]], Optimizer]
"""An optimiser that waits for its parameters, for example ``partial(torch.optim.SGD, lr=0.1)``."""


class RadLengthFunc(Protocol):
    """Gives the radiation lengths of one layer of voxels."""

    def __call__(self, *, z: Tensor, lw: Tensor, size: float) -> Tensor:
        """X0 of a layer.

        Args:
            z: ``(1,)`` height of the layer's top, m.
            lw: ``(2,)`` extent in x and y, m.
            size: voxel edge, m.

        Returns:
            ``(nx, ny)`` X0, m.
        """
        ...
