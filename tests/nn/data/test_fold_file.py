"""Fold files: written whole, read with care."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from diffdet.core.errors import FileDamagedError, InputError, NotSupportedError, StorageError
from diffdet.nn.data.fold_file import FoldLayout, add_meta_data, df2foldfile, fold2foldfile
from diffdet.nn.data.fold_yielder import FoldYielder


def table(n=60):
    draw = np.random.default_rng(0)
    made = {name: draw.normal(size=n) for name in ("met", "j0_pt", "j0_eta", "j1_pt")}
    made["j1_pt"][::3] = np.nan
    made |= {"channel": draw.integers(0, 3, n), "target": draw.integers(0, 2, n), "weight": draw.uniform(1, 2, n)}
    return made | {"event": np.arange(n)}


@pytest.fixture
def written(tmp_path):
    made = table()
    path = df2foldfile(
        *(made, 5, ["met", "j0_pt", "j0_eta", "j1_pt"], ["channel"], "target", tmp_path / "folds", "int"),
        strat_key="target",
        misc_feats=["event"],
        wgt_feat="weight",
        cat_maps={"channel": {0: "ee", 1: "mm", 2: "em"}},
        matrix_vecs=["j0", "j1"],
        matrix_feats_per_vec=["pt", "eta"],
    )
    return path, made


def test_a_table_comes_back_from_its_file(written):
    path, made = written
    assert path.name == "folds.hdf5"
    with FoldYielder(path) as fy:
        assert len(fy) == 5
        assert (fy.cont_feats, fy.cat_feats) == (["met"], ["channel"])
        assert fy.cat_maps == {"channel": {0: "ee", 1: "mm", 2: "em"}}
        assert (fy.targ_feats, fy.wgt_feat) == (["target"], "weight")
        assert fy.matrix_feats["missing"] == [3]
        for k, fold in enumerate(fy):
            rows = fy.get_column("event", fold_idx=k)
            flat, matrix = fold["inputs"]
            assert np.allclose(flat[:, 0], made["met"][rows])
            assert np.array_equal(fold["targets"][:, 0], made["target"][rows])
            assert np.allclose(fold["weights"][:, 0], made["weight"][rows])
            assert np.allclose(matrix[:, 0, 1], made["j0_eta"][rows])
            assert np.array_equal(fold["mask"][:, 1], ~np.isnan(made["j1_pt"][rows]))
        assert sorted(fy.get_column("event")) == list(range(60))


def test_matrices_hold_zero_where_the_file_holds_nan(written):
    """A file without a mask, as the original writes it: NaN would make the output of every network NaN."""
    path, _ = written
    with h5py.File(path, "r+") as file:
        for k in range(5):
            del file[f"fold_{k}/matrix_mask"]
    with FoldYielder(path) as fy:
        assert np.isnan(fy.get_matrix()).any()
        assert np.isfinite(fy[0]["inputs"][1]).all()
        assert "mask" not in fy[0]
    with FoldYielder(path, mask_from_nan=True) as fy:
        assert 0 < fy[0]["mask"][:, 1].sum() < fy.fold_size(0)


def test_files_are_opened_read_only_and_predictions_kept_in_memory(written):
    path, _ = written
    before = path.read_bytes()
    path.chmod(0o444)
    with FoldYielder(path) as fy:
        for k in range(5):
            fy.save_fold_pred(np.full(fy.fold_size(k), k), k)
        assert fy.get_table()["pred"].sum() == sum(k * fy.fold_size(k) for k in range(5))
    assert path.read_bytes() == before


def test_predictions_are_written_if_asked(written):
    path, _ = written
    with FoldYielder(path, mode="r+") as fy:
        for _ in range(2):
            for k in range(5):
                fy.save_fold_pred(np.full(fy.fold_size(k), k), k)
    with FoldYielder(path) as fy:
        assert len(np.asarray(fy.get_column("pred"))) == 60


def test_a_file_without_meta_data_can_be_read(tmp_path):
    with h5py.File(tmp_path / "plain.hdf5", "w") as file:
        file.create_group("fold_0").create_dataset("inputs", data=np.zeros((4, 3)))
    with FoldYielder(tmp_path / "plain.hdf5", cat_feats=["c"]) as fy:
        assert fy.cont_feats == ["x0", "x1"]
        assert fy[0]["targets"] is None
    with pytest.raises(InputError, match="must name the 3 flat columns"):
        FoldYielder(tmp_path / "plain.hdf5", cont_feats=["a"])


def test_every_feature_of_the_matrix_leaves_the_flat_inputs():
    """Also where the matrix holds one of them only."""
    layout = FoldLayout(["met", "j0_pt"], matrix_vecs=["j0"], matrix_feats_per_vec=["pt", "phi"])
    assert layout.flat_feats == ["met"]
    assert layout.arrays(table())["inputs"].shape == (60, 1)


def test_one_fold_and_meta_data_can_be_added_to_open_files(tmp_path):
    layout = FoldLayout(["met"], ["channel"], "target", "int")
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for k in range(2):
            fold2foldfile(table(10), file, k, layout)
        with pytest.raises(InputError, match="`fold_idx` must be a fold that is not"):
            fold2foldfile(table(10), file, 1, layout)
    assert FoldYielder(tmp_path / "a.hdf5").cont_feats == ["x0", "x1"]
    add_meta_data(tmp_path / "a.hdf5", layout)
    assert FoldYielder(tmp_path / "a.hdf5").cont_feats == ["met"]


def test_a_table_of_pandas_does(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(table())
    path = df2foldfile(frame, 3, ["met"], [], ["target"], tmp_path / "f.h5", "int", append=[("id2", np.ones((60, 2)))])
    with FoldYielder(path) as fy:
        assert list(fy.get_df(inc_inputs=True).columns) == ["met", "gen_target"]
        assert np.asarray(fy.get_column("id2")).shape == (60, 2)


def test_matrices_can_be_given_as_arrays(tmp_path):
    tensor = np.random.default_rng(0).normal(size=(60, 3, 4))
    tensor[::2, 2] = np.nan
    path = df2foldfile(
        table(), 3, ["met"], [], "target", tmp_path / "f", "int", tensor_data=tensor, misc_feats=["event"]
    )
    with FoldYielder(path) as fy:
        rows = fy.get_column("event", fold_idx=1)
        assert np.allclose(fy.get_matrix(1), tensor[rows], equal_nan=True)
        assert np.array_equal(fy[1]["mask"][:, 2], rows % 2 == 1)
        assert fy.matrix_feats["shape"] == [3, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cont_feats": ["mett"]}, r"`cont_feats` must be among .*; got 'mett'\. Did you mean 'met'"),
        ({"cat_feats": ["met"]}, "category `met` must consist of whole numbers"),
        ({"df": table() | {"channel": np.full(60, np.nan)}}, "category `channel` .* the first is sample 0: nan"),
        ({"df": table() | {"met": np.array(["a"] * 60)}}, "column `met` must consist of numbers; got values such as"),
        ({"df": table() | {"met": np.zeros(3)}}, "column `met` must have one value for each of the 60"),
        ({"df": table() | {"target": np.full(60, np.nan)}}, "`targ_feats` must be finite"),
        ({"df": table() | {"weight": np.full(60, np.inf)}}, "`wgt_feat` must be finite; 60 of 60"),
        ({"targ_type": "double"}, "`targ_type` must be one of 'int', 'float'"),
        ({"strat_key": "targ"}, "`strat_key` must be among"),
        ({"matrix_vecs": ["j0"]}, "must be given together"),
        ({"matrix_vecs": ["e0"], "matrix_feats_per_vec": ["pt"]}, "no column 'e0_pt'"),
        ({"cat_maps": {"chanel": {0: "a"}}}, "Did you mean 'channel'"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(tmp_path, change, message):
    given = {
        "df": table(),
        "n_folds": 3,
        "cont_feats": ["met"],
        "cat_feats": ["channel"],
        "targ_feats": "target",
        "savename": tmp_path / "f.hdf5",
        "targ_type": "int",
        "wgt_feat": "weight",
    }
    with pytest.raises(InputError, match=message):
        df2foldfile(**(given | change))
    assert not list(tmp_path.iterdir())


def test_what_is_no_fold_file_is_told(tmp_path, written):
    path, _ = written
    with pytest.raises(StorageError, match="there is no such file"):
        FoldYielder(tmp_path / "none.hdf5")
    with pytest.raises(StorageError, match="folder"):
        FoldYielder(tmp_path)
    (tmp_path / "text").write_text("no HDF5")
    with pytest.raises(FileDamagedError, match="cannot be read as HDF5"):
        FoldYielder(tmp_path / "text")
    (tmp_path / "cut").write_bytes(path.read_bytes()[:4000])
    with pytest.raises(FileDamagedError, match="damaged or truncated"):
        FoldYielder(tmp_path / "cut")


def test_damaged_content_is_told(written, tmp_path):
    path, _ = written

    def changed(change):
        copy = tmp_path / "copy.hdf5"
        copy.write_bytes(path.read_bytes())
        with h5py.File(copy, "r+") as file:
            change(file)
        return copy

    def drop(name):
        return lambda file: file.__delitem__(name)

    def link(file):
        del file["fold_0/inputs"]
        file["fold_0/inputs"] = h5py.ExternalLink("/etc/passwd", "/x")

    def bomb(file):
        del file["fold_0/inputs"]
        file.create_dataset("fold_0/inputs", shape=(10**9, 2), chunks=(1000, 2), dtype="f4")

    def meta(name, text):
        def change(file):
            del file[f"meta_data/{name}"]
            file[f"meta_data/{name}"] = text

        return change

    for change, message in (
        (drop("fold_2"), r"without a gap; it has \[0, 1, 3, 4\]"),
        (lambda file: [file.__delitem__(f"fold_{k}") for k in range(5)], "has no group `fold_0`"),
        (link, "is a link, which is not followed"),
        (bomb, "never written"),
        (meta("cont_feats", "['met'"), "`meta_data/cont_feats` must be JSON"),
    ):
        with pytest.raises(FileDamagedError, match=message):
            FoldYielder(changed(change))[0]
    with pytest.raises(NotSupportedError, match="sparse"):
        FoldYielder(changed(meta("matrix_feats", json.dumps({"is_sparse": True}))))


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = df2foldfile(table(), 3, ["met"], [], "target", tmp_path / "f.hdf5", "int")
    before = path.read_bytes()
    from diffdet.nn.data import fold_file

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fold_file, "_append", full)
    with pytest.raises(StorageError, match="No space left"):
        df2foldfile(table(), 3, ["met"], [], "target", path, "int")
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["f.hdf5"]
