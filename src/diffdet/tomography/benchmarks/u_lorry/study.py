"""How well a detector tells lorries with uranium from lorries without: the evaluation of every detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffdet.core.checks import check_in_range
from diffdet.core.errors import InputError
from diffdet.core.random import Stream, key_seed
from diffdet.kernels.calibration import fit_log_odds
from diffdet.kernels.ranking import order_error
from diffdet.tomography.benchmarks.u_lorry.data import ULorryPassiveGenerator
from diffdet.tomography.optimisation.callbacks.data_callbacks import MuonResampler
from diffdet.tomography.optimisation.callbacks.pred_callbacks import PredHandler
from diffdet.tomography.optimisation.data.passives import Passive, PassiveYielder
from diffdet.tomography.optimisation.wrapper.base import AbsVolumeWrapper
from diffdet.tomography.volume.volume import Volume

__all__ = ["Detection", "evaluate_detector", "pairs_of_lorries"]


@dataclass(frozen=True)
class Detection:
    """What a detector made of lorries that it has not seen.

    Attributes:
        with_uranium: ``(lorry,)`` log-odds for uranium, of lorries that have some.
        without: ``(lorry,)`` the same of the same lorries without it.
        slope: what the log-odds of the inferrer were multiplied with.
        offset: what was added to them afterwards.
    """

    with_uranium: Tensor
    without: Tensor
    slope: float = 1.0
    offset: float = 0.0

    @property
    def log_losses(self) -> Tensor:
        """``(2, lorry)`` minus the logarithm of the probability given to what was true, with and without uranium."""
        softplus = torch.nn.functional.softplus
        return torch.stack([softplus(-self.with_uranium), softplus(self.without)])

    def calibrated(self, on: Detection) -> Detection:
        """With the slope and offset of log-odds that suit other lorries best; see `kernels.calibration`."""
        slope, offset = fit_log_odds(on.with_uranium, on.without)
        return Detection(slope * self.with_uranium + offset, slope * self.without + offset, slope, offset)

    def figures(self) -> dict[str, float]:
        """Probability that a lorry with and one without come in the wrong order, and mean log-loss, with standard
        errors.
        """
        error, uncertainty = order_error(self.with_uranium, self.without)
        losses = self.log_losses.mean(0)  # the two of a pair have the scrap and the muons in common
        return {
            "order_error": error,
            "order_error_se": uncertainty,
            "log_loss": float(losses.mean()),
            "log_loss_se": float(losses.std()) / len(losses) ** 0.5,
        }


def pairs_of_lorries(volume: Volume, n_pairs: int, *, seed: int, **scene: Any) -> list[Passive]:
    """Lorries with uranium and, after each, the same lorry with scrap in its place.

    Args:
        volume: supplies the geometry.
        n_pairs: how many of each.
        seed: of the draws.
        scene: arguments of `ULorryPassiveGenerator`, but for the probability of uranium.

    Returns:
        ``(function, target)`` pairs.
    """
    check_in_range("n_pairs", n_pairs, 1)
    with_, without = (ULorryPassiveGenerator(volume, u_prob=p, **scene) for p in (1.0, 0.0))
    stream = Stream(seed, "pairs of lorries")
    return [source.get_data(generator=stream.generator(k)) for k in range(n_pairs) for source in (with_, without)]


class _LogOdds(PredHandler):
    """Notes the log-odds that the inferrer gives to uranium; no usable muons leave them even."""

    saved = ()
    transient = ("values",)

    def __init__(self, progress: Callable[[int], None] | None) -> None:
        super().__init__()
        self.progress = progress
        self.values: list[float] = []

    def on_pred_begin(self) -> None:
        """Forget earlier ones."""
        super().on_pred_begin()
        self.values = []

    def on_x0_pred_end(self) -> None:
        """Note one."""
        inferrer = self._fit.volume_inferrer
        if self._fit.pred is not None and not hasattr(inferrer, "log_odds"):
            raise InputError(
                "lorries need a volume inferrer with `log_odds`, such as ULorryLikelihoodClassifier; given: "
                f"{type(inferrer).__name__}"
            )
        self.values.append(0.0 if self._fit.pred is None else float(getattr(inferrer, "log_odds")))  # noqa: B009
        if self.progress is not None:
            self.progress(len(self.values))


def evaluate_detector(
    wrapper: AbsVolumeWrapper,
    *,
    seed: int,
    n_pairs: int = 200,
    n_calibration_pairs: int = 60,
    n_muons: int = 20_000,
    batch: int = 5_000,
    progress: Callable[[int], None] | None = None,
    **scene: Any,
) -> Detection:
    """Measure a detector: physical panels, held-out lorries.

    The inferrer weighs what muons say as if scrap were even, and is too sure of itself by a factor that depends on the
    detector. Its log-odds are therefore calibrated on other lorries, as a user would do with reference loads.

    Detectors evaluated with the same seed see the same lorries and muons.

    Args:
        wrapper: has the detector, the source of muons, and an inferrer with ``log_odds``.
        seed: of lorries and muons.
        n_pairs: lorries with and as many without uranium.
        n_calibration_pairs: others, that the log-odds are calibrated on; 0 leaves them as the inferrer gives them.
        n_muons: per lorry.
        batch: muons at a time.
        progress: called with the number of finished lorries.
        scene: arguments of `ULorryPassiveGenerator`, but for the probability of uranium.

    Returns:
        Detection.
    """
    check_in_range("n_calibration_pairs", n_calibration_pairs, 0)
    lorries = pairs_of_lorries(wrapper.volume, n_pairs, seed=seed, **scene)
    if n_calibration_pairs:
        other_seed = key_seed(seed, "calibration of lorries")
        lorries += pairs_of_lorries(wrapper.volume, n_calibration_pairs, seed=other_seed, **scene)
    handler = _LogOdds(progress)
    callbacks: list[Any] = [MuonResampler()]
    wrapper.predict(
        PassiveYielder(lorries, shuffle=False),
        n_muons,
        min(batch, n_muons),
        pred_cb=handler,
        cbs=callbacks,
        seed=key_seed(seed, "lorry evaluation"),
    )
    values = torch.tensor(handler.values, dtype=torch.float64).reshape(-1, 2)
    found = Detection(values[:n_pairs, 0], values[:n_pairs, 1])
    others = Detection(values[n_pairs:, 0], values[n_pairs:, 1])
    return found.calibrated(others) if n_calibration_pairs else found
