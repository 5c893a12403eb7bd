"""Volumes: structure, voxel frame, look-up, layouts, money, flight, copies, types, bad input."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from diffdet.core.errors import GeometryError, InputError, NotSupportedError
from diffdet.core.materials import X0
from diffdet.tomography.inference.scattering import ScatterBatch
from diffdet.tomography.volume.layer import PanelDetectorLayer, PassiveLayer
from diffdet.tomography.volume.volume import Volume
from scenes import LW, beam, filled, lead_in_beryllium, muons, panel, volume

F64 = {"dtype": torch.float64}


def passives(*tops, size=0.1, lw=LW):
    return [PassiveLayer(lw, z, size) for z in tops]


def detector(pos="above", z=1.0, *heights):
    return PanelDetectorLayer(pos, lw=LW, z=z, size=0.2, panels=[panel(z=h) for h in heights or (z - 0.1,)])


# ---- structure and frame


def test_layers_by_kind_and_geometry():
    made = volume(x0=lead_in_beryllium, dtype=torch.float32)
    assert [layer.pos for layer in made.get_detectors()] == ["above", "below"]
    assert [round(p.top, 6) for p in made.get_passives()] == [0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    assert len(list(made.yield_panels())) == 8
    assert made.lw.tolist() == [1, 1]
    assert made.passive_size == 0.1
    assert made.h.tolist() == [1.0]
    low, high = made.get_passive_z_range()
    assert (low.shape, high.shape) == ((1,), (1,))
    assert (low.item(), high.item()) == pytest.approx((0.2, 0.8))
    assert made.n_zxy == (6, 10, 10)
    assert made.passive_box == ((0, 0, pytest.approx(0.2)), (1, 1, 0.8))
    assert made.device == torch.device("cpu")


def test_voxel_corners_are_ordered_with_z_fastest_from_below():
    made = volume()
    edges, centres = made.xyz_edges, made.xyz_centres
    assert torch.equal(edges, made.build_xyz_edges())
    assert edges.shape == (600, 3)
    for ix, iy, iz in [(0, 0, 0), (0, 0, 5), (0, 9, 0), (3, 8, 4), (9, 9, 5)]:
        row = (ix * 10 + iy) * 6 + iz
        assert edges[row].tolist() == pytest.approx([0.1 * ix, 0.1 * iy, 0.2 + 0.1 * iz])
    torch.testing.assert_close(centres - edges, torch.full((600, 3), 0.05, **F64))
    for axis, n in enumerate((10, 10, 6)):
        assert len(made.voxel_edges()[axis]) == n + 1


def test_blocks_need_not_begin_at_a_multiple_of_the_voxel():
    """0.75 to 1.05 m in voxels of 0.1 m: the original made two edges of three layers."""
    made = Volume(passives(1.05, 0.95, 0.85))
    assert made.voxel_edges()[2].tolist() == pytest.approx([0.75, 0.85, 0.95, 1.05])
    assert len(made.xyz_edges) == 300
    made.load_rad_length(filled("lead"))
    assert made.get_rad_cube().shape == (3, 10, 10)


def test_look_up_finds_the_documented_voxels_and_leaves_its_argument_alone():
    made = volume(dtype=torch.float32)
    xyz = torch.tensor([[0.5, 0.2, 0.3], [0.3, 0.8, 0.7]])
    kept = xyz.clone()
    # The original gives ([5, 2, 0], [3, 8, 4]): it rounds 0.3 - 0.2 and 0.7 - 0.2 down.
    assert made.lookup_passive_xyz_coords(xyz).tolist() == [[5, 2, 1], [3, 8, 5]]
    assert torch.equal(xyz, kept)
    assert made.lookup_passive_xyz_coords(xyz[0]).tolist() == [[5, 2, 1]]


def test_every_centre_is_in_its_own_voxel_and_every_corner_too(dtype):
    made = volume(dtype=dtype)
    expected = torch.cartesian_prod(torch.arange(10), torch.arange(10), torch.arange(6))
    assert torch.equal(made.lookup_passive_xyz_coords(made.xyz_centres), expected)
    assert torch.equal(made.lookup_passive_xyz_coords(made.xyz_edges), expected)


def test_the_outer_faces_belong_to_the_block_and_what_lies_beyond_does_not():
    made = volume()
    assert made.lookup_passive_xyz_coords(torch.tensor([1.0, 1.0, 0.8])).tolist() == [[9, 9, 5]]
    for outside in ([1.01, 0.5, 0.5], [0.5, -0.01, 0.5], [0.5, 0.5, 0.19], [0.5, 0.5, 0.81], [math.nan, 0.5, 0.5]):
        with pytest.raises(GeometryError, match="1 of 2 positions"):
            made.lookup_passive_xyz_coords(torch.tensor([[0.5, 0.5, 0.5], outside]))


# ---- layouts


def test_the_cube_has_the_lowest_layer_first():
    made = volume(x0=lead_in_beryllium)
    cube = made.get_rad_cube()
    assert cube.shape == (6, 10, 10)
    lead = torch.isclose(cube, torch.tensor(X0["lead"], **F64))
    assert lead.nonzero().min(0).values.tolist() == [2, 5, 5]
    assert lead.nonzero().max(0).values.tolist() == [3, 9, 9]
    assert int(lead.sum()) == 50
    cube[:] = 1
    assert not (made.get_rad_cube() == 1).any()


def test_targets_come_and_go_with_layouts():
    made = volume()
    assert made.target is None
    made.load_rad_length(filled("lead"), torch.tensor([0.7]))
    assert made.target.tolist() == pytest.approx([0.7])
    made.load_rad_length(filled("lead"))
    assert made.target is None


def test_a_volume_without_a_layout_says_so():
    with pytest.raises(NotSupportedError, match="load_rad_length"):
        volume().get_rad_cube()
    with pytest.raises(NotSupportedError, match="no passive layer"):
        Volume([detector()]).get_rad_cube()


# ---- money


def test_cost_is_the_sum_of_the_panels():
    made = volume(shift=0.05, m2_cost=2.0)
    assert made.get_cost().item() == pytest.approx(sum(p.get_cost().item() for p in made.yield_panels()))
    assert made.get_cost().requires_grad
    assert not hasattr(made, "budget_weights")
    assert Volume(passives(0.8)).get_cost().item() == 0


def test_a_budget_is_shared_by_softmax_and_spent_to_the_last_coin():
    made = volume(budget=32)
    assert made.budget == 32.0
    assert made.get_cost().dtype == torch.float64  # the original returns an integer for an integer budget
    assert not made.get_cost().requires_grad
    assert made.budget_weights.shape == (8,)
    assert [p.get_cost().item() for p in made.yield_panels()] == pytest.approx([4] * 8)
    with torch.no_grad():
        made.budget_weights[2] = 1.0
    made.assign_budget()
    shares = 32 * torch.softmax(made.budget_weights, 0)
    assert [p.get_cost().item() for p in made.yield_panels()] == pytest.approx(shares.tolist())
    assert sum(p.get_cost().item() for p in made.yield_panels()) == pytest.approx(32)


def test_shares_go_to_panels_by_height():
    made = volume(budget=10.0, above=(0.85, 0.99))
    with torch.no_grad():
        made.budget_weights[:2] = torch.tensor([2.0, 0.0])
    made.assign_budget()
    low, high = list(made.yield_panels())[:2]
    assert high.get_cost().item() > low.get_cost().item()


def test_learning_of_budgets_passes_through_a_flight():
    made = volume(budget=9.0, x0=lead_in_beryllium)
    for _ in range(2):  # a fresh graph at every pass
        made.zero_grad()
        mu = muons(beam(50))
        made(mu)
        hits = mu.get_hits()
        sum(side["unc_xyz"].sum() for side in hits.values()).backward()
        assert made.budget_weights.grad.isfinite().all()
        assert made.budget_weights.grad.any()


@pytest.mark.parametrize("budget", [0.0, -1.0, math.nan])
def test_budgets_are_positive(budget):
    with pytest.raises(InputError, match="budget"):
        volume(budget=budget)


def test_a_budget_needs_something_to_be_spent_on():
    with pytest.raises(InputError, match="detector panels"):
        Volume(passives(0.8), budget=1.0)


# ---- flight


def test_muons_end_below_the_volume_with_all_hits():
    made, mu = volume(x0=lead_in_beryllium), muons(beam(100))
    made(mu)
    assert mu.z.tolist() == pytest.approx([0.0] * len(mu), abs=1e-9)
    hits = mu.get_hits()
    assert hits["above"]["reco_xyz"].shape == hits["below"]["reco_xyz"].shape == (len(mu), 4, 3)
    assert mu.xyz_hist == []


def test_snapshots_on_request():
    made = volume(x0=lead_in_beryllium)
    made.snapshots = True
    mu = muons(beam(10))
    made(mu)
    assert [round(s[0, 2].item(), 6) for s in mu.xyz_hist] == [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.0]


def test_flight_is_the_same_every_time_and_in_evaluation():
    made = volume(x0=lead_in_beryllium)
    first, second, judged = (muons(beam(50)) for _ in range(3))
    made(first)
    made(second)
    made.eval()
    made(judged)
    assert torch.equal(first.muons, second.muons)
    assert torch.equal(first.get_hits()["above"]["reco_xyz"], second.get_hits()["above"]["reco_xyz"])
    assert torch.equal(first.muons, judged.muons)


def test_empty_volumes_do_not_scatter():
    made, mu = volume(), muons(beam(20))
    made(mu)
    assert torch.equal(mu.direction, muons(beam(20)).direction)


# ---- copies, state, types, modes


@pytest.mark.parametrize("how", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
@pytest.mark.parametrize("budget", [None, 9.0])
def test_a_volume_that_has_seen_muons_can_be_copied(how, budget):
    made = volume("sigmoid", budget=budget, x0=lead_in_beryllium)
    mu = muons(beam(20))
    made(mu)
    new = how(made)
    other = muons(beam(20))
    new(other)
    assert torch.equal(other.get_hits()["below"]["reco_xyz"], mu.get_hits()["below"]["reco_xyz"])
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.add_(0.01)
    assert all((a != b).any() for a, b in zip(made.parameters(), new.parameters(), strict=True))
    mu.get_hits()["below"]["unc_xyz"].sum().backward()  # the original keeps its graph


def test_state_holds_the_detector_and_nothing_else():
    made = volume("sigmoid", budget=32.0, x0=lead_in_beryllium, dtype=torch.float32)
    state = made.state_dict()
    panels = [f"layers.{layer}.panels.{k}." for layer in (0, 7) for k in range(4)]
    names = ("xy", "z", "xy_span", "m2_cost", "resolution", "efficiency", "_smooth")
    assert set(state) == {"budget_weights"} | {p + n for p in panels for n in names}
    assert len(state) == 57
    other = volume("sigmoid", budget=32.0, dtype=torch.float32, shift=0.1)
    with torch.no_grad():
        made.budget_weights[:] = torch.arange(8.0)
    other.load_state_dict(made.state_dict())
    other.assign_budget()
    made.assign_budget()
    for a, b in zip(made.yield_panels(), other.yield_panels(), strict=True):
        assert torch.equal(a.get_scaled_xy_span(), b.get_scaled_xy_span())


@pytest.mark.parametrize("budget", [None, 9.0])
def test_everything_follows_to_another_type(budget):
    made = volume("sigmoid", dtype=torch.float32, x0=lead_in_beryllium, budget=budget)
    made(muons(beam(5, dtype=torch.float32)))
    made.to(torch.float64)
    mu = muons(beam(50))
    made(mu)
    assert mu.get_hits()["above"]["reco_xyz"].dtype == torch.float64
    assert made.get_rad_cube().dtype == made.get_cost().dtype == made.lw.dtype == torch.float64
    assert made.voxel_edges()[0].dtype == torch.float64
    sb = ScatterBatch(mu, made)
    sb.poca_xyz_unc.sum().backward()
    for parameter in made.parameters():
        assert parameter.grad.dtype == torch.float64
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize(("ours", "theirs"), [(torch.float32, torch.float64), (torch.float64, torch.float32)])
def test_muons_of_another_type_keep_theirs(ours, theirs):
    made, mu = volume(x0=lead_in_beryllium, dtype=ours), muons(beam(50, dtype=theirs))
    made(mu)
    assert mu.dtype == mu.get_hits()["below"]["reco_xyz"].dtype == theirs
    assert ScatterBatch(mu, made).poca_xyz.dtype == theirs


def test_frozen_volumes_and_no_grad():
    made = volume(x0=lead_in_beryllium, budget=9.0).requires_grad_(False)
    mu = muons(beam(20))
    made(mu)
    assert not mu.get_hits()["above"]["reco_xyz"].requires_grad
    made.requires_grad_(True)
    with torch.no_grad():
        again = muons(beam(20))
        made(again)
    assert not again.get_hits()["above"]["reco_xyz"].requires_grad
    with torch.inference_mode():
        once_more = muons(beam(20))
        made(once_more)
    assert torch.equal(once_more.get_hits()["above"]["reco_xyz"], again.get_hits()["above"]["reco_xyz"])
    after = muons(beam(20))
    made(after)  # what inference mode left behind does not stand in the way of gradients
    after.get_hits()["above"]["unc_xyz"].sum().backward()


# ---- bad input


@pytest.mark.parametrize(
    ("layers", "error", "words"),
    [
        ([], InputError, "at least one"),
        ([nn.Linear(1, 1)], InputError, "Linear"),
        ([*passives(0.7), *passives(0.8)], GeometryError, "decreasing z"),
        ([*passives(0.8), *passives(0.75)], GeometryError, "overlap"),
        ([*passives(0.8), *passives(0.6)], GeometryError, "contiguous"),
        ([*passives(0.8), *passives(0.7, size=0.2)], InputError, "share"),
        ([*passives(0.8), *passives(0.7, lw=torch.tensor([1.0, 0.5]))], InputError, "share"),
        ([*passives(0.8), detector("middle", 0.7), *passives(0.5)], GeometryError, "contiguous"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers, error, words):
    with pytest.raises(error, match=words):
        Volume(layers)
