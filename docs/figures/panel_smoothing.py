"""Draw the figure of docs/numerics/panel_smoothing.md: profiles of the panel models, their bias, and their gradients.

usage: python docs/figures/panel_smoothing.py [FILE.png]
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor

from diffdet.core.random import Stream
from diffdet.kernels import panel_response
from diffdet.tomography.benchmarks.ladle_furnace.study import fixed_fill_levels
from diffdet.tomography.benchmarks.ladle_furnace.volume import get_baseline_detector_2
from diffdet.tomography.inference.model_comparison import compare_models
from diffdet.tomography.muon import MuonBatch, MuonGenerator2016
from diffdet.tomography.volume import Volume

SMOOTH = (0.5, 0.2, 0.05)
COLOURS = ("#E69F00", "#009E73", "#0072B2")
INK, RED = "#222222", "#D55E00"
CENTRE, SPAN = torch.zeros(2, 1, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)


def along_x(x: Tensor) -> Tensor:
    """Positions on the panel's axis, ``(2, muon)``."""
    return torch.stack([x, torch.zeros_like(x)])


def draw_profiles(axes: Axes) -> None:
    """Fraction of resolution left along x; the efficiency is the product of both axes."""
    x = torch.linspace(-1.25, 1.25, 1001, dtype=torch.float64)
    axes.plot(x, panel_response.hard(along_x(x), CENTRE, SPAN)[0], color=INK, lw=2, label="physical")
    for smooth, colour in zip(SMOOTH, COLOURS, strict=True):
        axes.plot(
            x, panel_response.sigmoid(along_x(x), CENTRE, SPAN, smooth)[0], color=colour, label=f"sigmoid, {smooth:g}"
        )
    axes.plot(x, panel_response.gaussian(along_x(x), CENTRE, SPAN)[0], color="0.6", ls="--", label="Gaussian")
    axes.set(
        title="efficiency along the middle of a panel",
        xlabel="distance from the centre / width",
        ylabel="efficiency / nominal efficiency",
        ylim=(-0.03, 1.35),
    )
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center")


def draw_bias(axes: Axes) -> None:
    """Share of muons used, and error of the incoming angle, beside those of physical panels, for a whole detector."""
    volume = Volume(get_baseline_detector_2())
    ((layout, target),) = fixed_fill_levels(volume, (0.9,), 1)
    volume.load_rad_length(layout, target)
    generator = MuonGenerator2016.from_volume(volume, fixed_mom=5.0)

    def send(number: int) -> MuonBatch:
        stream = Stream("panel smoothing", number).muons()
        return MuonBatch(generator(10_000, stream=stream), init_z=volume.h, stream=stream)

    smooth = (0.5, 0.35, 0.2, 0.1, 0.05, 0.02, 0.01)
    found = []
    for width in smooth:
        for panel in volume.yield_panels():
            panel.smooth = width  # type: ignore[assignment]
        found.append(compare_models(volume, send, n_batches=4).figures)
    for name, colour, mark, text in (
        ("share_used", COLOURS[2], "o", "muons used"),
        ("angle_in_rad", RED, "s", "error of the incoming angle"),
    ):
        ratio, error = [], []
        for figures in found:
            pair = figures[name]
            assert pair.physical is not None
            assert pair.difference is not None
            ratio.append(1 + pair.difference[0] / pair.physical[0])
            error.append(pair.difference[1] / pair.physical[0])
            print(f"{name:14} {ratio[-1]:.4f} +- {error[-1]:.4f}")
        axes.errorbar(smooth, ratio, error, color=colour, marker=mark, ms=4, lw=1, label=text)
    axes.axhline(1, color=INK, lw=1)
    axes.set(
        title="a whole detector, beside physical panels",
        xlabel="smoothness",
        ylabel="smooth / physical",
        xscale="log",
        ylim=(0.95, 1.5),
    )
    axes.legend(frameon=False, fontsize=8)


def draw_gradient(axes: Axes) -> None:
    """Derivative of the share of muons that a panel sees by its centre: mean and spread of 1,000 muons."""
    width, mean = 0.4, 0.3
    share = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    x = mean + width * torch.special.ndtri(share)  # muons spread as evenly as their density allows
    density = [math.exp(-0.5 * ((edge - mean) / width) ** 2) / (width * math.sqrt(2 * math.pi)) for edge in (0.5, -0.5)]
    smooth = torch.logspace(0, -2, 13, dtype=torch.float64).tolist()
    centre, spread = [], []
    for one in smooth:
        shift = torch.zeros_like(x).requires_grad_()  # the panel's centre, a copy for each muon
        seen = panel_response.sigmoid(along_x(x - shift), CENTRE, SPAN, one)[0]
        (gradient,) = torch.autograd.grad(seen.sum(), shift)
        centre.append(float(gradient.mean()))
        spread.append(float(gradient.std()) / 1000**0.5)
    low, high = ([c + k * s for c, s in zip(centre, spread, strict=True)] for k in (-1, 1))
    axes.fill_between(smooth, low, high, color=COLOURS[2], alpha=0.25, lw=0, label="spread of 1,000 muons")
    axes.plot(smooth, centre, color=COLOURS[2], label="mean")
    axes.axhline(density[0] - density[1], color=INK, lw=1, label="physical panel: density at the edges")
    axes.set(
        title="gradient by the panel's centre", xlabel="smoothness", ylabel="d(share seen) / d(centre)  [1/width]",
        xscale="log", ylim=(0, 1.05),
    )  # fmt: skip
    axes.legend(frameon=False, fontsize=8, loc="lower left")


def main(path: Path) -> None:
    """Draw the three pictures side by side."""
    torch.set_num_threads(1)
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    for draw, one in zip((draw_profiles, draw_bias, draw_gradient), axes, strict=True):
        draw(one)
    figure.savefig(path, dpi=90, facecolor="white", metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("panel_smoothing.png"))
