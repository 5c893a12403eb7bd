"""Tables in ROOT TTrees, through uproot; baskets are compressed, and zlib verifies its checksum when they are read.

RNTuples are read, too.
"""

# ruff: noqa: ARG002, D102  # overrides are documented on `Source` and `Sink`

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import InputError
from diffdet.core.extras import require
from diffdet.tomography.io.columns import COLUMNS
from diffdet.tomography.io.formats.base import (
    TABLE_NAME,
    Array,
    Arrays,
    Sink,
    Source,
    kind_of,
    position_text,
    reading,
)

__all__ = ["RootSink", "RootSource"]


def _uproot() -> tuple[Any, Any]:
    what = "reading and writing ROOT files"
    return require("uproot", "root", what), require("awkward", "root", what)


class RootSource(Source):
    """Scalar branches of a TTree, or fields of an RNTuple."""

    format = "ROOT"

    def __init__(self, path: Path, table: str | None) -> None:
        uproot, _ = _uproot()
        self.path = path
        with reading(path, self.format):
            self._file = uproot.open(path)
        try:
            with reading(path, self.format):
                self._open(table or TABLE_NAME)
        except BaseException:
            self._file.close()
            raise

    def _open(self, table: str) -> None:
        classes = self._file.classnames(cycle=False)
        tables = [name for name, kind in classes.items() if kind in ("TTree", "ROOT::RNTuple")]
        if table not in tables:
            found = ", ".join(f"`{name}`" for name in dict.fromkeys(tables))
            raise InputError(
                f"{self.path} has no TTree `{table}`; it has "
                + (f"{found}: name one under `table` in the column map" if found else "no TTree at all")
                + did_you_mean(table, tables)
            )
        self._tree = self._file[table]
        self._is_tree = classes[table] == "TTree"
        self.kinds = {
            name: _tree_kind(self._tree[name].interpretation)
            if self._is_tree
            else _field_kind(self._tree[name].typename)
            for name in self._tree.keys(recursive=False)
        }
        self.n_rows = int(self._tree.num_entries)

    def batches(self, names: Sequence[str], dtypes: Mapping[str, str], n_rows: int) -> Iterator[dict[str, Array]]:
        wanted = set(names)
        # A function, not the names: uproot would take those for patterns.
        chosen = {"filter_branch" if self._is_tree else "filter_field": lambda column: column.name in wanted}
        iterator = self._tree.iterate(step_size=n_rows, library="ak", how=dict, **chosen)
        while True:
            with reading(self.path, self.format):
                piece = next(iterator, None)
                if piece is None:
                    return
                batch = {name: piece[name].to_numpy(allow_missing=False) for name in names}
            yield batch

    def close(self) -> None:
        self._file.close()


_LISTS = "a list in each entry; a hits table has one entry a hit"


def _tree_kind(interpretation: Any) -> str:
    """The kind of a branch, see `Source.kinds`."""
    kind = type(interpretation).__name__
    if kind == "AsStrings":
        return "text"
    if kind == "AsDtype" and not interpretation.to_dtype.shape and interpretation.to_dtype.names is None:
        return kind_of(interpretation.to_dtype)
    return _LISTS if kind in ("AsDtype", "AsJagged") else f"objects of kind {kind}"


def _field_kind(typename: str) -> str:
    """The kind of a field of an RNTuple, see `Source.kinds`."""
    name = typename.removeprefix("std::")
    if name == "string":
        return "text"
    if name in ("float", "double"):
        return "f"
    if name == "bool" or re.fullmatch(r"u?int\d+_t", name):
        return "i"
    return _LISTS if name.startswith(("vector", "array")) else f"values of type {typename}"


class RootSink(Sink):
    """Writes a TTree, one basket a branch and piece."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        uproot, self._ak = _uproot()
        self._names = tuple(names)
        self._file = uproot.recreate(path, compression=uproot.ZLIB(1))
        branches = {name: str if COLUMNS[name].dtype == "text" else np.dtype(COLUMNS[name].dtype) for name in names}
        self._tree = self._file.mktree(TABLE_NAME, branches, title="diffdet hits: one entry a hit; m, GeV, s")

    def write(self, rows: Arrays) -> None:
        self._tree.extend(
            {
                name: self._ak.Array(position_text(rows[name])) if COLUMNS[name].dtype == "text" else rows[name]
                for name in self._names
            }
        )

    def close(self) -> None:
        self._file.close()

    def abort(self) -> None:
        with suppress(Exception):  # the file is about to be deleted, and the first error is the one to tell
            self._file.close()
