"""A file that HDF5 may write to on a disk that fills up."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

__all__ = ["PatientFile"]


class PatientFile(io.RawIOBase):
    """A file for HDF5 to write to that never fails: the first error is kept, and told by `check`.

    The HDF5 library may crash the process when the disk is full while it flushes. Written through this file, it never
    notices; whoever writes calls `check` after each piece and throws the file away when that raises.

    Args:
        path: Where to; a file that is there is opened for changes.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._raw = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the first error that writing met, if any."""
        if self._error is not None:
            raise self._error

    def readable(self) -> bool:
        """Yes."""
        return True

    def writable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a place."""
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """The place."""
        return self._raw.tell()

    def readinto(self, buffer: Any) -> int:
        """Read."""
        return self._raw.readinto(buffer) or 0

    def write(self, data: Any) -> int:
        """Write, or keep the error."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self._error is None:
            try:
                done += self._raw.write(view[done:]) or 0
            except OSError as error:
                self._error = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the length, or keep the error."""
        try:
            return self._raw.truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Close, or keep the error."""
        if not self.closed:
            try:
                self._raw.close()
            except OSError as error:
                self._error = self._error or error
            super().close()
