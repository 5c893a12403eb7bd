"""Uranium in lorries: how well the initial and the optimised detector tell lorries with it from lorries without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffdet.core.checks import check_in_range
from diffdet.core.errors import InputError
from diffdet.runs.tasks.base import AbsTask, Evaluation, Progress

if TYPE_CHECKING:
    from diffdet.runs.config import RunConfig
    from diffdet.tomography.volume.volume import Volume

_SCENE = ("u_volume", "fill_frac", "x0_lorry", "bkg_materials")


class ULorry(AbsTask):
    """Order and log-loss of held-out lorries with and without uranium.

    Every detector sees the same lorries and muons, with physical panels. What a lorry is follows from the passive
    generator of the configuration, which must be `ULorryPassiveGenerator`; its inferrer must give log-odds.

    Args:
        n_pairs: Lorries with uranium, and as many without.
        n_calibration_pairs: Others, that the log-odds are calibrated on; 0 leaves them as the inferrer gives them.
        n_muons: Muons per lorry.
    """

    def __init__(self, n_pairs: int = 60, n_calibration_pairs: int = 60, n_muons: int = 20_000) -> None:
        check_in_range("n_pairs", n_pairs, 2)
        check_in_range("n_calibration_pairs", n_calibration_pairs, 0)
        check_in_range("n_muons", n_muons, 1)
        self.n_pairs, self.n_calibration_pairs = n_pairs, n_calibration_pairs
        self.n_muons = n_muons

    def shrink(self) -> None:
        """Two pairs of lorries, two more to calibrate on, 500 muons each."""
        self.n_pairs, self.n_calibration_pairs, self.n_muons = 2, 2, 500

    def evaluate(self, config: RunConfig, initial: Volume, final: Volume, progress: Progress) -> Evaluation:
        """Measure both detectors; see `AbsTask.evaluate`."""
        from diffdet.runs.build import build_wrapper
        from diffdet.tomography.benchmarks.u_lorry.study import evaluate_detector

        generator = config.passives.generator
        if generator is None or generator.class_ != "ULorryPassiveGenerator":
            given = None if generator is None else generator.class_
            raise InputError(f"task: `u_lorry` needs passives from ULorryPassiveGenerator, given {given}")
        scene = {key: value for key, value in generator.args.items() if key in _SCENE}
        n_lorries = 2 * self.n_pairs
        each = n_lorries + 2 * self.n_calibration_pairs
        found = {}
        for k, (name, volume) in enumerate((("initial", initial), ("final", final))):
            before = k * each

            def tell(done: int, before: int = before, name: str = name) -> None:
                progress(before + done, 2 * each, name)

            found[name] = evaluate_detector(
                build_wrapper(config, volume),
                seed=config.seed,
                n_pairs=self.n_pairs,
                n_calibration_pairs=self.n_calibration_pairs,
                n_muons=self.n_muons,
                batch=config.muons.batch or self.n_muons,
                progress=tell,
                **scene,
            )
        drawn: dict[str, Any] = {
            name: {
                "target": [1.0] * self.n_pairs + [0.0] * self.n_pairs,
                "prediction": [*result.with_uranium.sigmoid().tolist(), *result.without.sigmoid().tolist()],
            }
            for name, result in found.items()
        }
        return Evaluation(
            initial=found["initial"].figures(),
            final=found["final"].figures(),
            text=f"{n_lorries} held-out lorries, half of them with uranium, {self.n_muons} muons each.",
            notes=[
                "Order error: probability that of two lorries, one with uranium and one without, the wrong one looks "
                "like it. Log-loss: minus the logarithm of the probability of what was true; 0.69 for knowing nothing.",
                f"Log-odds are calibrated, for each detector, on {2 * self.n_calibration_pairs} other lorries."
                if self.n_calibration_pairs
                else "Log-odds are as the inferrer gives them.",
                "Both detectors see the same lorries and muons. Errors are one standard error over lorries.",
            ],
            predictions={
                "kind": "scalar",
                "quantity": "presence of uranium",
                "unit": "probability",
                "detectors": drawn,
            },
            n_muons=2 * each * self.n_muons,
            details={
                "n_test_volumes": n_lorries,
                "n_calibration_volumes": 2 * self.n_calibration_pairs,
                "n_muons_per_volume": self.n_muons,
                "calibration": {
                    name: {"slope": result.slope, "offset": result.offset} for name, result in found.items()
                },
            },
        )
