"""One measured process of `nn.py`: reads jobs as JSON lines, answers with seconds and memory."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from importlib.metadata import version
from typing import Any

import torch
from _memory import PeakMemory
from _nn_heads import HEADS, Package, make


class Jobs:
    """What a worker can be asked to do.

    Args:
        package: The classes to drive.
        distribution: Name of the installed package, for its version.
        importing: Seconds that importing it took, behind torch.
    """

    def __init__(self, package: Package, distribution: str, importing: float) -> None:
        self.package, self.distribution, self.importing = package, distribution, importing
        self.memory = PeakMemory()

    def hello(self) -> dict[str, Any]:
        packages = {name: version(name) for name in (self.distribution, "torch", "numpy")}
        self.memory.start()
        return {
            "python": platform.python_version(),
            "packages": packages,
            "threads": torch.get_num_threads(),
            "import_seconds": self.importing,
            "modules": len(sys.modules),
            "idle_mb": self.memory.read(),
        }

    def head(self, label: str, runs: int) -> dict[str, Any]:
        """Forward and backward of a head, after one run that is not counted; short ones for a second."""
        started = time.perf_counter()
        net, x = make(self.package, label)
        building = time.perf_counter() - started
        seconds: list[list[float]] = []
        self.memory.start()
        before = self.memory.read()
        while len(seconds) <= runs or (time.perf_counter() - started < 1 and len(seconds) < 50 * runs):
            times = [time.perf_counter()]
            out = net(x)
            times.append(time.perf_counter())
            out.square().sum().backward()
            times.append(time.perf_counter())
            seconds.append([times[1] - times[0], times[2] - times[1]])
            net.zero_grad()
        return {
            "building": building,
            "forward": [one[0] for one in seconds[1:]],
            "backward": [one[1] for one in seconds[1:]],
            "extra_mb": self.memory.read() - before,
            "events": HEADS[label][3],
        }

    def predict(self, rows: int, bs: int) -> dict[str, Any]:
        """Predictions of a whole model, and the bare network on the same rows."""
        from _nn_model import predictions

        self.memory.start()
        return predictions(rows, bs) | {"peak_mb": self.memory.read()}


def serve(root: str, distribution: str, interaction: str = "InteractionNet") -> None:
    """Answer jobs until the input ends.

    Args:
        root: Name of the package that holds `models.blocks`.
        distribution: Name of the installed package.
        interaction: Name of the class that is documented as the head `InteractionNet`.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    answers = sys.stdout
    sys.stdout = sys.stderr  # what packages print is no answer
    started = time.perf_counter()
    jobs = Jobs(Package(root, interaction), distribution, time.perf_counter() - started)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(jobs, request.pop("job"))(**request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve("diffdet.nn", "diffdet")
