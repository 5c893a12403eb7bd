"""One measured process: reads jobs as JSON lines, runs them on the scene, answers with seconds and memory.

Each side of a benchmark lives in a process of its own, in the virtual environment of its own, and measures itself; the
script that compares them only sends jobs in turn. So neither start-up nor the pipe enters a measured time, and peak
memory belongs to one package alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from _memory import PeakMemory
from _scene import Scene, separation


class Jobs:
    """What a worker can be asked to do; every method is one kind of job and returns a JSON object."""

    def __init__(self, root: str, distribution: str, seed: int | None) -> None:
        self.distribution = distribution
        options = {} if seed is None else {"seed": seed}
        self.scene = Scene(root, wrapper_options=options)
        self.memory = PeakMemory()

    def hello(self) -> dict[str, Any]:
        packages = {}
        for name in (self.distribution, "torch", "numpy"):
            try:
                packages[name] = version(name)
            except PackageNotFoundError:
                packages[name] = None
        self.memory.start()
        return {
            "python": platform.python_version(),
            "packages": packages,
            "threads": torch.get_num_threads(),
            "idle_mb": self.memory.read(),
        }

    def predict(self, muons: int, batch: int) -> dict[str, Any]:
        self.memory.start()
        started, cpu_started = time.perf_counter(), time.process_time()
        prediction = self.scene.predict(muons, batch)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        return {
            "seconds": [seconds],
            "cpu_seconds": [cpu_seconds],
            "peak_mb": self.memory.read(),
            "separation": separation(prediction),
        }

    def step(self, muons: int, batch: int, steps: int) -> dict[str, Any]:
        self.memory.start()
        seconds, cpu_seconds = self.scene.fit(muons, batch, steps)
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": self.memory.read()}


def serve(root: str, distribution: str) -> None:
    """Answer the jobs on standard input until it closes. Whatever the package prints is thrown away."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch its default")
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    jobs = Jobs(root, distribution, options.seed)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(jobs, request.pop("job"))(**request)
        except Exception as error:  # the comparing script decides what a failed job means
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    serve("diffdet.tomography", "diffdet")
