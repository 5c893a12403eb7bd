"""Writers of hits that are killed, run out of disk, or write long files, each in a process of its own.

Run as a script with a folder and suffixes; prints what happened as JSON. One process imports everything once and forks
for every case, because starting Python with torch dozens of times would take a minute.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffdet.core.storage as storage
from diffdet.core.errors import DiffdetError
from diffdet.tomography.io import HitsReader, HitsWriter, reader, writer
from diffdet.tomography.io.formats import hdf5
from hits_tables import make_rows, write_hits

MOMENTS = ("write", "fsync", "rename")
LIMITS = (0, 100, 5_000, 100_000)
BLOCKS = (40, 160)


def die(*args: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(path: Path, moment: str) -> None:
    """Write, and be killed at a moment."""
    if moment != "write":
        setattr(storage, f"_{moment}", die)
    rows = make_rows(2000)
    with HitsWriter(path, optional=["momentum"]) as writer:
        for block in range(4):
            writer.write(rows)
            if moment == "write" and block == 3:
                die()


def full(path: Path, limit: int) -> None:
    """Write more than the disk takes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    rows = make_rows(3000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with HitsWriter(path, optional=["momentum"]) as writer:
        for _ in range(5):
            writer.write(rows)


def long(path: Path, blocks: int) -> None:
    """Write and read so many blocks of 4,000 rows, a piece each: memory has settled after the first few dozen."""
    rows = make_rows(500, missing=0.0)
    with HitsWriter(path) as opened:
        for block in range(blocks):
            opened.write({**rows, "event": rows["event"] + block * 1500})
    with HitsReader(path) as opened:
        assert sum(len(table) for table in opened.chunks(2000)) == blocks * 500


def outcome(function: Callable[[], None], path: Path) -> dict[str, Any]:
    """Run a case in a fork; its signal, its error, its peak of memory, and what it left behind."""
    path.parent.mkdir()
    write_hits(path, make_rows(5))
    before = path.read_bytes()
    receiver, sender = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            function()
        except DiffdetError as error:
            os.write(sender, f"{type(error).__name__}: {error}".encode())
        except BaseException as error:
            os.write(sender, f"not ours: {error!r}".encode())
        os._exit(0)
    os.close(sender)
    with open(receiver, "rb") as pipe:
        error = pipe.read().decode()
    _, status, usage = os.wait4(process, 0)
    return {
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "error": error,
        "peak_kb": usage.ru_maxrss,
        "unchanged": path.read_bytes() == before,
        "files": sorted(entry.name for entry in path.parent.iterdir()),
    }


def small_pieces() -> None:
    """Make pieces of 4,000 rows, so that small tables have many."""
    for module in (reader, writer, hdf5):
        module.PIECE_ROWS = 4000


def main(folder: Path, suffixes: list[str]) -> dict[str, Any]:
    cases: dict[str, Any] = {}
    small_pieces()
    for suffix in suffixes:
        for kind, function, values in (("kill", killed, MOMENTS), ("full", full, LIMITS), ("memory", long, BLOCKS)):
            for value in values:
                path = folder / f"{kind}{value}{suffix[1:]}" / f"hits{suffix}"
                cases[f"{kind} {value} {suffix}"] = outcome(lambda f=function, p=path, v=value: f(p, v), path)
    return cases


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), sys.argv[2:])))
