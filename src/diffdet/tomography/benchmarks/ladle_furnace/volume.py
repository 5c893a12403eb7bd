"""Geometry and detectors of the ladle-furnace study.

A furnace of 1 m x 1 m x 1 m stands between two boxes of four panels each; how high is the liquid steel? The initial
detector watches a corner, the two baselines are a physicist's designs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from diffdet.tomography.core import DEVICE
from diffdet.tomography.volume.layer import AbsLayer, PanelDetectorLayer, PassiveLayer
from diffdet.tomography.volume.panel import SigmoidDetectorPanel

__all__ = ["get_baseline_detector_1", "get_baseline_detector_2", "get_initial_detector"]

_LW = (1.0, 1.0)
_VOXEL = 0.1
_TOP, _BLOCK_TOP, _BLOCK_BOTTOM = 1.8, 1.4, 0.4
_BOX = 0.4


def _layers(
    above_z: Sequence[float],
    below_z: Sequence[float],
    centre: tuple[float, float],
    *,
    res: float,
    eff: float,
    span: float,
    device: torch.device,
) -> nn.ModuleList:
    lw = torch.tensor(_LW, device=device)

    def panels(heights: Sequence[float]) -> list[SigmoidDetectorPanel]:
        return [
            SigmoidDetectorPanel(
                smooth=1.0,
                res=res,
                eff=eff,
                init_xyz=(*centre, z),
                init_xy_span=(span, span),
                m2_cost=1.0,
                device=device,
            )
            for z in heights
        ]

    n = round((_BLOCK_TOP - _BLOCK_BOTTOM) / _VOXEL)
    layers: list[AbsLayer] = [PanelDetectorLayer("above", lw=lw, z=_TOP, size=_BOX, panels=panels(above_z))]
    layers += [PassiveLayer(lw, round(_BLOCK_TOP - k * _VOXEL, 6), _VOXEL, device=device) for k in range(n)]
    layers += [PanelDetectorLayer("below", lw=lw, z=_BLOCK_BOTTOM, size=_BOX, panels=panels(below_z))]
    return nn.ModuleList(layers)


def get_initial_detector(
    *, res: float = 1e4, eff: float = 0.9, span: float = 0.8, device: torch.device = DEVICE
) -> nn.ModuleList:
    """Layers with the poor detector that optimisation starts from: panels about the corner (0, 0), crowded within 3 cm.

    All panels have the given efficiency and smoothness 1 (in the original, one panel above has smoothness 0.1 and
    one below efficiency 1, whatever is asked for).

    Args:
        res: resolution, 1/m.
        eff: efficiency.
        span: width of the panels, m.
        device: where tensors live.

    Returns:
        Detector above, ten passive layers (no material loaded), detector below.
    """
    return _layers(
        (1.48, 1.47, 1.46, 1.45), (0.35, 0.34, 0.33, 0.32), (0.0, 0.0), res=res, eff=eff, span=span, device=device
    )


def get_baseline_detector_1(
    *, res: float = 1e4, eff: float = 0.9, span: float = 0.8, device: torch.device = DEVICE
) -> nn.ModuleList:
    """Layers with panels over the middle, in two pairs at the ends of each box; see ``get_initial_detector``."""
    return _layers(
        (1.80, 1.75, 1.50, 1.45), (0.35, 0.30, 0.05, 0.00), (0.5, 0.5), res=res, eff=eff, span=span, device=device
    )


def get_baseline_detector_2(
    *, res: float = 1e4, eff: float = 0.9, span: float = 0.8, device: torch.device = DEVICE
) -> nn.ModuleList:
    """Layers with panels over the middle, evenly spaced in each box; see ``get_initial_detector``."""
    return _layers(
        (1.75, 1.65, 1.55, 1.45), (0.35, 0.25, 0.15, 0.05), (0.5, 0.5), res=res, eff=eff, span=span, device=device
    )
