"""Reading events from any kind of file, a block at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from diffdet.core.errors import InputError, StorageError
from diffdet.overlay.digits import Counts, Digits

__all__ = ["BLOCK", "EventSource", "open_events", "read_events"]

BLOCK: Final = 50
"""Events that are read at a time, where nobody says otherwise."""


class EventSource(ABC):
    """Events in a file or folder.

    Reading is lazy: `blocks` opens, reads and closes. While it reads, `counts` tells what was found faulty and how it
    was mended.

    Args:
        path: The file or folder.

    Raises:
        StorageError: If it cannot be read, or is not what it is said to be.
    """

    kind: str
    """What it is, in a few words."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.counts = Counts()
        self.metadata: dict[str, Any] = {}
        """What the file says about itself, as JSON."""

    @property
    @abstractmethod
    def n_events(self) -> int:
        """How many events there are."""

    @abstractmethod
    def blocks(self, block: int = BLOCK) -> Iterator[Digits]:
        """The events in order.

        Args:
            block: Events that are read at a time; memory grows with it.

        Yields:
            Their digits. Events without digits are there, too.

        Raises:
            StorageError: If the file turns out to be damaged.
        """

    def read(self, limit: int | None = None) -> Digits:
        """All events, or the first so many, at once.

        Args:
            limit: Largest number of events.

        Raises:
            StorageError: If the file turns out to be damaged.
        """
        parts: list[Digits] = []
        missing = self.n_events if limit is None else limit
        for part in self.blocks():
            if missing <= 0:
                break
            parts.append(part if part.n_events <= missing else part.select(0, missing))
            missing -= part.n_events
        return Digits.concatenate(parts) if parts else Digits.empty()

    def _new_pass(self, block: int) -> None:
        if block < 1:
            raise InputError(f"`block` must be at least 1; got {block}")
        self.counts = Counts()


def open_events(path: str | Path) -> EventSource:
    """Open events for reading, whatever they are in.

    Args:
        path: A ROOT file (an overlay file of Belle II's software, or the neutral format as TTree or RNTuple), a Parquet
            or HDF5 file of the neutral format, or a folder with pictures.

    Returns:
        Their source.

    Raises:
        StorageError: If there is nothing, or nothing that can be read.
        MissingExtraError: If a library is not installed that is needed for this kind of file.
    """
    place = Path(path)
    if not place.exists():
        raise StorageError(f"there is no file or folder `{place}`")
    if place.is_dir():
        from diffdet.overlay.io.pictures import PictureSource

        return PictureSource(place)
    with open(place, "rb") as file:
        head = file.read(8)
    if head.startswith(b"root"):
        from diffdet.overlay.io.overlay_root import OverlaySource, holds_overlay

        if holds_overlay(place):
            return OverlaySource(place)
        from diffdet.overlay.io.neutral_root import RootSource

        return RootSource(place)
    if head.startswith(b"PAR1"):
        from diffdet.overlay.io.neutral_parquet import ParquetSource

        return ParquetSource(place)
    if head == b"\x89HDF\r\n\x1a\n":
        from diffdet.overlay.io.neutral_hdf5 import Hdf5Source

        return Hdf5Source(place)
    raise StorageError(
        f"`{place}` must be a ROOT, Parquet or HDF5 file, or a folder with pictures; it begins with {head!r}"
    )


def read_events(path: str | Path, limit: int | None = None) -> Digits:
    """All events of a file or folder, or the first so many, at once; see `open_events`."""
    return open_events(path).read(limit)
