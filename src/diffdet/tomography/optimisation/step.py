"""One step of an optimisation: load volumes, irradiate them, infer, compute the loss, update the detector."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffdet.core.errors import CheckpointError, InputError, NoMuonsWarning
from diffdet.core.random import MuonStream, Stream
from diffdet.loop.events import Fire
from diffdet.loop.state import LoopState
from diffdet.loop.update import Update
from diffdet.tomography.core import RadLengthFunc
from diffdet.tomography.inference.scattering import ScatterBatch
from diffdet.tomography.inference.volume import AbsVolumeInferrer
from diffdet.tomography.muon.generation import AbsMuonGenerator
from diffdet.tomography.muon.muon_batch import MuonBatch
from diffdet.tomography.optimisation import rebuild
from diffdet.tomography.optimisation.data.passives import PassiveYielder
from diffdet.tomography.optimisation.events import VOLUME_EVENTS
from diffdet.tomography.optimisation.fit_params import FitParams
from diffdet.tomography.volume.volume import Volume

__all__ = ["LossFunction", "PassiveVolume", "VolumeStep", "check_counts", "volume_batches"]

LossFunction = Callable[[Tensor, Volume], Tensor]
"""Loss of a prediction for a volume; detector losses also say its parts in ``sub_losses``."""


class PassiveVolume(NamedTuple):
    """A layout to load: its number in the epoch, its radiation lengths, and what is true of it."""

    number: int
    rad_length_func: RadLengthFunc
    target: Tensor | None


def volume_batches(
    passives: PassiveYielder, size: int, stream: Stream, *, shuffle: bool | None = None
) -> Iterator[list[PassiveVolume]]:
    """Batches of the layouts of one epoch. The last one is smaller where their number is no multiple.

    Args:
        passives: Source of layouts.
        size: Layouts to a batch.
        stream: What order or random layouts come from.
        shuffle: Whether to shuffle a list; None does as the source was told.
    """
    batch: list[PassiveVolume] = []
    for number, (function, target) in enumerate(passives.epoch(stream, shuffle=shuffle)):
        batch.append(PassiveVolume(number, function, target))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class VolumeStep:
    """What happens to a batch of passive volumes.

    Each is loaded, irradiated batch by batch, inferred, and its loss added. In training, the mean loss over the volumes
    that gave a prediction is passed to the update. Muons are keyed by (seed, state, epoch, volume), without the epoch
    when validating or predicting: so the detector is judged by the same muons every time, and neither the size of the
    batches nor a validation in between changes what is simulated. The size of the batches changes a gradient by
    rounding only.

    Args:
        volume: Volume with the detectors.
        mu_generator: Source of muons.
        partial_scatter_inferrer: Called with ``mu`` and ``volume`` after every batch of muons.
        partial_volume_inferrer: Called with ``volume`` for every passive volume.
        loss_func: Loss of a prediction; None where only predictions are wanted.
        update: What changes the detector in training.
        n_mu_per_volume: Muons to a volume, all of which are used.
        mu_bs: Most muons to a batch.
        stream: Root of all random numbers.
    """

    events = tuple(VOLUME_EVENTS)
    needs_grad = False

    def __init__(
        self,
        volume: Volume,
        *,
        mu_generator: AbsMuonGenerator,
        partial_scatter_inferrer: Callable[..., ScatterBatch],
        partial_volume_inferrer: Callable[..., AbsVolumeInferrer],
        loss_func: LossFunction | None,
        update: Update,
        n_mu_per_volume: int,
        mu_bs: int,
        stream: Stream,
    ) -> None:
        self.volume = volume
        self.mu_generator = mu_generator
        self.partial_scatter_inferrer = partial_scatter_inferrer
        self.partial_volume_inferrer = partial_volume_inferrer
        self.loss_func = loss_func
        self.updates: Sequence[Update] = [update]
        self.n_mu_per_volume = n_mu_per_volume
        self.mu_bs = mu_bs
        self.stream = stream

    def train(self, mode: bool) -> None:
        """Change the volume between training and evaluation."""
        self.volume.train(mode)

    def __call__(self, batch: Sequence[PassiveVolume], state: LoopState, fire: Fire) -> dict[str, Tensor | float]:
        """Scan a batch of volumes and, in training, update the detector."""
        assert isinstance(state, FitParams)
        state.forget_muons()
        if state.phase != "test":
            fire("on_volume_batch_begin")
        parts: dict[str, list[Tensor]] = {}
        keeps_graphs = state.phase != "train" or len(batch) * self.n_mu_per_volume <= rebuild.KEEP_GRAPHS_UP_TO
        for passive in batch:
            self._scan(passive, state, fire, keeps_graphs=keeps_graphs)
            self._add_loss(passive, state, parts)
            fire("on_volume_end")
        if state.phase == "test":
            return {}
        return self._finish(batch, state, fire, parts)

    # ------------------------------------------------------------------------------------------------------- one volume
    def _muons_of(self, passive: PassiveVolume, state: FitParams) -> MuonStream:
        """Random stream of the muons of a volume."""
        epoch = (state.epoch,) if state.phase == "train" else ()
        stream = self.stream.child(str(state.phase), *epoch, passive.number)
        state.replay_key = stream.key
        return stream.muons()

    def _scan(self, passive: PassiveVolume, state: FitParams, fire: Fire, *, keeps_graphs: bool) -> None:
        """Load a volume, irradiate it and infer it."""
        volume = self.volume
        muons = self._muons_of(passive, state)
        state.volume_id = passive.number
        volume.load_rad_length(passive.rad_length_func, passive.target)
        state.volume_inferrer = inferrer = self.partial_volume_inferrer(volume=volume)
        rebuilds = not keeps_graphs and getattr(inferrer, "rows_suffice", False)
        if (rebuilds or state.phase != "train") and hasattr(inferrer, "retain_muons"):
            inferrer.retain_muons = False  # nothing will be asked of single muons: memory stays flat
        fire("on_volume_begin")
        for first in range(0, self.n_mu_per_volume, self.mu_bs):
            n = min(self.mu_bs, self.n_mu_per_volume - first)
            kinematics = self.mu_generator(n, stream=muons, start=first)
            state.mu = MuonBatch(kinematics, init_z=volume.h, device=volume.device, stream=muons, first=first)
            state.n_muons += n
            fire("on_mu_batch_begin")
            if rebuilds:
                inferrer.add_rows(self._rows_to_rebuild(state, fire, inferrer))
            else:
                volume(state.mu)
                state.sb = self.partial_scatter_inferrer(mu=state.mu, volume=volume)
                fire("on_scatter_end")
                inferrer.add_scatters(state.sb)
            fire("on_mu_batch_end")
        fire("on_x0_pred_begin")
        state.pred = inferrer.get_prediction()
        fire("on_x0_pred_end")

    def _rows_to_rebuild(self, state: FitParams, fire: Fire, inferrer: AbsVolumeInferrer) -> tuple[Tensor, ...]:
        """What the inference needs of the muons in flight, without keeping their graph."""

        def seen(scatters: ScatterBatch) -> None:
            state.sb = scatters
            fire("on_scatter_end")

        assert state.mu is not None
        return rebuild.rows_to_rebuild(state.mu, self.volume, self.partial_scatter_inferrer, inferrer, seen)

    def _add_loss(self, passive: PassiveVolume, state: FitParams, parts: dict[str, list[Tensor]]) -> None:
        """Add the loss of a volume, and note its parts."""
        if state.pred is None:
            warnings.warn(
                f"volume {passive.number} has no prediction: none of its {self.n_mu_per_volume} muons could be used",
                NoMuonsWarning,
                stacklevel=2,
            )
            return
        if self.loss_func is None or state.phase == "test":
            return
        loss = self.loss_func(state.pred, self.volume)
        state.loss_val = loss if state.loss_val is None else state.loss_val + loss
        state.volume_losses.append((passive.number, loss))
        sub_losses: Mapping[str, Tensor] = getattr(self.loss_func, "sub_losses", {})
        for name, part in sub_losses.items():
            parts.setdefault(name, []).append(part.detach().reshape(()))

    # -------------------------------------------------------------------------------------------------- batch of
    # volumes
    def _finish(
        self, batch: Sequence[PassiveVolume], state: FitParams, fire: Fire, parts: Mapping[str, list[Tensor]]
    ) -> dict[str, Tensor | float]:
        """Form the mean loss, update the detector, and give the metrics of the batch."""
        if state.loss_val is not None:
            state.mean_loss = state.loss_val / len(state.volume_losses)
        fire("on_volume_batch_end")
        mean_loss = state.mean_loss
        if mean_loss is None:
            if state.phase == "train":
                warnings.warn(
                    f"none of the volumes {[p.number for p in batch]} gave a prediction: the detector is not updated",
                    NoMuonsWarning,
                    stacklevel=2,
                )
            return {}
        if state.phase == "train":
            self.updates[0](mean_loss, fire)
        # The values stay for whoever reads them; the graph behind them does not.
        state.mean_loss = mean_loss.detach()
        state.loss_val = None if state.loss_val is None else state.loss_val.detach()
        state.volume_losses = [(number, loss.detach()) for number, loss in state.volume_losses]
        metrics: dict[str, Tensor | float] = {"loss": state.mean_loss.reshape(())}
        return metrics | {name: torch.stack(values).mean() for name, values in parts.items()}

    # ------------------------------------------------------------------------------------------------- save and restore
    def state_dict(self) -> dict[str, Any]:
        """Detector, loss, and where random numbers come from."""
        return {
            "volume": self.volume.state_dict(),
            "loss": _loss_state(self.loss_func),
            "n_mu_per_volume": self.n_mu_per_volume,
            "stream": list(self.stream.key),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            CheckpointError: If the volume or the number of muons is another one.
        """
        if state["n_mu_per_volume"] != self.n_mu_per_volume:
            raise CheckpointError(
                f"the fit was saved with `n_mu_per_volume` = {state['n_mu_per_volume']}; got {self.n_mu_per_volume}"
            )
        load_volume(self.volume, state["volume"])
        _load_loss(self.loss_func, state["loss"])
        self.stream = Stream(*state["stream"])


def load_volume(volume: Volume, state: Mapping[str, Tensor]) -> None:
    """Give a volume its saved parameters.

    Raises:
        CheckpointError: If it has other layers, panels or parameters than the one that was saved.
    """
    try:
        volume.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"the saved volume does not fit this one: {error}") from error
    volume.assign_budget()


def _loss_state(loss: LossFunction | None) -> dict[str, Any]:
    """What a loss learns while fitting: buffers, and the weight of the cost."""
    own = loss.state_dict() if isinstance(loss, nn.Module) else {}
    return {"own": own, "cost_coef": getattr(loss, "__dict__", {}).get("cost_coef")}


def _load_loss(loss: LossFunction | None, state: Mapping[str, Any]) -> None:
    if isinstance(loss, nn.Module):
        loss.load_state_dict(state["own"])
    if state["cost_coef"] is not None and loss is not None:
        vars(loss)["cost_coef"] = state["cost_coef"]


def check_counts(**counts: int) -> None:
    """Refuse numbers of epochs, volumes or muons that are not whole or below 1.

    Raises:
        InputError: If one is not; the message names it.
    """
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
            raise InputError(f"`{name}` must be a whole number of at least 1; got {count!r}")
