"""Edge detection in the furnace: every stage does what its name says, and the pipeline is their composition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffdet.core.errors import GeometryError, InputError, ShapeError
from diffdet.core.random import Stream
from diffdet.tomography.benchmarks.ladle_furnace.data import LadleFurnacePassiveGenerator
from diffdet.tomography.benchmarks.ladle_furnace.inference import EdgeDetLadleFurnaceFillLevelInferrer
from diffdet.tomography.benchmarks.ladle_furnace.volume import get_baseline_detector_2
from diffdet.tomography.inference.scattering import ScatterBatch
from diffdet.tomography.inference.volume import PanelX0Inferrer
from diffdet.tomography.muon.muon_batch import MuonBatch
from diffdet.tomography.volume.layer import PassiveLayer
from diffdet.tomography.volume.volume import Volume

EdgeDet = EdgeDetLadleFurnaceFillLevelInferrer
PROFILE = torch.tensor([[0.2, 0.5, 0.1, 0.4]])


@pytest.fixture(scope="module")
def volume() -> Volume:
    return Volume(get_baseline_detector_2())


def inferrer(volume, **arguments):
    return EdgeDet(PanelX0Inferrer, volume, **arguments)


def furnace(volume, level):
    layout, target = LadleFurnacePassiveGenerator(volume).get_data(fixed_mat_z=level, fixed_slag_z=level)
    volume.load_rad_length(layout, target)
    return volume.get_rad_cube()


def test_remove_ladle_leaves_the_inside(volume):
    cube = furnace(volume, 0.9)
    assert float((cube == 0.01782).sum()) == 100 + 9 * 36  # floor and walls
    inside = EdgeDet.remove_ladle(cube[None])
    assert inside.shape == (1, 9, 8, 8)
    assert not bool((inside == 0.01782).any())


def test_avg_layers():
    cube = torch.arange(12.0).reshape(1, 3, 2, 2)
    assert EdgeDet.avg_layers(cube).tolist() == [[1.5, 5.5, 9.5]]


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("avg_1d", [0.35, 0.8 / 3, 1 / 3, 0.25]),
        ("gauss_1d", [0.275, 0.325, 0.275, 0.325]),
        ("ridge_1d_0", [-0.7, -0.3, -0.9, -0.5]),
        ("ridge_1d_2", [-0.3, 0.7, -0.7, 0.3]),
        ("ridge_1d_4", [0.1, 1.7, -0.5, 1.1]),
        ("ridge_1d_8", [0.9, 3.7, -0.1, 2.7]),
        ("prewit_1d", [0.3, -0.1, -0.1, 0.3]),
        ("laplacian_1d", [-0.1, -1.7, 0.5, -1.1]),
        ("negative", [-0.2, -0.5, -0.1, -0.4]),
        ("max_sub_min", [0.3, 0.4, 0.4, 0.3]),
        ("max_div_min", [2.5, 5.0, 5.0, 4.0]),
    ],
)
def test_stages_of_profiles_by_hand(volume, stage, expected):
    assert getattr(inferrer(volume), stage)(PROFILE)[0].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("stage", ["avg_3d", "gauss_3d"])
def test_smoothing_keeps_what_is_uniform_and_spreads_what_is_not(volume, stage):
    smooth = getattr(inferrer(volume), stage)
    assert torch.allclose(smooth(torch.full((1, 4, 4, 4), 0.3)), torch.tensor(0.3))
    point = torch.zeros((1, 5, 5, 5))
    point[0, 2, 2, 2] = 1
    spread = smooth(point)
    assert float(spread.sum()) == pytest.approx(1)
    assert float(spread[0, 2, 2, 2]) == pytest.approx({"avg_3d": 1 / 27, "gauss_3d": 1 / 8}[stage])


def test_edge_det_takes_any_kernel():
    assert EdgeDet.edge_det(PROFILE, torch.tensor([0.0, 1.0, 0.0])).tolist() == PROFILE.tolist()
    assert EdgeDet.edge_det(PROFILE, torch.tensor([1.0, 0.0, 0.0]))[0].tolist() == pytest.approx([0.2, 0.2, 0.5, 0.1])


def test_the_documented_pipeline_written_out(volume):
    inference = inferrer(volume)
    assert inference.pipeline == [
        *("remove_ladle", "avg_3d", "avg_layers", "avg_1d", "ridge_1d_0", "negative", "max_div_min")
    ]
    cube = furnace(volume, 0.8).clamp_max(0.5).double()
    inside = cube.numpy()[1:, 1:-1, 1:-1]
    padded = np.pad(inside, 1, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3))
    profile = np.nanmean(windows, axis=(3, 4, 5)).mean(axis=(1, 2))
    profile = np.array([profile[max(0, k - 1) : k + 2].mean() for k in range(9)])
    profile = np.array([profile[max(0, k - 1)] + profile[min(8, k + 1)] for k in range(9)])
    ratio = np.array([profile[max(0, k - 1) : k + 2].max() / profile[max(0, k - 1) : k + 2].min() for k in range(9)])
    expected = np.exp(ratio) / np.exp(ratio).sum()
    assert inference.x02probs(cube).numpy() == pytest.approx(expected)


def test_batch_axis_changes_nothing(volume):
    cube = furnace(volume, 1.0).clamp_max(0.5)
    with_axis, without = inferrer(volume), inferrer(volume, add_batch_dim=False)
    assert torch.equal(with_axis.x02probs(cube), without.x02probs(cube))


def test_the_peak_follows_the_level(volume):
    inference = inferrer(volume)
    classes = [int(inference.x02probs(furnace(volume, z).clamp_max(0.3)).argmax()) for z in (0.8, 0.9, 1.0, 1.1, 1.2)]
    assert classes == list(range(classes[0], classes[0] + 5))


def test_a_pipeline_without_smoothing_finds_the_level_itself(volume):
    pipeline = ["remove_ladle", "avg_layers", "prewit_1d"]
    inference = inferrer(volume, pipeline=pipeline, output_probs=False)
    for level in (0.6, 0.7, 1.0, 1.2):
        probs = inference.x02probs(furnace(volume, level).clamp_max(0.3))
        best = probs.topk(2).indices.sort().values
        # the two layers that touch the edge: the last full and the first empty one
        assert [round(float(EdgeDet._class_to_level(k, volume)), 3) for k in best] == pytest.approx(
            [level - 0.1, level]
        )


@pytest.fixture(scope="module")
def scatters(volume) -> ScatterBatch:
    furnace(volume, 0.9)
    uniform = torch.rand((5, 400), generator=torch.Generator().manual_seed(1))
    columns = [uniform[0], uniform[1], 2 + uniform[2], 0.3 * uniform[3], 6.28 * uniform[4]]
    mu = MuonBatch(torch.stack(columns, 1), volume.h, stream=Stream(1).muons())
    volume.train()
    volume(mu)
    return ScatterBatch(mu, volume)


def test_probabilities_from_muons_reach_the_panels(volume, scatters):
    inference = inferrer(volume)
    inference.add_scatters(scatters)
    probs = inference.get_prediction()
    assert probs.shape == (9,)
    assert float(probs.detach().sum()) == pytest.approx(1)
    panel = next(volume.yield_panels())
    (by_z,) = torch.autograd.grad(probs[4], panel.z, retain_graph=True)
    assert bool(by_z.isfinite().all())
    assert float(by_z.abs().sum()) > 0


def test_level_of_the_most_probable_class(volume, scatters):
    probabilities, level = inferrer(volume), inferrer(volume, output_probs=False)
    for inference in (probabilities, level):
        inference.add_scatters(scatters)
    best = int(probabilities.get_prediction().argmax())
    assert float(level.get_prediction()) == pytest.approx(0.4 + 0.1 * (best + 1))


def test_no_muons_no_prediction(volume):
    assert inferrer(volume).get_prediction() is None


def test_stages_may_be_added_by_inheritance(volume):
    class WithSquare(EdgeDet):
        @staticmethod
        def square(x):
            return x * x

    inference = WithSquare(PanelX0Inferrer, volume, ["remove_ladle", "avg_layers", "square"])
    cube = furnace(volume, 0.9).clamp_max(0.3)
    profile = EdgeDet.avg_layers(EdgeDet.remove_ladle(cube))
    assert torch.allclose(inference.x02probs(cube), torch.softmax(profile.square(), 0))


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        (["remove_ladel"], r"`pipeline\[0\]` must be one of .*'remove_ladle'.*Did you mean 'remove_ladle'\?"),
        (["remove_ladle", "edge_det"], r"`pipeline\[1\]` must be one of"),
        (["x02probs"], r"`pipeline\[0\]` must be one of"),
        ([], "`pipeline` must list names of stages"),
        ("avg_1d", "`pipeline` must list names of stages; got 'avg_1d'"),
    ],
)
def test_wrong_pipelines(volume, pipeline, message):
    with pytest.raises(InputError, match=message):
        inferrer(volume, pipeline=pipeline)


def test_a_pipeline_that_leaves_a_cube(volume):
    with pytest.raises(ShapeError, match=r"`avg_layers`.*remove_ladle -> avg_3d ends with the shape \(9, 8, 8\)"):
        inferrer(volume, pipeline=["remove_ladle", "avg_3d"]).x02probs(furnace(volume, 0.9))


def test_a_furnace_without_inside():
    lw = torch.tensor([0.2, 0.2])
    with pytest.raises(GeometryError, match=r"at least 3 voxels in every direction; got \(2, 2, 2\)"):
        inferrer(Volume([PassiveLayer(lw, z, 0.1) for z in (0.2, 0.1)]))
