"""Detector panels: flat, horizontal, learnable in position and size."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from diffdet.core.checks import check_finite, check_in_range, check_positive
from diffdet.core.errors import InputError, NotSupportedError
from diffdet.kernels import panel_response
from diffdet.tomography.core import DEVICE
from diffdet.tomography.volume.readout import record_hits, stack_parameters

if TYPE_CHECKING:
    from diffdet.tomography.muon.muon_batch import MuonBatch

__all__ = ["AbsPanel", "DetectorPanel", "SigmoidDetectorPanel"]

# Panels pushed to the top or bottom of their layer stop this far from it at most, each panel at another distance, so
# that
# panels never come to lie on top of each other. Larger values would be visible in a design.
_MAX_EDGE_GAP = 1e-3
_GOLDEN = 0.6180339887498949


class AbsPanel(nn.Module, metaclass=ABCMeta):
    """A horizontal detector that measures where muons cross it.

    To add a kind of panel, inherit and say four things:

    - ``parameter_families()``: what is learnable, by family name. Wrappers and callbacks treat families, never classes.
    - ``response_parameters()``: the tensors that its response depends on, one value per panel.
    - ``response(xy, **parameters)``: the smooth response, a pure function. It is called with the parameters of *all*
      panels of the class in a layer stacked on a leading axis, so write it to broadcast: positions are ``(..., 2,
      muon)``, a parameter of shape ``(2,)`` arrives as ``(..., 2, 1)``, a scalar one as ``(..., 1, 1)``.
    - ``get_cost()``: what it costs.

    In training, every muon has a hit in every panel: the response turns worse smoothly outside the panel, so that
    hits are differentiable in its position and size. In evaluation, with ``realistic_validation``,
    ``physical_response`` applies instead: a muon outside has no hit.

    Hits lie about the true position as normal noise says. A panel that measures otherwise, in strips for example, says
    so in ``recorded`` and ``physical_recorded``.

    A panel has an attribute ``z``, its height [m] (a tensor of one element), learnable or not.
    """

    type_label: ClassVar[str] = "panel"
    realistic_validation: bool = True
    z: Any  # Parameter or buffer, as the class decides
    number: int = 0
    """Place of the panel in its layer's list; set by the layer."""

    @abstractmethod
    def parameter_families(self) -> dict[str, nn.Parameter]:
        """Learnable parameters by family, for example ``{"xy_pos": ..., "z_pos": ..., "xy_span": ...}``."""

    @abstractmethod
    def response_parameters(self) -> dict[str, Tensor]:
        """Tensors that ``response`` and ``physical_response`` take, one panel's values."""

    @staticmethod
    @abstractmethod
    def response(xy: Tensor, **parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Resolution ``(..., 2, muon)`` [1/m] and efficiency ``(..., muon)`` of the smooth model at positions
        ``(..., 2, muon)``.
        """

    @staticmethod
    def physical_response(xy: Tensor, **parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Resolution and efficiency of the physical detector: zero where a muon misses it. Default: the rectangle
        ``span`` x ``span`` about ``centre`` with nominal ``resolution`` and ``efficiency``.
        """
        profile = panel_response.hard(xy, parameters["centre"], parameters["span"])
        res = panel_response.resolution(profile, parameters["resolution"], floor=0.0)
        return res, panel_response.efficiency(profile, parameters["efficiency"].squeeze(-1))

    @staticmethod
    def recorded(xy: Tensor, noise: Tensor, sigma: Tensor, **parameters: Tensor) -> Tensor:  # noqa: ARG004
        """Positions that the smooth model records. Default: xy + noise sigma.

        Args:
            xy: ``(..., 2, muon)`` true positions, m.
            noise: ``(..., 2, muon)`` standard normal numbers, the same for a muon at every call.
            sigma: ``(..., 2, muon)`` standard deviations, the inverse of the resolution, m.
            parameters: As for ``response``.

        Returns:
            ``(..., 2, muon)`` recorded positions, m.
        """
        return torch.addcmul(xy, noise, sigma)

    @staticmethod
    def physical_recorded(xy: Tensor, noise: Tensor, sigma: Tensor, **parameters: Tensor) -> Tensor:
        """Positions that the physical detector records, of muons that it sees. Default: as ``recorded``, but none
        beyond the edge of the rectangle ``span`` x ``span`` about ``centre``, if there is one.
        """
        reco = torch.addcmul(xy, noise, sigma)
        if "centre" not in parameters or "span" not in parameters:
            return reco
        half = parameters["span"] / 2
        return torch.minimum(torch.maximum(reco, parameters["centre"] - half), parameters["centre"] + half)

    @abstractmethod
    def get_cost(self) -> Tensor:
        """Cost in unit currency."""

    @classmethod
    def get_costs(cls, panels: Sequence[AbsPanel]) -> Tensor:
        """Costs of several panels of this class, ``(panel,)`` unit currency. Override to compute them at once."""
        return torch.stack([panel.get_cost() for panel in panels])

    def rectangle(self) -> tuple[Tensor, Tensor] | None:
        """The rectangle that the panel effectively covers, for tables and pictures.

        Returns:
            Centre ``(2,)`` and total widths ``(2,)``, m. Default: ``x``, ``y`` and ``get_scaled_xy_span()`` if the
            panel has them, else ``centre`` and ``span`` of its response parameters; None where it has neither.
        """
        x, y = getattr(self, "x", None), getattr(self, "y", None)
        effective = getattr(self, "get_scaled_xy_span", None)
        if x is not None and y is not None and callable(effective):
            span: Any = effective()
            return torch.stack([x.reshape(()), y.reshape(())]), span.reshape(2)
        parameters = self.response_parameters()
        if "centre" not in parameters or "span" not in parameters:
            return None
        return parameters["centre"].reshape(2), parameters["span"].reshape(2)

    def assign_budget(self, budget: Tensor | None = None) -> None:
        """Fix the panel's cost. Panels that can learn in fixed-budget mode override this."""
        if budget is not None:
            raise NotSupportedError(f"{type(self).__name__} cannot be given a budget; got {budget}")

    def conform(self, lw: tuple[float, float], z: float, size: float) -> None:
        """Move the panel back into its layer after an update, if it has left it.

        Args:
            lw: extent of the layer in x and y, m.
            z: height of the layer's top, m.
            size: thickness of the layer, m.
        """
        self.clamp_params((0.0, 0.0, z - size), (lw[0], lw[1], z))

    def clamp_params(self, xyz_low: tuple[float, float, float], xyz_high: tuple[float, float, float]) -> None:
        """Limit the parameters; by default only ``z``."""
        self._clamp_z(xyz_low[2], xyz_high[2])

    @torch.no_grad()
    def _clamp_z(self, low: float, high: float) -> None:
        gap = _MAX_EDGE_GAP * ((self.number + 1) * _GOLDEN % 1)
        z = torch.where(self.z > high, high - gap, self.z)
        self.z.copy_(torch.where(z < low, low + gap, z))

    @property
    def is_physical(self) -> bool:
        """True where the physical response applies now: evaluating, with ``realistic_validation``."""
        return self.realistic_validation and not self.training

    def get_hits(self, mu: MuonBatch) -> dict[str, Tensor]:
        """Hits of these muons where their straight line crosses the panel's height.

        Args:
            mu: muons; they are not moved.

        Returns:
            ``reco_xyz``, ``gen_xyz``, ``unc_xyz`` (N, 3) and ``eff`` (N, 1); NaN position and infinite uncertainty
            without hit.
        """
        hits = record_hits([self], mu).to_dict()
        return {key: value[:, 0] for key, value in hits.items()}

    def forward(self) -> None:
        """Panels are not called: use ``get_hits``.

        Raises:
            NotSupportedError: always.
        """
        raise NotSupportedError(f"{type(self).__name__} is not called; `get_hits(mu)` gives its hits")


class DetectorPanel(AbsPanel):
    """A thin rectangular panel with learnable centre and widths; Gaussian in training, rectangular in evaluation.

    In training the resolution falls as a Gaussian of standard deviation span/4 about the centre, per axis, and the
    efficiency as its product over both axes. The cost is area times ``m2_cost``; with a budget assigned, the widths
    are rescaled so that the cost is the budget and ``xy_span`` is only an aspect ratio.

    Args:
        res: resolution, 1/m: hits have the standard deviation 1/res.
        eff: probability that a hit is recorded, in (0, 1].
        init_xyz: initial centre, m.
        init_xy_span: initial total widths, m.
        m2_cost: cost of a square metre, unit currency.
        budget: cost that the panel has to have.
        realistic_validation: use the physical rectangle while evaluating.
        device: where the tensors live.

    Raises:
        InputError: a value is not finite or out of range, or the position has not three or the span not two components.
    """

    xy: nn.Parameter
    z: nn.Parameter
    xy_span: nn.Parameter
    m2_cost: Tensor
    resolution: Tensor
    efficiency: Tensor

    def __init__(
        self,
        *,
        res: float,
        eff: float,
        init_xyz: tuple[float, float, float],
        init_xy_span: tuple[float, float],
        m2_cost: float = 1,
        budget: Tensor | None = None,
        realistic_validation: bool = True,
        device: torch.device = DEVICE,
    ) -> None:
        super().__init__()
        check_positive("res", res)
        check_in_range("eff", eff, 0, 1, low_open=True)
        check_positive("m2_cost", m2_cost)
        if len(init_xyz) != 3:
            raise InputError(f"`init_xyz` must be (x, y, z) in m; given: {tuple(init_xyz)}")
        if len(init_xy_span) != 2:
            raise InputError(f"`init_xy_span` must be (width in x, width in y) in m; given: {tuple(init_xy_span)}")
        numbers = torch.tensor([*map(float, init_xyz), *map(float, init_xy_span)], device=device)
        check_finite("init_xyz", numbers[:3])
        check_positive("init_xy_span", numbers[3:])
        self.realistic_validation = realistic_validation
        self.xy = nn.Parameter(numbers[:2].clone())
        self.z = nn.Parameter(numbers[2:3].clone())
        self.xy_span = nn.Parameter(numbers[3:].clone())
        for name, value in (("m2_cost", m2_cost), ("resolution", res), ("efficiency", eff)):
            self.register_buffer(name, torch.tensor(float(value), device=device))
        self._budget_scale: Tensor | None = None
        self.assign_budget(budget)

    def __repr__(self) -> str:
        def listed(t: Tensor) -> str:
            return "(" + ", ".join(f"{v:.4g}" for v in t.detach().flatten().tolist()) + ")"

        span = listed(self.get_scaled_xy_span())
        return f"{type(self).__name__} at xy={listed(self.xy)}, z={listed(self.z)}, span={span} m"

    def __getstate__(self) -> dict[str, Any]:
        # budget_scale may carry the graph of the last budget assignment, which can be neither copied nor stored
        scale = self._budget_scale
        return {**self.__dict__, "_budget_scale": None if scale is None else scale.detach()}

    def _apply(self, fn: Any, recurse: bool = True) -> DetectorPanel:
        super()._apply(fn, recurse)
        if self._budget_scale is not None:
            self._budget_scale = fn(self._budget_scale)
        return self

    @property
    def budget_scale(self) -> Tensor:
        """``(1,)`` factor on both widths that makes the cost the budget; one while no budget was assigned."""
        return self.xy_span.new_ones(1) if self._budget_scale is None else self._budget_scale

    @budget_scale.setter
    def budget_scale(self, scale: Tensor) -> None:
        self._budget_scale = scale

    @property
    def x(self) -> Tensor:
        """x of the centre, m."""
        return self.xy[0]

    @property
    def y(self) -> Tensor:
        """y of the centre, m."""
        return self.xy[1]

    def parameter_families(self) -> dict[str, nn.Parameter]:  # noqa: D102
        return {"xy_pos": self.xy, "z_pos": self.z, "xy_span": self.xy_span}

    def response_parameters(self) -> dict[str, Tensor]:  # noqa: D102
        return {
            "centre": self.xy,
            "span": self.get_scaled_xy_span(),
            "resolution": self.resolution,
            "efficiency": self.efficiency,
        }

    @staticmethod
    def response(xy: Tensor, **parameters: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        profile = panel_response.gaussian(xy, parameters["centre"], parameters["span"])
        res = panel_response.resolution(profile, parameters["resolution"])
        return res, panel_response.efficiency(profile, parameters["efficiency"].squeeze(-1))

    def _respond(self, xy: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        parameters = stack_parameters([self.response_parameters()], xy)
        self._check_finite()
        if not self.is_physical:
            return self.response(xy.T[None], **parameters)
        if mask is None:
            return self.physical_response(xy.T[None], **parameters)
        inside = mask.to(xy.dtype)
        return (self.resolution * inside).expand(1, 2, -1), (self.efficiency * inside)[None]

    def _check_finite(self) -> None:
        check_finite("xy", self.xy)
        check_finite("xy_span", self.xy_span)

    def get_resolution(self, xy: Tensor, mask: Tensor | None = None) -> Tensor:
        """Resolution at positions.

        Args:
            xy: ``(N, 2)`` positions, m.
            mask: ``(N,)`` which lie on the panel, if known; used with the physical response only.

        Returns:
            ``(N, 2)`` resolution, 1/m; zero off the panel with the physical response.
        """
        return self._respond(xy, mask)[0][0].T

    def get_efficiency(self, xy: Tensor, mask: Tensor | None = None) -> Tensor:
        """Efficiency at positions, ``(N,)``; arguments as for ``get_resolution``."""
        return self._respond(xy, mask)[1][0]

    def get_xy_mask(self, xy: Tensor) -> Tensor:
        """Which of the ``(N, 2)`` positions lie on the physical panel (low edge included, high edge not), ``(N,)``
        bool.
        """
        return panel_response.inside(xy.T, self.xy[:, None], self.get_scaled_xy_span()[:, None])

    def get_gauss(self) -> torch.distributions.Normal:
        """Two independent Gaussians about the centre with standard deviation span/4."""
        self._check_finite()
        return torch.distributions.Normal(self.xy, self.get_scaled_xy_span() / 4)

    def get_scaled_xy_span(self) -> Tensor:
        """``(2,)`` effective widths, m: ``xy_span`` rescaled to the budget, if there is one."""
        return self.xy_span if self._budget_scale is None else self.xy_span * self._budget_scale

    def get_cost(self) -> Tensor:
        """Cost by effective area, ``()`` unit currency."""
        return panel_response.cost(self.get_scaled_xy_span(), self.m2_cost)

    @classmethod
    def get_costs(cls, panels: Sequence[AbsPanel]) -> Tensor:  # noqa: D102
        own = [panel for panel in panels if isinstance(panel, DetectorPanel)]
        if len(own) < len(panels) or any(type(panel).get_cost is not DetectorPanel.get_cost for panel in own):
            return super().get_costs(panels)
        spans = torch.stack([panel.get_scaled_xy_span() for panel in own])
        return panel_response.cost(spans, torch.stack([panel.m2_cost for panel in own]))

    def assign_budget(self, budget: Tensor | None = None) -> None:
        """Rescale the widths so that the cost is ``budget`` (unit currency); None leaves the scale as it is.

        Raises:
            InputError: the budget is not positive.
        """
        if budget is None:
            return
        budget = torch.as_tensor(budget, dtype=self.xy_span.dtype, device=self.xy_span.device)
        check_positive("budget", budget)
        self.budget_scale = panel_response.budget_scale(budget, self.m2_cost, self.xy_span).reshape(1)

    @torch.no_grad()
    def clamp_params(self, xyz_low: tuple[float, float, float], xyz_high: tuple[float, float, float]) -> None:
        """Bring the panel back into a box: centre into the box, widths into [1/20, 10] times its high edge.

        A panel that has left the box in z stops just inside (by less than 1 mm, another distance for every panel of
        a layer, so that panels never coincide). Unlike in the original, a panel that is inside is not touched, and
        nothing is random.

        Args:
            xyz_low: lowest x, y, z, m.
            xyz_high: highest x, y, z, m.
        """
        x, y, z, width, depth = torch.cat([self.xy, self.z, self.xy_span]).tolist()
        (low_x, low_y, low_z), (high_x, high_y, high_z) = xyz_low, xyz_high
        centre_is_inside = low_x <= x <= high_x and low_y <= y <= high_y and low_z <= z <= high_z
        if centre_is_inside and high_x / 20 <= width <= 10 * high_x and high_y / 20 <= depth <= 10 * high_y:
            return
        self._clamp_z(low_z, high_z)
        low, high = self.xy.new_tensor(xyz_low[:2]), self.xy.new_tensor(xyz_high[:2])
        self.xy.clamp_(low, high)
        self.xy_span.clamp_(high / 20, 10 * high)


class SigmoidDetectorPanel(DetectorPanel):
    """A rectangular panel whose edge, in training, is a sigmoid of adjustable width.

    Resolution and efficiency keep their nominal values inside and fall across the edge; the smaller ``smooth``, the
    closer to the physical panel. ``SigmoidPanelSmoothnessSchedule`` lowers it in the course of an optimisation.

    Args:
        smooth: width of the edge in half widths of the panel, > 0.
        res: see DetectorPanel.
        eff: see DetectorPanel.
        init_xyz: see DetectorPanel.
        init_xy_span: see DetectorPanel.
        m2_cost: see DetectorPanel.
        budget: see DetectorPanel.
        realistic_validation: see DetectorPanel.
        device: see DetectorPanel.
    """

    _smooth: Tensor

    def __init__(
        self,
        *,
        smooth: float | Tensor,
        res: float,
        eff: float,
        init_xyz: tuple[float, float, float],
        init_xy_span: tuple[float, float],
        m2_cost: float = 1,
        budget: Tensor | None = None,
        realistic_validation: bool = True,
        device: torch.device = DEVICE,
    ) -> None:
        super().__init__(
            res=res,
            eff=eff,
            init_xyz=init_xyz,
            init_xy_span=init_xy_span,
            m2_cost=m2_cost,
            budget=budget,
            realistic_validation=realistic_validation,
            device=device,
        )
        self.register_buffer("_smooth", torch.ones(1, device=device))
        self.smooth = smooth

    @property
    def smooth(self) -> Tensor:
        """Width of the edge in half widths, ``(1,)``."""
        return self._smooth

    @smooth.setter
    def smooth(self, smooth: float | Tensor) -> None:
        check_positive("smooth", smooth)
        self._smooth = torch.as_tensor(smooth, dtype=self._smooth.dtype, device=self._smooth.device).reshape(1)

    def response_parameters(self) -> dict[str, Tensor]:  # noqa: D102
        return {**super().response_parameters(), "smooth": self._smooth[0]}

    @staticmethod
    def response(xy: Tensor, **parameters: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        profile = panel_response.sigmoid(xy, parameters["centre"], parameters["span"], parameters["smooth"])
        res = panel_response.resolution(profile, parameters["resolution"])
        floor = panel_response.RESOLUTION_FLOOR
        return res, panel_response.efficiency(profile, parameters["efficiency"].squeeze(-1), floor=floor)

    def sig_model(self, xy: Tensor) -> Tensor:
        """Fraction of the nominal resolution left at ``(N, 2)`` positions, per axis, ``(N, 2)`` in [0, 1]."""
        span = self.get_scaled_xy_span()[:, None]
        return panel_response.sigmoid(xy.T, self.xy[:, None], span, self._smooth[0]).T
