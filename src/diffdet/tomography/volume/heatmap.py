"""A detector without a shape: a mixture of Gaussians that is free to spread where muons tell most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from diffdet.core.checks import check_finite, check_in_range, check_positive
from diffdet.core.errors import InputError, NotSupportedError
from diffdet.kernels import mixtures
from diffdet.kernels.panel_response import RESOLUTION_FLOOR
from diffdet.tomography.core import DEVICE
from diffdet.tomography.volume.panel import AbsPanel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["DetectorHeatMap"]

# Clusters and their widths are kept within this times the initial extent.
_RANGE_MULT = 1.2
# Smallest width of a cluster over the initial extent. A width that shrinks to 0 would leave a spike without a gradient.
_MIN_SIGMA = 0.01
_MIN_INIT_SIGMA = 0.2
_NORM_RANGE = (0.01, 1.5)
# Positive root of r^5 = r + 1: its inverse powers make the points k/r, k/r^2, ... (mod 1) cover a cube evenly in four
# dimensions.
_EVEN = 1.1673039782614187


def _positions(n: int, generator: torch.Generator | None) -> Tensor:
    """``(n, 4)`` numbers in [0, 1), float64: drawn, or evenly spread without chance."""
    if generator is not None:
        return torch.rand(n, 4, generator=generator, dtype=torch.float64)
    steps = torch.tensor([_EVEN**-k for k in range(1, 5)], dtype=torch.float64)
    return torch.remainder(0.5 + torch.arange(1, n + 1, dtype=torch.float64)[:, None] * steps, 1)


class DetectorHeatMap(AbsPanel):
    """A horizontal detector whose quality is a learnable map. Experimental: it shows where detectors are worth having.

    The map is f(x, y) = norm p(x, y) / max_k p(m_k), with p an evenly weighted mixture of Gaussians with centres m_k
    (``mu``) and widths (``sig``). The resolution is res sqrt(f) on both axes, the efficiency eff min(1, f), the cost
    m2_cost times the mean of the products of both widths.

    There is no physical detector behind it, so it cannot be given a budget, nor be evaluated realistically: use panels
    to build one.

    Args:
        res: Resolution where the map is 1, 1/m.
        eff: Efficiency where the map is 1 or more, in (0, 1].
        init_xyz: Centre around which the clusters start, and height, m.
        init_xy_span: Two positions, m, in any order, whose distance is the initial extent in both directions.
        m2_cost: Cost of a square metre, unit currency.
        budget: Must be None.
        realistic_validation: Must be False.
        device: Where the tensors live.
        n_cluster: Number of Gaussians.
        generator: CPU generator that places the clusters at random; None spreads them evenly, always alike.

    Raises:
        InputError: If a value is not finite or out of range.
        NotSupportedError: If a budget or realistic validation is asked for.
    """

    type_label: ClassVar[str] = "heatmap"

    m2_cost: Tensor
    resolution: Tensor
    efficiency: Tensor
    xy_fix: Tensor
    xy_span_fix: Tensor

    def __init__(
        self,
        *,
        res: float,
        eff: float,
        init_xyz: tuple[float, float, float],
        init_xy_span: tuple[float, float],
        m2_cost: float = 1,
        budget: Tensor | None = None,
        realistic_validation: bool = False,
        device: torch.device = DEVICE,
        n_cluster: int = 30,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_positive("res", res)
        check_in_range("eff", eff, 0, 1, low_open=True)
        check_positive("m2_cost", m2_cost)
        check_in_range("n_cluster", n_cluster, 1)
        if len(init_xyz) != 3:
            raise InputError(f"`init_xyz` must be (x, y, z) in m; got {tuple(init_xyz)}")
        for value in (*init_xyz, *init_xy_span):
            check_finite("init_xyz and init_xy_span", float(value))
        if len(init_xy_span) != 2 or init_xy_span[0] == init_xy_span[1]:
            raise InputError(f"`init_xy_span` must be two different positions in m; got {tuple(init_xy_span)}")
        if realistic_validation:
            raise NotSupportedError("a heat map has no physical counterpart; `realistic_validation` must be False")
        self.realistic_validation = False
        self.n_cluster = n_cluster
        low, high = sorted(float(end) for end in init_xy_span)
        self.delta = high - low
        dtype = torch.get_default_dtype()
        start = _positions(n_cluster, generator)
        centre = torch.tensor([float(value) for value in init_xyz], dtype=torch.float64)
        mu = centre[:2] + self.delta * (0.5 - start[:, :2])
        sig = self.delta * start[:, 2:].clamp(min=_MIN_INIT_SIGMA)
        self.mu = nn.Parameter(mu.to(device=device, dtype=dtype))
        self.sig = nn.Parameter(sig.to(device=device, dtype=dtype))
        self.norm = nn.Parameter(torch.ones(1, device=device, dtype=dtype))
        self.z: nn.Parameter = nn.Parameter(centre[2:].to(device=device, dtype=dtype))
        for name, value in (("m2_cost", m2_cost), ("resolution", res), ("efficiency", eff)):
            self.register_buffer(name, torch.tensor(float(value), device=device, dtype=dtype))
        self.register_buffer("xy_fix", centre[:2].to(device=device, dtype=dtype))
        self.register_buffer("xy_span_fix", torch.tensor([low, high], device=device, dtype=dtype))
        self.register_load_state_dict_pre_hook(_forget_doubles)
        self.assign_budget(budget)

    def __repr__(self) -> str:
        centre = ", ".join(f"{value:.4g}" for value in self.mu.detach().mean(0).tolist())
        return f"{type(self).__name__} of {self.n_cluster} clusters around ({centre}), z={self.z.item():.4g} m"

    @property
    def x(self) -> Tensor:
        """Mean x of the clusters, ``()`` m."""
        return self.mu[:, 0].mean()

    @property
    def y(self) -> Tensor:
        """Mean y of the clusters, ``()`` m."""
        return self.mu[:, 1].mean()

    def get_scaled_xy_span(self) -> Tensor:
        """``(2,)`` effective widths, m: four standard deviations of the mixture, as a Gaussian panel has."""
        variance = self.mu.var(0, unbiased=False) + self.sig.square().mean(0)
        return 4 * variance.sqrt()

    def parameter_families(self) -> dict[str, nn.Parameter]:  # noqa: D102
        return {"mu": self.mu, "norm": self.norm, "sig": self.sig, "z_pos": self.z}

    def response_parameters(self) -> dict[str, Tensor]:  # noqa: D102
        return {
            "mu": self.mu,
            "sig": self.sig,
            "norm": self.norm[0],
            "resolution": self.resolution,
            "efficiency": self.efficiency,
        }

    @staticmethod
    def response(xy: Tensor, **parameters: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        # (..., cluster, 2, 1) and (..., 1, 1): the trailing axis is that of the muons
        mean, sigma, norm = parameters["mu"].squeeze(-1), parameters["sig"].squeeze(-1), parameters["norm"].squeeze(-1)
        shape = mixtures.response(xy, mean, sigma, norm)
        res = mixtures.resolution(shape, parameters["resolution"].squeeze(-1), RESOLUTION_FLOOR)
        return res, mixtures.efficiency(shape, parameters["efficiency"].squeeze(-1))

    def _shape(self, xy: Tensor) -> Tensor:
        """Root of the map at ``(N, 2)`` positions, ``(N,)``."""
        return mixtures.response(xy.T, self.mu, self.sig, self.norm)

    def get_resolution(self, xy: Tensor, mask: Tensor | None = None) -> Tensor:
        """Resolution at positions.

        Args:
            xy: ``(N, 2)`` positions, m.
            mask: Not used: a heat map has no inside.

        Returns:
            ``(N, 2)`` resolution, 1/m, equal for both axes.
        """
        del mask
        return mixtures.resolution(self._shape(xy), self.resolution, RESOLUTION_FLOOR).T

    def get_efficiency(self, xy: Tensor, mask: Tensor | None = None, as_2d: bool = False) -> Tensor:
        """Efficiency at positions.

        Args:
            xy: ``(N, 2)`` positions, m.
            mask: Not used: a heat map has no inside.
            as_2d: Whether to give one factor per axis; their product is the efficiency.

        Returns:
            ``(N,)`` efficiency, or ``(N, 2)`` factors.
        """
        del mask
        efficiency = mixtures.efficiency(self._shape(xy), self.efficiency)
        if not as_2d:
            return efficiency
        factor = self._shape(xy).clamp(max=1) * self.efficiency.sqrt()
        return torch.stack([factor, factor], dim=1)

    def get_xy_mask(self, xy: Tensor) -> Tensor:
        """Which positions lie inside: a question without an answer for a heat map.

        Raises:
            NotSupportedError: Always.
        """
        raise NotSupportedError(f"{type(self).__name__} has no edge, so no inside; {len(xy)} positions given")

    def get_cost(self) -> Tensor:
        """Cost by mean area of the clusters, ``()`` unit currency."""
        return mixtures.cost(self.sig, self.m2_cost)

    def assign_budget(self, budget: Tensor | None = None) -> None:
        """Accept None only.

        Raises:
            NotSupportedError: If there is a budget.
        """
        super().assign_budget(budget)

    def conform(self, lw: tuple[float, float], z: float, size: float) -> None:
        """Keep the clusters within 1.2 times the initial extent of their start, and inside the layer.

        Args:
            lw: Extent of the layer in x and y, m.
            z: Height of the layer's top, m.
            size: Thickness of the layer, m.
        """
        reach = _RANGE_MULT * self.delta
        low = [max(0.0, centre - reach) for centre in self.xy_fix.tolist()]
        high = [min(extent, centre + reach) for extent, centre in zip(lw, self.xy_fix.tolist(), strict=True)]
        self.clamp_params((low, _MIN_SIGMA * self.delta, z - size), (high, self.delta, z))

    @torch.no_grad()
    def clamp_params(  # pyright: ignore[reportIncompatibleMethodOverride]  (documented names)
        self,
        musigz_low: tuple[float | Sequence[float], float, float],
        musigz_high: tuple[float | Sequence[float], float, float],
    ) -> None:
        """Bring centres, widths and height back into their ranges.

        Widths are kept between low/1.2 and 1.2 high, but never below a hundredth of the initial extent; ``norm``
        between 0.01 and 1.5.

        Args:
            musigz_low: Lowest centre (a number for both axes, or x and y), width and height, m.
            musigz_high: Highest centre, width and height, m.
        """
        for axis in range(2):
            self.mu[:, axis].clamp_(_component(musigz_low[0], axis), _component(musigz_high[0], axis))
        narrowest = max(musigz_low[1] / _RANGE_MULT, _MIN_SIGMA * self.delta)
        self.sig.clamp_(narrowest, max(narrowest, musigz_high[1] * _RANGE_MULT))
        self.norm.clamp_(*_NORM_RANGE)
        self._clamp_z(musigz_low[2], musigz_high[2])

    def plot_map(self, bpixelate: bool = False, bsavefig: bool = False, filename: str | Path | None = None) -> None:
        """Draw the map, from 2 extents left to 2 extents right of the start.

        Args:
            bpixelate: Whether to draw coarse pixels instead of filled contours.
            bsavefig: Whether to save the figure and close it, instead of showing it.
            filename: Where to save; None for ``heatmap_plot.png``.
        """
        from diffdet.tomography.plotting import appearance

        with appearance.style(0.5):
            figure = appearance.new_figure(4, 4)
            self.draw_map(figure.add_subplot(), bpixelate)
        if bsavefig:
            appearance.save(figure, "heatmap_plot.png" if filename is None else filename, dpi=300)
            appearance.close(figure)
        else:
            appearance.present(figure)

    @torch.no_grad()
    def draw_map(self, axes: Axes, pixelate: bool = False) -> None:
        """Draw the map into axes, with a colour bar beside them.

        Args:
            axes: Where to draw.
            pixelate: Whether to draw coarse pixels instead of filled contours.
        """
        n = 40 if pixelate else 200
        x, y = (
            torch.linspace(
                centre - 2 * self.delta, centre + 2 * self.delta, n, dtype=self.mu.dtype, device=self.mu.device
            )
            for centre in self.xy_fix.tolist()
        )
        grid = torch.stack(torch.meshgrid(x, y, indexing="ij")).reshape(2, -1)
        values = self._shape(grid.T).square().reshape(n, n).T.cpu().numpy()
        across, up = x.cpu().numpy(), y.cpu().numpy()
        if pixelate:
            drawn = axes.pcolormesh(across, up, values, cmap="plasma", shading="nearest")
        else:
            levels = [k / 10 for k in range(max(9, math.ceil(10 * float(values.max()))) + 1)]
            drawn = axes.contourf(across, up, values, levels=levels, cmap="plasma")
        axes.figure.colorbar(drawn, ax=axes, shrink=0.7, label="relative response")
        axes.set(xlabel="x [m]", ylabel="y [m]", aspect="equal")


def _component(value: float | Sequence[float], axis: int) -> float:
    """A number that holds for both axes, or that of one."""
    return value[axis] if isinstance(value, Sequence) else value


def _forget_doubles(_module: nn.Module, state_dict: dict[str, Any], prefix: str, *_details: Any) -> None:
    """Before loading: older state dicts hold mu, sig and norm a second time, under ``gmm``."""
    for name in ("mu", "sig", "norm"):
        if prefix + name in state_dict:
            state_dict.pop(f"{prefix}gmm.{name}", None)
