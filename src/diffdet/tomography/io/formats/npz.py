"""Tables as NumPy archives: one array a column, read piece by piece through the archive's checksums."""

# ruff: noqa: ARG002, D102  # overrides are documented on `Source` and `Sink`

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.lib import format as npy

from diffdet.core.errors import InputError
from diffdet.tomography.io.columns import COLUMNS
from diffdet.tomography.io.formats.base import Array, Arrays, Sink, Source, kind_of, position_text, reading

__all__ = ["NpzSink", "NpzSource"]

_MAX_HEADER: Final = 10_000
_DATE: Final = (1980, 1, 1, 0, 0, 0)
_COPY_BYTES: Final = 1 << 20


class NpzSource(Source):
    """One-dimensional arrays of equal length, stored or deflated. Nothing is ever unpickled."""

    format = "NPZ"

    def __init__(self, path: Path, table: str | None) -> None:
        if table is not None:
            raise InputError(f"`table` names a TTree or HDF5 group; {path} is an NPZ file, which holds one table only")
        self.path = path
        self.kinds = {}
        self._lengths: dict[str, int] = {}
        with reading(path, self.format):
            self._zip = zipfile.ZipFile(path)
        try:
            with reading(path, self.format):
                for info in self._zip.infolist():
                    if info.filename.endswith(".npy"):
                        self._look(info)
        except BaseException:
            self._zip.close()
            raise
        self.n_rows = next(iter(self._lengths.values()), 0)

    def _look(self, info: zipfile.ZipInfo) -> None:
        """Note what a member holds, from its header."""
        name = info.filename.removesuffix(".npy")
        with self._zip.open(info) as member:
            shape, dtype = _read_header(member)
            offset = member.tell()
        if dtype.hasobject:
            self.kinds[name] = "Python objects, which are never read"
        elif len(shape) != 1:
            self.kinds[name] = f"an array of shape {shape}, not a column"
        else:
            if info.file_size != offset + shape[0] * dtype.itemsize:
                raise ValueError(
                    f"member {info.filename} has {info.file_size} bytes, its header promises another number"
                )
            self.kinds[name] = kind_of(dtype)
            self._lengths[name] = shape[0]

    def batches(self, names: Sequence[str], dtypes: Mapping[str, str], n_rows: int) -> Iterator[dict[str, Array]]:
        lengths = {name: self._lengths[name] for name in names}
        if len(set(lengths.values())) > 1:
            listing = ", ".join(f"`{name}` {length}" for name, length in lengths.items())
            raise InputError(f"{self.path}: columns must have one length; got {listing}")
        with ExitStack() as stack:
            with reading(self.path, self.format):
                members = {name: stack.enter_context(self._zip.open(f"{name}.npy")) for name in names}
                types = {name: _read_header(member)[1] for name, member in members.items()}
            left = next(iter(lengths.values()), 0)
            while left > 0:
                count = min(n_rows, left)
                left -= count
                with reading(self.path, self.format):
                    batch = {name: _read_exactly(members[name], types[name], count) for name in names}
                    if not left:
                        # The checksum is compared when the end is read.
                        for member in members.values():
                            member.read(1)
                yield batch

    def close(self) -> None:
        self._zip.close()


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array that follows, and leave the file at its first byte."""
    version = npy.read_magic(member)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"format version {version} of NPY is not known")
    shape, _, dtype = read(member, max_header_size=_MAX_HEADER)
    return shape, dtype


def _read_exactly(member: IO[bytes], dtype: np.dtype[Any], count: int) -> Array:
    data = member.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise EOFError("the array ends too early")
    return np.frombuffer(data, dtype=dtype)


class NpzSink(Sink):
    """Spools every column to a file beside the target and packs them when the number of rows is known.

    The archive is the same to the last bit whenever the table is: its members carry a fixed date.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        import tempfile

        self._path = path
        self._names = tuple(names)
        self._rows = 0
        with ExitStack() as stack:
            # Unnamed, beside the target: on the disk that has room for it, and gone with the process in any case.
            self._spools = {name: stack.enter_context(tempfile.TemporaryFile(dir=path.parent)) for name in names}
            self._stack = stack.pop_all()

    def write(self, rows: Arrays) -> None:
        for name, spool in self._spools.items():
            values = position_text(rows[name]) if COLUMNS[name].dtype == "text" else rows[name]
            spool.write(np.ascontiguousarray(values, dtype=_member_dtype(name)).data)
        self._rows += len(rows[self._names[0]])

    def close(self) -> None:
        with self._stack, zipfile.ZipFile(self._path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, spool in self._spools.items():
                spool.seek(0)
                with archive.open(zipfile.ZipInfo(f"{name}.npy", _DATE), "w", force_zip64=True) as member:
                    member.write(_header_bytes(name, self._rows))
                    while block := spool.read(_COPY_BYTES):
                        member.write(block)

    def abort(self) -> None:
        with suppress(OSError):  # the file is about to be deleted, and the first error is the one to tell
            self._stack.close()


def _member_dtype(name: str) -> np.dtype[Any]:
    """Type of a column in the archive: little-endian, so that the archive does not depend on the machine."""
    return np.dtype("<U5" if COLUMNS[name].dtype == "text" else COLUMNS[name].dtype).newbyteorder("<")


def _header_bytes(name: str, rows: int) -> bytes:
    header = io.BytesIO()
    description = {"descr": npy.dtype_to_descr(_member_dtype(name)), "fortran_order": False, "shape": (rows,)}
    npy.write_array_header_1_0(header, description)
    return header.getvalue()
