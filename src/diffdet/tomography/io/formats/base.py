"""What every file format offers: a `Source` to read a table piece by piece, a `Sink` to write one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from diffdet.core.errors import DiffdetError, FileDamagedError
from diffdet.tomography.io.columns import COLUMNS, POSITIONS

__all__ = ["PIECE_ROWS", "TABLE_NAME", "Array", "Arrays", "Sink", "Source", "position_text", "reading"]

Array = NDArray[Any]
"""One column of some rows."""

Arrays = Mapping[str, Array]
"""Columns by name, all of one length. In our own rows `position` holds sides: 0 above, 1 below."""

PIECE_ROWS: Final = 65536
"""Rows that are written and read at a time: the unit of row groups, chunks and baskets. Bounds the memory of both."""

TABLE_NAME: Final = "hits"
"""Name of the TTree and of the HDF5 group."""


class Source(ABC):
    """A table in a file, open for reading.

    Nothing of the table is in memory until `batches` is iterated, and then no more than one piece of it.

    Attributes:
        path: The file.
        kinds: Kind of every column: ``"i"`` whole numbers, ``"f"`` real numbers, ``"text"``, or for what is neither a
            sentence that says what it is. A format without types (CSV) says ``"any"``.
        n_rows: Number of rows, None where only reading tells.
    """

    format: ClassVar[str]
    path: Path
    kinds: dict[str, str]
    n_rows: int | None

    @abstractmethod
    def batches(self, names: Sequence[str], dtypes: Mapping[str, str], n_rows: int) -> Iterator[dict[str, Array]]:
        """Read columns from the first row to the last.

        Args:
            names: Columns to read; all must be in `kinds`.
            dtypes: Types to parse to, by name of the column, for formats without types.
            n_rows: About how many rows to read at a time; a batch may be smaller.

        Raises:
            FileDamagedError: If the content cannot be decoded.
            InputError: If a value cannot be parsed.
        """

    def row_text(self, row: int) -> str:
        """How a message names a row, counted from 0."""
        return f"row {row} (counted from 0)"

    @abstractmethod
    def close(self) -> None:
        """Release the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


class Sink(ABC):
    """A table in a file, open for writing."""

    @abstractmethod
    def write(self, rows: Arrays) -> None:
        """Append rows; at most `PIECE_ROWS`, and exactly so many except at the end."""

    @abstractmethod
    def close(self) -> None:
        """Complete the file."""

    @abstractmethod
    def abort(self) -> None:
        """Release the file without completing it; it will be deleted. Must not raise."""


def position_text(sides: Array, kind: str = "U5") -> Array:
    """Text of the column `position` from sides, as a NumPy array of text (`U5`) or bytes (`S5`)."""
    return np.array(POSITIONS, dtype=kind)[sides.astype(np.intp)]


def file_dtype(name: str) -> str:
    """NumPy's name of the type of one of our columns; of `position`, that of its sides."""
    dtype = COLUMNS[name].dtype
    return "uint8" if dtype == "text" else dtype


def kind_of(dtype: np.dtype[Any]) -> str:
    """The kind of a NumPy type, see `Source.kinds`."""
    if dtype.kind in "iub":
        return "i"
    if dtype.kind == "f":
        return "f"
    return "text" if dtype.kind in "SU" else f"values of type {dtype}"


@contextmanager
def reading(path: Path, format_name: str) -> Iterator[None]:
    """Turn whatever a library raises at unreadable content into one error that names the file."""
    try:
        yield
    except (DiffdetError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileDamagedError(
            f"{path} cannot be read as {format_name}: it is damaged, cut short, or of another kind ({reason[:300]})"
        ) from error
