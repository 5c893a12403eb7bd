"""Folds in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffdet.core.errors import InputError, ShapeError
from diffdet.nn.data.fold_yielder import ArrayFoldYielder, fold_ids


def data(n=103, seed=0):
    draw = np.random.default_rng(seed)
    flat = draw.normal(size=(n, 3)).astype(np.float32)
    flat[:, 2] = draw.integers(0, 3, n)
    return flat, draw.integers(0, 2, n), draw.uniform(0.5, 2, n)


def test_folds_part_the_samples_and_hold_each_class_evenly():
    classes = np.r_[np.zeros(70), np.ones(33)]
    ids = fold_ids(103, 5, strat=classes, seed=1)
    counts = np.array([[((ids == k) & (classes == c)).sum() for c in (0, 1)] for k in range(5)])
    assert counts.sum() == 103
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert np.ptp(counts.sum(axis=1)) <= 1


def test_the_seed_decides_and_nothing_else():
    same = fold_ids(50, 5, seed=3)
    assert (same == fold_ids(50, 5, seed=3)).all()
    assert (same != fold_ids(50, 5, seed=4)).any()


def test_every_sample_is_in_one_fold():
    flat, targets, weights = data()
    fy = ArrayFoldYielder(flat, targets, weights, n_folds=4, cont_feats=["a", "b"], cat_feats=["c"])
    rows = np.concatenate([fy.sample_rows(k) for k in range(4)])
    assert sorted(rows) == list(range(103))
    for k, fold in enumerate(fy):
        assert np.array_equal(fold["inputs"], flat[fy.sample_rows(k)])
        assert fold["targets"].shape == fold["weights"].shape == (fy.fold_size(k), 1)
    assert fy.get_data_count() == 103
    assert np.array_equal(np.asarray(fy.get_column("targets")), targets[rows])


def test_flat_and_matrix_travel_with_their_mask():
    flat, targets, _ = data(20)
    matrix = np.random.default_rng(1).normal(size=(20, 4, 3))
    mask = np.random.default_rng(2).random((20, 4)) < 0.5
    fy = ArrayFoldYielder((flat, matrix), targets, mask=mask, n_folds=2)
    fold = fy[1]
    assert np.array_equal(fold["inputs"][1], matrix[fy.sample_rows(1)])
    assert np.array_equal(fold["mask"], mask[fy.sample_rows(1)])
    assert fold["weights"] is None
    fy.yield_matrix = False
    assert isinstance(fy[1]["inputs"], np.ndarray)
    assert "mask" not in fy[1]
    only = ArrayFoldYielder(matrix, targets, n_folds=2)
    assert only[0]["inputs"].ndim == 3


def test_objects_are_rows_or_columns_as_a_head_takes_them():
    matrix = np.random.default_rng(1).normal(size=(20, 4, 3))
    rows, columns = (ArrayFoldYielder(matrix, n_folds=2, row_wise=row_wise) for row_wise in (None, False))
    assert np.array_equal(np.swapaxes(rows[0]["inputs"], 1, 2), columns[0]["inputs"])


def test_nan_is_yielded_as_zero_in_flat_features_and_in_matrices():
    flat, matrix = np.full((6, 2), np.nan), np.full((6, 2, 2), np.nan)
    fold = ArrayFoldYielder((flat, matrix), n_folds=2)[0]
    assert not fold["inputs"][0].any()
    assert not fold["inputs"][1].any()
    flat[3, 1] = np.inf
    with pytest.raises(InputError, match="finite"):
        list(ArrayFoldYielder((flat, matrix), n_folds=2))


def test_ignored_features_are_left_out_and_misspelt_ones_refused():
    flat, targets, _ = data()
    fy = ArrayFoldYielder(flat, targets, cont_feats=["pt", "eta"], cat_feats=["jets"], ignore_feats=["pt"])
    assert fy[0]["inputs"].shape[1] == 2
    assert fy.get_use_cont_feats() == ["eta"]
    fy.add_ignore("jets")
    assert fy[0]["inputs"].shape[1] == 1
    with pytest.raises(InputError, match="Did you mean 'eta'"):
        fy.add_ignore("etaa")


def test_predictions_are_kept_with_their_fold():
    flat, targets, weights = data()
    fy = ArrayFoldYielder(flat, targets, weights, n_folds=3)
    for k in range(3):
        fy.save_fold_pred(fy[k]["inputs"][:, :1], k)
    table = fy.get_table(inc_inputs=True)
    assert np.array_equal(table["pred"], table["x0"])
    assert set(table) == {"x0", "x1", "x2", "gen_target", "gen_weight", "pred"}
    with pytest.raises(ShapeError, match="fold 0"):
        fy.save_fold_pred(np.zeros(3), 0)
    with pytest.raises(InputError, match="pred_name"):
        fy.save_fold_pred(np.zeros(3), 0, "targets")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": np.zeros(4)}, "`targets` must have one row"),
        ({"weights": np.full(10, np.nan)}, "`weights` must be finite; 10 of 10"),
        ({"inputs": np.array([["a", "b"]] * 10)}, "`inputs` must consist of numbers"),
        ({"mask": np.ones((10, 2))}, "`mask` must come with a matrix"),
        ({"cont_feats": ["a"]}, "must name the 2 flat columns"),
        ({"cont_feats": ["a", "a"]}, r"name every column once; got \['a'\]"),
        ({"n_folds": 11}, "`n_folds` must be from 1 to the number of samples"),
        ({"fold_idx": np.r_[np.zeros(5), np.full(5, 2)]}, "without a gap"),
        (
            {"cont_feats": ["a"], "cat_feats": ["b"], "inputs": np.full((10, 2), 0.5)},
            "category `b` must consist of whole",
        ),
        ({"cont_feats": ["a"], "cat_feats": ["b"], "inputs": np.full((10, 2), np.nan)}, "first is sample 0: nan"),
        (
            {"cont_feats": ["a"], "cat_feats": ["b"], "cat_maps": {"b": {0: "x"}}, "inputs": np.ones((10, 2))},
            "code from 0 to 0; fold 0 holds 1",
        ),
    ],
)
def test_bad_input_is_refused_by_name(change, message):
    given = {"inputs": np.zeros((10, 2)), "targets": np.arange(10) % 2} | change
    with pytest.raises(InputError, match=message):
        ArrayFoldYielder(**given)


def test_tensors_do_and_columns_that_do_not_exist_are_named():
    fy = ArrayFoldYielder(torch.zeros(10, 2), torch.zeros(10), n_folds=2)
    assert fy.get_column("weights") is None
    assert fy.get_column("x1").shape == (10,)
    with pytest.raises(InputError, match="Did you mean 'targets'"):
        fy.get_column("target")
    with pytest.raises(InputError, match="`idx` must be the number of a fold"):
        fy.get_fold(2)
    assert "2 folds, 10 samples" in repr(fy)


def test_unphysical_four_momenta_are_found_where_objects_exist():
    draw = np.random.default_rng(0)
    p = draw.normal(size=(20, 3, 4))
    p[..., 3] = np.sqrt((p[..., :3] ** 2).sum(-1) + 1)
    mask = np.ones((20, 3), dtype=bool)
    p[4, 2], mask[4, 2] = [5, 0, 0, 1], False
    feats = {"feats_per_vec": ["px", "py", "pz", "E"], "vecs": ["a", "b", "c"]}
    ArrayFoldYielder(p, mask=mask, n_folds=2, matrix_feats=feats).check_momenta()
    mask[4, 2] = True
    fy = ArrayFoldYielder(p, mask=mask, n_folds=2, matrix_feats=feats)
    fold = int(4 in fy.sample_rows(1))
    with pytest.raises(InputError, match=rf"fold {fold}: .* E >= \|p\|; 1 of 30 are not"):
        fy.check_momenta()
    with pytest.raises(InputError, match="must be among 'pt'"):
        ArrayFoldYielder(p[..., :1], n_folds=2, matrix_feats={"feats_per_vec": ["pt"]}).check_momenta()
