"""The loss that the built-in optimisation of the buried walls follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from diffdet.core.errors import ShapeError
from diffdet.kernels.contrast import layer_correlation
from diffdet.tomography.optimisation.loss.loss import AbsDetectorLoss

if TYPE_CHECKING:
    from diffdet.tomography.volume.volume import Volume

__all__ = ["ContrastLoss"]


class ContrastLoss(AbsDetectorLoss):
    """One minus the correlation between the logarithms of predicted and true radiation lengths, layer by layer.

    The squared error of X0 (`VoxelX0Loss`) is no guide here. The map from points of closest approach is biased by
    factors that depend on the depth: a detector lowers that error by being biased less, not by showing the walls, and a
    single voxel that was predicted too thin outweighs all others. The correlation asks only whether walls look denser
    than the soil beside them, and so does somebody who looks for them. It holds for two materials and for many.

    Args:
        target_budget: See `AbsDetectorLoss`, as for all others.
        budget_smoothing: Likewise.
        cost_coef: Likewise.
        steep_budget: Likewise.
        debug: Likewise.
    """

    def _get_inference_loss(self, pred: Tensor, volume: Volume) -> Tensor:
        target = volume.get_rad_cube()
        if pred.shape != target.shape:
            raise ShapeError(
                f"`pred` must have the shape of the voxels, {tuple(target.shape)}; got {tuple(pred.shape)}"
            )
        return 1 - layer_correlation(pred.log(), target.to(pred).log())
