"""Callbacks of fits: what they keep, when they stop, what they limit, what they average."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from diffdet.core.errors import InputError
from diffdet.nn.callbacks.callback import Callback
from diffdet.nn.callbacks.cyclic_callbacks import CycleLR
from diffdet.nn.callbacks.model_callbacks import SWA
from diffdet.nn.callbacks.monitors import EarlyStopping, EpochSaver, MetricLogger, SaveBest
from diffdet.nn.callbacks.opt_callbacks import GradClip, LRFinder
from diffdet.nn.callbacks.pred_handlers import PredHandler
from diffdet.nn.metrics import BinaryAccuracy, EvalMetric, RegPull, RocAucScore
from diffdet.nn.models.model import Model
from diffdet.nn.training.lr_find import lr_find, plot_lr_finders
from nn.tiny import bits, builder, data, model


class Script(Callback):
    """Gives the validation of each epoch a loss of its own."""

    def __init__(self, losses):
        self.losses = losses

    def on_epoch_end(self):
        fit = self._fit
        if fit.state == "valid":
            fit.metrics["loss"] = self.losses[fit.epoch - 1]


class Keep(Callback):
    """Weights at the end of each epoch."""

    def __init__(self):
        self.weights = []

    def on_epoch_end(self):
        if self._fit.state == "train":
            self.weights.append(self._model.get_weights())


def fit(cbs, n_epochs, kind="regression", tmp_path=".", **settings):
    found = model(kind, **settings)
    found.fit(n_epochs, data(kind), 30, val_idx=3, cbs=cbs, cb_savepath=tmp_path, seed=0)
    return found


# ------------------------------------------------------------------------------------------------------------- monitors
def test_the_logger_keeps_what_the_history_of_the_fit_says():
    logger, metric = MetricLogger(), RocAucScore()
    found = fit([logger, metric], 3, "classification")
    losses, metrics = logger.get_loss_history()
    history = found.last_fit.history
    assert losses == {"Training": history.column("loss", "train"), "Validation": history.column("loss", "valid")}
    assert metrics == {"RocAucScore": history.column("RocAucScore", "valid")}
    best = int(np.argmax(metrics["RocAucScore"]))
    expected = {"loss": losses["Validation"][best], "RocAucScore": metrics["RocAucScore"][best]}
    assert logger.get_results() == expected
    assert logger.get_results(save_best=False)["loss"] == losses["Validation"][-1]
    assert logger.best_loss == min(losses["Validation"])
    assert [len(axes.lines) for axes in logger.plot().axes] == [2, 1]


def test_the_best_model_is_saved_and_reloaded(tmp_path):
    keep, best = Keep(), SaveBest()
    found = fit([Script([3.0, 1.0, 2.0, 1.5]), keep, best], 4, tmp_path=tmp_path)
    assert best.min_loss == 1.0
    assert bits(found) == {k: v.double().flatten().tolist() for k, v in keep.weights[1].items()}
    assert (tmp_path / "best.h5").is_file()
    keep = Keep()
    found = fit([Script([3.0, 1.0, 2.0]), keep, SaveBest(auto_reload=False)], 3, tmp_path=tmp_path)
    assert bits(found) == {k: v.double().flatten().tolist() for k, v in keep.weights[-1].items()}


def test_reloading_the_best_after_a_cyclic_schedule_works(tmp_path):
    """The original's file held a number of NumPy that torch refuses to load."""
    found = fit([CycleLR((1e-4, 1e-2)), SaveBest()], 3, tmp_path=tmp_path)
    assert found.evaluate(data("regression"), idxs=[3]) == pytest.approx(
        min(found.last_fit.history.column("loss", "valid")), rel=1e-6
    )


class Told(EvalMetric):
    """A metric with given values."""

    def __init__(self, values, **settings):
        super().__init__(**settings)
        self.values = values

    def evaluate(self):
        return self.values[self._fit.epoch - 1]


@pytest.mark.parametrize("first", [True, False])
def test_the_main_metric_decides_wherever_it_stands(first, tmp_path):
    metric = Told([0.5, 0.9, 0.7], name="told", lower_metric_better=False)
    other = Told([1.0, 2.0, 3.0], name="other")
    keep, best = Keep(), SaveBest()
    cbs = [metric, other, keep, best] if first else [keep, best, metric, other]
    found = fit(cbs, 3, tmp_path=tmp_path)
    assert not other.main_metric
    assert best.min_loss == -0.9
    assert bits(found) == {k: v.double().flatten().tolist() for k, v in keep.weights[1].items()}


def test_early_stopping_waits_for_epochs():
    found = fit([Script([3.0, 2.0, 2.5, 2.4, 2.3, 1.0]), EarlyStopping(3)], 6)
    assert found.last_fit.epoch == 5
    assert found.last_fit.stop_reason == "no improvement on 2 for 3 epochs"


