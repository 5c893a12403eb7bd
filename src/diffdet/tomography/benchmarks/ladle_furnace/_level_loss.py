"""Loss of predicted classes of the fill level."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from diffdet.kernels import voxels
from diffdet.tomography.optimisation.loss.loss import VolumeIntClassLoss

if TYPE_CHECKING:
    from diffdet.tomography.volume.volume import Volume

__all__ = ["LadleFurnaceIntClassLoss", "level_to_class"]


def level_to_class(target: Tensor, volume: Volume) -> Tensor:
    """Class of a fill level: how many layers above the floor are full.

    k = floor((h - z_low) / size) - 1, with the bottom z_low of the passive block and the voxel edge. A level on a
    layer's top fills it, however its height was rounded.

    Args:
        target: Level h, absolute, any shape, m.
        volume: The furnace.

    Returns:
        Whole numbers of the same shape; 0 is an empty furnace.
    """
    low, _ = volume.passive_box
    return voxels.snap((target - low[2]) / volume.passive_size).long() - 1


class LadleFurnaceIntClassLoss(VolumeIntClassLoss):
    """Integer class loss of the probabilities of `EdgeDetLadleFurnaceFillLevelInferrer`; the target is a level in m.

    Args:
        pred_int_start: Class that the first probability stands for.
        use_mse: Whether distances between classes are squared.
        target_budget: See `AbsDetectorLoss`, as for all others.
        budget_smoothing: Likewise.
        cost_coef: Likewise.
        steep_budget: Likewise.
        debug: Likewise.
    """

    def __init__(
        self,
        *,
        pred_int_start: int = 0,
        use_mse: bool,
        target_budget: float | None,
        budget_smoothing: float = 10,
        cost_coef: Tensor | float | None = None,
        steep_budget: bool = True,
        debug: bool = False,
    ) -> None:
        super().__init__(
            targ2int=level_to_class,
            pred_int_start=pred_int_start,
            use_mse=use_mse,
            target_budget=target_budget,
            budget_smoothing=budget_smoothing,
            cost_coef=cost_coef,
            steep_budget=steep_budget,
            debug=debug,
        )
