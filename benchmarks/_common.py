"""What the benchmark scripts share: worker processes, a peer's virtual environment, statistics, the record."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Self

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
DEFAULT_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "diffdet-bench"


class BenchmarkError(RuntimeError):
    """A benchmark that cannot go on, with the sentence to print."""


class Worker:
    """A measured process, addressed by jobs (see `_worker.py`). Use as a context manager.

    Args:
        python: interpreter whose environment holds the package under test.
        script: worker script to run.
        threads: intra-op threads of torch; 0 keeps its default.
        seed: seed handed to packages that take one.
    """

    def __init__(self, python: Path, script: Path, *, threads: int, seed: int | None = None) -> None:
        command = [str(python), str(script), "--threads", str(threads)]
        if seed is not None:
            command += ["--seed", str(seed)]
        environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        if threads:
            environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, bufsize=1
        )

    def __call__(self, job: str, **arguments: Any) -> dict[str, Any]:
        """Run one job and wait for its answer; a job that failed raises `BenchmarkError`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"job": job, **arguments}) + "\n")
        except BrokenPipeError as error:
            raise BenchmarkError(f"the worker ended before job {job!r}") from error
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkError(f"the worker ended with code {self._process.wait()} during job {job!r}")
        answer = json.loads(line)
        if "error" in answer:
            raise BenchmarkError(f"job {job!r} failed: {answer['error']}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def ensure_environment(
    folder: Path, *, python: Path, first: Sequence[str], then: Sequence[str], pip_options: Sequence[str] = ()
) -> Path:
    """Make the virtual environment of a peer unless it is there, and return its interpreter.

    Args:
        folder: where the environment lives, outside the repository.
        python: interpreter to make it with.
        first: requirements that come first and stay as they are (they constrain the rest).
        then: requirements installed after them.
        pip_options: more options for pip, such as an index of CPU builds.
    """
    interpreter = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    marker = folder / "diffdet-bench.json"
    wanted = {"first": list(first), "then": list(then)}
    if marker.exists() and json.loads(marker.read_text()) == wanted:
        return interpreter
    print(f"making the environment of {', '.join(then)} in {folder} (once, some minutes)", flush=True)
    constraints = folder / "constraints.txt"
    pip = [str(interpreter), "-m", "pip", "install", "--quiet", *pip_options]
    try:
        subprocess.run([str(python), "-m", "venv", str(folder)], check=True)
        constraints.write_text("\n".join(first) + "\n")
        subprocess.run([*pip, *first], check=True)
        subprocess.run([*pip, "--constraint", str(constraints), *then], check=True)
    except subprocess.CalledProcessError as error:
        raise BenchmarkError(f"the environment of the peer could not be made: {error}") from error
    marker.write_text(json.dumps(wanted))
    return interpreter


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, extremes, quartiles and number of the counted runs."""
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return {
        "median": median(values),
        "min": min(values),
        "max": max(values),
        "quartile_low": low,
        "quartile_high": high,
        "runs": len(values),
    }


def scaling_exponent(sizes: Sequence[float], times: Sequence[float]) -> float:
    """Least-squares slope of log(time) over log(size): 1 is linear, 2 quadratic."""
    x, y = [math.log(size) for size in sizes], [math.log(time) for time in times]
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - x_mean) ** 2 for a in x)


def human_time(seconds: float) -> str:
    """Three figures with a fitting unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds:.3g} s"


def machine() -> dict[str, Any]:
    """What the numbers depend on and the code does not choose."""
    facts: dict[str, Any] = {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
    }
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        facts["processor"] = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
        facts["memory_gb"] = round(int(memory.split()[1]) * 1024 / 1e9, 1)
    except (OSError, StopIteration):
        pass
    if hasattr(os, "getloadavg"):
        facts["load_at_start"] = round(os.getloadavg()[0], 2)
    return facts


def commit() -> str:
    """Short hash of the repository's commit, with `+` when tracked files differ from it; empty without git."""
    git = ["git", "-C", str(REPOSITORY)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Append one line of JSON with date, commit and machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stamp = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(), "command": sys.argv[1:]}
    with path.open("a") as file:
        file.write(json.dumps({**stamp, **record}) + "\n")
