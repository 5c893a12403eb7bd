"""Columns of files, piece by piece: ROOT trees, Parquet, CSV and NumPy archives; lists stay lists."""

from __future__ import annotations

import csv
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import FileDamagedError, InputError, StorageError
from diffdet.core.extras import require
from diffdet.nn.data._folds import Array

__all__ = ["Column", "Lists", "Source", "open_source"]


class Lists(NamedTuple):
    """A column with a list in each row.

    Attributes:
        counts: Length of each list, (row,).
        values: All entries, one list after the other.
    """

    counts: Array
    values: Array


Column = Array | Lists
"""A column of numbers, or of lists of numbers."""


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (InputError, StorageError, ImportError):
        raise
    except FileNotFoundError as error:
        raise StorageError(f"cannot read `{path}`: there is no such file; check the path") from error
    except Exception as error:
        raise FileDamagedError(f"`{path}` cannot be read as {what}: foreign or damaged ({error})") from error


class Source(ABC):
    """A table in a file."""

    what = "a table"

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def names(self) -> list[str]:
        """Names of the columns."""

    @abstractmethod
    def _pieces(self, names: Sequence[str], n_rows: int) -> Iterator[dict[str, Column]]:
        """Some columns, piece by piece."""

    def pieces(self, names: Sequence[str], n_rows: int) -> Iterator[dict[str, Column]]:
        """Some columns, piece by piece.

        Args:
            names: Which.
            n_rows: About how many rows to a piece.

        Raises:
            InputError: If there is no such column, or it does not consist of numbers.
            FileDamagedError: If the file cannot be read.
        """
        known = self.names()
        for name in names:
            if name not in known:
                shown = ", ".join(map(repr, known[:20])) + (", ..." if len(known) > 20 else "")
                raise InputError(f"`{self.path}` has no column {name!r}; it has {shown}{did_you_mean(name, known)}")
        iterator = self._pieces(list(dict.fromkeys(names)), n_rows)
        while True:
            with _reading(self.path, self.what):
                piece = next(iterator, None)
            if piece is None:
                return
            for name, column in piece.items():
                values = column.values if isinstance(column, Lists) else column
                if values.dtype.kind not in "biuf" or values.ndim != 1:
                    raise InputError(f"`{self.path}`: column {name!r} must consist of numbers; it holds {values.dtype}")
            yield piece

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Close the file."""


class _RootSource(Source):
    what = "ROOT"

    def __init__(self, path: Path, tree: str | None) -> None:
        super().__init__(path)
        uproot = require("uproot", "root", "reading ROOT files")
        self._awkward = require("awkward", "root", "reading ROOT files")
        with _reading(path, self.what):
            self._file: Any = uproot.open(path)
            classes = self._file.classnames(cycle=False)
        trees = [name for name, kind in classes.items() if kind in ("TTree", "ROOT::RNTuple")]
        if tree is None and len(trees) != 1:
            raise InputError(
                f"`tree` must be one of the trees of `{path}`: {', '.join(trees) or 'there is none'}; got None"
            )
        name = trees[0] if tree is None else tree
        if name not in trees:
            raise InputError(f"`tree` must be one of {trees}; got {name!r}{did_you_mean(name, trees)}")
        self._tree = self._file[name]
        self._is_tree = classes[name] == "TTree"

    def names(self) -> list[str]:
        return list(self._tree.keys(recursive=False))

    def _pieces(self, names: Sequence[str], n_rows: int) -> Iterator[dict[str, Column]]:
        wanted = set(names)
        # A function, not the names: uproot would take those for patterns.
        chosen = {"filter_branch" if self._is_tree else "filter_field": lambda column: column.name in wanted}
        for piece in self._tree.iterate(step_size=n_rows, library="ak", how=dict, **chosen):
            yield {name: self._column(piece[name]) for name in names}

    def _column(self, values: Any) -> Column:
        ak = self._awkward
        if values.ndim == 1:
            return ak.to_numpy(values, allow_missing=False)
        if values.ndim > 2:
            return np.zeros(len(values), dtype="O")
        return Lists(ak.to_numpy(ak.num(values)), ak.to_numpy(ak.flatten(values), allow_missing=False))

    def close(self) -> None:
        self._file.close()


class _ParquetSource(Source):
    what = "Parquet"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        parquet = require("pyarrow.parquet", "parquet", "reading Parquet files")
        self._pa = require("pyarrow", "parquet", "reading Parquet files")
        with _reading(path, self.what):
            self._file: Any = parquet.ParquetFile(path, memory_map=False)

    def names(self) -> list[str]:
        return list(self._file.schema_arrow.names)

    def _pieces(self, names: Sequence[str], n_rows: int) -> Iterator[dict[str, Column]]:
        for batch in self._file.iter_batches(batch_size=n_rows, columns=list(names), use_threads=False):
            yield {name: self._column(batch.column(name)) for name in names}

    def _column(self, column: Any) -> Column:
        types = self._pa.types
        if types.is_list(column.type) or types.is_large_list(column.type):
            counts = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
            return Lists(counts.astype(np.int64), column.flatten().to_numpy(zero_copy_only=False))
        if types.is_fixed_size_list(column.type):
            values = column.flatten().to_numpy(zero_copy_only=False)
            return Lists(np.full(len(column), column.type.list_size), values)
        return column.to_numpy(zero_copy_only=False)

    def close(self) -> None:
        self._file.close()


class _CsvSource(Source):
    what = "CSV"

    def names(self) -> list[str]:
        with _reading(self.path, self.what), self.path.open(newline="", encoding="utf-8") as file:
            head = next(csv.reader(file), [])
        return [name.strip() for name in head]

    def _pieces(self, names: Sequence[str], n_rows: int) -> Iterator[dict[str, Column]]:
        places = [self.names().index(name) for name in names]
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            width = len(next(rows))
            first = 2
            while chunk := list(itertools.islice(rows, n_rows)):
                short = next((k for k, row in enumerate(chunk) if len(row) != width), None)
                if short is not None:
                    raise InputError(
                        f"`{self.path}`, row {first + short}: expected {width} values, got {len(chunk[short])}"
                    )
                columns: dict[str, Column] = {}
                for name, place in zip(names, places, strict=True):
                    columns[name] = self._numbers(name, [row[place] for row in chunk], first)
                first += len(chunk)
                yield columns

    def _numbers(self, name: str, texts: list[str], first: int) -> Array:
        """Numbers, an empty text as NaN."""
        try:
            return np.array([text.strip() or "nan" for text in texts], dtype=np.float64)
        except ValueError:
            for k, text in enumerate(texts):
                try:
                    float(text.strip() or "nan")
                except ValueError:
                    message = f"`{self.path}`, row {first + k}, column {name!r}: expected a number, got {text!r}"
                    raise InputError(message) from None
            raise


class _ArraysSource(Source):
    """Columns in memory: a dict of arrays, a DataFrame of pandas, or a NumPy archive."""

    what = "a NumPy archive"

    def __init__(self, path: Path, columns: Any) -> None:
        super().__init__(path)
        self._columns = columns

    def names(self) -> list[str]:
        return [str(name) for name in (self._columns.columns if hasattr(self._columns, "columns") else self._columns)]

    def _pieces(self, names: Sequence[str], n_rows: int) -> Iterator[dict[str, Column]]:
        columns = {name: self._columns[name] for name in names}
        total = len(next(iter(columns.values()))) if columns else 0
        for start in range(0, total, n_rows):
            yield {name: self._column(values[start : start + n_rows]) for name, values in columns.items()}

    @staticmethod
    def _column(values: Any) -> Column:
        array = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
        if array.dtype.kind == "O" and len(array) and isinstance(array[0], list | tuple | np.ndarray):
            return Lists(np.array([len(row) for row in array]), np.concatenate([np.asarray(row) for row in array]))
        if array.ndim == 2:
            return Lists(np.full(len(array), array.shape[1]), array.reshape(-1))
        return array


def open_source(source: Any, tree: str | None = None) -> Source:
    """A table to read from.

    Args:
        source: Path of a ``.root``, ``.parquet``, ``.csv`` or ``.npz`` file; a dict of arrays; a DataFrame of pandas.
        tree: Name of the tree or ntuple of a ROOT file; the only one where None.

    Raises:
        InputError: If the kind of file is not known, or there is no such tree.
        StorageError: If there is no such file.
        FileDamagedError: If it cannot be read.
        MissingExtraError: If the library for it is not installed.
    """
    if not isinstance(source, str | Path):
        return _ArraysSource(Path("table"), source)
    path = Path(source)
    suffix = path.suffix.lower()
    known = (".root", ".parquet", ".csv", ".npz")
    if suffix not in known:
        raise InputError(f"`source` must be a file that ends in {', '.join(known)}; got {str(path)!r}")
    if not path.is_file():
        raise StorageError(f"cannot read `{path}`: there is no such file; check the path")
    if suffix == ".root":
        return _RootSource(path, tree)
    if suffix == ".parquet":
        return _ParquetSource(path)
    if suffix == ".csv":
        return _CsvSource(path)
    with _reading(path, _ArraysSource.what), np.load(path, allow_pickle=False) as file:
        return _ArraysSource(path, {name: file[name] for name in file.files})
