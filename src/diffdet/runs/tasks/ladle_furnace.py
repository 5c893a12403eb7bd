"""The fill level of a ladle furnace: initial and optimised detector beside two designs made by people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffdet.runs.tasks.base import AbsTask, Evaluation, Progress

if TYPE_CHECKING:
    from diffdet.runs.config import RunConfig
    from diffdet.tomography.volume.volume import Volume


class LadleFurnace(AbsTask):
    """Squared error of the fill level on volumes that the optimisation has never seen.

    Every detector sees the same held-out volumes and muons, with physical panels. The linear correction of each
    detector is fitted on ``n_calibration_repeats`` volumes per height and judged on ``n_repeats`` others, against the
    true fill heights.

    Args:
        n_repeats: Test volumes per fill height.
        n_calibration_repeats: Calibration volumes per fill height.
        n_muons: Muons per volume.
        baselines: Whether to measure the two human designs too.
    """

    def __init__(
        self, n_repeats: int = 24, n_calibration_repeats: int = 24, n_muons: int = 1000, *, baselines: bool = True
    ) -> None:
        self.n_repeats = n_repeats
        self.n_calibration_repeats = n_calibration_repeats
        self.n_muons = n_muons
        self.baselines = baselines

    def shrink(self) -> None:
        """One test and two calibration volumes per height, of 200 muons."""
        self.n_repeats, self.n_calibration_repeats, self.n_muons = 1, 2, 200

    def evaluate(self, config: RunConfig, initial: Volume, final: Volume, progress: Progress) -> Evaluation:
        """Measure all detectors; see `AbsTask.evaluate`."""
        from diffdet.tomography.benchmarks.ladle_furnace.study import FILL_HEIGHTS, evaluate_detector, make_volume
        from diffdet.tomography.benchmarks.ladle_furnace.volume import get_baseline_detector_1, get_baseline_detector_2

        detectors = {"initial": initial, "final": final}
        if self.baselines:
            budget = initial.budget if initial.budget is not None else float(initial.get_cost().detach())
            for name, layers in (("baseline_1", get_baseline_detector_1), ("baseline_2", get_baseline_detector_2)):
                detectors[name] = make_volume(layers, budget).to(initial.device)
        inferrer = _level_inferrer(config, initial)
        n_heights = len(FILL_HEIGHTS)
        each = n_heights * (self.n_repeats + self.n_calibration_repeats)
        found = {}
        for k, (name, volume) in enumerate(detectors.items()):
            progress(k * each, len(detectors) * each, name)
            found[name] = evaluate_detector(
                volume,
                seed=config.seed,
                n_muons=self.n_muons,
                n_repeats=self.n_repeats,
                n_calibration_repeats=self.n_calibration_repeats,
                inferrer=inferrer,
            )
        progress(len(detectors) * each, len(detectors) * each, "done")
        figures = {name: result.figures() for name, result in found.items()}
        drawn: dict[str, Any] = {
            name: {"target": result.targets.tolist(), "prediction": result.predictions.tolist()}
            for name, result in found.items()
        }
        return Evaluation(
            initial=_table(figures["initial"]),
            final=_table(figures["final"]),
            baselines={name: _table(figures[name]) for name in detectors if name not in ("initial", "final")},
            text=(
                f"Fill levels of {n_heights * self.n_repeats} held-out volumes ({self.n_repeats} at "
                f"each of {n_heights} heights from "
                f"{FILL_HEIGHTS[0]} m to {FILL_HEIGHTS[-1]} m), {self.n_muons} muons each, after a "
                f"linear correction fitted on "
                f"{n_heights * self.n_calibration_repeats} other volumes."
            ),
            notes=["All detectors see the same volumes and muons. Errors are one standard error over volumes."],
            predictions={"kind": "scalar", "quantity": "fill level", "unit": "m", "detectors": drawn},
            n_muons=len(detectors) * each * self.n_muons,
            details={
                "n_test_volumes": n_heights * self.n_repeats,
                "n_calibration_volumes": n_heights * self.n_calibration_repeats,
                "n_muons_per_volume": self.n_muons,
                "corrections": {
                    name: {"weight": f["correction_weight"], "bias_m": f["correction_bias_m"]}
                    for name, f in figures.items()
                },
            },
        )

    def compare_models(self, config: RunConfig, smooth: Volume, physical: Volume, progress: Progress) -> Evaluation:
        """Both models on a third of the volumes, without other detectors; see `AbsTask.compare_models`."""
        repeats = -(-self.n_repeats // 3), -(-self.n_calibration_repeats // 3)
        return LadleFurnace(*repeats, self.n_muons, baselines=False).evaluate(config, smooth, physical, progress)


def _level_inferrer(config: RunConfig, volume: Volume) -> Any:
    """The configured inferrer if it predicts a fill height; None, the published one, otherwise."""
    from diffdet.runs.build import build_wrapper
    from diffdet.runs.registry import resolve, searching

    with searching(config.search_path):
        found = resolve("volume inferrer", config.inference.volume.class_, "inference.volume.class")
    return build_wrapper(config, volume).partial_volume_inferrer if hasattr(found, "pred_height") else None


def _table(figures: dict[str, float]) -> dict[str, float]:
    """The figures that belong into the table of results."""
    return {key: figures[key] for key in ("mse_m2", "mse_m2_se", "abs_bias_m", "abs_bias_m_se")}
