"""Small apparatus and beams that tests of tomography share. Everything follows from numbers given, nothing from a seed
elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffdet.core.materials import X0
from diffdet.core.random import Stream
from diffdet.tomography.inference.scattering import ScatterBatch
from diffdet.tomography.muon.hits import HitBatch
from diffdet.tomography.muon.muon_batch import MuonBatch
from diffdet.tomography.volume.layer import AbsLayer, PanelDetectorLayer, PassiveLayer
from diffdet.tomography.volume.panel import DetectorPanel, SigmoidDetectorPanel
from diffdet.tomography.volume.volume import Volume

LW = torch.tensor([1.0, 1.0])
TOP = 1.0
BLOCK = (0.2, 0.8)


def beam(
    n: int,
    *,
    seed: int = 0,
    low: float = 0.0,
    high: float = 1.0,
    momentum: float = 5.0,
    max_theta: float = 0.6,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """``(n, 5)`` muons: x and y uniform, theta uniform from 0, phi uniform. The same muons in every dtype."""
    u = torch.rand((4, n), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x, y = low + (high - low) * u[0], low + (high - low) * u[1]
    columns = [x, y, torch.full_like(x, momentum), max_theta * u[2], 2 * math.pi * u[3]]
    return torch.stack(columns, 1).to(dtype)


def pencil(
    n: int,
    *,
    theta: float = 0.0,
    phi: float = 0.0,
    momentum: float = 5.0,
    at: tuple[float, float] = (0.5, 0.5),
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """``(n, 5)`` equal muons."""
    return torch.tensor([*at, momentum, theta, phi], dtype=dtype).expand(n, 5).clone()


def muons(xy_p_theta_phi: Tensor, *, z: float = TOP, key: int = 1, first: int = 0) -> MuonBatch:
    """A batch whose randomness follows from ``key``."""
    return MuonBatch(xy_p_theta_phi, z, stream=Stream("scene", key).muons(), first=first)


def panel(
    kind: str = "gaussian",
    *,
    xy: tuple[float, float] = (0.5, 0.5),
    z: float = 0.9,
    span: tuple[float, float] = (1.0, 1.0),
    res: float = 1e4,
    eff: float = 0.9,
    smooth: float = 0.5,
    **options: Any,
) -> DetectorPanel:
    """One panel."""
    given: dict[str, Any] = {"res": res, "eff": eff, "init_xyz": (*xy, z), "init_xy_span": span, **options}
    return DetectorPanel(**given) if kind == "gaussian" else SigmoidDetectorPanel(smooth=smooth, **given)


def volume(
    kind: str | Sequence[str] = "gaussian",
    *,
    above: Sequence[float] = (0.99, 0.95, 0.90, 0.85),
    below: Sequence[float] = (0.15, 0.10, 0.05, 0.01),
    shift: float = 0.0,
    budget: float | None = None,
    x0: Callable[..., Tensor] | None = None,
    dtype: torch.dtype = torch.float64,
    voxel: float = 0.1,
    step: float = 0.01,
    scatter_model: str = "pdg",
    **options: Any,
) -> Volume:
    """1 m x 1 m x 1 m: panels in 0.8-1 m and 0-0.2 m, voxels between.

    Args:
        kind: "gaussian" or "sigmoid", or one for every panel of a side.
        above: heights of the panels above, m.
        below: heights of the panels below, m.
        shift: panels are displaced by multiples of this in x and y, and their widths differ by it, m.
        budget: of the volume.
        x0: layout; empty where None.
        dtype: of everything.
        voxel: edge, m.
        step: of the passive layers, m.
        scatter_model: of the passive layers.
        options: of the panels.
    """

    def panels(heights: Sequence[float]) -> list[DetectorPanel]:
        kinds = [kind] * len(heights) if isinstance(kind, str) else list(kind)
        return [
            panel(
                kinds[k],
                z=z,
                xy=(0.5 + shift * (k - 1), 0.5 - shift * (k - 0.5)),
                span=options.get("span", (1.0 + shift * k, 1.0 - shift * k)),
                **{name: value for name, value in options.items() if name != "span"},
            )
            for k, z in enumerate(heights)
        ]

    layers: list[AbsLayer] = [PanelDetectorLayer("above", lw=LW, z=1.0, size=0.2, panels=panels(above))]
    n = round((BLOCK[1] - BLOCK[0]) / voxel)
    layers += [
        PassiveLayer(LW, round(BLOCK[1] - voxel * k, 9), voxel, step_sz=step, scatter_model=scatter_model)
        for k in range(n)
    ]
    layers += [PanelDetectorLayer("below", lw=LW, z=0.2, size=0.2, panels=panels(below))]
    made = Volume(nn.ModuleList(layers), budget=budget).to(dtype)
    if x0 is not None:
        made.load_rad_length(x0)
    return made


def filled(material: str) -> Callable[..., Tensor]:
    """A layout of one material."""

    def x0(*, z: Tensor, lw: Tensor, size: float) -> Tensor:
        nx, ny = (round(float(extent) / size) for extent in lw)
        return torch.full((nx, ny), X0[material])

    return x0


def lead_in_beryllium(*, z: Tensor, lw: Tensor, size: float) -> Tensor:
    """Beryllium with lead in x, y >= 0.5 m, z from 0.4 to 0.6 m."""
    nx, ny = (round(float(extent) / size) for extent in lw)
    cells = torch.full((nx, ny), X0["beryllium"])
    if 0.45 < float(z) < 0.65:
        cells[nx // 2 :, ny // 2 :] = X0["lead"]
    return cells


def hits_of_tracks(
    track_in: tuple[Sequence[float], Sequence[float]],
    track_out: tuple[Sequence[float], Sequence[float]],
    n: int,
    *,
    sigma: float | Tensor,
    above: Sequence[float] = (0.99, 0.95, 0.90, 0.85),
    below: Sequence[float] = (0.15, 0.10, 0.05, 0.01),
    seed: int = 0,
    eff: float = 0.9,
) -> dict[str, HitBatch]:
    """Hits of ``n`` repetitions of one scattering, smeared by ``sigma``.

    Args:
        track_in: point (x, y, z) and slopes (dx/dz, dy/dz) of the incoming track.
        track_out: the same of the outgoing one.
        n: repetitions.
        sigma: standard deviation of the hits, m; a number, or ``(panel, 2)``, the same on both sides.
        above: heights of the panels above, m.
        below: heights of the panels below, m.
        seed: of the smearing.
        eff: efficiency of every hit.
    """
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for pos, heights, (point, slope) in (("above", above, track_in), ("below", below, track_out)):
        z = torch.tensor(heights, dtype=torch.float64)[:, None]
        true = torch.tensor(point[:2], dtype=torch.float64) + torch.tensor(slope, dtype=torch.float64) * (z - point[2])
        gen = true[:, :, None].expand(-1, -1, n)
        width = torch.as_tensor(sigma, dtype=torch.float64).expand(len(heights), 2)[:, :, None].expand_as(gen)
        noise = torch.randn(gen.shape, generator=generator, dtype=torch.float64)
        efficiency = torch.full((len(heights), n), eff, dtype=torch.float64)
        out[pos] = HitBatch(gen + width * noise, gen, z, width, efficiency)
    return out


def batch_of(hits: dict[str, HitBatch]) -> MuonBatch:
    """Muons that have these hits and nothing else."""
    mu = muons(pencil(hits["above"].n_muons))
    for pos, batch in hits.items():
        mu.append_hits(batch, pos)
    return mu


def scattered(made: Volume, xy_p_theta_phi: Tensor, *, key: int = 1, first: int = 0) -> ScatterBatch:
    """Fly muons through a volume and fit them."""
    mu = muons(xy_p_theta_phi, key=key, first=first)
    made(mu)
    return ScatterBatch(mu, made)
