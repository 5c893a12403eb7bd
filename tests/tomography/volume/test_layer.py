"""Layers: layouts, steps, detector layers, what they refuse."""

import math

import pytest
import torch
from torch import nn

from diffdet.core.errors import GeometryError, InputError, ShapeError
from diffdet.core.materials import X0
from diffdet.tomography.volume.layer import PanelDetectorLayer, PassiveLayer
from diffdet.tomography.volume.scatter_model import AbsScatterModel
from scenes import LW, beam, filled, lead_in_beryllium, muons, panel, pencil

F64 = {"dtype": torch.float64}


def passive(**options):
    given = {"lw": LW, "z": 0.8, "size": 0.1, "rad_length_func": filled("lead"), **options}
    return PassiveLayer(**given)


def detector(*heights, **options):
    return PanelDetectorLayer("above", lw=LW, z=1.0, size=0.2, panels=[panel(z=z, **options) for z in heights])


class Nothing(AbsScatterModel):
    """Lets muons pass, and counts."""

    def __init__(self):
        self.calls = 0

    def carry(self, mu, layer, top, thickness):
        self.calls += 1
        mu.propagate_to_z(top - thickness)


# ---- passive layers


def test_geometry_is_what_was_given():
    layer = passive(lw=torch.tensor([1.0, 0.7]), rad_length_func=None)
    lw, z, size = layer.get_lw_z_size()
    assert (lw.tolist(), z.tolist(), size) == (pytest.approx([1, 0.7]), pytest.approx([0.8]), 0.1)
    assert layer.n_xy == (10, 7)
    assert (layer.top, layer.bottom) == (0.8, pytest.approx(0.7))
    assert z.shape == (1,)
    assert not layer.state_dict()
    assert layer.rad_length is None
    assert not layer.per_length.any()


def test_layouts_are_asked_for_with_documented_arguments():
    asked = {}

    def x0(*, z, lw, size):
        asked.update(z=z, lw=lw, size=size)
        return torch.full((10, 10), 0.5)

    layer = passive(rad_length_func=x0)
    assert asked["z"].shape == (1,)
    assert asked["lw"].tolist() == [1, 1]
    assert asked["size"] == 0.1
    assert torch.equal(layer.rad_length, torch.full((10, 10), 0.5))
    assert torch.equal(layer.per_length, torch.full((10, 10), 2.0))


@pytest.mark.parametrize(
    ("x0", "error"),
    [
        (torch.ones(9, 10), ShapeError),
        (torch.zeros(10, 10), InputError),
        (-torch.ones(10, 10), InputError),
        (torch.full((10, 10), math.nan), InputError),
    ],
)
def test_layouts_without_sense_are_refused(x0, error):
    with pytest.raises(error, match="rad_length_func"):
        passive(rad_length_func=lambda **_: x0)


def test_vacuum_is_allowed_and_scatters_nothing():
    mu = muons(beam(50))
    passive(rad_length_func=lambda **_: torch.full((10, 10), math.inf))(mu)
    straight = muons(beam(50))
    straight.propagate_to_z(0.7)
    torch.testing.assert_close(mu.muons, straight.muons)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lw": torch.tensor([1.05, 1.0])}, r"lw\[0\]"),
        ({"lw": torch.tensor([1.0, -1.0])}, "lw"),
        ({"lw": torch.tensor([1.0, 1.0, 1.0])}, "lw"),
        ({"size": 0.0}, "size"),
        ({"z": math.nan}, "z"),
        ({"step_sz": 0.0}, "step_sz"),
        ({"scatter_model": "pgd"}, "Did you mean 'pdg'"),
    ],
)
def test_nonsense_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        passive(**options)


def test_a_layer_without_material_lets_muons_pass():
    layer, mu, straight = passive(rad_length_func=None), muons(beam(20)), muons(beam(20))
    layer(mu)
    straight.propagate_to_z(0.7)
    torch.testing.assert_close(mu.muons, straight.muons)


