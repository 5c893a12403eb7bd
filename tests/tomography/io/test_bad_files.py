"""Every malformed file ends in one error of ours that names the file, the place, the value and what was expected."""

from __future__ import annotations

import builtins
import io
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffdet.core.errors import FileDamagedError, InputError, MissingExtraError, StorageError
from diffdet.tomography.io import BASE_COLUMNS, HitsReader
from hits_tables import as_text, make_rows, read_rows, write_foreign, write_hits


def base_rows(n_events: int = 4) -> dict[str, Any]:
    """Columns as a file holds them, without optional ones."""
    rows = as_text(make_rows(n_events, missing=0.0))
    return {name: rows[name] for name in BASE_COLUMNS}


def spoilt(name: str, row: int, value: Any, dtype: Any = None) -> dict[str, Any]:
    rows = base_rows()
    rows[name] = np.array(rows[name], dtype=dtype)
    rows[name][row] = value
    return rows


VALUES = {
    "nan": (spoilt("x", 5, np.nan), r"column `x` must hold a finite number.*got nan", 5),
    "infinite": (spoilt("z", 9, -np.inf), r"column `z` must hold a finite number.*got -inf", 9),
    "zero uncertainty": (spoilt("x_unc", 2, 0.0), r"column `x_unc` must hold a number greater than 0; got 0", 2),
    "negative uncertainty": (
        spoilt("y_unc", 31, -1e-4),
        r"column `y_unc` must hold a number greater than 0; got -",
        31,
    ),
    "wrong side": (spoilt("position", 3, "abov"), r"column `position` must hold 'above' or 'below'; got 'abov'", 3),
    "event again": (spoilt("event", 30, 7), r"event 7 appears again after other events", 30),
}


@pytest.mark.parametrize("case", VALUES)
def test_bad_value_is_named_with_its_row(case: str, suffix: str, tmp_path: Path) -> None:
    columns, message, row = VALUES[case]
    path = write_foreign(tmp_path / f"hits{suffix}", columns)
    with pytest.raises(InputError, match=message) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)
    assert (f"line {row + 2}:" if suffix == ".csv" else f"row {row} (counted from 0):") in str(caught.value)


@pytest.mark.parametrize("case", VALUES)
def test_row_is_right_in_later_pieces(case: str, suffix: str, tmp_path: Path) -> None:
    columns, message, row = VALUES[case]
    path = write_foreign(tmp_path / f"hits{suffix}", columns)
    with pytest.raises(InputError, match=message) as caught:
        read_rows(path, 4)
    assert (f"line {row + 2}:" if suffix == ".csv" else f"row {row} (counted from 0):") in str(caught.value)


@pytest.mark.parametrize("name", [name for name in BASE_COLUMNS if name != "plane"])
def test_missing_column_is_named_before_anything_is_read(name: str, suffix: str, tmp_path: Path) -> None:
    columns = base_rows()
    columns[f"{name}_"] = columns.pop(name)
    path = write_foreign(tmp_path / f"hits{suffix}", columns)
    with pytest.raises(InputError, match=rf"has no column `{name}`; it has .*Did you mean '{name}_'\?"):
        HitsReader(path)


def test_missing_plane_is_derived(suffix: str, tmp_path: Path) -> None:
    columns = base_rows()
    plane = columns.pop("plane")
    with HitsReader(write_foreign(tmp_path / f"hits{suffix}", columns)) as reader:
        (table,) = reader.chunks()
    np.testing.assert_array_equal(table.to_rows()["plane"], plane)


KINDS = {
    "real event": ({"event": np.arange(32) / 2}, "column `event` must hold (a )?whole number"),
    "real plane": ({"plane": np.tile(np.arange(8.0), 4)}, "column `plane` must hold (a )?whole number"),
    "text x": ({"x": np.array(["one"] * 32)}, "column `x` must hold"),
    "numbers as position": ({"position": np.tile([0, 0, 0, 0, 1, 1, 1, 1], 4)}, "`position`"),
}


@pytest.mark.parametrize("case", KINDS)
def test_wrong_type_is_refused(case: str, suffix: str, tmp_path: Path) -> None:
    change, message = KINDS[case]
    path = write_foreign(tmp_path / f"hits{suffix}", {**base_rows(), **change})
    with pytest.raises(InputError, match=message):
        read_rows(path)


