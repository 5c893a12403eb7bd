"""Draw the figure of docs/coordinates_and_units.md: the frame, the angles of a muon, and the order of voxels.

usage: python docs/figures/coordinates.py [FILE.png]
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Arc, FancyArrowPatch, Rectangle

INK, GREY, MUON, OUT, PANEL, BLOCK = "#222222", "#8a8a8a", "#c1272d", "#e07b39", "#1f5fa8", "#dfe8ef"
SIZE, N_X, Z_LOW, Z_HIGH, N_Z = 0.2, 5, 0.4, 1.0, 3
TOP = 1.4
LW = SIZE * N_X


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, width: float = 1.6) -> None:
    """An arrow from one point to another, in data coordinates."""
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=12, color=colour, lw=width, shrinkA=0, shrinkB=0, zorder=5
        )
    )


def side_view(axes: Axes) -> None:
    """The xz plane: layers, voxels, panels, a track on its way down, theta_x, closest approach."""
    for iz in range(N_Z):
        for ix in range(N_X):
            axes.add_patch(
                Rectangle((ix * SIZE, Z_LOW + iz * SIZE), SIZE, SIZE, facecolor=BLOCK, edgecolor="white", lw=1.5)
            )
        axes.text(LW - 0.1, Z_LOW + (iz + 0.5) * SIZE, f"iz = {iz}", ha="center", va="center", fontsize=8.5, color=GREY)
    for ix in range(N_X):
        axes.text((ix + 0.5) * SIZE, Z_HIGH + 0.04, f"ix = {ix}", ha="center", va="center", fontsize=8.5, color=GREY)
    for z in (1.32, 1.1, 0.3, 0.08):
        axes.plot([0.02, LW - 0.02], [z, z], color=PANEL, lw=3, solid_capstyle="butt")
    # the track: falls towards +x, is turned at one point, leaves
    kink, slope_in, slope_out = (0.5, 0.72), 0.28, 0.62
    start = (kink[0] - slope_in * (1.52 - kink[1]), 1.52)
    end = (kink[0] + slope_out * (kink[1] - 0.02), 0.02)
    arrow(axes, start, kink, MUON)
    arrow(axes, kink, end, OUT)
    axes.plot([kink[0], kink[0] + slope_in * (kink[1] + 0.02)], [kink[1], -0.02], color=MUON, lw=1, ls=(0, (4, 3)))
    axes.plot(*kink, "o", color=INK, ms=5, zorder=6)
    axes.annotate("closest approach", kink, (0.03, 0.56), fontsize=9, arrowprops={"arrowstyle": "-", "color": INK})
    turned_in, turned_out = math.degrees(math.atan(slope_in)), math.degrees(math.atan(slope_out))
    axes.add_patch(Arc(kink, 0.96, 0.96, angle=270, theta1=turned_in, theta2=turned_out, color=INK, lw=1.2))
    axes.text(kink[0] + 0.225, kink[1] - 0.545, r"$\Delta\theta_x$", fontsize=11, ha="center")
    # theta_x against the vertical through the start
    axes.plot([start[0]] * 2, [start[1], 1.17], color=GREY, lw=1, ls=(0, (2, 2)))
    axes.add_patch(Arc(start, 0.56, 0.56, angle=270, theta1=0, theta2=turned_in, color=INK, lw=1.2))
    axes.text(start[0] - 0.02, start[1] - 0.3, r"$\theta_x>0$", fontsize=11, ha="right", va="center")
    axes.text(start[0] + 0.05, start[1] + 0.005, "muon, falls towards $+x$", color=MUON, fontsize=10, va="center")
    # layers, named by their tops
    for low, high, text in ((Z_HIGH, TOP, "above"), (0, Z_LOW, "below")):
        axes.annotate("", (1.06, low), (1.06, high), arrowprops={"arrowstyle": "|-|,widthA=.3,widthB=.3", "color": INK})
        axes.text(1.085, (low + high) / 2, f'detector layer\nposition "{text}"', fontsize=9, va="center")
    axes.annotate("", (1.06, Z_LOW), (1.06, Z_HIGH), arrowprops={"arrowstyle": "|-|,widthA=.3,widthB=.3", "color": INK})
    axes.text(1.085, 0.7, "passive layers,\none voxel thick each", fontsize=9, va="center")
    axes.text(1.085, TOP, "layer.z is the top: 1.4 m", fontsize=9, va="center")
    axes.text(1.085, Z_HIGH, "1.0 m", fontsize=9, va="center")
    axes.text(1.085, Z_LOW, "0.4 m", fontsize=9, va="center")
    axes.text(1.085, 0.025, "0", fontsize=9, va="bottom")
    arrow(axes, (0, 0), (0, 1.68), INK, 1.3)
    arrow(axes, (0, 0), (1.2, 0), INK, 1.3)
    axes.text(-0.02, 1.68, "z", fontsize=12, ha="right", va="top", style="italic")
    axes.text(1.215, -0.02, "x", fontsize=12, va="top", style="italic")
    axes.text(LW, -0.035, "lw[0]", fontsize=9, ha="center", va="top")
    axes.text(-0.02, -0.035, "0", fontsize=9, ha="right", va="top")
    axes.set(xlim=(-0.08, 1.62), ylim=(-0.12, 1.74), aspect="equal")
    axes.axis("off")


def top_view(axes: Axes) -> None:
    """The xy plane seen from above: footprint, phi, and the two slopes."""
    for ix in range(N_X):
        for iy in range(N_X):
            axes.add_patch(Rectangle((ix * SIZE, iy * SIZE), SIZE, SIZE, facecolor=BLOCK, edgecolor="white", lw=1.5))
    axes.add_patch(Rectangle((0.14, 0.24), 0.72, 0.56, fill=False, edgecolor=PANEL, lw=2))
    axes.plot(0.5, 0.52, "+", color=PANEL, ms=9, mew=1.8)
    axes.annotate(
        "", (0.14, 0.84), (0.86, 0.84), arrowprops={"arrowstyle": "<->", "color": PANEL, "shrinkA": 0, "shrinkB": 0}
    )
    axes.text(0.5, 0.855, "xy_span[0]", color=PANEL, fontsize=9, ha="center", va="bottom")
    axes.text(0.52, 0.49, "panel centre xy", color=PANEL, fontsize=9, va="top")
    base, phi, length = (0.24, 0.3), math.radians(52), 0.42
    tip = (base[0] + length * math.cos(phi), base[1] + length * math.sin(phi))
    arrow(axes, base, tip, MUON)
    axes.text(0.5, 0.7, r"motion, $\sin\theta\,(\cos\varphi,\ \sin\varphi)$", color=MUON, fontsize=9, ha="center")
    axes.plot([base[0], base[0] + 0.3], [base[1]] * 2, color=GREY, lw=1, ls=(0, (2, 2)))
    axes.add_patch(Arc(base, 0.3, 0.3, theta1=0, theta2=math.degrees(phi), color=INK, lw=1.2))
    axes.text(base[0] + 0.15, base[1] + 0.05, r"$\varphi$", fontsize=12)
    arrow(axes, (0, 0), (1.2, 0), INK, 1.3)
    arrow(axes, (0, 0), (0, 1.2), INK, 1.3)
    axes.text(1.215, -0.02, "x", fontsize=12, va="top", style="italic")
    axes.text(-0.02, 1.2, "y", fontsize=12, ha="right", va="top", style="italic")
    axes.text(LW, -0.035, "lw[0]", fontsize=9, ha="center", va="top")
    axes.text(-0.025, LW, "lw[1]", fontsize=9, ha="right", va="center")
    axes.set(xlim=(-0.16, 1.3), ylim=(-0.12, 1.3), aspect="equal")
    axes.axis("off")


def main(path: Path) -> None:
    """Draw both views side by side."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 6), width_ratios=(1.15, 1))
    side_view(left)
    top_view(right)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.93, wspace=0.02)
    figure.text(0.06, 0.95, "from the side; y points into the page", fontsize=11)
    figure.text(0.58, 0.95, "from above; z points at the reader", fontsize=11)
    figure.savefig(path, dpi=110, facecolor="white", metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("coordinates.png"))
