"""Learning rates and momenta in cycles: recorded sequences, and the linear one cycle mended."""

from __future__ import annotations

import json

import pytest

from diffdet.core.errors import InputError
from diffdet.nn.callbacks.callback import Callback
from diffdet.nn.callbacks.cyclic_callbacks import CycleLR, CycleMom, CycleStep, OneCycle
from nn.tiny import data, model


class Watch(Callback):
    """Writes down learning rate and momentum of every update."""

    def __init__(self):
        self.lr, self.mom = [], []

    def on_backwards_end(self):
        self.lr.append(self._model.get_lr())
        self.mom.append(self._model.get_mom())


@pytest.fixture(scope="module")
def recorded(shared_dir):
    text = (shared_dir / "spec" / "nn-numeric-cases.json").read_text(encoding="utf-8")
    return json.loads(text)["cases"]["schedules"]["recorded"]


def run(callback, n_epochs, **settings):
    """Four batches per epoch: one fold of 120 events to train on, one to validate on."""
    watch = Watch()
    fitted = model("regression")
    fitted.fit(n_epochs, data("regression", n_folds=2), 30, val_idx=1, cbs=[callback, watch], seed=0, **settings)
    return watch, fitted


CASES = {
    "OneCycle(lengths=(1,2), lr_range=(1e-4,1e-2), mom_range=(0.85,0.95), cosine)": (
        lambda: OneCycle((1, 2), (1e-4, 1e-2), (0.85, 0.95)),
        3,
    ),
    "CycleLR(lr_range=(0,2e-3), cosine, cycle_mult=2, scale=1)": (lambda: CycleLR((0, 2e-3), cycle_mult=2), 3),
    "CycleLR(lr_range=(2e-4,2e-3), linear, scale=2)": (lambda: CycleLR((2e-4, 2e-3), "linear", scale=2), 4),
    "CycleMom(mom_range=(0.85,0.95), cosine)": (lambda: CycleMom((0.85, 0.95)), 2),
}


@pytest.mark.parametrize("name", CASES)
def test_recorded_sequences(name, recorded):
    make, n_epochs = CASES[name]
    watch, _ = run(make(), n_epochs)
    assert watch.lr == pytest.approx(recorded[name]["lr"], rel=1e-9, abs=1e-15)
    assert watch.mom == pytest.approx(recorded[name]["mom"], rel=1e-12)


def test_linear_one_cycle_is_a_ramp_up_and_a_ramp_down(recorded):
    old = recorded["OneCycle(lengths=(1,2), lr_range=(1e-4,1e-2,1e-5), linear)"]
    watch, _ = run(OneCycle((1, 2), (1e-4, 1e-2, 1e-5), interp="linear"), 3)
    up = [1e-4 + (1e-2 - 1e-4) * k / 4 for k in range(4)]
    down = [1e-2 + (1e-5 - 1e-2) * k / 8 for k in range(8)]
    assert watch.lr == pytest.approx(up + down, rel=1e-12)
    assert watch.lr[-1] < 2e-3 < old["lr"][-1]
    assert watch.mom == pytest.approx(
        [0.95 - 0.1 * k / 4 for k in range(4)] + [0.85 + 0.1 * k / 8 for k in range(8)], rel=1e-12
    )


def test_one_cycle_ends_the_fit_unless_told_not_to():
    watch, fitted = run(OneCycle((1, 1), (1e-4, 1e-2)), 5)
    assert len(watch.lr) == 8
    assert fitted.last_fit.stop_reason == "the one cycle is done"
    watch, fitted = run(OneCycle((1, 1), (1e-4, 1e-2, 1e-6), cycle_ends_training=False), 3)
    assert watch.lr[8:] == [1e-6] * 4
    assert watch.mom[8:] == [0.95] * 4


def test_cycle_step_divides_the_rate(tmp_path):
    watch, _ = run(CycleStep(0.5, 1, cycle_save=True), 3, cb_savepath=tmp_path)
    assert watch.lr == [2e-3] * 4 + [1e-3] * 4 + [5e-4] * 4
    assert sorted(path.name for path in tmp_path.glob("*.h5")) == [f"CycleStep_{k}.h5" for k in (1, 2, 3)]


def test_cycles_note_the_validation_loss_at_their_end(tmp_path):
    cycle = CycleLR((1e-4, 1e-2), scale=2, cycle_save=True)
    _, fitted = run(cycle, 5, cb_savepath=tmp_path)
    losses = fitted.last_fit.history.column("loss", "valid")
    assert cycle.cycle_losses == {1: losses[1], 2: losses[3]}
    assert cycle.cycle_count == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CycleLR((1e-4, 1e-2), "cubic"), "`interp` must be one of 'cosine', 'linear'; got 'cubic'"),
        (lambda: CycleLR((1e-4, 1e-3, 1e-2)), "must have two ends"),
        (lambda: CycleMom((0.8, 0.9), scale=0), "`scale`"),
        (lambda: OneCycle((1,), (1e-4, 1e-2)), "`lengths` must be two lengths above 0"),
        (lambda: OneCycle((1, 2), (1e-4,)), "`lr_range` must be two or three learning rates"),
        (lambda: CycleStep(0.0, 1), "`frac_reduction`"),
    ],
)
def test_impossible_cycles_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
