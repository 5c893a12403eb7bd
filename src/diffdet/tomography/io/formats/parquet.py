"""Tables in Parquet, through pyarrow; page checksums are written, and verified when there."""

# ruff: noqa: ARG002, D102  # overrides are documented on `Source` and `Sink`

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdet.core.errors import InputError
from diffdet.core.extras import require
from diffdet.tomography.io.columns import COLUMNS, POSITIONS
from diffdet.tomography.io.formats.base import Array, Arrays, Sink, Source, reading

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ParquetSink", "ParquetSource"]


def _pyarrow() -> tuple[Any, Any]:
    what = "reading and writing Parquet files"
    return require("pyarrow", "parquet", what), require("pyarrow.parquet", "parquet", what)


class ParquetSource(Source):
    """A Parquet file of flat columns."""

    format = "Parquet"

    def __init__(self, path: Path, table: str | None) -> None:
        if table is not None:
            raise InputError(
                f"`table` names a TTree or HDF5 group; {path} is a Parquet file, which holds one table only"
            )
        self.path = path
        self._pa, parquet = _pyarrow()
        with reading(path, self.format):
            # Buffered streams keep memory at a page a column, however large the row groups of others are.
            self._file = parquet.ParquetFile(
                path, page_checksum_verification=True, buffer_size=1 << 20, pre_buffer=False, memory_map=False
            )
            self.kinds = {column.name: self._kind(column.type) for column in self._file.schema_arrow}
            self.n_rows = self._file.metadata.num_rows

    def _kind(self, arrow_type: pa.DataType) -> str:
        types = self._pa.types
        if types.is_dictionary(arrow_type):
            arrow_type = arrow_type.value_type
        if types.is_integer(arrow_type) or types.is_boolean(arrow_type):
            return "i"
        if types.is_floating(arrow_type) or types.is_decimal(arrow_type):
            return "f"
        if types.is_string(arrow_type) or types.is_large_string(arrow_type) or types.is_binary(arrow_type):
            return "text"
        return f"values of type {arrow_type}"

    def batches(self, names: Sequence[str], dtypes: Mapping[str, str], n_rows: int) -> Iterator[dict[str, Array]]:
        first = 0
        iterator = self._file.iter_batches(batch_size=n_rows, columns=list(names), use_threads=False)
        while True:
            with reading(self.path, self.format):
                batch = next(iterator, None)
                if batch is None:
                    return
                columns = {name: self._column(batch.column(name), name, first) for name in names}
            first += batch.num_rows
            yield columns

    def _column(self, column: Any, name: str, first: int) -> Array:
        if column.null_count:
            row = first + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise InputError(f"{self.path}: column `{name}`, {self.row_text(row)}: expected a value; got null")
        if self._pa.types.is_dictionary(column.type):
            values = column.dictionary.to_numpy(zero_copy_only=False)
            return values[column.indices.to_numpy(zero_copy_only=False)]
        return column.to_numpy(zero_copy_only=False)

    def close(self) -> None:
        self._file.close()


class ParquetSink(Sink):
    """Writes a Parquet file, one row group a piece."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._pa, parquet = _pyarrow()
        pa = self._pa
        types = {"int64": pa.int64(), "int32": pa.int32(), "float64": pa.float64()}
        text = pa.dictionary(pa.int8(), pa.string())
        self._schema = pa.schema(
            [pa.field(name, types.get(COLUMNS[name].dtype, text), nullable=False) for name in names]
        )
        repeating = [name for name in names if name in {"plane", "position", "z", "x_unc", "y_unc"}]
        self._writer = parquet.ParquetWriter(
            path, self._schema, compression="zstd", use_dictionary=repeating, write_page_checksum=True
        )

    def write(self, rows: Arrays) -> None:
        pa = self._pa
        arrays = []
        for field in self._schema:
            values = rows[field.name]
            if COLUMNS[field.name].dtype == "text":
                arrays.append(pa.DictionaryArray.from_arrays(pa.array(values.astype(np.int8)), pa.array(POSITIONS)))
            else:
                arrays.append(pa.array(values, type=field.type))
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        with suppress(Exception):  # the file is about to be deleted, and the first error is the one to tell
            self._writer.close()
