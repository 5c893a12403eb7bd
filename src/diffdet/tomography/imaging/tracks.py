"""From hits to the tracks that imaging uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffdet.core.errors import InputError
from diffdet.kernels import imaging, lines, scattering
from diffdet.kernels.imaging import VoxelGrid
from diffdet.kernels.lines import Lines
from diffdet.tomography.io.table import HitTable

__all__ = ["MuonTracks", "TrackStore"]


@dataclass(frozen=True)
class MuonTracks:
    """Fitted tracks of the muons that crossed the volume and were measured on both sides.

    Attributes:
        lines: ``(4, muon)`` lines at ``z_ref``, rows (in_x, in_y, out_x, out_y).
        z_ref: common height, m.
        beta_p: ``(muon,)`` beta times momentum, GeV.
        dropped: number of muons left out, by reason.
    """

    lines: Lines
    z_ref: float
    beta_p: Tensor
    dropped: Counter[str] = field(default_factory=Counter[str])

    def __len__(self) -> int:
        return self.beta_p.shape[0]

    @classmethod
    def from_hits(
        cls,
        table: HitTable,
        grid: VoxelGrid,
        *,
        momentum: float | None = None,
        max_angle: float | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> MuonTracks:
        """Fit a line above and one below to the hits of every muon.

        Args:
            table: The hits.
            grid: Voxels that the muons must cross.
            momentum: Assumed where the table has none, GeV.
            max_angle: Muons that scattered by more are dropped, rad; None for no limit. A limit that cuts into the
                distribution makes matter look thinner.
            dtype: Type of the tracks.

        Raises:
            InputError: If neither the table nor `momentum` tells the momentum.
        """
        if table.momentum is None and momentum is None:
            raise InputError("the hits have no column `momentum`: give the `momentum` to assume, GeV")
        z_ref = 0.5 * sum(grid.z_range)
        dropped = Counter(table.dropped)
        keep = torch.ones(len(table), dtype=torch.bool)
        fitted, wrong = _fit(table, z_ref, dtype)
        wrong["track misses the volume"] = ~_crosses(fitted, z_ref, grid)
        if max_angle is not None:
            square, _ = imaging.scatter_square(fitted)
            wrong[f"scattered by more than {max_angle:g} rad"] = 2 * square > max_angle**2
        for reason, muons in wrong.items():
            dropped[reason] += int((keep & muons).sum())
            keep &= ~muons
        at = keep.nonzero()[:, 0]
        known = torch.full((len(table),), float(momentum or 0.0)) if table.momentum is None else table.momentum
        position, slope, *covariance = (part.index_select(-1, at) for part in fitted[:5])
        chosen = Lines(position, slope, covariance[0], covariance[1], covariance[2], slope.new_tensor(z_ref))
        return cls(chosen, z_ref, scattering.beta_momentum(known.to(dtype).index_select(0, at)), +dropped)


def _fit(table: HitTable, z_ref: float, dtype: torch.dtype) -> tuple[Lines, dict[str, Tensor]]:
    """Lines through the hits of all muons, and which muons have no line, by reason."""
    hits = table.mask.sum(1)
    wrong = {"fewer than two hits above": hits[0] < 2, "fewer than two hits below": hits[1] < 2}
    xy = torch.stack([table.x, table.y], 2).to(dtype)
    if xy.numel() == 0:
        none = xy.new_zeros((4, len(table)))
        return Lines(none, none, none, none, none, none), wrong
    sigma = torch.stack([table.x_unc, table.y_unc], 2).to(dtype)
    z = table.z[:, :, None].to(dtype).expand_as(xy)
    weight = torch.where(table.mask[:, :, None], 1 / sigma.square(), torch.zeros_like(sigma))
    fitted = lines.fit_weighted(xy, z, weight, sigma)
    tracks = lines.at_plane(Lines(*(part.flatten(0, 1) for part in fitted)), z_ref)
    known = torch.isfinite(tracks.position).all(0) & (tracks.var_slope < 0.1 * lines.UNKNOWN_VARIANCE).all(0)
    return tracks, {**wrong, "no slope: all hits of a side at one height": ~known}


def _crosses(tracks: Lines, z_ref: float, grid: VoxelGrid) -> Tensor:
    """Whether either line is inside the box anywhere between its bottom and its top."""
    heights = torch.linspace(*grid.z_range, 2 * grid.counts[2] + 1, dtype=tracks.position.dtype)[:, None, None]
    crossed = torch.zeros(tracks.position.shape[1], dtype=torch.bool)
    for rows in (slice(0, 2), slice(2, 4)):
        place = tracks.position[rows] + tracks.slope[rows] * (heights - z_ref)
        from_low = [(place[:, k] - grid.low[k]) / grid.size for k in range(2)]
        inside = [(along >= 0) & (along < grid.counts[k]) for k, along in enumerate(from_low)]
        crossed |= (inside[0] & inside[1]).any(0)
    return crossed


class TrackStore:
    """Tracks that can be gone through again and again.

    The first pass keeps them in memory while they fit; when they do not, every pass makes them again from the source.

    Args:
        source: Called for each pass that needs it; gives chunks of tracks in the same order every time.
        max_bytes: Memory for tracks.
    """

    def __init__(self, source: Callable[[], Iterable[MuonTracks]], max_bytes: int = 1 << 28) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self._kept: list[MuonTracks] | None = None

    def __iter__(self) -> Iterator[MuonTracks]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[MuonTracks] = []
        size = 0
        for tracks in self._source():
            size += sum(part.nbytes for part in tracks.lines) + tracks.beta_p.nbytes
            if size <= self._max_bytes:
                kept.append(tracks)
            else:
                kept.clear()
            yield tracks
        if size <= self._max_bytes:
            self._kept = kept
