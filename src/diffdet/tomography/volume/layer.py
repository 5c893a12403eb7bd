"""Layers of a volume: passive material that scatters, and detectors that look."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from diffdet.core.checks import check_finite, check_multiple, check_positive, check_shape
from diffdet.core.errors import GeometryError, InputError, ShapeError
from diffdet.kernels import transport, voxels
from diffdet.tomography.core import DEVICE, RadLengthFunc
from diffdet.tomography.volume.panel import AbsPanel
from diffdet.tomography.volume.readout import record_hits
from diffdet.tomography.volume.scatter_model import AbsScatterModel, get_scatter_model

if TYPE_CHECKING:
    from diffdet.tomography.muon.muon_batch import MuonBatch

__all__ = ["AbsDetectorLayer", "AbsLayer", "PanelDetectorLayer", "PassiveLayer"]


class AbsLayer(nn.Module, metaclass=ABCMeta):
    """A horizontal slab of a volume, from (0, 0) to ``lw`` in x and y and from ``z - size`` to ``z`` in height.

    Args:
        lw: ``(2,)`` extent in x and y, m.
        z: height of the *top*, m.
        size: thickness, m; in passive layers also the edge of the cubic voxels.
        device: where tensors live.

    Raises:
        InputError: an extent or the thickness is not positive and finite.
        ShapeError: ``lw`` has not two elements.
    """

    lw: Tensor
    z: Tensor

    def __init__(self, lw: Tensor, z: float, size: float, device: torch.device = DEVICE) -> None:
        super().__init__()
        lw = torch.as_tensor(lw, device=device)
        lw = lw.detach().clone() if lw.is_floating_point() else lw.to(torch.get_default_dtype())
        check_shape("lw", lw, "2")
        check_positive("lw", lw)
        check_positive("size", size)
        top = float(z)
        check_finite("z", top)
        # geometry follows .to(...) but is not part of the state: it is what the state is a state *of*
        self.register_buffer("lw", lw, persistent=False)
        self.register_buffer("z", torch.tensor([top], dtype=lw.dtype, device=device), persistent=False)
        self.size = float(size)
        self.top = top
        self.bottom = top - self.size
        self.extent: tuple[float, float] = (float(lw[0]), float(lw[1]))

    @property
    def device(self) -> torch.device:
        """Where the layer lives."""
        return self.lw.device

    @abstractmethod
    def forward(self, mu: MuonBatch) -> None:
        """Carry the muons through the layer to its bottom, in place."""

    def get_lw_z_size(self) -> tuple[Tensor, Tensor, float]:
        """Extent ``(2,)``, height of the top ``(1,)`` and thickness, m."""
        return self.lw, self.z, self.size


class PassiveLayer(AbsLayer):
    """One layer of cubic voxels of material. Scattering runs without a graph: no detector parameter enters.

    Args:
        lw: ``(2,)`` extent in x and y, a multiple of ``size``, m.
        z: height of the top, m.
        size: voxel edge, m.
        rad_length_func: called as f(z=..., lw=..., size=...) for an ``(nx, ny)`` tensor of X0 [m]; without it, muons
            fly straight.
        step_sz: raster in depth in which voxels along the path are looked up (model "pdg"), or length of a step (model
            "pdg-step"), m.
        scatter_model: "pdg" (right, independent of the step), "pdg-step" (the older per-step formula), "pgeant"
            (drawn from a table that is loaded first, see PgeantScatterModel), or an AbsScatterModel.
        device: where tensors live.

    Raises:
        InputError: ``lw`` is not a multiple of ``size``, a length is not positive, or the model is unknown.
    """

    rad_length: Tensor | None
    _bordered: Tensor | None

    def __init__(
        self,
        lw: Tensor,
        z: float,
        size: float,
        rad_length_func: RadLengthFunc | None = None,
        step_sz: float = 0.01,
        scatter_model: str | AbsScatterModel = "pdg",
        device: torch.device = DEVICE,
    ) -> None:
        super().__init__(lw=lw, z=z, size=size, device=device)
        check_positive("step_sz", step_sz)
        self.n_xy: tuple[int, int] = (
            check_multiple("lw[0]", self.extent[0], self.size, "size"),
            check_multiple("lw[1]", self.extent[1], self.size, "size"),
        )
        self.step_sz = float(step_sz)
        self.scatter_model = get_scatter_model(scatter_model)
        self.register_buffer("rad_length", None, persistent=False)
        self.register_buffer("_bordered", None, persistent=False)
        if rad_length_func is not None:
            self.load_rad_length(rad_length_func)

    @property
    def bordered_per_length(self) -> Tensor:
        """``(nx + 2, ny + 2)`` 1/X0 of the voxels with a border of vacuum, 1/m; zeros while nothing is loaded."""
        if self._bordered is None:
            return self.lw.new_zeros((self.n_xy[0] + 2, self.n_xy[1] + 2))
        return self._bordered

    @property
    def per_length(self) -> Tensor:
        """``(nx, ny)`` 1/X0 of the voxels, 1/m; zeros while nothing is loaded."""
        return self.bordered_per_length[1:-1, 1:-1]

    @property
    def layout(self) -> tuple[Tensor | None, Tensor | None]:
        """What `load_rad_length` loaded; assign to put it back."""
        return self.rad_length, self._bordered

    @layout.setter
    def layout(self, layout: tuple[Tensor | None, Tensor | None]) -> None:
        self.rad_length, self._bordered = layout

    def load_rad_length(self, rad_length_func: RadLengthFunc) -> None:
        """Load a layout.

        Args:
            rad_length_func: called as f(z=(1,) top, lw=(2,), size=float), all m; returns ``(nx, ny)`` X0, m.

        Raises:
            ShapeError: it returns another shape.
            InputError: an X0 is not positive and finite (infinity, for vacuum, is allowed).
        """
        x0 = torch.as_tensor(
            rad_length_func(z=self.z, lw=self.lw, size=self.size), dtype=self.lw.dtype, device=self.device
        )
        if tuple(x0.shape) != self.n_xy:
            raise ShapeError(
                f"`rad_length_func` must return X0 of shape {self.n_xy} for the layer at z = "
                f"{self.top} m; given: {tuple(x0.shape)}"
            )
        if not bool((x0 > 0).all()):
            worst = float(torch.nan_to_num(x0, nan=-torch.inf).min())
            raise InputError(
                f"`rad_length_func` must return positive radiation lengths [m] for the layer at z = "
                f"{self.top} m; smallest given: {worst}"
            )
        self.rad_length = x0.detach()
        self._bordered = transport.with_border(1 / self.rad_length)

    def abs2idx(self, xy: Tensor) -> Tensor:
        """``(N, 2)`` voxel indices of ``(N, 2)`` positions [m]; meaningless for positions outside the footprint."""
        return voxels.snap(xy / self.size).to(torch.int64)

    def mu_abs2idx(self, mu: MuonBatch, mask: Tensor | None = None) -> Tensor:
        """``(N, 2)`` voxel indices of the muons, or of those where ``mask`` is True."""
        return self.abs2idx(mu.xy if mask is None else mu.xy[mask])

    @torch.no_grad()
    def forward(self, mu: MuonBatch) -> None:
        """Carry the muons to the bottom of the layer, scattering those inside its footprint; those that turn up are
        removed.
        """
        if self.rad_length is None:
            mu.propagate_to_z(self.bottom)
            return
        self.scatter_model.carry(mu, self, self.top, self.size)
        mu.remove_upwards_muons()

    @torch.no_grad()
    def scatter_and_propagate(self, mu: MuonBatch, mask: Tensor | None = None) -> None:
        """Carry muons down by one ``step_sz`` of depth, or to the bottom of the layer if that is nearer.

        Args:
            mu: muons, all at one height inside the layer.
            mask: which muons move; all where None.

        Raises:
            GeometryError: the selected muons are not at one height inside the layer.
        """
        if mask is not None and not bool(mask.all()):
            part = mu.part(mask)
            self.scatter_and_propagate(part)
            state = torch.cat([mu.position, mu.direction, mu.n_rad[None]])
            kept = mask.nonzero().squeeze(-1)
            lost = ~torch.isin(mu.ids, part.ids) & mask
            still = kept[torch.isin(mu.ids[kept], part.ids)]
            state[:, still] = torch.cat([part.position, part.direction, part.n_rad[None]])
            mu.set_state(state[:3], state[3:6], state[6])
            mu.filter_muons(~lost)
            return
        if len(mu) == 0:
            return
        low, high = float(mu.z.min()), float(mu.z.max())
        tolerance = 1e-5 * max(1.0, abs(self.top))
        if high - low > tolerance or high > self.top + tolerance or low <= self.bottom + tolerance:
            raise GeometryError(
                f"muons must be at one height in ({self.bottom}, {self.top}] m to make a step in this "
                f"layer; given: {low} to {high} m"
            )
        thickness = min(self.step_sz, high - self.bottom)
        if self.rad_length is None:
            mu.propagate_to_z(high - thickness)
            return
        self.scatter_model.carry(mu, self, high, thickness)
        mu.remove_upwards_muons()


class AbsDetectorLayer(AbsLayer):
    """A layer that records hits. Detectors do not scatter.

    Args:
        pos: group of detectors that the layer belongs to: inference expects "above" and "below" the passive block.
        lw: extent in x and y, m.
        z: height of the top, m.
        size: thickness, m.
        device: where tensors live.
    """

    type_label: str = ""
    _n_costs: int = 0
    """How many budget shares the layer takes in fixed-budget mode."""

    def __init__(self, pos: str, *, lw: Tensor, z: float, size: float, device: torch.device = DEVICE) -> None:
        super().__init__(lw=lw, z=z, size=size, device=device)
        self.pos = pos

    @abstractmethod
    def get_cost(self) -> Tensor:
        """Total cost of the layer's detectors, unit currency."""

    def conform_detector(self) -> None:
        """Bring learnable parameters back into their allowed ranges; called after every update. Does nothing by
        default.
        """

    def assign_budget(self, budget: Tensor | None) -> None:
        """Distribute ``(_n_costs,)`` budgets, unit currency. Does nothing by default."""

    def yield_panels(self) -> Iterator[AbsPanel]:
        """All panels of the layer in the order of its list. None by default."""
        return iter(())


