"""Volume of the buried-walls problem: a block of soil between two stacks of wide panels."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from diffdet.core.checks import check_multiple, check_positive, check_shape
from diffdet.tomography.core import DEVICE
from diffdet.tomography.muon.generation import MuonGenerator2016
from diffdet.tomography.optimisation.wrapper.volume_wrapper import PanelVolumeWrapper
from diffdet.tomography.volume.layer import AbsLayer, PanelDetectorLayer, PassiveLayer
from diffdet.tomography.volume.panel import DetectorPanel
from diffdet.tomography.volume.volume import Volume

__all__ = ["get_small_walls_volume", "get_small_walls_volume_wrapper"]

_N_PANELS = 4
_EDGE = 10.0


def get_small_walls_volume(
    size: float = 1,
    passive_lwh: Tensor | None = None,
    span: float = 4.0,
    res: float = 1e4,
    eff: float = 1.0,
    det_height: float = 1.0,
    device: torch.device = DEVICE,
) -> Volume:
    """Block of voxels between two detectors of four Gaussian panels each, evenly spaced from the top of their layer.

    Args:
        size: Voxel edge, m.
        passive_lwh: ``(3,)`` extent of the block in x, y, z, whole multiples of ``size``, m; None for 10 m in every
            direction.
        span: Width of the panels over the extent of the block.
        res: Resolution of the panels, 1/m.
        eff: Efficiency of the panels.
        det_height: Height of each detector, m; the block begins at this height.
        device: Where the tensors live.

    Returns:
        Volume without a layout.

    Raises:
        InputError: If a length is not positive, or the extent no multiple of the voxel edge.
    """
    passive_lwh = torch.full((3,), _EDGE) if passive_lwh is None else passive_lwh
    check_shape("passive_lwh", passive_lwh, "3")
    check_positive("passive_lwh", passive_lwh)
    check_positive("span", span)
    check_positive("det_height", det_height)
    n_layers = check_multiple("passive_lwh[2]", float(passive_lwh[2]), size, "size")
    lw = passive_lwh[:2].to(device)
    length, width = (float(extent) for extent in lw)
    block_top = det_height + n_layers * size

    def detector(position: str, top: float) -> PanelDetectorLayer:
        panels = [
            DetectorPanel(
                res=res,
                eff=eff,
                init_xyz=(length / 2, width / 2, top - k * det_height / _N_PANELS),
                init_xy_span=(span * length, span * width),
                device=device,
            )
            for k in range(_N_PANELS)
        ]
        return PanelDetectorLayer(position, lw=lw, z=top, size=det_height, panels=panels)

    layers: list[AbsLayer] = [detector("above", block_top + det_height)]
    layers += [PassiveLayer(lw, block_top - k * size, size, device=device) for k in range(n_layers)]
    layers += [detector("below", det_height)]
    return Volume(nn.ModuleList(layers))


def get_small_walls_volume_wrapper(
    size: float = 1,
    passive_lwh: Tensor | None = None,
    span: float = 4.0,
    res: float = 1e4,
    eff: float = 1.0,
    det_height: float = 1.0,
    device: torch.device = DEVICE,
) -> PanelVolumeWrapper:
    """Wrapper of `get_small_walls_volume` with plain gradient descent and muons of 1 GeV; without a loss.

    Args:
        size: See `get_small_walls_volume`, as for all others.
        passive_lwh: Likewise.
        span: Likewise.
        res: Likewise.
        eff: Likewise.
        det_height: Likewise.
        device: Likewise.

    Returns:
        Wrapper ready to predict; set its loss to optimise.
    """
    volume = get_small_walls_volume(size, passive_lwh, span, res, eff, det_height, device)
    return PanelVolumeWrapper(
        volume,
        xy_pos_opt=partial(torch.optim.SGD, lr=5e4),
        z_pos_opt=partial(torch.optim.SGD, lr=5e3),
        xy_span_opt=partial(torch.optim.SGD, lr=1e4),
        mu_generator=MuonGenerator2016.from_volume(volume, fixed_mom=1.0),
    )
