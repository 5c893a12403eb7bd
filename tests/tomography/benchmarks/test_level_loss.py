"""The furnace's integer loss numbers fill levels as the edge detection does, on every layer's top and between."""

from __future__ import annotations

import pytest
import torch

from diffdet.tomography.benchmarks.ladle_furnace._edge_detection import EdgeDetLadleFurnaceFillLevelInferrer
from diffdet.tomography.benchmarks.ladle_furnace._level_loss import LadleFurnaceIntClassLoss, level_to_class
from diffdet.tomography.benchmarks.ladle_furnace.data import LadleFurnacePassiveGenerator
from diffdet.tomography.benchmarks.ladle_furnace.volume import get_initial_detector
from diffdet.tomography.volume.volume import Volume


@pytest.fixture(scope="module")
def volume() -> Volume:
    return Volume(get_initial_detector(), budget=6)


def loaded(volume, level):
    volume.load_rad_length(*LadleFurnacePassiveGenerator(volume).get_data(fixed_mat_z=level))
    return volume


@pytest.mark.parametrize("level", [0.5, 0.55, 0.6, 0.69, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.25, 1.3])
def test_the_class_is_the_number_of_full_layers_above_the_floor(volume, level):
    # in float32, (0.7 - 0.4) / 0.1 is below 3: the published package counts a layer too few
    cube = loaded(volume, level).get_rad_cube()
    n_full = int((cube[:, 5, 5] == 0.01991).sum())
    assert int(level_to_class(volume.target, volume)) == n_full


def test_class_and_level_are_each_others_inverse(volume):
    classes = torch.arange(9)
    levels = EdgeDetLadleFurnaceFillLevelInferrer._class_to_level(classes, volume)
    assert level_to_class(levels, volume).tolist() == classes.tolist()


@pytest.mark.parametrize(("use_mse", "power"), [(False, 1), (True, 2)])
def test_loss_is_the_expected_normalised_distance(volume, use_mse, power):
    probs = torch.tensor([0.1, 0.2, 0.05, 0.3, 0.05, 0.1, 0.1, 0.05, 0.05], dtype=torch.float64, requires_grad=True)
    loss = LadleFurnaceIntClassLoss(use_mse=use_mse, target_budget=None)
    value = loss(probs, loaded(volume, 0.9))
    distance = [abs(k - 4) ** power for k in range(9)]
    expected = sum(p * d for p, d in zip(probs.tolist(), distance, strict=True)) / sum(distance)
    assert float(value.detach()) == pytest.approx(expected)
    (by_probs,) = torch.autograd.grad(value, probs)
    assert by_probs.tolist() == pytest.approx([d / sum(distance) for d in distance])


def test_start_shifts_the_classes(volume):
    sure = torch.zeros(9)
    sure[2] = 1.0
    volume = loaded(volume, 0.9)  # class 4
    assert float(LadleFurnaceIntClassLoss(pred_int_start=2, use_mse=False, target_budget=None)(sure, volume)) == 0
    assert float(LadleFurnaceIntClassLoss(use_mse=False, target_budget=None)(sure, volume)) > 0


def test_cost_enters_with_a_budget(volume):
    probs = torch.full((9,), 1 / 9)
    volume = loaded(volume, 0.9)
    alone = LadleFurnaceIntClassLoss(use_mse=False, target_budget=None)(probs, volume)
    at_budget = LadleFurnaceIntClassLoss(use_mse=False, target_budget=6.0, cost_coef=0.25)(probs, volume)
    assert float(at_budget - alone) == pytest.approx(0.25)
