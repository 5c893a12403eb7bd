"""What happens in a fit and a prediction, in which order."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
import torch

import tiny_fit
from diffdet.core.errors import InputError, NoMuonsWarning
from diffdet.loop.events import LOOP_EVENTS
from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.optimisation.data.passives import PassiveYielder
from diffdet.tomography.optimisation.events import EVENTS, VOLUME_EVENTS
from diffdet.tomography.optimisation.fit_params import FitParams


class Recorder(Callback):
    """Writes down every event with the state of the fit."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None]] = []
        for event in EVENTS:
            setattr(self, event, lambda event=event: self.seen.append((event, self._fit.state)))

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.seen]


MUONS = ["on_mu_batch_begin", "on_scatter_end", "on_mu_batch_end"]
UPDATE = ["on_backwards_begin", "on_backwards_end", "on_step_end"]


def scan(n_batches: int) -> list[str]:
    """Documented events of one passive volume."""
    return ["on_volume_begin", *MUONS * n_batches, "on_x0_pred_begin", "on_x0_pred_end", "on_volume_end"]


def epoch(volumes: list[int], n_batches: int, train: bool) -> list[str]:
    """Documented events of an epoch whose batches hold so many volumes."""
    batches = [
        event
        for n in volumes
        for event in (
            "on_volume_batch_begin",
            *scan(n_batches) * n,
            "on_volume_batch_end",
            *(UPDATE if train else []),
        )
    ]
    return ["on_epoch_begin", *batches, "on_epoch_end"]


def test_there_are_eighteen_events_in_the_documented_order() -> None:
    assert len(EVENTS) == 18
    assert set(EVENTS) == set(LOOP_EVENTS) | set(VOLUME_EVENTS)
    assert list(EVENTS) == [
        "on_train_begin",
        "on_epoch_begin",
        "on_volume_batch_begin",
        "on_volume_begin",
        "on_mu_batch_begin",
        "on_scatter_end",
        "on_mu_batch_end",
        "on_x0_pred_begin",
        "on_x0_pred_end",
        "on_volume_end",
        "on_volume_batch_end",
        "on_backwards_begin",
        "on_backwards_end",
        "on_step_end",
        "on_epoch_end",
        "on_train_end",
        "on_pred_begin",
        "on_pred_end",
    ]
    hooks = {name for name, _ in inspect.getmembers(Callback, inspect.isfunction) if name.startswith("on_")}
    assert hooks == set(EVENTS), "every event has a hook, every hook an event"


def test_order_of_a_whole_fit_and_a_prediction() -> None:
    wrap, recorder = tiny_fit.wrapper(), Recorder()
    trn, val = tiny_fit.passives(wrap.volume, 5), PassiveYielder(tiny_fit.layouts(2))
    # 5 volumes in batches of 2, 25 muons in batches of 10: the last of each is smaller, and used.
    assert wrap.fit(2, 2, 25, 10, trn, val, [recorder]) == [recorder]
    one = [*epoch([2, 2, 1], 3, train=True), *epoch([2], 3, train=False)]
    assert recorder.events == ["on_train_begin", *one * 2, "on_train_end"]
    states = [state for event, state in recorder.seen if event == "on_epoch_begin"]
    assert states == ["train", "valid", "train", "valid"]
    recorder.seen.clear()
    wrap.predict(PassiveYielder(tiny_fit.layouts(2)), 25, 10, cbs=[recorder])
    assert recorder.events == ["on_pred_begin", *scan(3) * 2, "on_pred_end"]
    assert {state for _, state in recorder.seen} == {"test"}


