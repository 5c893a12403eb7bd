"""Losses that would ignore weights, targets that a loss cannot take, and fits resumed with other arguments."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from diffdet.core.errors import CheckpointError, InputError, NonFiniteError
from diffdet.loop.update import Update
from diffdet.nn.callbacks.model_callbacks import SWA
from diffdet.nn.callbacks.monitors import MetricLogger
from diffdet.nn.callbacks.opt_callbacks import LRFinder
from diffdet.nn.models.model import Model
from diffdet.nn.models.model_builder import ModelBuilder
from diffdet.nn.training import distributed
from diffdet.nn.training.fit_params import FitParams
from diffdet.nn.training.step import compute_loss
from nn.tiny import FEATS, bits, builder, data, model


# -------------------------------------------------------------------------------------------------------------- weights
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("make", [nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss, nn.BCEWithLogitsLoss])
def test_losses_of_torch_that_know_no_weights_weigh_each_event(make, reduction):
    generator = torch.Generator().manual_seed(0)
    pred, target = (torch.rand(6, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    weights = torch.tensor([1, 2, 1, 1, 3, 1], dtype=torch.float64).unsqueeze(1)
    rows = torch.repeat_interleave(torch.arange(6), weights.flatten().long())
    loss = make(reduction=reduction)
    factor = len(rows) / 6 if reduction == "mean" else 1
    weighted = compute_loss(loss, pred, target, weights)
    torch.testing.assert_close(weighted, compute_loss(loss, pred[rows], target[rows], None) * factor)
    assert loss.reduction == reduction


@pytest.mark.parametrize("make", [nn.NLLLoss, nn.CrossEntropyLoss])
def test_weights_of_events_are_not_taken_for_those_of_classes(make):
    """Three events and three classes: the shapes would fit."""
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(3, 3, generator=generator, dtype=torch.float64).log_softmax(1)
    target, weights = torch.tensor([0, 2, 1]), torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64)
    expected = -(weights[:, 0] * pred[torch.arange(3), target]).mean()
    torch.testing.assert_close(compute_loss(make(), pred, target, weights), expected)


def test_a_loss_without_a_place_for_weights_is_refused():
    pred = torch.zeros(3, 1)
    with pytest.raises(
        InputError, match="`loss` must have an attribute `weights` to weight samples; function has none"
    ):
        compute_loss(nn.functional.mse_loss, pred, pred, torch.ones(3, 1))
    assert compute_loss(nn.functional.mse_loss, pred, pred, None) == 0
    with pytest.raises(InputError, match="must be reduced by 'mean' or 'sum' to be weighted; got 'none'"):
        compute_loss(nn.MSELoss(reduction="none"), pred, pred, torch.ones(3, 1))


def test_the_loss_of_an_average_is_weighted_as_the_validation_is():
    """Weights that validation leaves out must not decide whether the average is the better model."""
    swa, logger = SWA(2), MetricLogger()
    model().fit(2, data(), 30, val_idx=0, train_on_weights=False, cbs=[swa, logger], seed=0)
    assert swa.loss == pytest.approx(logger.loss_vals["Validation"][-1], rel=1e-6)  # the average of one epoch


def test_an_average_with_batch_norm_takes_folds_that_leave_one_event_over():
    swa = SWA(1)
    model(bn=True).fit(1, data(n=121), 30, val_idx=0, cbs=[swa], seed=0)
    assert np.isfinite(swa.loss)


# -------------------------------------------------------------------------------------------------------------- targets
@pytest.mark.parametrize("wrong", [3, -1, 0.7, np.nan])
def test_targets_of_no_class_are_refused(wrong):
    folds = data("multiclass")
    targets = folds.folds[1]["targets"].astype(float)
    targets[4] = wrong
    folds.folds[1]["targets"] = targets
    with pytest.raises(
        InputError, match=f"must be the numbers of 3 classes, 0 to 2; 1 of 120 are not, such as {wrong}"
    ):
        model("multiclass").fit(1, folds, 30, seed=0)
    with pytest.raises(InputError, match="must be the numbers of 3 classes"):
        model("multiclass").evaluate(folds.folds[1]["inputs"], targets)


@pytest.mark.parametrize("loss", ["auto", "bce"])
def test_targets_of_no_label_are_refused(loss):
    folds = data()
    targets = np.where(folds.folds[0]["targets"] > 0, 1, -1)
    with pytest.raises(InputError, match=r"`targets` must be from 0 to 1 for a binary cross-entropy; .* such as -1"):
        model(loss=loss).evaluate(folds.folds[0]["inputs"], targets)
    folds.folds[2]["targets"] = targets
    with pytest.raises(InputError, match="`targets` must be from 0 to 1"):
        model(loss=loss).fit(1, folds, 30, val_idx=2, seed=0)


@pytest.mark.parametrize("loss", ["auto", "bce"])
def test_inputs_that_are_not_finite_end_a_classification_like_any_fit(loss):
    """The loss of torch would raise an error of its own, on a GPU one that ends the process."""
    folds = data()
    folds.folds[1]["inputs"][5, 2] = np.nan
    fitted = model(loss=loss)
    with pytest.raises(NonFiniteError, match=r"the loss is not finite at epoch 1, phase train, batch .*, fold 1"):
        fitted.fit(1, folds, 30, seed=0)
    assert all(np.isfinite(values).all() for values in bits(fitted).values())


def test_a_mask_holds_true_and_false():
    with pytest.raises(InputError, match="`mask` must be true where an object exists"):
        model().predict(np.zeros((2, 4)), mask=np.array([[1, 2], [0, 1]]))


# -------------------------------------------------------------------------------------------------- arguments and files
@pytest.mark.parametrize("bs", [0, -1, 2.5])
def test_sizes_of_batches_are_checked(bs):
    for ask in (lambda: model().predict(np.zeros((2, 4)), bs=bs), lambda: model().evaluate(data(), bs=bs)):
        with pytest.raises(InputError, match=f"`bs` must be a whole number of at least 1; got {bs}"):
            ask()


def test_a_seed_is_a_whole_number():
    with pytest.raises(InputError, match=r"`seed` must be a whole number, or None; got 1\.5"):
        model().fit(1, data(), 30, seed=1.5)


def test_arguments_that_a_block_needs_are_named():
    with pytest.raises(
        InputError, match=r"`model_args\['body'\]` must give `FullyConnected` 'width'; got {'depth': 2}"
    ):
        Model(ModelBuilder("regression", 1, FEATS, {"body": {"depth": 2}}))


def test_a_network_of_other_layers_is_refused_key_by_key_and_the_model_stays(tmp_path):
    """Not by its optimiser, which knows no names."""
    model().save(tmp_path / "model.h5")
    found = model(bn=True, seed=3)
    net, before = found.net, bits(found)
    for other in (None, builder(bn=True)):
        with pytest.raises(CheckpointError, match=r"missing '1.layers.0.2.weight': expected shape \(12,\)"):
            found.load(tmp_path / "model.h5", other)
    assert found.net is net
    assert bits(found) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bs": 40}, "`bs` must be as in the fit to resume, 30; got 40"),
        ({"val_idx": 1}, "`trn_idxs` must be as in the fit to resume"),
        ({"seed": 1}, "`seed` must be as in the fit to resume, 0; got 1"),
        ({"train_on_weights": False}, "`train_on_weights` must be as in the fit"),
        ({"opt_args": {"opt": "sgd", "lr": 0.1}}, "`opt` must be as in the fit to resume, 'Adam'; got 'SGD'"),
    ],
)
def test_a_fit_is_not_resumed_with_other_arguments(settings, message, tmp_path):
    """They would give neither the old fit nor the new one."""
    common = {"bs": 30, "val_idx": 0, "seed": 0, "checkpoint": tmp_path / "checkpoints"}
    model().fit(1, data(), **common)
    changed = {**common, **settings}
    fitted = model(**({"opt_args": changed.pop("opt_args")} if "opt_args" in changed else {}))
    with pytest.raises(CheckpointError, match=message):
        fitted.fit(2, data(), resume=True, **changed)


def test_the_range_of_learning_rates_ends_at_the_same_batch_in_every_process(monkeypatch):
    """Each process sees its own part of a batch: the mean over all decides."""
    monkeypatch.setattr(distributed, "mean_over_processes", lambda values: dict.fromkeys(values, 7.0))
    finder = LRFinder((1e-3, 1e-2))
    model().fit(1, data(), 30, trn_idxs=[0], cbs=[finder], seed=0)
    assert finder.losses == [7.0] * 4


def test_processes_exchange_nothing_where_an_overflow_took_the_gradients():
    net = nn.Linear(2, 1)
    callback = distributed.AverageGradients(net)
    callback.loop = SimpleNamespace(state=FitParams(update=Update(torch.optim.SGD(net.parameters()))))  # type: ignore[assignment]
    callback.on_backwards_end()  # without a process group, an exchange would fail
    assert all(p.grad is None for p in net.parameters())
