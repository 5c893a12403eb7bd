"""Volume wrappers: optimisers, files, predictions, and what a seed fixes."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tiny_fit
from diffdet.core.errors import CheckpointError, FileDamagedError, InputError, NonFiniteError, StorageError
from diffdet.loop import StopOnNonFinite
from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.optimisation.callbacks.data_callbacks import MuonResampler
from diffdet.tomography.optimisation.callbacks.pred_callbacks import PredHandler
from diffdet.tomography.optimisation.data.passives import PassiveYielder
from diffdet.tomography.optimisation.loss.loss import VoxelX0Loss
from diffdet.tomography.optimisation.wrapper.volume_wrapper import (
    ArbVolumeWrapper,
    HeatMapVolumeWrapper,
    PanelVolumeWrapper,
)
from diffdet.tomography.volume.layer import PanelDetectorLayer, PassiveLayer
from diffdet.tomography.volume.panel import DetectorPanel
from diffdet.tomography.volume.volume import Volume

SGD = partial(torch.optim.SGD, lr=0.1)


# ---- optimisers
def test_every_family_of_parameters_has_its_optimiser() -> None:
    wrap = tiny_fit.wrapper()
    assert list(wrap.opts) == ["xy_pos_opt", "z_pos_opt", "xy_span_opt", "budget_opt"]
    panels = list(wrap.volume.yield_panels())
    xy = wrap.opts["xy_pos_opt"].param_groups[0]["params"]
    assert [id(p) for p in xy] == [id(panel.parameter_families()["xy_pos"]) for panel in panels]
    assert wrap.opts["budget_opt"].param_groups[0]["params"] == [wrap.volume.budget_weights]
    assert wrap.get_param_count() == 6 * 5 + 6
    next(iter(panels)).z.requires_grad_(False)
    assert (wrap.get_param_count(), wrap.get_param_count(trainable=False)) == (35, 36)
    assert [layer.pos for layer in wrap.get_detectors()] == ["above", "below"]
    assert wrap.device == torch.device("cpu")


def test_learning_rate_and_momentum() -> None:
    wrap = tiny_fit.wrapper()
    wrap.set_opt_lr(5.0, "z_pos_opt")
    wrap.set_opt_mom(0.25, "z_pos_opt")
    wrap.set_opt_mom(0.75, "xy_span_opt")
    assert (wrap.get_opt_lr("z_pos_opt"), wrap.get_opt_mom("z_pos_opt")) == (5.0, 0.25)
    assert wrap.get_opt_mom("xy_span_opt") == 0.75
    assert wrap.opts["xy_span_opt"].param_groups[0]["betas"] == (0.75, 0.999)
    with pytest.raises(InputError, match=r"`opt` must be one of .*; got 'z_pos'. Did you mean 'z_pos_opt'"):
        wrap.get_opt_lr("z_pos")
    wrap.opts["z_pos_opt"] = torch.optim.Adagrad([wrap.volume.budget_weights])
    with pytest.raises(InputError, match="has no momentum"):
        wrap.set_opt_mom(0.1, "z_pos_opt")


def test_what_cannot_be_optimised_is_refused() -> None:
    with pytest.raises(InputError, match="`budget_opt` needs a volume with a budget"):
        tiny_fit.wrapper(volume=tiny_fit.volume(budget=None), budget_opt=SGD)
    with pytest.raises(InputError, match=r"no parameters 'mu' to optimise; they have \['xy_pos', 'xy_span', 'z_pos'\]"):
        HeatMapVolumeWrapper(tiny_fit.volume(), mu_opt=SGD, norm_opt=SGD, sig_opt=SGD, z_pos_opt=SGD, loss_func=None)


class MapPanel(DetectorPanel):
    """A panel that declares the families of a heat map."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.mu, self.norm, self.sig = (nn.Parameter(torch.ones(2)) for _ in range(3))

    def parameter_families(self) -> dict[str, nn.Parameter]:
        return {"mu": self.mu, "norm": self.norm, "sig": self.sig, "z_pos": self.z}


def test_heat_maps_are_known_by_their_families(tmp_path: Path) -> None:
    def build() -> Volume:
        lw = torch.tensor([0.5, 0.5])
        layers = [
            PanelDetectorLayer(
                pos,
                lw=lw,
                z=top,
                size=0.1,
                panels=[MapPanel(res=1e4, eff=0.9, init_xyz=(0.2, 0.2, top - 0.05), init_xy_span=(1, 1))],
            )
            for pos, top in (("above", 0.7), ("below", 0.1))
        ]
        return Volume(nn.ModuleList([layers[0], PassiveLayer(lw, 0.6, 0.5), layers[1]]))

    options: dict[str, Any] = dict.fromkeys(("mu_opt", "norm_opt", "sig_opt", "z_pos_opt"), SGD)
    wrap = HeatMapVolumeWrapper(build(), **options, loss_func=None)
    assert {name: len(opt.param_groups[0]["params"]) for name, opt in wrap.opts.items()} == dict.fromkeys(options, 2)
    with torch.no_grad():
        wrap.volume.get_submodule("layers.0.panels.0").mu.fill_(3.0)  # type: ignore[union-attr, operator]
    wrap.save(tmp_path / "map")
    again = HeatMapVolumeWrapper.from_save(tmp_path / "map", volume=build(), **options, loss_func=None)
    assert again.volume.state_dict()["layers.0.panels.0.mu"].tolist() == [3.0, 3.0]


