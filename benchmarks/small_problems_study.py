"""Buried walls and lorries: do optimised detectors beat the ones that they started from?

Both built-in designs start with eight panels over one corner, close together, and are optimised under a fixed budget.
The initial and the optimised detector, and for comparison panels of the initial size put over the middle and spread
evenly in height, are judged on held-out volumes with hard-edged panels. All of them see the same volumes and muons, so
what counts is the mean of the differences over its standard error.

* `small_walls`: 32 volumes of soil with walls, 40,000 muons of 10 GeV each. Score: the correlation between the
  logarithms of predicted and true X0, layer by layer (one minus `ContrastLoss`).
* `u_lorry`: 200 lorries with 24 litres of uranium and the same 200 without, 20,000 muons of 5 GeV each. Score of a
  pair: minus the mean log-loss of the probability of uranium, its log-odds calibrated on 100 other pairs. `order error`
  is the probability that a lorry with and one without come in the wrong order.

    python benchmarks/small_problems_study.py                      five seeds of both: half an hour on one core
    python benchmarks/small_problems_study.py --quick              one seed, a tenth of epochs and volumes
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from _common import HERE, append_record, machine
from torch import Tensor

from diffdet.core.random import key_seed
from diffdet.kernels.contrast import layer_correlation
from diffdet.kernels.ranking import order_error, shares_below
from diffdet.runs.build import build, build_volume, build_wrapper, same_volume
from diffdet.runs.config import RunConfig, load_config
from diffdet.runs.passives import yield_passives
from diffdet.tomography.benchmarks.u_lorry.study import evaluate_detector
from diffdet.tomography.optimisation.callbacks.data_callbacks import MuonResampler
from diffdet.tomography.volume.volume import Volume

DETECTORS = ("initial", "optimised", "centred")


def centred(config: RunConfig) -> Volume:
    """What a person would do first: every panel over the middle, evenly spread over its layer."""
    volume = build_volume(config)
    with torch.no_grad():
        for layer in volume.get_detectors():
            panels = list(layer.yield_panels())
            for k, panel in enumerate(panels):
                panel.xy.copy_(volume.lw / 2)
                panel.z.copy_(layer.z - layer.size * k / (len(panels) - 1))
    return volume


def walls(config: RunConfig, volume: Volume, n_volumes: int) -> tuple[Tensor, dict[str, float]]:
    """Correlation of every held-out volume (one minus `ContrastLoss`), and three means over volumes.

    These are the share of pairs of a wall's and a soil's voxel in wrong order, the correlation with the walls of other
    volumes, which a detector gets for a pattern of its own, and the correlation without the outermost voxels.
    """
    wrapper = build_wrapper(config, volume)
    layouts = yield_passives(config, volume, "small problems study", n_volumes)
    found = wrapper.predict(
        layouts,
        4 * config.muons.per_volume,
        config.muons.per_volume,
        cbs=[MuonResampler()],
        seed=key_seed(config.seed, "small problems study"),
    )
    images, truths, wrong = [], [], []
    for (prediction, _), layout in zip(found, layouts, strict=True):
        volume.load_rad_length(*layout)
        image, wall = torch.from_numpy(prediction), volume.target.bool()
        images.append(image.log())
        truths.append(volume.get_rad_cube().clone().log())
        wrong.append(1 - float(shares_below(-image[wall], -image[~wall]).mean()))
    n = len(images)
    scores = [layer_correlation(image, truth) for image, truth in zip(images, truths, strict=True)]
    inner = [
        layer_correlation(image[:, 1:-1, 1:-1], truth[:, 1:-1, 1:-1])
        for image, truth in zip(images, truths, strict=True)
    ]
    others = [layer_correlation(images[i], truths[j]) for i in range(n) for j in range(n) if i != j]
    more = {"order_error": mean(wrong), "others": float(sum(others)) / len(others), "inner": float(sum(inner)) / n}
    return torch.stack(scores).to(torch.float64), more


def lorries(config: RunConfig, volume: Volume, n_pairs: int) -> tuple[Tensor, dict[str, float]]:
    """Minus the log-loss of every held-out pair of lorries, and the order error."""
    args = config.passives.generator.args
    found = evaluate_detector(
        build_wrapper(config, volume),
        seed=config.seed,
        n_pairs=n_pairs,
        n_calibration_pairs=max(4, n_pairs // 2),
        n_muons=4 * config.muons.per_volume,
        batch=config.muons.per_volume,
        u_volume=args["u_volume"],
    )
    error, uncertainty = order_error(found.with_uranium, found.without)
    return -found.log_losses.mean(0), {"order_error": error, "order_error_se": uncertainty}


PROBLEMS: dict[str, tuple[Callable[..., tuple[Tensor, dict[str, float]]], int, str]] = {
    "small_walls": (walls, 32, "correlation"),
    "u_lorry": (lorries, 200, "minus log-loss"),
}


def study(problem: str, seed: int, share: float) -> dict[str, Any]:
    """Optimise with one seed, judge all detectors, and compare in pairs."""
    score, n_volumes, _ = PROBLEMS[problem]
    config = load_config(problem, sets=[f"seed={seed}"])
    built = build(config)
    built.wrapper.fit(
        max(2, round(share * config.schedule.total_epochs)),
        config.volumes_per_update,
        config.muons.per_volume,
        config.muons.batch_size,
        built.train,
        None,
        cbs=list(built.callbacks),
    )
    volumes = {
        "initial": build_volume(config),
        "optimised": same_volume(config, built.volume),
        "centred": centred(config),
    }
    scores, rows = {}, {}
    for name, volume in volumes.items():
        scores[name], more = score(config, volume, max(4, round(share * n_volumes)))
        rows[name] = {"score": float(scores[name].mean()), "score_se": _se(scores[name]), **more}
    better = scores["optimised"] - scores["initial"]
    panels = [
        [round(float(v), 3) for v in (*p.xy.detach(), p.z.detach(), *p.get_scaled_xy_span().detach())]
        for p in volumes["optimised"].yield_panels()
    ]
    gain = {"gain": float(better.mean()), "gain_se": _se(better), "standard_errors": float(better.mean()) / _se(better)}
    return {"rows": rows, **gain, "panels": panels}


def _se(values: Tensor) -> float:
    return float(values.std()) / len(values) ** 0.5


def draw(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Score and order error of every detector, one line for each seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.4), layout="constrained")
    axes = figure.subplots(2, len(found), squeeze=False)
    for column, (problem, runs) in enumerate(found.items()):
        for row, (key, label) in enumerate((("score", PROBLEMS[problem][2]), ("order_error", "order error"))):
            ax = axes[row][column]
            for run in runs:
                values = [run["rows"][name][key] for name in DETECTORS]
                errors = [run["rows"][name].get(f"{key}_se", 0.0) for name in DETECTORS]
                ax.errorbar(
                    range(len(DETECTORS)), values, errors, marker="o", ms=4, lw=1, capsize=2, color="#0072B2", alpha=0.7
                )
            ax.set(xticks=range(len(DETECTORS)), ylabel=label)
            ax.set_xticklabels(DETECTORS)
            ax.margins(x=0.15)
            ax.grid(axis="y", alpha=0.3)
            if row == 0:
                ax.set_title(problem)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--quick", action="store_true", help="first seed, a tenth of epochs and volumes")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "small_problems_study.jsonl")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seeds = options.seeds[:1]
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, Any]]] = {}
    for problem in options.problems:
        label = PROBLEMS[problem][2]
        print(f"\n{problem}: {label}; order error in brackets")
        print(f"{'seed':>6}" + "".join(f"{name:>26}" for name in DETECTORS) + f"{'optimised - initial':>26}")
        for seed in options.seeds:
            start = time.perf_counter()
            run = study(problem, seed, 0.1 if options.quick else 1.0)
            found.setdefault(problem, []).append(run)
            cells = [f"{r['score']:.3f} +- {r['score_se']:.3f} ({r['order_error']:.3f})" for r in run["rows"].values()]
            gain = f"{run['gain']:.3f} = {run['standard_errors']:.1f} s.e."
            print(f"{seed:>6}" + "".join(f"{cell:>26}" for cell in [*cells, gain]), flush=True)
            record = {"benchmark": "small_problems_study", "quick": options.quick, "problem": problem, "seed": seed}
            took = round(time.perf_counter() - start, 1)
            append_record(
                options.results,
                record | {"seconds": took} | run | {"torch": torch.__version__, "machine": machine()},
            )
        gains = [run["gain"] for run in found[problem]]
        if len(gains) > 1:
            least = min(run["standard_errors"] for run in found[problem])
            print(f"  gain over seeds {mean(gains):.3f}, standard deviation {stdev(gains):.3f}; least {least:.1f} s.e.")
    if not options.quick and len(found) == len(PROBLEMS):
        draw(found, options.results.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
