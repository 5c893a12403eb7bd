"""Batches of muons: kinematics against reference values, removal, identity, keyed chance, hits, bad input."""

import math

import pytest
import torch

from diffdet.core.errors import InputError, NoHitsError, ShapeError
from diffdet.core.random import Stream
from diffdet.tomography.muon.hits import HitBatch
from diffdet.tomography.muon.muon_batch import MuonBatch
from scenes import beam, lead_in_beryllium, muons, pencil, volume

F64 = {"dtype": torch.float64}


def one(theta=0.5, phi=1.0, at=(0.1, 0.2), z=1.0):
    return muons(pencil(1, theta=theta, phi=phi, at=at), z=z)


def recorded(n, value=0.0):
    """Documented form of one panel's hits."""
    xyz = torch.full((n, 3), value, **F64)
    return {"reco_xyz": xyz, "gen_xyz": xyz, "unc_xyz": xyz + 1, "eff": torch.ones((n, 1), **F64)}


# ---- kinematics


@pytest.mark.parametrize(
    ("phi", "expected"), [(1.0, (0.2870184, 0.4308892)), (4.0, (-0.3429745, -0.3920413))], ids=["1", "4"]
)
def test_projected_angles_have_the_reference_values(phi, expected):
    mu = one(phi=phi)
    assert mu.theta_xy[0].tolist() == pytest.approx(expected, abs=1e-6)
    theta, f = torch.tensor([0.5], **F64), torch.tensor([phi], **F64)
    pair = MuonBatch.theta_x_from_theta_phi(theta, f), MuonBatch.theta_y_from_theta_phi(theta, f)
    torch.testing.assert_close(torch.cat(pair), mu.theta_xy[0])
    assert MuonBatch.theta_from_theta_xy(*pair).item() == pytest.approx(0.5, rel=1e-12)
    assert MuonBatch.phi_from_theta_xy(*pair).item() == pytest.approx(phi, rel=1e-12)


def test_a_flight_has_the_reference_values():
    mu = one()
    mu.propagate_d(0.1)
    assert mu.xyz[0].tolist() == pytest.approx((0.1259035, 0.2403423, 0.9122418), abs=1e-6)
    mu.propagate_dz(0.1)
    assert mu.xyz[0].tolist() == pytest.approx((0.1554203, 0.2863120, 0.8122417), abs=1e-6)
    mu.scatter_dtheta_xy(torch.tensor([0.01], **F64), torch.tensor([-0.02], **F64))
    assert (mu.theta.item(), mu.phi.item()) == pytest.approx((0.4892708, 0.9583930), abs=1e-6)
    mu.scatter_dtheta_dphi(torch.tensor([-0.6], **F64), torch.tensor([0.1], **F64))
    assert (mu.theta.item(), mu.phi.item()) == pytest.approx((0.1107292, 4.1999855), abs=1e-6)


def test_flights_can_be_undone_and_composed():
    given = beam(50, max_theta=1.2)
    mu = muons(given)
    mu.propagate_dz(0.3)
    mu.propagate_dz(torch.tensor([0.4], **F64))
    torch.testing.assert_close(mu.z, torch.full((50,), 0.3, **F64))
    mu.propagate_dz(torch.full((50,), -0.7, **F64))
    torch.testing.assert_close(mu.xyz, muons(given).xyz)
    mu.propagate_d(-2.0)
    mu.propagate_d(torch.full((50,), 2.0, **F64))
    torch.testing.assert_close(mu.xyz, muons(given).xyz)
    mu.propagate_to_z(0.1)
    along = mu.xyz - muons(given).xyz
    torch.testing.assert_close(along / along.norm(dim=1, keepdim=True), mu.direction.T)


