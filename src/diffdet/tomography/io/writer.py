"""Writing tables of hits: pieces go to a temporary file, which takes the target's name when it is whole and on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np

from diffdet.core.checks import check_choice
from diffdet.core.storage import replacing
from diffdet.tomography.io.columns import BASE_COLUMNS, OPTIONAL_COLUMNS
from diffdet.tomography.io.formats.base import PIECE_ROWS, Array, Sink
from diffdet.tomography.io.reader import format_of
from diffdet.tomography.io.rows import check_rows
from diffdet.tomography.io.table import HitTable

__all__ = ["HitsWriter"]


def _open_sink(kind: str, path: Path, names: Sequence[str]) -> Sink:
    match kind:
        case "parquet":
            from diffdet.tomography.io.formats.parquet import ParquetSink as Opened
        case "hdf5":
            from diffdet.tomography.io.formats.hdf5 import Hdf5Sink as Opened
        case "root":
            from diffdet.tomography.io.formats.root import RootSink as Opened
        case "csv":
            from diffdet.tomography.io.formats.csv import CsvSink as Opened
        case _:
            from diffdet.tomography.io.formats.npz import NpzSink as Opened
    return Opened(path, names)


class HitsWriter:
    """A table of hits, written in pieces; use it in a ``with`` block.

    The file appears under its name when the block ends, whole and flushed to the disk; if the block fails, or the
    process is killed, nothing appears and a file that was there before stays. Memory does not grow with the number of
    rows.

    Args:
        path: File whose suffix names the format, see `FORMATS`.
        optional: Columns that it has beside those that every file has, from `OPTIONAL_COLUMNS`.

    Raises:
        InputError: If the suffix or a column is unknown.
        StorageError: If the file cannot be written; the message names it.
        MissingExtraError: If the format needs a library that is not installed.
    """

    def __init__(self, path: str | Path, *, optional: Sequence[str] = ()) -> None:
        self.path = Path(path)
        self._format = format_of(self.path)
        for name in optional:
            check_choice("optional", name, OPTIONAL_COLUMNS)
        self.columns = BASE_COLUMNS + tuple(name for name in OPTIONAL_COLUMNS if name in optional)
        self.n_rows = 0
        self._pending: list[dict[str, Array]] = []
        self._n_pending = 0
        self._sink: Sink | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            temporary = stack.enter_context(replacing(self.path))
            # Refused here and in one way for all formats, whatever their libraries would do without a folder.
            temporary.touch(exist_ok=False)
            self._sink = _open_sink(self._format, temporary, self.columns)
            self._stack = stack.pop_all()
        return self

    def write(self, rows: HitTable | Mapping[str, Any]) -> None:
        """Append rows.

        Args:
            rows: A `HitTable`, or columns by name: all of `columns`, of one length; `position` as sides (0 above, 1
                below) or as text. Other columns are ignored.

        Raises:
            InputError: If a column is missing or holds what no reader would accept; nothing of `rows` is written then.
            StorageError: If the disk refuses.
        """
        content = check_rows(rows.to_rows() if isinstance(rows, HitTable) else rows, self.columns)
        length = len(content["event"])
        self.n_rows += length
        self._pending.append(content)
        self._n_pending += length
        if self._n_pending >= PIECE_ROWS:
            self._flush(PIECE_ROWS)

    def _flush(self, piece: int) -> None:
        """Hand pending rows to the file, in pieces of `piece` and no shorter ones unless `piece` is 1."""
        assert self._sink is not None, "use `HitsWriter` in a `with` block"
        merged = {name: np.concatenate([rows[name] for rows in self._pending]) for name in self.columns}
        stop = self._n_pending - self._n_pending % piece
        for start in range(0, stop, PIECE_ROWS):
            end = min(start + PIECE_ROWS, stop)
            self._sink.write({name: values[start:end] for name, values in merged.items()})
        self._pending = [{name: values[stop:] for name, values in merged.items()}]
        self._n_pending -= stop

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: Any) -> bool | None:
        assert self._sink is not None
        if kind is not None:
            self._sink.abort()
            return self._stack.__exit__(kind, value, trace)
        with self._stack:
            try:
                if self._n_pending:
                    self._flush(1)
                self._sink.close()
            except BaseException:
                self._sink.abort()
                raise
        return None
