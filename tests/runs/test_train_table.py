"""Training from tables: columns, objects as columns or lists, what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from diffdet.core.errors import InputError
from diffdet.runs.config.train import TrainConfig
from diffdet.runs.train_data import load_data

N = 400


@pytest.fixture
def table(tmp_path):
    draw = np.random.default_rng(0)
    counts = draw.integers(0, 3, N)
    columns = {"met": draw.exponential(20, N), "channel": draw.integers(0, 2, N), "label": draw.integers(0, 2, N)}
    columns |= {"w": draw.uniform(0.5, 1.5, N), "n_jets": counts}
    for k in range(2):
        for feature in ("pt", "eta"):
            values = draw.normal(size=N)
            columns[f"jet{k}_{feature}"] = np.where(counts > k, values, np.nan)
    np.savez(tmp_path / "events.npz", **columns)
    return tmp_path / "events.npz", columns


def config(file, **data):
    settings = {"file": str(file), "inputs": ["met"], "targets": ["label"], "folds": 5}
    return TrainConfig.model_validate({"data": settings | data, "network": {"objective": "classification"}})


def test_columns_become_folds(table):
    path, columns = table
    data = load_data(config(path, categories=["channel"], weight="w", test_folds=2))
    assert (len(data.folds), data.learn_idxs, data.test_idxs) == (5, [0, 1, 2], [3, 4])
    assert data.cont_feats == ["met"]
    rows = data.folds.sample_rows(0)
    assert np.allclose(data.folds[0]["inputs"][:, 0], columns["met"][rows])
    assert np.allclose(data.folds[0]["weights"][:, 0], columns["w"][rows])


@pytest.mark.parametrize("count", [None, "n_jets"])
def test_columns_of_objects_become_a_matrix(table, count):
    path, columns = table
    objects = {"names": ["jet0", "jet1"], "features": ["pt", "eta"], "count": count}
    fold = load_data(config(path, objects=objects)).folds
    rows = fold.sample_rows(1)
    assert np.array_equal(fold[1]["mask"], np.arange(2) < columns["n_jets"][rows][:, None])
    assert np.allclose(fold[1]["inputs"][1][:, 1, 1], np.nan_to_num(columns["jet1_eta"][rows]))


def test_lists_of_objects_become_a_matrix(tmp_path):
    uproot, ak = pytest.importorskip("uproot"), pytest.importorskip("awkward")
    draw = np.random.default_rng(0)
    pt = [draw.exponential(30, k) for k in draw.integers(0, 4, N)]
    with uproot.recreate(tmp_path / "events.root") as file:
        file["Events"] = {"met": np.ones(N), "label": draw.integers(0, 2, N), "Jet_pt": ak.Array(pt)}
    objects = {"names": ["Jet0", "Jet1"], "features": ["pt"]}
    fold = load_data(config(tmp_path / "events.root", objects=objects)).folds
    row = fold.sample_rows(0)[0]
    assert fold[0]["mask"][0].sum() == min(2, len(pt[row]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": ["mett"]}, r"data.*no column 'mett'.*Did you mean 'met'"),
        ({"objects": {"names": ["muon0"], "features": ["pt"]}}, r"objects\.names: .*'muon0_pt'"),
        ({"categories": ["met"], "inputs": ["w"]}, "category `met` must consist of whole numbers"),
        ({"targets": ["jet0_pt"]}, "targets: expected finite values"),
        ({"inputs": ["met", "jet1_pt"]}, r"inputs: expected finite values, given \d+ of 'jet1_pt'"),
    ],
)
def test_what_does_not_fit_is_named(table, change, message):
    with pytest.raises(InputError, match=message):
        load_data(config(table[0], **change))
