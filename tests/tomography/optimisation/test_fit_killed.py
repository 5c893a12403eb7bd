"""A fit that is killed at any moment and resumed ends as one that was not, to the last bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tiny_fit
from diffdet.core import storage
from diffdet.loop import Checkpoints
from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.optimisation.data.passives import PassiveYielder
from diffdet.tomography.optimisation.events import EVENTS

N_KILLS = 10


class Server:
    """Forks fits on request; see `tiny_fit.serve`."""

    def __init__(self) -> None:
        paths = os.pathsep.join([str(Path(tiny_fit.__file__).parent), *sys.path])
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, tiny_fit.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def _ask(self, line: str) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, folder: Path) -> int:
        return self._ask(f"start {folder}")

    def wait(self) -> int:
        return self._ask("wait")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.process.kill()
    server.process.wait()
    for stream in (server.process.stdin, server.process.stdout):
        assert stream is not None
        stream.close()


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_killed_by_sigkill_at_ten_random_moments(server: Server, tmp_path: Path) -> None:
    """Each of ten fits is killed once, at a moment drawn from its whole length, and resumed.

    Half of them save between steps, too, so that many kills fall into a save.
    """
    lengths = {}
    for parity in (0, 1):
        folder = tmp_path / f"{1000 + parity}"
        folder.mkdir()
        began = time.monotonic()
        server.start(folder)
        assert server.wait() == 0
        lengths[parity] = time.monotonic() - began
    calm = (tmp_path / "1000" / "digest").read_text()
    assert (tmp_path / "1001" / "digest").read_text() == calm, "how often it is saved changes nothing"

    rng = random.Random(20240229)
    digests: list[str] = []
    n_finished = attempt = 0
    while len(digests) < N_KILLS:
        attempt += 1
        folder = tmp_path / f"{attempt}"
        folder.mkdir()
        moment = rng.uniform(0.0, lengths[attempt % 2])
        pid = server.start(folder)
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
        if server.wait() != -signal.SIGKILL:  # it was done before: now the machine is less busy, and a fit shorter
            lengths[attempt % 2] = moment
            n_finished += 1
            assert n_finished < 30, "fits end before they can be killed"
            continue
        assert not (folder / "digest").exists()
        server.start(folder)
        assert server.wait() == 0
        digests.append((folder / "digest").read_text())
    assert digests == [calm] * N_KILLS


class Kill(BaseException):
    """Ends a fit without any of its own code running."""


class KillAt(Callback):
    """Kills the fit at the n-th event of a kind."""

    transient = ("left",)

    def __init__(self, event: str, at: int) -> None:
        self.left = at
        setattr(self, event, self._happened)

    def _happened(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Kill


@pytest.fixture(scope="module")
def calm() -> dict[str, Any]:
    wrap, cbs = tiny_fit.wrapper(), tiny_fit.callbacks()
    tiny_fit.run(wrap, cbs)
    return tiny_fit.everything(wrap, cbs)


@pytest.mark.parametrize(
    ("event", "at", "every_step"),
    [
        ("on_volume_batch_begin", 1, True),  # before anything was done
        ("on_scatter_end", 5, True),  # within the first warm-up
        ("on_epoch_end", 2, True),  # after its validation, before it is saved
        ("on_backwards_end", 3, True),  # within the second warm-up
        ("on_epoch_begin", 5, True),  # when the detector is freed
        ("on_step_end", 5, True),  # within the first half of the cycle
        ("on_x0_pred_end", 17, True),  # within a validation
        ("on_step_end", 8, False),  # several steps behind the last checkpoint
        ("on_volume_end", 21, False),
        ("on_train_end", 1, False),  # when all is done but said
    ],
)
def test_killed_at_an_event(
    event: str, at: int, every_step: bool, calm: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callbacks with a memory are on board; the resuming wrapper's other seed shows that the saved one is used."""
    monkeypatch.setattr(storage, "_fsync", lambda descriptor: None)
    options = {"every_seconds": 1e-9 if every_step else None}
    with pytest.raises(Kill):
        tiny_fit.run(
            tiny_fit.wrapper(), [*tiny_fit.callbacks(), KillAt(event, at)], checkpoint=Checkpoints(tmp_path, **options)
        )
    wrap, cbs = tiny_fit.wrapper(seed=77), tiny_fit.callbacks()
    tiny_fit.run(wrap, cbs, checkpoint=Checkpoints(tmp_path, **options), resume=True)
    found = tiny_fit.everything(wrap, cbs)
    assert {name: found[name] == calm[name] for name in calm} == dict.fromkeys(calm, True)


@pytest.mark.filterwarnings("ignore::diffdet.core.errors.NoMuonsWarning")  # nothing limits the panels in some cases
@pytest.mark.parametrize("case", range(6))
def test_killed_with_any_callbacks_anywhere(case: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random callbacks, sizes and moments, from a fixed seed."""
    monkeypatch.setattr(storage, "_fsync", lambda descriptor: None)
    rng = random.Random(case)
    chosen = [k for k in range(len(tiny_fit.callbacks())) if rng.random() < 0.6]
    sizes = {"passive_bs": rng.randint(1, 3), "mu_bs": rng.choice([17, 40, 100])}
    valid = rng.random() < 0.5
    event, at = rng.choice(list(EVENTS)[1:15]), rng.randint(2, 7)
    every_seconds = rng.choice([1e-9, None])

    def run(kill_at: int, resume: bool, folder: str) -> tuple[Any, list[Any]]:
        wrap = tiny_fit.wrapper(seed=case)
        all_callbacks = tiny_fit.callbacks()
        cbs = [all_callbacks[k] for k in chosen]
        val = PassiveYielder(tiny_fit.layouts(2)) if valid else None
        trn = tiny_fit.passives(wrap.volume, 4)
        checkpoints = Checkpoints(tmp_path / folder, every_seconds=every_seconds)
        wrap.fit(
            4, n_mu_per_volume=50, trn_passives=trn, val_passives=val, cbs=[*cbs, KillAt(event, kill_at)],
            checkpoint=checkpoints, resume=resume, **sizes,
        )  # fmt: skip
        return wrap, cbs

    calm = tiny_fit.digest(*run(0, resume=False, folder="calm"))
    with pytest.raises(Kill):
        run(at, resume=False, folder="killed")
    assert tiny_fit.digest(*run(0, resume=True, folder="killed")) == calm


def test_settings_that_change_the_result_are_refused(tmp_path: Path) -> None:
    from diffdet.core.errors import CheckpointError

    wrap = tiny_fit.wrapper()
    vol = wrap.volume
    wrap.fit(1, 2, 50, 50, tiny_fit.passives(vol, 2), None, checkpoint=tmp_path / "c")
    again = tiny_fit.wrapper()
    with pytest.raises(CheckpointError, match="`n_mu_per_volume` = 50; got 40"):
        again.fit(2, 2, 40, 50, tiny_fit.passives(again.volume, 2), None, checkpoint=tmp_path / "c", resume=True)
    other = tiny_fit.wrapper(volume=tiny_fit.volume(n_panels=2))
    with pytest.raises(CheckpointError, match="does not fit"):
        other.fit(2, 2, 50, 50, tiny_fit.passives(other.volume, 2), None, checkpoint=tmp_path / "c", resume=True)
