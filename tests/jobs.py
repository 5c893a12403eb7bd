"""Small jobs for tests, in this process or in one of their own."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

TINY = (
    "muons.per_volume=64",
    "schedule={epochs: 3, warmup_epochs: 1, cost_warmup_epochs: 1}",
    "task.args={volumes: 2, muons_per_volume: 64}",
)
"""Changes that make `hello_world` a matter of a tenth of a second."""


def arguments(out: Path, *more: str, design: str = "hello_world", sets: Sequence[str] = ()) -> list[str]:
    """Arguments of `diffdet optimise` for a tiny run."""
    changes = [f"--set={change}" for change in (*TINY, *sets)]
    return ["optimise", design, "--out", str(out), *changes, *more]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Content of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_times(path: Path) -> list[dict[str, Any]]:
    """Lines of `metrics.jsonl` but for how long each phase took."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in read_lines(path)]


class Started:
    """A command line that runs in a process of its own, forked so that it need not load torch again.

    Args:
        args: Its arguments.
        log: File for what it prints.
        before: Called in the new process first.
    """

    def __init__(self, args: Sequence[str], log: Path, before: Callable[[], object] | None = None) -> None:
        from diffdet.cli.main import run

        self.log = log
        log.write_bytes(b"")
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 99
            try:
                with open(log, "wb", buffering=0) as file:
                    os.dup2(file.fileno(), 1)
                    os.dup2(file.fileno(), 2)
                sys.stdout = os.fdopen(1, "w", closefd=False)
                sys.stderr = os.fdopen(2, "w", closefd=False)
                if before is not None:
                    before()
                code = run(args)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until something is so, while the process runs."""
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, f"waited {seconds} s: {self.log.read_text()}"
            assert os.waitpid(self.pid, os.WNOHANG) == (0, 0), self.log.read_text()
            time.sleep(0.005)

    def wait(self) -> int:
        """Wait for the end; the exit code, or minus the number of the signal that killed it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def n_lines(path: Path) -> int:
    """How many lines a file has; none where there is no file."""
    try:
        return len(path.read_text().splitlines())
    except FileNotFoundError:
        return 0