def test_masked_flights_move_the_selected_only():
    given = beam(6)
    mask = torch.tensor([True, False, True, False, False, True])
    for move in ("propagate_d", "propagate_dz"):
        for by in (0.1, torch.tensor([0.1], **F64), torch.full((6,), 0.1, **F64), torch.full((3,), 0.1, **F64)):
            mu, whole = muons(given), muons(given)
            getattr(mu, move)(by, mask)
            getattr(whole, move)(0.1)
            torch.testing.assert_close(mu.xyz[mask], whole.xyz[mask])
            assert torch.equal(mu.xyz[~mask], muons(given).xyz[~mask])


def test_displacements():
    mask = torch.tensor([True, False, True])
    mu = muons(beam(3))
    before = mu.xyz.clone()
    mu.scatter_dxyz(dx_vol=torch.tensor([0.1, 0.2], **F64), dz_vol=torch.tensor([-0.1, 0.0], **F64), mask=mask)
    expected = torch.tensor([[0.1, 0.0, -0.1], [0, 0, 0], [0.2, 0, 0]], **F64)
    torch.testing.assert_close(mu.xyz - before, expected)


def test_muons_that_are_not_selected_keep_their_direction_to_the_last_digit():
    mu = muons(beam(4))
    before = mu.direction.clone()
    mask = torch.tensor([False, True, False, True])
    mu.scatter_dtheta_dphi(torch.full((2,), 0.1, **F64), torch.full((2,), 0.2, **F64), mask)
    mu.scatter_dtheta_xy(torch.full((2,), 0.1, **F64), mask=mask)
    assert torch.equal(mu.direction[:, ~mask], before[:, ~mask])
    assert (mu.direction[:, mask] != before[:, mask]).any(0).all()


def test_a_vertical_muon_can_be_scattered_and_is_not_lost():
    mu = one(theta=0.0, phi=0.0)
    mu.scatter_dtheta_xy(torch.zeros(1, **F64), torch.zeros(1, **F64))
    assert len(mu) == 1
    assert (mu.theta.item(), mu.phi.item()) == (0, 0)
    mu.scatter_dtheta_xy(dtheta_y_vol=torch.tensor([0.1], **F64))
    assert (mu.theta.item(), mu.phi.item()) == pytest.approx((0.1, math.pi / 2))


def test_directions_are_of_unit_length_and_angles_in_their_ranges(dtype):
    mu = muons(beam(500, max_theta=1.57, dtype=dtype))
    torch.testing.assert_close(mu.direction.norm(dim=0), torch.ones(500, dtype=dtype))
    assert ((mu.theta >= 0) & (mu.theta < math.pi / 2)).all()
    assert ((mu.phi >= 0) & (mu.phi < 2 * math.pi)).all()
    given = beam(500, max_theta=1.57, dtype=dtype)
    torch.testing.assert_close(mu.theta, given[:, 3], rtol=1e-5, atol=1e-6)
    assert mu.dtype == dtype


def test_small_angles_survive_float32():
    mu = muons(pencil(1, theta=1e-5, phi=2.0, dtype=torch.float32))
    assert mu.theta.item() == pytest.approx(1e-5, rel=1e-5)
    assert mu.phi.item() == pytest.approx(2.0, rel=1e-5)


def test_what_can_be_read():
    given = beam(4)
    mu = muons(given, z=0.7)
    assert (mu.x_dim, mu.y_dim, mu.z_dim, mu.p_dim, mu.th_dim, mu.ph_dim) == tuple(range(6))
    torch.testing.assert_close(mu.muons[:, [0, 1, 3, 4, 5]], given)
    torch.testing.assert_close(mu.muons[:, 2], torch.full((4,), 0.7, **F64))
    assert torch.equal(mu.xy, torch.stack([mu.x, mu.y], 1))
    assert torch.equal(mu.xyz, torch.stack([mu.x, mu.y, mu.z], 1))
    assert torch.equal(mu.mom, mu.reco_mom)
    assert torch.equal(mu.theta_xy, torch.stack([mu.theta_x, mu.theta_y], 1))
    torch.testing.assert_close(mu.dtheta(given[:, 3] + 0.1), torch.full((4,), 0.1, **F64))
    torch.testing.assert_close(mu.dtheta_x(mu.theta_x - 0.1), torch.full((4,), 0.1, **F64))
    torch.testing.assert_close(mu.dtheta_y(mu.theta_y + 0.1), torch.full((4,), 0.1, **F64))
    assert repr(mu) == "Batch of 4 muons"
    for name in ("x", "theta", "mom", "reco_mom", "xyz", "theta_xy"):
        with pytest.raises(AttributeError):
            setattr(mu, name, torch.zeros(4))