def test_early_stopping_waits_for_cycles_where_there_are_some():
    cbs = [CycleLR((1e-4, 1e-3), scale=2), Script([1.0] + [2.0] * 9), EarlyStopping(2)]
    found = fit(cbs, 10)
    assert found.last_fit.epoch == 4
    assert found.last_fit.stop_reason == "no improvement on 1 for 2 cycles"


def test_every_epoch_is_saved(tmp_path):
    keep = Keep()
    fit([EpochSaver(), keep], 2, tmp_path=tmp_path)
    for epoch in (1, 2):
        found = Model.from_save(tmp_path / f"epoch_{epoch}.h5", builder("regression"))
        assert bits(found) == {k: v.double().flatten().tolist() for k, v in keep.weights[epoch - 1].items()}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyStopping(0), "`patience` must be at least 1"),
        (lambda: SWA(0), "`start_epoch` must be at least 1"),
        (lambda: SWA(1, renewal_period=0), "`renewal_period` must be at least 1"),
        (lambda: GradClip(-1.0), "`clip` must be 0 or more"),
        (lambda: LRFinder((1.0, 0.1)), "`lr_bounds` must be the first and a higher last"),
        (lambda: PredHandler().get_preds(), "holds no predictions"),
        (lambda: SWA(3).get_weights(), "has averaged nothing yet"),
        (lambda: EarlyStopping(1).on_train_begin(), "has no model: pass it in `cbs`"),
        (lambda: BinaryAccuracy(1.5), "`threshold` must lie in"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


# ------------------------------------------------------------------------------------------------------------ gradients
@pytest.mark.parametrize("by_norm", [True, False])
def test_gradients_are_limited(by_norm):
    norms, largest = [], []

    class See(Callback):
        def on_backwards_end(self):
            grads = torch.cat([p.grad.flatten() for p in self._model.parameters()])
            norms.append(float(grads.norm()))
            largest.append(float(grads.abs().max()))

    fit([GradClip(0.01, by_norm), See()], 1)
    assert max(norms if by_norm else largest) <= 0.01 * (1 + 1e-5)
    norms.clear()
    fit([GradClip(0.0), See()], 1)
    assert max(norms) > 0.01


def test_the_range_of_learning_rates_is_explored():
    finders = lr_find(data("regression"), builder("regression"), 30, n_repeats=2, lr_bounds=(1e-4, 1e4), seed=0)
    assert len(finders) == 2
    for finder in finders:
        rates, losses = finder.get_history()
        assert rates[0] == 1e-4
        ratios = np.diff(np.log(rates))
        np.testing.assert_allclose(ratios, ratios[0], rtol=1e-9)
        assert max(losses) > 10 * min(losses)
        assert 1e-4 < finder.suggest() < 1.0
    again = lr_find(data("regression"), builder("regression"), 30, n_repeats=2, lr_bounds=(1e-4, 1e4), seed=0)
    assert [finder.losses for finder in again] == [finder.losses for finder in finders]
    assert len(plot_lr_finders(finders).axes[0].lines) == 3
    assert finders[0].plot().axes[0].get_xscale() == "log"


def test_a_loss_that_explodes_at_once_ends_the_search_not_the_program():
    described = builder("regression", opt_args={"opt": "sgd"})
    (finder,) = lr_find(data("regression"), described, 30, n_repeats=1, lr_bounds=(1e30, 1e35), seed=0)
    assert not math.isfinite(finder.losses[-1])
    assert len(finder.losses) < 9
    assert all(math.isfinite(loss) for loss in finder.get_history()[1])


# ------------------------------------------------------------------------------------------------------ weight averages
def test_the_average_is_the_mean_of_the_weights_with_the_default_period():
    """The original crashed with its own default."""
    keep, swa = Keep(), SWA(2, load_at_end=True)
    found = fit([keep, swa], 4)
    for key, value in swa.get_weights().items():
        expected = torch.stack([weights[key] for weights in keep.weights[1:]]).mean(0)
        torch.testing.assert_close(value, expected)
    assert swa.n_averaged == 3
    assert bits(found) == {k: v.double().flatten().tolist() for k, v in swa.get_weights().items()}
    assert found.evaluate(data("regression"), idxs=[3]) == pytest.approx(swa.get_loss(), rel=1e-6)


def test_the_average_has_batch_norm_statistics_of_its_own():
    swa = SWA(1)
    found = fit([swa], 3, bn=True)
    found.set_weights(swa.get_weights())
    found.net.eval()
    hidden = []
    norm = next(m for m in found.net.modules() if isinstance(m, torch.nn.BatchNorm1d))
    hook = norm.register_forward_hook(lambda _m, inputs, _out: hidden.append(inputs[0]))
    for batch in found.batches(data("regression"), [0, 1, 2], 30):
        found.net(batch.x)
    hook.remove()
    torch.testing.assert_close(norm.running_mean, torch.stack([h.mean(0) for h in hidden]).mean(0).detach())


def test_the_average_follows_cycles_where_there_are_some():
    swa = SWA(1)
    fit([CycleLR((1e-4, 1e-2), scale=2), swa], 5)
    assert swa.n_averaged == 2
    swa = SWA(1, update_on_cycle_end=False)
    fit([CycleLR((1e-4, 1e-2), scale=2), swa], 5)
    assert swa.n_averaged == 5


def test_a_fresh_average_takes_over_where_it_is_better():
    """Weights that fall steeply: the mean of later epochs is better than that of all."""
    keep, swa = Keep(), SWA(1, renewal_period=2)
    fit([keep, swa], 4, opt_args={"lr": 0.01})
    expected = {key: torch.stack([weights[key] for weights in keep.weights[2:]]).mean(0) for key in keep.weights[0]}
    for key, value in swa.get_weights().items():
        torch.testing.assert_close(value, expected[key])
    assert swa.n_averaged == 2


def test_a_better_average_is_what_is_saved_as_the_best(tmp_path):
    class Luck(SWA):
        def _validate(self, weights):
            return 1e-6

    swa, logger = Luck(2), MetricLogger()
    found = fit([swa, logger, SaveBest()], 3, tmp_path=tmp_path)
    assert logger.loss_vals["Luck"] == [math.inf, 1e-6, 1e-6]
    assert logger.best_loss == 1e-6
    saved = Model.from_save(tmp_path / "best.h5", builder("regression"))
    assert bits(saved) == bits(found)


def test_averaging_leaves_the_training_as_it_was():
    plain = fit([], 3, bn=True)
    averaged = fit([SWA(1, renewal_period=1)], 3, bn=True)
    assert bits(plain) == bits(averaged)


# -------------------------------------------------------------------------------------------------------------- metrics
def pairs_auc(scores, signal, weights):
    """The area by its definition: a sum over pairs."""
    s, b = scores[signal], scores[~signal]
    ws, wb = weights[signal], weights[~signal]
    wins = (s[:, None] > b[None, :]) + 0.5 * (s[:, None] == b[None, :])
    return float((ws[:, None] * wb[None, :] * wins).sum() / (ws.sum() * wb.sum()))


def evaluated(metric, kind):
    """A metric of the last validation, and what it is made of."""
    found = fit([metric], 2, kind)
    fold = data(kind).folds[3]
    return found, fold, metric.get_metric()


def test_area_under_roc_with_weights():
    found, fold, value = evaluated(RocAucScore(), "classification")
    scores = np.round(found.predict(fold["inputs"])[:, 0], 12)
    expected = pairs_auc(scores, fold["targets"] > 0.5, fold["weights"].astype(float))
    assert value == pytest.approx(expected, rel=1e-6)
    assert value == found.last_fit.history.column("RocAucScore", "valid")[-1]


def test_area_under_roc_of_several_classes_is_the_mean_of_each_against_the_rest():
    found, fold, value = evaluated(RocAucScore(), "multiclass")
    preds = found.predict(fold["inputs"])
    areas = [pairs_auc(preds[:, k], fold["targets"] == k, fold["weights"].astype(float)) for k in range(3)]
    assert value == pytest.approx(np.mean(areas), rel=1e-6)


def test_accuracy_with_weights():
    found, fold, value = evaluated(BinaryAccuracy(0.4), "classification")
    right = (found.predict(fold["inputs"])[:, 0] >= 0.4) == (fold["targets"] > 0.5)
    assert value == pytest.approx(fold["weights"][right].sum() / fold["weights"].sum(), rel=1e-6)


@pytest.mark.parametrize("relative", [True, False])
def test_pulls_of_a_regression(relative):
    for mean in (True, False):
        found, fold, value = evaluated(RegPull(mean, use_pull=relative), "regression")
        errors = found.predict(fold["inputs"])[:, 0] - fold["targets"]
        errors = errors / fold["targets"] if relative else errors
        average = np.average(errors, weights=fold["weights"])
        width = math.sqrt(np.average((errors - average) ** 2, weights=fold["weights"]))
        assert value == pytest.approx(average if mean else width, rel=1e-4)


def test_a_mean_pull_is_judged_by_its_size(tmp_path):
    """The original took the most negative bias for the best."""

    class Bias(RegPull):
        def evaluate(self):
            return [-0.5, 0.1, -0.9][self._fit.epoch - 1]

    best = SaveBest()
    fit([Bias(True), best], 3, tmp_path=tmp_path)
    assert best.min_loss == 0.1


def test_a_metric_without_validation_says_what_it_needs():
    metric = RocAucScore()
    model().fit(1, data(), 30, cbs=[metric], seed=0)
    with pytest.raises(InputError, match="needs a fit with `val_idx`"):
        metric.get_metric()


def test_callbacks_can_be_copied_and_used_again(tmp_path):
    cbs = [MetricLogger(), EarlyStopping(2), SaveBest(), CycleLR((1e-4, 1e-2)), SWA(1), RegPull(False)]
    first = fit(copy.deepcopy(cbs), 3, tmp_path=tmp_path)
    fit(cbs, 2, tmp_path=tmp_path)
    again = fit(cbs, 3, tmp_path=tmp_path)
    assert bits(again) == bits(first)
    assert again.last_fit.history.rows == first.last_fit.history.rows
