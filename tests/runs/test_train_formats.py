"""Tables of every format give the same folds, and are trained on from beginning to end."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from diffdet.cli.main import run
from diffdet.core.errors import FileDamagedError, InputError
from diffdet.runs.config.train import TrainConfig
from diffdet.runs.train_table import read_table

N = 240


@pytest.fixture(scope="module")
def events():
    """Flat columns, lists of jets, and the same jets as padded columns."""
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, N)
    lists = {
        "jet_pt": [rng.uniform(20, 100, n).round(3) for n in counts],
        "jet_eta": [rng.normal(0, 2, n).round(3) for n in counts],
    }
    met = rng.exponential(40, N).round(3)
    total = met + np.array([jets.sum() for jets in lists["jet_pt"]])
    flat = {
        "met": met,
        "channel": rng.integers(0, 3, N),
        "signal": (total > np.median(total)).astype(np.int64),
        "w": rng.uniform(0.5, 1.5, N).round(3),
        "n_jets": counts,
    }
    padded = {}
    for feat in ("pt", "eta"):
        for k in range(2):
            padded[f"j{k}_{feat}"] = np.array([jets[k] if len(jets) > k else np.nan for jets in lists[f"jet_{feat}"]])
    return flat, lists, padded


def write(path, flat, lists, padded):
    if path.suffix == ".npz":
        np.savez(path, **flat, **padded)
    elif path.suffix == ".csv":
        columns = flat | padded
        rows = [",".join(str(v) for v in row) for row in zip(*columns.values(), strict=True)]
        path.write_text("\n".join([",".join(columns), *rows]) + "\n")
    elif path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({**flat, **padded, **{k: list(v) for k, v in lists.items()}}), path)
    else:
        uproot, awkward = pytest.importorskip("uproot"), pytest.importorskip("awkward")
        with uproot.recreate(path) as file:
            file["events"] = {**flat, **padded, **{name: awkward.Array(v) for name, v in lists.items()}}
    return path


def config(path, *, lists=False, **data):
    objects = {"names": ["j0", "j1"], "features": ["pt", "eta"]} | ({"lists": "jet"} if lists else {})
    columns = {"inputs": ["met"], "categories": ["channel"], "targets": ["signal"], "weight": "w", "objects": objects}
    return TrainConfig.model_validate(
        {"data": {"file": str(path), "folds": 4, **columns, **data}, "network": {"objective": "classification"}}
    )


@pytest.mark.parametrize(
    ("suffix", "lists"), [("npz", False), ("csv", False), ("parquet", False), ("parquet", True), ("root", True)]
)
def test_every_format_gives_the_same_folds(suffix, lists, events, tmp_path):
    flat, jets, padded = events
    folds = read_table(config(write(tmp_path / f"t.{suffix}", flat, jets, padded), lists=lists))
    assert (folds.cont_feats, folds.cat_feats) == (["met"], ["channel"])
    seen = 0
    for idx in range(4):
        fold, rows = folds[idx], folds.sample_rows(idx)
        inputs, matrix = fold["inputs"]
        np.testing.assert_allclose(inputs[:, 0], flat["met"][rows], rtol=1e-6)
        np.testing.assert_array_equal(inputs[:, 1], flat["channel"][rows])
        np.testing.assert_array_equal(fold["targets"][:, 0], flat["signal"][rows])
        np.testing.assert_array_equal(fold["mask"], np.arange(2) < flat["n_jets"][rows][:, None])
        expected = np.nan_to_num(np.stack([padded["j0_pt"], padded["j1_pt"]], 1))[rows]
        np.testing.assert_allclose(matrix[:, :, 0], expected, rtol=1e-6)
        seen += len(rows)
    assert seen == N


def test_files_that_cannot_be_read_are_named(tmp_path):
    for suffix in ("npz", "parquet", "root"):
        path = tmp_path / f"bad.{suffix}"
        path.write_bytes(b"met,channel,signal,w,j0_pt,j0_eta,j1_pt,j1_eta\nnonsense\x00\x01")
        with pytest.raises(FileDamagedError, match="cannot be read"):
            read_table(config(path))


def test_lists_say_themselves_how_many_objects_exist():
    objects = {"names": ["a"], "features": ["pt"], "lists": "jet", "count": "n"}
    with pytest.raises(ValueError, match="expected no `count` beside `lists`"):
        config("t.root", objects=objects)


def test_a_table_is_trained_on_from_beginning_to_end(events, tmp_path):
    path = write(tmp_path / "events.npz", *events)
    design = {
        "kind": "train",
        "data": config(path).data.model_dump(by_alias=True) | {"file": "events.npz", "balance": True},
        "network": {
            "objective": "classification",
            "head": {
                "class": "MultiHead",
                "args": {"matrix_head": {"class": "RecurrentHead", "args": {"depth": 1, "width": 4}}},
            },
            "body": {"class": "FullyConnected", "args": {"depth": 1, "width": 8}},
        },
        "schedule": {"epochs": 2, "batch_size": 20},
        "evaluation": {"repeats": 2, "bootstrap": 20},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(design))
    assert run(["train", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "RUN"), "--quiet"]) == 0
    result = json.loads((tmp_path / "RUN" / "result.json").read_text())
    assert result["status"] == "complete"
    names = {entry["feature"] for entry in result["importance"]}
    assert names == {"met", "channel", "objects: pt", "objects: eta"}
    assert not any(isinstance(error, InputError) for error in result.get("warnings", []))
