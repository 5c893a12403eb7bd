"""Tables: lists become padded matrices with masks, whatever the file; wrong columns are named."""

from __future__ import annotations

import numpy as np
import pytest

from diffdet.core.errors import FileDamagedError, InputError, ShapeError, StorageError
from diffdet.nn.data.fold_yielder import FoldYielder
from diffdet.nn.data.tables import Lists, Objects, pad_lists, read_table, table2foldfile

N = 500


def events(n=N, seed=0):
    """Flat columns, and lists of jets and leptons."""
    draw = np.random.default_rng(seed)
    counts = draw.integers(0, 7, n)
    pt = [draw.exponential(30, k) for k in counts]
    eta = [draw.normal(0, 2, k) for k in counts]
    flat = {"met": draw.exponential(20, n), "channel": draw.integers(0, 3, n), "label": draw.integers(0, 2, n)}
    flat |= {"lepton_pt": draw.exponential(30, n), "lepton_eta": draw.normal(0, 1, n), "event": np.arange(n)}
    return flat, pt, eta


def slow_twin(pt, eta, n_max):
    """Padded by one loop, sorted by pt."""
    matrix, mask = np.zeros((len(pt), n_max, 2)), np.zeros((len(pt), n_max), dtype=bool)
    for row, (p, e) in enumerate(zip(pt, eta, strict=True)):
        for place, k in enumerate(np.argsort(-p, kind="stable")[:n_max]):
            matrix[row, place], mask[row, place] = (p[k], e[k]), True
    return matrix, mask


def ragged(rows):
    column = np.empty(len(rows), dtype=object)
    column[:] = rows
    return column


@pytest.fixture(params=["root", "parquet", "arrays", "pandas"])
def source(request, tmp_path):
    flat, pt, eta = events()
    if request.param == "root":
        uproot, ak = pytest.importorskip("uproot"), pytest.importorskip("awkward")
        with uproot.recreate(tmp_path / "events.root") as file:
            file["Events"] = flat | {"Jet_pt": ak.Array(pt), "Jet_eta": ak.Array(eta)}
        return tmp_path / "events.root"
    if request.param == "parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        lists = {name: pa.array([list(row) for row in rows]) for name, rows in (("Jet_pt", pt), ("Jet_eta", eta))}
        pq.write_table(pa.table(flat | lists), tmp_path / "events.parquet", row_group_size=130)
        return tmp_path / "events.parquet"
    lists = {"Jet_pt": ragged(pt), "Jet_eta": ragged(eta)}
    if request.param == "arrays":
        return flat | lists
    return pytest.importorskip("pandas").DataFrame(flat | lists)


JETS = Objects("jet", 4, {"pt": "Jet_pt", "eta": "Jet_eta"}, sort_by="pt", constants={"is_lepton": 0})
LEPTON = Objects("lepton", 1, {"pt": "lepton_pt", "eta": "lepton_eta"}, constants={"is_lepton": 1})


def test_lists_become_a_padded_matrix_with_its_mask(source):
    flat, pt, eta = events()
    table = read_table(source, {"missing": "met", "label": "label"}, [LEPTON, JETS])
    assert np.allclose(table.columns["missing"], flat["met"])
    matrix, mask = slow_twin(pt, eta, 4)
    assert np.allclose(table.matrix[:, 1:, :2], matrix, rtol=1e-6)
    assert np.array_equal(table.mask[:, 1:], mask)
    assert table.mask[:, 0].all()
    assert (table.matrix[:, 0, 2] == 1).all()
    assert list(table.vecs) == ["lepton0", "jet0", "jet1", "jet2", "jet3"]
    few = read_table(source, ["met"], [JETS], max_rows=10)
    assert len(few.columns["met"]) == len(few.matrix) == 10


def test_a_table_becomes_folds(source):
    flat, _, _ = events()
    table = read_table(source, ["met", "channel", "label", "event"], [JETS])
    fy = table.fold_yielder(["met"], ["channel"], "label", n_folds=5, seed=1, misc_feats=["event"])
    fold = fy[2]
    rows = fy.get_column("event", fold_idx=2)
    assert np.allclose(fold["inputs"][0][:, 0], flat["met"][rows])
    assert np.array_equal(fold["targets"][:, 0], flat["label"][rows])
    assert fold["mask"].shape == (fy.fold_size(2), 4)


