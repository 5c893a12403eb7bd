"""A batch of muons in flight."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from diffdet.core.checks import check_finite, check_positive
from diffdet.core.errors import NoHitsError, ShapeError
from diffdet.core.random import MuonStream, Stream
from diffdet.kernels.safe_math import safe_atan2, safe_norm
from diffdet.kernels.scattering import beta_momentum
from diffdet.tomography.core import DEVICE
from diffdet.tomography.muon.hits import HitBatch

__all__ = ["MuonBatch"]

_X, _Y, _Z, _UX, _UY, _UZ, _P, _N_RAD = range(8)

Limit = tuple[float, float] | Tensor | None


class MuonBatch:
    """Many muons: positions, directions, momenta, and the hits that detectors recorded of them.

    This is the one object of the wing that changes in place. The verbs that change it are ``propagate_dz``,
    ``propagate_d``, ``scatter_dxyz``, ``scatter_dtheta_dphi``, ``scatter_dtheta_xy``, ``filter_muons``,
    ``remove_upwards_muons``, ``append_hits`` and ``snapshot_xyz``; what it offers to read is a copy or a view that
    must not be written to.

    Positions are in metres in the volume frame (z up), momenta in GeV. ``theta`` is the angle to the *negative* z
    axis, ``phi`` anticlockwise from +x; the direction of motion is (sin t cos f, sin t sin f, -cos t). Internally
    directions are kept as unit vectors, one contiguous row per component, so that small deflections are not rounded
    away and no trigonometry is needed on the way through the volume.

    Args:
        xy_p_theta_phi: ``(N, 5)`` x, y [m], momentum [GeV], theta [0, pi), phi [0, 2 pi) [rad]; copied.
        init_z: starting height of all muons, or ``(N,)`` heights, m.
        device: where the tensors live.
        stream: where everything random that happens to these muons is drawn from; a stream of torch's default generator
            where None.
        first: number of the first of these muons in the stream. Two batches with the same stream and different
            ``first`` are parts of one sequence: it does not matter how the sequence is cut.

    Raises:
        ShapeError: ``xy_p_theta_phi`` is not (N, 5), or ``init_z`` neither a number nor (N,).
        InputError: not finite, or a momentum is not positive.
    """

    x_dim = 0
    y_dim = 1
    z_dim = 2
    p_dim = 3
    th_dim = 4
    ph_dim = 5

    def __init__(
        self,
        xy_p_theta_phi: Tensor,
        init_z: Tensor | float,
        device: torch.device = DEVICE,
        *,
        stream: MuonStream | None = None,
        first: int = 0,
    ) -> None:
        if xy_p_theta_phi.ndim != 2 or xy_p_theta_phi.shape[1] not in (5, 6):
            raise ShapeError(f"`xy_p_theta_phi` must have the shape (N, 5); given: {tuple(xy_p_theta_phi.shape)}")
        check_finite("xy_p_theta_phi", xy_p_theta_phi)
        columns = xy_p_theta_phi.detach().to(device)
        if not columns.is_floating_point():
            columns = columns.to(torch.get_default_dtype())
        if columns.shape[1] == 6:  # a state as `muons` returns it: the recorded z is replaced by init_z
            columns = columns[:, [0, 1, 3, 4, 5]]
        n = columns.shape[0]
        z = torch.as_tensor(init_z, dtype=columns.dtype, device=device).detach()
        if z.numel() != 1 and z.shape != (n,):
            raise ShapeError(f"`init_z` must be a number or have the shape ({n},); given: {tuple(z.shape)}")
        if n:
            check_positive("xy_p_theta_phi[:, 2] (momentum)", float(columns[:, 2].min()))
        self._rows = columns.new_zeros((8, n))
        self._rows[_X], self._rows[_Y] = columns[:, 0], columns[:, 1]
        self._rows[_Z] = z
        self._rows[_P] = columns[:, 2]
        self._set_angles(columns[:, 3], columns[:, 4])
        self.device = device
        self.stream = stream if stream is not None else Stream.from_torch().muons()
        self.first = first
        self.n_initial = n
        self._ids: Tensor | None = None  # None: nothing was removed
        self._hits: dict[str, list[HitBatch]] = {}
        self._hits_of: Tensor | None = None  # which muons of the recorded hits are left, None: all
        self._n_draws: dict[str, int] = {}
        self._removed: list[Tensor] = []
        self._xyz_hist: list[Tensor] = []
        self._keep_mask: Tensor | None = None

    # ---------------------------------------------------------------------------------------------- identity and chance
    def __len__(self) -> int:
        return self._rows.shape[1]

    def __repr__(self) -> str:
        return f"Batch of {len(self)} muons"

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the muons."""
        return self._rows.dtype

    @property
    def ids(self) -> Tensor:
        """``(N,)`` number of each remaining muon in its stream."""
        if self._ids is None:
            return torch.arange(self.first, self.first + self.n_initial, device=self.device)
        return self._ids + self.first

    def draw_normal(self, purpose: str, draws: tuple[int, ...]) -> Tensor:
        """Standard normals for these muons, ``(*draws, N)``.

        The k-th draw for one purpose gives a muon the same numbers whatever batch it flies in and whoever was removed.
        """
        return self._cut(
            self.stream.normal(self.next_use(purpose), draws, *self._range(), dtype=self.dtype, device=self.device)
        )

    def draw_uniform(self, purpose: str, draws: tuple[int, ...]) -> Tensor:
        """Uniform numbers in [0, 1) for these muons, ``(*draws, N)``; keyed like ``draw_normal``."""
        return self._cut(
            self.stream.uniform(self.next_use(purpose), draws, *self._range(), dtype=self.dtype, device=self.device)
        )

    def next_use(self, purpose: str) -> str:
        """Name of the next use of ``purpose``, and count it: ``"scatter/0"``, then ``"scatter/1"``, ...

        Where the *number* of draws depends on which muons fly together, such as steps until the last muon has left a
        layer, draw under a name taken once before: otherwise whatever is drawn later would depend on the batch too.
        """
        k = self._n_draws.get(purpose, 0)
        self._n_draws[purpose] = k + 1
        return f"{purpose}/{k}"

    def _range(self) -> tuple[int, int]:
        return self.first, self.first + self.n_initial

    def _cut(self, drawn: Tensor) -> Tensor:
        return drawn if self._ids is None else drawn.index_select(-1, self._ids)

    # ------------------------------------------------------------------------------------------------- kinematics, read
    @property
    def muons(self) -> Tensor:
        """``(N, 6)`` x, y, z, momentum, theta, phi (a copy; assign to replace the state)."""
        return _documented(self._rows)

    @muons.setter
    def muons(self, muons: Tensor) -> None:
        if muons.shape != (len(self), 6):
            raise ShapeError(f"`muons` must have the shape {(len(self), 6)}; given: {tuple(muons.shape)}")
        columns = muons.detach().to(self._rows).T
        self._rows[:3] = columns[:3]
        self._rows[_P] = columns[3]
        self._set_angles(columns[4], columns[5])

    @property
    def position(self) -> Tensor:
        """``(3, N)`` positions, m (a view)."""
        return self._rows[:3]

    @property
    def direction(self) -> Tensor:
        """``(3, N)`` unit directions of motion (a view)."""
        return self._rows[_UX : _UZ + 1]

    @property
    def n_rad(self) -> Tensor:
        """``(N,)`` radiation lengths crossed so far (a view)."""
        return self._rows[_N_RAD]

    @property
    def x(self) -> Tensor:
        """``(N,)`` m."""
        return self._rows[_X]

    @property
    def y(self) -> Tensor:
        """``(N,)`` m."""
        return self._rows[_Y]

    @property
    def z(self) -> Tensor:
        """``(N,)`` m."""
        return self._rows[_Z]

    @property
    def xy(self) -> Tensor:
        """``(N, 2)`` m."""
        return self._rows[:2].T

    @property
    def xyz(self) -> Tensor:
        """``(N, 3)`` m."""
        return self._rows[:3].T

    @property
    def mom(self) -> Tensor:
        """``(N,)`` true momentum, GeV."""
        return self._rows[_P]

    @property
    def reco_mom(self) -> Tensor:
        """``(N,)`` momentum as the detector would measure it: the true one, no spectrometer is modelled, GeV."""
        return self._rows[_P]

    @property
    def beta_momentum(self) -> Tensor:
        """``(N,)`` velocity (in units of c) times momentum, on which scattering depends, GeV."""
        return beta_momentum(self._rows[_P])

    @property
    def theta(self) -> Tensor:
        """``(N,)`` angle to the negative z axis, [0, pi], rad."""
        return _theta(self._rows)

    @property
    def phi(self) -> Tensor:
        """``(N,)`` azimuth from +x, [0, 2 pi), rad."""
        return _phi(self._rows)

    @property
    def theta_x(self) -> Tensor:
        """``(N,)`` projected angle in the xz plane, rad; NaN for a muon that does not move down."""
        return self._projected(_UX)

    @property
    def theta_y(self) -> Tensor:
        """``(N,)`` projected angle in the yz plane, rad; NaN for a muon that does not move down."""
        return self._projected(_UY)

    @property
    def theta_xy(self) -> Tensor:
        """``(N, 2)`` projected angles, rad."""
        return torch.stack([self.theta_x, self.theta_y], 1)

    def _projected(self, row: int) -> Tensor:
        down = -self._rows[_UZ]
        angle = safe_atan2(self._rows[row], down)
        return torch.where(down > 0, angle, torch.full_like(angle, torch.nan))

    @property
    def xyz_hist(self) -> list[Tensor]:
        """Snapshots taken by ``snapshot_xyz``, ``(N, 3)`` each, oldest first."""
        return self._xyz_hist

    @property
    def upwards_muons(self) -> Tensor | None:
        """``(n, 6)`` last state of every muon that was removed, or None where none was."""
        return _documented(torch.cat(self._removed, 1)) if self._removed else None

    def _set_angles(self, theta: Tensor, phi: Tensor) -> None:
        sine = torch.sin(theta)
        self._rows[_UX], self._rows[_UY], self._rows[_UZ] = (
            sine * torch.cos(phi),
            sine * torch.sin(phi),
            -torch.cos(theta),
        )

    # ---- flight
    def set_state(self, position: Tensor, direction: Tensor, n_rad: Tensor) -> None:
        """Replace positions ``(3, N)``, unit directions ``(3, N)`` and crossed radiation lengths ``(N,)`` after
        transport.
        """
        self._rows[:3] = position
        self._rows[_UX : _UZ + 1] = direction
        self._rows[_N_RAD] = n_rad

    def propagate_to_z(self, z: float) -> None:
        """Move all muons along straight lines to the plane at height ``z``, m."""
        rows = self._rows
        path = (z - rows[_Z]) / rows[_UZ]
        rows[:2] += path * rows[_UX : _UY + 1]
        rows[_Z] = z

    def propagate_d(self, d: Tensor | float, mask: Tensor | None = None) -> None:
        """Move muons by a distance along their direction of flight.

        Args:
            d: distance, m: a number, ``(1,)``, ``(N,)``, or one value per selected muon.
            mask: ``(N,)`` which muons move; all where None.
        """
        self._shift(torch.as_tensor(d, dtype=self.dtype, device=self.device), mask)

    def propagate_dz(self, dz: Tensor | float, mask: Tensor | None = None) -> None:
        """Move muons along their direction of flight until they have *fallen* by ``dz``.

        Args:
            dz: positive is down, m: a number, ``(1,)``, ``(N,)``, or one value per selected muon.
            mask: ``(N,)`` which muons move; all where None.
        """
        down = -self._rows[_UZ]
        fall = torch.as_tensor(dz, dtype=self.dtype, device=self.device)
        self._shift(fall / (down if mask is None or fall.shape == down.shape else down[mask]), mask)

    def _shift(self, d: Tensor, mask: Tensor | None) -> None:
        if mask is None:
            self._rows[:3] += d * self.direction
            return
        if d.shape == (len(self),):
            d = d[mask]
        self._rows[:3, mask] += d * self._rows[_UX : _UZ + 1, mask]

    def scatter_dxyz(
        self,
        dx_vol: Tensor | None = None,
        dy_vol: Tensor | None = None,
        dz_vol: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> None:
        """Displace muons, m; each of the three may be left out. ``mask`` selects muons; values are per selected
        muon.
        """
        where = slice(None) if mask is None else mask
        for row, shift in ((_X, dx_vol), (_Y, dy_vol), (_Z, dz_vol)):
            if shift is not None:
                self._rows[row, where] += shift

    def scatter_dtheta_dphi(
        self, dtheta_vol: Tensor | None = None, dphi_vol: Tensor | None = None, mask: Tensor | None = None
    ) -> None:
        """Change theta and phi, rad; muons that then point upwards are removed.

        A theta that passes zero comes out on the other side: theta positive, phi turned by pi.
        """
        where = slice(None) if mask is None else mask
        theta, phi = self.theta, self.phi
        if dphi_vol is not None:
            phi[where] += dphi_vol
        if dtheta_vol is not None:
            theta[where] += dtheta_vol
        # the direction formula continues through theta < 0 and theta > pi by itself
        sine = torch.sin(theta)
        turned = torch.stack([sine * torch.cos(phi), sine * torch.sin(phi), -torch.cos(theta)])
        self._rows[_UX : _UZ + 1, where] = turned[:, where]
        self.remove_upwards_muons()

    def scatter_dtheta_xy(
        self, dtheta_x_vol: Tensor | None = None, dtheta_y_vol: Tensor | None = None, mask: Tensor | None = None
    ) -> None:
        """Change the projected angles, rad; muons whose projected angle reaches +-pi/2 are removed."""
        where = slice(None) if mask is None else mask
        theta_x, theta_y = self.theta_x, self.theta_y
        if dtheta_x_vol is not None:
            theta_x[where] += dtheta_x_vol
        if dtheta_y_vol is not None:
            theta_y[where] += dtheta_y_vol
        lost = ~((theta_x.abs() < math.pi / 2) & (theta_y.abs() < math.pi / 2))
        slope = torch.stack([torch.tan(theta_x), torch.tan(theta_y), -torch.ones_like(theta_x)])
        unit = slope / torch.linalg.vector_norm(slope, dim=0)
        unit[:, lost] = torch.nan
        self._rows[_UX : _UZ + 1, where] = unit[:, where]
        self.remove_upwards_muons()

    # ---- removal
    def remove_upwards_muons(self) -> None:
        """Remove muons, and their hits, that do not move down (theta >= pi/2) or have no direction (NaN).

        ``_keep_mask`` then holds the mask over the batch before the removal.
        """
        self._keep_mask = self._rows[_UZ] < 0
        self.filter_muons(self._keep_mask)

    def filter_muons(self, keep_mask: Tensor) -> None:
        """Keep only the muons, and their hits, where ``keep_mask`` is True; the others are appended to
        ``upwards_muons``.

        Args:
            keep_mask: ``(N,)`` bool.

        Raises:
            ShapeError: the mask has another length.
        """
        if keep_mask.shape != (len(self),):
            raise ShapeError(f"`keep_mask` must have the shape ({len(self)},); given: {tuple(keep_mask.shape)}")
        if bool(keep_mask.all()):
            return
        gone, idx = (~keep_mask).nonzero().squeeze(-1), keep_mask.nonzero().squeeze(-1)
        self._removed.append(self._rows.index_select(1, gone))
        self._rows = self._rows.index_select(1, idx)
        self._ids = idx if self._ids is None else self._ids.index_select(0, idx)
        if self._hits:
            self._hits_of = idx if self._hits_of is None else self._hits_of.index_select(0, idx)

    def _settle_hits(self) -> None:
        """Cut recorded hits to the muons that are left: not before somebody asks, since often nobody does."""
        idx, self._hits_of = self._hits_of, None
        if idx is not None:
            self._hits = {pos: [h.select(idx) for h in parts] for pos, parts in self._hits.items()}

    def get_xy_mask(self, xy_low: Limit, xy_high: Limit) -> Tensor:
        """``(N,)`` True where xy_low <= xy < xy_high (closed below, open above); None is unbounded."""
        mask = torch.ones(len(self), dtype=torch.bool, device=self.device)
        for k in range(2):
            if xy_low is not None:
                mask = mask & (self._rows[k] >= xy_low[k])
            if xy_high is not None:
                mask = mask & (self._rows[k] < xy_high[k])
        return mask

    # ---- hits
    def append_hits(self, hits: dict[str, Tensor] | HitBatch, pos: str) -> None:
        """Record hits: one panel's documented dictionary of ``(muons, ...)`` tensors, or a stacked HitBatch.

        Args:
            hits: keys ``reco_xyz``, ``gen_xyz``, ``unc_xyz`` (N, 3) and ``eff`` (N, 1).
            pos: group of the detectors, "above" or "below".
        """
        batch = hits if isinstance(hits, HitBatch) else HitBatch.from_dict(hits)
        if batch.n_muons != len(self):
            raise ShapeError(f"`hits` must be of these {len(self)} muons; given: hits of {batch.n_muons}")
        self._settle_hits()
        self._hits.setdefault(pos, []).append(batch)

    def hit_batch(self, pos: str) -> HitBatch:
        """All hits at ``pos``, stacked, in the order of recording.

        Raises:
            NoHitsError: nothing was recorded there.
        """
        if pos not in self._hits:
            raise NoHitsError(
                f"no hits were recorded at {pos!r}; recorded: {sorted(self._hits) or 'none'}. "
                f"Pass the muons through a volume with a detector layer of that `pos` first"
            )
        self._settle_hits()
        parts = self._hits[pos]
        if len(parts) > 1:
            self._hits[pos] = parts = [HitBatch.cat(parts)]
        return parts[0]

    def get_hits(self, xy_low: Limit = None, xy_high: Limit = None) -> dict[str, dict[str, Tensor]]:
        """Recorded hits, by position and variable.

        Args:
            xy_low: only muons that are now at or above this (x, y).
            xy_high: only muons that are now below this (x, y).

        Returns:
            ``{pos: {"reco_xyz": (N, H, 3), "gen_xyz": (N, H, 3), "unc_xyz": (N, H, 3), "eff": (N, H, 1)}}``; a
            missing hit has NaN position, infinite uncertainty and zero efficiency.

        Raises:
            NoHitsError: nothing was recorded.
        """
        if not self._hits:
            raise NoHitsError("no hits were recorded: pass the muons through a volume with detector layers first")
        out: dict[str, dict[str, Tensor]] = {}
        keep: Any = None
        if xy_low is not None or xy_high is not None:
            keep = self.get_xy_mask(xy_low, xy_high)
        self._settle_hits()
        for pos in self._hits:
            batch = self.hit_batch(pos)
            out[pos] = (batch if keep is None else batch.select(keep)).to_dict()
        return out

    # ---- others
    def snapshot_xyz(self) -> None:
        """Append a copy of the positions to ``xyz_hist``."""
        self._xyz_hist.append(self.xyz.clone())

    def copy(self) -> MuonBatch:
        """The same muons at their current positions and directions, detached; hits are not copied."""
        new = object.__new__(MuonBatch)
        new.__dict__.update(self.__dict__)
        new._rows = self._rows.detach().clone()
        new._hits, new._n_draws, new._removed, new._xyz_hist = {}, dict(self._n_draws), [], []
        new._hits_of = None
        return new

    def part(self, mask: Tensor) -> MuonBatch:
        """Copy of the muons where ``mask`` ``(N,)`` is True, without hits. What it draws counts as drawn here too."""
        new = self.copy()
        new._n_draws = self._n_draws
        new.filter_muons(mask)
        return new

    def dtheta(self, theta_ref: Tensor) -> Tensor:
        """Absolute difference of theta to a reference, rad."""
        return (self.theta - theta_ref).abs()

    def dtheta_x(self, theta_ref_x: Tensor) -> Tensor:
        """Absolute difference of theta_x to a reference, rad."""
        return (self.theta_x - theta_ref_x).abs()

    def dtheta_y(self, theta_ref_y: Tensor) -> Tensor:
        """Absolute difference of theta_y to a reference, rad."""
        return (self.theta_y - theta_ref_y).abs()

    @staticmethod
    def theta_from_theta_xy(theta_x: Tensor, theta_y: Tensor) -> Tensor:
        """theta = atan sqrt(tan^2 theta_x + tan^2 theta_y), for theta < pi/2."""
        return torch.atan(safe_norm(torch.stack([torch.tan(theta_x), torch.tan(theta_y)])))

    @staticmethod
    def phi_from_theta_xy(theta_x: Tensor, theta_y: Tensor) -> Tensor:
        """phi = atan2(tan theta_y, tan theta_x) in [0, 2 pi), for theta < pi/2; 0 for a vertical muon."""
        return torch.remainder(safe_atan2(torch.tan(theta_y), torch.tan(theta_x)), 2 * math.pi)

    @staticmethod
    def theta_x_from_theta_phi(theta: Tensor, phi: Tensor) -> Tensor:
        """theta_x = atan(tan theta cos phi), for theta < pi/2."""
        return torch.atan(torch.tan(theta) * torch.cos(phi))

    @staticmethod
    def theta_y_from_theta_phi(theta: Tensor, phi: Tensor) -> Tensor:
        """theta_y = atan(tan theta sin phi), for theta < pi/2."""
        return torch.atan(torch.tan(theta) * torch.sin(phi))


def _theta(rows: Tensor) -> Tensor:
    """``(N,)`` angle to the negative z axis from the internal rows, rad."""
    return safe_atan2(safe_norm(rows[_UX : _UY + 1]), -rows[_UZ])


def _phi(rows: Tensor) -> Tensor:
    """``(N,)`` azimuth in [0, 2 pi) from the internal rows, rad."""
    phi = torch.remainder(safe_atan2(rows[_UY], rows[_UX]), 2 * math.pi)
    return torch.where(phi >= 2 * math.pi, torch.zeros_like(phi), phi)  # remainder may round up to 2 pi


def _documented(rows: Tensor) -> Tensor:
    """``(N, 6)`` x, y, z, momentum, theta, phi from the internal rows."""
    return torch.stack([*rows[:3], rows[_P], _theta(rows), _phi(rows)], 1)
