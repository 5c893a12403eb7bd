"""A fit that was killed anywhere ends as one that was not, to the last bit."""

from __future__ import annotations

import os
import signal

import pytest

from diffdet.core.errors import CheckpointError
from diffdet.loop.checkpoint import Checkpoints
from diffdet.nn.callbacks.callback import Callback
from diffdet.nn.callbacks.cyclic_callbacks import CycleLR, CycleMom
from diffdet.nn.callbacks.model_callbacks import SWA
from diffdet.nn.callbacks.monitors import EarlyStopping, MetricLogger, SaveBest
from diffdet.nn.metrics import RocAucScore
from nn.tiny import bits, data, model

N_EPOCHS = 4
N_BATCHES = N_EPOCHS * 12 + N_EPOCHS


class Kill(BaseException):
    """Ends a fit without any of its own code running."""


class KillAt(Callback):
    """Kills the fit at the n-th forward pass, which no checkpoint knows of."""

    transient = ("left",)

    def __init__(self, at):
        self.left = at

    def on_forwards_end(self):
        self.left -= 1
        if self.left == 0:
            raise Kill


def callbacks():
    return [
        CycleLR((1e-3, 1e-2), scale=1.5),
        CycleMom((0.85, 0.95), scale=1.5),
        SWA(2, renewal_period=1),
        RocAucScore(main_metric=False),
        MetricLogger(),
        EarlyStopping(10),
        SaveBest(),
    ]


def fit(folder, at=0, *, resume=False, **checkpoints):
    fitted, cbs = model(bn=True, model_args={"body": {"depth": 2, "width": 8, "do": 0.2, "bn": True}}), callbacks()
    fitted.fit(
        N_EPOCHS,
        data(n=120),
        30,
        val_idx=3,
        cbs=[*cbs, KillAt(at)],
        cb_savepath=folder / "weights",
        seed=0,
        checkpoint=Checkpoints(folder / "checkpoints", **checkpoints) if checkpoints else None,
        resume=resume,
    )
    return comparable(fitted, cbs)


def comparable(fitted, cbs):
    moments = [
        value.double().tolist() for state in fitted.opt.state_dict()["state"].values() for value in state.values()
    ]
    rows = fitted.last_fit.history.rows
    learnt = [{k: v for k, v in cb.state_dict().items() if not k.startswith("_")} for cb in cbs]
    return bits(fitted), moments, rows, [repr(state) for state in learnt]


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("calm"))


@pytest.mark.parametrize("at", [1, 7, 13, 20, 26, 27, 39, 45, N_BATCHES])
@pytest.mark.parametrize("every_seconds", [None, 1e-9], ids=["every epoch", "every batch"])
def test_killed_and_resumed(at, every_seconds, calm, tmp_path):
    with pytest.raises(Kill):
        fit(tmp_path, at, every_seconds=every_seconds)
    assert fit(tmp_path, resume=True, every_seconds=every_seconds) == calm


def test_killed_again_and_again(calm, tmp_path):
    n_kills = 0
    while True:
        try:
            found = fit(tmp_path, 9, resume=n_kills > 0, every_seconds=1e-9)
            break
        except Kill:
            n_kills += 1
    assert n_kills >= 5
    assert found == calm


def test_a_signal_finishes_the_batch_and_the_fit_goes_on_from_there(calm, tmp_path):
    class Signal(Callback):
        def __init__(self):
            self.n = 0

        def on_forwards_end(self):
            self.n += 1
            if self.n == 20:
                os.kill(os.getpid(), signal.SIGTERM)

    fitted, cbs = model(bn=True, model_args={"body": {"depth": 2, "width": 8, "do": 0.2, "bn": True}}), callbacks()
    common = {"val_idx": 3, "cb_savepath": tmp_path / "weights", "seed": 0}
    fitted.fit(
        N_EPOCHS,
        data(n=120),
        30,
        cbs=[*cbs, Signal()],
        checkpoint=tmp_path / "checkpoints",
        interruptible=True,
        **common,
    )
    assert fitted.last_fit.interrupted_by == signal.SIGTERM
    assert fitted.last_fit.stop_reason == "interrupted by SIGTERM after epoch 2, train batch 7"
    assert fit(tmp_path, resume=True, every_seconds=None) == calm


def test_another_network_is_refused_key_by_key(tmp_path):
    fit(tmp_path, every_seconds=None)
    fitted, cbs = model(width=5), callbacks()
    with pytest.raises(
        CheckpointError, match=r"misshaped '1.layers.0.0.weight': expected shape \(5, 4\), got \(8, 4\)"
    ):
        fitted.fit(
            N_EPOCHS + 1,
            data(),
            30,
            val_idx=3,
            cbs=cbs,
            cb_savepath=tmp_path,
            seed=0,
            checkpoint=tmp_path / "checkpoints",
            resume=True,
        )
