"""The worker of the published package `tomopt`, to be run by the Python of its own virtual environment.

It drives the package through its documented interface only, by the same lines that drive diffdet.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.tracebacklimit = 0  # a failure is reported by its message; the peer's own lines are none of our business
warnings.filterwarnings("ignore")

from _worker import serve  # noqa: E402  (the path above comes first)

if __name__ == "__main__":
    serve("tomopt", "tomopt")
