"""Column maps: foreign names, units, constants, labels, heights; and one clear error for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffdet.core.errors import InputError
from diffdet.tomography.io import ColumnMap, HitsReader
from diffdet.tomography.io.columns import parse_quantity
from hits_tables import as_text, make_rows, read_rows, write_foreign

MAP = """
event: evt
plane: layer
position: {column: side, values: {0: above, 1: below}}
x: X [mm]
y: {column: Y, unit: cm}
z: Z [um]
x_unc: 0.1 mm
y_unc: {value: 50, unit: um}
momentum: P [MeV]
momentum_unc: {value: 20 MeV}
time: T [ns]
"""


def foreign(rows: dict[str, Any]) -> dict[str, Any]:
    return {
        "evt": rows["event"],
        "layer": rows["plane"].astype(np.int16),
        "side": rows["position"],
        "X": rows["x"] * 1e3,
        "Y": (rows["y"] * 1e2).astype(np.float32),
        "Z": rows["z"] * 1e6,
        "P": rows["momentum"] * 1e3,
        "T": rows["time"] * 1e9,
        "unrelated": rows["x"],
    }


def test_foreign_table_is_read_in_our_units(rows: dict[str, Any], suffix: str, tmp_path: Path) -> None:
    path = write_foreign(tmp_path / f"hits{suffix}", foreign(rows), table="data")
    (tmp_path / "map.yaml").write_text(MAP + ("table: data\n" if suffix in (".h5", ".root") else ""))
    ours = read_rows(path, columns=tmp_path / "map.yaml")
    for name in ("event", "plane", "position"):
        np.testing.assert_array_equal(ours[name], rows[name])
    for name in ("x", "y", "z", "momentum", "time"):
        np.testing.assert_allclose(ours[name], rows[name], rtol=1e-6, atol=1e-9)
    for name, constant in {"x_unc": 1e-4, "y_unc": 50e-6, "momentum_unc": 0.02}.items():
        np.testing.assert_allclose(ours[name], constant, rtol=1e-15)
    assert "true_x" not in ours


def test_unnamed_columns_are_looked_up_under_our_names(rows: dict[str, Any], tmp_path: Path) -> None:
    columns = as_text(rows)
    columns["pos_x"] = columns.pop("x") * 1e3
    path = write_foreign(tmp_path / "hits.npz", columns)
    np.testing.assert_allclose(read_rows(path, columns={"x": "pos_x [mm]"})["x"], rows["x"])


def test_planes_and_sides_are_derived_from_heights(rows: dict[str, Any], suffix: str, tmp_path: Path) -> None:
    bare = {name: values for name, values in rows.items() if name not in ("plane", "position")}
    path = write_foreign(tmp_path / f"hits{suffix}", bare)
    with pytest.raises(InputError, match=r"no column `position`.*position: \{split: HEIGHT\}"):
        HitsReader(path)
    for options in ({"split_z": 1.65}, {"columns": {"position": {"split": "165 cm"}}}):
        with HitsReader(path, **options) as reader:
            table = next(reader.chunks())
        again = table.to_rows()
        np.testing.assert_array_equal(again["position"], rows["position"])
        np.testing.assert_array_equal(again["x"], rows["x"])
        # planes count the hits of the event from the top
        first = rows["event"] == rows["event"][0]
        assert again["plane"][: first.sum()].tolist() == list(range(first.sum()))


def test_heights_by_plane_number(rows: dict[str, Any], tmp_path: Path) -> None:
    heights = [2.0 - 0.1 * plane for plane in range(8)]
    columns = {name: values for name, values in as_text(rows).items() if name != "z"}
    path = write_foreign(tmp_path / "hits.npz", columns)
    for planes in (heights, {plane: f"{z * 100} cm" for plane, z in enumerate(heights)}):
        np.testing.assert_allclose(read_rows(path, columns={"z": {"planes": planes}})["z"], rows["z"])
    with pytest.raises(
        InputError, match=r"column `plane` must hold one of the planes 0, 1, 2 of the column map; got 3"
    ):
        read_rows(path, columns={"z": {"planes": [2.0, 1.9, 1.8]}})
    del columns["plane"]
    with pytest.raises(InputError, match="no column `plane`, by which `columns` gives the heights"):
        HitsReader(write_foreign(tmp_path / "none.npz", columns), {"z": {"planes": heights}})


def test_labels_of_any_type(rows: dict[str, Any], suffix: str, tmp_path: Path) -> None:
    for labels in (np.array(["UP", "DOWN"]), np.array([5, -3])):
        columns = {**rows, "position": labels[rows["position"]]}
        path = write_foreign(tmp_path / f"hits{suffix}", columns)
        mapping = {"position": {"column": "position", "values": {labels[0].item(): "above", labels[1].item(): "below"}}}
        np.testing.assert_array_equal(read_rows(path, columns=mapping)["position"], rows["position"])
    with pytest.raises(InputError, match=r"column `position` must hold '5' or '6'; got '?-3'?"):
        read_rows(path, columns={"position": {"column": "position", "values": {5: "above", 6: "below"}}})


WRONG = {
    "unknown column": ({"momentun": "p"}, r"`momentun` is no column of a hits table; .*Did you mean 'momentum'\?"),
    "wrong unit": ({"x": "X [MeV]"}, r"unit of column map `columns`: `x` must be a length: m, cm, mm, .*; got 'MeV'"),
    "misspelt unit": (
        {"momentum": {"column": "p", "unit": "Gev"}},
        r"must be a momentum.*got 'Gev'. Did you mean 'GeV'\?",
    ),
    "unit of a number": ({"event": "evt [mm]"}, r"`event` has no unit; got 'mm'"),
    "constant event": ({"event": 3}, r"`event` must be the name of their column; got the constant 3"),
    "zero constant": ({"x_unc": 0}, r"`x_unc` must be greater than 0; got 0"),
    "infinite constant": ({"x_unc": float("inf")}, r"`x_unc` must be finite; got inf"),
    "broken plane": ({"plane": 1.5}, r"`plane` must be a whole number; got 1.5"),
    "unknown key": ({"x": {"colum": "X"}}, r"`x` may have column, value, unit; got 'colum'. Did you mean 'column'\?"),
    "two sources": (
        {"x": {"column": "X", "value": 1}},
        r"`x` must have exactly one of column, value; got column, value",
    ),
    "no source": ({"x": {"unit": "mm"}}, r"`x` must have exactly one of column, value; got none"),
    "values of x": ({"x": {"column": "X", "values": {}}}, r"`x` may have column, value, unit; got 'values'"),
    "list": (
        {"x": ["X"]},
        r"`x` must be the name of their column, a constant with its unit, or a mapping; got \['X'\]",
    ),
    "labels": (
        {"position": {"column": "s", "values": {0: "top"}}},
        r"`values` must map their values to 'above' or 'below'",
    ),
    "planes": ({"z": {"planes": "2 m"}}, r"`planes` must list the heights of the planes"),
    "height": ({"z": {"planes": ["2 GeV"]}}, r"unit of .*height of plane 0 must be a length"),
    "text height": (
        {"z": {"planes": ["two"]}},
        r"height of plane 0 must be a number, with a unit or without; got 'two'",
    ),
    "table": ({"table": 3}, r"`table` must be the name of a TTree or HDF5 group; got 3"),
    "absent": ({"x": "X"}, r"has no column `X`, which `columns` names for `x`; it has"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_map_is_refused_before_the_file_is_read(case: str, tmp_path: Path) -> None:
    mapping, message = WRONG[case]
    path = write_foreign(tmp_path / "hits.npz", as_text(make_rows(2)))
    with pytest.raises(InputError, match=message):
        HitsReader(path, mapping)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz"])
def test_formats_with_one_table_refuse_a_table_name(suffix: str, tmp_path: Path) -> None:
    path = write_foreign(tmp_path / f"hits{suffix}", as_text(make_rows(2)))
    with pytest.raises(InputError, match=r"which holds one table only"):
        HitsReader(path, {"table": "hits"})


def test_hdf5_names_what_is_there(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "hits.h5", as_text(make_rows(2)), table="run/muons")
    with pytest.raises(InputError, match=r"group / has no `runs`; it has run"):
        HitsReader(path, {"table": "runs/muons"})
    with pytest.raises(InputError, match=r"`run/muons/x` must be an HDF5 group; /run/muons/x is a dataset"):
        HitsReader(path, {"table": "run/muons/x"})
    with HitsReader(path, {"table": "/run/muons"}) as reader:
        assert reader.n_rows is not None


def test_map_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.yaml does not exist"):
        ColumnMap.load(tmp_path / "none.yaml")
    for text, message in {
        "x: [": r"must be YAML; while parsing",
        "- x": r"must be a mapping of our columns to theirs; got list",
        "": r"must be a mapping of our columns to theirs; got NoneType",
    }.items():
        (tmp_path / "map.yaml").write_text(text)
        with pytest.raises(InputError, match=message) as caught:
            ColumnMap.load(tmp_path / "map.yaml")
        assert "map.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.1 mm", 1e-4), ("2", 2.0), ("-1e2cm", -1.0), (".5 µm", 5e-7), ("x", None), ("1 2", None), ("", None)],
)
def test_quantities(text: str, expected: float | None) -> None:
    assert parse_quantity(text, "length", "`x`") == pytest.approx(expected)
