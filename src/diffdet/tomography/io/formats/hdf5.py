"""Tables in HDF5: one dataset a column, compressed, with a checksum on every chunk."""

# ruff: noqa: ARG002, D102  # overrides are documented on `Source` and `Sink`

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from diffdet.core.errors import InputError
from diffdet.core.patient_file import PatientFile
from diffdet.tomography.io.columns import COLUMNS
from diffdet.tomography.io.formats.base import (
    PIECE_ROWS,
    TABLE_NAME,
    Array,
    Arrays,
    Sink,
    Source,
    kind_of,
    position_text,
    reading,
)

if TYPE_CHECKING:
    import h5py

__all__ = ["Hdf5Sink", "Hdf5Source", "checked_dataset", "checked_group"]

_BUILT_IN_FILTERS: Final = {
    1: "deflate",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    32000: "lzf",
}
_MAX_CHUNK_BYTES: Final = 1 << 28
# gzip, the strongest of the built-in filters, shrinks at most 1032 times.
_MAX_COMPRESSION: Final = 1100


def checked_group(file: h5py.File, name: str, path: Path) -> h5py.Group:
    """A group reached through hard links alone.

    Raises:
        InputError: If there is none, or a link leads out of the tree of the file.
    """
    import h5py

    node: Any = file
    for part in name.strip("/").split("/"):
        node = _child(node, part, path)
        if not isinstance(node, h5py.Group):
            raise InputError(f"{path}: `{name}` must be an HDF5 group; {node.name} is a dataset")
    return node


def _child(group: h5py.Group, name: str, path: Path) -> Any:
    """A member of a group, unless it is a link to somewhere else: following one could open any file of the reader's."""
    import h5py

    link = group.get(name, getlink=True)
    if link is None:
        raise InputError(f"{path}: group {group.name} has no `{name}`; it has {', '.join(group) or 'nothing'}")
    if not isinstance(link, h5py.HardLink):
        kind = "an external link" if isinstance(link, h5py.ExternalLink) else "a soft link"
        raise InputError(
            f"{path}: `{name}` in group {group.name} must be part of the file; it is {kind}, which is not followed"
        )
    return group[name]


def checked_dataset(group: h5py.Group, name: str, path: Path) -> h5py.Dataset:
    """A dataset that can be read without opening another file, loading a plug-in, or filling the memory.

    Raises:
        InputError: If it is a link, virtual, stored in external files, needs a filter that is not part of HDF5, has
            huge chunks, or declares far more data than it stores.
    """
    import h5py

    dataset = _child(group, name, path)
    where = f"{path}: dataset `{name}`"
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"{where} must be a dataset; it is a {type(dataset).__name__.lower()}")
    if dataset.is_virtual or dataset.external:
        raise InputError(f"{where} must be stored in the file itself; it refers to other files")
    properties = dataset.id.get_create_plist()
    for index in range(properties.get_nfilters()):
        code = properties.get_filter(index)[0]
        if code not in _BUILT_IN_FILTERS:
            raise InputError(f"{where} uses the filter {code}, which is not part of HDF5; write it with gzip or none")
    itemsize = dataset.dtype.itemsize
    if dataset.chunks and math.prod(map(int, dataset.chunks)) * itemsize > _MAX_CHUNK_BYTES:
        raise InputError(
            f"{where} has chunks of {dataset.chunks} elements, more than {_MAX_CHUNK_BYTES >> 20} MiB each"
        )
    declared = math.prod(map(int, dataset.shape)) * itemsize if dataset.shape else 0
    stored = dataset.id.get_storage_size()
    if declared > _MAX_COMPRESSION * stored + 4096:
        raise InputError(f"{where} declares {declared} bytes but stores only {stored}: it was never written in full")
    return dataset