def test_state_can_be_replaced_and_the_argument_is_copied():
    given = beam(3)
    mu = muons(given)
    given[:] = 0.1
    assert (mu.x != 0.1).all()
    state = mu.muons
    state[:, 0] += 1
    assert (mu.x < 1).all()
    mu.muons = state
    torch.testing.assert_close(mu.muons, state)
    again = muons(state, z=0.2)
    torch.testing.assert_close(again.theta, mu.theta)
    assert again.z.tolist() == [0.2] * 3


def test_copy_has_the_muons_and_not_the_hits():
    mu = muons(beam(3))
    mu.append_hits(recorded(3), "above")
    new = mu.copy()
    new.propagate_dz(0.5)
    assert torch.equal(mu.muons, muons(beam(3)).muons)
    with pytest.raises(NoHitsError):
        new.get_hits()
    assert torch.equal(new.ids, mu.ids)
    assert torch.equal(new.draw_normal("a", (2,)), mu.draw_normal("a", (2,)))


def test_snapshots():
    mu = muons(beam(2))
    mu.snapshot_xyz()
    mu.propagate_dz(0.5)
    mu.snapshot_xyz()
    assert len(mu.xyz_hist) == 2
    assert mu.xyz_hist[0].shape == (2, 3)
    assert (mu.xyz_hist[0][:, 2] - mu.xyz_hist[1][:, 2]).tolist() == pytest.approx([0.5, 0.5])


# ---- removal


def test_muons_that_turn_up_are_removed_with_their_hits_and_remembered():
    mu = muons(beam(4, max_theta=0.5))
    mu.append_hits({key: value + torch.arange(4, **F64)[:, None] for key, value in recorded(4).items()}, "above")
    assert mu.upwards_muons is None
    mu.scatter_dtheta_dphi(torch.tensor([0.0, 2.0, 0.0, math.nan], **F64))
    assert len(mu) == 2
    assert mu.ids.tolist() == [0, 2]
    assert mu._keep_mask.tolist() == [True, False, True, False]
    assert mu.get_hits()["above"]["reco_xyz"][:, 0, 0].tolist() == [0, 2]
    assert mu.upwards_muons.shape == (2, 6)
    assert mu.upwards_muons[0, 4].item() > math.pi / 2
    mu.scatter_dtheta_xy(torch.tensor([0.0, 3.0], **F64))
    assert mu.ids.tolist() == [0]
    assert mu.upwards_muons.shape == (3, 6)


def test_projected_angles_of_a_muon_that_does_not_fall_do_not_exist():
    mu = muons(pencil(1, theta=2.0))
    assert torch.isnan(mu.theta_xy).all()
    mu.remove_upwards_muons()
    assert len(mu) == 0


def test_filtering_keeps_what_is_asked_for():
    mu = muons(beam(5))
    mu.filter_muons(torch.ones(5, dtype=torch.bool))
    assert mu.upwards_muons is None
    mu.filter_muons(torch.tensor([True, False, True, True, False]))
    mu.filter_muons(torch.tensor([False, True, True]))
    assert mu.ids.tolist() == [2, 3]
    torch.testing.assert_close(mu.muons, muons(beam(5)).muons[[2, 3]])
    mu.filter_muons(torch.zeros(2, dtype=torch.bool))
    assert (len(mu), mu.ids.tolist()) == (0, [])
    with pytest.raises(ShapeError, match="keep_mask"):
        mu.filter_muons(torch.ones(3, dtype=torch.bool))


