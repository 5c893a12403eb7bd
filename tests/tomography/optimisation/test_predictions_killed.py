"""Predictions that are killed at any moment leave a file that opens and holds all rows written before.

Run as a program with a folder, it forks predictions and kills each at another moment.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import tiny_fit
from diffdet.tomography.optimisation.callbacks.pred_callbacks import Save2HDF5PredHandler
from diffdet.tomography.optimisation.data.passives import PassiveYielder

N_KILLS = 12
N_VOLUMES = 60
SIZE = 50_000
"""Values in a row: large enough that many kills fall into writing."""


class Rows(Save2HDF5PredHandler):
    """Predicts the number of the volume, very often, and notes each row that is written."""

    _SHARE = 1e9  # writes after every volume

    def __init__(self, path: Path) -> None:
        super().__init__(path, use_volume_target=True, compression=None)

    def _pair(self) -> tuple[np.ndarray, np.ndarray]:
        return np.full(SIZE, self._fit.volume_id, np.float32), super()._pair()[1]

    def _save(self) -> None:
        super()._save()
        self.path.with_suffix(".rows").write_text(str(self._fit.volume_id + 1))


def predict(path: Path) -> None:
    passives = PassiveYielder(tiny_fit.layouts(3) * (N_VOLUMES // 3), shuffle=False)
    tiny_fit.wrapper().predict(passives, 20, 20, Rows(path))


def main(folder: Path) -> None:
    """Kill predictions after delays spread evenly over the time that one takes."""
    torch.set_num_threads(1)  # a fork does not survive threads
    draw = random.Random(5)
    predict(folder / "warm.h5")
    began = time.monotonic()
    predict(folder / "whole.h5")
    lasts = time.monotonic() - began
    for k in range(N_KILLS):
        child = os.fork()
        if child == 0:
            predict(folder / f"killed_{k}.h5")
            os._exit(0)
        time.sleep(lasts * (k + draw.random()) / N_KILLS)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("killed")
    paths = os.pathsep.join([str(Path(tiny_fit.__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, __file__, str(found)], check=True, env=environment)
    return found


def test_a_killed_prediction_leaves_every_row_that_was_written(folder: Path) -> None:
    counts = []
    for path in sorted(folder.glob("killed_*.h5")):
        note = path.with_suffix(".rows")
        written = int(note.read_text() or 0) if note.exists() else 0
        with h5py.File(path) as file:
            preds, targs = file["preds"][:], file["targs"][:]
        assert len(preds) == len(targs) >= written
        assert (preds == np.arange(len(preds))[:, None]).all()
        counts.append(len(preds))
    assert len(counts) >= N_KILLS - 2, "but for the earliest kills there is a file"
    assert any(0 < count < N_VOLUMES for count in counts), "kills came in the midst"


def test_an_error_in_a_later_volume_keeps_the_rows_before_it(tmp_path: Path) -> None:
    class Stops(Save2HDF5PredHandler):
        _SHARE = 0.0  # nothing is written before the end

        def _pair(self) -> tuple[np.ndarray, np.ndarray]:
            if self._fit.volume_id == 2:
                raise RuntimeError("the power is off")
            return super()._pair()

    path = tmp_path / "preds.h5"
    passives = PassiveYielder(tiny_fit.layouts(3), shuffle=False)
    with pytest.raises(RuntimeError, match="power"):
        tiny_fit.wrapper().predict(passives, 20, 20, Stops(path, use_volume_target=True))
    with h5py.File(path) as file:
        assert len(file["preds"]) == len(file["targs"]) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["preds.h5"]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
