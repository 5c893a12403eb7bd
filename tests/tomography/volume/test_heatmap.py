"""Heat-map detectors."""

import copy
import math
from functools import partial

import matplotlib as mpl
import pytest
import torch
from torch import nn

from diffdet.core.errors import InputError, NotSupportedError
from diffdet.core.random import Stream
from diffdet.tomography.muon.generation import MuonGenerator2016
from diffdet.tomography.muon.muon_batch import MuonBatch
from diffdet.tomography.optimisation.wrapper.volume_wrapper import HeatMapVolumeWrapper
from diffdet.tomography.volume.heatmap import DetectorHeatMap
from diffdet.tomography.volume.layer import PanelDetectorLayer, PassiveLayer
from diffdet.tomography.volume.volume import Volume

mpl.use("Agg")


def make_map(z=1.5, **more):
    arguments = {"res": 1e3, "eff": 0.9, "init_xyz": (0.5, 0.4, z), "init_xy_span": (-0.5, 0.5), "n_cluster": 6}
    return DetectorHeatMap(**{**arguments, **more})


def positions(n=50, dtype=torch.float32):
    return torch.rand(n, 2, generator=torch.Generator().manual_seed(21), dtype=dtype) * 2 - 0.5


def slow_map(panel, xy):
    """The map at one position, written out."""

    def density(x, y):
        total = 0.0
        for m, s in zip(panel.mu.tolist(), panel.sig.tolist(), strict=True):
            pull = ((x - m[0]) / s[0]) ** 2 + ((y - m[1]) / s[1]) ** 2
            total += math.exp(-pull / 2) / (2 * math.pi * s[0] * s[1] * len(panel.mu))
        return total

    return panel.norm.item() * density(*xy) / max(density(*m) for m in panel.mu.tolist())


def test_response_equals_the_slow_twin():
    panel = make_map()
    with torch.no_grad():
        panel.norm.fill_(1.3)
    xy = positions(20)
    res, eff = panel.get_resolution(xy), panel.get_efficiency(xy)
    for i, place in enumerate(xy.tolist()):
        f = slow_map(panel, place)
        assert res[i].tolist() == pytest.approx([1e3 * math.sqrt(f)] * 2, rel=1e-4)
        assert eff[i].item() == pytest.approx(0.9 * min(1, f), rel=1e-4)


def test_shapes_and_factors():
    panel = make_map()
    xy = positions()
    assert panel.get_resolution(xy).shape == (50, 2)
    assert panel.get_efficiency(xy).shape == (50,)
    factors = panel.get_efficiency(xy, as_2d=True)
    assert factors.shape == (50, 2)
    torch.testing.assert_close(factors.prod(1), panel.get_efficiency(xy))


def test_far_away_it_sees_nothing_but_stays_finite():
    panel = make_map()
    far = torch.tensor([[1e3, -1e3]])
    assert panel.get_resolution(far).tolist() == [pytest.approx([1e-10, 1e-10])]
    assert panel.get_efficiency(far).item() == 0


def test_start_is_spread_evenly_and_always_alike():
    panel = make_map(n_cluster=400)
    assert torch.equal(panel.mu, make_map(n_cluster=400).mu)
    offsets = panel.mu - torch.tensor([0.5, 0.4])
    assert offsets.abs().max() <= 0.5
    # Even spread: each of 16 cells has 25 clusters, give or take a third.
    cells = ((offsets + 0.5) * 4).clamp(max=3.999).long()
    counts = torch.bincount(cells[:, 0] * 4 + cells[:, 1], minlength=16)
    assert 17 <= counts.min() <= counts.max() <= 33
    assert (panel.sig >= 0.2 - 1e-6).all()
    assert (panel.sig <= 1).all()
    assert panel.norm.tolist() == [1]


