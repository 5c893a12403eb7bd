"""Turns and reflections: invariants stay, targets come along, scaling is undone, test versions form a grid."""

from __future__ import annotations

import math

import numpy as np
import pytest

from diffdet.core.errors import InputError
from diffdet.core.random import Stream
from diffdet.nn.data.augmentation import HEPAugFoldYielder
from diffdet.nn.data.fold_yielder import ArrayFoldYielder
from diffdet.nn.data.preprocessing import Scaler
from diffdet.nn.training.batches import load_fold

NAMES = ["l_px", "l_py", "l_pz", "met_px", "met_py", "mass", "j_phi", "j_eta"]


def folds(*, scaled=False, matrix=True, n=300):
    draw = np.random.default_rng(0)
    flat = draw.normal([0, 0, 0, 5, 0, 90, 0, 0], [30, 10, 50, 20, 25, 10, 1, 2], size=(n, 8))
    flat[:, 6] = draw.uniform(-math.pi, math.pi, n)
    objects = draw.normal(0, 20, size=(n, 3, 4))
    mask = np.arange(3) < draw.integers(0, 4, n)[:, None]
    objects *= mask[..., None]
    pipes = {}
    if scaled:
        pipes = {"input_pipe": Scaler().fit(flat), "matrix_pipe": Scaler().fit(objects, mask=mask)}
        flat = pipes["input_pipe"].transform(flat)
        objects = pipes["matrix_pipe"].transform(objects) * mask[..., None]
    description = {"vecs": ["a", "b", "c"], "feats_per_vec": ["px", "py", "pz", "E"], "row_wise": True}
    targets = np.asarray(flat[:, :2])
    kept = {"mask": mask, "matrix_feats": description} if matrix else {}
    return ArrayFoldYielder(
        (flat, objects) if matrix else flat, targets, n_folds=3, cont_feats=NAMES, strat=None, **kept, **pipes
    )


def in_gev(fy, fold):
    flat, matrix = fold["inputs"]
    if fy.input_pipe is None:
        return flat, matrix
    return fy.input_pipe.inverse_transform(flat), fy.matrix_pipe.inverse_transform(matrix) * fold["mask"][..., None]


@pytest.mark.parametrize("scaled", [False, True])
def test_what_does_not_depend_on_directions_stays(scaled):
    fy = folds(scaled=scaled)
    augmented = HEPAugFoldYielder(fy, reflect_x=True)
    plain, changed = in_gev(fy, fy[0]), in_gev(fy, augmented.get_train_fold(0, Stream(1)))
    for k in (0, 3):  # transverse momenta
        assert np.allclose(np.hypot(*plain[0][:, k : k + 2].T), np.hypot(*changed[0][:, k : k + 2].T))
    assert np.allclose(plain[0][:, 5], changed[0][:, 5])
    assert np.allclose(np.abs(plain[0][:, [2, 7]]), np.abs(changed[0][:, [2, 7]]))

    def products(flat, matrix):
        across = np.concatenate([flat[:, None, :2], flat[:, None, 3:5], matrix[:, :, :2]], axis=1)
        return across @ np.swapaxes(across, 1, 2)

    assert np.allclose(products(*plain), products(*changed), atol=1e-6)
    assert not np.allclose(plain[0][:, 0], changed[0][:, 0])


def test_all_vectors_of_an_event_turn_by_one_angle():
    fy = folds()
    changed = HEPAugFoldYielder(fy, reflect_y=False, reflect_z=False).get_train_fold(0)
    (flat, matrix), (new, new_matrix) = fy[0]["inputs"], changed["inputs"]

    def turn(x, y, new_x, new_y):
        return np.mod(np.arctan2(new_y, new_x) - np.arctan2(y, x) + 10 * math.pi, 2 * math.pi)

    angle = turn(flat[:, 0], flat[:, 1], new[:, 0], new[:, 1])
    assert angle.std() > 1.5
    assert np.allclose(turn(flat[:, 3], flat[:, 4], new[:, 3], new[:, 4]), angle)
    assert np.allclose(np.mod(new[:, 6] - flat[:, 6], 2 * math.pi), angle)
    there = fy[0]["mask"][:, 0]
    first = [part[there, 0, k] for part in (matrix, new_matrix) for k in (0, 1)]
    assert np.allclose(turn(*first), angle[there])


