"""A detector of the user's own: a hodoscope, named in hodoscope.yaml as `hodoscope:Hodoscope`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffdet.core.checks import check_in_range, check_positive
from diffdet.kernels import panel_response
from diffdet.tomography.volume.panel import AbsPanel


class Hodoscope(AbsPanel):
    """Two crossed planes of bars: a muon is seen in the middle of the bars that it crosses.

    In training the position is smeared with the standard deviation of a bar, width / sqrt(12), and the edges are soft;
    in evaluation it is the middle of a bar, and a muon beside the bars has no hit. Every bar costs a channel to read
    out, so narrow bars are precise and expensive: their width is learnt, beside position and size.
    """

    def __init__(self, *, init_xyz, init_xy_span, eff, m2_cost, bar=0.04, channel_cost=0.01, device=None):
        super().__init__()
        check_positive("bar", bar)
        check_in_range("eff", eff, 0, 1, low_open=True)
        start = torch.tensor([*init_xyz, *init_xy_span, bar], device=device)
        self.xy, self.z, self.span, self.bar = (nn.Parameter(part.clone()) for part in start.split([2, 1, 2, 1]))
        self.register_buffer("efficiency", torch.tensor(eff**2, device=device))  # both planes have to see the muon
        self.m2_cost, self.channel_cost = m2_cost, channel_cost

    def parameter_families(self) -> dict[str, nn.Parameter]:
        return {"xy_pos": self.xy, "z_pos": self.z, "xy_span": self.span, "bar": self.bar}

    def response_parameters(self) -> dict[str, Tensor]:
        sigma = self.bar / 12**0.5
        own = {"centre": self.xy, "span": self.span, "bar": self.bar}
        return {**own, "resolution": 1 / sigma, "efficiency": self.efficiency}

    @staticmethod
    def response(xy: Tensor, **p: Tensor) -> tuple[Tensor, Tensor]:
        profile = panel_response.sigmoid(xy, p["centre"], p["span"], smooth=0.1)
        efficiency = panel_response.efficiency(profile, p["efficiency"].squeeze(-1), floor=1e-10)
        return panel_response.resolution(profile, p["resolution"]), efficiency

    @staticmethod
    def physical_recorded(xy: Tensor, noise: Tensor, sigma: Tensor, **p: Tensor) -> Tensor:
        edge = p["centre"] - p["span"] / 2
        last = (p["span"] / p["bar"]).ceil() - 1
        return edge + (((xy - edge) / p["bar"]).floor().clamp_min(0).minimum(last) + 0.5) * p["bar"]

    def get_cost(self) -> Tensor:
        return self.m2_cost * self.span.prod() + self.channel_cost * (self.span / self.bar).sum()

    @torch.no_grad()
    def clamp_params(self, xyz_low: tuple[float, float, float], xyz_high: tuple[float, float, float]) -> None:
        super().clamp_params(xyz_low, xyz_high)
        self.xy.clamp_(torch.tensor(xyz_low[:2]), torch.tensor(xyz_high[:2]))
        self.span.clamp_(0.1, 2 * max(xyz_high[:2]))
        self.bar.clamp_(0.002, 0.1)