def test_a_table_becomes_a_fold_file_piece_by_piece(source, tmp_path):
    flat, pt, eta = events()
    path = table2foldfile(
        *(source, tmp_path / "folds", 5, {"missing": "met"}, ["channel"], "label", "int"),
        objects=[JETS],
        misc_feats=["event"],
        strat_key="label",
        n_rows=64,
    )
    matrix, mask = slow_twin(pt, eta, 4)
    with FoldYielder(path) as fy:
        assert fy.cont_feats == ["missing"]
        assert fy.matrix_feats["feats_per_vec"] == ["pt", "eta", "is_lepton"]
        assert sorted(fy.get_column("event")) == list(range(N))
        for k, fold in enumerate(fy):
            rows = fy.get_column("event", fold_idx=k)
            assert np.allclose(fold["inputs"][0][:, 0], flat["met"][rows])
            assert np.allclose(fold["inputs"][1][:, :, :2], matrix[rows], rtol=1e-6)
            assert np.array_equal(fold["mask"], mask[rows])
    one_piece = table2foldfile(
        source, tmp_path / "whole", 5, {"missing": "met"}, misc_feats=["event"], strat_key="label"
    )
    with FoldYielder(one_piece) as fy, FoldYielder(path) as other:
        assert np.array_equal(fy.get_column("event", fold_idx=3), other.get_column("event", fold_idx=3))


@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_flat_files_can_be_read(tmp_path, kind):
    flat, _, _ = events()
    path = tmp_path / f"events.{kind}"
    if kind == "npz":
        np.savez(path, **flat)
    else:
        rows = zip(*[[repr(v) for v in column.tolist()] for column in flat.values()], strict=True)
        path.write_text("\n".join([", ".join(flat), *(",".join(row) for row in rows)]) + "\n")
    table = read_table(path, list(flat))
    for name, column in flat.items():
        assert np.allclose(table.columns[name], column)


def test_longer_lists_lose_their_end():
    lists = Lists(np.array([3, 0, 1]), np.array([1.0, 2, 3, 4]))
    matrix, mask = pad_lists({"x": lists}, 2)
    assert matrix[:, :, 0].tolist() == [[1, 2], [0, 0], [4, 0]]
    assert mask.tolist() == [[True, True], [False, False], [True, False]]


def test_columns_that_do_not_fit_are_named(source):
    with pytest.raises(InputError, match=r"no column 'metr'.*Did you mean 'met'"):
        read_table(source, ["metr"])
    with pytest.raises(InputError, match="'Jet_pt' must have one number in each row"):
        read_table(source, ["Jet_pt"])
    with pytest.raises(InputError, match="must all have the features"):
        read_table(source, (), [JETS, Objects("lepton", 1, {"pt": "lepton_pt"})])
    with pytest.raises(InputError, match="`columns` must name what to read"):
        read_table(source)
    with pytest.raises(InputError, match=r"\['jet0', 'jet1', 'jet2', 'jet3'\] are there more than once"):
        read_table(source, (), [JETS, JETS])


def test_bad_objects_are_refused():
    with pytest.raises(InputError, match="`sort_by` must be one of"):
        Objects("j", 2, {"pt": "Jet_pt"}, sort_by="eta")
    with pytest.raises(InputError, match="`n_max`"):
        Objects("j", 0, {"pt": "Jet_pt"})
    lists = {"pt": Lists(np.array([1, 2]), np.zeros(3)), "eta": Lists(np.array([1, 1]), np.zeros(2))}
    with pytest.raises(ShapeError, match="in row 1, `pt` has 2 entries and `eta` has 1"):
        pad_lists(lists, 2)


def test_files_that_cannot_be_read_are_told(tmp_path):
    with pytest.raises(StorageError, match="there is no such file"):
        read_table(tmp_path / "none.root", ["x"])
    with pytest.raises(InputError, match=r"must be a file that ends in \.root"):
        read_table(tmp_path / "none.txt", ["x"])
    for name in ("a.root", "a.parquet", "a.npz"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(FileDamagedError, match="foreign or damaged"):
            read_table(tmp_path / name, ["x"])
    (tmp_path / "a.csv").write_text("x,y\n1,2\n3,four\n")
    with pytest.raises(InputError, match="row 3, column 'y': expected a number, got 'four'"):
        read_table(tmp_path / "a.csv", ["y"])
    (tmp_path / "a.csv").write_text("x,y\n1,2\n3\n")
    with pytest.raises(InputError, match="row 3: expected 2 values, got 1"):
        read_table(tmp_path / "a.csv", ["x"])
    (tmp_path / "a.csv").write_text("x,y\n")
    with pytest.raises(InputError, match="must have rows"):
        read_table(tmp_path / "a.csv", ["x"])


def test_words_in_columns_are_refused():
    with pytest.raises(InputError, match="column 'channel' must consist of numbers"):
        read_table({"channel": np.array(["ee", "mm"])}, ["channel"])


def test_a_tree_must_be_named_where_there_are_several(tmp_path):
    uproot = pytest.importorskip("uproot")
    with uproot.recreate(tmp_path / "two.root") as file:
        file["Events"] = {"x": np.arange(3)}
        file["Runs"] = {"x": np.arange(2)}
    with pytest.raises(InputError, match="`tree` must be one of the trees"):
        read_table(tmp_path / "two.root", ["x"])
    assert len(read_table(tmp_path / "two.root", ["x"], tree="Events").columns["x"]) == 3
    with pytest.raises(InputError, match="Did you mean 'Events'"):
        read_table(tmp_path / "two.root", ["x"], tree="Event")