def test_material_scatters_those_inside_only():
    given = torch.cat([pencil(100, at=(0.5, 0.5)), pencil(100, at=(-0.5, 0.5))])
    mu = muons(given)
    passive()(mu)
    torch.testing.assert_close(mu.z, torch.full((200,), 0.7, **F64))
    assert (mu.theta[:100] > 0).all()
    assert not mu.theta[100:].any()
    assert (mu.n_rad[:100] > 17).all()
    assert not mu.n_rad[100:].any()


def test_muons_that_turn_up_are_removed():
    mu = muons(pencil(300, momentum=0.004, theta=1.0))
    passive()(mu)
    assert 0 < len(mu) < 300
    assert (mu.direction[2] < 0).all()
    assert mu.upwards_muons.shape == (300 - len(mu), 6)


def test_voxels_of_positions():
    layer = passive()
    xy = torch.tensor([[0.05, 0.95], [0.3, 0.7], [0.29, 0.7000001]])
    assert layer.abs2idx(xy).tolist() == [[0, 9], [3, 7], [2, 7]]
    mu = muons(beam(5))
    mask = torch.tensor([True, False, True, False, True])
    assert torch.equal(layer.mu_abs2idx(mu), layer.abs2idx(mu.xy))
    assert torch.equal(layer.mu_abs2idx(mu, mask), layer.abs2idx(mu.xy[mask]))


def test_a_users_own_scatter_model():
    model = Nothing()
    mu = muons(beam(3))
    passive(scatter_model=model)(mu)
    assert model.calls == 1
    assert mu.z.tolist() == pytest.approx([0.7] * 3)


def test_passing_a_layer_records_no_graph():
    layer, mu = passive(), muons(beam(3))
    layer(mu)
    assert not mu.xyz.requires_grad


# ---- single steps


def test_steps_through_a_layer_spread_like_the_whole_layer():
    """20,000 muons and two planes: widths are known to 0.35 %; five of them."""
    n = 20_000
    layer, whole, stepwise = passive(step_sz=0.025), muons(pencil(n)), muons(pencil(n), key=2)
    layer(whole)
    stepwise.propagate_to_z(layer.top)
    for k in range(4):
        layer.scatter_and_propagate(stepwise)
        assert stepwise.z.tolist()[:3] == pytest.approx([0.8 - 0.025 * (k + 1)] * 3)
    ratio = stepwise.theta_xy.std() / whole.theta_xy.std()
    assert ratio.item() == pytest.approx(1, abs=0.025)
    assert ((stepwise.xy - 0.5).std() / (whole.xy - 0.5).std()).item() == pytest.approx(1, abs=0.03)


def test_a_step_of_some_muons_leaves_the_others_and_draws_anew_each_time():
    layer, mu = passive(step_sz=0.05), muons(pencil(400))
    mu.propagate_to_z(0.8)
    mask = torch.arange(400) % 2 == 0
    before = mu.muons
    layer.scatter_and_propagate(mu, mask)
    assert torch.equal(mu.muons[~mask], before[~mask])
    assert mu.z[mask].tolist() == pytest.approx([0.75] * 200)
    first = mu.theta_x[mask].clone()
    layer.scatter_and_propagate(mu, mask)
    second = mu.theta_x[mask] - first
    assert mu.z[mask].tolist() == pytest.approx([0.7] * 200)
    # independent: a correlation of 200 pairs is known to 0.07; that of a step drawn twice would be 1
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1].item()) < 0.3


def test_steps_remove_what_turns_up_and_nothing_else():
    layer, mu = passive(step_sz=0.05), muons(pencil(300, momentum=0.003, theta=1.0))
    mu.propagate_to_z(0.8)
    mask = torch.arange(300) < 200
    layer.scatter_and_propagate(mu, mask)
    assert 100 < len(mu) < 300
    assert set(range(200, 300)) <= set(mu.ids.tolist())
    layer.scatter_and_propagate(mu, torch.zeros(len(mu), dtype=torch.bool))
    assert 100 < len(mu) < 300


