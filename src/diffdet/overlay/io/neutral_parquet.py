"""The neutral format in Parquet: one row an event, one row group a block, a checksum to each page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from diffdet.core.errors import DiffdetError, FileDamagedError
from diffdet.core.extras import require
from diffdet.core.storage import replacing
from diffdet.overlay.digits import Digits
from diffdet.overlay.io.neutral import checked, metadata_from_text
from diffdet.overlay.io.source import BLOCK, EventSource

__all__ = ["ParquetSource", "write_parquet"]

_COLUMNS: Final = {"sensor": "uint8", "ucell": "uint8", "vcell": "uint16", "charge": "uint8"}
_OURS: Final = {"sensor": "sensor", "ucell": "u", "vcell": "v", "charge": "charge"}
_KEY: Final = b"diffdet"
_EXTRA: Final = "parquet"


class _Writer:
    def __init__(self, arrow: Any, file: Any, schema: Any) -> None:
        self._arrow, self._file, self._schema = arrow, file, schema

    def write(self, digits: Digits) -> None:
        """Append events."""
        arrow = self._arrow
        offsets = arrow.array(digits.offsets.cpu().numpy().astype("int32"))
        arrays = [arrow.array(digits.numbers.cpu().numpy().astype("uint64"))]
        for name, kind in _COLUMNS.items():
            values = arrow.array(getattr(digits, _OURS[name]).cpu().numpy().astype(kind))
            arrays.append(arrow.ListArray.from_arrays(offsets, values))
        batch = arrow.RecordBatch.from_arrays(arrays, schema=self._schema)
        self._file.write_batch(batch, row_group_size=max(digits.n_events, 1))


@contextmanager
def write_parquet(path: str | Path, text: str) -> Iterator[_Writer]:
    """A file that appears whole when the block ends; see `neutral.digits_writer`."""
    arrow = require("pyarrow", _EXTRA, "writing Parquet files")
    parquet = require("pyarrow.parquet", _EXTRA, "writing Parquet files")
    fields = [("event", arrow.uint64())]
    fields += [(name, arrow.list_(arrow.type_for_alias(kind))) for name, kind in _COLUMNS.items()]
    schema = arrow.schema(fields, metadata={_KEY: text.encode()})
    options = {"compression": "zstd", "write_page_checksum": True}
    with replacing(path) as temporary, parquet.ParquetWriter(temporary, schema, **options) as file:
        yield _Writer(arrow, file, schema)


class ParquetSource(EventSource):
    """Events in a Parquet file of the neutral format.

    Args:
        path: The file.

    Raises:
        FileDamagedError: If it is truncated or not of this format.
        MissingExtraError: If pyarrow is not installed.
    """

    kind = "neutral format in Parquet"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        with self._opened() as file:
            found = file.schema_arrow.metadata or {}
            self.metadata = metadata_from_text(found.get(_KEY, b"").decode(errors="replace"), self.path)
            missing = [name for name in ("event", *_COLUMNS) if name not in file.schema_arrow.names]
            if missing:
                raise FileDamagedError(f"`{self.path}` must have the columns {', '.join(missing)}; it has not")
            self._n_events = file.metadata.num_rows

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        arrow = require("pyarrow", _EXTRA, "reading Parquet files")
        parquet = require("pyarrow.parquet", _EXTRA, "reading Parquet files")
        try:
            with parquet.ParquetFile(self.path, page_checksum_verification=True) as file:
                yield file
        except DiffdetError:
            raise
        except (arrow.ArrowException, OSError, ValueError) as error:
            raise FileDamagedError(f"`{self.path}` is not a whole file of the neutral format: {error}") from error

    @property
    def n_events(self) -> int:
        """How many events there are."""
        return self._n_events

    def blocks(self, block: int = BLOCK) -> Iterator[Digits]:
        """The events in order; see `EventSource.blocks`."""
        self._new_pass(block)
        with self._opened() as file:
            for batch in file.iter_batches(batch_size=block, columns=["event", *_COLUMNS]):
                numbers = torch.from_numpy(batch.column("event").to_numpy().astype("int64"))
                columns, offsets = {}, torch.zeros(1, dtype=torch.int64)
                for name in _COLUMNS:
                    lists = batch.column(name)
                    values = lists.flatten().to_numpy(zero_copy_only=False)
                    columns[name] = torch.from_numpy(values.astype("int32"))
                    sizes = torch.from_numpy(lists.value_lengths().to_numpy(zero_copy_only=False).astype("int64"))
                    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
                digits = checked(self.path, numbers, offsets, columns)
                self.counts.kept += len(digits)
                yield digits
