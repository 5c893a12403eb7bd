"""The furnace's spread-over-range loss and the linear correction that is learnt on the way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import tiny_fit
from diffdet.core.errors import InputError
from diffdet.tomography.benchmarks.ladle_furnace._correction import LinearCorrectionCallback
from diffdet.tomography.benchmarks.ladle_furnace.loss import SpreadRangeLoss
from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.optimisation.data.passives import PassiveYielder
from diffdet.tomography.optimisation.loss.loss import VolumeMSELoss

PREDS = {0.6: [0.50, 0.54, 0.55], 0.8: [0.61, 0.66], 1.0: [0.70, 0.79, 0.74, 0.75]}


class Predicts(Callback):
    """Gives the volumes of every batch these predictions, each attached to the detector's graph."""

    def __init__(self, values: list[float]) -> None:
        self.values = values
        self.losses: list[Tensor] = []
        self.seen: list[float] = []

    def on_x0_pred_end(self) -> None:
        fit = self._fit
        assert fit.volume_id is not None
        fit.pred = torch.tensor([self.values[fit.volume_id]]) + 0 * self._wrapper.volume.budget_weights.sum()

    def on_backwards_begin(self) -> None:
        assert self._fit.mean_loss is not None
        self.losses.append(self._fit.mean_loss.detach().clone())


class Sees(Callback):
    """Notes the predictions that come out of the callbacks before it."""

    def __init__(self) -> None:
        self.preds: list[float] = []

    def on_x0_pred_end(self) -> None:
        assert self._fit.pred is not None
        self.preds.append(float(self._fit.pred.detach()))


def fit(targets: list[float | None], cbs: list[Any], n_epochs: int = 1) -> Any:
    layout, _ = tiny_fit.layouts(1)[0]
    passives = PassiveYielder([(layout, None if t is None else torch.tensor([t])) for t in targets], shuffle=False)
    wrap = tiny_fit.wrapper(loss_func=VolumeMSELoss(target_budget=None))
    wrap.fit(n_epochs, len(targets), 30, 30, passives, None, cbs)
    return wrap


def expected_spread_over_range() -> float:
    groups = [torch.tensor(preds, dtype=torch.float64) for preds in PREDS.values()]
    return float(torch.stack([g.std() for g in groups]).mean() / torch.stack([g.mean() for g in groups]).std())


def rows() -> tuple[list[float], list[float]]:
    """Predictions and targets, with one more target that has a single prediction."""
    pairs = [(pred, target) for target, preds in PREDS.items() for pred in preds] + [(9.0, 1.2)]
    return [pred for pred, _ in pairs], [target for _, target in pairs]


def test_spread_over_range_replaces_the_mean_loss() -> None:
    values, targets = rows()
    predicts = Predicts(values)
    fit([*targets], [predicts, SpreadRangeLoss()])
    (loss,) = predicts.losses
    assert loss.shape == (1,)
    assert float(loss) == pytest.approx(expected_spread_over_range(), rel=1e-5)


def test_no_linear_correction_changes_the_spread_over_range() -> None:
    values, targets = rows()
    predicts = Predicts([3 * value - 7 for value in values])
    fit([*targets], [predicts, SpreadRangeLoss()])
    assert float(predicts.losses[0]) == pytest.approx(expected_spread_over_range(), rel=1e-4)


def test_spread_over_range_passes_gradients_on() -> None:
    class FromDetector(Callback):
        def on_x0_pred_end(self) -> None:
            fit = self._fit
            assert fit.volume_id is not None
            weights = self._wrapper.volume.budget_weights
            fit.pred = (fit.volume_id + 1) * torch.exp(weights[:1]) + fit.volume_id**3 * weights[1:2]

    gradients: list[Tensor] = []

    class Watches(Callback):
        def on_backwards_end(self) -> None:
            gradients.append(self._wrapper.volume.budget_weights.grad.clone())  # type: ignore[union-attr]

    fit([0.6, 0.6, 0.8, 0.8], [FromDetector(), SpreadRangeLoss(), Watches()])
    assert gradients[0][1].abs() > 1e-3


@pytest.mark.parametrize("targets", [[0.6, 0.6], [0.6, 0.8], [0.6, 0.6, 0.8]])
def test_spread_over_range_needs_two_targets_twice(targets: list[float]) -> None:
    with pytest.raises(InputError, match="at least two targets that have two predictions each"):
        fit([*targets], [Predicts([0.7] * 3), SpreadRangeLoss()])


def test_targets_are_needed() -> None:
    for callback in (SpreadRangeLoss(), LinearCorrectionCallback()):
        with pytest.raises(InputError, match="needs volumes with a target"):
            fit([None, None], [callback])
        with pytest.raises(InputError, match=r"predicts one number, .* got a prediction of shape \(2, 2, 2\)"):
            fit([0.6, 0.6], [callback])


def test_the_correction_is_the_exact_minimum_and_serves_from_the_next_batch_on() -> None:
    values, targets = rows()
    correction, sees = LinearCorrectionCallback(None, init_weight=2.0, init_bias=-1.0), Sees()
    wrap = fit([*targets], [Predicts(values), correction, sees], n_epochs=2)
    p, t = torch.tensor(values, dtype=torch.float64), torch.tensor(targets, dtype=torch.float64)
    design = torch.stack([p, torch.ones_like(p)], 1)
    weight, bias = torch.linalg.lstsq(design, t[:, None]).solution[:, 0].tolist()
    assert (float(correction.weight), float(correction.bias)) == pytest.approx((weight, bias), rel=1e-6)
    n = len(values)
    assert sees.preds[:n] == pytest.approx([2 * value - 1 for value in values], rel=1e-6)
    assert sees.preds[n:] == pytest.approx([weight * value + bias for value in values], rel=1e-5)
    # It serves predictions, too, and does not learn from them.
    before = correction.weight.clone()
    layout, _ = tiny_fit.layouts(1)[0]
    ((pred, _),) = wrap.predict(PassiveYielder([layout]), 30, 30, cbs=[Predicts([0.6]), correction])
    assert float(pred[0]) == pytest.approx(weight * 0.6 + bias, rel=1e-5)
    assert torch.equal(correction.weight, before)


def test_predictions_that_agree_leave_the_correction_alone() -> None:
    correction = LinearCorrectionCallback(None, 3.0, 0.5)
    fit([0.6, 0.8, 1.0], [Predicts([0.7, 0.7, 0.7]), correction])
    assert (float(correction.weight), float(correction.bias)) == (3.0, 0.5)
    with pytest.raises(InputError, match="`init_weight` must be finite"):
        LinearCorrectionCallback(None, float("nan"))


def test_the_correction_survives_a_checkpoint() -> None:
    correction, other = LinearCorrectionCallback(None, 3.0, 0.5), LinearCorrectionCallback()
    other.load_state_dict(correction.state_dict())
    assert (float(other.weight), float(other.bias)) == (3.0, 0.5)