def test_numbers_too_large_for_their_type_are_refused(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "hits.npz", {**base_rows(), "plane": np.full(32, 1 << 40)})
    with pytest.raises(
        InputError, match=r"column `plane` must hold a whole number that fits into int32; got 1099511627776"
    ):
        read_rows(path)
    path = write_foreign(tmp_path / "hits.npz", {**base_rows(), "event": np.full(32, 1 << 63, dtype=np.uint64)})
    with pytest.raises(InputError, match="fits into int64; got 9223372036854775808"):
        read_rows(path)


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused(keep: float, suffix: str, tmp_path: Path) -> None:
    path = write_hits(tmp_path / f"hits{suffix}", make_rows(3000))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises((FileDamagedError, InputError)) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)


def test_truncation_of_text_at_any_byte_of_a_line_is_refused(tmp_path: Path) -> None:
    path = write_hits(tmp_path / "hits.csv", make_rows(2))
    data = path.read_bytes()
    ends = {at + 1 for at, byte in enumerate(data) if byte == ord("\n")}
    for length in range(len(data) - 150, len(data)):
        path.write_bytes(data[:length])
        if length in ends:
            continue
        with pytest.raises(FileDamagedError, match="was cut short"):
            read_rows(path)


def test_flipped_bits_are_noticed(suffix: str, tmp_path: Path) -> None:
    """Text has no checksum; every other format must refuse, or give the same numbers where the bit means nothing."""
    if suffix == ".csv":
        pytest.skip("text has no checksum: a digit that became another digit is a valid table")
    rows = make_rows(2000)
    path = write_hits(tmp_path / f"hits{suffix}", rows)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(5)
    silent = []
    for at in rng.integers(0, len(data), 120 if suffix != ".root" else 40):
        bit = 1 << int(rng.integers(8))
        data[at] ^= bit
        path.write_bytes(data)
        with suppress(FileDamagedError, InputError):
            again = read_rows(path)
            if not all(np.array_equal(again.get(name), values) for name, values in rows.items()):
                silent.append(int(at))
        data[at] ^= bit
    assert not silent


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 100, b"PAR1" + b"\x00" * 50 + b"PAR1", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"root"]
)
def test_file_of_another_kind_is_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"hits{suffix}"
    path.write_bytes(content)
    with pytest.raises((FileDamagedError, InputError)) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)