def test_absent_objects_stay_zero():
    fy = folds(scaled=True)
    for fold in (HEPAugFoldYielder(fy).get_train_fold(0), *HEPAugFoldYielder(fy).get_test_folds(0)):
        assert not fold["inputs"][1][~fold["mask"]].any()


@pytest.mark.parametrize("random_rot", [False, True])
def test_targets_turn_by_the_angle_of_inputs_at_test_time(random_rot):
    fy = folds()
    augmented = HEPAugFoldYielder(fy, random_rot=random_rot, reflect_x=True, targ_feats=["l_px", "l_py"])
    for fold in augmented.get_test_folds(1):
        assert np.allclose(fold["targets"], fold["inputs"][0][:, :2])


def test_test_versions_are_a_grid_and_the_first_is_the_event_itself():
    fy = folds()
    augmented = HEPAugFoldYielder(fy, rot_mult=4)
    versions = list(augmented.get_test_folds(0))
    assert len(versions) == augmented.aug_mult == 16
    assert np.allclose(versions[0]["inputs"][0], fy[0]["inputs"][0])
    momenta = np.stack([v["inputs"][0][:, :3] for v in versions])
    assert len(np.unique(momenta[:, 0].round(6), axis=0)) == 16
    assert np.allclose(momenta.mean(axis=0), 0, atol=1e-9)
    assert np.array_equal(augmented.get_test_fold(0, 5)["inputs"][0], versions[5]["inputs"][0])
    with pytest.raises(InputError, match="`aug_idx` must be from 0 to 15"):
        augmented.get_test_fold(0, 16)


def test_turning_scaled_momenta_as_they_are_would_change_them():
    """px and py of the missing momentum have different means and widths; a turn of scaled ones is none."""
    fy = folds(scaled=True)
    flat = fy[0]["inputs"][0]
    turned = np.hypot(*fy.input_pipe.inverse_transform(np.insert(flat, [], 0, axis=1))[:, 3:5].T)
    wrong = flat.copy()
    wrong[:, 3], wrong[:, 4] = -flat[:, 4], flat[:, 3]
    assert np.abs(np.hypot(*fy.input_pipe.inverse_transform(wrong)[:, 3:5].T) - turned).mean() > 3


def test_training_gets_changed_events_by_its_own_stream():
    import torch

    augmented = HEPAugFoldYielder(folds())
    settings = {"dtype": torch.float64, "classes": False}
    first, again, other = (load_fold(augmented, 0, stream=Stream(k), **settings) for k in (1, 1, 2))
    assert torch.equal(first.x[0], again.x[0])
    assert not torch.equal(first.x[0], other.x[0])
    plain = load_fold(augmented, 0, stream=None, **settings)
    assert np.array_equal(plain.x[0].numpy(), folds()[0]["inputs"][0])


def test_the_mean_over_versions_is_what_models_predict():
    from diffdet.nn.models.model import Model
    from diffdet.nn.models.model_builder import ModelBuilder

    fy = folds(matrix=False)
    model = Model(ModelBuilder("regression", 1, NAMES, {"body": {"depth": 1, "width": 8}}), seed=0)
    augmented = HEPAugFoldYielder(fy, rot_mult=2)
    model.predict(augmented)
    wanted = np.mean([model.predict(v["inputs"]) for v in augmented.get_test_folds(0)], axis=0)
    assert np.allclose(fy.get_column("pred", fold_idx=0), wanted[:, 0], rtol=1e-5)


def test_what_cannot_be_turned_is_refused():
    with pytest.raises(InputError, match="`fy` must have vectors"):
        HEPAugFoldYielder(ArrayFoldYielder(np.zeros((10, 2)), n_folds=2, cont_feats=["mass", "pt"]))
    with pytest.raises(InputError, match="nothing to change"):
        HEPAugFoldYielder(folds(), rot_mult=0, reflect_y=False, reflect_z=False)
    with pytest.raises(InputError, match="`targ_feats` must be momenta"):
        HEPAugFoldYielder(folds(), targ_feats=["mass"])
    fy = folds(matrix=False)
    fy.input_pipe = Scaler(pca=True).fit(np.random.default_rng(0).normal(size=(50, 8)))
    with pytest.raises(InputError, match="without principal components"):
        HEPAugFoldYielder(fy)