def test_start_can_be_drawn():
    first, second, third = (make_map(generator=Stream(k).generator()) for k in (1, 1, 2))
    assert torch.equal(first.mu, second.mu)
    assert not torch.equal(first.mu, third.mu)
    torch.manual_seed(0)
    before = torch.rand(1)
    torch.manual_seed(0)
    make_map()
    assert torch.equal(torch.rand(1), before)


def test_order_of_the_span_does_not_matter():
    assert make_map(init_xy_span=(0.5, -0.5)).delta == make_map().delta == 1


def test_cost_is_the_mean_area():
    panel = make_map(m2_cost=3.0)
    assert panel.get_cost().item() == pytest.approx(3 * sum(a * b for a, b in panel.sig.tolist()) / 6, rel=1e-6)


def muons(n=40):
    generator = MuonGenerator2016((0.0, 1.0), (0.0, 0.8))
    stream = Stream(5).muons()
    return MuonBatch(generator(n, stream=stream), 2.0, stream=stream)


def test_layers_record_the_same_hits_as_single_detectors():
    panels = [make_map(z=1.9), make_map(z=1.6, res=5e2, eff=0.5)]
    layer = PanelDetectorLayer("above", lw=torch.tensor([1.0, 0.8]), z=2.0, size=0.5, panels=panels)
    assert layer.type_label == "heatmap"
    batch = muons()
    layer(batch)
    hits = batch.get_hits()["above"]
    assert hits["reco_xyz"].shape == (40, 2, 3)
    for k, panel in enumerate(panels):
        places = hits["gen_xyz"][:, k, :2].detach()
        torch.testing.assert_close(hits["unc_xyz"][:, k, :2], 1 / panel.get_resolution(places))
        torch.testing.assert_close(hits["eff"][:, k, 0], panel.get_efficiency(places))
    pulls = (hits["reco_xyz"] - hits["gen_xyz"])[..., :2] / hits["unc_xyz"][..., :2]
    # 160 standard normals, five standard errors of their rms.
    assert pulls.square().mean().item() == pytest.approx(1, abs=5 * math.sqrt(2 / 160))


def test_gradients_equal_central_differences():
    panel = make_map().double()
    xy = positions(30, torch.float64)

    def value():
        return panel.get_resolution(xy).sum() / 1e3 + panel.get_efficiency(xy).sum() + panel.get_cost()

    families = {k: p for k, p in panel.parameter_families().items() if k != "z_pos"}
    gradients = dict(zip(families, torch.autograd.grad(value(), list(families.values())), strict=True))
    step = 1e-6
    for name, parameter in families.items():
        flat = parameter.data.view(-1)
        for i in range(min(3, flat.numel())):
            ends = []
            for sign in (1, -1):
                flat[i] += sign * step
                ends.append(value().item())
                flat[i] -= sign * step
            numeric = (ends[0] - ends[1]) / (2 * step)
            assert gradients[name].view(-1)[i].item() == pytest.approx(numeric, rel=1e-5, abs=1e-7)


def test_conforming_keeps_each_axis_in_its_own_bounds():
    panel = make_map(init_xyz=(3.0, 0.4, 1.5))
    with torch.no_grad():
        panel.mu[0] = torch.tensor([-9.0, -9.0])
        panel.mu[1] = torch.tensor([9.0, 9.0])
        panel.sig[0], panel.sig[1] = 0.0, 100.0
        panel.norm.fill_(7.0)
        panel.z.fill_(9.0)
    panel.conform((10.0, 0.8), 2.0, 0.5)
    # 1.2 extents around the start, and inside the layer.
    assert panel.mu[0].tolist() == pytest.approx([1.8, 0.0])
    assert panel.mu[1].tolist() == pytest.approx([4.2, 0.8])
    assert panel.sig[0].tolist() == pytest.approx([0.01, 0.01])
    assert panel.sig[1].tolist() == pytest.approx([1.2, 1.2])
    assert panel.norm.item() == 1.5
    assert 1.99 < panel.z.item() < 2.0