def test_steps_outside_the_layer_are_refused():
    layer = passive()
    mu = muons(pencil(2))
    with pytest.raises(GeometryError, match="one height"):
        layer.scatter_and_propagate(mu)
    mu.propagate_to_z(0.7)
    with pytest.raises(GeometryError, match="one height"):
        layer.scatter_and_propagate(mu)
    mu.propagate_to_z(0.75)
    mu.propagate_dz(0.02, torch.tensor([True, False]))
    with pytest.raises(GeometryError, match="one height"):
        layer.scatter_and_propagate(mu)


def test_steps_without_material_fall():
    layer, mu = passive(rad_length_func=None, step_sz=0.03), muons(pencil(2))
    mu.propagate_to_z(0.8)
    for z in (0.77, 0.74, 0.71, 0.7):
        layer.scatter_and_propagate(mu)
        assert mu.z.tolist() == pytest.approx([z] * 2)


# ---- detector layers


def test_panels_are_visited_from_high_to_low():
    layer = detector(0.85, 0.99, 0.9)
    assert layer.get_panel_zorder() == [1, 2, 0]
    assert [k for k, _ in layer.yield_zordered_panels()] == [1, 2, 0]
    assert [p is layer.panels[k] for k, p in enumerate(layer.yield_panels())] == [True] * 3
    assert layer[1] is layer.panels[1]
    mu = muons(beam(5))
    layer(mu)
    hits = mu.get_hits()["above"]
    assert hits["reco_xyz"].shape == (5, 3, 3)
    assert hits["reco_xyz"][0, :, 2].tolist() == pytest.approx([0.99, 0.9, 0.85])
    assert mu.z.tolist() == pytest.approx([0.8] * 5)


def test_panels_outside_the_layer_are_visited_too():
    layer, mu = detector(1.3, 0.5), muons(beam(4))
    layer(mu)
    high = muons(beam(4))
    high.propagate_to_z(1.3)
    torch.testing.assert_close(mu.get_hits()["above"]["gen_xyz"][:, 0], high.xyz, rtol=1e-6, atol=1e-7)
    assert mu.z.tolist() == pytest.approx([0.8] * 4)


def test_costs_add_up_and_budgets_go_by_height():
    layer = detector(0.85, 0.99, 0.9, span=(1.0, 0.5))
    assert layer.get_cost().item() == pytest.approx(1.5)
    assert layer._n_costs == 3
    layer.assign_budget(torch.tensor([3.0, 2.0, 1.0]))
    assert [p.get_cost().item() for p in layer.yield_panels()] == pytest.approx([1, 3, 2])
    layer.assign_budget(None)
    assert layer.get_cost().item() == pytest.approx(6)
    with pytest.raises(ShapeError, match="budget"):
        layer.assign_budget(torch.ones(2))


def test_panels_are_brought_back_into_the_layer():
    layer = detector(1.5, 0.9, 0.1)
    layer.conform_detector()
    heights = [p.z.item() for p in layer.yield_panels()]
    assert 0.999 <= heights[0] <= 1
    assert heights[1] == pytest.approx(0.9)
    assert 0.8 <= heights[2] <= 0.801


def test_what_is_no_panel_is_refused():
    with pytest.raises(InputError, match="at least one panel"):
        PanelDetectorLayer("above", lw=LW, z=1.0, size=0.2, panels=[])
    with pytest.raises(InputError, match=r"panels\[1\]"):
        PanelDetectorLayer("above", lw=LW, z=1.0, size=0.2, panels=[panel(), nn.Linear(1, 1)])


def test_geometry_and_layout_follow_to_another_type_and_are_no_state():
    layer = passive(rad_length_func=lead_in_beryllium).to(torch.float64)
    assert {layer.lw.dtype, layer.z.dtype, layer.rad_length.dtype, layer.per_length.dtype} == {torch.float64}
    assert not layer.state_dict()
    made = detector(0.9).to(torch.float64)
    assert set(made.state_dict()) == {
        f"panels.0.{k}" for k in ("xy", "z", "xy_span", "m2_cost", "resolution", "efficiency")
    }
    assert made.type_label == "panel"
    assert X0["lead"] < X0["beryllium"]
