"""What `test_distributed.py` runs in each of two processes, as ``torchrun`` starts them."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffdet.nn.callbacks.callback import Callback
from diffdet.nn.callbacks.cyclic_callbacks import OneCycle
from diffdet.nn.callbacks.monitors import EarlyStopping, MetricLogger, SaveBest
from diffdet.nn.metrics import RocAucScore
from diffdet.nn.training import distributed
from nn.tiny import bits, builder, data


class SignalOne(Callback):
    """One process alone gets a signal."""

    def __init__(self, rank):
        self.rank, self.n = rank, 0

    def on_batch_begin(self):
        self.n += 1
        if self.n == 9 and self.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def main(folder, *how):
    from diffdet.nn.models.model import Model

    torch.set_num_threads(1)
    with distributed.process_group():
        rank = distributed.rank()
        # Another seed in each process: the fit begins from the weights of the first.
        found = Model(builder(), seed=rank)
        cbs = [OneCycle((1, 2), (1e-3, 1e-2)), RocAucScore(), MetricLogger(), EarlyStopping(5), SaveBest()]
        found.fit(
            3,
            data(),
            30,
            val_idx=3,
            cbs=[*cbs, SignalOne(rank)] if "signal" in how else cbs,
            cb_savepath=folder / "weights",
            seed=5,
            checkpoint=folder / "checkpoints",
            resume="resume" in how,
            interruptible=True,
        )
        state = found.last_fit
        says = {
            "bits": bits(found),
            "rows": state.history.rows,
            "by": state.interrupted_by,
            "reason": state.stop_reason,
        }
        (folder / f"{'-'.join(('found', *how))}-{rank}.json").write_text(json.dumps(says))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
