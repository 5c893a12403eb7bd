"""The task of designs that name no other: the loss on volumes that the optimisation has never seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffdet.core.checks import check_in_range
from diffdet.core.errors import NoHitsError
from diffdet.runs.tasks.base import AbsTask, Evaluation, Progress

if TYPE_CHECKING:
    from diffdet.runs.config import RunConfig
    from diffdet.tomography.volume.volume import Volume

MAX_VOXELS = 20_000
"""Most voxels of a volume whose predicted and true radiation lengths are kept for the report."""


class HeldOutLoss(AbsTask):
    """Loss of the initial and of the optimised detector, with hard-edged panels, on volumes and muons of their own.

    Both detectors see the same volumes and muons. The standard error is that over volumes.

    Args:
        volumes: Held-out volumes; for layouts and variants, how many of each.
        muons_per_volume: Muons sent through each; those of the configuration where None.
    """

    def __init__(self, volumes: int = 8, muons_per_volume: int | None = None) -> None:
        check_in_range("volumes", volumes, 1)
        if muons_per_volume is not None:
            check_in_range("muons_per_volume", muons_per_volume, 1)
        self.volumes = volumes
        self.muons_per_volume = muons_per_volume

    def shrink(self) -> None:
        """Two volumes of 128 muons."""
        self.volumes, self.muons_per_volume = min(self.volumes, 2), 128

    def evaluate(self, config: RunConfig, initial: Volume, final: Volume, progress: Progress) -> Evaluation:
        """Measure both detectors; see `AbsTask.evaluate`."""
        n_muons = self.muons_per_volume or config.muons.per_volume
        n_volumes = self.volumes * config.passives.n_kinds
        figures, cubes, notes = {}, {}, []
        for k, (name, volume) in enumerate((("initial", initial), ("final", final))):
            progress(k * n_volumes, 2 * n_volumes, name)
            losses, cube, n_lost = self._measure(config, volume, n_muons)
            if n_lost:
                lost = "every volume" if n_lost == n_volumes else f"{n_lost} of {n_volumes} volumes"
                notes.append(f"The {name} detector gave no prediction for {lost}: no muon left enough hits.")
            figures[name] = _figures(losses, volume)
            cubes[name] = cube
        progress(2 * n_volumes, 2 * n_volumes, "done")
        if all(values["loss"] is None for values in figures.values()):
            raise NoHitsError("no held-out volume gave a prediction: no muon left enough hits in either detector")
        return Evaluation(
            initial=figures["initial"],
            final=figures["final"],
            text=f"Loss on {n_volumes} held-out volumes, {n_muons} muons each, with hard-edged panels.",
            notes=notes,
            predictions=_drawing(cubes, final),
            n_muons=2 * n_volumes * n_muons,
            details={"n_test_volumes": n_volumes, "n_muons_per_volume": n_muons},
        )

    def _measure(self, config: RunConfig, volume: Volume, n_muons: int) -> tuple[list[float], Any, int]:
        """Losses of all volumes that gave a prediction, what was predicted for the first, and how many gave none."""
        from diffdet.runs.build import build_loss, build_wrapper, yield_passives
        from diffdet.runs.tasks.collect import CollectLosses
        from diffdet.tomography.optimisation.callbacks.data_callbacks import MuonResampler

        collector = CollectLosses(build_loss(config))
        resampled = any(callback.class_ == "MuonResampler" for callback in config.callbacks)
        build_wrapper(config, volume).predict(
            yield_passives(config, volume, "held out", self.volumes),
            n_muons,
            min(n_muons, config.muons.batch or n_muons),
            pred_cb=collector,
            cbs=[MuonResampler()] if resampled else [],
        )
        return collector.losses, collector.first, collector.n_without


def _figures(losses: list[float], volume: Volume) -> dict[str, Any]:
    cost = float(volume.get_cost().detach())
    if not losses:
        return {"loss": None, "loss_se": None, "cost": cost}
    values = torch.tensor(losses, dtype=torch.float64)
    error = float(values.std()) / len(losses) ** 0.5 if len(losses) > 1 else 0.0
    return {"loss": float(values.mean()), "loss_se": error, "cost": cost}


def _drawing(cubes: dict[str, Any], volume: Volume) -> dict[str, Any] | None:
    """Predicted and true radiation lengths of one volume, where that is what was predicted."""
    pairs = {name: pair for name, pair in cubes.items() if pair is not None}
    shape = volume.n_zxy
    fits = [isinstance(p, Tensor) and tuple(p.shape) == shape for p, _ in pairs.values()]
    if not pairs or not all(fits) or shape[0] * shape[1] * shape[2] > MAX_VOXELS:
        return None
    truth = next(iter(pairs.values()))[1]
    drawn: dict[str, Any] = {"truth": _rounded(truth)} | {name: _rounded(pred) for name, (pred, _) in pairs.items()}
    edges = [[round(float(edge), 9) for edge in axis] for axis in volume.voxel_edges()]
    return {"kind": "x0", "unit": "m", "edges": edges, **drawn}


def _rounded(cube: Tensor) -> list[Any]:
    """A cube as nested lists with six significant digits; null where nothing is known."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(inner) for inner in value]
        return float(f"{value:.6g}") if value == value and abs(value) != float("inf") else None

    found: list[Any] = plain(cube.detach().double().cpu().tolist())
    return found
