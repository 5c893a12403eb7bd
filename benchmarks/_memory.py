"""Largest memory of a process, as its worker sees it."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

MEGABYTE = 1e6


class PeakMemory:
    """Largest resident memory of this process since `start`, in MB (Linux; elsewhere since the process began)."""

    def start(self) -> None:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def read(self) -> float:
        try:
            status = Path("/proc/self/status").read_text()
        except OSError:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return peak / MEGABYTE if sys.platform == "darwin" else peak * 1024 / MEGABYTE
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / MEGABYTE
