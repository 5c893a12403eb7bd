"""One process per run folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from diffdet.core.errors import LockedError
from diffdet.runs.lock import HOLDER_NAME, STALE_S, FolderLock

HOLD = """
import sys, time
from pathlib import Path
from diffdet.runs.lock import FolderLock
FolderLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_leaves_and_names_the_holder(holder, tmp_path):
    with pytest.raises(LockedError) as raised:
        FolderLock(tmp_path).acquire()
    text = str(raised.value)
    for word in (str(holder.pid), socket.gethostname(), str(tmp_path / ".lock"), "since 2"):
        assert word in text
    with pytest.raises(LockedError):
        FolderLock(tmp_path).acquire()  # having tried does not free it


def test_a_killed_holder_holds_no_longer(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with FolderLock(tmp_path):
        assert json.loads((tmp_path / HOLDER_NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / HOLDER_NAME).exists()


def claim_of_another_machine(folder, age):
    path = folder / HOLDER_NAME
    path.write_text(json.dumps({"pid": 1, "host": "elsewhere.example", "since": "2020-01-01T00:00:00+00:00"}))
    os.utime(path, (time.time() - age, time.time() - age))


def test_a_living_claim_of_another_machine_counts_and_a_dead_one_does_not(tmp_path):
    # as on a file system whose locks do not reach other machines
    claim_of_another_machine(tmp_path, STALE_S / 2)
    with pytest.raises(LockedError, match=r"process 1 on elsewhere.example since 2020"):
        FolderLock(tmp_path).acquire()
    claim_of_another_machine(tmp_path, 2 * STALE_S)
    with FolderLock(tmp_path):
        assert json.loads((tmp_path / HOLDER_NAME).read_text())["host"] == socket.gethostname()


def test_of_many_that_race_one_wins(tmp_path):
    script = HOLD.replace("time.sleep(60)", "time.sleep(3)")
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    results = [racer.communicate() for racer in racers]
    assert sorted(racer.returncode for racer in racers) == [0, 1, 1, 1, 1, 1]
    assert sum("LockedError" in error for _, error in results) == 5


def test_a_lock_can_be_taken_again_after_its_release(tmp_path):
    lock = FolderLock(tmp_path)
    for _ in range(2):
        lock.acquire()
        lock.release()
    lock.release()
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}
