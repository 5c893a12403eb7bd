"""One process per run folder: who holds it is written down, and a dead holder's claim is taken over.

Two means together. The operating system's file lock ends with the process that holds it, however it dies. Beside it a
small file names the holder and is touched twice a minute: on file systems whose locks do not reach other machines, a
claim of another machine counts while that file is fresh.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from diffdet.core.errors import LockedError, StorageError

LOCK_NAME = ".lock"
HOLDER_NAME = ".lock-holder.json"

HEARTBEAT_S = 30.0
"""Seconds between two touches of the holder's file. Longer makes a dead machine's claim last longer."""
STALE_S = 300.0
"""Age of the holder's file from which a claim of another machine counts as dead. Shorter risks taking a stalled
machine's run."""


class FolderLock:
    """Holds a folder for this process. Use as a context manager, or call `acquire` and `release`.

    Args:
        folder: The folder; it must exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(str(folder / LOCK_NAME), timeout=0)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the folder, without waiting for anybody who holds it.

        Raises:
            LockedError: If another process holds it; the message says which, where, since when, and by which file.
            StorageError: If the folder cannot be written.
        """
        try:
            self._lock.acquire()
        except Timeout as error:
            raise LockedError(self._describe(self._read_holder(patience_s=0.5))) from error
        except OSError as error:
            raise StorageError(f"{self.folder}: cannot be locked: {error.strerror or error}") from error
        holder = self._read_holder()
        if holder is not None and holder.get("host") != socket.gethostname() and self._age_s() < STALE_S:
            self._lock.release()
            raise LockedError(self._describe(holder))
        self._write_holder()
        self._stop.clear()
        self._thread = threading.Thread(target=self._beat, name="diffdet-lock", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give the folder back. Does nothing when it is not held."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
            with suppress(OSError):
                (self.folder / HOLDER_NAME).unlink()
        self._lock.release()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            with suppress(OSError):
                os.utime(self.folder / HOLDER_NAME)

    def _write_holder(self) -> None:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now})
        temporary = self.folder / f"{HOLDER_NAME}.{os.getpid()}.tmp"
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self.folder / HOLDER_NAME)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            self._lock.release()
            raise StorageError(f"{self.folder}: cannot be written: {error.strerror}") from error

    def _read_holder(self, patience_s: float = 0.0) -> dict[str, Any] | None:
        """Who holds the folder; a holder that has only just taken it gets a moment to write its name."""
        until = time.monotonic() + patience_s
        while True:
            with suppress(OSError, ValueError):
                found = json.loads((self.folder / HOLDER_NAME).read_text(encoding="utf-8"))
                if isinstance(found, dict):
                    return found
            if time.monotonic() >= until:
                return None
            time.sleep(0.05)

    def _age_s(self) -> float:
        """Seconds since the holder's file was touched, by the clock of its file system."""
        probe = self.folder / f"{LOCK_NAME}.{os.getpid()}.tmp"
        try:
            probe.touch()
            age = probe.stat().st_mtime - (self.folder / HOLDER_NAME).stat().st_mtime
            probe.unlink()
        except OSError:
            return 0.0
        return age

    def _describe(self, holder: dict[str, Any] | None) -> str:
        by = "another process"
        if holder is not None:
            by = f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"
        return (
            f"{self.folder}: expected a folder that no other process holds, given one held by {by} (lock "
            f"{self.folder / LOCK_NAME}). "
            "Wait until it ends, or choose another folder"
        )

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