# ---- files
def moved(wrap: PanelVolumeWrapper) -> PanelVolumeWrapper:
    """A wrapper behind an epoch of training."""
    wrap.fit(1, 2, 50, 50, tiny_fit.passives(wrap.volume, 4), None)
    return wrap


def same(a: PanelVolumeWrapper, b: PanelVolumeWrapper) -> bool:
    parameters = [torch.equal(x, y) for x, y in zip(a.volume.parameters(), b.volume.parameters(), strict=True)]
    return all(parameters) and all(
        str(a.opts[name].state_dict()) == str(b.opts[name].state_dict()) for name in {*a.opts, *b.opts}
    )


def test_save_and_load_restore_detectors_and_all_optimisers(tmp_path: Path) -> None:
    wrap, name = moved(tiny_fit.wrapper()), str(tmp_path / "detector.pt")
    wrap.save(name)
    other = tiny_fit.wrapper(seed=9)
    assert not same(wrap, other)
    other.load(name)
    assert same(wrap, other)
    scales = [[p.budget_scale.detach() for p in w.volume.yield_panels()] for w in (wrap, other)]  # type: ignore[attr-defined]
    assert all(torch.allclose(a, b) for a, b in zip(*scales, strict=True)), "the budget is shared out anew"
    sgd = partial(torch.optim.SGD, lr=1e-3, momentum=0.5)
    made = PanelVolumeWrapper.from_save(
        name,
        volume=tiny_fit.volume(),
        xy_pos_opt=sgd,
        z_pos_opt=sgd,
        xy_span_opt=partial(torch.optim.Adam, lr=1e-3),
        budget_opt=sgd,
        loss_func=None,
    )
    assert same(wrap, made)
    assert b"pickle" not in Path(name).read_bytes()


def test_optimisers_of_any_name_are_restored(tmp_path: Path) -> None:
    def build() -> tuple[Volume, dict[str, torch.optim.Optimizer]]:
        vol = tiny_fit.volume()
        return vol, {"all of them": torch.optim.Adam(vol.parameters(), lr=0.01)}

    vol, opts = build()
    wrap = ArbVolumeWrapper(vol, opts=opts, loss_func=VoxelX0Loss(target_budget=None), seed=1)
    wrap.fit(1, 2, 50, 50, tiny_fit.passives(vol, 2), None)
    wrap.save(tmp_path / "a")
    vol, opts = build()
    again = ArbVolumeWrapper.from_save(tmp_path / "a", volume=vol, opts=opts, loss_func=None)
    assert again.opts is opts
    assert str(opts["all of them"].state_dict()) == str(wrap.opts["all of them"].state_dict())
    assert opts["all of them"].state_dict()["state"][0]["exp_avg"].abs().sum() > 0


def test_files_of_torch_are_read_without_executing_anything(tmp_path: Path) -> None:
    wrap = moved(tiny_fit.wrapper())
    content = {"volume": wrap.volume.state_dict(), **{name: opt.state_dict() for name, opt in wrap.opts.items()}}
    torch.save(content, tmp_path / "foreign.pt")
    other = tiny_fit.wrapper(seed=9)
    other.load(tmp_path / "foreign.pt")
    assert same(wrap, other)

    class Gadget:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"volume": Gadget()}, tmp_path / "evil.pt")
    with pytest.raises(FileDamagedError, match="holds more than tensors"):
        other.load(tmp_path / "evil.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Gadget()))
    with pytest.raises(FileDamagedError):
        other.load(tmp_path / "bare.pt")
    assert not (tmp_path / "executed").exists()
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="'volume'"):
        other.load(tmp_path / "list.pt")


def test_what_does_not_fit_is_not_loaded(tmp_path: Path) -> None:
    wrap = tiny_fit.wrapper()
    wrap.save(tmp_path / "a")
    with pytest.raises(CheckpointError, match="saved optimisers are"):
        tiny_fit.wrapper(volume=tiny_fit.volume(budget=None)).load(tmp_path / "a")
    with pytest.raises(CheckpointError, match="does not fit"):
        tiny_fit.wrapper(volume=tiny_fit.volume(n_panels=2)).load(tmp_path / "a")
    with pytest.raises(StorageError, match="it is missing"):
        wrap.load(tmp_path / "b")
    with pytest.raises(StorageError, match="create its folder first"):
        wrap.save(tmp_path / "no" / "a")
    content = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(content[:-3])
    with pytest.raises(FileDamagedError):
        wrap.load(tmp_path / "a")


