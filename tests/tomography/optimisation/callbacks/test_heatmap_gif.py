"""The animation of a heat map, in a small fit of heat-map detectors."""

import re
from functools import partial

import pytest
import torch
from PIL import Image
from torch import nn

from diffdet.core.errors import InputError
from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.optimisation.callbacks.heatmap_gif import HeatMapGif
from diffdet.tomography.optimisation.data.layouts import BlockLayout
from diffdet.tomography.optimisation.data.passives import PassiveYielder
from diffdet.tomography.optimisation.loss.loss import VoxelX0Loss
from diffdet.tomography.optimisation.wrapper.volume_wrapper import HeatMapVolumeWrapper
from diffdet.tomography.volume.heatmap import DetectorHeatMap
from diffdet.tomography.volume.layer import PanelDetectorLayer, PassiveLayer
from diffdet.tomography.volume.panel import DetectorPanel
from diffdet.tomography.volume.volume import Volume

LAYOUT = BlockLayout(0.3528, 0.005612, (0.3, 0.3, 0.3), (0.7, 0.7, 0.5))


def make_volume(kind=DetectorHeatMap):
    lw = torch.tensor([1.0, 1.0])

    def panel(z):
        span = (0.0, 1.0) if kind is DetectorHeatMap else (1.0, 1.0)
        more = {"n_cluster": 5} if kind is DetectorHeatMap else {}
        return kind(res=1e3, eff=0.9, init_xyz=(0.5, 0.5, z), init_xy_span=span, **more)

    def detector(position, top):
        return PanelDetectorLayer(position, lw=lw, z=top, size=0.2, panels=[panel(top - 0.01), panel(top - 0.15)])

    passives = [PassiveLayer(lw, 0.6 - 0.1 * k, 0.1) for k in range(4)]
    return Volume(nn.ModuleList([detector("above", 0.8), *passives, detector("below", 0.2)]))


def make_wrapper():
    sgd = partial(torch.optim.SGD, lr=1e-3)
    return HeatMapVolumeWrapper(
        make_volume(),
        mu_opt=sgd,
        norm_opt=sgd,
        sig_opt=sgd,
        z_pos_opt=partial(torch.optim.SGD, lr=1e-5),
        loss_func=VoxelX0Loss(target_budget=None),
        seed=1,
    )


def fit(wrapper, folder, callback, n_epochs, **more):
    wrapper.fit(
        n_epochs,
        passive_bs=1,
        n_mu_per_volume=300,
        mu_bs=300,
        trn_passives=PassiveYielder([LAYOUT]),
        val_passives=PassiveYielder([LAYOUT]),
        cbs=[callback],
        cb_savepath=folder,
        **more,
    )


def test_a_fit_of_heat_maps_changes_them_and_leaves_an_animation(tmp_path):
    wrapper, callback = make_wrapper(), HeatMapGif("map.gif")
    before = next(wrapper.volume.yield_panels()).mu.detach().clone()
    fit(wrapper, tmp_path, callback, 3)
    after = next(wrapper.volume.yield_panels())
    assert [len(callback.history), *callback.history[0]["mu"].shape] == [4, 5, 2]
    assert torch.equal(callback.history[0]["mu"], before)
    assert torch.equal(callback.history[-1]["mu"], after.mu)
    assert all(not torch.equal(a["mu"], b["mu"]) for a, b in zip(callback.history, callback.history[1:], strict=False))
    with Image.open(tmp_path / "map.gif") as picture:
        assert picture.n_frames == 4
        assert picture.size == (400, 400)
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".png"] == []


class Stop(Callback):
    """Ends a fit by an error after some epochs of training."""

    def __init__(self, after):
        self.after = after

    def on_epoch_begin(self):
        if self._fit.epoch > self.after:
            raise RuntimeError("stopped")


def test_history_goes_on_where_a_fit_was_stopped(tmp_path):
    whole = HeatMapGif()
    fit(make_wrapper(), tmp_path, whole, 3, checkpoint=tmp_path / "whole")
    wrapper = make_wrapper()
    with pytest.raises(RuntimeError, match="stopped"):
        wrapper.fit(
            3, 1, 300, 300, PassiveYielder([LAYOUT]), PassiveYielder([LAYOUT]), cbs=[HeatMapGif(), Stop(2)],
            cb_savepath=tmp_path, checkpoint=tmp_path / "stopped",
        )  # fmt: skip
    resumed = HeatMapGif()
    make_wrapper().fit(
        3, 1, 300, 300, PassiveYielder([LAYOUT]), PassiveYielder([LAYOUT]), cbs=[resumed, Stop(9)],
        cb_savepath=tmp_path, checkpoint=tmp_path / "stopped", resume=True,
    )  # fmt: skip
    assert len(resumed.history) == 4
    for one, other in zip(whole.history, resumed.history, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_volume_without_heat_maps_is_refused():
    callback = HeatMapGif()

    class Wrapper:
        volume = make_volume(DetectorPanel)

    callback.set_wrapper(Wrapper())
    with pytest.raises(InputError, match=re.escape("first detector has a map to draw, such as DetectorHeatMap")):
        callback.on_train_begin()
