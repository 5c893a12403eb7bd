"""The check of gradients finds those that are right, and each way in which they can be wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from diffdet.core.errors import InputError, NoHitsError
from diffdet.tomography.inference.volume import PanelX0Inferrer
from diffdet.tomography.muon.generation import MuonGenerator2016
from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.optimisation.callbacks.grad_callbacks import NoMoreNaNs
from diffdet.tomography.optimisation.checking import ReplayedUpdate, check_gradients
from diffdet.tomography.optimisation.checking.compare import _labels
from diffdet.tomography.optimisation.checking.non_finite import find_non_finite
from diffdet.tomography.optimisation.data.passives import PassiveYielder
from diffdet.tomography.optimisation.loss.loss import VoxelX0Loss
from diffdet.tomography.optimisation.wrapper.volume_wrapper import ArbVolumeWrapper
from diffdet.tomography.volume.panel import DetectorPanel
from diffdet.tomography.volume.volume import Volume
from scenes import lead_in_beryllium, volume


class _Panels(ArbVolumeWrapper):
    """A wrapper without optimisers."""

    def __init__(self, made: Volume, loss: Callable[[Tensor, Volume], Tensor] | None, **options):
        generator = MuonGenerator2016((0.0, 1.0), (0.0, 1.0))
        generator.dtype = torch.float64
        super().__init__(made, opts={}, loss_func=loss, mu_generator=generator, seed=5, **options)


def small(**options) -> Volume:
    return volume(voxel=0.2, above=(0.98, 0.85), below=(0.15, 0.02), shift=0.03, span=(0.8, 0.9), **options)


def replayed(made: Volume, *, loss=None, cbs=(), n_mu=200, mu_bs=200, **options) -> ReplayedUpdate:
    passives = PassiveYielder([lead_in_beryllium], shuffle=False)
    wrapper = _Panels(made, VoxelX0Loss(target_budget=2.0) if loss is None else loss, **options)
    return ReplayedUpdate(wrapper, passives, n_mu_per_volume=n_mu, mu_bs=mu_bs, passive_bs=1, cbs=cbs)


def verdicts(update: ReplayedUpdate, **options) -> dict[str, str]:
    with update:
        found = check_gradients(update, n_updates=options.pop("n_updates", 8), **options)
    return {family.family: family.verdict for family in found.families}


# ----------------------------------------------------------------------------------------------------------- the replay
def test_equal_numbers_give_equal_losses_and_others_others():
    with replayed(small()) as update:
        first, second = update.value(0), update.value(1)
        assert first != second
        assert update.value(0) == first
        assert update(0).item() == first


def test_the_wrapper_is_left_as_it_was():
    made, loss = small(budget=3.0), VoxelX0Loss(target_budget=2.0)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made.eval()
    with replayed(made, loss=loss) as update:
        check_gradients(update, n_updates=4)
        assert loss.cost_coef is not None
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    assert not any(module.training for module in made.modules())
    assert loss.cost_coef is None
    assert update.wrapper.fit_params is None


def test_callbacks_make_the_loss_and_repair_no_gradient(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Doubled(Callback):
        def on_volume_batch_end(self) -> None:
            self._fit.mean_loss = 2 * self._fit.mean_loss
            assert self._fit.cb_savepath is not None
            (self._fit.cb_savepath / "written").write_text("here")

        def on_backwards_end(self) -> None:
            raise AssertionError

    with replayed(small()) as plain, replayed(small(), cbs=[Doubled(), NoMoreNaNs()]) as doubled:
        assert doubled.value(3) == 2 * plain.value(3)
        folder = doubled.state.cb_savepath
        assert folder is not None
        assert folder.is_dir()
    assert not folder.exists()
    assert not list(tmp_path.iterdir())


def test_a_wrapper_without_loss_is_refused():
    made = small()
    with pytest.raises(InputError, match="loss_func"):
        ReplayedUpdate(
            _Panels(made, None), PassiveYielder([lead_in_beryllium]), n_mu_per_volume=9, mu_bs=9, passive_bs=1
        )


def test_a_detector_that_sees_nothing_is_told():
    blind = replayed(small(), partial_volume_inferrer=_Blind)
    with blind, pytest.raises(NoHitsError, match="none of the 1 volumes"):
        check_gradients(blind, n_updates=4)


class _Blind:
    def __init__(self, volume):
        self.retain_muons = True

    def add_scatters(self, scatters):
        pass

    def get_prediction(self):
        return None


# ---------------------------------------------------------------------------------------------------- right and wrong
@pytest.mark.parametrize("kind", ["gaussian", "sigmoid"])
def test_gradients_of_our_panels_are_exact(kind):
    with replayed(small(kind=kind)) as update:
        found = check_gradients(update, n_updates=4)
    assert [f.family for f in found.families] == ["xy_pos", "z_pos", "xy_span"]
    for family in found.families:
        assert family.verdict == "exact"
        assert family.worst_relative_error < 1e-4
        assert family.cosine == pytest.approx(1, abs=1e-8)
        assert family.n_parameters == (4 if family.family == "z_pos" else 8)
    assert found.non_finite is None


def test_budget_weights_are_checked_too_and_heights_are_counted_through_layers():
    with replayed(small(budget=3.0)) as update:
        found = check_gradients(update, n_updates=4)
    budget = found.families[-1]
    assert (budget.family, budget.n_parameters, budget.verdict) == ("budget_weights", 4, "exact")
    assert budget.worst_parameter.startswith("budget_weights[")


class _Detached(DetectorPanel):
    """Its sigma carries no graph: the mistake of the published package."""

    @staticmethod
    def response(xy, **parameters):
        res, eff = DetectorPanel.response(xy, **parameters)
        return res.detach(), eff


class _Twice(DetectorPanel):
    """Twice the gradient by the span."""

    def response_parameters(self):
        given = super().response_parameters()
        return given | {"span": 2 * given["span"] - given["span"].detach()}


class _Stairs(DetectorPanel):
    """Learns with hard edges in 3 cm steps: nothing changes over a short way."""

    def response_parameters(self):
        given = super().response_parameters()
        return given | {"span": given["span"] + (given["span"] / 5e-4).round().detach() * 4e-4}


class _Share(PanelX0Inferrer):
    """Predicts the share of 200 muons that are used: a strong signal."""

    def get_prediction(self):
        return torch.cat([self.compute_efficiency(s) for s in self.scatter_batches]).sum() / 200


def shares(made: Volume) -> ReplayedUpdate:
    return replayed(made, loss=lambda pred, volume: 1 - pred, partial_volume_inferrer=_Share)


class _Unused(DetectorPanel):
    """Declares a parameter that nothing depends on."""

    def __init__(self, **options):
        super().__init__(**options)
        self.colour = nn.Parameter(torch.ones(2))

    def parameter_families(self):
        return super().parameter_families() | {"colour": self.colour}


class _Rooted(DetectorPanel):
    """Masks a square root after taking it: the derivative at its edge is infinite times zero."""

    @staticmethod
    def response(xy, **parameters):
        res, eff = DetectorPanel.response(xy, **parameters)
        outside = (xy - parameters["centre"]).abs() - parameters["span"] / 4
        return res + torch.where(outside > 0, (outside * (outside > 0)).sqrt(), 0.0), eff


class _Divided(PanelX0Inferrer):
    """Divides by zero for one muon."""

    def compute_efficiency(self, scatters):
        return super().compute_efficiency(scatters) / (1 - (scatters.mu.ids == 37).double())


def made_of(kind: type[DetectorPanel]) -> Volume:
    made = small()
    for panel in made.yield_panels():
        panel.__class__ = kind
    return made


def test_a_detached_uncertainty_is_found():
    with replayed(made_of(_Detached), n_mu=400) as update:
        found = {f.family: f for f in check_gradients(update, n_updates=8).families}
    for family in ("xy_pos", "xy_span"):
        assert found[family].verdict in ("wrong", "undecided")
        assert not found[family].agrees
    assert found["xy_pos"].cosine < 0.9
    assert found["xy_pos"].worst_parameter.endswith(("[0]", "[1]"))


def test_a_gradient_of_twice_the_size_is_wrong_and_its_bias_is_measured():
    with shares(made_of(_Twice)) as update:
        found = {f.family: f for f in check_gradients(update, n_updates=8).families}
    assert found["xy_pos"].verdict == "exact"
    span = found["xy_span"]
    assert span.verdict == "wrong"
    assert span.cosine == pytest.approx(1, abs=1e-6)
    assert span.bias == pytest.approx(1, abs=0.1)


def test_stairs_are_found_over_a_wide_step_only():
    with shares(made_of(_Stairs)) as update:
        found = {f.family: f for f in check_gradients(update, n_updates=8).families}
    assert found["xy_span"].worst_relative_error < 1e-3
    assert found["xy_span"].verdict == "jumps"
    assert found["xy_span"].bias == pytest.approx(-0.44, abs=0.1)  # of 1.8 parts it misses 0.8


def test_what_averages_out_is_right_on_average():
    """A detached factor that is 1 on average: the gradient of an update is wrong, that of many is right."""

    class Shaken(VoxelX0Loss):
        def forward(self, pred: Tensor, volume: Volume) -> Tensor:
            loss = super().forward(pred, volume)
            return loss + (loss * 1e3).sin().detach() * 0 + 1e-2 * (loss - loss.detach()) * (loss.detach() * 1e6).sin()

    with replayed(small(), loss=Shaken(target_budget=None)) as update:
        found = check_gradients(update, n_updates=8)
    assert {f.verdict for f in found.families} == {"on average"}
    for family in found.families:
        assert abs(family.bias) < 0.02


def test_parameters_without_effect_are_told():
    made = small()
    for panel in made.yield_panels():
        panel.__class__ = _Unused
        panel.colour = nn.Parameter(torch.ones(2, dtype=torch.float64))
    found = verdicts(replayed(made), n_updates=4)
    assert found == {"xy_pos": "exact", "z_pos": "exact", "xy_span": "exact", "colour": "no effect"}


# ---------------------------------------------------------------------------------------------------------- not finite
def test_the_first_operation_and_muon_of_a_gradient_that_is_not_finite():
    with replayed(made_of(_Rooted), mu_bs=70) as update:
        found = check_gradients(update, n_updates=4)
    watched = _Watched()
    with replayed(made_of(_Rooted)) as update:
        update(0, watched)
    culprit = found.non_finite
    assert culprit is not None
    assert (culprit.when, culprit.value, culprit.volume) == ("backward", "nan", 0)
    assert "sqrt" in culprit.operation.lower()
    assert "(outside * (outside > 0)).sqrt()" in culprit.code
    assert culprit.function == "response"
    assert culprit.file.endswith("test_checking.py")
    assert {f.verdict for f in found.families} == {"not finite"}
    # backwards, the lower detector comes first
    assert culprit.muon == watched.first_inside
    assert f"muon {culprit.muon}" in str(culprit)


class _Watched(Callback):
    """First muon that passes the middle of a lower panel, where the root's argument is clamped."""

    def on_mu_batch_end(self) -> None:
        mu = self._fit.mu
        hits = mu.hit_batch("below")
        panels = list(self._wrapper.volume.get_detectors()[1].yield_panels())
        inside = [
            (hits.gen_xy[k] - p.xy[:, None]).abs() <= p.get_scaled_xy_span()[:, None] / 4
            for k, p in enumerate(sorted(panels, key=lambda p: -p.z.item()))
        ]
        clamped = torch.stack(inside).any(0).any(0)
        self.first_inside = int(mu.ids[clamped][0])


