"""How well a detector measures the fill height: the evaluation that every detector of the study goes through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from diffdet.core.checks import check_positive
from diffdet.core.errors import NoHitsError
from diffdet.core.random import key_seed
from diffdet.kernels.fill_level import fit_correction
from diffdet.tomography.benchmarks.ladle_furnace.data import LadleFurnacePassiveGenerator
from diffdet.tomography.benchmarks.ladle_furnace.inference import PocaZLadleFurnaceFillLevelInferrer
from diffdet.tomography.inference.volume import AbsVolumeInferrer
from diffdet.tomography.optimisation.callbacks.data_callbacks import MuonResampler
from diffdet.tomography.optimisation.callbacks.pred_callbacks import VolumeTargetPredHandler
from diffdet.tomography.optimisation.data.passives import Passive, PassiveYielder
from diffdet.tomography.optimisation.wrapper.volume_wrapper import ArbVolumeWrapper
from diffdet.tomography.volume.volume import Volume

__all__ = ["FILL_HEIGHTS", "FillLevelResult", "evaluate_detector", "fixed_fill_levels", "make_volume"]

FILL_HEIGHTS = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
"""Fill heights of the study, m above the floor of the hall (the furnace stands from 0.4 m to 1.4 m)."""

SLAG_THICKNESS = 0.1
"""Slag on the liquid steel, m."""


@dataclass(frozen=True)
class FillLevelResult:
    """Measured performance of one detector on volumes that it has not seen.

    Attributes:
        targets: true fill heights of the test volumes, m.
        raw: predictions before the linear correction, m.
        predictions: predictions after it, m.
        weight: slope of the correction, fitted on other volumes.
        bias: intercept of the correction, m.
        n_muons: muons generated per volume.
        n_calibration: volumes that the correction was fitted on.
    """

    targets: Tensor
    raw: Tensor
    predictions: Tensor
    weight: float
    bias: float
    n_muons: int
    n_calibration: int

    @property
    def squared_errors(self) -> Tensor:
        """Squared error of every test volume, m^2."""
        return (self.predictions - self.targets).square()

    def figures(self) -> dict[str, float]:
        """Mean squared error [m^2] and mean absolute error [m] with standard errors, and the correction."""
        square, absolute = self.squared_errors, (self.predictions - self.targets).abs()
        root_n = len(square) ** 0.5
        return {
            "mse_m2": float(square.mean()),
            "mse_m2_se": float(square.std()) / root_n,
            "abs_bias_m": float(absolute.mean()),
            "abs_bias_m_se": float(absolute.std()) / root_n,
            "correction_weight": self.weight,
            "correction_bias_m": self.bias,
            "n_volumes": float(len(square)),
            "n_muons_per_volume": float(self.n_muons),
        }


def fixed_fill_levels(
    volume: Volume, heights: Sequence[float], n_repeats: int, *, slag: float = SLAG_THICKNESS
) -> list[Passive]:
    """Layouts of given fill heights, each ``n_repeats`` times, with their targets.

    Args:
        volume: supplies the geometry.
        heights: fill heights, m.
        n_repeats: layouts per height.
        slag: thickness of the slag, m.

    Returns:
        ``(function, target)`` pairs; all heights once, then all again, and so on.
    """
    check_positive("n_repeats", n_repeats)
    generator = LadleFurnacePassiveGenerator(volume)
    return [generator.get_data(fixed_mat_z=h, fixed_slag_z=h + slag) for h in heights] * n_repeats


def evaluate_detector(
    volume: Volume,
    *,
    seed: int,
    n_muons: int = 1000,
    n_repeats: int = 40,
    n_calibration_repeats: int = 40,
    heights: Sequence[float] = FILL_HEIGHTS,
    smooth: float = 1.0,
    inferrer: Callable[..., AbsVolumeInferrer] | None = None,
    progress: Callable[[float], None] | None = None,
) -> FillLevelResult:
    """Measure a detector: physical panels, held-out volumes, the linear correction fitted on other volumes.

    The correction is fitted on ``n_calibration_repeats`` volumes per height and applied to ``n_repeats`` others.
    Detectors evaluated with the same seed see the same muons.

    Args:
        volume: detector and furnace; put into evaluation mode and back.
        seed: of the held-out muons.
        n_muons: per volume.
        n_repeats: test volumes per height.
        n_calibration_repeats: calibration volumes per height.
        heights: true fill heights, m.
        smooth: of the default inferrer's lateral gate.
        inferrer: called with ``volume=`` for what predicts the fill height; None for
            `PocaZLadleFurnaceFillLevelInferrer`, as in the published study.
        progress: called with the finished share in [0, 1].

    Returns:
        FillLevelResult.

    Raises:
        NoHitsError: a volume gave no prediction because no muon could be used.
    """
    was_training = volume.training
    wrapper = ArbVolumeWrapper(
        volume,
        opts={},
        partial_volume_inferrer=inferrer or partial(PocaZLadleFurnaceFillLevelInferrer, smooth=smooth),
        seed=key_seed(seed, "ladle furnace evaluation"),
    )
    n_all = n_calibration_repeats + n_repeats
    layouts = fixed_fill_levels(volume, heights, n_all)
    handler = VolumeTargetPredHandler()
    try:
        found = wrapper.predict(
            PassiveYielder(layouts, shuffle=False), n_muons, n_muons, pred_cb=handler, cbs=[MuonResampler()]
        )
    finally:
        volume.train(was_training)
    if progress is not None:
        progress(1.0)
    raw = torch.tensor([float(pred.reshape(-1)[0]) for pred, _ in found], dtype=torch.float64)
    n_blind = int(raw.isnan().sum())
    if n_blind:
        raise NoHitsError(f"{n_blind} of {len(found)} volumes gave no prediction: no muon has two hits above and below")
    targets = torch.tensor([float(target.reshape(-1)[0]) for _, target in found], dtype=torch.float64)
    cut = n_calibration_repeats * len(heights)
    weight, bias = fit_correction(raw[:cut], targets[:cut])
    return FillLevelResult(
        targets[cut:],
        raw[cut:],
        weight * raw[cut:] + bias,
        float(weight),
        float(bias),
        n_muons,
        cut,
    )


def make_volume(layers: Callable[[], nn.ModuleList], budget: float = 6.0) -> Volume:
    """A furnace with a detector under a fixed budget.

    Args:
        layers: for example ``get_initial_detector``.
        budget: total cost, unit currency (1 per m^2 of panel).
    """
    return Volume(layers(), budget=budget)
