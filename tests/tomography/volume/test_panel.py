"""Panels: parameters, both responses, hits and their gradients, budgets, limits, states, bad input."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from diffdet.core.errors import InputError, NotSupportedError
from diffdet.kernels import panel_response
from diffdet.tomography.volume.panel import AbsPanel, DetectorPanel, SigmoidDetectorPanel
from diffdet.tomography.volume.readout import record_hits
from scenes import beam, muons, panel, pencil

F64 = {"dtype": torch.float64}
KINDS = ["gaussian", "sigmoid"]


class Disc(AbsPanel):
    """A panel of another kind: no spans, one learnable number more."""

    realistic_validation = False

    def __init__(self, z, radius=0.3):
        super().__init__()
        self.xy = nn.Parameter(torch.tensor([0.5, 0.5]))
        self.z = nn.Parameter(torch.tensor([z]))
        self.radius = nn.Parameter(torch.tensor(radius))

    def parameter_families(self):
        return {"xy_pos": self.xy, "z_pos": self.z, "radius": self.radius}

    def response_parameters(self):
        return {"centre": self.xy, "radius": self.radius}

    @staticmethod
    def response(xy, **parameters):
        distance = (xy - parameters["centre"]).square().sum(-2)
        eff = torch.exp(-distance / parameters["radius"].squeeze(-1).square())
        return (1e3 * eff).clamp_min(1e-10).unsqueeze(-2).expand_as(xy), eff

    def get_cost(self):
        return math.pi * self.radius.square()


# ---- construction and state


def test_parameters_and_buffers_have_the_documented_names_and_shapes():
    made = panel("sigmoid", smooth=0.2)
    shapes = {name: tuple(value.shape) for name, value in made.state_dict().items()}
    assert shapes == {
        "xy": (2,),
        "z": (1,),
        "xy_span": (2,),
        "m2_cost": (),
        "resolution": (),
        "efficiency": (),
        "_smooth": (1,),
    }
    assert {name for name, _ in made.named_parameters()} == {"xy", "z", "xy_span"}
    assert "_smooth" not in panel("gaussian").state_dict()
    families = made.parameter_families()
    assert {name: id(value) for name, value in families.items()} == {
        "xy_pos": id(made.xy),
        "z_pos": id(made.z),
        "xy_span": id(made.xy_span),
    }
    assert (made.x.item(), made.y.item()) == (0.5, 0.5)
    assert "SigmoidDetectorPanel at xy=(0.5, 0.5), z=(0.9), span=(1, 1) m" in repr(made)


def test_whole_numbers_are_taken():
    made = DetectorPanel(res=1000, eff=1, init_xyz=(0, 1, 2), init_xy_span=(1, 1))
    assert made.xy.dtype == torch.get_default_dtype()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"res": 0.0}, "res"),
        ({"res": -1.0}, "res"),
        ({"res": math.inf}, "res"),
        ({"eff": 0.0}, "eff"),
        ({"eff": 1.1}, "eff"),
        ({"m2_cost": 0.0}, "m2_cost"),
        ({"xy": (0.1, math.nan)}, "init_xyz"),
        ({"xy": (0.1, 0.2, 0.3)}, "init_xyz"),
        ({"span": (1.0, 0.0)}, "init_xy_span"),
        ({"span": (1.0,)}, "init_xy_span"),
        ({"budget": torch.tensor(-1.0)}, "budget"),
    ],
)
def test_nonsense_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        panel(**options)


@pytest.mark.parametrize("smooth", [0.0, -1.0, math.nan])
def test_smoothness_is_positive(smooth):
    with pytest.raises(InputError, match="smooth"):
        panel("sigmoid", smooth=smooth)
    made = panel("sigmoid")
    with pytest.raises(InputError, match="smooth"):
        made.smooth = smooth
    made.smooth = torch.tensor([0.25])
    assert made.smooth.tolist() == [0.25]
    made.smooth = 0.5
    assert made.state_dict()["_smooth"].tolist() == [0.5]


def test_a_panel_is_not_called():
    with pytest.raises(NotSupportedError, match="get_hits"):
        panel()()


# ---- response


@pytest.mark.parametrize("kind", KINDS)
def test_smooth_response_is_that_of_the_kernels(kind, dtype):
    made = panel(kind, xy=(0.4, 0.6), span=(0.8, 1.2), res=1e3, smooth=0.25).to(dtype)
    xy = beam(50, low=-0.5, high=1.5, dtype=dtype)[:, :2]
    centre, span = made.xy[:, None], made.xy_span[:, None]
    if kind == "gaussian":
        profile = panel_response.gaussian(xy.T, centre, span)
    else:
        profile = panel_response.sigmoid(xy.T, centre, span, 0.25)
        torch.testing.assert_close(made.sig_model(xy), profile.T)
    torch.testing.assert_close(made.get_resolution(xy), panel_response.resolution(profile, made.resolution).T)
    floor = panel_response.RESOLUTION_FLOOR if kind == "sigmoid" else 0.0
    torch.testing.assert_close(
        made.get_efficiency(xy), panel_response.efficiency(profile, made.efficiency, floor=floor)
    )
    assert made.get_resolution(xy).shape == (50, 2)
    assert made.get_efficiency(xy).shape == (50,)
    assert made.get_resolution(xy).dtype == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_physical_response_applies_while_evaluating(kind):
    made = panel(kind, span=(0.4, 0.6)).eval()
    xy = torch.tensor([[0.5, 0.5], [0.29, 0.5], [0.3001, 0.5], [0.5, 0.81], [9, 9]])
    inside = [True, False, True, False, False]
    assert made.get_xy_mask(xy).tolist() == inside
    torch.testing.assert_close(made.get_resolution(xy)[:, 0], 1e4 * torch.tensor(inside).float())
    torch.testing.assert_close(made.get_efficiency(xy), 0.9 * torch.tensor(inside).float())
    known = torch.tensor([True] * 5)
    assert made.get_efficiency(xy, known).tolist() == pytest.approx([0.9] * 5)
    assert made.get_resolution(xy, ~known).tolist() == [[0, 0]] * 5
    made.realistic_validation = False
    assert made.get_efficiency(xy)[1].item() > 0
    assert not made.is_physical


def test_gauss_of_a_panel():
    gauss = panel(span=(0.8, 1.2), budget=None).get_gauss()
    assert gauss.mean.tolist() == pytest.approx([0.5, 0.5])
    assert gauss.stddev.tolist() == pytest.approx([0.2, 0.3])


@pytest.mark.parametrize("kind", KINDS)
def test_a_panel_that_is_nowhere_is_refused(kind):
    made = panel(kind)
    made.xy.data[0] = math.nan
    with pytest.raises(InputError, match="xy"):
        made.get_resolution(torch.zeros(1, 2))


# ---- hits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_hits_have_the_documented_form(kind, training, dtype):
    made = panel(kind, span=(0.6, 0.6)).to(dtype)
    made.train(training)
    mu = muons(beam(200, dtype=dtype))
    hits = made.get_hits(mu)
    assert {key: tuple(value.shape) for key, value in hits.items()} == {
        "reco_xyz": (200, 3),
        "gen_xyz": (200, 3),
        "unc_xyz": (200, 3),
        "eff": (200, 1),
    }
    assert all(value.dtype == dtype for value in hits.values())
    assert torch.equal(mu.muons, muons(beam(200, dtype=dtype)).muons)
    at = muons(beam(200, dtype=dtype))
    at.propagate_to_z(made.z.item())
    torch.testing.assert_close(hits["gen_xyz"], at.xyz)
    seen = made.get_xy_mask(at.xy) if not training else torch.ones(200, dtype=torch.bool)
    assert 0 < int(seen.sum())
    assert hits["reco_xyz"][seen].isfinite().all()
    torch.testing.assert_close(1 / hits["unc_xyz"][seen, :2], made.get_resolution(at.xy)[seen])
    torch.testing.assert_close(hits["eff"][:, 0], made.get_efficiency(at.xy))
    assert not hits["unc_xyz"][:, 2].any()
    if not training:
        assert 0 < int((~seen).sum())
        assert torch.isnan(hits["reco_xyz"][~seen, :2]).all()
        assert torch.isinf(hits["unc_xyz"][~seen, :2]).all()
        assert not hits["eff"][~seen].any()


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_positions_scatter_by_the_stated_uncertainty(kind):
    """20,000 muons and two coordinates: a width is known to 0.5 %; five of them."""
    hits = panel(kind, res=100.0).get_hits(muons(pencil(20_000, at=(0.7, 0.6))))
    pull = ((hits["reco_xyz"] - hits["gen_xyz"]) / hits["unc_xyz"])[:, :2]
    assert pull.std().item() == pytest.approx(1, abs=0.025)
    assert abs(pull.mean().item()) < 0.025


def test_a_physical_panel_records_nothing_beyond_its_edge():
    made = panel(span=(0.2, 0.2), res=10.0).eval()
    hits = made.get_hits(muons(pencil(2000, at=(0.58, 0.5))))
    assert ((hits["reco_xyz"][:, :2] - 0.5).abs() <= 0.1 + 1e-6).all()
    assert (hits["reco_xyz"][:, 0] > 0.6 - 1e-6).double().mean() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_hits_follow_every_parameter(kind):
    made = panel(kind, res=100.0).to(torch.float64)
    mu = muons(beam(10, max_theta=0.6))
    hits = record_hits([made], mu)
    (by_z,) = torch.autograd.grad(hits.gen_xy.sum(), made.z, retain_graph=True)
    slope = (mu.direction[:2] / mu.direction[2]).sum()
    torch.testing.assert_close(by_z[0], slope)  # moving the panel moves the hit along the track
    for value in (hits.reco_xy, hits.unc_xy, hits.eff):
        for gradient in torch.autograd.grad(value.sum(), list(made.parameters()), retain_graph=True):
            assert gradient.isfinite().all()
            assert gradient.any()


def test_panels_of_several_kinds_are_read_in_the_order_of_their_heights():
    panels = [panel("sigmoid", z=0.85), Disc(0.95), panel("gaussian", z=0.9), panel("sigmoid", z=0.99), Disc(0.81)]
    together = record_hits(panels, muons(beam(30)))
    assert together.z[:, 0].tolist() == pytest.approx([0.99, 0.95, 0.9, 0.85, 0.81])
    noise = muons(beam(30)).draw_normal("hits", (5, 2))
    for place, k in enumerate([3, 1, 2, 0, 4]):
        mu = muons(beam(30))
        mu.propagate_to_z(panels[k].z.item())
        res, eff = panels[k].response(
            mu.xy.T[None],
            **{
                name: (value[None, :, None] if value.ndim else value.reshape(1, 1, 1)).to(torch.float64)
                for name, value in panels[k].response_parameters().items()
            },
        )
        torch.testing.assert_close(together.eff[place], eff[0])
        torch.testing.assert_close(together.unc_xy[place], 1 / res[0])
        torch.testing.assert_close(together.reco_xy[place], mu.xy.T + noise[k] / res[0])
    total = together.reco_xy.sum() + together.eff.sum()
    for made in panels:
        for parameter in made.parameters():
            assert torch.autograd.grad(total, parameter, retain_graph=True)[0].isfinite().all()


def test_physical_and_smooth_panels_can_stand_in_one_layer():
    panels = [panel(z=0.95, span=(0.2, 0.2)).eval(), panel(z=0.9, realistic_validation=False).eval()]
    hits = record_hits(panels, muons(beam(50)))
    assert hits.mask[1].all()
    assert 0 < int(hits.mask[0].sum()) < 50
    assert not hits.eff[0][~hits.mask[0]].any()


def test_noise_follows_the_place_in_the_list_when_panels_pass_each_other():
    """Two panels at nearly one height, in either order: the loss must not jump."""

    def reco(first, second):
        hits = record_hits([panel(z=first), panel(z=second)], muons(beam(20)))
        return {round(z, 6): xy for z, xy in zip(hits.z[:, 0].tolist(), hits.reco_xy, strict=True)}

    before, after = reco(0.9 + 1e-6, 0.9), reco(0.9, 0.9 + 1e-6)
    torch.testing.assert_close(before[0.900001], after[0.9], rtol=0, atol=1e-5)
    torch.testing.assert_close(before[0.9], after[0.900001], rtol=0, atol=1e-5)


# ---- money


@pytest.mark.parametrize("kind", KINDS)
def test_a_panel_with_a_budget_costs_it(kind):
    made = panel(kind, span=(1.0, 0.5), m2_cost=2.0)
    assert made.get_cost().item() == pytest.approx(1.0)
    budget = torch.tensor(9.0, requires_grad=True)
    made.assign_budget(budget)
    assert made.get_cost().item() == pytest.approx(9.0)
    assert made.get_scaled_xy_span().tolist() == pytest.approx([3.0, 1.5])
    assert made.xy_span.tolist() == [1.0, 0.5]
    (by_budget,) = torch.autograd.grad(made.get_scaled_xy_span()[0], budget, retain_graph=True)
    assert by_budget.item() == pytest.approx(3.0 / 18)
    (by_span,) = torch.autograd.grad(made.get_cost(), made.xy_span)
    assert by_span.abs().max() < 1e-5  # the budget fixes the cost, spans are an aspect ratio
    made.assign_budget(None)
    assert made.budget_scale.shape == (1,)
    assert made.get_cost().item() == pytest.approx(9.0)


def test_the_published_scale_of_a_shared_budget():
    made = panel("sigmoid", span=(0.8, 0.8), budget=torch.tensor(0.75))
    assert made.budget_scale.item() == pytest.approx(1.0825317, abs=1e-7)
    assert made.get_scaled_xy_span().tolist() == pytest.approx([0.8660254] * 2)


def test_panels_without_a_budget_mode_say_so():
    disc = Disc(0.9)
    disc.assign_budget(None)
    with pytest.raises(NotSupportedError, match="Disc"):
        disc.assign_budget(torch.tensor(1.0))


# ---- limits


def test_a_panel_outside_its_box_is_brought_back_and_one_inside_is_left_alone():
    low, high = (0.0, 0.0, 0.8), (1.0, 1.0, 1.0)
    made = panel(xy=(-0.1, 1.3), z=1.2, span=(30.0, 0.001))
    made.clamp_params(low, high)
    assert made.xy.tolist() == [0, 1]
    assert made.xy_span.tolist() == pytest.approx([10, 0.05])
    assert 1 - 1e-3 <= made.z.item() <= 1
    for z in (0.8000001, 0.8003, 0.9, 0.9998, 1.0):
        inside = panel(z=z)
        before = [p.clone() for p in inside.parameters()]
        inside.conform((1.0, 1.0), 1.0, 0.2)
        assert all(torch.equal(a, b) for a, b in zip(inside.parameters(), before, strict=True))


def test_panels_pushed_out_of_a_layer_come_back_to_different_heights_always_the_same():
    heights = []
    for number in range(4):
        made = panel(z=2.0)
        made.number = number
        made.conform((1.0, 1.0), 1.0, 0.2)
        heights.append(made.z.item())
        again = panel(z=-2.0)
        again.number = number
        again.conform((1.0, 1.0), 1.0, 0.2)
        assert again.z.item() - 0.8 == pytest.approx(1.0 - made.z.item(), abs=1e-6)
    assert len({round(z, 5) for z in heights}) == 4


def test_limits_change_no_graph():
    made = panel(z=3.0)
    assert made.z.requires_grad
    made.clamp_params((0.0, 0.0, 0.8), (1.0, 1.0, 1.0))
    assert made.z.requires_grad
    assert made.z.is_leaf
    made.z.sum().backward()
    assert made.z.grad.item() == 1


# ---- copies


@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_panel_with_the_graph_of_its_budget_can_be_copied(how):
    made = SigmoidDetectorPanel(smooth=0.5, res=1e4, eff=0.9, init_xyz=(0.5, 0.5, 0.9), init_xy_span=(1.0, 0.5))
    made.assign_budget(torch.tensor(2.0, requires_grad=True))
    new = how(made)
    assert new.get_cost().item() == pytest.approx(2.0)
    assert new.xy is not made.xy
    assert torch.equal(new.xy, made.xy)
    made.get_cost().backward()  # the original keeps its graph


def test_everything_follows_to_another_type():
    made = panel("sigmoid", budget=torch.tensor(2.0)).to(torch.float64)
    tensors = [*made.parameters(), *made.buffers(), made.budget_scale, made.get_scaled_xy_span()]
    assert {t.dtype for t in tensors} == {torch.float64}
    made.smooth = 0.1
    assert made.smooth.dtype == torch.float64


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_panels_record_hits_without_a_graph(kind):
    made = panel(kind).requires_grad_(False)
    hits = record_hits([made], muons(beam(5)))
    assert not hits.reco_xy.requires_grad
    made.requires_grad_(True)
    with torch.no_grad():
        assert not record_hits([made], muons(beam(5))).reco_xy.requires_grad
