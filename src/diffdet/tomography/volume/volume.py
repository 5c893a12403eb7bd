"""The whole apparatus: detectors above and below a block of voxels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from diffdet.core.checks import check_positive, check_shape
from diffdet.core.errors import GeometryError, InputError, NotSupportedError
from diffdet.kernels import budget as budget_kernels
from diffdet.kernels import voxels
from diffdet.tomography.core import RadLengthFunc
from diffdet.tomography.volume.layer import AbsDetectorLayer, AbsLayer, PassiveLayer
from diffdet.tomography.volume.panel import AbsPanel

if TYPE_CHECKING:
    from diffdet.tomography.muon.muon_batch import MuonBatch

__all__ = ["Volume"]


class Volume(nn.Module):
    """Layers from top to bottom, with one contiguous block of passive layers.

    The frame: x and y from 0 to ``lw``, z up, muons fall. Voxel cubes are ordered (z, x, y) with the lowest layer
    first.

    With a ``budget``, one learnable weight per panel (``budget_weights``) decides by softmax how the money is
    shared, and every panel's area follows from its share.

    Args:
        layers: in order of decreasing z.
        budget: total cost of the detectors, unit currency; None leaves the panels' sizes free.
        snapshots: append every muon's position to ``MuonBatch.xyz_hist`` behind each layer (for drawings; costs
            memory).

    Raises:
        InputError: no layer; layers on several devices; passive layers of different extent or voxel size; budget not
        positive,
            or nothing to spend it on.
        GeometryError: layers not in order of decreasing z, overlapping, or passive layers not contiguous.
    """

    def __init__(
        self, layers: nn.ModuleList | Sequence[AbsLayer], budget: float | None = None, *, snapshots: bool = False
    ) -> None:
        super().__init__()
        self.layers = layers if isinstance(layers, nn.ModuleList) else nn.ModuleList(layers)
        self.snapshots = snapshots
        self._target: Tensor | None = None
        self._check_layers()
        self._n_layer_costs = [layer._n_costs for layer in self.get_detectors()]
        self.budget: float | None = None
        if budget is not None:
            check_positive("budget", budget)
            if sum(self._n_layer_costs) == 0:
                raise InputError(f"`budget` = {budget} needs detector panels to be spent on; this volume has none")
            self.budget = float(budget)
            first = next(self.get_detectors()[0].parameters(), None)
            like = self._all_layers()[0].lw if first is None else first
            self.budget_weights = nn.Parameter(like.new_zeros(sum(self._n_layer_costs)).detach())
            self.assign_budget()

    def _all_layers(self) -> list[AbsLayer]:
        return [layer for layer in self.layers if isinstance(layer, AbsLayer)]

    def _check_layers(self) -> None:
        layers = self._all_layers()
        if not layers or len(layers) != len(self.layers):
            raise InputError(
                f"`layers` must hold layers, at least one; given: {[type(x).__name__ for x in self.layers]}"
            )
        devices = {layer.device for layer in layers}
        if len(devices) > 1:
            raise InputError(f"`layers` must all be on one device; given: {sorted(map(str, devices))}")
        for upper, lower in itertools.pairwise(layers):
            if lower.top > upper.bottom + 1e-6 * max(1.0, abs(upper.bottom)):
                raise GeometryError(
                    f"`layers` must be ordered by decreasing z without overlap; given: a layer from "
                    f"{upper.bottom:g} to {upper.top:g} m "
                    f"followed by one whose top is at {lower.top:g} m"
                )
        passives = self.get_passives()
        for p in passives[1:]:
            if p.extent != passives[0].extent or p.size != passives[0].size:
                raise InputError(
                    f"passive layers must share `lw` and `size`; given: lw {passives[0].extent} with "
                    f"size {passives[0].size} and lw {p.extent} "
                    f"with size {p.size}"
                )
        for upper, lower in itertools.pairwise(passives):
            if abs(upper.bottom - lower.top) > 1e-4 * upper.size:
                raise GeometryError(
                    f"passive layers must form one contiguous block; given: one ends at "
                    f"{upper.bottom:g} m, the next begins at {lower.top:g} m"
                )

    # ---- structure
    def get_passives(self) -> list[PassiveLayer]:
        """Passive layers, highest first."""
        return [layer for layer in self.layers if isinstance(layer, PassiveLayer)]

    def get_detectors(self) -> list[AbsDetectorLayer]:
        """Detector layers, highest first."""
        return [layer for layer in self.layers if isinstance(layer, AbsDetectorLayer)]

    def yield_panels(self) -> Iterator[AbsPanel]:
        """All panels, in layer then list order."""
        for layer in self.get_detectors():
            yield from layer.yield_panels()

    def _passives(self) -> list[PassiveLayer]:
        passives = self.get_passives()
        if not passives:
            raise NotSupportedError("this volume has no passive layer, so no voxels")
        return passives

    @property
    def device(self) -> torch.device:
        """Where the volume lives."""
        return self._all_layers()[0].device

    @property
    def lw(self) -> Tensor:
        """``(2,)`` extent of the passive block in x and y, m."""
        return self._passives()[-1].lw

    @property
    def passive_size(self) -> float:
        """Voxel edge, m."""
        return self._passives()[-1].size

    @property
    def h(self) -> Tensor:
        """``(1,)`` height of the volume: the top of its highest layer, m."""
        return self._all_layers()[0].z

    @property
    def target(self) -> Tensor | None:
        """What is true of the loaded layout, if it was said."""
        return self._target

    def get_passive_z_range(self) -> tuple[Tensor, Tensor]:
        """``(1,)`` heights of the bottom and of the top of the passive block, m."""
        passives = self._passives()
        return passives[-1].z - passives[-1].size, passives[0].z

    @property
    def passive_box(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Low and high corner of the passive block as plain numbers, m."""
        passives = self._passives()
        return (0.0, 0.0, passives[-1].bottom), (*passives[0].extent, passives[0].top)

    @property
    def n_zxy(self) -> tuple[int, int, int]:
        """Number of voxels in z, x, y."""
        passives = self._passives()
        return len(passives), *passives[0].n_xy

    def voxel_edges(self) -> tuple[Tensor, Tensor, Tensor]:
        """Edges of the voxels in x ``(nx + 1,)``, y and z, m."""
        low, _ = self.passive_box
        nz, nx, ny = self.n_zxy
        like = self.lw
        x, y, z = (
            voxels.edges(low[k], n, self.passive_size, dtype=like.dtype, device=like.device)
            for k, n in enumerate((nx, ny, nz))
        )
        return x, y, z

    def build_xyz_edges(self) -> Tensor:
        """``(nx ny nz, 3)`` low corners of the voxels, m; x is the slowest index and z the fastest, lowest layer
        first.
        """
        return self._corners(0.0)

    @property
    def xyz_edges(self) -> Tensor:
        """``(nx ny nz, 3)`` low corners of the voxels, see ``build_xyz_edges``."""
        return self._corners(0.0)

    @property
    def xyz_centres(self) -> Tensor:
        """``(nx ny nz, 3)`` centres of the voxels, ordered as ``xyz_edges``."""
        return self._corners(0.5)

    def _corners(self, offset: float) -> Tensor:
        low, _ = self.passive_box
        nz, nx, ny = self.n_zxy
        return voxels.corner_table(
            low, (nx, ny, nz), self.passive_size, offset=offset, dtype=self.lw.dtype, device=self.device
        )

    def lookup_passive_xyz_coords(self, xyz: Tensor) -> Tensor:
        """Voxel indices of positions. The caller's tensor is not changed, and positions on a face are not lost to
        rounding.

        Args:
            xyz: ``(N, 3)`` or ``(3,)`` positions, m.

        Returns:
            ``(N, 3)`` indices in x, y, z.

        Raises:
            GeometryError: positions lie outside the passive block; the message counts them.
        """
        points = xyz.reshape(-1, 3).T
        check_shape("xyz", points, "3 n")
        low, _ = self.passive_box
        nz, nx, ny = self.n_zxy
        idx = voxels.index(points, points.new_tensor(low), self.passive_size, (nx, ny, nz))
        outside = ~((idx >= 0) & (idx < idx.new_tensor([nx, ny, nz])[:, None])).all(0)
        if bool(outside.any()):
            raise GeometryError(
                f"`xyz` must lie in the passive block {self.passive_box}; {int(outside.sum())} of "
                f"{points.shape[1]} positions are outside, the "
                f"first: {points[:, outside][:, 0].tolist()}"
            )
        return idx.T

    # ---- layout
    def load_rad_length(self, rad_length_func: RadLengthFunc, target: Tensor | None = None) -> None:
        """Load a layout into every passive layer.

        Args:
            rad_length_func: see PassiveLayer.
            target: what is true of the layout (a fill height, a class, ...); None forgets the last one.
        """
        self._target = target
        for layer in self.get_passives():
            layer.load_rad_length(rad_length_func)

    @property
    def layout(self) -> tuple[Tensor | None, list[tuple[Tensor | None, Tensor | None]]]:
        """What `load_rad_length` loaded: the target, and the layers' layouts. Assign to put it back."""
        return self._target, [layer.layout for layer in self.get_passives()]

    @layout.setter
    def layout(self, layout: tuple[Tensor | None, list[tuple[Tensor | None, Tensor | None]]]) -> None:
        self._target, of_layers = layout
        for layer, of_layer in zip(self.get_passives(), of_layers, strict=True):
            layer.layout = of_layer

    def get_rad_cube(self) -> Tensor:
        """``(nz, nx, ny)`` X0 of the voxels, lowest layer first, m.

        Raises:
            NotSupportedError: there is no passive layer, or not every one is loaded.
        """
        cubes = []
        for layer in reversed(self._passives()):
            if layer.rad_length is None:
                raise NotSupportedError(
                    f"the passive layer at z = {layer.top:g} m has no radiation lengths: call `load_rad_length` first"
                )
            cubes.append(layer.rad_length)
        return torch.stack(cubes)

    # ---- money
    def assign_budget(self) -> None:
        """Share the budget among the panels by softmax of ``budget_weights``; the k-th share of a layer goes to its
        k-th highest panel. Does nothing without a budget.
        """
        if self.budget is None:
            return
        shares = budget_kernels.allocate(self.budget_weights, self.budget)
        for layer, part in zip(self.get_detectors(), shares.split(self._n_layer_costs), strict=True):
            layer.assign_budget(part)

    def get_cost(self) -> Tensor:
        """Cost of all detectors, unit currency: the budget where there is one."""
        if self.budget is not None:
            return self.budget_weights.new_tensor(self.budget)
        costs = [layer.get_cost() for layer in self.get_detectors()]
        return torch.stack(costs).sum() if costs else self._all_layers()[0].lw.new_zeros(())

    # ---- flight
    def forward(self, mu: MuonBatch) -> None:
        """Carry muons through all layers, in place; detectors append their hits to the batch."""
        self.assign_budget()
        for layer in self.layers:
            layer(mu)
            if self.snapshots:
                mu.snapshot_xyz()

    def draw(self, *, xlim: tuple[float, float], ylim: tuple[float, float], zlim: tuple[float, float]) -> None:
        """Show the layers and panels in three dimensions.

        Args:
            xlim: range of x, m.
            ylim: range of y, m.
            zlim: range of z, m.
        """
        from diffdet.tomography.plotting.volume import draw_volume

        draw_volume(self, xlim=xlim, ylim=ylim, zlim=zlim)
