"""What the callbacks of this wing do."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

import tiny_fit
from diffdet.core.errors import InputError, NoHitsError, NoMuonsWarning, NotSupportedError
from diffdet.loop import Every
from diffdet.tomography.core import X0
from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.optimisation.callbacks.detector_callbacks import (
    PanelCentring,
    PanelUpdateLimiter,
    SigmoidPanelSmoothnessSchedule,
)
from diffdet.tomography.optimisation.callbacks.diagnostic_callbacks import HitRecord, ScatterRecord
from diffdet.tomography.optimisation.callbacks.eval_metric import EvalMetric
from diffdet.tomography.optimisation.callbacks.grad_callbacks import NoMoreNaNs
from diffdet.tomography.optimisation.callbacks.monitors import MetricLogger, PanelMetricLogger
from diffdet.tomography.optimisation.callbacks.opt_callbacks import EpochSave, OneCycle
from diffdet.tomography.optimisation.callbacks.pred_callbacks import (
    PredHandler,
    Save2HDF5PredHandler,
    VolumeTargetPredHandler,
)
from diffdet.tomography.optimisation.callbacks.warmup_callbacks import (
    CostCoefWarmup,
    OptConfig,
    PostWarmupCallback,
    WarmupCallback,
)
from diffdet.tomography.optimisation.data.passives import PassiveYielder
from diffdet.tomography.optimisation.loss.loss import VoxelX0Loss


def fit(
    cbs: list[Any], n_epochs: int = 1, n_volumes: int = 2, valid: int = 0, wrap: Any = None, passive_bs: int = 2
) -> Any:
    """A short fit; returns the wrapper."""
    wrap = tiny_fit.wrapper() if wrap is None else wrap
    val = PassiveYielder(tiny_fit.layouts(valid)) if valid else None
    wrap.fit(n_epochs, passive_bs, 40, 40, tiny_fit.passives(wrap.volume, n_volumes), val, cbs)
    return wrap


class Track(Callback):
    """Calls a function at an event and keeps what it returns."""

    def __init__(self, event: str, function: Any) -> None:
        self.values: list[Any] = []
        setattr(self, event, lambda: self.values.append(function(self._wrapper)))


def panel_parameters(wrap: Any, family: str) -> list[Tensor]:
    return [panel.parameter_families()[family] for panel in wrap.volume.yield_panels()]


# ---- warm-ups
def test_warm_ups_take_turns_and_then_free_the_detector() -> None:
    first, second = WarmupCallback(2), WarmupCallback(1)
    after = PostWarmupCallback()  # it comes first in the list, and is active all the same in the first free epoch
    track = Track(
        "on_volume_begin",
        lambda w: (
            w.fit_params.epoch,
            first.warmup_active,
            second.warmup_active,
            w.fit_params.skip_opt_step,
            after.active,
        ),
    )
    positions = Track("on_epoch_end", lambda w: panel_parameters(w, "xy_pos")[0].detach().clone())
    fit([after, first, second, track, positions], n_epochs=5, n_volumes=1)
    assert track.values == [
        (1, True, False, True, False),
        (2, True, False, True, False),
        (3, False, True, True, False),
        (4, False, False, False, True),
        (5, False, False, False, True),
    ]
    moved = [not torch.equal(a, b) for a, b in zip(positions.values, positions.values[1:], strict=False)]
    assert moved == [False, False, True, True]


def test_warm_ups_count_epochs_of_training_only() -> None:
    warm = WarmupCallback(1)
    seen = Track("on_epoch_end", lambda w: (w.fit_params.state, warm.epoch_cnt))
    fit([warm, seen], n_epochs=2, valid=1)
    assert seen.values == [("train", 1), ("valid", 1), ("train", 1), ("valid", 1)]


def test_a_warm_up_of_no_epochs_does_nothing() -> None:
    config = OptConfig(0, {"xy_pos_opt": 0.1})
    frozen = Track("on_volume_begin", lambda w: w.fit_params.skip_opt_step)
    wrap = fit([WarmupCallback(0), config, frozen])
    assert frozen.values == [False, False]
    assert config.lrs == {}
    assert wrap.get_opt_lr("xy_pos_opt") == 1e-3
    with pytest.raises(InputError, match="`n_warmup` must be 0 epochs or more"):
        WarmupCallback(-1)


def test_cost_coefficient_is_the_median_error_of_the_warm_up() -> None:
    loss = VoxelX0Loss(target_budget=3.0)
    errors = Track("on_volume_end", lambda w: float(loss.sub_losses["error"]))
    warm = CostCoefWarmup(2)
    fit([warm, errors], n_epochs=3, n_volumes=3, valid=1, wrap=tiny_fit.wrapper(loss_func=loss))
    training = [e for i, e in enumerate(errors.values) if i % 4 != 3][:6]
    assert float(loss.cost_coef) == pytest.approx(sorted(training)[2], rel=1e-6)
    with pytest.raises(InputError, match="needs a loss with `cost_coef`"):
        fit([CostCoefWarmup(1)], wrap=tiny_fit.wrapper(loss_func=lambda pred, volume: pred.mean()))


def test_cost_coefficient_needs_a_prediction() -> None:
    blind = Track("on_x0_pred_end", lambda w: setattr(w.fit_params, "pred", None))
    with (
        pytest.raises(NoHitsError, match="no volume gave a prediction in 1 warm-up epochs"),
        pytest.warns(NoMuonsWarning),
    ):
        fit([CostCoefWarmup(1), blind])


def test_learning_rates_are_wanted_distance_over_median_gradient() -> None:
    config = OptConfig(2, {"xy_pos_opt": 0.01, "budget_opt": 0.2})
    gradients = Track("on_backwards_end", lambda w: [p.grad.abs().clone() for p in panel_parameters(w, "xy_pos")])
    wrap = fit([config, gradients], n_epochs=2, n_volumes=4)
    seen = torch.cat([g for step in gradients.values for g in step])
    assert len(seen) == 2 * 2 * 6 * 2
    assert config.lrs["xy_pos_opt"] == pytest.approx(0.01 / float(seen.median()), rel=1e-6)
    assert wrap.get_opt_lr("xy_pos_opt") == config.lrs["xy_pos_opt"]
    assert wrap.get_opt_lr("z_pos_opt") == 1e-3, "what is not named keeps its rate"


def test_one_update_then_moves_by_the_wanted_distance() -> None:
    """In the median, for plain gradient descent, where the gradients of the next epoch are those of the warm-up."""
    from functools import partial

    sgd = partial(torch.optim.SGD, lr=1e-9)
    wrap = tiny_fit.wrapper(xy_pos_opt=sgd)
    moves: list[Tensor] = []

    class Same(Callback):
        """Gives every update the same gradients, and looks at the step."""

        def on_backwards_end(self) -> None:
            for k, p in enumerate(panel_parameters(self._wrapper, "xy_pos")):
                p.grad = torch.tensor([1.0, 3.0]) * (k + 1)
            self.before = [p.detach().clone() for p in panel_parameters(self._wrapper, "xy_pos")]

        def on_step_end(self) -> None:
            if not self._fit.skip_opt_step:
                now = panel_parameters(self._wrapper, "xy_pos")
                moves.append(torch.cat([a.detach() - b for a, b in zip(now, self.before, strict=True)]).abs())

    fit([Same(), OptConfig(1, {"xy_pos_opt": 0.01})], n_epochs=2, wrap=wrap)
    assert float(moves[0].median()) == pytest.approx(0.01, rel=1e-5)


def test_a_median_gradient_of_zero_is_told() -> None:
    def silence(wrap: Any) -> None:
        for p in panel_parameters(wrap, "xy_pos"):
            p.grad.zero_()

    with pytest.raises(InputError, match="median gradient of `xy_pos_opt` is 0 over 1 warm-up epochs"):
        fit([Track("on_backwards_end", silence), OptConfig(1, {"xy_pos_opt": 0.01})])
    with pytest.raises(InputError, match=r"`rates` must name optimisers .* got 'xy_pos'. Did you mean"):
        fit([OptConfig(1, {"xy_pos": 0.01})])
    with pytest.raises(InputError, match=r"`rates\['a'\]` must be greater than 0"):
        OptConfig(1, {"a": 0.0})


# ---- schedules
def rates(cbs: list[Any], n_epochs: int, n_volumes: int = 4, **options: Any) -> list[float]:
    """Learning rate that every update of xy uses."""
    track = Track("on_backwards_end", lambda w: w.get_opt_lr("xy_pos_opt"))
    fit([*cbs, track], n_epochs, n_volumes, **options)
    return track.values


def test_one_cycle_goes_up_then_down() -> None:
    """2 updates an epoch, 2 epochs up, 4 epochs down: exact at beginning, turn and end."""
    cycle = OneCycle("xy_pos_opt", 2, init_lr=0.01, mid_lr=0.1, final_lr=0.001)
    found = rates([cycle], 6)
    up = [0.01 + 0.09 * (1 - math.cos(math.pi * k / 4)) / 2 for k in range(4)]
    down = [0.1 - 0.099 * (1 - math.cos(math.pi * k / 7)) / 2 for k in range(8)]
    assert found == pytest.approx(up + down, rel=1e-12)
    assert (found[0], found[4], found[-1]) == (0.01, 0.1, 0.001)


def test_one_cycle_begins_behind_the_warm_ups() -> None:
    cycle = OneCycle("xy_pos_opt", 1, 0.01, None, 0.1, None, 0.001)
    found = rates([cycle, WarmupCallback(2)], 5)
    assert found[:4] == [0.01] * 4
    assert found[4:] == pytest.approx([0.01, 0.055, 0.1, 0.07525 - 0.000_0, 0.02575, 0.001], rel=1e-3)


def test_one_cycle_of_what_a_warm_up_has_found() -> None:
    config = OptConfig(1, {"xy_pos_opt": 1e-6})
    cycle = OneCycle("xy_pos_opt", 1, init_lr=2, mid_lr=10, final_lr=0.2, relative=True)
    found = rates([config, cycle], 4)
    assert found[:2] == [1e-3, 1e-3]
    base = config.lrs["xy_pos_opt"]
    assert (found[2], found[4], found[-1]) == pytest.approx((2 * base, 10 * base, 0.2 * base), rel=1e-12)


def test_one_cycle_of_momentum() -> None:
    cycle = OneCycle("xy_span_opt", 1, init_mom=0.9, mid_mom=0.5)
    track = Track("on_backwards_end", lambda w: w.get_opt_mom("xy_span_opt"))
    wrap = fit([cycle, track], 3, 4)
    assert track.values == pytest.approx([0.9, 0.7, 0.5, 0.6, 0.8, 0.9], abs=1e-12)
    assert wrap.get_opt_lr("xy_span_opt") == 1e-3


def test_one_cycle_without_a_way_up() -> None:
    assert rates([OneCycle("xy_pos_opt", 0, 1.0, None, 0.5, None, 0.1)], 1) == [0.5, 0.1]


def test_one_cycle_counts_an_incomplete_last_batch() -> None:
    found = rates([OneCycle("xy_pos_opt", 1, 0.01, None, 0.1, None, 0.001)], 2, n_volumes=3)
    assert (len(found), found[0], found[2], found[3]) == (4, 0.01, 0.1, 0.001)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"init_lr": 0.1}, "`init_lr` and `mid_lr` must be given together"),
        ({"final_mom": 0.1}, "`init_mom` and `mid_mom` must be given together"),
        ({"init_lr": 0.1, "mid_lr": -1.0}, "`learning rates` must be greater than 0"),
        ({"init_mom": 0.1, "mid_mom": 1.0}, r"momenta must lie in \[0, 1\)"),
        ({"warmup_length": -1}, "`warmup_length` must be 0 epochs or more"),
    ],
)
def test_one_cycle_checks_its_arguments(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        OneCycle(**({"opt_name": "xy_pos_opt", "warmup_length": 1} | arguments))


def test_schedules_need_their_optimiser() -> None:
    with pytest.raises(InputError, match=r"`opt_name` must be one of .* got 'xy_opt'"):
        fit([OneCycle("xy_opt", 1, 1.0, None, 2.0)])


def test_smoothness_falls_in_equal_ratios() -> None:
    schedule = SigmoidPanelSmoothnessSchedule((1.0, 0.01))
    smooth = Track("on_epoch_begin", lambda w: {float(p.smooth) for p in w.volume.yield_panels()})
    wrap = tiny_fit.wrapper(volume=tiny_fit.volume(smooth=0.5))
    fit([WarmupCallback(1), schedule, smooth], n_epochs=4, valid=1, wrap=wrap)
    found = [next(iter(values)) for values in smooth.values]
    assert all(len(values) == 1 for values in smooth.values)
    assert found == pytest.approx([1.0, 1.0, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01], rel=1e-6)
    with pytest.raises(InputError, match="needs panels with a smoothness"):
        fit([SigmoidPanelSmoothnessSchedule((1, 0.1))], wrap=tiny_fit.wrapper(volume=tiny_fit.volume(smooth=None)))
    with pytest.raises(InputError, match="`smooth_range` must be greater than 0"):
        SigmoidPanelSmoothnessSchedule((1.0, 0.0))


def test_epochs_are_saved(tmp_path: Path) -> None:
    wrap = tiny_fit.wrapper()
    trn, val = tiny_fit.passives(wrap.volume, 2), PassiveYielder(tiny_fit.layouts(1))
    wrap.fit(2, 2, 30, 30, trn, val, [EpochSave()], tmp_path / "weights")
    assert sorted(p.name for p in (tmp_path / "weights").iterdir()) == ["volume_state_1.pt", "volume_state_2.pt"]
    other = tiny_fit.wrapper()
    other.load(tmp_path / "weights" / "volume_state_2.pt")
    pairs = zip(wrap.volume.parameters(), other.volume.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


# ---- gradients
def test_gradients_that_are_not_finite_become_zero_and_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    repair = NoMoreNaNs()
    seen: list[Any] = []

    def spoil(wrap: Any) -> None:
        xy, z = panel_parameters(wrap, "xy_pos"), panel_parameters(wrap, "z_pos")
        xy[0].grad[1] = math.nan
        z[2].grad[0] = -math.inf
        xy[1].grad = None
        wrap.volume.budget_weights.grad[:2] = math.nan
        seen.append(xy[0].grad[0].clone())

    look = Track(
        "on_backwards_end", lambda w: [None if p.grad is None else p.grad.clone() for p in w.volume.parameters()]
    )
    with caplog.at_level(logging.WARNING):
        fit([Track("on_backwards_end", spoil), repair, look], n_epochs=2)
    assert repair.n_repaired == {"above.0.xy_pos": 2, "above.2.z_pos": 2, "budget_weights": 4}
    gradients = [g for g in look.values[0] if g is not None]
    assert all(torch.isfinite(g).all() for g in gradients)
    assert any(bool((g == 0).any()) for g in gradients)
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "epoch 1: 4 gradient elements were not finite and set to zero",
        "epoch 2: 4 gradient elements were not finite and set to zero",
    ]


def test_a_loss_that_is_not_finite_is_survived_with_repaired_gradients() -> None:
    def spoil(wrap: Any) -> None:
        wrap.fit_params.mean_loss = wrap.fit_params.mean_loss * math.nan

    repair = NoMoreNaNs()
    wrap = fit([Track("on_volume_batch_end", spoil), repair])
    assert sum(repair.n_repaired.values()) == 6 * 5 + 6
    assert all(torch.isfinite(p).all() for p in wrap.volume.parameters())


# ---- detectors
def test_centred_panels_keep_a_storage_each_and_move_once() -> None:
    """In the original, four panels shared one storage, and a step of 0.01 moved them by 0.04."""
    from functools import partial

    wrap = tiny_fit.wrapper(xy_pos_opt=partial(torch.optim.SGD, lr=1.0))
    steps: list[Tensor] = []

    class Push(Callback):
        def on_backwards_end(self) -> None:
            for p in panel_parameters(self._wrapper, "xy_pos"):
                p.grad = torch.tensor([0.01, 0.0])
            self.before = torch.stack([p.detach().clone() for p in panel_parameters(self._wrapper, "xy_pos")])

        def on_step_end(self) -> None:
            steps.append(torch.stack([p.detach() for p in panel_parameters(self._wrapper, "xy_pos")]) - self.before)

    fit([PanelCentring(), Push()], n_epochs=3, wrap=wrap)
    xy = panel_parameters(wrap, "xy_pos")
    assert len({p.data_ptr() for p in xy}) == len(xy) == 6
    assert all(torch.equal(p, xy[0]) for p in xy[:3])
    expected = torch.tensor([-0.01, 0.0]).expand(6, 2)
    assert all(torch.allclose(step, expected, atol=1e-7) for step in steps[1:])


def test_centring_takes_the_mean_of_each_layer() -> None:
    wrap = tiny_fit.wrapper()
    for name in wrap.opts:
        wrap.set_opt_lr(0.0, name)
    xy = panel_parameters(wrap, "xy_pos")
    with torch.no_grad():
        for k, p in enumerate(xy):
            p.copy_(torch.tensor([0.1 * k, 0.2]))
    fit([WarmupCallback(1), PanelCentring()], wrap=wrap)
    assert float(xy[1].detach()[0]) == pytest.approx(0.1), "nothing moves in a warm-up"
    fit([PanelCentring()], wrap=wrap)
    assert [float(p.detach()[0]) for p in xy] == pytest.approx([0.1] * 3 + [0.4] * 3)


def test_centring_needs_panels_with_a_position(monkeypatch: pytest.MonkeyPatch) -> None:
    wrap = tiny_fit.wrapper()
    panel = next(iter(wrap.volume.yield_panels()))
    monkeypatch.setattr(panel, "parameter_families", lambda: {"z_pos": panel.z})
    with pytest.raises(NotSupportedError, match="has 3 panels, 2 with a position"):
        fit([PanelCentring()], wrap=wrap)


def test_updates_of_panels_are_limited_component_by_component() -> None:
    wrap = tiny_fit.wrapper()
    for name, rate in {"xy_pos_opt": 1.0, "z_pos_opt": 1.0, "xy_span_opt": 1.0}.items():
        wrap.set_opt_lr(rate, name)
    moves: dict[str, Tensor] = {}

    class Push(Callback):
        def on_backwards_end(self) -> None:
            for family, size in {"xy_pos": 10.0, "z_pos": -10.0, "xy_span": 10.0}.items():
                for p in panel_parameters(self._wrapper, family):
                    p.grad = torch.full_like(p, size)
            self.before = {
                f: torch.stack(panel_parameters(self._wrapper, f)).detach() for f in ("xy_pos", "z_pos", "xy_span")
            }

        def on_step_end(self) -> None:
            for family, before in self.before.items():
                moves[family] = torch.stack(panel_parameters(self._wrapper, family)).detach() - before

    fit([PanelUpdateLimiter((0.1, 0.2), 0.05), Push()], wrap=wrap, n_volumes=1)
    assert torch.allclose(moves["xy_pos"], torch.tensor([-0.1, -0.2]).expand(6, 2), atol=1e-6)
    assert torch.allclose(moves["z_pos"], torch.tensor([0.05]).expand(6, 1), atol=1e-6)
    assert bool((moves["xy_span"] < -0.5).all()), "what has no limit moves freely"
    with pytest.raises(InputError, match="limit of z_pos"):
        PanelUpdateLimiter(max_z_step=0.0)


# ---- predictions
def test_predictions_and_targets() -> None:
    wrap = tiny_fit.wrapper()
    passives = PassiveYielder(tiny_fit.layouts(3), shuffle=False)
    by_voxel = wrap.predict(passives, 50, 50)
    assert [(p.shape, t.shape) for p, t in by_voxel] == [((2, 2, 2), (2, 2, 2))] * 3
    by_volume = wrap.predict(passives, 50, 50, VolumeTargetPredHandler())
    assert [t.tolist() for _, t in by_volume] == [[pytest.approx(float(x0))] for _, x0 in tiny_fit.layouts(3)]
    x02id = {X0["lead"]: 0, X0["iron"]: 1, X0["aluminium"]: 2}
    by_class = wrap.predict(passives, 50, 50, VolumeTargetPredHandler(x02id))
    assert [t.tolist() for _, t in by_class] == [[0], [1], [2]]
    bare = PassiveYielder([function for function, _ in tiny_fit.layouts(1)])
    with pytest.raises(InputError, match="volume 0 has none"):
        wrap.predict(bare, 50, 50, VolumeTargetPredHandler())
    assert wrap.fit_params is None, "an error leaves no prediction in progress"


def test_volumes_without_a_prediction_keep_their_place() -> None:
    blind = Track(
        "on_x0_pred_end", lambda w: setattr(w.fit_params, "pred", None) if w.fit_params.volume_id == 1 else None
    )
    with pytest.warns(NoMuonsWarning, match="volume 1 has no prediction"):
        preds = tiny_fit.wrapper().predict(PassiveYielder(tiny_fit.layouts(3)), 50, 50, PredHandler(), [blind])
    assert [bool(np.isnan(p).all()) for p, _ in preds] == [False, True, False]
    assert preds[1][0].shape == (2, 2, 2)


def hdf5(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][:] for name in file}


def test_predictions_in_a_file(tmp_path: Path) -> None:
    wrap, path = tiny_fit.wrapper(), tmp_path / "preds.h5"
    passives = PassiveYielder(tiny_fit.layouts(3), shuffle=False)
    assert wrap.predict(passives, 50, 50, Save2HDF5PredHandler(path, use_volume_target=False)) == []
    kept = wrap.predict(passives, 50, 50)
    found = hdf5(path)
    assert {name: (rows.shape, rows.dtype) for name, rows in found.items()} == {
        "preds": ((3, 2, 2, 2), np.float32),
        "targs": ((3, 2, 2, 2), np.float32),
    }
    np.testing.assert_array_equal(found["preds"], [p for p, _ in kept])
    wrap.predict(passives, 50, 50, Save2HDF5PredHandler(path, use_volume_target=False))
    assert len(hdf5(path)["preds"]) == 6, "rows are added"
    np.testing.assert_array_equal(hdf5(path)["preds"][:3], found["preds"])
    x02id = {X0["lead"]: 0, X0["iron"]: 1, X0["aluminium"]: 2}
    handler = Save2HDF5PredHandler(path, use_volume_target=True, overwrite=True, x02id=x02id, compression=None)
    wrap.predict(passives, 50, 50, handler)
    assert hdf5(path)["targs"].tolist() == [[0.0], [1.0], [2.0]]
    with pytest.raises(InputError, match=r"holds targs of shape \(1,\); got one of shape \(2, 2, 2\)"):
        wrap.predict(passives, 50, 50, Save2HDF5PredHandler(path, use_volume_target=False))
    assert hdf5(path)["targs"].tolist() == [[0.0], [1.0], [2.0]], "an error leaves the file as it was"
    path.write_text("not HDF5")
    with pytest.raises(InputError, match="`path` must name an HDF5 file"):
        wrap.predict(passives, 50, 50, Save2HDF5PredHandler(path, use_volume_target=False))
    assert [p.name for p in tmp_path.iterdir()] == ["preds.h5"]


# ---- metrics
class Score(EvalMetric):
    """A metric with given values."""

    def __init__(self, values: list[float], lower: bool, name: str | None = None, main: bool = True) -> None:
        super().__init__(lower, name, main)
        self.values = values

    def on_epoch_end(self) -> None:
        if self._fit.state == "valid":
            self.metric = self.values[self._fit.epoch - 1]


def test_one_metric_is_the_main_one() -> None:
    a, b, c = Score([1.0], True), Score([1.0], True, "other"), Score([1.0], False, main=False)
    assert (a.name, b.name, a.get_metric()) == ("Score", "other", None)
    fit([a, b, c], valid=1)
    assert (a.main_metric, b.main_metric, c.main_metric) == (True, False, False)
    assert a.get_metric() == 1.0


def test_losses_and_metrics_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    score, log = Score([3.0, 9.0, 5.0], lower=False, name="score"), MetricLogger()
    wrap = fit([score, log], n_epochs=3, n_volumes=3, valid=3)
    history = wrap.last_fit.history
    losses, metrics = log.get_loss_history()
    assert (len(losses["Training"]), len(losses["Validation"])) == (6, 3)
    assert losses["Validation"] == pytest.approx(history.column("loss", "valid"))
    assert metrics == {"score": [3.0, 9.0, 5.0]}
    assert log.best_loss == min(losses["Validation"])
    assert log.val_epoch_results == (losses["Validation"][-1], -5.0)
    assert log.get_results(loaded_best=True) == {"loss": losses["Validation"][1], "score": 9.0}
    assert log.get_results(loaded_best=False) == {"loss": losses["Validation"][2], "score": 5.0}
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("Epoch 2: Training = ")
    assert lines[1].endswith(f"| Validation = {losses['Validation'][1]:.3E} | score = 9.000E+00")


def test_shares_of_the_loss_add_up() -> None:
    log = tiny_fit.Quiet()
    fit([log], n_epochs=2, valid=2)
    totals = [sum(shares) for shares in zip(*log.sub_losses.values(), strict=True)]
    assert set(log.sub_losses) == {"error", "cost"}
    assert totals == pytest.approx([1.0, 1.0], rel=1e-5)


def test_without_validation_only_training_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    log = MetricLogger()
    fit([log], n_epochs=2)
    assert log.get_loss_history()[0]["Validation"] == []
    assert log.get_results(loaded_best=True) == {}
    assert capsys.readouterr().out.count("Training = ") == 2


def test_batches_without_prediction_are_infinite() -> None:
    blind = Track("on_x0_pred_end", lambda w: setattr(w.fit_params, "pred", None))
    log = tiny_fit.Quiet()
    with pytest.warns(NoMuonsWarning):
        fit([blind, log], valid=1)
    assert log.loss_vals == {"Training": [math.inf], "Validation": [math.inf]}


@pytest.mark.parametrize("kind", [MetricLogger, PanelMetricLogger])
def test_plots_and_their_animation(kind: type[MetricLogger], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib as mpl
    from PIL import Image

    mpl.use("Agg")
    drawn: list[int] = []
    update_plot = kind.update_plot

    def counted(self: MetricLogger) -> None:
        update_plot(self)
        assert self._figure is not None
        drawn.append(len(self._figure.axes))

    monkeypatch.setattr(kind, "update_plot", counted)
    score, log = Score([1.0, 2.0, 3.0], lower=True), kind(gif_length=1.0, show_plots=True)
    wrap = tiny_fit.wrapper()
    trn, val = tiny_fit.passives(wrap.volume, 2), PassiveYielder(tiny_fit.layouts(1))
    wrap.fit(2, 2, 30, 30, trn, val, [score, log], tmp_path)
    assert drawn == [3 if kind is MetricLogger else 3 + 8] * 2
    assert [p.name for p in tmp_path.iterdir()] == ["optimisation_history.gif"]
    with Image.open(tmp_path / "optimisation_history.gif") as picture:
        assert picture.n_frames == 2  # type: ignore[attr-defined]
    assert log._figure is None, "the figure is closed"
    with pytest.raises(InputError, match="`gif_length`"):
        kind(gif_length=0.0)


# ---- records
def test_scatterings_inside_the_volume_are_recorded() -> None:
    record, total = ScatterRecord(), Track("on_scatter_end", lambda w: int(w.fit_params.sb.get_scatter_mask().sum()))
    wrap = tiny_fit.wrapper()
    with pytest.raises(NoHitsError, match="`ScatterRecord` has recorded nothing yet"):
        record.get_record()
    wrap.predict(PassiveYielder(tiny_fit.layouts(1)), 300, 100, cbs=[record, total])
    points = record.get_record()
    assert points.shape == (sum(total.values), 3)
    low, high = wrap.volume.passive_box
    assert bool((points >= torch.tensor(low)).all() & (points < torch.tensor(high)).all())
    layers = record._layer(points)
    assert torch.equal(layers, ((high[2] - points[:, 2]) / 0.25).floor().long())
    assert set(layers.tolist()) == {0, 1}
    wrap.predict(PassiveYielder(tiny_fit.layouts(1)), 100, 100, cbs=[record])
    assert len(record.record) == 1, "every prediction begins a new record"


def test_hits_are_recorded_and_told_by_panel() -> None:
    record = HitRecord()
    wrap = tiny_fit.wrapper()
    wrap.predict(PassiveYielder(tiny_fit.layouts(1)), 200, 100, cbs=[record])
    hits = record.get_record()
    assert hits.shape[1:] == (6, 3)
    heights = hits[0, :, 2]
    assert record._layer(hits)[:6].tolist() == [0, 1, 2, 3, 4, 5]
    assert heights.tolist() == sorted(heights.tolist(), reverse=True)


def test_records_as_data_frames_need_pandas() -> None:
    record = ScatterRecord()
    tiny_fit.wrapper().predict(PassiveYielder(tiny_fit.layouts(1)), 100, 100, cbs=[record])
    try:
        import pandas  # noqa: F401
    except ImportError:
        with pytest.raises(NotSupportedError, match="needs pandas: pip install pandas"):
            record.get_record(as_df=True)
    else:
        assert list(record.get_record(as_df=True).columns) == ["x", "y", "z", "layer"]  # type: ignore[union-attr]


def test_callbacks_of_the_loop_can_join() -> None:
    epochs: list[int] = []
    fit([Every(1, lambda state: epochs.append(state.epoch))], n_epochs=2)
    assert epochs == [1, 2]
