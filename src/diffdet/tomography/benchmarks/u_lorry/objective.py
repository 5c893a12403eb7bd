"""The objective that the built-in optimisation of the lorry portal follows."""

from __future__ import annotations

import torch
from torch import Tensor

from diffdet.core.checks import check_positive
from diffdet.core.errors import InputError
from diffdet.tomography.optimisation.callbacks.callback import Callback

__all__ = ["MissedBlockLoss"]


class MissedBlockLoss(Callback):
    """Replaces the mean loss of a batch of volumes by how probably a block is missed, wherever it lies.

    For every voxel above the floor, exp(-exposure * information) bounds the probability not to tell a voxel of
    uranium there from even scrap (`kernels.scatter_likelihood.bhattacharyya_distance`, summed over muons with their
    efficiencies); the loss is its mean over voxels and volumes. The exponential stops rewarding what is well seen
    already, so the detector has to see the whole lorry.

    The documented loss, the binary cross-entropy of whether there is uranium, fails here: a detector that sees little
    is punished for the little false evidence that it finds, and moves to where it sees nothing at all. In addition,
    only one muon in a hundred meets the uranium, so its gradients are noise. This one asks every muon what it *could*
    tell about each voxel on its way, from the errors of its own measurement, and needs neither uranium nor luck.

    Needs an inferrer with ``information``, such as `ULorryLikelihoodClassifier`.

    Args:
        exposure: muons in the detector's real use, per muon simulated, times the voxels of a block.
    """

    transient = ("_losses",)

    def __init__(self, exposure: float = 10.0) -> None:
        super().__init__()
        check_positive("exposure", exposure)
        self.exposure = exposure
        self._losses: list[Tensor] = []

    def on_volume_batch_begin(self) -> None:
        """Forget the last batch."""
        self._losses = []

    def on_x0_pred_end(self) -> None:
        """Note how much of a volume is missed."""
        params = self._fit
        if params.state == "test" or params.pred is None:
            return
        information = getattr(params.volume_inferrer, "information", None)
        if information is None:
            raise InputError(
                "`MissedBlockLoss` needs a volume inferrer with `information`, such as ULorryLikelihoodClassifier; "
                f"given: {type(params.volume_inferrer).__name__}"
            )
        self._losses.append(torch.exp(-self.exposure * information[1:]).mean().to(params.pred))

    def on_volume_batch_end(self) -> None:
        """Set the mean loss; None where no volume gave a prediction."""
        losses, self._losses = self._losses, []
        self._fit.mean_loss = torch.stack(losses).mean() if losses else None
