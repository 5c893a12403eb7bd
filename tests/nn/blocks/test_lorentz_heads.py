"""Lorentz boost networks keep masses, turn with the event, and stay finite on everything that data may hold."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from diffdet.core.errors import InputError, ShapeError
from diffdet.kernels.lorentz import boost, mass, mass_squared
from diffdet.nn.models.blocks.head import AutoExtractLorentzBoostNet, LorentzBoostNet
from nn.some_heads import FEATS, VECS, columns, events, masks, matrix_head


def boosts(n_particles=3, dtype=torch.float64, **more):
    return LorentzBoostNet(columns(), VECS, FEATS, n_particles, **{"bn": False, **more}).to(dtype).eval()


def auto(n_particles=3, **more):
    arguments = {"depth": 2, "width": 5, "n_singles": 2, "n_pairs": 3, **more}
    return AutoExtractLorentzBoostNet(columns(), VECS, FEATS, n_particles, **arguments).double().eval()


def four_vector(momenta, masses):
    return torch.cat([momenta, (masses.square() + momenta.square().sum(-1)).sqrt()[..., None]], -1)


def turned(objects, seed=1):
    """The events turned by a rotation, and the rotation."""
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(3, 3, dtype=objects.dtype, generator=generator))
    q = q * r.diagonal().sign()
    q = q * torch.linalg.det(q)
    return torch.cat([objects[..., :3] @ q.T, objects[..., 3:]], -1), q


def learned(net, objects):
    """Particles and frames, by their definition."""
    parts = []
    for weights in (net.part_wgts, net.rf_wgts):
        rows = [sum(weights[i, 0, v, 0].abs() * objects[:, v] for v in range(5)) for i in range(net.n_particles)]
        parts.append(torch.stack(rows, 1))
    return parts


def test_features_equal_loops_over_particles_and_pairs():
    net, objects = boosts(), events(4, torch.float64)
    particles, frames = learned(net, objects)
    found = net(objects)
    for event in range(4):
        seen = [boost(particles[event, i], frames[event, i]) for i in range(3)]
        cosines = [
            torch.dot(seen[i][:3], seen[j][:3]) / (seen[i][:3].norm() * seen[j][:3].norm())
            for i in range(3)
            for j in range(i + 1, 3)
        ]
        torch.testing.assert_close(found[event], torch.cat([*seen, torch.stack(cosines)]))


def test_masses_of_particles_are_kept():
    net, objects = boosts(6), events(50, torch.float64)
    particles, _ = learned(net, objects)
    torch.testing.assert_close(mass(net.boosted(objects)), mass(particles))


def test_masses_do_not_change_when_the_whole_event_is_boosted():
    net, objects = boosts(6), events(50, torch.float64)
    frame = four_vector(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64))
    seen = boost(objects, frame.expand_as(objects))
    torch.testing.assert_close(mass(net.boosted(seen)), mass(net.boosted(objects)))
    torch.testing.assert_close(net.boosted(seen)[..., 3], net.boosted(objects)[..., 3])  # in a frame of the event's own


def test_particles_in_their_own_frame_are_at_rest():
    net, objects = boosts(), events(20, torch.float64)
    with torch.no_grad():
        net.rf_wgts.copy_(2.5 * net.part_wgts)
    seen = net.boosted(objects)
    particles, _ = learned(net, objects)
    torch.testing.assert_close(seen[..., :3], torch.zeros_like(seen[..., :3]), rtol=0, atol=1e-10)
    torch.testing.assert_close(seen[..., 3], mass(particles))


def test_turning_the_event_turns_what_is_seen():
    net, objects = boosts(), events(20, torch.float64)
    rotated, turn = turned(objects)
    before, after = net.boosted(objects), net.boosted(rotated)
    torch.testing.assert_close(after[..., :3], before[..., :3] @ turn.T)
    torch.testing.assert_close(after[..., 3], before[..., 3])
    torch.testing.assert_close(net(rotated)[:, 12:], net(objects)[:, 12:])  # cosines


EDGES = {
    "absent": torch.zeros(5, 4),
    "at rest": torch.tensor([0.0, 0, 0, 2]).expand(5, 4),
    "one massless": torch.tensor([[0.0, 3, 4, 5], *[[0.0] * 4] * 4]),
    "collinear massless": torch.tensor([0.0, 3, 4, 5]) * torch.arange(1.0, 6)[:, None],
    "unphysical": torch.tensor([3.0, 0, 0, 1]).expand(5, 4),
    "fast": torch.tensor([[1e4, 0, 0, 1e4], [0, 1e-3, 0, 2e-3], *[[0.0] * 4] * 3]),
}


@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("kind", ["lbn", "lbn plain", "aelbn"])
@pytest.mark.parametrize("inside", [False, True])
def test_value_and_gradient_are_finite_at_the_edges(name, kind, inside, dtype):
    net = matrix_head(kind, in_float64=inside).to(dtype)
    x = EDGES[name].to(dtype)[None].repeat(2, 1, 1).requires_grad_()
    found = net(x)
    assert torch.isfinite(found).all()
    gradients = torch.autograd.grad(found.sum(), [x, *net.parameters()], allow_unused=True)
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)


def test_gradients_are_those_of_finite_differences():
    net = boosts()
    objects = events(2, torch.float64).requires_grad_()
    assert gradcheck(lambda x, *_: net(x), (objects, net.part_wgts, net.rf_wgts))


def test_float64_inside_makes_float32_as_good_as_its_input():
    exact, inside = boosts(), boosts(dtype=torch.float32)
    single = boosts(dtype=torch.float32, in_float64=False)
    weights = {k: v.float().double() for k, v in exact.state_dict().items()}
    for net in (exact, inside, single):
        net.load_state_dict(weights)
    # all nearly in one direction: fast, light frames
    momenta = torch.tensor([0.0, 0, 200]) + torch.randn(200, 5, 3, generator=torch.Generator().manual_seed(0))
    objects = four_vector(momenta, torch.full((200, 5), 0.1))
    wanted = exact.boosted(objects.double())
    errors = [((net.boosted(objects).double() - wanted).abs() / wanted.abs().amax(-1, keepdim=True)).max().item()
              for net in (inside, single)]  # fmt: skip
    assert errors[0] < 2e-7 < errors[1]
    assert inside(objects).dtype is torch.float32


@pytest.mark.parametrize("inside", [False, True])
def test_mixed_precision_leaves_momenta_alone(inside):
    net, objects = boosts(dtype=torch.float32, in_float64=inside), 1e5 * events(8)
    with torch.autocast("cpu", dtype=torch.float16):
        found = net.boosted(objects)
    torch.testing.assert_close(found, net.boosted(objects), rtol=1e-5, atol=1e-1)


def test_a_floor_under_the_mass_of_frames_limits_how_fast_they_are():
    massless = EDGES["one massless"].double()[None]  # seen by a frame that flies along: the faster, the redder
    energies = [boosts(mass_floor=floor).boosted(massless)[..., 3].abs().max().item() for floor in (0.5, 0.01)]
    assert energies[0] > 10 * energies[1] > 0


def test_a_function_of_the_users_own_takes_the_place_of_the_extractor():
    def masses(x):
        momenta, energies = x[:, :, :3], x[:, :, 3:]
        return torch.sqrt(energies**2 - torch.sum(momenta**2, dim=-1)[:, :, None])  # (batch, particle, 1)

    net = boosts(4, feat_extractor=masses, bn=True)  # the documentation's example
    assert net.get_out_size() == 4
    torch.testing.assert_close(net(events(8, torch.float64)).shape, torch.Size([8, 4]))

    class Own(LorentzBoostNet):
        def feat_extractor(self, x):
            return mass_squared(x).sum(1)

    assert Own(columns(), VECS, FEATS, 3)(events(8)).shape == (8, 1)
    with pytest.raises(ShapeError, match="`feat_extractor` must return"):
        boosts(feat_extractor=lambda x: x.sum(0))


def test_an_extractor_with_parameters_is_trained_and_frozen_with_the_head():
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x):
            return self.layer(x)

    net = boosts(feat_extractor=Learned(), freeze=True)
    assert len(list(net.parameters())) == 4
    assert not any(p.requires_grad for p in net.parameters())


def test_unphysical_objects_are_refused_by_name_when_asked_for():
    objects = events(4, torch.float64)
    objects[2, 1, 3] = 0.0
    with pytest.raises(InputError, match=r"physical.*object 'b' in row 2.*1 such objects"):
        boosts(check_input=True)(objects)
    assert torch.isfinite(boosts()(objects)).all()
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[2, 1] = False
    assert boosts(check_input=True)(objects, mask).shape == (4, 15)


def test_weights_start_with_the_documented_spread():
    net = boosts(40)
    for weights in (net.part_wgts, net.rf_wgts):
        assert weights.shape == (40, 1, 5, 1)
        assert weights.std().item() == pytest.approx(1 / 40, rel=4 / math.sqrt(2 * 200))
    assert net.comb.shape == (780, 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"feats_per_vec": ["E", "px", "py", "pz"]}, "`feats_per_vec` must be in the order px, py, pz, E"),
        ({"feats_per_vec": ["px", "py", "pz"]}, "`feats_per_vec` must name px, py, pz and E"),
        ({"n_particles": 0}, "`n_particles`"),
        ({"mass_floor": 0.0}, "`mass_floor`"),
        ({"n_particle": 3}, "Did you mean 'n_particles'"),
    ],
)
def test_wrong_arguments_are_refused(wrong, message):
    arguments = {"cont_feats": columns(), "vecs": VECS, "feats_per_vec": FEATS, "n_particles": 2, **wrong}
    with pytest.raises(InputError, match=message):
        LorentzBoostNet(**arguments)


def test_other_names_of_components_are_fine():
    names = [f"{vec}_{feat}" for vec in VECS for feat in ("x", "y", "z", "t")]
    assert LorentzBoostNet(names, VECS, ["x", "y", "z", "t"], 2).get_out_size() == 9


# learned features


def test_learned_features_equal_loops_over_particles_and_pairs():
    net, objects = auto(), events(4, torch.float64)
    boosted = net.boosted(objects)
    z = net.pre_bn(boosted.flatten(1)).reshape(4, 3, 4)
    singles = [net.single_nn(z[:, i]) for i in range(3)]
    pairs = [net.pair_nn(torch.cat([z[:, i], z[:, j]], 1)) for i in range(3) for j in range(i + 1, 3)]
    torch.testing.assert_close(net(objects), torch.cat([*singles, *pairs], 1))
    assert net.get_out_size() == 3 * 2 + 3 * 3


def test_either_kind_of_feature_may_be_left_out():
    assert auto(n_pairs=0).get_out_size() == 6
    assert not hasattr(auto(n_pairs=0), "pair_nn")
    assert auto(n_singles=0).get_out_size() == 9
    assert auto(1, n_pairs=0).get_out_size() == 2
    for wrong in ({"n_singles": 0, "n_pairs": 0}, {"n_particles": 1}, {"depth": 0}, {"width": -1}):
        with pytest.raises(InputError):
            auto(**wrong)


def test_batch_norm_runs_in_training():
    # crashed in the older package, for inputs with an axis of particles
    net = auto(bn=True, do=0.1).train()
    found = net(events(16, torch.float64), masks(16))
    assert found.shape == (16, 15)
    assert int(net.single_nn[0][2].bn.num_batches_tracked) == 1


def test_freezing_freezes_the_networks_too():
    net = auto(freeze=True)
    names = {name.split(".")[0] for name, p in net.named_parameters() if not p.requires_grad}
    assert names == {"part_wgts", "rf_wgts", "single_nn", "pair_nn", "pre_bn"}
    assert net.get_param_count() == 0
