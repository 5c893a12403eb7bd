from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import pytest
import torch

from diffdet.core.random import Stream
from diffdet.tomography.inference.scattering import ScatterBatch
from diffdet.tomography.muon.muon_batch import MuonBatch
from diffdet.tomography.volume.layer import PanelDetectorLayer, PassiveLayer
from diffdet.tomography.volume.panel import DetectorPanel
from diffdet.tomography.volume.volume import Volume


@pytest.fixture(autouse=True)
def _nobody_is_looking() -> Iterator[None]:
    """No window opens, whatever the machine offers."""
    before = mpl.get_backend()
    mpl.use("agg")
    yield
    mpl.use(before)


@pytest.fixture
def volume() -> Volume:
    """Three panels above and two below a block of 1.0 m x 0.6 m x 0.4 m, sharing a budget; one is off the middle."""
    lw = torch.tensor([1.0, 0.6])

    def panels(heights: tuple[float, ...]) -> list[DetectorPanel]:
        return [
            DetectorPanel(
                res=1e4, eff=0.9, init_xyz=(0.2 if z == 0.95 else 0.5, 0.3, z), init_xy_span=(0.8 + 0.1 * k, 0.5)
            )
            for k, z in enumerate(heights)
        ]

    layers = [PanelDetectorLayer("above", lw=lw, z=1.0, size=0.3, panels=panels((0.75, 0.95, 0.85)))]
    layers += [PassiveLayer(lw, z, 0.1) for z in (0.7, 0.6, 0.5, 0.4)]
    layers += [PanelDetectorLayer("below", lw=lw, z=0.3, size=0.3, panels=panels((0.25, 0.05)))]
    return Volume(layers, budget=5.0)


@pytest.fixture
def scatters(volume: Volume) -> ScatterBatch:
    """Forty muons through iron, with the physical panels: some hits are missing."""
    volume.eval()
    volume.load_rad_length(lambda *, z, lw, size: torch.full((10, 6), 0.01757))
    uniform = torch.rand((5, 40), generator=torch.Generator().manual_seed(5))
    columns = [0.2 + 0.8 * uniform[0], 0.6 * uniform[1], 2 + uniform[2], 0.5 * uniform[3], 6.28 * uniform[4]]
    mu = MuonBatch(torch.stack(columns, 1), volume.h, stream=Stream(5).muons())
    with torch.no_grad():
        volume(mu)
        return ScatterBatch(mu, volume)
