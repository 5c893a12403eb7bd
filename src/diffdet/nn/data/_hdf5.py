"""HDF5 files that came from elsewhere, read with care; and files written so that a full disk is an error, not a crash.

A name in an HDF5 file may be a link to another file, a dataset may lie outside, need a plug-in, or declare a million
times what it stores. Nothing of that is followed: what is read is in the file that was named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import FileDamagedError, StorageError

__all__ = ["child", "dataset", "open_file", "reading"]

_BUILT_IN_FILTERS: Final = frozenset({1, 2, 3, 4, 5, 6, 32000})
# gzip, the strongest of the built-in filters, shrinks at most 1032 times.
_MAX_COMPRESSION: Final = 1100


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Tell errors of the HDF5 library as ours.

    Raises:
        StorageError: If the file is not there, or cannot be opened.
        FileDamagedError: If its content cannot be read.
    """
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise StorageError(f"cannot read `{path}`: there is no such file; check the path") from error
    except IsADirectoryError as error:
        raise StorageError(f"cannot read `{path}`: it is a folder") from error
    except PermissionError as error:
        raise StorageError(f"cannot read `{path}`: you may not read it") from error
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise FileDamagedError(f"`{path}` cannot be read as HDF5: foreign, damaged or truncated ({error})") from error


def open_file(path: str | Path, mode: str = "r") -> Any:
    """An open HDF5 file.

    Args:
        path: Where.
        mode: ``"r"`` or ``"r+"``.
    """
    import h5py

    with reading(path):
        if Path(path).is_dir():
            raise IsADirectoryError
        with open(path, "rb"):  # clearer errors than those of the HDF5 library
            pass
        return h5py.File(path, mode, locking=mode != "r")


def child(group: Any, name: str) -> Any:
    """A member of a group, unless it is a link to somewhere else.

    Raises:
        FileDamagedError: If it is not there, or not part of the file.
    """
    import h5py

    path = group.file.filename
    link = group.get(name, getlink=True)
    if link is None:
        near = did_you_mean(name, list(group))
        raise FileDamagedError(
            f"`{path}` has no `{name}` in {group.name}; it has {', '.join(group) or 'nothing'}{near}"
        )
    if not isinstance(link, h5py.HardLink):
        raise FileDamagedError(f"`{path}`: `{name}` in {group.name} is a link, which is not followed")
    with reading(path):
        return group[name]


def dataset(group: Any, name: str) -> Any:
    """A dataset that can be read without opening another file, loading a plug-in, or filling the memory.

    Raises:
        FileDamagedError: If it is none, or not stored in the file in full.
    """
    import h5py

    found = child(group, name)
    where = f"`{group.file.filename}`: `{name}` in {group.name}"
    if not isinstance(found, h5py.Dataset):
        raise FileDamagedError(f"{where} must be a dataset; it is a {type(found).__name__.lower()}")
    if found.is_virtual or found.external:
        raise FileDamagedError(f"{where} must be stored in the file itself; it refers to other files")
    properties = found.id.get_create_plist()
    codes = [properties.get_filter(k)[0] for k in range(properties.get_nfilters())]
    if not _BUILT_IN_FILTERS.issuperset(codes):
        raise FileDamagedError(f"{where} uses a filter that is not part of HDF5; write it with gzip or none")
    declared = math.prod(map(int, found.shape)) * found.dtype.itemsize if found.shape else 0
    if declared > _MAX_COMPRESSION * found.id.get_storage_size() + 4096:
        raise FileDamagedError(f"{where} declares {declared:,} bytes, but they were never written")
    return found
