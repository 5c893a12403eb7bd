"""The neutral format in HDF5: flat columns with a checksum to each chunk, and offsets of events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from diffdet.core.errors import DiffdetError, FileDamagedError
from diffdet.core.storage import replacing
from diffdet.overlay.digits import Digits
from diffdet.overlay.io.neutral import checked, metadata_from_text
from diffdet.overlay.io.source import BLOCK, EventSource

__all__ = ["Hdf5Source", "write_hdf5"]

_COLUMNS: Final = {"sensor": "uint8", "ucell": "uint8", "vcell": "uint16", "charge": "uint8"}
_OURS: Final = {"sensor": "sensor", "ucell": "u", "vcell": "v", "charge": "charge"}
_CHUNK: Final = 1 << 17


class _Writer:
    def __init__(self, file: Any, text: str) -> None:
        self._file = file
        file.attrs["metadata"] = text
        options = {"maxshape": (None,), "shuffle": True, "compression": "gzip", "compression_opts": 1}
        for name, kind in _COLUMNS.items():
            file.create_dataset(name, (0,), kind, chunks=(_CHUNK,), fletcher32=True, **options)
        file.create_dataset("event", (0,), "uint64", chunks=(1024,), fletcher32=True, **options)
        file.create_dataset("offset", (1,), "uint64", chunks=(1024,), fletcher32=True, **options)
        self._n_events = self._n_digits = 0

    def write(self, digits: Digits) -> None:
        """Append events."""
        offsets = digits.offsets[1:] + self._n_digits
        parts = {name: getattr(digits, ours) for name, ours in _OURS.items()}
        for name, column in parts.items():
            self._append(name, self._n_digits, column)
        self._append("event", self._n_events, digits.numbers)
        self._append("offset", self._n_events + 1, offsets)
        self._n_digits += len(digits)
        self._n_events += digits.n_events

    def _append(self, name: str, start: int, column: torch.Tensor) -> None:
        dataset = self._file[name]
        dataset.resize((start + len(column),))
        dataset[start:] = column.cpu().numpy().astype(dataset.dtype)


@contextmanager
def write_hdf5(path: str | Path, text: str) -> Iterator[_Writer]:
    """A file that appears whole when the block ends; see `neutral.digits_writer`."""
    import h5py

    with replacing(path) as temporary, h5py.File(temporary, "w", libver="latest") as file:
        yield _Writer(file, text)


class Hdf5Source(EventSource):
    """Events in an HDF5 file of the neutral format.

    Args:
        path: The file.

    Raises:
        FileDamagedError: If it is truncated or not of this format.
    """

    kind = "neutral format in HDF5"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        with self._opened() as file:
            text = file.attrs.get("metadata")
            self.metadata = metadata_from_text(None if text is None else str(text), self.path)
            self._n_events = len(file["event"])

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        import h5py

        try:
            with h5py.File(self.path, "r") as file:
                self._refuse_links(file)
                yield file
        except DiffdetError:
            raise
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise FileDamagedError(f"`{self.path}` is not a whole file of the neutral format: {error}") from error

    def _refuse_links(self, file: Any) -> None:
        """Only plain datasets of this file are read: a link could lead to any other file."""
        import h5py

        wanted = {**_COLUMNS, "event": "uint64", "offset": "uint64"}
        for name, kind in wanted.items():
            link = file.get(name, getlink=True)
            dataset = file.get(name) if isinstance(link, h5py.HardLink) else None
            if (
                not isinstance(dataset, h5py.Dataset)
                or dataset.external
                or dataset.is_virtual
                or dataset.ndim != 1
                or dataset.dtype != kind
            ):
                raise FileDamagedError(f"`{self.path}` must hold a plain column {name!r} of type {kind}; it does not")
        if len(file["offset"]) != len(file["event"]) + 1:
            raise FileDamagedError(f"`{self.path}` is damaged: offsets do not fit the number of events")

    @property
    def n_events(self) -> int:
        """How many events there are."""
        return self._n_events

    def blocks(self, block: int = BLOCK) -> Iterator[Digits]:
        """The events in order; see `EventSource.blocks`."""
        self._new_pass(block)
        with self._opened() as file:
            for first in range(0, self._n_events, block):
                stop = min(first + block, self._n_events)
                offsets = torch.from_numpy(file["offset"][first : stop + 1].astype("int64"))
                low, high = int(offsets[0]), int(offsets[-1])
                numbers = torch.from_numpy(file["event"][first:stop].astype("int64"))
                columns = {name: torch.from_numpy(file[name][low:high].astype("int32")) for name in _COLUMNS}
                digits = checked(self.path, numbers, offsets - low, columns)
                self.counts.kept += len(digits)
                yield digits
