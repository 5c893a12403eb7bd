"""The scene of the published speed test, written once for every package that offers the documented interface.

The module holds no import of any package under test: `Scene("tomopt")` and `Scene("diffdet.tomography")` run the same
lines, so the two sides of the benchmark cannot drift apart. It uses documented names only.
"""

from __future__ import annotations

import time
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from statistics import fmean, variance
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

N_VOXELS_ACROSS = 10
VOXEL_SIZE = 0.1  # m
PASSIVE_TOPS = (0.8, 0.7, 0.6, 0.5, 0.4, 0.3)  # m
LEAD_TOPS = (0.5, 0.4)  # m, tops of the two layers that hold the lead
PANELS_ABOVE = (1.0, 0.95, 0.9, 0.85)  # m
PANELS_BELOW = (0.2, 0.15, 0.1, 0.05)  # m
TARGET_BUDGET = 20.0
# Small enough that the panels stay where they are while the full machinery of an update runs.
LEARNING_RATE = 1e-9


class Scene:
    """One metre cube: six passive layers of 0.1 m voxels between four panels above and four below.

    Args:
        root: import path of the package under test, e.g. ``"diffdet.tomography"``.
        centre_xy: x and y of every panel's centre, m.
        span: width of every panel in x and in y, m.
        budget: fixed budget shared between the panels; None lets the cost follow from the spans.
        learning_rate: rate of the plain SGD optimisers of every parameter family.
        cost_coef: weight of the cost in the loss; None takes the first error seen, as both packages do.
        wrapper_options: keyword arguments that only some packages know, e.g. ``{"seed": 0}``.
    """

    def __init__(
        self,
        root: str,
        *,
        centre_xy: tuple[float, float] = (0.5, 0.5),
        span: float = 2.0,
        budget: float | None = None,
        learning_rate: float = LEARNING_RATE,
        cost_coef: float | None = None,
        wrapper_options: dict[str, Any] | None = None,
    ) -> None:
        self.root = root
        self.x0: dict[str, float] = self._names("core").X0
        self.centre_xy, self.span = centre_xy, span
        self.volume = self._build_volume(budget)
        sgd = partial(torch.optim.SGD, lr=learning_rate)
        optimisers = {"xy_pos_opt": sgd, "z_pos_opt": sgd, "xy_span_opt": sgd}
        if budget is not None:
            optimisers["budget_opt"] = sgd
        self.wrapper = self._names("optimisation.wrapper.volume_wrapper").PanelVolumeWrapper(
            self.volume,
            **optimisers,
            loss_func=self._names("optimisation.loss.loss").VoxelX0Loss(
                target_budget=None if budget is not None else TARGET_BUDGET, cost_coef=cost_coef
            ),
            **(wrapper_options or {}),
        )

    def _names(self, path: str) -> Any:
        return import_module(f"{self.root}.{path}")

    def _build_volume(self, budget: float | None) -> Any:
        layer = self._names("volume.layer")
        lw = torch.tensor([1.0, 1.0])
        layers = [
            layer.PanelDetectorLayer("above", lw=lw, z=1.0, size=0.2, panels=self._build_panels(PANELS_ABOVE)),
            *(layer.PassiveLayer(lw=lw, z=top, size=VOXEL_SIZE) for top in PASSIVE_TOPS),
            layer.PanelDetectorLayer("below", lw=lw, z=0.2, size=0.2, panels=self._build_panels(PANELS_BELOW)),
        ]
        return self._names("volume.volume").Volume(nn.ModuleList(layers), budget=budget)

    def _build_panels(self, heights: tuple[float, ...]) -> list[Any]:
        make = self._names("volume.panel").DetectorPanel
        return [
            make(res=1e4, eff=0.9, init_xyz=(*self.centre_xy, z), init_xy_span=(self.span, self.span)) for z in heights
        ]

    def layout(self, *, z: Tensor, lw: Tensor, size: float) -> Tensor:  # noqa: ARG002 (the documented signature)
        """Radiation lengths of one layer: beryllium, with lead in one quadrant of two layers. (x, y), m."""
        cells = torch.full((N_VOXELS_ACROSS, N_VOXELS_ACROSS), self.x0["beryllium"])
        if any(abs(float(z) - top) < VOXEL_SIZE / 10 for top in LEAD_TOPS):
            cells[N_VOXELS_ACROSS // 2 :, N_VOXELS_ACROSS // 2 :] = self.x0["lead"]
        return cells

    def _passives(self) -> Any:
        return self._names("optimisation.data.passives").PassiveYielder([self.layout])

    def _resampler(self) -> Any:
        return self._names("optimisation.callbacks.data_callbacks").MuonResampler()

    def predict(self, muons: int, batch: int) -> Tensor:
        """Radiation lengths of the voxels seen by `muons` resampled muons, (z, x, y), m."""
        with TemporaryDirectory() as scratch:
            (prediction, _truth), *_ = self.wrapper.predict(
                self._passives(), muons, batch, cbs=[self._resampler()], cb_savepath=Path(scratch)
            )
        return torch.as_tensor(prediction)

    def fit(
        self, muons: int, batch: int, steps: int, extra: list[Any] | None = None
    ) -> tuple[list[float], list[float]]:
        """Run `steps` optimisation steps of `muons` muons each.

        A step is what lies between two epochs of one volume: layout, muons, inference, loss, backward, update.

        Returns:
            Seconds of every step by the clock, and of processor time.
        """
        clock = self._step_clock()
        with TemporaryDirectory() as scratch:
            self.wrapper.fit(
                steps, 1, muons, batch, self._passives(), None,
                cbs=[clock, self._resampler(), *(extra or [])], cb_savepath=Path(scratch),
            )  # fmt: skip
        wall, cpu = zip(*clock.ticks, strict=True)
        return [b - a for a, b in pairwise(wall)], [b - a for a, b in pairwise(cpu)]

    def _step_clock(self) -> Any:
        base = self._names("optimisation.callbacks.callback").Callback

        class StepClock(base):
            """Notes the time at the start of every epoch and at the end of the fit."""

            def __init__(self) -> None:
                super().__init__()
                self.ticks: list[tuple[float, float]] = []

            def on_epoch_begin(self) -> None:
                self.ticks.append((time.perf_counter(), time.process_time()))

            def on_train_end(self) -> None:
                self.on_epoch_begin()

        return StepClock()


def separation(prediction: Tensor) -> float:
    """Contrast of beryllium and lead as the published speed test defines it: a sanity figure, not a quality claim.

    (mean_Be - mean_Pb) / sqrt(std_Pb^2 + 2 std_Be), with lead in layers 1 and 2 (from below) of the quadrant
    x, y >= 0.5 and beryllium everywhere else. The missing square is the published definition's.
    """
    half = N_VOXELS_ACROSS // 2
    is_lead = torch.zeros(prediction.shape, dtype=torch.bool)
    is_lead[1:3, half:, half:] = True
    lead, beryllium = prediction[is_lead].tolist(), prediction[~is_lead].tolist()
    return (fmean(beryllium) - fmean(lead)) / (variance(lead) + 2 * variance(beryllium) ** 0.5) ** 0.5
