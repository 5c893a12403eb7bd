"""How many threads a job may use."""

from __future__ import annotations

import os


def keep_to_one_thread() -> None:
    """Let torch work in one thread, unless `OMP_NUM_THREADS` says otherwise.

    Muons are handled in blocks that fit the cache. Splitting such small tensors over threads gains nothing on an idle
    machine, and on a busy one threads wait for each other: the same job was up to eight times slower on two cores.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return
    import torch

    torch.set_num_threads(1)
