"""What a fit knows about itself: the object that callbacks read and write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from diffdet.loop.state import LoopState
from diffdet.tomography.core import DEVICE

if TYPE_CHECKING:
    from diffdet.loop.callbacks import Callback as LoopCallback
    from diffdet.tomography.inference.scattering import ScatterBatch
    from diffdet.tomography.inference.volume import AbsVolumeInferrer
    from diffdet.tomography.muon.muon_batch import MuonBatch
    from diffdet.tomography.optimisation.callbacks.cyclic_callbacks import CyclicCallback
    from diffdet.tomography.optimisation.callbacks.eval_metric import EvalMetric
    from diffdet.tomography.optimisation.callbacks.monitors import MetricLogger
    from diffdet.tomography.optimisation.callbacks.warmup_callbacks import WarmupCallback
    from diffdet.tomography.optimisation.data.passives import PassiveYielder

__all__ = ["FitParams"]


class FitParams(LoopState):
    """State of a fit or a prediction of a volume wrapper.

    It is the state of the loop, with the documented fields of this wing: ``wrapper.fit_params.epoch`` and
    ``callback.state.epoch`` are one thing. Setting a field that is not declared is an error.

    Args:
        **kwargs: Fields to begin with.

    Attributes:
        state: ``"train"``, ``"valid"`` or ``"test"``; the loop's `phase`.
        skip_opt_step: Whether updates are frozen; the loop's ``update.frozen``.
        volume_id: Number of the passive volume in its epoch.
        pred: Prediction for the volume; None where no muon could be used.
        loss_val: Sum of the losses of the volumes of this batch so far.
        mean_loss: Mean loss of the batch over the volumes that gave a prediction.
        mu: Batch of muons in flight.
        sb: Scatterings of that batch.
        volume_inferrer: What infers the volume from the scatterings.
        n_muons: Muons simulated since the fit began.
        volume_losses: Number and loss of each volume of this batch that gave a prediction.
        replay_key: Key of the random stream of the volume in progress: the same muons again.
        cbs: Callbacks of the fit.
        warmup_cbs: Those that warm up.
        cyclic_cbs: Those that are cyclic.
        metric_cbs: Those that are metrics.
        metric_log: The first that logs metrics.
        cb_savepath: Where callbacks write to.
        epoch_bar: Unused: progress is a callback.
        passive_bar: Unused.

    Raises:
        InputError: If a name is not a field.
    """

    cb_savepath: Path | None = None
    cbs: list[LoopCallback] | None = None
    cyclic_cbs: list[CyclicCallback] | None = None
    device: torch.device = DEVICE
    epoch_bar: Any = None
    loss_val: Tensor | None = None
    mean_loss: Tensor | None = None
    metric_cbs: list[EvalMetric] | None = None
    metric_log: MetricLogger | None = None
    mu: MuonBatch | None = None
    mu_bs: int | None = None
    n_mu_per_volume: int | None = None
    n_muons: int = 0
    passive_bar: Any = None
    passive_bs: int | None = None
    pred: Tensor | None = None
    replay_key: tuple[int | str, ...] | None = None
    sb: ScatterBatch | None = None
    trn_passives: PassiveYielder | None = None
    tst_passives: PassiveYielder | None = None
    val_passives: PassiveYielder | None = None
    volume_id: int | None = None
    volume_inferrer: AbsVolumeInferrer | None = None
    volume_losses: list[tuple[int, Tensor]]
    warmup_cbs: list[WarmupCallback] | None = None

    saved: ClassVar[tuple[str, ...]] = (*LoopState.saved, "n_muons")

    def __init__(self, **kwargs: Any) -> None:
        self.volume_losses = []
        super().__init__(**kwargs)

    @property
    def state(self) -> str | None:
        """``"train"``, ``"valid"`` or ``"test"``."""
        return self.phase

    @state.setter
    def state(self, state: str | None) -> None:
        self.phase = state

    @property
    def skip_opt_step(self) -> bool:
        """Whether updates compute gradients but leave the parameters; warm-ups set it."""
        return self.update is not None and self.update.frozen

    @skip_opt_step.setter
    def skip_opt_step(self, skip: bool) -> None:
        if self.update is not None:
            self.update.frozen = bool(skip)

    def forget_muons(self) -> None:
        """Let go of what belongs to one volume, graphs included."""
        self.mu = self.sb = self.volume_inferrer = None
        self.pred = self.loss_val = self.mean_loss = None
        self.volume_losses = []

    def describe(self) -> dict[str, Any]:
        """Where the fit stands, which volumes' losses are not finite, and which muons of the last batch are not."""
        bad = [number for number, loss in self.volume_losses if not bool(torch.isfinite(loss.detach()).all())]
        told: dict[str, Any] = {**super().describe(), "volume": bad[0] if bad else self.volume_id}
        if self.replay_key is not None:
            told["replay key"] = (*self.replay_key[:-1], told["volume"])
        muons = self._muons_not_finite()
        return {**told, "muons": muons} if muons else told

    def _muons_not_finite(self, most: int = 10) -> list[int]:
        """Numbers of muons of the last batch whose point of closest approach is not finite."""
        if self.sb is None or len(self.sb) == 0:
            return []
        with torch.no_grad():
            finite = torch.isfinite(torch.cat([self.sb.poca_xyz, self.sb.poca_xyz_unc], 1)).all(1)
        return self.sb.mu.ids[~finite][:most].tolist()