class PanelDetectorLayer(AbsDetectorLayer):
    """A detector layer made of panels.

    Args:
        pos: "above" or "below".
        lw: extent in x and y, m.
        z: height of the top, m.
        size: thickness, m.
        panels: panels, each somewhere in the layer.

    Raises:
        InputError: there is no panel, something is not a panel, or the panels are on several devices.
    """

    def __init__(
        self, pos: str, *, lw: Tensor, z: float, size: float, panels: Sequence[AbsPanel] | nn.ModuleList
    ) -> None:
        listed = panels if isinstance(panels, nn.ModuleList) else nn.ModuleList(panels)
        if len(listed) == 0:
            raise InputError("`panels` must hold at least one panel; given: none")
        for k, panel in enumerate(listed):
            if not isinstance(panel, AbsPanel):
                raise InputError(f"`panels[{k}]` must be an AbsPanel; given: {type(panel).__name__}")
            panel.number = k
        super().__init__(pos, lw=lw, z=z, size=size, device=self.get_device(listed))
        self.panels = listed
        self.type_label = next(self.yield_panels()).type_label
        self._n_costs = len(listed)

    def __getitem__(self, k: int) -> AbsPanel:
        panel: Any = self.panels[k]
        return panel

    def yield_panels(self) -> Iterator[AbsPanel]:  # noqa: D102
        panels: Any = self.panels
        return iter(panels)

    @staticmethod
    def get_device(panels: nn.ModuleList) -> torch.device:
        """The device of all panels.

        Raises:
            InputError: they are on several.
        """
        devices = {t.device for t in panels.parameters()} | {t.device for t in panels.buffers()}
        if len(devices) > 1:
            raise InputError(f"`panels` must all be on one device; given: {sorted(map(str, devices))}")
        return devices.pop() if devices else DEVICE

    def get_panel_zorder(self) -> list[int]:
        """Indices of the panels from the highest to the lowest."""
        heights = torch.stack([p.z.detach().reshape(()) for p in self.yield_panels()]).tolist()
        return sorted(range(len(heights)), key=heights.__getitem__, reverse=True)

    def yield_zordered_panels(self) -> Iterator[tuple[int, AbsPanel]]:
        """(index, panel) from the highest to the lowest."""
        return ((k, self[k]) for k in self.get_panel_zorder())

    def forward(self, mu: MuonBatch) -> None:
        """Record every panel's hits, highest panel first, and move the muons to the bottom of the layer."""
        mu.append_hits(record_hits(list(self.yield_panels()), mu, f"hits/{self.pos}"), self.pos)
        mu.propagate_to_z(self.bottom)

    def conform_detector(self) -> None:
        """Bring every panel back into the layer."""
        for panel in self.yield_panels():
            panel.conform(self.extent, self.top, self.size)

    def assign_budget(self, budget: Tensor | None) -> None:
        """Give the k-th element of ``budget`` ``(n_panels,)`` to the k-th highest panel.

        Raises:
            ShapeError: there are not as many budgets as panels.
        """
        if budget is None:
            return
        if budget.shape != (self._n_costs,):
            raise ShapeError(f"`budget` must have the shape ({self._n_costs},); given: {tuple(budget.shape)}")
        for place, (_, panel) in enumerate(self.yield_zordered_panels()):
            panel.assign_budget(budget[place])

    def get_cost(self) -> Tensor:
        """Sum of the panels' costs, ``()`` unit currency."""
        by_kind: dict[type[AbsPanel], list[AbsPanel]] = {}
        for panel in self.yield_panels():
            by_kind.setdefault(type(panel), []).append(panel)
        return torch.cat([kind.get_costs(panels).flatten() for kind, panels in by_kind.items()]).sum()