def test_what_callbacks_can_read() -> None:
    class Reads(Callback):
        def __init__(self) -> None:
            self.ids: list[Any] = []
            self.n_muons: list[int] = []

        def on_mu_batch_begin(self) -> None:
            fit = self._fit
            assert fit.mu is not None
            assert bool((fit.mu.z == wrap.volume.h).all())
            self.n_muons.append(len(fit.mu))
            assert fit.pred is None or fit.volume_id is not None

        def on_scatter_end(self) -> None:
            assert self._fit.sb is not None
            assert self._fit.volume_inferrer is not None

        def on_x0_pred_end(self) -> None:
            fit = self._fit
            assert fit.pred is not None
            assert fit.pred.requires_grad == (fit.state == "train")
            self.ids.append(fit.volume_id)

        def on_volume_batch_end(self) -> None:
            fit = self._fit
            assert fit.mean_loss is not None
            assert fit.loss_val is not None
            assert torch.allclose(fit.mean_loss, fit.loss_val / 2)

        def on_train_end(self) -> None:
            assert self._fit is self.state
            assert self._fit.epoch == 1

    wrap, reads = tiny_fit.wrapper(), Reads()
    wrap.fit(1, 2, 25, 10, tiny_fit.passives(wrap.volume, 4), PassiveYielder(tiny_fit.layouts(2)), [reads])
    assert reads.ids == [0, 1, 2, 3, 0, 1]
    assert reads.n_muons == [10, 10, 5] * 6
    assert wrap.fit_params is None
    assert wrap.last_fit is not None
    assert wrap.last_fit.n_muons == 150
    assert wrap.last_fit.mu is None, "nothing of single muons is kept"


def test_a_replaced_loss_is_the_one_that_is_used() -> None:
    class Replaces(Callback):
        def on_volume_batch_end(self) -> None:
            fit = self._fit
            assert fit.mean_loss is not None
            fit.mean_loss = 0 * fit.mean_loss + 3.0

    wrap = tiny_fit.wrapper()
    before = [p.detach().clone() for p in wrap.volume.parameters()]
    wrap.fit(1, 2, 50, 50, tiny_fit.passives(wrap.volume, 2), None, [Replaces()])
    assert wrap.last_fit is not None
    assert wrap.last_fit.history.rows[0]["loss"] == 3.0
    assert all(torch.equal(a, b) for a, b in zip(before, wrap.volume.parameters(), strict=True))


def test_volumes_without_a_prediction_do_not_count() -> None:
    class Blinds(Callback):
        """Takes the prediction of some volumes away."""

        def __init__(self, *blind: int) -> None:
            self.blind = blind
            self.mean: list[Any] = []

        def on_x0_pred_end(self) -> None:
            if self._fit.volume_id in self.blind:
                self._fit.pred = None

        def on_volume_batch_end(self) -> None:
            fit = self._fit
            self.mean.append([None if x is None else float(x.detach()) for x in (fit.mean_loss, fit.loss_val)])

    one = Blinds(1)
    wrap = tiny_fit.wrapper()
    with pytest.warns(NoMuonsWarning, match="volume 1 has no prediction"):
        wrap.fit(1, 3, 50, 50, tiny_fit.passives(wrap.volume, 3), None, [one])
    ((mean, total),) = one.mean
    assert mean == pytest.approx(total / 2, rel=1e-6), "two of three volumes gave a prediction"

    wrap, recorder = tiny_fit.wrapper(), Recorder()
    before = [p.detach().clone() for p in wrap.volume.parameters()]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        wrap.fit(1, 2, 50, 50, tiny_fit.passives(wrap.volume, 2), None, [Blinds(0, 1), recorder])
    assert [w.category for w in told] == [NoMuonsWarning] * 3
    assert "none of the volumes [0, 1] gave a prediction: the detector is not updated" in str(told[-1].message)
    assert not set(UPDATE) & set(recorder.events)
    assert all(torch.equal(a, b) for a, b in zip(before, wrap.volume.parameters(), strict=True))


def test_fit_params_refuses_what_it_does_not_know() -> None:
    with pytest.raises(InputError, match=r"`volume_ids` is not a field of FitParams. Did you mean 'volume_id'"):
        FitParams(volume_ids=1)
    params = FitParams(state="train", epoch=3, skip_opt_step=True)
    assert (params.state, params.phase, params.epoch) == ("train", "train", 3)
    assert params.skip_opt_step is False, "there is no update yet that could be frozen"


def test_a_callback_without_a_wrapper_says_so() -> None:
    with pytest.raises(AttributeError, match="`Callback` has no wrapper"):
        Callback().on_train_begin()
    with pytest.raises(InputError, match="`Callback` has no wrapper"):
        Callback().on_pred_begin()
    callback = Callback()
    callback.set_wrapper(tiny_fit.wrapper())
    with pytest.raises(InputError, match="no fit or prediction is running"):
        _ = callback._fit