# ---- predictions
def test_predict_leaves_its_arguments_alone() -> None:
    wrap = tiny_fit.wrapper()
    wrap.volume.layers[0].eval()
    modes = [module.training for module in wrap.volume.modules()]
    yielder, cbs, handler = PassiveYielder(tiny_fit.layouts(4)), [MuonResampler()], PredHandler()
    state = torch.get_rng_state()
    preds = wrap.predict(yielder, 60, 20, handler, cbs)
    assert yielder.shuffle is True
    assert len(cbs) == 1
    assert [module.training for module in wrap.volume.modules()] == modes
    assert preds is handler.get_preds()
    assert len(preds) == 4
    assert [float(target[0, 0, 0]) for _, target in preds] == [float(x0) for _, x0 in tiny_fit.layouts(4)]
    assert all(p.grad is None for p in wrap.volume.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    again = wrap.predict(yielder, 60, 20, cbs=cbs)
    assert again is not preds, "there is no shared default handler"
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(preds, again, strict=True)), "the same muons every time"
    other = wrap.predict(yielder, 60, 20, cbs=cbs, seed=5)
    assert not any(np.array_equal(a, b) for (a, _), (b, _) in zip(preds, other, strict=True))


@pytest.mark.filterwarnings("ignore::diffdet.core.errors.NoMuonsWarning")  # a batch may be one muon that cannot be used
@pytest.mark.parametrize("batch", [1, 19, 100, 1500])
def test_predictions_do_not_depend_on_the_size_of_batches(batch: int) -> None:
    n = 40 if batch == 1 else 1500
    wrap = tiny_fit.wrapper()
    passives = PassiveYielder(tiny_fit.layouts(1))
    (whole, _), (cut, _) = (wrap.predict(passives, n, size, cbs=[MuonResampler()])[0] for size in (n, min(batch, n)))
    np.testing.assert_allclose(cut, whole, rtol=2e-4)


def test_prediction_asks_inferrers_to_forget_muons_and_training_does_not() -> None:
    class Watches(Callback):
        def __init__(self) -> None:
            self.retained: list[bool] = []

        def on_x0_pred_end(self) -> None:
            assert self._fit.volume_inferrer is not None
            self.retained.append(self._fit.volume_inferrer.retain_muons)

    wrap, watches = tiny_fit.wrapper(), Watches()
    wrap.fit(1, 1, 20, 20, tiny_fit.passives(wrap.volume, 1), PassiveYielder(tiny_fit.layouts(1)), [watches])
    wrap.predict(PassiveYielder(tiny_fit.layouts(1)), 20, 20, cbs=[watches])
    assert watches.retained == [True, False, False]


# ---- what a seed fixes
def parameters_after(seed: int | None = 1, **changes: Any) -> list[Any]:
    wrap = tiny_fit.wrapper(seed=seed)
    options: dict[str, Any] = {"cbs": [MuonResampler()], "val": PassiveYielder(tiny_fit.layouts(2)), "mu_bs": 60}
    options |= changes
    trn = tiny_fit.passives(wrap.volume, 3)
    wrap.fit(2, 2, 60, options["mu_bs"], trn, options["val"], options["cbs"])
    return [p.detach().numpy().tobytes() for p in wrap.volume.parameters()]


def test_one_seed_gives_one_result_whatever_else_goes_on() -> None:
    reference = parameters_after()
    torch.manual_seed(123)
    assert parameters_after() == reference

    class Predicts(Callback):
        def on_epoch_end(self) -> None:
            torch.rand(3)
            self._wrapper.predict(PassiveYielder(tiny_fit.layouts(1)), 20, 20)

    assert parameters_after(val=None) == reference, "validation changes nothing"
    assert parameters_after(cbs=[MuonResampler(), Predicts()]) == reference, "predictions in between change nothing"
    assert parameters_after(seed=2) != reference
    torch.manual_seed(5)
    first = parameters_after(seed=None)
    torch.manual_seed(5)
    assert parameters_after(seed=None) == first, "torch.manual_seed is enough"
    assert parameters_after(seed=None) != first


def test_validation_judges_by_the_same_muons_every_epoch() -> None:
    wrap = tiny_fit.wrapper()
    for opt in wrap.opts:
        wrap.set_opt_lr(0.0, opt)
    wrap.fit(3, 2, 60, 60, tiny_fit.passives(wrap.volume, 2), PassiveYielder(tiny_fit.layouts(3)))
    assert wrap.last_fit is not None
    losses = wrap.last_fit.history.column("loss", "valid")
    assert losses[0] == losses[1] == losses[2]
    training = wrap.last_fit.history.column("loss", "train")
    assert len(set(training)) == 3


