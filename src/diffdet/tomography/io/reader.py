"""Reading tables of hits: one reader for every format, streaming, checking as it goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import InputError, StorageError
from diffdet.tomography.io.columns import ColumnMap
from diffdet.tomography.io.formats.base import PIECE_ROWS, Array, Source
from diffdet.tomography.io.rows import MAX_EVENT_ROWS, Contiguity, RowReader, make_plan
from diffdet.tomography.io.table import HitTable

__all__ = ["FORMATS", "HitsReader", "format_of"]

FORMATS: Final[dict[str, str]] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".root": "root",
    ".csv": "csv",
    ".npz": "npz",
}
"""Formats of tables of hits by the suffix of the file."""

CHUNK_EVENTS: Final = 8192


def format_of(path: Path) -> str:
    """The format that a file's suffix names.

    Raises:
        InputError: If it names none; the message lists those that do.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(
            f"the name of a hits file must end in {', '.join(FORMATS)}; got {str(path)!r}"
            + did_you_mean(suffix, FORMATS)
        )
    return FORMATS[suffix]


def open_source(path: Path, table: str | None) -> Source:
    """Open a file for reading.

    Raises:
        InputError: If the suffix is unknown or the file has no such table.
        StorageError: If there is no such file or it cannot be opened; `FileDamagedError` if it is not readable.
        MissingExtraError: If the format needs a library that is not installed.
    """
    kind = format_of(path)
    if path.is_dir():
        raise StorageError(f"{path} must be a hits file; it is a folder")
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise StorageError(f"hits file {path} does not exist") from None
    except OSError as error:
        raise StorageError(f"hits file {path} cannot be opened: {error.strerror}") from error
    match kind:
        case "parquet":
            from diffdet.tomography.io.formats.parquet import ParquetSource as Opened
        case "hdf5":
            from diffdet.tomography.io.formats.hdf5 import Hdf5Source as Opened
        case "root":
            from diffdet.tomography.io.formats.root import RootSource as Opened
        case "csv":
            from diffdet.tomography.io.formats.csv import CsvSource as Opened
        case _:
            from diffdet.tomography.io.formats.npz import NpzSource as Opened
    return Opened(path, table)


class HitsReader:
    """A table of hits, opened for reading in pieces; use it in a ``with`` block.

    What can be known without reading the rows (the format, the columns, their types) is checked here; what the rows
    hold is checked as they pass. Memory does not grow with the length of the file.

    Example:
        >>> with HitsReader("hits.parquet") as reader:  # doctest: +SKIP
        ...     for table in reader.chunks(10_000):
        ...         print(len(table))

    Args:
        path: File in one of `FORMATS`.
        columns: A `ColumnMap`, its YAML file or its content, for files that call the columns otherwise.
        split_z: Height in the volume, m: in files without `position`, hits higher than that are `above`.

    Raises:
        InputError: If the suffix, the table, a column or its type is not what is needed.
        StorageError: If the file does not exist or cannot be read (`FileDamagedError`).
        MissingExtraError: If the format needs a library that is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        columns: ColumnMap | Mapping[str, Any] | str | Path | None = None,
        *,
        split_z: float | None = None,
    ) -> None:
        self.path = Path(path)
        self._mapping = ColumnMap.load(columns)
        self._split_z = split_z
        self._source = open_source(self.path, self._mapping.table)
        try:
            self._plan = make_plan(self._source, self._mapping, split_z)
        except BaseException:
            self._source.close()
            raise

    @property
    def columns(self) -> tuple[str, ...]:
        """Our columns that the file has."""
        return self._plan.columns

    @property
    def n_rows(self) -> int | None:
        """Rows of the file; None where only reading tells (CSV)."""
        return self._source.n_rows

    def rows(self, n_rows: int = PIECE_ROWS) -> Iterator[dict[str, Array]]:
        """Checked rows, about `n_rows` at a time, from the beginning.

        Yields:
            Columns by name in our types and units; `position` as sides, 0 above and 1 below.

        Raises:
            InputError: At the first row that is refused.
            FileDamagedError: If the content cannot be decoded.
        """
        convert = RowReader(self._source, self._mapping, self._plan, self._split_z).convert
        check = Contiguity(self._describe_split_event, self._events_before)
        row = 0
        for batch in self._source.batches(self._plan.sources, self._plan.dtypes, n_rows):
            rows = convert(batch)
            check.add(rows["event"], row)
            row += len(rows["event"])
            yield rows

    def chunks(self, n_events: int = CHUNK_EVENTS) -> Iterator[HitTable]:
        """Tables of `n_events` complete events each, the last one shorter.

        Yields:
            One `HitTable` a chunk. A chunk is the same however the rows are grouped in the file.

        Raises:
            InputError: At the first row that is refused.
            FileDamagedError: If the content cannot be decoded.
        """
        kept: dict[str, Array] = {}
        row = 0
        for batch in self.rows(PIECE_ROWS):
            row += len(batch["event"])
            kept = {name: np.concatenate([kept[name], values]) for name, values in batch.items()} if kept else batch
            starts = np.flatnonzero(np.diff(kept["event"], prepend=kept["event"][:1] - 1))
            self._check_length(kept["event"], starts, row)
            used = 0
            # The last event may go on in the next rows, so it is never complete here.
            for first in range(0, len(starts) - n_events, n_events):
                begin, used = starts[first], starts[first + n_events]
                yield HitTable.from_rows({name: values[begin:used] for name, values in kept.items()})
            kept = {name: values[used:] for name, values in kept.items()}
        if kept and len(kept["event"]):
            yield HitTable.from_rows(kept)

    def close(self) -> None:
        """Release the file."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def _check_length(self, events: Array, starts: Array, row: int) -> None:
        lengths = np.diff(starts, append=len(events))
        if len(lengths) and lengths.max() > MAX_EVENT_ROWS:
            at = starts[int(lengths.argmax())]
            where = self._source.row_text(row - len(events) + int(at))
            raise InputError(
                f"{self.path}, {where}: event {int(events[at])} has more than {MAX_EVENT_ROWS} hits; "
                "expected one event a muon, numbered in the column `event`"
            )

    def _describe_split_event(self, event: int, row: int) -> str:
        return (
            f"{self.path}, {self._source.row_text(row)}: event {event} appears again after other events; "
            "the rows of one event must be contiguous, and every event needs a number of its own"
        )

    def _events_before(self, row: int) -> Array:
        """Numbers of all events that begin before a row."""
        name = str(self._mapping.rule("event").source)
        found: list[Array] = []
        left = row
        for batch in self._source.batches([name], {name: "int64"}, PIECE_ROWS):
            found.append(np.unique(batch[name][:left]))
            left -= len(batch[name])
            if left <= 0:
                break
        return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)
