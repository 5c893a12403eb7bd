"""Evidence for uranium in a lorry: model and simulation, accumulation, detection, the objective."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from diffdet.core.errors import InputError, NoMuonsWarning
from diffdet.core.random import Stream
from diffdet.tomography.benchmarks.u_lorry.data import ULorryPassiveGenerator
from diffdet.tomography.benchmarks.u_lorry.inference import ULorryLikelihoodClassifier
from diffdet.tomography.benchmarks.u_lorry.objective import MissedBlockLoss
from diffdet.tomography.benchmarks.u_lorry.study import evaluate_detector, pairs_of_lorries
from diffdet.tomography.inference.scattering import ScatterBatch
from diffdet.tomography.muon.generation import MuonGenerator2016
from diffdet.tomography.muon.muon_batch import MuonBatch
from diffdet.tomography.optimisation.data.layouts import VoxelLayout
from diffdet.tomography.optimisation.wrapper.volume_wrapper import ArbVolumeWrapper
from diffdet.tomography.volume.layer import PanelDetectorLayer, PassiveLayer
from diffdet.tomography.volume.panel import SigmoidDetectorPanel
from diffdet.tomography.volume.volume import Volume

U_VOLUME = 0.024  # three voxels
LW = (1.2, 1.6)


def portal(centre=(0.6, 0.8), span=(2.4, 3.0)):
    """A lorry of 6 x 6 x 8 voxels of 20 cm between two panels above and two below."""
    lw = torch.tensor(LW)

    def panels(heights):
        return [
            SigmoidDetectorPanel(smooth=0.2, res=1e4, eff=0.95, init_xyz=(*centre, z), init_xy_span=span)
            for z in heights
        ]

    layers = [PanelDetectorLayer("above", lw=lw, z=2.2, size=0.5, panels=panels((2.2, 1.8)))]
    layers += [PassiveLayer(lw, round(1.7 - 0.2 * k, 6), 0.2, step_sz=0.05) for k in range(6)]
    layers += [PanelDetectorLayer("below", lw=lw, z=0.5, size=0.5, panels=panels((0.4, 0.0)))]
    return Volume(nn.ModuleList(layers))


def irradiated(inferrer, volume, n, *, start=0, seed=3):
    """Send muons ``start`` to ``start + n`` of one stream through a volume and add them."""
    stream = Stream(seed).muons()
    kinematics = MuonGenerator2016.from_volume(volume).generate_set(n, stream=stream, start=start)
    muons = MuonBatch(kinematics, init_z=volume.h, stream=stream, first=start)
    volume(muons)
    inferrer.add_scatters(ScatterBatch(muons, volume))
    return inferrer


@pytest.fixture
def lorry():
    volume = portal().eval()
    generator = ULorryPassiveGenerator(volume, U_VOLUME, u_prob=1.0)
    volume.load_rad_length(*generator.get_data(generator=Stream(4).generator()))
    return volume


def test_the_evidence_is_greatest_where_the_uranium_is(lorry):
    inferrer = irradiated(ULorryLikelihoodClassifier(lorry, U_VOLUME), lorry, 20_000)
    uranium = lorry.get_rad_cube() < 0.004
    inside, outside = inferrer.evidence[uranium], inferrer.evidence[1:][~uranium[1:]]
    assert inside.min() > 30
    assert inside.min() > outside.max()
    assert inferrer.get_prediction().item() > 0.99


def test_even_scrap_gives_evidence_against():
    """A lorry that is exactly what the model takes it for: for every voxel evidence is negative in the mean."""
    volume = portal().eval()
    inferrer = ULorryLikelihoodClassifier(volume, U_VOLUME)
    cube = (1 / inferrer._density.flip(0))[:, None, None].expand(volume.n_zxy)
    volume.load_rad_length(VoxelLayout(cube, volume.passive_box[0][2]), torch.tensor([0]))
    irradiated(inferrer, volume, 20_000)
    assert inferrer.evidence[1:].mean() < -5
    assert float((inferrer.evidence[1:] < 0).double().mean()) > 0.97
    assert inferrer.get_prediction().item() < 0.3


def test_information_needs_no_uranium_and_grows_with_exposure(lorry):
    few = irradiated(ULorryLikelihoodClassifier(lorry, U_VOLUME), lorry, 4000)
    many = irradiated(ULorryLikelihoodClassifier(lorry, U_VOLUME), lorry, 16_000)
    assert bool((few.information >= 0).all())
    assert (many.information.sum() / few.information.sum()).item() == pytest.approx(4, rel=0.1)


def test_batches_do_not_matter(lorry):
    whole = irradiated(ULorryLikelihoodClassifier(lorry, U_VOLUME), lorry, 9000)
    parts = ULorryLikelihoodClassifier(lorry, U_VOLUME)
    parts.retain_muons = False
    for start, stop in ((0, 2500), (2500, 2600), (2600, 9000)):
        irradiated(parts, lorry, stop - start, start=start)
    assert whole.n_mu == parts.n_mu > 1024
    assert torch.equal(whole.evidence, parts.evidence)
    assert torch.equal(whole.information, parts.information)


def test_pairs_differ_in_the_uranium_only():
    volume = portal()
    lorries = pairs_of_lorries(volume, 3, seed=1, u_volume=U_VOLUME)
    assert [int(target) for _, target in lorries] == [1, 0] * 3
    cubes = []
    for layout, target in lorries:
        volume.load_rad_length(layout, target)
        cubes.append(volume.get_rad_cube().clone())
    for with_, without in zip(cubes[::2], cubes[1::2], strict=True):
        differ = with_ != without
        assert bool((with_[differ] < 0.004).all())
        assert 0 < int(differ.sum()) <= 3
    assert not torch.equal(cubes[1], cubes[3])


def measured(volume, n_pairs=8, n_muons=8000, n_calibration_pairs=0):
    wrapper = ArbVolumeWrapper(
        volume, opts={}, partial_volume_inferrer=lambda volume: ULorryLikelihoodClassifier(volume, U_VOLUME), seed=1
    )
    return evaluate_detector(
        wrapper,
        seed=2,
        n_pairs=n_pairs,
        n_calibration_pairs=n_calibration_pairs,
        n_muons=n_muons,
        u_volume=U_VOLUME,
    )


def test_calibration_rescales_the_log_odds_by_other_lorries():
    raw = measured(portal(), n_pairs=3, n_muons=500)
    found = measured(portal(), n_pairs=3, n_muons=500, n_calibration_pairs=4)
    assert found.slope >= 0
    assert (found.slope, found.offset) != (1.0, 0.0)
    assert (raw.slope, raw.offset) == (1.0, 0.0)
    torch.testing.assert_close(found.with_uranium, found.slope * raw.with_uranium + found.offset)
    torch.testing.assert_close(found.without, found.slope * raw.without + found.offset)
    assert found.figures()["order_error"] == raw.figures()["order_error"]


def test_a_detector_over_the_lorry_tells_more_than_one_beside_it():
    good, poor = measured(portal()), measured(portal(centre=(-0.3, -0.3)))
    assert good.figures()["order_error"] < 0.1
    assert good.figures()["log_loss"] < poor.figures()["log_loss"] - 0.2
    # half of the log-odds are of lorries that differ in the uranium only
    assert bool((good.with_uranium > good.without).double().mean() > 0.9)


def test_a_detector_that_sees_nothing_leaves_the_odds_even():
    with pytest.warns(NoMuonsWarning):
        found = measured(portal(centre=(-40.0, -40.0)), n_pairs=2, n_muons=50)
    assert found.with_uranium.tolist() == found.without.tolist() == [0.0, 0.0]
    assert found.figures()["log_loss"] == pytest.approx(0.6931, abs=1e-4)


def loss_of(volume, exposure=10.0, n=3000):
    callback = MissedBlockLoss(exposure)
    inferrer = irradiated(ULorryLikelihoodClassifier(volume, U_VOLUME), volume, n)
    params = SimpleNamespace(state="train", pred=inferrer.get_prediction(), volume_inferrer=inferrer, mean_loss=None)
    callback.set_wrapper(SimpleNamespace(fit_params=params))
    callback.on_volume_batch_begin()
    callback.on_x0_pred_end()
    callback.on_volume_batch_end()
    return params.mean_loss


def test_the_objective_is_the_mean_bound_over_voxels_above_the_floor(lorry):
    inferrer = irradiated(ULorryLikelihoodClassifier(lorry, U_VOLUME), lorry, 3000)
    expected = torch.exp(-10 * inferrer.information[1:]).mean()
    assert loss_of(lorry).item() == pytest.approx(expected.item(), rel=1e-6)
    assert loss_of(lorry, exposure=1.0) > loss_of(lorry)


def test_the_objective_pulls_panels_over_the_lorry():
    volume = portal(centre=(0.1, 0.3), span=(1.0, 1.2)).train()
    loss_of(volume).backward()
    for panel in volume.yield_panels():
        assert bool((panel.xy.grad < 0).all())  # a step against the gradient moves towards the middle


def test_an_inferrer_without_information_is_refused():
    callback = MissedBlockLoss()
    params = SimpleNamespace(state="train", pred=torch.ones(1), volume_inferrer=object())
    callback.set_wrapper(SimpleNamespace(fit_params=params))
    with pytest.raises(InputError, match=r"information.*object"):
        callback.on_x0_pred_end()


def test_a_batch_that_saw_nothing_has_no_loss():
    callback = MissedBlockLoss()
    params = SimpleNamespace(state="train", pred=None, mean_loss=torch.tensor(1.0))
    callback.set_wrapper(SimpleNamespace(fit_params=params))
    callback.on_volume_batch_begin()
    callback.on_x0_pred_end()
    callback.on_volume_batch_end()
    assert params.mean_loss is None


@pytest.mark.parametrize("arguments", [{"clip": 0.0}, {"temper": -1.0}, {"u_volume": 0.0241}])
def test_what_makes_no_sense_is_refused(arguments):
    with pytest.raises(InputError, match=next(iter(arguments))):
        ULorryLikelihoodClassifier(portal(), **({"u_volume": U_VOLUME} | arguments))
