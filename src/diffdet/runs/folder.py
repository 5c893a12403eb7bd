"""The run folder: what lies where, who may start in it, and how it is written."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from diffdet.core.errors import FileDamagedError, InputError
from diffdet.core.storage import clean_temporaries, make_folder, write_json, write_text
from diffdet.runs.lock import HOLDER_NAME, LOCK_NAME, FolderLock

CONFIG, METRICS, DETECTORS, RESULT, REPORT, CHECKPOINTS = (
    "config.yaml",
    "metrics.jsonl",
    "detectors.jsonl",
    "result.json",
    "report.html",
    "checkpoints",
)


def finite(value: Any) -> Any:
    """Plain values in which numbers that are not finite have become None, because JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    return [finite(inner) for inner in value] if isinstance(value, (list, tuple)) else value


State = Literal["absent", "empty", "started", "foreign"]


@dataclass(frozen=True)
class RunFolder:
    """A folder that holds, or will hold, one run.

    Attributes:
        path: Where it is.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / CONFIG

    @property
    def metrics(self) -> Path:
        """One line for each phase of each epoch."""
        return self.path / METRICS

    @property
    def detectors(self) -> Path:
        """One line for each epoch: where every panel is."""
        return self.path / DETECTORS

    @property
    def checkpoints(self) -> Path:
        """Folder of the states from which the run can go on."""
        return self.path / CHECKPOINTS

    @property
    def result(self) -> Path:
        """Status, reason and figures."""
        return self.path / RESULT

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / REPORT

    def state(self) -> State:
        """What is there now.

        Returns:
            ``"absent"``: nothing; ``"empty"``: a folder without content that matters; ``"started"``: a run;
            ``"foreign"``: other files.

        Raises:
            InputError: If the path is no folder.
        """
        if not self.path.exists():
            return "absent"
        if not self.path.is_dir():
            raise InputError(f"--out: expected a folder, given {str(self.path)!r}, which is a file")
        if self.config.is_file():
            return "started"
        ignored = (LOCK_NAME, HOLDER_NAME)
        names = [
            entry.name for entry in self.path.iterdir() if entry.name not in ignored and not entry.name.endswith(".tmp")
        ]
        return "foreign" if names else "empty"

    def check_free(self) -> None:
        """Refuse a folder that another process holds; quick, before anything heavy is loaded.

        Raises:
            LockedError: If another process holds it.
        """
        if (self.path / LOCK_NAME).is_file():
            with FolderLock(self.path):
                pass

    def check_new(self) -> None:
        """Refuse a folder in which no run can start.

        Raises:
            InputError: If it holds a run or other files.
        """
        state = self.state()
        if state == "started":
            status = self.read_result().get("status", "without result: running, or killed")
            raise InputError(
                f"--out: expected a new or empty folder, given {str(self.path)!r}, which holds a run ({status}). "
                "Choose another folder, or go on with that run by --resume"
            )
        if state == "foreign":
            raise InputError(
                f"--out: expected a new or empty folder, given {str(self.path)!r}, which holds other files"
            )

    def lock(self) -> FolderLock:
        """Create the folder and hold it for this process; release the lock when the run is over.

        Returns:
            The lock, acquired.

        Raises:
            LockedError: If another process holds it.
            StorageError: If it cannot be created or written.
        """
        make_folder(self.path)
        lock = FolderLock(self.path)
        lock.acquire()
        clean_temporaries(self.path)
        return lock

    def remove_empty(self) -> None:
        """Remove a folder that was created for a run that could not begin; one with content stays."""
        if self.state() == "empty":
            with suppress(OSError):
                (self.path / LOCK_NAME).unlink(missing_ok=True)
                self.path.rmdir()

    def write_config(self, text: str) -> None:
        """Write the resolved configuration."""
        write_text(self.config, text)

    def read_result(self) -> dict[str, Any]:
        """Content of `result.json`; empty where there is none.

        Raises:
            FileDamagedError: If it cannot be read.
        """
        try:
            data = json.loads(self.result.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise FileDamagedError(f"{self.result}: cannot be read: {error}") from error
        return data if isinstance(data, dict) else {}

    def write_result(self, result: dict[str, Any]) -> dict[str, Any]:
        """Write `result.json`, with the checksums of the files that it is about.

        Args:
            result: Its content.

        Returns:
            What was written.
        """
        paths = [path for path in (self.config, self.metrics, self.detectors) if path.is_file()]
        files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
        complete: dict[str, Any] = finite({**result, "sha256": files})
        write_json(self.result, complete)
        return complete