def test_clamping_as_documented_takes_one_number_for_both_axes():
    panel = make_map()
    panel.clamp_params((0.3, 0.24, 1.0), (0.6, 0.5, 2.0))
    assert panel.mu.min() >= 0.3
    assert panel.mu.max() <= 0.6
    assert panel.sig.min() >= 0.2 - 1e-6
    assert panel.sig.max() <= 0.6 + 1e-6


def test_what_has_no_meaning_is_refused():
    panel = make_map()
    with pytest.raises(NotSupportedError, match="cannot be given a budget"):
        panel.assign_budget(torch.tensor(1.0))
    with pytest.raises(NotSupportedError, match="no edge"):
        panel.get_xy_mask(positions())
    with pytest.raises(NotSupportedError, match="`realistic_validation`"):
        make_map(realistic_validation=True)
    with pytest.raises(NotSupportedError, match="get_hits"):
        panel()
    panel.assign_budget(None)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"res": 0.0}, "res"),
        ({"eff": 1.5}, "eff"),
        ({"m2_cost": -1.0}, "m2_cost"),
        ({"n_cluster": 0}, "n_cluster"),
        ({"init_xyz": (0.0, 1.0)}, "init_xyz"),
        ({"init_xy_span": (0.5, 0.5)}, "init_xy_span"),
        ({"init_xy_span": (math.nan, 0.5)}, "init_xy_span"),
    ],
)
def test_nonsense_is_refused(arguments, name):
    with pytest.raises(InputError, match=name):
        make_map(**arguments)


def test_state_is_saved_once_and_old_states_load():
    panel = make_map(generator=Stream(1).generator())
    state = panel.state_dict()
    assert set(state) == {"mu", "sig", "norm", "z", "m2_cost", "resolution", "efficiency", "xy_fix", "xy_span_fix"}
    old = {**state, "gmm.mu": state["mu"], "gmm.sig": state["sig"], "gmm.norm": state["norm"]}
    other = make_map()
    other.load_state_dict(old)
    assert torch.equal(other.mu, panel.mu)
    assert torch.equal(copy.deepcopy(panel).sig, panel.sig)


def test_effective_widths_are_four_standard_deviations_of_the_mixture():
    panel = make_map(generator=Stream(1).generator())
    generator = torch.Generator().manual_seed(0)
    cluster = torch.randint(0, panel.n_cluster, (200_000,), generator=generator)
    noise = torch.randn((200_000, 2), generator=generator)
    drawn = panel.mu[cluster] + panel.sig[cluster] * noise
    # the standard deviation of 2e5 numbers is known to 0.16 %
    assert torch.allclose(panel.get_scaled_xy_span(), 4 * drawn.std(0), rtol=0.01)


@pytest.mark.parametrize("pixelate", [False, True])
def test_the_map_can_be_drawn(pixelate, tmp_path):
    file = tmp_path / "map.png"
    make_map().plot_map(pixelate, True, file)
    assert file.read_bytes().startswith(b"\x89PNG")
    from matplotlib import pyplot as plt

    assert plt.get_fignums() == []


def test_wrapper_finds_every_parameter():
    lw = torch.tensor([1.0, 0.8])
    layers = [
        PanelDetectorLayer("above", lw=lw, z=2.0, size=0.5, panels=[make_map(1.9), make_map(1.7)]),
        PassiveLayer(lw, 1.5, 0.1),
        PanelDetectorLayer("below", lw=lw, z=1.4, size=0.5, panels=[make_map(1.3), make_map(1.1)]),
    ]
    sgd = partial(torch.optim.SGD, lr=0.1)
    wrapper = HeatMapVolumeWrapper(
        Volume(nn.ModuleList(layers)), mu_opt=sgd, norm_opt=sgd, sig_opt=sgd, z_pos_opt=sgd, loss_func=None
    )
    assert {name: len(opt.param_groups[0]["params"]) for name, opt in wrapper.opts.items()} == {
        "mu_opt": 4,
        "norm_opt": 4,
        "sig_opt": 4,
        "z_pos_opt": 4,
    }
