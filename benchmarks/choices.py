"""What each choice costs: one optimisation step and one prediction, beside those of the default choice.

The scene is the built-in design `hello_world` with panels of 2 m that stand in the middle: a metre cube of 600 voxels,
lead in beryllium, four panels above and four below. Every row changes one thing. All rows take turns, round after
round, each right after the default; a figure is the median over rounds of the ratio of the two, so that a busy machine
slows both sides alike.

A second table shows what the resolution of panels does to the image of `PanelX0Inferrer`.

    python benchmarks/choices.py                 both tables as Markdown, one thread: 3 minutes
    python benchmarks/choices.py --write         the same, and puts them into docs/choosing.md
    python benchmarks/choices.py --rounds 1 --muons 300 --only panel     whether it runs
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import torch
from _common import REPOSITORY, machine

from diffdet.core.materials import X0
from diffdet.runs.build import Built, build
from diffdet.runs.config import load_config
from diffdet.tomography.optimisation.callbacks.data_callbacks import MuonResampler

TARGET = "passives.layouts.0.target=0.4"  # the height of the block, for what predicts one number
WHOLE_VOLUME = (TARGET, "loss.class=VolumeMSELoss")
DENSE = "diffdet.tomography.inference.volume:DenseBlockClassifierFromX0s"
HEAT_MAP = "diffdet.tomography.volume.heatmap:DetectorHeatMap"
HEAT_MAPS = tuple(
    f"volume.layers.{layer}.panels.*.{change}"
    for layer in (0, 2)
    for change in (f"class='{HEAT_MAP}'", "span=[0.001, 1.0]", "realistic_validation=false")
)


def panels(change: str) -> tuple[str, ...]:
    """A change of all panels."""
    return tuple(f"volume.layers.{layer}.panels.*.{change}" for layer in (0, 2))


def inferrer(name: str, args: str = "") -> tuple[str, ...]:
    """A volume inferrer that predicts one number."""
    return (*WHOLE_VOLUME, f"inference.volume={{class: '{name}', args: {{{args}}}}}")


@dataclass(frozen=True)
class Choice:
    """A row of the table.

    Attributes:
        part: What is chosen.
        label: How the page calls it.
        sets: Changes of the configuration.
        voxel: Edge of the voxels, m.
        scale: Factor on the number of muons.
        resample: Whether muons that miss the volume are replaced.
    """

    part: str
    label: str
    sets: tuple[str, ...] = ()
    voxel: float = 0.1
    scale: int = 1
    resample: bool = True


CHOICES = [
    Choice("panel", "`SigmoidDetectorPanel`", (*panels("class=SigmoidDetectorPanel"), *panels("smooth=0.2"))),
    Choice(
        "panel",
        "`DetectorHeatMap` (30 Gaussians)",
        (*HEAT_MAPS, "optimiser={z_pos: {lr: 0.01}}", "schedule.warmup_epochs=0"),
    ),
    Choice("panel", "a fixed budget", ("volume.budget=8", "optimiser.budget={lr: 0.1}")),
    Choice("tracks", "`GenScatterBatch`", ("inference.tracks=GenScatterBatch",)),
    Choice(
        "inferrer",
        "`DenseBlockClassifierFromX0s`",
        inferrer(DENSE, "n_block_voxels: 50, partial_x0_inferrer: {class: PanelX0Inferrer}"),
    ),
    Choice("inferrer", "`PocaZLadleFurnaceFillLevelInferrer`", inferrer("PocaZLadleFurnaceFillLevelInferrer")),
    Choice(
        "inferrer",
        "`EdgeDetLadleFurnaceFillLevelInferrer`",
        (
            TARGET,
            "loss={class: LadleFurnaceIntClassLoss, args: {use_mse: false}, target_budget: 20}",
            "inference.volume={class: EdgeDetLadleFurnaceFillLevelInferrer, "
            "args: {partial_x0_inferrer: {class: PanelX0Inferrer}}}",
        ),
    ),
    Choice(
        "inferrer", "`LikelihoodLadleFurnaceFillLevelInferrer`", inferrer("LikelihoodLadleFurnaceFillLevelInferrer")
    ),
    Choice("inferrer", "`ULorryLikelihoodClassifier`", inferrer("ULorryLikelihoodClassifier", "u_volume: 0.002")),
    Choice("loss", "`ContrastLoss`", ("loss.class=ContrastLoss",)),
    Choice("loss", "without a budget", ("loss.target_budget=null", "schedule.cost_warmup_epochs=0")),
    Choice("scatter model", "`pdg-step`", ("volume.layers.1.scatter_model=pdg-step",)),
    Choice("muons", "`MuonGenerator2016`, its spectrum", ("muons.momentum=null",)),
    Choice("muons", "`MuonGenerator2015`, its spectrum", ("muons.momentum=null", "muons.class=MuonGenerator2015")),
    Choice("muons", "without `MuonResampler`", resample=False),
    Choice("size", "twice the muons", scale=2),
    Choice("size", "four times the muons", scale=4),
    Choice("size", "4,800 voxels of 5 cm", voxel=0.05),
]


class Scene:
    """One choice, built, with what is timed of it."""

    def __init__(self, choice: Choice, muons: int) -> None:
        sets = (*panels("xyz.0=0.5"), *panels("xyz.1=0.5"), *panels("span=[2.0, 2.0]"), *choice.sets)
        sets += (f"volume.layers.1.voxel={choice.voxel}",)
        self.built: Built = build(load_config("hello_world", sets=sets))
        self.muons = muons * choice.scale
        self.callbacks = [MuonResampler()] if choice.resample else []

    def step(self) -> None:
        """One epoch of one volume: muons, hits, inference, loss, gradient, update."""
        for optimiser in self.built.wrapper.opts.values():  # panels stay where they are: all rounds do the same work
            for group in optimiser.param_groups:
                group["lr"] = 0.0
        self.built.wrapper.fit(1, 1, self.muons, self.muons, self.built.train, None, list(self.callbacks))

    def prediction(self) -> None:
        """The prediction of one volume, without gradients."""
        self.built.wrapper.predict(self.built.train, self.muons, self.muons, cbs=list(self.callbacks))


def seconds(job: Callable[[], None]) -> float:
    """Processor time of a job, which other jobs on the machine change little."""
    begin = time.process_time()
    job()
    return time.process_time() - begin


@dataclass(frozen=True)
class Cost:
    """Times of a choice and of the default right before it, by rounds, s."""

    choice: Choice
    steps: list[tuple[float, float]]
    predictions: list[tuple[float, float]]


def measure(choices: Sequence[Choice], muons: int, rounds: int) -> list[Cost]:
    """Times of step and prediction of every choice, after one uncounted round."""
    default = Scene(Choice("default", "everything below at its default"), muons)
    scenes = [Scene(choice, muons) for choice in choices]
    costs = [Cost(choice, [], []) for choice in choices]
    for number in range(rounds + 1):
        for scene, cost in zip(scenes, costs, strict=True):
            step = seconds(default.step), seconds(scene.step)
            prediction = seconds(default.prediction), seconds(scene.prediction)
            if number:
                cost.steps.append(step)
                cost.predictions.append(prediction)
    return costs


def ratio(times: Sequence[tuple[float, float]]) -> str:
    """Median over rounds of the ratio to the default, and half the distance of its quartiles."""
    ratios = [own / default for default, own in times]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return f"{median(ratios):.2f} ± {(high - low) / 2:.2f}"


def costs_table(costs: Sequence[Cost], muons: int) -> str:
    """The table of ratios."""
    step, prediction = (
        1e3 * median(default for cost in costs for default, _ in getattr(cost, kind))
        for kind in ("steps", "predictions")
    )
    lines = [
        f"The default, {muons:,} muons: a step {step:.0f} ms, a prediction {prediction:.0f} ms.\n",
        "| part | instead of the default | step | prediction |",
        "|---|---|---|---|",
        *(f"| {c.choice.part} | {c.choice.label} | {ratio(c.steps)} | {ratio(c.predictions)} |" for c in costs),
    ]
    return "\n".join(lines)


def resolutions_table(muons: int) -> str:
    """Image of a block of lead in beryllium by the resolution of its panels, which are large and well placed."""
    heads = ("resolution", "standard deviation of a hit", "X0 in the lead", "X0 in the beryllium")
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|---|"]
    for resolution in (1e3, 3e3, 1e4, 3e4, 1e5, 1e6):
        changes = ("xyz.0=0.5", "xyz.1=0.5", "span=[3.0, 3.0]", "efficiency=1.0", f"resolution={resolution:g}")
        built = build(load_config("hello_world", sets=[change for one in changes for change in panels(one)]))
        [(predicted, true)] = built.wrapper.predict(built.train, muons, muons, cbs=[MuonResampler()])
        predicted, true = torch.as_tensor(predicted), torch.as_tensor(true)
        lead = true == true.min()
        means = [f"{1e3 * float(predicted[mask].median()):,.0f} mm" for mask in (lead, ~lead)]
        lines.append(f"| {resolution:,.0f} 1/m | {1e6 / resolution:,.0f} µm | {means[0]} | {means[1]} |")
    true_values = [f"**{1e3 * X0[name]:,.0f} mm**" for name in ("lead", "beryllium")]
    return "\n".join([*lines, f"| | truth | {true_values[0]} | {true_values[1]} |"])


def write(page: Path, name: str, table: str) -> None:
    """Put a table between its two marks in a page."""
    begin, end = f"<!-- {name}: made by benchmarks/choices.py -->\n", f"<!-- {name}: end -->"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    if not after:
        raise SystemExit(f"{page} lacks the marks of {name}")
    page.write_text(f"{before}{begin}\n{table}\n\n{end}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--muons", type=int, default=5000, help="muons of a step and of a prediction")
    parser.add_argument("--rounds", type=int, default=15, help="counted rounds")
    parser.add_argument("--only", nargs="*", help="parts to measure; all without it")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/choosing.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(machine(), flush=True)
    chosen = [choice for choice in CHOICES if not options.only or choice.part in options.only]
    tables = {
        "costs": costs_table(measure(chosen, options.muons, options.rounds), options.muons),
        "resolutions": resolutions_table(4 * options.muons),
    }
    for name, table in tables.items():
        print(f"\n{table}")
        if options.write:
            write(REPOSITORY / "docs" / "choosing.md", name, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
