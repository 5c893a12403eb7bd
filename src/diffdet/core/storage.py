"""Files that are whole or absent: written beside their place, made durable, then renamed over it.

Every file that diffdet writes goes through here. A reader sees the old content or the new one, never a mixture,
whatever moment the machine or the process dies at: data go to a temporary file in the same folder, are flushed to the
disk (`fsync`), renamed over the destination, and the folder itself is flushed, so that the rename survives a power cut,
too. Temporary files end in ``.tmp``; `clean_temporaries` removes those that a killed process left.

Needs the standard library only, so that the command line can use it before torch is loaded.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import RawIOBase
from pathlib import Path
from typing import Any, Final, NoReturn

from diffdet.core.errors import StorageError

__all__ = [
    "TEMPORARY_SUFFIX",
    "StorageWarning",
    "clean_temporaries",
    "make_folder",
    "remove_folder",
    "replacing",
    "sync_folder",
    "write_bytes",
    "write_json",
    "write_text",
]

TEMPORARY_SUFFIX: Final = ".tmp"
"""How the names of files end that are not yet whole."""

_counter = itertools.count()


class StorageWarning(UserWarning):
    """A file was found damaged or could not be kept, and something older or plainer is used instead."""


# The operations that a disk can refuse, or that a kill can interrupt. They are separate so that tests can do either.


def _write(file: RawIOBase, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = file.write(view)  # a raw file may take less than it is given
        view = view[written or 0 :]


def _fsync(descriptor: int) -> None:
    os.fsync(descriptor)


def _rename(source: Path, destination: Path) -> None:
    os.replace(source, destination)


def _make_folder(path: Path) -> None:
    path.mkdir()


def _remove(path: Path) -> None:
    path.unlink()


def _remove_tree(path: Path) -> None:
    shutil.rmtree(path)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file atomically and durably.

    Args:
        path: Where to; what is there is replaced.
        data: Its content.

    Raises:
        StorageError: If the folder is missing or read-only, the disk is full, or the path is a folder; the message
            names the path, the bytes needed and those free. What was there before is untouched.
    """
    with replacing(path, size=len(data)) as temporary, _raw(temporary) as file:
        _write(file, data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8 atomically and durably; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int | None = 2) -> None:
    """Write a value as JSON, ending in a line feed, atomically and durably; see `write_bytes`.

    Args:
        path: Where to.
        value: What `json.dumps` takes. NaN and infinity are refused, because JSON has no word for them.
        indent: Spaces to a level; None for one line.

    Raises:
        StorageError: As `write_bytes`.
        ValueError: If a number is not finite.
    """
    write_text(path, json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False) + "\n")


@contextmanager
def replacing(path: str | os.PathLike[str], *, size: int | None = None) -> Iterator[Path]:
    """A temporary path to write to, which takes the place of `path` when the block ends well.

    The temporary file lies in the same folder. When the block ends it is made durable and renamed; when the block
    raises it is removed and `path` stays as it was. For libraries that want a name to write to.

    Args:
        path: The file to replace or create.
        size: Bytes that will be written, where known, for the error message.

    Yields:
        The temporary path. Its name ends in ``.tmp``.

    Raises:
        StorageError: If anything between opening and renaming fails; errors of the block that are not `OSError` pass
            unchanged.
    """
    destination = Path(path)
    temporary = _temporary(destination)
    try:
        if destination.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(destination))
        yield temporary
        with open(temporary, "rb+") as file:
            _fsync(file.fileno())
        _rename(temporary, destination)
        sync_folder(destination.parent)
    except OSError as error:
        needed = _size_of(temporary) if size is None else size
        _forget(temporary)
        _refuse("write", destination, error, needed)
    except BaseException:
        _forget(temporary)
        raise


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Create a folder and those above it, durably; one that exists already is fine.

    Returns:
        The folder.

    Raises:
        StorageError: If it cannot be created, or a file is in its place.
    """
    folder = Path(path)
    missing: list[Path] = []
    step = folder
    while not step.exists():
        missing.append(step)
        step = step.parent
    try:
        if not step.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(step))
        for new in reversed(missing):
            with suppress(FileExistsError):  # somebody else was faster
                _make_folder(new)
            sync_folder(new.parent)
    except OSError as error:
        _refuse("create the folder", folder, error, None)
    return folder


def remove_folder(path: str | os.PathLike[str]) -> None:
    """Remove a folder and what is in it so that no half of it can be mistaken for the whole.

    It is first renamed to a temporary name, which `clean_temporaries` finishes off where a kill interrupts the removal.

    Raises:
        StorageError: If it cannot be removed.
    """
    folder = Path(path)
    temporary = _temporary(folder)
    try:
        _rename(folder, temporary)
        sync_folder(folder.parent)
        _remove_tree(temporary)
    except OSError as error:
        _refuse("remove", folder, error, None)


def clean_temporaries(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove the temporary files and folders that killed processes left in a folder (not in those below it).

    Call it when nobody else writes there: it cannot know whose they are.

    Returns:
        What was removed.

    Raises:
        StorageError: If one cannot be removed.
    """
    place = Path(folder)
    removed: list[Path] = []
    if not place.is_dir():
        return removed
    for entry in sorted(place.iterdir()):
        if entry.name.startswith(".") and entry.name.endswith(TEMPORARY_SUFFIX):
            try:
                if entry.is_dir() and not entry.is_symlink():
                    _remove_tree(entry)
                else:
                    _remove(entry)
            except OSError as error:
                _refuse("remove", entry, error, None)
            removed.append(entry)
    return removed


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Flush a folder's list of names to the disk, so that renames in it survive a power cut.

    Where the system cannot do that to a folder (Windows), nothing happens.
    """
    if os.name == "nt":  # pragma: no cover - folders cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _fsync(descriptor)
    except OSError as error:
        # Some network file systems have no notion of flushing a folder; they refuse with EINVAL.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _raw(path: Path) -> Iterator[RawIOBase]:
    """A new file for writing, unbuffered, so that what the disk refuses is refused at the write."""
    with open(path, "xb", buffering=0) as file:
        yield file


def _temporary(destination: Path) -> Path:
    """A name in the same folder that nobody else uses."""
    return destination.with_name(f".{destination.name}.{os.getpid()}.{next(_counter)}{TEMPORARY_SUFFIX}")


def _forget(temporary: Path) -> None:
    """Remove a temporary file as far as the disk lets us: the error that led here matters more."""
    with suppress(OSError):
        if temporary.exists():
            _remove(temporary)


def _size_of(path: Path) -> int | None:
    with suppress(OSError):
        return path.stat().st_size
    return None


def _free_space(path: Path) -> int | None:
    """Bytes free where a path lies or would lie."""
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    with suppress(OSError):
        return shutil.disk_usage(place).free
    return None


def _advice(error: OSError) -> str:
    """What to do about an error of the system."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG):
        return "free some space, or write elsewhere"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "write to a folder that you may change"
    if error.errno == errno.ENOENT:
        return "create its folder first, or check the path"
    return "check the path and the disk"


def _refuse(verb: str, path: Path, error: OSError, size: int | None) -> NoReturn:
    """Raise our error for one of the system's."""
    if isinstance(error, StorageError):
        raise error
    reason = error.strerror or str(error) or type(error).__name__
    free = _free_space(path)
    need = "" if size is None else f", {size:,} bytes needed"
    there = "" if free is None else f", {free:,} bytes free"
    refused = StorageError(f"cannot {verb} `{path}`: {reason}{need}{there}; {_advice(error)}")
    refused.errno = error.errno
    raise refused from error
