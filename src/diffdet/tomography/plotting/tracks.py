"""One muon's hits, fitted tracks and closest approach."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from diffdet.core.errors import InputError
from diffdet.tomography.plotting import appearance
from diffdet.tomography.plotting.appearance import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from diffdet.tomography.inference.scattering import ScatterBatch

__all__ = ["plot_scatter", "scatter_figure"]

_PLANES = ((0, 2), (1, 2), (0, 1))
_NAMES = "xyz"
# Room around what is drawn, as a fraction of the longest side.
_MARGIN = 0.06


class _Track(NamedTuple):
    """What is drawn of one side; rows are x, y, z."""

    name: str
    colour: str
    hits: Tensor  # (hit, 3)
    uncs: Tensor  # (hit, 3)
    start: Tensor  # (3,)
    end: Tensor  # (3,)


def plot_scatter(scatters: ScatterBatch, idx: int, savename: str | os.PathLike[str] | None = None) -> None:
    """Draw one muon in three projections, and show it where there is somebody to show it to.

    Args:
        scatters: Muons with fitted tracks.
        idx: Which muon; negative numbers count from the end.
        savename: File to save the figure to.

    Raises:
        InputError: If there is no muon of that number.
    """
    appearance.present(scatter_figure(scatters, idx), savename)


def scatter_figure(scatters: ScatterBatch, idx: int) -> Figure:
    """Hits with error bars, both fitted lines through the whole apparatus, and their closest approach with its
    uncertainty, seen along y, x and z; angles stand below.

    Args:
        scatters: Muons with fitted tracks.
        idx: Which muon; negative numbers count from the end.

    Returns:
        The figure.

    Raises:
        InputError: If there is no muon of that number.
    """
    n = len(scatters)
    if not -n <= idx < n:
        raise InputError(f"`idx` must be the number of one of {n} muons; got {idx}")
    tracks = _tracks(scatters, idx)
    poca, poca_unc = scatters.poca_xyz[idx].detach(), scatters.poca_xyz_unc[idx].detach()
    box = torch.tensor(scatters.volume.passive_box, dtype=poca.dtype)
    with appearance.style(0.6):
        figure = appearance.new_figure(12, 5.4)
        all_axes = figure.subplots(1, 3)
        for axes, plane in zip(all_axes, _PLANES, strict=True):
            _draw_plane(axes, plane, tracks, poca, poca_unc, box)
        for axes, text in zip(all_axes, _captions(scatters, idx), strict=True):
            axes.annotate(text, (0, -0.2), xycoords="axes fraction", va="top", fontsize=9.5, linespacing=1.5)
        handles, labels = all_axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def _tracks(scatters: ScatterBatch, idx: int) -> list[_Track]:
    """Both sides; hits that are missing are left out."""
    top = float(scatters.volume.h)
    sides = []
    for name, colour in (("in", PALETTE["blue"]), ("out", PALETTE["vermillion"])):
        where = "above" if name == "in" else "below"
        hits = scatters.hits[where]["reco_xyz"][idx].detach()
        uncs = scatters.hits[where]["unc_xyz"][idx].detach()
        seen = hits.isfinite().all(-1) & uncs.isfinite().all(-1)
        sides.append((name, colour, hits[seen], uncs[seen]))
    heights = torch.cat([side[2][:, 2] for side in sides])
    low, high = min(0.0, float(heights.min())), max(top, float(heights.max()))
    out = []
    for (name, colour, hits, uncs), vector, start in zip(
        sides,
        (scatters.track_in[idx].detach(), scatters.track_out[idx].detach()),
        (scatters.track_start_in[idx].detach(), scatters.track_start_out[idx].detach()),
        strict=True,
    ):
        ends = [start + vector * ((z - start[2]) / vector[2]) for z in (high, low)]
        out.append(_Track(name, colour, hits, uncs, *ends))
    return out


def _draw_plane(
    axes: Axes, plane: tuple[int, int], tracks: list[_Track], poca: Tensor, poca_unc: Tensor, box: Tensor
) -> None:
    """Draw the projection on one plane, both axes to one scale."""
    from matplotlib.patches import Rectangle

    i, j = plane
    low, high = box[:, plane].tolist()
    axes.add_patch(
        Rectangle(
            (low[0], low[1]), high[0] - low[0], high[1] - low[1], fc="0.93", ec="0.7", zorder=0.4, label="passive block"
        )
    )
    seen = [box[:, plane], poca[None, plane]]
    for track in tracks:
        ends = torch.stack([track.start, track.end])[:, plane]
        axes.plot(*ends.T.tolist(), color=track.colour, linewidth=1.5, label=f"track {track.name}")
        axes.errorbar(
            *track.hits[:, plane].T.tolist(),
            xerr=track.uncs[:, i].tolist(),
            yerr=track.uncs[:, j].tolist(),
            fmt="o" if track.name == "in" else "s",
            markersize=6,
            markerfacecolor="white",
            color=track.colour,
            label=f"hits {track.name}",
        )
        seen += [track.hits[:, plane], ends]
    axes.errorbar(
        *([value] for value in poca[list(plane)].tolist()),
        xerr=[float(poca_unc[i])],
        yerr=[float(poca_unc[j])],
        fmt="D",
        markersize=7,
        capsize=3,
        color="black",
        zorder=5,
        label="closest approach",
    )
    points = torch.cat(seen)
    points = points[points.isfinite().all(1)]
    low, high = points.amin(0), points.amax(0)
    middle, half = (0.5 * (low + high)).tolist(), (0.5 + _MARGIN) * float((high - low).max())
    axes.set(
        xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half), aspect="equal", anchor="N"
    )
    axes.set(xlabel=f"{_NAMES[i]} [m]", ylabel=f"{_NAMES[j]} [m]")


def _captions(scatters: ScatterBatch, idx: int) -> list[str]:
    """The angles under the three projections."""

    def angle(name: str, column: int = 0, unit: str = "mrad") -> str:
        scale = 1e3 if unit == "mrad" else 1.0
        value = scale * float(getattr(scatters, name)[idx, column].detach())
        unc = scale * float(getattr(scatters, name + "_unc")[idx, column].detach())
        # two significant digits of the uncertainty
        digits = max(0, 1 - math.floor(math.log10(unc))) if 0 < unc < math.inf else 2
        return f"{value:.{digits}f} ± {unc:.{digits}f} {unit}".replace("-", "\N{MINUS SIGN}")

    planes = [
        f"$\\theta_{k}$ in:  {angle('theta_xy_in', c)}\n"
        f"$\\theta_{k}$ out:  {angle('theta_xy_out', c)}\n"
        f"$|\\Delta\\theta_{k}|$:  {angle('dtheta_xy', c)}"
        for c, k in enumerate("xy")
    ]
    azimuth = (
        f"$\\phi$ in:  {angle('phi_in', unit='rad')}\n"
        f"$\\phi$ out:  {angle('phi_out', unit='rad')}\n"
        f"$\\Delta\\phi$:  {angle('dphi', unit='rad')}\n"
        f"scattering angle:  {angle('total_scatter')}"
    )
    return [*planes, azimuth]
