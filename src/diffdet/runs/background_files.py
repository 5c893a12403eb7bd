"""Files of digits for the jobs of `background`: what may be written, and events of files in blocks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffdet.core.errors import InputError, StorageError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from diffdet.overlay.digits import Digits
    from diffdet.overlay.io.neutral import DigitsFile
    from diffdet.overlay.io.source import EventSource

__all__ = ["check_writable", "read_blocks", "writer"]


def check_writable(path: Path, overwrite: bool) -> None:
    """Refuse a file that cannot be written, before any work.

    Raises:
        InputError: If the suffix is unknown, the file exists, or its folder cannot be written.
    """
    from diffdet.overlay.io.neutral import kind_of

    kind_of(path)
    if path.is_dir():
        raise InputError(f"--out: expected a file, given the folder {str(path)!r}")
    if path.exists() and not overwrite:
        raise InputError(f"--out: expected a new file, given {str(path)!r}, which exists; --overwrite replaces it")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"--out: expected a file in a folder that exists and can be written, given {str(path)!r}")


def writer(path: Path, metadata: Mapping[str, Any]) -> AbstractContextManager[DigitsFile]:
    """A file of digits that appears whole when its block ends."""
    from diffdet.overlay.io.neutral import digits_writer

    return digits_writer(path, metadata)


def read_blocks(path: str | Path, events: int | None, block: int) -> tuple[Iterator[Digits], dict[str, Any]]:
    """Events of a file in blocks, and what the file says of itself.

    Args:
        path: The file.
        events: How many events to read; all where None.
        block: Events to a block.

    Raises:
        InputError: If there is no such file, or its suffix is unknown.
        StorageError: If it cannot be read.
    """
    from diffdet.overlay.io.source import open_events

    try:
        source = open_events(path)
    except StorageError as error:
        # What cannot be read is bad input: the command ends as for other bad input.
        error.nothing_written = True  # type: ignore[attr-defined]
        raise
    return _limited(source, events, block), dict(source.metadata)


def _limited(source: EventSource, events: int | None, block: int) -> Iterator[Digits]:
    left = events
    for found in source.blocks(block):
        part = found if left is None or found.n_events <= left else found.select(0, left)
        yield part
        left = None if left is None else left - part.n_events
        if left == 0:
            return
