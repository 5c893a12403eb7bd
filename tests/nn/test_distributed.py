"""Processes that share every batch train the network that one process trains."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from diffdet.core.errors import InputError
from diffdet.nn.callbacks.cyclic_callbacks import OneCycle
from diffdet.nn.callbacks.monitors import EarlyStopping, MetricLogger, SaveBest
from diffdet.nn.metrics import RocAucScore
from diffdet.nn.models.model import Model
from diffdet.nn.training import distributed
from nn.tiny import bits, builder, data

SCRIPT = Path(__file__).with_name("two_processes.py")
TOLERANCE = 1e-5
"""Of weights after 27 updates: sums of gradients are rounded in another order."""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def two_processes(folder, *how):
    """Run the script twice side by side, and read what each process found."""
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
    common |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), *how],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    name = "-".join(("found", *how))
    return [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same fit by one process."""
    folder = tmp_path_factory.mktemp("alone")
    found = Model(builder(), seed=0)
    cbs = [OneCycle((1, 2), (1e-3, 1e-2)), RocAucScore(), MetricLogger(), EarlyStopping(5), SaveBest()]
    found.fit(3, data(), 30, val_idx=3, cbs=cbs, cb_savepath=folder, seed=5)
    return found


def flat(weights):
    return [value for values in weights.values() for value in values]


@pytest.mark.slow
def test_two_processes_equal_one_within_rounding(alone, tmp_path):
    first, second = two_processes(tmp_path)
    assert first["bits"] == second["bits"]
    assert first["rows"] == second["rows"]
    assert flat(first["bits"]) == pytest.approx(flat(bits(alone)), abs=TOLERANCE)
    for mine, theirs in zip(alone.last_fit.history.rows, first["rows"], strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-5)
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == ["best.h5"]


@pytest.mark.slow
def test_a_signal_to_one_ends_both_at_one_batch_and_they_go_on_bit_for_bit(tmp_path):
    straight = two_processes(tmp_path / "straight" if (tmp_path / "straight").mkdir() is None else tmp_path)
    folder = tmp_path / "ended"
    folder.mkdir()
    ended = two_processes(folder, "signal")
    assert [says["reason"] for says in ended] == ["interrupted by SIGTERM after epoch 1, train batch 9"] * 2
    assert [says["by"] for says in ended] == [15, 15]
    again = two_processes(folder, "resume")
    assert again[0]["bits"] == again[1]["bits"] == straight[0]["bits"]
    assert again[0]["rows"] == straight[0]["rows"]


def test_one_process_is_a_group_of_its_own():
    with distributed.process_group() as local:
        assert local == 0
    assert (distributed.rank(), distributed.world_size(), distributed.is_writer()) == (0, 1, True)
    assert distributed.part_of_batch(30) == (0, 30)
    assert distributed.mean_over_processes({"loss": 1.5}) == {"loss": 1.5}
    assert distributed.same_key((1, "a")) == (1, "a")


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    with pytest.raises(InputError, match="`bs` must be a multiple of the 4 processes that train together; got 30"):
        distributed.part_of_batch(30)
