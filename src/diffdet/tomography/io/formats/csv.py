"""Tables as text with separated values: a header line of names, then a line a hit."""

# ruff: noqa: D102  # overrides are documented on `Source` and `Sink`

from __future__ import annotations

import csv
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from diffdet.core.errors import FileDamagedError, InputError
from diffdet.tomography.io.columns import COLUMNS
from diffdet.tomography.io.formats.base import Array, Arrays, Sink, Source, position_text, reading

__all__ = ["CsvSink", "CsvSource"]

_MAX_LINE = 1 << 20
_TEXT_WIDTH = 32


class CsvSource(Source):
    """Lines separated by commas, semicolons or tabs. Lines that begin with `#` before the header are skipped."""

    format = "CSV"

    def __init__(self, path: Path, table: str | None) -> None:
        if table is not None:
            raise InputError(f"`table` names a TTree or HDF5 group; {path} is a CSV file, which holds one table only")
        self.path = path
        self.n_rows = None
        with reading(path, self.format), self._text() as text:
            self._header_lines = 0
            header = ""
            for line in self._lines(text):
                self._header_lines += 1
                header = line.rstrip("\r\n")
                if header and not header.startswith("#"):
                    break
            else:
                raise InputError(f"{path} must begin with a line of column names; it is empty")
        self._delimiter = max(",;\t", key=header.count)
        names = [name.strip() for name in next(csv.reader([header], delimiter=self._delimiter))]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InputError(f"{path}: the header names the column `{twice[0]}` twice")
        self._names = names
        self.kinds = dict.fromkeys(names, "any")

    def _text(self) -> TextIO:
        return self.path.open(encoding="utf-8-sig", newline="")

    def _lines(self, text: TextIO) -> Iterator[str]:
        """Lines with their ends, refusing endless ones and a last one that was cut off."""
        while line := text.readline(_MAX_LINE):
            if not line.endswith("\n"):
                if len(line) >= _MAX_LINE:
                    raise FileDamagedError(
                        f"{self.path}: a line has more than {_MAX_LINE} characters: this is no CSV file"
                    )
                raise FileDamagedError(
                    f"{self.path}: the last line, {line[:60]!r}, has no line end, so the file was cut short; "
                    "if it was not, end it with a line break"
                )
            yield line

    def row_text(self, row: int) -> str:
        return f"line {row + self._header_lines + 1}"

    def batches(self, names: Sequence[str], dtypes: Mapping[str, str], n_rows: int) -> Iterator[dict[str, Array]]:
        columns = [self._names.index(name) for name in names]
        types = [f"U{_TEXT_WIDTH}" if dtypes[name] == "text" else dtypes[name] for name in names]
        record = np.dtype([(f"f{i}", dtype) for i, dtype in enumerate(types)])
        first = 0
        with reading(self.path, self.format), self._text() as text:
            lines = itertools.islice(self._lines(text), self._header_lines, None)
            while piece := list(itertools.islice(lines, n_rows)):
                batch = self._parse(piece, names, columns, record, first)
                first += len(piece)
                yield batch

    def _parse(
        self, piece: list[str], names: Sequence[str], columns: list[int], record: np.dtype[Any], first: int
    ) -> dict[str, Array]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                rows = np.loadtxt(
                    piece,
                    dtype=record,
                    delimiter=self._delimiter,
                    comments=None,
                    quotechar='"',
                    usecols=columns,
                    ndmin=1,
                )
        except ValueError:
            rows = None
        # NumPy skips empty lines, and tells neither the line nor the value in a way to pass on.
        if rows is None or len(rows) != len(piece):
            self._find_fault(piece, names, columns, record, first)
            raise FileDamagedError(f"{self.path} cannot be read as CSV near {self.row_text(first)}")
        return {
            name: np.char.strip(rows[f"f{i}"]) if record[i].kind == "U" else rows[f"f{i}"]
            for i, name in enumerate(names)
        }

    def _find_fault(
        self, piece: list[str], names: Sequence[str], columns: list[int], record: np.dtype[Any], first: int
    ) -> None:
        """Raise the error of the first line that cannot be parsed."""
        for row, line in enumerate(piece, first):
            where = f"{self.path}, {self.row_text(row)}"
            fields = next(csv.reader([line], delimiter=self._delimiter), [])
            if len(fields) <= max(columns):
                raise InputError(
                    f"{where}: expected {len(self._names)} values; got {len(fields)}: {line.strip()[:80]!r}"
                )
            for i, name in enumerate(names):
                kind, value = record[i].kind, fields[columns[i]].strip()
                try:
                    _ = value if kind == "U" else (int(value) if kind == "i" else float(value))
                except ValueError:
                    expected = "a whole number" if kind == "i" else "a number"
                    raise InputError(f"{where}: column `{name}` must hold {expected}; got {value[:40]!r}") from None

    def close(self) -> None:
        return


class CsvSink(Sink):
    """Writes comma-separated lines; numbers with as many digits as it takes to read the same ones back."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._text = path.open("w", encoding="ascii", newline="\n")
        self._text.write(",".join(names) + "\n")

    def write(self, rows: Arrays) -> None:
        columns = []
        for name in self._names:
            if COLUMNS[name].dtype == "text":
                columns.append(position_text(rows[name]).tolist())
            else:
                columns.append(map(repr, rows[name].tolist()))
        self._text.writelines(",".join(row) + "\n" for row in zip(*columns, strict=True))

    def close(self) -> None:
        self._text.close()

    def abort(self) -> None:
        with suppress(OSError):  # the file is about to be deleted, and the first error is the one to tell
            self._text.close()