@pytest.mark.parametrize("mu_bs", [200, 30])
def test_the_first_operation_and_muon_of_a_loss_that_is_not_finite(mu_bs):
    with replayed(small(), mu_bs=mu_bs, partial_volume_inferrer=_Divided) as update:
        found = check_gradients(update, n_updates=4)
    culprit = found.non_finite
    assert culprit is not None
    assert (culprit.when, culprit.value, culprit.volume, culprit.muon) == ("forward", "inf", 0, 37)
    assert "div" in culprit.operation
    assert "/ (1 - (scatters.mu.ids == 37)" in culprit.code
    assert culprit.as_mapping()["replay_key"] == list(culprit.replay_key)
    assert found.loss is None


def test_where_all_is_finite_nothing_is_found():
    with replayed(small(), n_mu=50) as update:
        assert find_non_finite(update, 0, list(update.wrapper.volume.parameters())) is None


# ------------------------------------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_updates": 2}, "n_updates"),
        ({"n_updates": 5}, "even"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
    ],
)
def test_numbers_out_of_range_are_refused(options, words):
    with replayed(small(), n_mu=20) as update, pytest.raises(InputError, match=words):
        check_gradients(update, **options)


def test_single_precision_is_refused():
    with replayed(small(dtype=torch.float32), n_mu=20) as update, pytest.raises(InputError, match="float64"):
        check_gradients(update)


def test_a_detector_with_nothing_to_learn_is_refused():
    made = small()
    made.requires_grad_(False)
    with replayed(made, n_mu=20) as update, pytest.raises(InputError, match="learnable"):
        check_gradients(update)


def test_a_loss_that_is_cut_off_from_the_panels_is_refused():
    with (
        replayed(small(), n_mu=50, loss=lambda pred, volume: pred.detach().sum()) as update,
        pytest.raises(InputError, match="detaches"),
    ):
        check_gradients(update)


def test_names_of_single_numbers():
    assert _labels("a", torch.zeros(1)) == ["a"]
    assert _labels("a", torch.zeros(2)) == ["a[0]", "a[1]"]
    assert _labels("a", torch.zeros(2, 2)) == ["a[0, 0]", "a[0, 1]", "a[1, 0]", "a[1, 1]"]
