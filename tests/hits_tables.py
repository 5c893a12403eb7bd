"""Tables of hits for tests: made up, written by our writer, or written as somebody else would."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffdet.tomography.io import OPTIONAL_COLUMNS, HitsReader, HitsWriter

SUFFIXES = (".parquet", ".h5", ".root", ".csv", ".npz")


def make_rows(n_events: int, *, planes: int = 8, seed: int = 1, missing: float = 0.2) -> dict[str, Any]:
    """Hits of muons through planes above and below, some of them missing, with every optional column."""
    rng = np.random.default_rng(seed)
    keep = rng.random(n_events * planes) >= missing
    keep[::planes] = True  # no event without any row: it could not be read back
    event = np.repeat(np.arange(n_events) * 3 + 7, planes)[keep]
    plane = np.tile(np.arange(planes), n_events)[keep].astype(np.int32)
    n = len(event)
    rows = {
        "event": event,
        "plane": plane,
        "position": (plane >= planes // 2).astype(np.uint8),
        "x": rng.normal(size=n),
        "y": rng.normal(size=n),
        "z": 2.0 - 0.1 * plane,
        "x_unc": rng.uniform(1e-4, 2e-4, n),
        "y_unc": rng.uniform(1e-4, 2e-4, n),
        "momentum": np.repeat(rng.uniform(1, 10, n_events), planes)[keep],
        "momentum_unc": np.repeat(rng.uniform(0, 1, n_events), planes)[keep],
        "time": np.repeat(np.arange(n_events) * 1e-3, planes)[keep],
    }
    rows["true_x"], rows["true_y"] = rows["x"] + 1e-5, rows["y"] - 1e-5
    return rows


def write_hits(path: Path, rows: Mapping[str, Any], piece: int | None = None) -> Path:
    """Write a table of ours, `piece` rows at a time, and give its path."""
    length = len(rows["event"])
    with HitsWriter(path, optional=[column for column in OPTIONAL_COLUMNS if column in rows]) as writer:
        for start in range(0, length, piece or length):
            writer.write({column: values[start : start + (piece or length)] for column, values in rows.items()})
    return path


def read_rows(path: Path, n_rows: int = 1 << 20, **options: Any) -> dict[str, Any]:
    """All rows of a table."""
    with HitsReader(path, **options) as reader:
        pieces = list(reader.rows(n_rows))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]} if pieces else {}


def assert_same_rows(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Equal columns, bit for bit."""
    assert set(first) == set(second)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


def is_missing(suffix: str) -> bool:
    """Whether the library of a format is not installed."""
    needs = {".parquet": "pyarrow", ".root": "uproot"}.get(suffix)
    return needs is not None and importlib.util.find_spec(needs) is None


def write_foreign(path: Path, columns: Mapping[str, Any], table: str = "hits") -> Path:
    """Write columns as somebody else would: under any name and of any type, without our writer."""
    match path.suffix:
        case ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.table({name: pa.array(list(values)) for name, values in columns.items()}), path)
        case ".h5":
            import h5py

            with h5py.File(path, "w") as file:
                for name, values in columns.items():
                    array = np.asarray(values)
                    file[f"{table}/{name}"] = array.astype("S16") if array.dtype.kind == "U" else array
        case ".root":
            import awkward as ak
            import uproot

            with uproot.recreate(path) as file:
                arrays = {
                    name: ak.Array(list(values)) if np.asarray(values).dtype.kind == "U" else np.asarray(values)
                    for name, values in columns.items()
                }
                file.mktree(
                    table,
                    {
                        name: str if array.ndim and isinstance(array, ak.Array) else array.dtype
                        for name, array in arrays.items()
                    },
                )
                file[table].extend(arrays)
        case ".csv":
            lines = [",".join(columns)]
            lines += [",".join(str(value) for value in row) for row in zip(*columns.values(), strict=True)]
            path.write_text("\n".join(lines) + "\n")
        case ".npz":
            np.savez(path, **{name: np.asarray(values) for name, values in columns.items()})
    return path


def as_text(rows: Mapping[str, Any]) -> dict[str, Any]:
    """The rows with `position` as text, as a file holds it."""
    return {**rows, "position": np.array(["above", "below"])[rows["position"]]}