class Hdf5Source(Source):
    """One-dimensional datasets of equal length in a group of an HDF5 file."""

    format = "HDF5"

    def __init__(self, path: Path, table: str | None) -> None:
        import h5py

        self.path = path
        with reading(path, self.format):
            self._file = h5py.File(path, "r", locking=False)
        try:
            with reading(path, self.format):
                self._open(table)
        except BaseException:
            self._file.close()
            raise

    def _open(self, table: str | None) -> None:
        import h5py

        if table is None:
            self._group: Any = self._file["/"]
            link = self._group.get(TABLE_NAME, getlink=True)
            if isinstance(link, h5py.HardLink) and isinstance(self._group[TABLE_NAME], h5py.Group):
                self._group = self._group[TABLE_NAME]
        else:
            self._group = checked_group(self._file, table, self.path)
        self.kinds = {}
        self.n_rows = 0
        self._lengths: dict[str, int] = {}
        for name in self._group:
            link = self._group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                self.kinds[name] = "a link to elsewhere, which is not followed"
                continue
            node = self._group[name]
            if not isinstance(node, h5py.Dataset):
                continue
            if node.ndim != 1:
                self.kinds[name] = f"an array of shape {node.shape}, not a column"
            elif h5py.check_string_dtype(node.dtype) is not None:
                self.kinds[name] = "text"
            else:
                self.kinds[name] = kind_of(node.dtype)
            if node.ndim == 1:
                self._lengths[name] = node.shape[0]

    def batches(self, names: Sequence[str], dtypes: Mapping[str, str], n_rows: int) -> Iterator[dict[str, Array]]:
        with reading(self.path, self.format):
            datasets = {name: self._sequential(name) for name in names}
        lengths = {name: self._lengths[name] for name in names}
        if len(set(lengths.values())) > 1:
            listing = ", ".join(f"`{name}` {length}" for name, length in lengths.items())
            raise InputError(f"{self.path}: columns must have one length; got {listing}")
        total = next(iter(lengths.values()), 0)
        self.n_rows = total
        for start in range(0, total, n_rows):
            with reading(self.path, self.format):
                batch = {name: dataset[start : start + n_rows] for name, dataset in datasets.items()}
            yield batch

    def _sequential(self, name: str) -> h5py.Dataset:
        """A checked dataset whose cache holds two chunks: enough to read it once from end to end, whatever its
        layout.
        """
        import h5py

        chunks = checked_dataset(self._group, name, self.path).chunks
        if chunks is None:
            return self._group[name]
        access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
        access.set_chunk_cache(521, 2 * chunks[0] * self._group[name].dtype.itemsize, 1.0)
        return h5py.Dataset(h5py.h5d.open(self._group.id, name.encode(), access))

    def close(self) -> None:
        self._file.close()


class Hdf5Sink(Sink):
    """Writes one resizable dataset a column, chunk by chunk."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        import h5py

        self._raw = PatientFile(path)
        # v110 puts checksums on the metadata, too, and is read by everything since HDF5 1.10.
        # Pieces are whole chunks, so a cache of chunks would only hold memory.
        self._file = h5py.File(self._raw, "w", libver=("v110", "v110"), rdcc_nbytes=0)
        self._names = tuple(names)
        group = self._file.create_group(TABLE_NAME, track_order=True)
        group.attrs["columns"] = ",".join(names)
        self._rows = 0
        self._sets: dict[str, Any] = {}
        for name in names:
            dtype = COLUMNS[name].dtype
            self._sets[name] = group.create_dataset(
                name,
                shape=(0,),
                maxshape=(None,),
                dtype="S5" if dtype == "text" else dtype,
                chunks=(PIECE_ROWS // 4,),
                compression="gzip",
                compression_opts=1,
                shuffle=True,
                fletcher32=True,
            )

    def write(self, rows: Arrays) -> None:
        stop = self._rows + len(rows[self._names[0]])
        for name, dataset in self._sets.items():
            values = rows[name]
            dataset.resize((stop,))
            dataset[self._rows : stop] = position_text(values, "S5") if COLUMNS[name].dtype == "text" else values
            self._raw.check()
        self._rows = stop

    def close(self) -> None:
        self._file.close()
        self._raw.check()
        self._raw.close()
        self._raw.check()

    def abort(self) -> None:
        with suppress(Exception):  # the file is about to be deleted, and the first error is the one to tell
            self._file.close()
        self._raw.close()
