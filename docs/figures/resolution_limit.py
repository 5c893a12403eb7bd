"""Draw the figure of docs/numerics/volume_inference.md: X0 of a lead block as PanelX0Inferrer sees it, by resolution.

usage: python docs/figures/resolution_limit.py [FILE.png]
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from diffdet.core.materials import material
from diffdet.core.random import Stream
from diffdet.tomography.inference import PanelX0Inferrer, ScatterBatch
from diffdet.tomography.muon import MuonBatch, MuonGenerator2016
from diffdet.tomography.volume import PanelDetectorLayer, PassiveLayer, SigmoidDetectorPanel, Volume

RESOLUTIONS = (1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6)
N_MUONS = 200_000
N_USED = 10_000
LOW, HIGH, BOTTOM, TOP = 0.3, 0.7, 0.4, 0.7


def layout(*, z: Tensor, lw: Tensor, size: float) -> Tensor:
    """Beryllium with a block of lead in it."""
    n_x, n_y = (round(float(extent) / size) for extent in lw)
    x0 = torch.full((n_x, n_y), material("beryllium").x0)
    if BOTTOM < float(z) - size / 2 < TOP:
        x0[round(LOW / size) : round(HIGH / size), round(LOW / size) : round(HIGH / size)] = material("lead").x0
    return x0


def build(resolution: float) -> Volume:
    """Three panels above and three below a block of 0.6 m, wide enough for every muon."""
    lw = torch.tensor([1.0, 1.0])

    def panels(top: float) -> list[SigmoidDetectorPanel]:
        return [
            SigmoidDetectorPanel(
                smooth=0.1, res=resolution, eff=1.0, init_xyz=(0.5, 0.5, top - depth), init_xy_span=(2.0, 2.0)
            )
            for depth in (0.02, 0.1, 0.18)
        ]

    layers = [PanelDetectorLayer("above", lw=lw, z=1.0, size=0.2, panels=panels(1.0))]
    layers += [PassiveLayer(lw, round(0.8 - 0.1 * k, 1), 0.1) for k in range(6)]
    layers += [PanelDetectorLayer("below", lw=lw, z=0.2, size=0.2, panels=panels(0.2))]
    volume = Volume(layers).eval()
    volume.load_rad_length(layout)
    return volume


def share_in_lead(mu: MuonBatch) -> Tensor:
    """Share of the block's height in which the straight line of a muon is inside the block, ``(muon,)``."""
    z = torch.linspace(BOTTOM + 0.005, TOP - 0.005, 30)[:, None]
    slope = mu.direction[:2] / mu.direction[2]
    xy = mu.position[:2, None] + slope[:, None] * (z - mu.position[2])
    return ((xy > LOW) & (xy < HIGH)).all(0).float().mean(0)


@torch.no_grad()
def median_x0(volume: Volume, kinematics: Tensor) -> float:
    """Median of the inferred X0 of the lead's voxels, m."""
    mu = MuonBatch(kinematics, init_z=volume.h, stream=Stream("resolution").muons())
    volume(mu)
    inferrer = PanelX0Inferrer(volume)
    inferrer.add_scatters(ScatterBatch(mu, volume))
    image = inferrer.get_prediction()
    assert image is not None
    return float(image[volume.get_rad_cube() < 0.01].median())


def main(path: Path) -> None:
    """Draw X0 against resolution for all muons, and apart for those that cross the lead and those that miss it."""
    torch.set_num_threads(1)
    volume = build(1e4)
    muons = MuonGenerator2016.from_volume(volume, fixed_mom=5.0)(N_MUONS, stream=Stream("resolution").muons())
    share = share_in_lead(MuonBatch(muons, init_z=volume.h))
    groups = (
        ("all muons", muons[:N_USED], "#222222", "o"),
        ("those that miss the lead", muons[share == 0][:N_USED], "#D55E00", "s"),
        ("those that cross 6 cm of it or more", muons[share > 0.2][:N_USED], "#0072B2", "^"),
    )
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    for text, kinematics, colour, mark in groups:
        found = [median_x0(build(resolution), kinematics) for resolution in RESOLUTIONS]
        print(f"{text:38}", *(f"{x0:.2g}" for x0 in found))
        axes.plot(RESOLUTIONS, found, color=colour, marker=mark, ms=5, label=text)
    for name in ("lead", "beryllium"):
        axes.axhline(material(name).x0, color="0.6", lw=1, ls="--")
        axes.text(1.05e6, material(name).x0 * 1.12, name, color="0.4", fontsize=9, ha="right")
    axes.set(
        xscale="log", yscale="log", xlabel="resolution of the panels [1/m]", ylabel="inferred $X_0$ of the lead [m]"
    )
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=90, facecolor="white", metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("resolution_limit.png"))