def test_xy_mask_is_closed_below_and_open_above():
    mu = muons(
        torch.tensor([[0.0, 0.5, 5, 0, 0], [1.0, 0.5, 5, 0, 0], [0.5, 1.0, 5, 0, 0], [0.5, 0.0, 5, 0, 0]], **F64)
    )
    assert mu.get_xy_mask((0.0, 0.0), (1.0, 1.0)).tolist() == [True, False, False, True]
    assert mu.get_xy_mask(None, (1.0, 1.1)).tolist() == [True, False, True, True]
    assert mu.get_xy_mask(torch.tensor([0.5, 0.0]), None).tolist() == [False, True, True, True]
    assert mu.get_xy_mask(None, None).all()


# ---- identity and chance


def test_what_a_muon_draws_depends_on_the_muon_alone():
    whole = muons(beam(3000))
    part = muons(beam(3000)[1000:1100], first=1000)
    for purpose in ("a", "a", "b"):
        expected = whole.draw_normal(purpose, (2,))[:, 1000:1100]
        assert torch.equal(part.draw_normal(purpose, (2,)), expected)
        assert torch.equal(part.draw_uniform(purpose, ()), whole.draw_uniform(purpose, ())[1000:1100])
    whole.filter_muons(torch.arange(3000) % 2 == 0)
    assert torch.equal(whole.draw_normal("a", ())[500:550], part.draw_normal("a", ())[::2])
    assert not torch.equal(muons(beam(3), key=2).draw_normal("a", ()), muons(beam(3), key=1).draw_normal("a", ()))


def test_uses_of_a_purpose_are_counted():
    mu = muons(beam(3))
    assert [mu.next_use("x"), mu.next_use("x"), mu.next_use("y")] == ["x/0", "x/1", "y/0"]


def test_a_part_of_a_batch_draws_from_the_same_sequence():
    mu, other = muons(beam(4)), muons(beam(4))
    mask = torch.tensor([False, True, True, False])
    part = mu.part(mask)
    assert part.ids.tolist() == [1, 2]
    assert torch.equal(part.draw_normal("a", ()), other.draw_normal("a", ())[mask])
    assert torch.equal(mu.draw_normal("a", ()), other.draw_normal("a", ()))  # the second use


def test_without_a_stream_torchs_seed_decides():
    def draw(seed):
        torch.manual_seed(seed)
        return MuonBatch(beam(5), 1.0).draw_normal("a", ())

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize("kind", ["gaussian", "sigmoid"])
@pytest.mark.parametrize("scatter_model", ["pdg", "pdg-step"])
@pytest.mark.parametrize("training", [True, False])
def test_hits_do_not_depend_on_how_muons_are_batched(kind, scatter_model, training):
    """Bit for bit, in float32, for batches of 7, 64, 1000 and all at once."""
    n = 2500
    given = beam(n, low=-0.1, high=1.1, max_theta=0.9, dtype=torch.float32)
    made = volume(kind, x0=lead_in_beryllium, scatter_model=scatter_model, shift=0.05, dtype=torch.float32, step=0.03)
    made.train(training)

    def hits(size, stop=n):
        out = []
        for first in range(0, stop, size):
            mu = MuonBatch(given[first : min(first + size, stop)], 1.0, stream=Stream(3).muons(), first=first)
            made(mu)
            out.append((mu.ids, *(t for pos in mu.get_hits().values() for t in pos.values())))
        return [torch.cat(column) for column in zip(*out, strict=True)]

    whole = hits(n)
    for size, stop in ((1000, n), (64, n), (7, 140)):
        cut = hits(size, stop)
        keep = whole[0] < stop
        assert torch.equal(cut[0], whole[0][keep])
        for a, b in zip(cut[1:], whole[1:], strict=True):
            assert torch.equal(torch.nan_to_num(a), torch.nan_to_num(b[keep]))


# ---- hits