# ---- numbers that are not finite
@pytest.mark.parametrize("where", ["pred", "loss", "grad"])
def test_what_is_not_finite_ends_the_fit_before_it_reaches_the_detector(where: str) -> None:
    class Spoils(Callback):
        def on_x0_pred_end(self) -> None:
            fit = self._fit
            if where == "pred" and fit.volume_id == 3:
                assert fit.pred is not None
                fit.pred = fit.pred * float("nan")

        def on_volume_batch_end(self) -> None:
            fit = self._fit
            if where == "loss" and fit.volume_id == 3:
                assert fit.mean_loss is not None
                fit.mean_loss = fit.mean_loss + float("inf")

        def on_backwards_end(self) -> None:
            if where == "grad" and self._fit.volume_id == 3:
                self._wrapper.volume.budget_weights.grad[0] = float("nan")  # type: ignore[index]

    states: list[Any] = []

    class Watches(Callback):
        def on_volume_batch_begin(self) -> None:
            states.append([p.detach().clone() for p in wrap.volume.parameters()])

    wrap = tiny_fit.wrapper()
    with pytest.raises(NonFiniteError, match="not finite after backward") as caught:
        wrap.fit(2, 2, 60, 60, tiny_fit.passives(wrap.volume, 6), None, [Spoils(), Watches()])
    assert len(states) == 2, "the second batch of volumes was the last"
    assert all(torch.equal(a, b) for a, b in zip(states[1], wrap.volume.parameters(), strict=True))
    assert caught.value.details["volume"] == 3
    assert caught.value.details["replay key"] == (1, "train", 1, 3)
    assert wrap.fit_params is None
    assert wrap.last_fit is not None
    assert "not finite" in (wrap.last_fit.stop_reason or "")


def test_the_caller_may_bring_another_guard() -> None:
    class Spoils(Callback):
        def on_backwards_end(self) -> None:
            self._wrapper.volume.budget_weights.grad.fill_(float("nan"))  # type: ignore[union-attr]

    wrap = tiny_fit.wrapper()
    before = [p.detach().clone() for p in wrap.volume.parameters()]
    wrap.fit(1, 1, 30, 30, tiny_fit.passives(wrap.volume, 3), None, [Spoils(), StopOnNonFinite(n_in_a_row=9)])
    assert all(torch.equal(a, b) for a, b in zip(before, wrap.volume.parameters(), strict=True))


# ---- arguments
def test_arguments_are_checked_before_anything_runs() -> None:
    wrap = tiny_fit.wrapper()
    trn = tiny_fit.passives(wrap.volume, 2)
    for name, counts in {
        "n_epochs": (0, 1, 1, 1),
        "passive_bs": (1, 0, 1, 1),
        "n_mu_per_volume": (1, 1, 0, 1),
        "mu_bs": (1, 1, 1, -3),
    }.items():
        with pytest.raises(InputError, match=f"`{name}` must be a whole number of at least 1"):
            wrap.fit(*counts, trn, None)
    with pytest.raises(InputError, match="`mu_bs` must be a whole number"):
        wrap.predict(trn, 10, 2.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="`cbs` must hold callbacks; got int"):
        wrap.fit(1, 1, 1, 1, trn, None, [3])  # type: ignore[list-item]
    wrap.loss_func = None
    with pytest.raises(InputError, match="`loss_func` must be given"):
        wrap.fit(1, 1, 1, 1, trn, None)


def test_detectors_are_brought_into_bounds_after_updates_only() -> None:
    wrap = tiny_fit.wrapper()
    panel = next(iter(wrap.volume.yield_panels()))
    with torch.no_grad():
        panel.z.fill_(0.9)  # above its layer

    class Freezes(Callback):
        def on_train_begin(self) -> None:
            self._fit.skip_opt_step = True

    wrap.fit(1, 2, 40, 40, tiny_fit.passives(wrap.volume, 2), None, [Freezes()])
    assert float(panel.z.detach()) == pytest.approx(0.9), "a warm-up keeps the detector as it is"
    wrap.fit(1, 2, 40, 40, tiny_fit.passives(wrap.volume, 2), None)
    assert 0.798 < float(panel.z.detach()) < 0.8


def test_fits_write_nothing_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_fit.wrapper().fit(1, 1, 20, 20, tiny_fit.passives(tiny_fit.volume(), 1), None)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    wrap = tiny_fit.wrapper()
    wrap.fit(1, 1, 20, 20, tiny_fit.passives(wrap.volume, 1), None, progress=True)
    assert "all 1 epochs are done" in capsys.readouterr().err