def test_missing_file_folder_and_suffix(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        HitsReader(tmp_path / f"none{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(StorageError, match="it is a folder"):
        HitsReader(tmp_path / f"folder{suffix}")
    with pytest.raises(InputError, match=r"must end in .parquet, .pq, .h5, .hdf5, .root, .csv, .npz; got '.*hits.txt'"):
        HitsReader(tmp_path / "hits.txt")
    with pytest.raises(InputError, match=r"Did you mean '.parquet'\?"):
        HitsReader(tmp_path / "hits.parqet")


def test_root_file_without_the_tree_lists_its_trees(tmp_path: Path) -> None:
    pytest.importorskip("uproot")
    import uproot

    path = write_foreign(tmp_path / "hits.root", base_rows(), table="events/muons")
    with pytest.raises(InputError, match=r"has no TTree `hits`; it has `events/muons`: name one under `table`"):
        HitsReader(path)
    with HitsReader(path, {"table": "events/muons"}) as reader:
        assert reader.n_rows == 32
    with uproot.recreate(tmp_path / "none.root"):
        pass
    with pytest.raises(InputError, match=r"has no TTree `hits`; it has no TTree at all"):
        HitsReader(tmp_path / "none.root")


@pytest.mark.parametrize("kind", ["TTree", "RNTuple"])
def test_root_branch_of_lists_is_explained(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("uproot")
    import awkward as ak
    import uproot

    columns = {name: values[:4] for name, values in base_rows().items()}
    lists = {**columns, "position": ak.Array(["above"] * 4), "x": ak.Array([[1.0], [2.0, 3.0], [], [1.0]])}
    with uproot.recreate(tmp_path / "hits.root") as file:
        if kind == "RNTuple":
            file["hits"] = lists
        else:
            types = {name: str if name == "position" else np.asarray(columns[name]).dtype for name in columns}
            file.mktree("hits", {**types, "x": "var * float64"})
            file["hits"].extend(lists)
    with pytest.raises(InputError, match="column `x` must hold numbers for `x`; it holds a list in each entry"):
        HitsReader(tmp_path / "hits.root")


def test_parquet_null_is_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = {name: pa.array(list(values)) for name, values in base_rows().items()}
    columns["y"] = pa.array([*[0.0] * 20, None, *[0.0] * 11])
    pq.write_table(pa.table(columns), tmp_path / "hits.parquet")
    with pytest.raises(InputError, match=r"column `y`, row 20 \(counted from 0\): expected a value; got null"):
        read_rows(tmp_path / "hits.parquet")


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_columns_of_different_length_are_refused(suffix: str, tmp_path: Path) -> None:
    path = write_foreign(tmp_path / f"hits{suffix}", {**base_rows(), "y": np.zeros(31)})
    with pytest.raises(InputError, match=r"columns must have one length; got .*`y` 31"):
        read_rows(path)


CSV = {
    "short line": ("7,0,above,1,2,3,1e-4\n", r"line 3: expected 8 values; got 7"),
    "no number": ("7,0,above,1,two,3,1e-4,1e-4\n", r"line 3: column `y` must hold a number; got 'two'"),
    "real plane": ("7,0.5,above,1,2,3,1e-4,1e-4\n", r"line 3: column `plane` must hold a whole number; got '0.5'"),
    "empty field": ("7,0,above,,2,3,1e-4,1e-4\n", r"line 3: column `x` must hold a number; got ''"),
    "empty line": ("\n", r"line 3: expected 8 values; got 0"),
    "not text": ("\xff\n", r"line 3: expected 8 values"),
}


@pytest.mark.parametrize("case", CSV)
def test_bad_line_is_named(case: str, tmp_path: Path) -> None:
    line, message = CSV[case]
    path = tmp_path / "hits.csv"
    path.write_text(",".join(BASE_COLUMNS) + "\n7,0,above,1,2,3,1e-4,1e-4\n" + line)
    with pytest.raises(InputError, match=message):
        read_rows(path)


def test_csv_headers(tmp_path: Path) -> None:
    path = tmp_path / "hits.csv"
    path.write_bytes(b"event,event\n")
    with pytest.raises(InputError, match="names the column `event` twice"):
        HitsReader(path)
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(FileDamagedError, match="cannot be read as CSV"):
        HitsReader(path)
    header = ";".join(BASE_COLUMNS)
    path.write_bytes(f"\ufeff# a comment\n{header}\r\n7; 0; above; 1; 2; 3; 1e-4; 1e-4\r\n".encode())
    assert read_rows(path)["x"].tolist() == [1.0]


def test_endless_event_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    rows = {name: np.repeat(values[:1], 200_000) for name, values in base_rows().items()}
    path = write_foreign(tmp_path / "hits.npz", rows)
    with HitsReader(path) as reader, pytest.raises(InputError, match="event 7 has more than 4096 hits"):
        next(reader.chunks())


class TestNothingIsExecutedOrFollowed:
    """Files made to run code, to open other files or to fill the memory (promise R10)."""

    def test_npz_objects(self, tmp_path: Path) -> None:
        path = tmp_path / "hits.npz"
        np.savez(path, **{**base_rows(), "x": np.array([_Bomb()] * 32, dtype=object)})
        with pytest.raises(InputError, match="Python objects, which are never read"):
            read_rows(path)
        assert not _Bomb.exploded

    def test_npz_header_with_code(self, tmp_path: Path) -> None:
        path = write_foreign(tmp_path / "hits.npz", base_rows())
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (__import__('os').getpid(),)}"
        self._replace(path, "x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        with pytest.raises(FileDamagedError):
            read_rows(path)

    def test_npz_that_promises_more_than_it_has(self, tmp_path: Path) -> None:
        path = write_foreign(tmp_path / "hits.npz", base_rows())
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 50,)})
        self._replace(path, "x.npy", header.getvalue())
        with pytest.raises(FileDamagedError, match="its header promises another number"):
            read_rows(path)

    @staticmethod
    def _replace(path: Path, name: str, data: bytes) -> None:
        with zipfile.ZipFile(path) as old:
            members = {info.filename: old.read(info) for info in old.infolist()}
        with zipfile.ZipFile(path, "w") as new:
            for member, content in {**members, name: data}.items():
                new.writestr(member, content)

    @pytest.mark.parametrize("kind", ["external", "soft", "virtual", "raw", "reference", "huge", "chunk"])
    def test_hdf5_that_leads_elsewhere(self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import h5py

        path = write_foreign(tmp_path / "hits.h5", base_rows())
        secret = tmp_path / "secret.h5"
        with h5py.File(secret, "w") as file:
            file["x"] = np.zeros(32)
        with h5py.File(path, "a") as file:
            group = file["hits"]
            del group["x"]
            match kind:
                case "external":
                    group["x"] = h5py.ExternalLink(secret, "x")
                case "soft":
                    group["x"] = h5py.SoftLink("/hits/y")
                case "virtual":
                    layout = h5py.VirtualLayout(shape=(32,), dtype="f8")
                    layout[:] = h5py.VirtualSource(secret, "x", shape=(32,))
                    group.create_virtual_dataset("x", layout)
                case "raw":
                    group.create_dataset("x", (32,), "f8", external=[(tmp_path / "secret.h5", 0, 256)])
                case "reference":
                    group["x"] = np.array([file.ref] * 32, dtype=h5py.ref_dtype)
                case "huge":
                    group.create_dataset("x", (1 << 50,), "f8", chunks=(1 << 20,))
                case "chunk":
                    group.create_dataset("x", (32,), "f8", chunks=(1 << 28,), maxshape=(None,))
        opened: list[str] = []
        real = builtins.open
        monkeypatch.setattr(
            builtins, "open", lambda file, *args, **kw: opened.append(str(file)) or real(file, *args, **kw)
        )
        with pytest.raises((InputError, FileDamagedError)) as caught:
            read_rows(path)
        assert "`x`" in str(caught.value)
        assert not [name for name in opened if "secret" in name]

    def test_hdf5_group_behind_a_link(self, tmp_path: Path) -> None:
        import h5py

        secret = write_foreign(tmp_path / "secret.h5", base_rows())
        with h5py.File(tmp_path / "hits.h5", "w") as file:
            file["data"] = h5py.ExternalLink(secret, "hits")
        with pytest.raises(InputError, match="it is an external link, which is not followed"):
            HitsReader(tmp_path / "hits.h5", {"table": "data"})

    def test_yaml_that_builds_objects(self, tmp_path: Path) -> None:
        path = write_foreign(tmp_path / "hits.npz", base_rows())
        (tmp_path / "map.yaml").write_text("x: !!python/object/apply:os.getcwd []\n")
        with pytest.raises(InputError, match=r"map.yaml must be YAML; could not determine a constructor"):
            HitsReader(path, tmp_path / "map.yaml")


class _Bomb:
    """Unpickling one is noticed."""

    exploded = False

    def __reduce__(self) -> Any:
        return (setattr, (_Bomb, "exploded", True))


@pytest.mark.parametrize(
    ("suffix", "module", "extra"), [(".parquet", "pyarrow", "parquet"), (".root", "uproot", "root")]
)
def test_missing_library_says_how_to_get_it(
    suffix: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in list(sys.modules):
        if name.split(".")[0] == module:
            monkeypatch.delitem(sys.modules, name)

    class Absent:
        def find_spec(self, name: str, *args: object) -> None:
            if name.split(".")[0] == module:
                raise ModuleNotFoundError(f"No module named {name!r}", name=module)

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    (tmp_path / f"hits{suffix}").write_bytes(b"any")
    line = rf'needs: pip install "diffdet\[{extra}\]"$'
    with pytest.raises(MissingExtraError, match=line):
        HitsReader(tmp_path / f"hits{suffix}")
    with pytest.raises(MissingExtraError, match=line):
        write_hits(tmp_path / f"new{suffix}", make_rows(2))
    assert [path.name for path in tmp_path.iterdir()] == [f"hits{suffix}"]