def test_hits_are_stacked_in_the_order_of_recording():
    mu = muons(beam(3))
    for k in range(3):
        mu.append_hits(recorded(3, float(k)), "above")
    mu.append_hits(recorded(3, 9.0), "below")
    hits = mu.get_hits()
    assert list(hits) == ["above", "below"]
    assert {key: tuple(value.shape) for key, value in hits["above"].items()} == {
        "reco_xyz": (3, 3, 3),
        "gen_xyz": (3, 3, 3),
        "unc_xyz": (3, 3, 3),
        "eff": (3, 3, 1),
    }
    assert hits["above"]["reco_xyz"][0, :, 0].tolist() == [0, 1, 2]
    assert hits["below"]["reco_xyz"].shape == (3, 1, 3)


def test_hits_of_muons_in_a_region():
    given = beam(20)
    mu = muons(given)
    mu.append_hits({**recorded(20), "reco_xyz": torch.cat([given[:, :2], torch.ones(20, 1, **F64)], 1)}, "above")
    inside = mu.get_hits((0.2, 0.2), (0.6, 0.6))["above"]["reco_xyz"][:, 0]
    expected = given[((given[:, :2] >= 0.2) & (given[:, :2] < 0.6)).all(1), :2]
    assert 0 < len(expected) < 20
    assert torch.equal(inside[:, :2], expected)


def test_missing_hits_are_told():
    mu = muons(beam(2))
    with pytest.raises(NoHitsError, match="no hits"):
        mu.get_hits()
    mu.append_hits(recorded(2), "above")
    with pytest.raises(NoHitsError, match="'below'"):
        mu.hit_batch("below")
    with pytest.raises(ShapeError, match="2 muons"):
        mu.append_hits(recorded(3), "above")


# ---- bad and rare input


@pytest.mark.parametrize("n", [0, 1])
def test_few_muons_fly(n, dtype):
    made = volume(x0=lead_in_beryllium, dtype=dtype)
    mu = muons(pencil(n, dtype=dtype))
    made(mu)
    hits = mu.get_hits()
    assert hits["above"]["reco_xyz"].shape == (n, 4, 3)
    assert mu.xyz.shape == (n, 3)
    mu.scatter_dtheta_xy(torch.zeros(n, dtype=dtype))
    mu.remove_upwards_muons()
    assert len(mu) == n


def test_whole_numbers_become_floating():
    mu = MuonBatch(torch.tensor([[0, 0, 5, 0, 0]]), 1)
    assert mu.dtype == torch.get_default_dtype()
    mu.propagate_dz(0.25)
    assert mu.z.item() == 0.75


@pytest.mark.parametrize(
    ("given", "z", "error", "words"),
    [
        (torch.zeros(3, 4), 1.0, ShapeError, "xy_p_theta_phi"),
        (torch.zeros(5), 1.0, ShapeError, "xy_p_theta_phi"),
        (torch.full((1, 5), math.nan), 1.0, InputError, "xy_p_theta_phi"),
        (torch.tensor([[0.0, 0, -1, 0, 0]]), 1.0, InputError, "momentum"),
        (torch.tensor([[0.0, 0, 0, 0, 0]]), 1.0, InputError, "momentum"),
        (torch.ones(3, 5), torch.ones(2), ShapeError, "init_z"),
    ],
)
def test_nonsense_is_refused(given, z, error, words):
    with pytest.raises(error, match=words):
        MuonBatch(given, z)


def test_heights_may_differ():
    mu = MuonBatch(beam(3), torch.tensor([1.0, 2.0, 3.0], **F64))
    assert mu.z.tolist() == [1, 2, 3]
    with pytest.raises(ShapeError, match="muons"):
        mu.muons = torch.zeros(2, 6)


def test_hit_batches_are_taken_as_they_are():
    mu = muons(beam(2))
    xy = torch.zeros((3, 2, 2), **F64)
    batch = HitBatch(xy, xy, torch.zeros((3, 1), **F64), xy + 1, torch.ones((3, 2), **F64))
    mu.append_hits(batch, "above")
    assert mu.hit_batch("above") is batch
