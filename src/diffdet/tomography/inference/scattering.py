"""What the hits of a batch of muons say about how each was scattered."""

from __future__ import annotations

import warnings
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffdet.core.checks import check_shape
from diffdet.core.errors import NoMuonsWarning
from diffdet.kernels import lines as line_kernels
from diffdet.kernels import scatter_angles
from diffdet.kernels.angles import scatter_increments
from diffdet.kernels.lines import ClosestApproach, Lines
from diffdet.kernels.safe_math import safe_sqrt
from diffdet.kernels.uncertainty import line_covariance, line_variance
from diffdet.tomography.inference.tracks import TrackPair, fit_tracks, pair_hits, usable
from diffdet.tomography.muon.hits import HitBatch

if TYPE_CHECKING:
    from diffdet.tomography.muon.muon_batch import MuonBatch
    from diffdet.tomography.volume.volume import Volume

__all__ = ["GenScatterBatch", "ScatterBatch"]

_Pair = tuple[Tensor, Tensor]


class ScatterBatch:
    """Scattering variables of a batch of muons, each with its uncertainty, computed when first asked for.

    A straight line is fitted to the hits above ("in") and below ("out") the passive volume, with weights (efficiency /
    uncertainty)^2 per hit. Everything else is a function of the two lines: uncertainties follow from the covariance
    of the fits by exact first derivatives, cost time linear in the number of muons, and are themselves
    differentiable in the detector.

    Muons that cannot be used (fewer than two hits on a side, parallel tracks, tracks far from the volume) are
    removed from ``mu`` *in place*; ``n_removed`` says how many.

    Properties return ``(muons, components)`` tensors, in m and rad.

    Args:
        mu: muons with hits at "above" and "below".
        volume: the volume that they crossed.

    Raises:
        NoHitsError: no hits were recorded above or below.
    """

    _generated = False

    def __init__(self, mu: MuonBatch, volume: Volume) -> None:
        self.mu = mu
        self.volume = volume
        box = volume.passive_box
        above, below = mu.hit_batch("above"), mu.hit_batch("below")
        pair = pair_hits(above, below, generated=self._generated)
        z_ref = pair.z.new_tensor(0.5 * (box[0][2] + box[1][2]))
        tracks = fit_tracks(pair, z_ref)
        keep = usable(pair, tracks, box)
        n_kept = int(keep.sum())
        self.n_removed = len(mu) - n_kept
        kept: Tensor | None = None
        if self.n_removed:
            if n_kept == 0 and len(mu):
                warnings.warn(
                    f"none of {len(mu)} muons can be used: none has two hits above and two below on "
                    f"tracks that cross the volume. "
                    f"Check the panels' positions and sizes",
                    NoMuonsWarning,
                    stacklevel=2,
                )
            kept = keep.nonzero().squeeze(-1)
            tracks = tracks.select(kept)
            mu.filter_muons(keep)
        self._tracks = tracks
        # what these muons were when the batch was made, whatever is done to ``mu`` afterwards
        self._recorded, self._kept = (above, below), kept
        self.reco_mom = mu.reco_mom.clone()
        """``(muons,)`` measured momentum, GeV."""

    def __len__(self) -> int:
        return self._tracks.lines.slope.shape[-1]

    # ---- hits
    @property
    def hits(self) -> dict[str, dict[str, Tensor]]:
        """Hits as ``MuonBatch.get_hits`` gives them."""
        above, below = self.hit_batches()
        return {"above": above.to_dict(), "below": below.to_dict()}

    def hit_batches(self) -> tuple[HitBatch, HitBatch]:
        """Hits above and below, hit axis first and muon axis last."""
        if self._kept is not None:
            above, below = self._recorded
            self._recorded, self._kept = (above.select(self._kept), below.select(self._kept)), None
        return self._recorded

    def hit_efficiencies(self) -> tuple[Tensor, Tensor]:
        """``(hit, muon)`` efficiencies above and below: quicker than to cut all hits where nothing else is needed."""
        above, below = (hits.eff for hits in self._recorded)
        if self._kept is not None:
            above, below = above.index_select(1, self._kept), below.index_select(1, self._kept)
        return above, below

    def _stacked(self, key: str) -> Tensor:
        return torch.cat([self.hits["above"][key], self.hits["below"][key]], 1)

    @property
    def n_hits_above(self) -> int:
        """Number of panels above."""
        return len(self.hit_batches()[0])

    @property
    def n_hits_below(self) -> int:
        """Number of panels below."""
        return len(self.hit_batches()[1])

    @property
    def reco_hits(self) -> Tensor:
        """``(muons, hits, xyz)`` recorded hits, above first."""
        return self._stacked("reco_xyz")

    @property
    def gen_hits(self) -> Tensor:
        """``(muons, hits, xyz)`` true hits, above first."""
        return self._stacked("gen_xyz")

    @property
    def hit_uncs(self) -> Tensor:
        """``(muons, hits, xyz)`` uncertainties, above first."""
        return self._stacked("unc_xyz")

    @property
    def hit_effs(self) -> Tensor:
        """``(muons, hits, 1)`` efficiencies, above first."""
        return self._stacked("eff")

    @property
    def above_hits(self) -> Tensor:
        """``(muons, hits, xyz)`` recorded hits above."""
        return self.hits["above"]["reco_xyz"]

    @property
    def below_hits(self) -> Tensor:
        """``(muons, hits, xyz)`` recorded hits below."""
        return self.hits["below"]["reco_xyz"]

    @property
    def above_gen_hits(self) -> Tensor:
        """``(muons, hits, xyz)`` true hits above."""
        return self.hits["above"]["gen_xyz"]

    @property
    def below_gen_hits(self) -> Tensor:
        """``(muons, hits, xyz)`` true hits below."""
        return self.hits["below"]["gen_xyz"]

    @property
    def above_hit_uncs(self) -> Tensor:
        """``(muons, hits, xyz)`` uncertainties of hits above."""
        return self.hits["above"]["unc_xyz"]

    @property
    def below_hit_uncs(self) -> Tensor:
        """``(muons, hits, xyz)`` uncertainties of hits below."""
        return self.hits["below"]["unc_xyz"]

    @property
    def above_hit_effs(self) -> Tensor:
        """``(muons, hits, 1)`` efficiencies of hits above."""
        return self.hits["above"]["eff"]

    @property
    def below_hit_effs(self) -> Tensor:
        """``(muons, hits, 1)`` efficiencies of hits below."""
        return self.hits["below"]["eff"]

    # ---- tracks
    @staticmethod
    def get_muon_trajectory(hits: Tensor, uncs: Tensor, lw: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG004
        """Weighted straight-line fit to one group of hits.

        Moments are centred before they are summed, so float32 loses nothing. Hits with infinite or NaN position or
        uncertainty take no part.

        Args:
            hits: ``(muons, hits, xyz)`` m.
            uncs: ``(muons, hits, >= 2)`` uncertainties in x and y, m.
            lw: extent of the passive layers; kept for compatibility, not used.

        Returns:
            ``(muons, xyz)`` vector from the height of the first to that of the second hit, and ``(muons, xyz)`` its
            start at the first hit's height; NaN for muons with fewer than two hits.
        """
        check_shape("hits", hits, "muons hits 3")
        xyz = hits.permute(1, 2, 0)
        sigma = uncs.permute(1, 2, 0)[:, :2]
        seen = (torch.isfinite(xyz).all(1) & torch.isfinite(sigma).all(1))[:, None]
        safe = torch.where(seen, sigma, torch.ones_like(sigma))
        xy = torch.where(seen, xyz[:, :2], torch.zeros_like(xyz[:, :2]))
        weight = torch.where(seen, 1 / safe.square(), torch.zeros_like(safe))
        fitted = line_kernels.fit_weighted(xy, xyz[:, 2:], weight, safe)
        z0, z1 = xyz[0, 2], xyz[1, 2]
        start = line_kernels.at_plane(fitted, z0).position
        enough = seen.sum(0)[0] >= 2
        vec = torch.cat([fitted.slope * (z1 - z0), (z1 - z0)[None]])
        out = torch.where(enough, vec, torch.full_like(vec, torch.nan))
        first = torch.cat([torch.where(enough, start, torch.full_like(start, torch.nan)), z0[None]])
        return out.T, first.T

    @property
    def tracks(self) -> TrackPair:
        """Both fitted lines with covariance, rows (in_x, in_y, out_x, out_y)."""
        return self._tracks

    @property
    def _lines(self) -> Lines:
        return self._tracks.lines

    def _side(self, k: int) -> Lines:
        rows = slice(2 * k, 2 * k + 2)
        ln = self._lines
        return Lines(
            ln.position[rows], ln.slope[rows], ln.var_position[rows], ln.cov[rows], ln.var_slope[rows], ln.z_ref
        )

    def _two_heights(self, k: int) -> tuple[Tensor, Tensor]:
        z = self.hit_batches()[k].z
        n = len(self)
        return z[0].expand(n), z[min(1, z.shape[0] - 1)].expand(n)

    def _vector(self, k: int) -> Tensor:
        z0, z1 = self._two_heights(k)
        return torch.cat([self._side(k).slope * (z1 - z0), (z1 - z0)[None]]).T

    def _start(self, k: int) -> Tensor:
        z0, _ = self._two_heights(k)
        return torch.cat([line_kernels.at_plane(self._side(k), z0).position, z0[None]]).T

    @property
    def track_in(self) -> Tensor:
        """``(muons, xyz)`` incoming vector, from the height of the first to that of the second panel above, m."""
        return self._vector(0)

    @property
    def track_out(self) -> Tensor:
        """``(muons, xyz)`` outgoing vector, from the height of the first to that of the second panel below, m."""
        return self._vector(1)

    @property
    def track_start_in(self) -> Tensor:
        """``(muons, xyz)`` incoming line at the height of the first panel above, m."""
        return self._start(0)

    @property
    def track_start_out(self) -> Tensor:
        """``(muons, xyz)`` outgoing line at the height of the first panel below, m."""
        return self._start(1)

    # ---- closest approach
    @cached_property
    def _approach(self) -> ClosestApproach:
        return self._closest_approach(gap_derivatives=False)

    def _closest_approach(self, *, gap_derivatives: bool) -> ClosestApproach:
        return line_kernels.closest_approach(
            self._lines.position, self._lines.slope, self._tracks.z_ref, gap_derivatives=gap_derivatives
        )

    @property
    def poca_xyz(self) -> Tensor:
        """``(muons, xyz)`` point of closest approach of both tracks, m."""
        return self._approach.xyz.T

    @cached_property
    def poca_var(self) -> Tensor:
        """``(3, muons)`` variances of the point of closest approach, m^2."""
        a = self._approach
        return line_variance(a.d_position, a.d_slope, self._lines)

    @property
    def poca_xyz_unc(self) -> Tensor:
        """``(muons, xyz)`` uncertainty of ``poca_xyz``, m."""
        return safe_sqrt(self.poca_var).T

    @property
    def poca_cov(self) -> Tensor:
        """``(muons, 3, 3)`` full covariance of ``poca_xyz``, m^2: along the tracks its components are almost fully
        correlated.
        """
        a = self._approach
        return line_covariance(a.d_position, a.d_slope, self._lines).permute(2, 0, 1)

    @property
    def dxy(self) -> Tensor:
        """``(muons, xy)`` x and y of the vector between both tracks at the closest approach, from in to out, m."""
        return self._approach.gap.T

    @property
    def dxy_unc(self) -> Tensor:
        """``(muons, xy)`` uncertainty of ``dxy``, m."""
        a = self._closest_approach(gap_derivatives=True)
        return safe_sqrt(line_variance(a.d_position[3:], a.d_slope[3:], self._lines)).T

    # ---- angles
    @cached_property
    def _total(self) -> _Pair:
        angle, by_slope = scatter_angles.total_scatter(self._lines.slope)
        return angle, line_variance(None, by_slope, self._lines)

    @cached_property
    def _inclinations(self) -> _Pair:
        """``(2, muons)`` polar angles of both tracks and their variances."""
        slope, var_slope = (t.unflatten(0, (2, 2)).transpose(0, 1) for t in (self._lines.slope, self._lines.var_slope))
        theta, by_slope = scatter_angles.polar(slope)
        return theta, (by_slope.square() * var_slope).sum(0)

    @property
    def _theta(self) -> tuple[_Pair, _Pair]:
        theta, variance = self._inclinations
        return (theta[0], variance[0]), (theta[1], variance[1])

    @cached_property
    def _phi(self) -> tuple[_Pair, _Pair]:
        return self._of_side(scatter_angles.azimuth, 0), self._of_side(scatter_angles.azimuth, 1)

    def _of_side(self, function: object, k: int) -> _Pair:
        side = self._side(k)
        value, by_slope = function(side.slope)  # type: ignore[operator]
        return value, line_variance(None, by_slope, side)

    @cached_property
    def _theta_xy(self) -> tuple[_Pair, _Pair]:
        out = []
        for k in range(2):
            side = self._side(k)
            value, by_slope = scatter_angles.projected(side.slope)
            out.append((value, by_slope.square() * side.var_slope))
        return out[0], out[1]

    @cached_property
    def _increments(self) -> tuple[Tensor, Tensor]:
        (t_in, _), (t_out, _) = self._theta
        (f_in, _), (f_out, _) = self._phi
        return scatter_increments(t_in, f_in, t_out, f_out)

    @property
    def total_scatter(self) -> Tensor:
        """``(muons, 1)`` angle between both tracks, by atan2 of cross and dot product, rad."""
        return self._total[0][:, None]

    @property
    def total_scatter_unc(self) -> Tensor:
        """``(muons, 1)`` uncertainty of ``total_scatter``, rad."""
        return safe_sqrt(self._total[1])[:, None]

    @property
    def theta_msc(self) -> Tensor:
        """``(muons, 1)`` the same as ``total_scatter``, rad."""
        return self.total_scatter

    @property
    def theta_msc_unc(self) -> Tensor:
        """``(muons, 1)`` uncertainty of ``theta_msc``, rad."""
        return self.total_scatter_unc

    @property
    def theta_in(self) -> Tensor:
        """``(muons, 1)`` polar angle of the incoming track to -z, rad."""
        return self._theta[0][0][:, None]

    @property
    def theta_in_unc(self) -> Tensor:
        """``(muons, 1)`` uncertainty of ``theta_in``, rad."""
        return safe_sqrt(self._theta[0][1])[:, None]

    @property
    def theta_out(self) -> Tensor:
        """``(muons, 1)`` polar angle of the outgoing track to -z, rad."""
        return self._theta[1][0][:, None]

    @property
    def theta_out_unc(self) -> Tensor:
        """``(muons, 1)`` uncertainty of ``theta_out``, rad."""
        return safe_sqrt(self._theta[1][1])[:, None]

    @property
    def phi_in(self) -> Tensor:
        """``(muons, 1)`` azimuth of the incoming track, [0, 2 pi), rad."""
        return self._phi[0][0][:, None]

    @property
    def phi_in_unc(self) -> Tensor:
        """``(muons, 1)`` uncertainty of ``phi_in``, rad."""
        return safe_sqrt(self._phi[0][1])[:, None]

    @property
    def phi_out(self) -> Tensor:
        """``(muons, 1)`` azimuth of the outgoing track, [0, 2 pi), rad."""
        return self._phi[1][0][:, None]

    @property
    def phi_out_unc(self) -> Tensor:
        """``(muons, 1)`` uncertainty of ``phi_out``, rad."""
        return safe_sqrt(self._phi[1][1])[:, None]

    @property
    def dtheta(self) -> Tensor:
        """``(muons, 1)`` change of theta, rad. Of two readings of the angles (theta changed by |t_in - t_out|, or by
        t_in + t_out through the vertical with phi turned by pi) the one with the smaller total change is taken.
        """
        return self._increments[0][:, None]

    @property
    def dtheta_unc(self) -> Tensor:
        """``(muons, 1)`` uncertainty of ``dtheta``, rad."""
        return safe_sqrt(self._theta[0][1] + self._theta[1][1])[:, None]

    @property
    def dphi(self) -> Tensor:
        """``(muons, 1)`` change of phi in the reading that ``dtheta`` takes, rad."""
        return self._increments[1][:, None]

    @property
    def dphi_unc(self) -> Tensor:
        """``(muons, 1)`` uncertainty of ``dphi``, rad."""
        return safe_sqrt(self._phi[0][1] + self._phi[1][1])[:, None]

    @property
    def theta_xy_in(self) -> Tensor:
        """``(muons, xy)`` projected angles of the incoming track, rad."""
        return self._theta_xy[0][0].T

    @property
    def theta_xy_in_unc(self) -> Tensor:
        """``(muons, xy)`` uncertainty of ``theta_xy_in``, rad."""
        return safe_sqrt(self._theta_xy[0][1]).T

    @property
    def theta_xy_out(self) -> Tensor:
        """``(muons, xy)`` projected angles of the outgoing track, rad."""
        return self._theta_xy[1][0].T

    @property
    def theta_xy_out_unc(self) -> Tensor:
        """``(muons, xy)`` uncertainty of ``theta_xy_out``, rad."""
        return safe_sqrt(self._theta_xy[1][1]).T

    @property
    def dtheta_xy(self) -> Tensor:
        """``(muons, xy)`` absolute change of the projected angles, rad."""
        return (self.theta_xy_in - self.theta_xy_out).abs()

    @property
    def dtheta_xy_unc(self) -> Tensor:
        """``(muons, xy)`` uncertainty of ``dtheta_xy``, rad."""
        return safe_sqrt(self._theta_xy[0][1] + self._theta_xy[1][1]).T

    @cached_property
    def image_rows(self) -> tuple[Tensor, Tensor]:
        """What images are made of, muon axis last: ``(6, muons)`` x, y, z of the closest approach [m], total scatter,
        theta_in and theta_out [rad], and their standard deviations.
        """
        (total, total_var), (theta, theta_var) = self._total, self._inclinations
        values = torch.cat([self._approach.xyz, total[None], theta])
        return values, safe_sqrt(torch.cat([self.poca_var, total_var[None], theta_var]))

    # ---- volume's faces
    def _on_face(self, k: int) -> tuple[Tensor, Tensor]:
        low, high = self.volume.passive_box
        z = high[2] if k == 0 else low[2]
        side = line_kernels.at_plane(self._side(k), z)
        height = torch.full_like(side.position[:1], z)
        return torch.cat([side.position, height]).T, torch.cat(
            [safe_sqrt(side.var_position), torch.zeros_like(height)]
        ).T

    @property
    def xyz_in(self) -> Tensor:
        """``(muons, xyz)`` incoming track on the top face of the passive block, m."""
        return self._on_face(0)[0]

    @property
    def xyz_in_unc(self) -> Tensor:
        """``(muons, xyz)`` uncertainty of ``xyz_in``, m."""
        return self._on_face(0)[1]

    @property
    def xyz_out(self) -> Tensor:
        """``(muons, xyz)`` outgoing track on the bottom face of the passive block, m."""
        return self._on_face(1)[0]

    @property
    def xyz_out_unc(self) -> Tensor:
        """``(muons, xyz)`` uncertainty of ``xyz_out``, m."""
        return self._on_face(1)[1]

    def get_scatter_mask(self) -> Tensor:
        """``(muons,)`` True where the point of closest approach lies in the passive block."""
        low, high = self.volume.passive_box
        xyz = self._approach.xyz
        return ((xyz >= xyz.new_tensor(low)[:, None]) & (xyz < xyz.new_tensor(high)[:, None])).all(0)

    def plot_scatter(self, idx: int, savename: Path | None = None) -> None:
        """Draw one muon's hits, fitted tracks and closest approach in three projections.

        Args:
            idx: which muon.
            savename: file to save the figure to.
        """
        from diffdet.tomography.plotting.tracks import plot_scatter

        plot_scatter(self, idx, savename)


class GenScatterBatch(ScatterBatch):
    """Scattering variables from the true hits, all with equal weight; for diagnosis.

    Tracks depend on the detector only through the heights of the panels, along the true track: that is, not at all.
    """

    _generated = True
