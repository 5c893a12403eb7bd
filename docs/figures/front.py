"""Draw the picture of the front page: the ladle furnace's detector before and after, and what each of them measures.

Without arguments it optimises first, which takes two minutes, and writes front.png beside itself;
``python docs/figures/front.py RUN [TARGET]`` draws from the folder of a run of `diffdet optimise`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

HERE = Path(__file__).resolve().parent
ABOVE, BELOW, GREY = "#1f6f9f", "#b5651d", "0.88"
FURNACE = ((0.0, 1.0), (0.4, 1.4))  # x and z of the passive volume of the built-in design, m
Panel = dict[str, Any]


def colour(panel: Panel) -> str:
    return ABOVE if panel["position"] == "above" else BELOW


def draw_side(ax: plt.Axes, panels: list[Panel], title: str) -> None:
    """A detector from the front: x to the right, z upwards."""
    (x_low, x_high), (z_low, z_high) = FURNACE
    ax.add_patch(Rectangle((x_low, z_low), x_high - x_low, z_high - z_low, color=GREY))
    ax.text(0.5, 0.9, "ladle", ha="center", va="center", color="0.45")
    for panel in panels:
        (x, _, z), width = panel["xyz_m"], panel["span_m"][0]
        ax.plot([x - width / 2, x + width / 2], [z, z], color=colour(panel), lw=2.2, solid_capstyle="butt")
    ax.set(xlim=(-0.55, 1.35), ylim=(0.15, 1.85), xlabel="x [m]", ylabel="z [m]", title=title)
    ax.set_aspect("equal")


def draw_levels(ax: plt.Axes, predictions: dict[str, Any]) -> None:
    """Mean prediction by true level, with the spread of single volumes."""
    ax.plot([0.55, 1.35], [0.55, 1.35], color="0.6", lw=1, zorder=0)
    for name, label, marker, shift in (("initial", "before", "s", -0.008), ("final", "after", "o", 0.008)):
        target, found = (np.array(predictions["detectors"][name][key]) for key in ("target", "prediction"))
        levels = np.unique(target.round(6))
        chosen = [found[np.isclose(target, level)] for level in levels]
        mean, spread = [part.mean() for part in chosen], [part.std() for part in chosen]
        shade = "#c44e52" if name == "initial" else "#2a7f4f"
        ax.errorbar(levels + shift, mean, spread, fmt=marker, ms=5, lw=1.2, color=shade, label=label)
    ax.set(xlabel="true fill level [m]", ylabel="measured fill level [m]")
    ax.set(xlim=(0.55, 1.35), ylim=(0.4, 1.5))
    ax.legend(frameon=False, loc="upper left")


def draw(run: Path, target: Path) -> None:
    """The whole picture."""
    lines = [json.loads(line) for line in (run / "detectors.jsonl").read_text(encoding="utf-8").splitlines()]
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    draw_side(axes[0], lines[0]["panels"], "before")
    draw_side(axes[1], lines[-1]["panels"], f"after {lines[-1]['epoch']} epochs")
    draw_levels(axes[2], result["predictions"])
    axes[2].set_title(f"{result['evaluation']['n_muons_per_volume']} muons a measurement")
    figure.savefig(target, dpi=130)
    plt.close(figure)


def main(arguments: list[str]) -> int:
    target = Path(arguments[1]) if len(arguments) > 1 else HERE / "front.png"
    if arguments:
        draw(Path(arguments[0]), target)
        return 0
    from diffdet.cli.main import run

    with tempfile.TemporaryDirectory() as folder:
        code = run(["optimise", "--out", f"{folder}/RUN", "--quiet"])
        if code == 0:
            draw(Path(folder) / "RUN", target)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
