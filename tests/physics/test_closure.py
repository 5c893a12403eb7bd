"""From a known block through flight, hits, tracks and image back to the block."""

import pytest
import torch

from diffdet.core.materials import X0
from diffdet.core.random import Stream
from diffdet.tomography.inference.scattering import ScatterBatch
from diffdet.tomography.inference.volume import PanelX0Inferrer
from diffdet.tomography.muon.generation import MuonGenerator2016
from diffdet.tomography.muon.muon_batch import MuonBatch
from scenes import filled, lead_in_beryllium, volume

N = 20_000


def imaged(made, key, *, through=False):
    """X0 from muons of 5 GeV; ``through``: only those whose straight line crosses both the top and the bottom."""
    source, stream = MuonGenerator2016.from_volume(made), Stream("closure", key).muons()
    given = source(3 * N if through else N, stream=stream)
    if through:
        tangent = torch.tan(given[:, 3])
        slope = torch.stack([tangent * torch.cos(given[:, 4]), tangent * torch.sin(given[:, 4])], 1)
        faces = [given[:, :2] + slope * (1.0 - z) for z in (0.8, 0.2)]
        inside = torch.stack([((at >= 0) & (at < 1)).all(1) for at in faces]).all(0)
        given = given[inside][:N]
    inferrer = PanelX0Inferrer(made)
    inferrer.retain_muons = False
    with torch.no_grad():
        for first in range(0, len(given), 5000):
            mu = MuonBatch(given[first : first + 5000], made.h, stream=stream, first=first)
            made(mu)
            inferrer.add_scatters(ScatterBatch(mu, made))
    return inferrer.get_prediction()


@pytest.fixture(scope="module")
def image():
    made = volume(x0=lead_in_beryllium, span=(2.0, 2.0), dtype=torch.float32).eval()
    return imaged(made, 1), made.get_rad_cube() < 0.1


def test_lead_is_told_from_beryllium(image):
    x0, lead = image
    assert x0[lead].mean().item() < 0.25 * x0[~lead].mean().item()
    # every voxel of lead is darker than nine of ten voxels of beryllium
    assert x0[lead].max() < x0[~lead].quantile(0.9)
    separation = (x0[~lead].mean() - x0[lead].mean()) / (x0[lead].var() + 2 * x0[~lead].std()).sqrt()
    # published 0.356; the published package gives 0.39 with its narrower scattering
    assert 0.3 < separation.item() < 0.42


def test_lead_is_found_where_it_is(image):
    x0, lead = image
    darkest = torch.zeros_like(lead)
    darkest.view(-1)[x0.flatten().argsort()[: int(lead.sum())]] = True
    found = darkest & lead
    assert found.sum() > 0.6 * lead.sum()
    centre = darkest.nonzero().double().mean(0)
    expected = lead.nonzero().double().mean(0)
    assert (centre - expected).abs().max().item() < 1.0  # voxels


def test_a_layer_is_found_at_its_height():
    """The darkest layer is the one of lead, wherever it is."""
    for k in (1, 3, 4):

        def one_layer(*, z, lw, size, k=k):
            here = abs(float(z) - (0.3 + 0.1 * k)) < 0.01
            return filled("lead" if here else "beryllium")(z=z, lw=lw, size=size)

        made = volume(x0=one_layer, span=(2.0, 2.0), dtype=torch.float32).eval()
        x0 = imaged(made, 2 + k, through=True)
        assert x0[:, 2:8, 2:8].flatten(1).median(1).values.argmin().item() == k


@pytest.mark.parametrize("material", ["beryllium", "aluminium", "lead"])
def test_bias_of_the_estimator_in_homogeneous_blocks(material):
    """A known weakness, documented here and not a claim of accuracy: a muon's whole scattering is put on one point, so
    six layers of one material look two to six times denser than they are, most of all in the middle.

    The published package finds 0.43 (beryllium, fourth layer) to 1.9 of the truth, 0.25 in the middle of lead.
    """
    made = volume(x0=filled(material), span=(6.0, 6.0), res=1e6, dtype=torch.float32).eval()
    ratio = imaged(made, 10, through=True).flatten(1).median(1).values / X0[material]
    assert (ratio[2:4] < 0.5).all()
    assert (ratio[2:4] > 0.1).all()
    assert (ratio[[0, 5]] > ratio[2:4].max()).all()
    assert ratio.max() < 2


def test_denser_blocks_look_denser():
    levels = [
        imaged(volume(x0=filled(material), span=(6.0, 6.0), dtype=torch.float32).eval(), 20, through=True)
        .median()
        .item()
        for material in ("beryllium", "aluminium", "iron", "lead")
    ]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] > 20 * levels[-1]
