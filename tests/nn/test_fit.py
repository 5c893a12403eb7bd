"""Fits: the order of events, weights that weigh, seeds, folds, signals, masks."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

from diffdet.core.errors import InputError, NonFiniteError, NotSupportedError, ShapeError
from diffdet.loop import LOOP_EVENTS
from diffdet.nn.callbacks.callback import Callback
from diffdet.nn.callbacks.monitors import MetricLogger
from diffdet.nn.losses import WeightedMAE, WeightedMSE
from diffdet.nn.models.model import Model
from diffdet.nn.training.epoch import training_batches
from diffdet.nn.training.events import BATCH_EVENTS, EVENTS
from diffdet.nn.training.precision import ScaledUpdate
from nn.tiny import Folds, bits, builder, data, model, recorder


def test_events_come_in_the_documented_order():
    names: list[str] = []
    make = recorder(names, Callback, EVENTS)
    model().fit(1, data(n_folds=3, n=60), 30, val_idx=2, cbs=[make()], seed=0)
    batch = [
        *("on_batch_begin", "on_forwards_end", "on_backwards_begin"),
        *("on_backwards_end", "on_step_end", "on_batch_end"),
    ]
    fold = ["on_fold_begin", *batch, *batch, "on_fold_end"]
    valid = ["on_fold_begin", "on_batch_begin", "on_forwards_end", "on_batch_end", "on_fold_end"]
    epoch = ["on_epoch_begin", *fold, *fold, "on_epoch_end", "on_epoch_begin", *valid, "on_epoch_end"]
    assert names == ["on_train_begin", *epoch, "on_train_end"]


def test_the_table_of_events_holds_those_of_loop_and_batches():
    assert set(EVENTS) == set(LOOP_EVENTS) | set(BATCH_EVENTS)
    assert all(callable(getattr(Callback, event)) for event in EVENTS)


def test_events_of_predictions():
    names: list[str] = []
    make = recorder(names, Callback, EVENTS)
    model().predict(np.zeros((5, 4)), cbs=make(), bs=3)
    batch = ["on_batch_begin", "on_forwards_end", "on_batch_end"]
    assert names == ["on_pred_begin", *batch, *batch, "on_pred_end"]


class OneStep(Callback):
    """Keeps the gradients of the first update."""

    def __init__(self):
        self.grads = None

    def on_backwards_end(self):
        if self.grads is None:
            self.grads = [p.grad.clone() for p in self._model.parameters()]


@pytest.mark.parametrize("kind", ["classification", "regression", "multiclass"])
def test_weights_weigh_each_event_in_the_gradient(kind):
    """A batch where half the events have no weight has half the gradient of the other half alone."""
    fold = data(kind, n_folds=1, n=40).folds[0]
    weights = np.zeros(40, dtype=np.float32)
    weights[:20] = 1.0

    def gradients(rows, w):
        step = OneStep()
        folds = Folds([{"inputs": fold["inputs"][:rows], "targets": fold["targets"][:rows], "weights": w}])
        model(kind).fit(1, folds, rows, cbs=[step], seed=0)
        return step.grads

    for whole, half in zip(gradients(40, weights), gradients(20, None), strict=True):
        torch.testing.assert_close(whole, half / 2)


@pytest.mark.parametrize("loss", [WeightedMSE, WeightedMAE], ids=lambda cls: cls.__name__)
def test_a_fit_learns_what_the_weights_say(loss):
    """One half of the events says -1, the other +1; the constant that is learnt follows the weights."""
    x = np.zeros((100, 4), dtype=np.float32)
    targets = np.repeat([-1.0, 1.0], 50)
    for heavy in (0, 1):
        weights = np.where(targets == (-1.0, 1.0)[heavy], 10.0, 0.1)
        fitted = model("regression", loss=loss, opt_args={"lr": 0.05})
        fitted.fit(60, Folds([{"inputs": x, "targets": targets, "weights": weights}]), 50, seed=0)
        assert np.sign(fitted.predict(x[:1])[0, 0]) == (-1.0, 1.0)[heavy]


def test_train_on_weights_false_ignores_them():
    folds, fits = data("regression"), []
    for weighted in (folds, data("regression", weighted=False)):
        fitted = model("regression")
        fitted.fit(2, weighted, 30, train_on_weights=False, seed=0)
        fits.append(bits(fitted))
    assert fits[0] == fits[1]


def test_one_seed_gives_one_fit():
    def fitted(seed, **settings):
        one = model(model_args={"body": {"depth": 2, "width": 8, "do": 0.3}})
        one.fit(2, data(), 30, seed=seed, **settings)
        return bits(one)

    torch.manual_seed(1)
    first = fitted(3)
    torch.manual_seed(2)
    assert fitted(3) == first
    assert fitted(3, val_idx=None, trn_idxs=[0, 1, 2, 3]) == first
    assert fitted(3, bulk_move=False) == first
    assert fitted(4) != first


def test_a_validation_in_between_changes_nothing():
    fits = []
    for val_idx in (None, 3):
        fitted = model(bn=True)
        fitted.fit(2, data(), 30, trn_idxs=[0, 1], val_idx=val_idx, seed=0)
        fits.append(bits(fitted))
    assert fits[0] == fits[1]


def test_a_fit_leaves_the_global_generator_as_it_was():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    model(model_args={"body": {"depth": 1, "width": 4, "do": 0.5}}).fit(1, data(), 30, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_every_event_is_used_once_an_epoch():
    seen = []

    class See(Callback):
        def on_forwards_end(self):
            seen.append(self._fit.x[:, 0])

    folds = data(n_folds=3, n=50)
    model().fit(1, folds, 20, cbs=[See()], drop_last=False, seed=0)
    used = torch.cat(seen).sort().values
    assert torch.equal(used, torch.from_numpy(np.concatenate([f["inputs"][:, 0] for f in folds.folds])).sort().values)
    seen.clear()
    model().fit(1, folds, 20, cbs=[See()], seed=0)
    assert [len(batch) for batch in seen] == [20] * 6


def test_the_callers_list_of_folds_is_left_alone():
    trn_idxs = [2, 0, 1]
    model().fit(2, data(), 30, trn_idxs=trn_idxs, val_idx=3, seed=0)
    assert trn_idxs == [2, 0, 1]


def test_stopping_takes_effect_at_the_end_of_the_fold():
    class Stop(Callback):
        def __init__(self):
            self.n_folds = 0

        def on_fold_begin(self):
            self.n_folds += self._fit.state == "train"

        def on_batch_end(self):
            self._fit.stop = True

    stop, fitted = Stop(), model()
    fitted.fit(5, data(), 30, val_idx=0, cbs=stop, seed=0)
    assert stop.n_folds == 1
    assert [row["phase"] for row in fitted.last_fit.history.rows] == ["train", "valid"]


def test_the_loss_of_a_phase_is_the_mean_over_events_whatever_the_batches():
    folds, losses = data("regression", n_folds=2, n=50), []
    for bs, bulk_move in ((50, True), (40, False), (7, False)):
        fitted = model("regression", opt_args={"lr": 0.0})
        fitted.fit(1, folds, bs, bulk_move, val_idx=1, drop_last=False, seed=0)
        losses.append([row["loss"] for row in fitted.last_fit.history.rows])
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert losses[2] == pytest.approx(losses[0], rel=1e-6)


def test_evaluate_is_the_mean_over_events_of_tuples_too():
    """The original took the length of a tuple, two, for the number of events."""

    class Both(nn.Module):
        feat_map = {"a": [0]}  # noqa: RUF012
        n_cont_in = n_cat_in = n_matrix_in = 0

        def __init__(self, *_, **__):
            super().__init__()

        def forward(self, x, mask=None):
            flat, matrix = x
            rows = matrix if mask is None else matrix * mask.unsqueeze(-1)
            return torch.cat([flat, rows.sum(1)], 1)

        def get_out_size(self):
            return 4

    fitted = Model(builder("regression", head=Both))
    rng = np.random.default_rng(0)
    flat, matrix = rng.normal(size=(5, 2)), rng.normal(size=(5, 3, 2))
    targets = rng.normal(size=5)
    expected = float(np.mean((fitted.predict((flat, matrix))[:, 0] - targets) ** 2))
    for bs in (5, 4, 2, None):
        assert fitted.evaluate((flat, matrix), targets, bs=bs) == pytest.approx(expected, rel=1e-6)
    assert len(fitted.predict((flat, matrix))) == 5
    mask = np.array([[1, 1, 0]] * 5, dtype=bool)
    absent = matrix.copy()
    absent[:, 2] = 0
    assert np.array_equal(fitted.predict((flat, matrix), mask=mask), fitted.predict((flat, absent)))
    folds = Folds([{"inputs": (flat, matrix), "targets": targets, "weights": None, "mask": mask}] * 2)
    fitted.fit(1, folds, 4, val_idx=1, seed=0)
    expected = fitted.evaluate((flat, absent), targets)
    assert fitted.last_fit.history.rows[1]["loss"] == pytest.approx(expected, rel=1e-6)


def test_the_loss_of_a_fit_that_is_not_finite_ends_it():
    folds = data("regression")
    folds.folds[1]["targets"][5] = np.nan
    fitted = model("regression")
    with pytest.raises(NonFiniteError, match="the loss is not finite at epoch 1, phase train, batch"):
        fitted.fit(1, folds, 30, seed=0)
    assert all(np.isfinite(values).all() for values in bits(fitted).values())
    assert fitted.fit_params is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_epochs": 0}, "`n_epochs` must be a whole number of at least 1; got 0"),
        ({"bs": 2.5}, "`bs` must be a whole number"),
        ({"bs": 500}, "`bs` must be at most the 120 samples of fold"),
        ({"val_idx": 4}, "`val_idx` must be different numbers of folds from 0 to 3"),
        ({"trn_idxs": [0, 0]}, "`trn_idxs` must be different numbers of folds"),
        ({"trn_idxs": []}, "`trn_idxs` must be different numbers of folds"),
        ({"fy": np.zeros(3)}, "`fy` must yield folds"),
        ({"cbs": [MetricLogger]}, "`cbs` must hold callbacks, made by their classes; got MetricLogger"),
        ({"amp": "float8"}, "`amp` must be one of"),
        ({"resume": True}, "`resume` needs `checkpoints`"),
    ],
)
def test_bad_arguments_are_named(settings, message):
    arguments = {"n_epochs": 1, "fy": data(), "bs": 30, **settings}
    with pytest.raises(InputError, match=message):
        model().fit(arguments.pop("n_epochs"), arguments.pop("fy"), arguments.pop("bs"), **arguments)


def test_bad_data_are_named():
    folds = data()
    folds.folds[0]["weights"] = folds.folds[0]["weights"][:-1]
    with pytest.raises(ShapeError, match="`weights` must have one row for each of the 120 samples; got 119"):
        model().fit(1, folds, 30, seed=0)
    folds = data()
    folds.folds[0]["weights"][3] = np.inf
    with pytest.raises(InputError, match="`weights` must be finite; 1 of 120 are not"):
        model().fit(1, folds, 30, seed=0)
    folds.folds[0]["targets"] = None
    with pytest.raises(InputError, match="fold 0 of `fy` must have targets"):
        model().fit(1, folds, 30, seed=0, trn_idxs=[0])
    with pytest.raises(InputError, match="`inputs` must consist of numbers"):
        model().predict(np.array([["a", "b", "c", "d"]]))


def test_evaluate_during_a_fit_is_refused():
    class Ask(Callback):
        def on_batch_end(self):
            self._model.evaluate(data())

    with pytest.raises(InputError, match="`evaluate` must not be called during a fit"):
        model().fit(1, data(), 30, cbs=[Ask()], seed=0)


def test_mixed_precision_in_bfloat16_learns_as_well():
    losses = []
    for amp in (False, "bfloat16"):
        fitted = model("regression", opt_args={"lr": 0.02})
        fitted.fit(8, data("regression"), 30, val_idx=0, seed=0, amp=amp)
        losses.append(fitted.last_fit.history.rows[-1]["loss"])
        assert fitted.dtype is torch.float32
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.2)
    with pytest.raises(NotSupportedError, match="`amp` = True needs a CUDA device"):
        model().fit(1, data(), 30, amp=True)


def test_scaled_updates_take_the_steps_of_plain_ones_and_leave_out_overflows():
    parameter = nn.Parameter(torch.tensor([2.0]))
    update = ScaledUpdate(torch.optim.SGD([parameter], lr=0.1), scale=1024.0, interval=2)
    events = []
    assert update((3.0 * parameter).sum(), lambda event, update=None: events.append(event))
    assert parameter.item() == pytest.approx(2.0 - 0.3)
    before = parameter.item()
    assert not update((3e38 * parameter).sum(), lambda event, update=None: None)
    assert parameter.item() == before
    assert update.scale == 512.0
    for _ in range(2):
        update((3.0 * parameter).sum(), lambda event, update=None: None)
    assert update.scale == 1024.0
    other = ScaledUpdate(torch.optim.SGD([parameter], lr=0.1))
    other.load_state_dict(update.state_dict())
    assert (other.scale, other.n_good) == (update.scale, update.n_good)


def test_training_data_may_differ_from_epoch_to_epoch():
    class Noisy(Folds):
        def get_train_fold(self, idx, stream):
            fold = self.folds[idx]
            noise = torch.randn(fold["inputs"].shape, generator=stream.generator("noise")).numpy()
            return {**fold, "inputs": fold["inputs"] + noise}

    seen = {}

    class See(Callback):
        def on_fold_begin(self):
            fit = self._fit
            seen.setdefault((fit.state, fit.epoch, fit.by.fold), float(fit.x.double().sum()))

    folds = Noisy(data(n_folds=2, n=30).folds)
    model().fit(2, folds, 30, trn_idxs=[0], val_idx=1, cbs=[See()], seed=0)
    assert seen["train", 1, 0] != seen["train", 2, 0]
    assert seen["valid", 1, 1] == seen["valid", 2, 1]
    first = dict(seen)
    seen.clear()
    model().fit(2, folds, 30, trn_idxs=[0], val_idx=1, cbs=[See()], seed=0)
    assert seen == first


def test_batches_of_an_epoch_depend_on_its_stream_only():
    assert callable(training_batches)
    order = []

    class See(Callback):
        def on_fold_begin(self):
            if self._fit.state == "train":
                order.append(self._fit.by.fold)

    model().fit(3, data(n_folds=6, n=30), 30, cbs=[See()], seed=0)
    epochs = [order[:6], order[6:12], order[12:]]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_the_next_fold_is_read_while_one_is_trained_on():
    """Reading of a fold and use of the one before it meet: each waits for the other."""
    used = [threading.Event() for _ in range(4)]
    read = [threading.Event() for _ in range(4)]
    order = []

    class Slow(Folds):
        def get_fold(self, idx):
            order.append(idx)
            read[len(order) - 1].set()
            return super().get_fold(idx)

    class Use(Callback):
        n = 0

        def on_fold_begin(self):
            Use.n += 1
            if Use.n < 4:
                assert read[Use.n].wait(20), "the next fold is not read before this one is done"
            used[Use.n - 1].set()

    folds = Slow(data(n=30).folds)
    folds.fold_size = lambda idx: len(folds.folds[idx]["targets"])
    model().fit(1, folds, 30, cbs=[Use()], seed=0)
    assert sorted(order) == [0, 1, 2, 3]
    assert all(event.is_set() for event in used)


def test_a_fold_that_cannot_be_read_ends_the_fit_with_its_error():
    class Broken(Folds):
        def get_fold(self, idx):
            if idx == 2:
                raise OSError("the disk is gone")
            return super().get_fold(idx)

    folds = Broken(data(n=30).folds)
    folds.fold_size = lambda _idx: 30
    with pytest.raises(OSError, match="the disk is gone"):
        model().fit(1, folds, 30, seed=0)
