"""What is written is what is read, in every format, whatever the pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffdet.core.errors import InputError
from diffdet.tomography.io import ALL_COLUMNS, BASE_COLUMNS, HitsReader, HitsWriter, HitTable
from diffdet.tomography.io.formats import base
from hits_tables import assert_same_rows, make_rows, read_rows, write_hits


def assert_same_tables(first: HitTable, second: HitTable) -> None:
    for name in first.__dataclass_fields__:
        one, other = getattr(first, name), getattr(second, name)
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, other), name
        else:
            assert one == other, name


def test_every_format_gives_back_the_same_bits(rows: dict[str, Any], suffix: str, tmp_path: Path) -> None:
    path = write_hits(tmp_path / f"hits{suffix}", rows)
    again = read_rows(path)
    assert tuple(again) == ALL_COLUMNS
    assert_same_rows(again, rows)


def test_optional_columns_are_optional(rows: dict[str, Any], suffix: str, tmp_path: Path) -> None:
    path = write_hits(tmp_path / f"hits{suffix}", {name: rows[name] for name in BASE_COLUMNS})
    assert tuple(read_rows(path)) == BASE_COLUMNS


def test_types_in_the_file_are_those_of_the_contract(rows: dict[str, Any], suffix: str, tmp_path: Path) -> None:
    again = read_rows(write_hits(tmp_path / f"hits{suffix}", rows))
    assert again["event"].dtype == np.int64
    assert again["plane"].dtype == np.int32
    assert all(again[name].dtype == np.float64 for name in ALL_COLUMNS[3:])


@pytest.mark.parametrize("piece", [1, 7, 64, 10_000])
def test_pieces_of_writing_do_not_matter(
    piece: int, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # small pieces, so that a small table has many of them
    monkeypatch.setattr("diffdet.tomography.io.writer.PIECE_ROWS", 32)
    monkeypatch.setattr("diffdet.tomography.io.formats.hdf5.PIECE_ROWS", 32)
    rows = make_rows(30)
    assert_same_rows(read_rows(write_hits(tmp_path / f"hits{suffix}", rows, piece)), rows)


@pytest.mark.parametrize("n_rows", [1, 5, 64])
def test_pieces_of_reading_do_not_matter(n_rows: int, suffix: str, tmp_path: Path) -> None:
    rows = make_rows(30)
    assert_same_rows(read_rows(write_hits(tmp_path / f"hits{suffix}", rows), n_rows), rows)


@pytest.mark.parametrize("n_rows", [3, 8, 50, base.PIECE_ROWS])
def test_chunks_do_not_depend_on_how_rows_arrive(
    n_rows: int, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(40)
    path = write_hits(tmp_path / f"hits{suffix}", rows)
    with HitsReader(path) as reader:
        expected = list(reader.chunks(9))
        real = reader.rows
        monkeypatch.setattr(reader, "rows", lambda _: real(n_rows))
        chunks = list(reader.chunks(9))
    assert [len(chunk) for chunk in chunks] == [9, 9, 9, 9, 4]
    for chunk, other in zip(chunks, expected, strict=True):
        assert_same_tables(chunk, other)


@pytest.mark.parametrize("n_events", [1, 7, 1000])
def test_chunk_size_does_not_change_the_events(n_events: int, suffix: str, tmp_path: Path) -> None:
    rows = make_rows(25)
    with HitsReader(write_hits(tmp_path / f"hits{suffix}", rows)) as reader:
        pieces = [chunk.to_rows() for chunk in reader.chunks(n_events)]
    assert_same_rows({name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}, rows)


def test_empty_table(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"empty{suffix}"
    with HitsWriter(path):
        pass
    with HitsReader(path) as reader:
        assert reader.columns == BASE_COLUMNS
        assert sum(len(chunk) for chunk in reader.chunks()) == 0


def test_same_table_gives_the_same_archive(rows: dict[str, Any], tmp_path: Path) -> None:
    assert write_hits(tmp_path / "a.npz", rows).read_bytes() == write_hits(tmp_path / "b.npz", rows, 13).read_bytes()


def test_other_libraries_read_our_files(rows: dict[str, Any], suffix: str, tmp_path: Path) -> None:
    path = write_hits(tmp_path / f"hits{suffix}", rows)
    match suffix:
        case ".parquet":
            import pyarrow.parquet as pq

            table = pq.read_table(path)
            x, position = table["x"].to_numpy(), table["position"].to_pylist()
        case ".h5":
            import h5py

            with h5py.File(path) as file:
                x, position = file["hits/x"][:], file["hits/position"].asstr()[:].tolist()
                assert all(file["hits"][name].fletcher32 for name in file["hits"])
        case ".root":
            import uproot

            with uproot.open(path) as file:
                x, position = file["hits"]["x"].array(library="np"), file["hits"]["position"].array().to_list()
        case ".csv":
            text = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8")
            x, position = text["x"], text["position"].tolist()
        case _:
            with np.load(path, allow_pickle=False) as archive:
                x, position = archive["x"], archive["position"].tolist()
    np.testing.assert_array_equal(x, rows["x"])
    assert position == ["above" if side == 0 else "below" for side in rows["position"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.nan}, r"row 0 .*`x` must be finite; got nan"),
        ({"x_unc": 0.0}, r"`x_unc` must be finite and greater than 0; got 0\.0"),
        ({"position": "beside"}, r"`position` must be 'above' or 'below'; got 'beside'"),
        ({"y": None}, "`y` is missing"),
    ],
)
def test_writer_refuses_what_no_reader_would_accept(
    change: dict[str, Any], message: str, rows: dict[str, Any], tmp_path: Path
) -> None:
    for name, value in change.items():
        rows[name] = np.full(len(rows["event"]), value)
        if value is None:
            del rows[name]
    with pytest.raises(InputError, match=message):
        write_hits(tmp_path / "hits.csv", rows)
    assert not list(tmp_path.iterdir())


def test_writer_refuses_unknown_columns(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Did you mean 'momentum'"):
        HitsWriter(tmp_path / "hits.csv", optional=["momentun"])


def test_table_pads_and_masks() -> None:
    rows = {
        "event": np.array([4, 4, 4, 9, 9]),
        "plane": np.array([0, 1, 2, 1, 3], np.int32),
        "position": np.array([0, 0, 1, 0, 1], np.uint8),
        "x": np.arange(5.0),
        "y": np.arange(5.0) + 10,
        "z": np.array([2.0, 1.9, 0.1, 1.9, 0.0]),
        "x_unc": np.full(5, 1e-3),
        "y_unc": np.full(5, 2e-3),
        "momentum": np.array([5.0, 4.0, 3.0, 2.0, 1.0]),
    }
    table = HitTable.from_rows(rows)
    assert table.events.tolist() == [4, 9]
    assert table.x.shape == (2, 2, 2)
    assert table.mask.tolist() == [[[True, True], [True, False]], [[True, True], [False, False]]]
    assert table.x[:, :, 0].tolist() == [[0.0, 1.0], [2.0, 0.0]]
    assert table.plane[:, :, 1].tolist() == [[1, -1], [3, -1]]
    assert table.x_unc[1, 1].tolist() == [1.0, 1.0]
    # the momentum before the volume, not what is left behind it
    assert table.momentum is not None
    assert table.momentum.tolist() == [5.0, 2.0]


def test_events_that_cannot_be_arranged_are_dropped_and_counted() -> None:
    rows = make_rows(6, missing=0.0)
    rows["plane"] = rows["plane"].copy()
    rows["plane"][9] = rows["plane"][8]  # event 1: two hits in one plane
    crowd = {name: np.repeat(values[16:17], 70) for name, values in rows.items()}
    crowd["plane"] = np.arange(70, dtype=np.int32)
    rows = {name: np.concatenate([values[:16], crowd[name], values[24:]]) for name, values in rows.items()}
    table = HitTable.from_rows(rows)
    assert table.events.tolist() == [7, 16, 19, 22]
    assert table.dropped == {"two hits in one plane": 1, "more than 64 hits on one side": 1}
    assert table.n_events == 6
    assert table.x.shape[1] == 4


def test_rntuples_are_read(rows: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("uproot")
    import awkward as ak
    import uproot

    position = ak.Array(np.array(["above", "below"])[rows["position"]])
    with uproot.recreate(tmp_path / "hits.root") as file:
        file.mkrntuple("hits", {**rows, "position": position})
    assert_same_rows(read_rows(tmp_path / "hits.root", 17), rows)
