"""The ladle furnace's detectors and its fill level from points of closest approach."""

import math

import pytest
import torch

from diffdet.core.errors import InputError, NoMuonsWarning
from diffdet.kernels import fill_level
from diffdet.tomography.benchmarks.ladle_furnace.inference import PocaZLadleFurnaceFillLevelInferrer
from diffdet.tomography.benchmarks.ladle_furnace.volume import (
    get_baseline_detector_1,
    get_baseline_detector_2,
    get_initial_detector,
)
from diffdet.tomography.inference.scattering import ScatterBatch
from diffdet.tomography.inference.volume import panel_efficiency
from diffdet.tomography.volume.panel import SigmoidDetectorPanel
from diffdet.tomography.volume.volume import Volume
from scenes import beam, lead_in_beryllium, muons, scattered, volume

DETECTORS = {
    get_initial_detector: ((0, 0), (1.48, 1.47, 1.46, 1.45), (0.35, 0.34, 0.33, 0.32)),
    get_baseline_detector_1: ((0.5, 0.5), (1.80, 1.75, 1.50, 1.45), (0.35, 0.30, 0.05, 0.00)),
    get_baseline_detector_2: ((0.5, 0.5), (1.75, 1.65, 1.55, 1.45), (0.35, 0.25, 0.15, 0.05)),
}


@pytest.mark.parametrize("get", DETECTORS, ids=lambda f: f.__name__)
def test_detectors_are_the_documented_ones(get):
    centre, above, below = DETECTORS[get]
    made = Volume(get(res=1e3, eff=0.8, span=0.7), budget=6)
    assert made.lw.tolist() == [1, 1]
    assert made.n_zxy == (10, 10, 10)
    assert made.passive_box == ((0, 0, pytest.approx(0.4)), (1, 1, 1.4))
    assert made.h.item() == pytest.approx(1.8)
    panels = list(made.yield_panels())
    assert [p.z.item() for p in panels] == pytest.approx([*above, *below])
    assert all(isinstance(p, SigmoidDetectorPanel) for p in panels)
    for p in panels:
        assert p.xy.tolist() == pytest.approx(centre)
        assert p.get_scaled_xy_span().tolist() == pytest.approx([math.sqrt(0.75)] * 2, rel=1e-6)
        assert p.xy_span.tolist() == pytest.approx([0.7, 0.7])


@pytest.mark.parametrize("get", DETECTORS, ids=lambda f: f.__name__)
def test_all_panels_of_a_detector_are_alike(get):
    """In the original one panel above has smoothness 0.1, and one below efficiency 1, whatever is asked for."""
    panels = list(Volume(get(res=1e3, eff=0.8)).yield_panels())
    assert {
        (p.smooth.item(), round(p.efficiency.item(), 6), p.resolution.item(), p.m2_cost.item()) for p in panels
    } == {(1.0, 0.8, 1000.0, 1.0)}


def inferred(made, given, size, *, retain=True, smooth=0.5):
    inferrer = PocaZLadleFurnaceFillLevelInferrer(made, smooth)
    inferrer.retain_muons = retain
    for first in range(0, len(given), size):
        inferrer.add_scatters(scattered(made, given[first : first + size], first=first))
    return inferrer


def test_height_is_that_of_the_recipe():
    made = volume(x0=lead_in_beryllium, shift=0.03)
    sb = scattered(made, beam(200))
    inferrer = PocaZLadleFurnaceFillLevelInferrer(made, smooth=0.5)
    inferrer.add_scatters(sb)
    x_edges, y_edges, _ = made.voxel_edges()
    central = fill_level.central_weight(sb.poca_xyz.T[:2], sb.poca_xyz_unc.T[:2], x_edges, y_edges, 0.5)
    expected, variance = fill_level.robust_height(
        sb.poca_xyz[:, 2], sb.poca_xyz_unc[:, 2], central * panel_efficiency(sb)
    )
    torch.testing.assert_close(inferrer.get_prediction(), expected)
    torch.testing.assert_close(inferrer.pred_height, expected)
    torch.testing.assert_close(inferrer.pred_height_var, variance)
    assert expected.shape == (1,)
    assert inferrer.n_mu == 200
    assert torch.equal(inferrer.muon_poca_xyz, sb.poca_xyz)
    assert torch.equal(inferrer.muon_poca_xyz_unc, sb.poca_xyz_unc)
    torch.testing.assert_close(inferrer.muon_efficiency[:, 0], panel_efficiency(sb))
    assert inferrer.smooth.item() == 0.5


@pytest.mark.parametrize("training", [True, False])
def test_heights_do_not_depend_on_batches_nor_on_forgetting_muons(training):
    made = volume("sigmoid", x0=lead_in_beryllium, shift=0.03, dtype=torch.float32).train(training)
    given = beam(2000, low=-0.1, high=1.1, dtype=torch.float32)
    with torch.no_grad():
        whole = inferred(made, given, 2000)
        for size, retain in ((64, False), (700, True), (2000, False)):
            cut = inferred(made, given, size, retain=retain)
            assert torch.equal(cut.get_prediction(), whole.get_prediction())
            assert cut.n_mu == whole.n_mu
    forgetful = inferred(made, given[:50], 50, retain=False)
    with pytest.raises(InputError, match="retain_muons"):
        _ = forgetful.muon_poca_xyz


def test_the_pixels_may_cover_a_rectangle():
    made = Volume(get_baseline_detector_2())
    inferrer = PocaZLadleFurnaceFillLevelInferrer(made)
    assert [len(edges) for edges in inferrer._edges] == [11, 11]


def test_without_muons_there_is_no_height():
    made = volume(x0=lead_in_beryllium)
    inferrer = PocaZLadleFurnaceFillLevelInferrer(made)
    assert inferrer.get_prediction() is None
    inferrer.add_scatters(scattered(made, beam(0)))
    assert inferrer.get_prediction() is None
    with pytest.warns(NoMuonsWarning):
        inferrer.add_scatters(scattered(made.eval(), beam(5, low=5, high=6)))
    assert inferrer.get_prediction() is None
    inferrer.add_scatters(scattered(made.train(), beam(1)))
    assert inferrer.get_prediction().isfinite().all()


def test_muons_beside_the_furnace_do_not_make_a_height_of_nothing():
    """Nine of ten points lie metres beside the block and have no weight: the clipping limit of weights is then 0."""
    made = volume(x0=lead_in_beryllium, span=(30.0, 30.0))
    given = torch.cat([beam(10), beam(90, low=4.0, high=5.0)])
    mu = muons(given)
    made(mu)
    inferrer = PocaZLadleFurnaceFillLevelInferrer(made)
    inferrer.add_scatters(ScatterBatch(mu, made))
    height = inferrer.get_prediction()
    assert height.isfinite().all()
    height.sum().backward()
    for parameter in made.parameters():
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("smooth", [0.0, -1.0, math.nan])
def test_smoothness_is_positive(smooth):
    with pytest.raises(InputError, match="smooth"):
        PocaZLadleFurnaceFillLevelInferrer(volume(), smooth)
