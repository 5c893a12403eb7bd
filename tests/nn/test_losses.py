"""Losses in which every event counts with its own weight."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from diffdet.core.errors import InputError, ShapeError
from diffdet.kernels import sample_losses
from diffdet.nn import losses
from diffdet.nn.training.step import compute_loss


@pytest.fixture(scope="module")
def case(shared_dir):
    text = (shared_dir / "spec" / "nn-numeric-cases.json").read_text(encoding="utf-8")
    return json.loads(text)["cases"]["losses"]


def doubles(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("name", ["WeightedMSE", "WeightedMAE"])
def test_regression_losses_weigh_each_event(case, name):
    loss = getattr(losses, name)()
    pred, target, weights = doubles(case["pred"]), doubles(case["target"]), doubles(case["weights"])
    assert loss(pred, target).item() == pytest.approx(case[name]["unweighted"], rel=1e-12)
    weighted = compute_loss(loss, pred, target, weights).item()
    assert weighted == pytest.approx(case[name]["correct_mean(w*err)"], rel=1e-12)
    assert weighted != pytest.approx(case[name]["LUMIN_during_fit_(weights set after construction)"], rel=1e-3)


def test_cross_entropy_of_classes_weighs_each_event(case):
    known = case["WeightedCCE"]
    scores, target = doubles(known["logits"]), torch.tensor(known["target"])
    loss = losses.WeightedCCE()
    assert loss(scores, target).item() == pytest.approx(known["unweighted"], rel=1e-12)
    for pred in (scores, scores.log_softmax(1)):  # scores, and what the tail of multiclass models gives
        weighted = compute_loss(loss, pred, target.unsqueeze(1), doubles(case["weights"])).item()
        assert weighted == pytest.approx(known["correct_mean(w*nll)"], rel=1e-12)


@pytest.mark.parametrize("make", [nn.BCELoss, losses.WeightedBCE])
def test_binary_cross_entropy_weighs_each_event(case, make):
    known, loss = case["BCELoss"], make()
    weighted = compute_loss(loss, doubles(known["pred"]), doubles(known["target"]), doubles(case["weights"]))
    assert weighted.item() == pytest.approx(known["weighted_mean"], rel=1e-12)
    assert getattr(loss, "weight", None) is None  # weights do not outlive the batch
    assert getattr(loss, "weights", None) is None


def test_the_loss_of_an_objective_is_the_documented_one(shared_dir):
    text = (shared_dir / "spec" / "nn-numeric-cases.json").read_text(encoding="utf-8")
    for key, name in json.loads(text)["cases"]["ModelBuilder.auto_loss"]["result"].items():
        objective, n_out = key.split(",n_out=")
        assert losses.loss_of(objective, int(n_out)).__name__ == name
    with pytest.raises(InputError, match=r"`objective` must be .*'multiclass'"):
        losses.loss_of("binary", 1)


def test_fractional_squared_error_divides_by_the_size_of_the_target():
    pred, target = doubles([[2.0], [30.0], [0.5]]), doubles([[1.0], [-20.0], [0.0]])
    loss = losses.WeightedFractionalMSE(floor=0.1)
    assert loss(pred, target).item() == pytest.approx((1.0 + 2500.0 / 20.0 + 0.25 / 0.1) / 3.0, rel=1e-12)
    with pytest.raises(InputError, match="`floor`"):
        losses.WeightedFractionalMSE(floor=0.0)


def test_targets_of_another_shape_are_refused_instead_of_compared_with_every_event():
    pred = torch.zeros(4, 1)
    with pytest.raises(ShapeError, match=r"`target` must have the shape of the predictions \(4, 1\); got \(4,\)"):
        losses.WeightedMSE()(pred, torch.zeros(4))
    with pytest.raises(ShapeError, match="one class number for each prediction"):
        losses.WeightedCCE()(torch.zeros(4, 3), torch.zeros(4, 3))
    with pytest.raises(ShapeError, match="`weights` must hold one number for each of the 4 samples"):
        losses.WeightedMAE(torch.ones(3))(pred, pred)


@pytest.mark.parametrize(
    "errors",
    [sample_losses.squared_errors, sample_losses.binary_cross_entropies, sample_losses.fractional_squared_errors],
)
def test_gradients_are_those_of_the_weighted_mean(errors, seed):
    generator = torch.Generator().manual_seed(seed)
    pred = torch.rand(5, 2, dtype=torch.float64, generator=generator).mul(0.8).add(0.1).requires_grad_()
    target = torch.rand(5, 2, dtype=torch.float64, generator=generator)
    weights = torch.rand(5, dtype=torch.float64, generator=generator)
    torch.autograd.gradcheck(lambda p: sample_losses.weighted_mean(errors(p, target), weights), pred)


def test_an_event_of_weight_two_is_worth_two_events(dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    pred, target = (torch.rand(6, 1, dtype=dtype, generator=generator) for _ in range(2))
    weights = torch.tensor([1, 2, 1, 1, 3, 1], dtype=dtype).unsqueeze(1)
    rows = torch.repeat_interleave(torch.arange(6), weights.flatten().long())
    for make in (losses.WeightedMSE, losses.WeightedMAE, losses.WeightedBCE):
        weighted = compute_loss(make(), pred, target, weights) * 6
        repeated = compute_loss(make(), pred[rows], target[rows], None) * len(rows)
        torch.testing.assert_close(weighted, repeated)
