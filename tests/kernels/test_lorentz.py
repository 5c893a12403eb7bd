"""Boosts are Lorentz transformations, finite wherever a frame has no rest frame, and what they claim to be."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from diffdet.kernels import lorentz
from diffdet.kernels.graphs import unordered_pairs


def particles(*shape, dtype=torch.float64, seed=0, mass=1.0):
    """Massive particles with momenta of a few masses."""
    momentum = 3 * torch.randn(*shape, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    energy = (mass**2 + momentum.square().sum(-1, keepdim=True)).sqrt()
    return torch.cat([momentum, energy], -1).to(dtype)


def textbook(q, frame):
    """The boost in terms of beta and gamma, for one vector, as written in the LBN paper."""
    beta = [-frame[k] / frame[3] for k in range(3)]
    b2 = sum(b * b for b in beta)
    gamma = 1 / math.sqrt(1 - b2)
    bp = sum(q[k] * beta[k] for k in range(3))
    k2 = (gamma - 1) / b2 if b2 else 0.0
    return [*(q[k] + k2 * bp * beta[k] + gamma * q[3] * beta[k] for k in range(3)), gamma * (q[3] + bp)]


def dot(a, b):
    """Scalar products of four-momenta."""
    return a[..., 3] * b[..., 3] - (a[..., :3] * b[..., :3]).sum(-1)


def rotation(seed=1):
    """A rotation of space."""
    q, r = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
    q = q * r.diagonal().sign()
    return q * torch.linalg.det(q)


def test_equals_the_textbook():
    q, frame = particles(20, seed=1), particles(20, seed=2, mass=0.5)
    wanted = [textbook(a, b) for a, b in zip(q.tolist(), frame.tolist(), strict=True)]
    torch.testing.assert_close(lorentz.boost(q, frame), torch.tensor(wanted, dtype=torch.float64))


def test_a_frame_seen_from_itself_is_at_rest(dtype):
    frame = particles(50, dtype=dtype, mass=2.0)
    seen = lorentz.boost(frame, frame)
    tolerance = 1e-4 if dtype is torch.float32 else 1e-12
    torch.testing.assert_close(seen[:, :3], torch.zeros_like(seen[:, :3]), rtol=0, atol=tolerance)
    torch.testing.assert_close(seen[:, 3], torch.full_like(seen[:, 3], 2), rtol=0, atol=tolerance)


@given(st.lists(st.floats(-50, 50), min_size=6, max_size=6), st.floats(0.01, 10), st.floats(0.01, 10))
def test_masses_are_kept(momenta, m_q, m_frame):
    q, frame = (torch.tensor(part, dtype=torch.float64) for part in (momenta[:3], momenta[3:]))
    q = torch.cat([q, (m_q**2 + q.square().sum()).sqrt()[None]])
    frame = torch.cat([frame, (m_frame**2 + frame.square().sum()).sqrt()[None]])
    seen = lorentz.boost(q, frame)
    gamma = 1 + lorentz.four_velocity(frame).square().sum()
    assert abs(lorentz.mass_squared(seen) - m_q**2).item() <= 1e-13 * (gamma * seen[3] ** 2 + q[3] ** 2).item()


def test_scalar_products_are_kept():
    a, b, frame = particles(100, seed=1), particles(100, seed=2), particles(100, seed=3)
    torch.testing.assert_close(dot(lorentz.boost(a, frame), lorentz.boost(b, frame)), dot(a, b))


def test_boosts_keep_masses_even_into_frames_that_have_none():
    # the frame gets a mass, and the boost into that is a Lorentz transformation like any other
    q = particles(5)
    for frame in ([3.0, 0.0, 4.0, 5.0], [3.0, 0.0, 4.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]):
        seen = lorentz.boost(q, torch.tensor(frame, dtype=torch.float64).expand_as(q), floor=1e-3)
        torch.testing.assert_close(lorentz.mass(seen), torch.ones(5, dtype=torch.float64), rtol=1e-6, atol=0)


def test_rotating_the_event_rotates_what_is_seen():
    q, frame, turn = particles(30, seed=1), particles(30, seed=2), rotation()
    whole = torch.block_diag(turn, torch.ones(1, 1, dtype=torch.float64))
    torch.testing.assert_close(lorentz.boost(q @ whole.T, frame @ whole.T), lorentz.boost(q, frame) @ whole.T)


def test_the_inverse_boost_leads_back():
    q, frame = particles(30, seed=1), particles(30, seed=2)
    back = frame * torch.tensor([-1, -1, -1, 1])
    torch.testing.assert_close(lorentz.boost(lorentz.boost(q, frame), back), q)


def test_an_absent_frame_stands_still():
    q = particles(4)
    assert torch.equal(lorentz.boost(q, torch.zeros_like(q)), q)


EDGES = {
    "absent": [0.0, 0.0, 0.0, 0.0],
    "at rest": [0.0, 0.0, 0.0, 2.0],
    "massless": [0.0, 3.0, 4.0, 5.0],
    "spacelike": [3.0, 0.0, 0.0, 1.0],
    "no energy": [1.0, 2.0, 2.0, 0.0],
    "negative energy": [0.1, 0.0, 0.0, -1.0],
    "tiny": [1e-30, 0.0, 0.0, 2e-30],
    "large": [1e15, 0.0, 0.0, 1.1e15],
}


@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("other", EDGES)
def test_value_and_gradient_are_finite_at_the_edges(name, other, dtype):
    q = torch.tensor([EDGES[other]], dtype=dtype, requires_grad=True)
    frame = torch.tensor([EDGES[name]], dtype=dtype, requires_grad=True)
    seen = lorentz.boost(q, frame)
    cosines = lorentz.pair_cosines(torch.stack([seen, q], 1), *unordered_pairs(2))
    gradients = torch.autograd.grad(seen.sum() + cosines.sum(), (q, frame))
    for found in (seen, cosines, *gradients):
        assert torch.isfinite(found).all()


def test_gradients_are_those_of_finite_differences():
    q = particles(3, seed=1).requires_grad_()
    frame = particles(3, seed=2).requires_grad_()
    assert gradcheck(lorentz.boost, (q, frame))
    assert gradcheck(lorentz.mass, (q,))
    assert gradcheck(lambda p: lorentz.pair_cosines(p, *unordered_pairs(3)), (q,))
    at_rest = torch.tensor([[0.0, 0.0, 0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lorentz.boost, (q[:1].detach().requires_grad_(), at_rest))
    massless = torch.tensor([[0.0, 3.0, 4.0, 5.0]], dtype=torch.float64, requires_grad=True)
    # away from the kink where the floor takes over
    assert gradcheck(lambda f: lorentz.boost(q[:1].detach(), f, 0.3), (massless,))


def test_float32_is_as_good_as_its_input():
    # a fast light frame: float32 against float64 of the same rounded numbers
    momentum = 200 + 10 * torch.rand(1000, generator=torch.Generator().manual_seed(0))
    frame = torch.zeros(1000, 4)
    frame[:, 2] = momentum
    frame[:, 3] = (momentum.double().square() + 25).sqrt().float()
    q = particles(1000, dtype=torch.float32)
    single, double = lorentz.boost(q, frame), lorentz.boost(q.double(), frame.double())
    worst = ((single - double).abs().amax(-1) / double.abs().amax(-1)).max().item()
    # m^2 = 25 is what is left of E^2 = 40,000, 24 bits less 11: a relative error of some 1e-4 at worst
    assert worst < 5e-4


def test_energies_below_the_momentum_are_unphysical(dtype):
    p = particles(10, dtype=dtype)
    assert lorentz.is_physical(p).all()
    massless = torch.cat([p[:, :3], p[:, :3].norm(dim=-1, keepdim=True)], -1)
    assert lorentz.is_physical(massless).all()
    assert lorentz.is_physical(torch.zeros(1, 4, dtype=dtype)).all()
    for change in (lambda p: p * torch.tensor([1, 1, 1, 0.9]) - torch.tensor([0, 0, 0, 1]), lambda p: p * math.nan):
        assert not lorentz.is_physical(change(p)).any()


def test_cosines_of_perpendicular_parallel_and_vanishing_momenta():
    p = torch.tensor([[1.0, 0, 0, 2], [0, 3, 0, 4], [-2, 0, 0, 3], [0, 0, 0, 1]])
    cosines = lorentz.pair_cosines(p, *unordered_pairs(4))
    assert cosines.tolist() == pytest.approx([0, -1, 0, 0, 0, 0])


def test_mass_is_zero_with_gradient_zero_for_the_massless(dtype):
    p = torch.tensor([[0.0, 3.0, 4.0, 5.0], [3.0, 0.0, 0.0, 1.0]], dtype=dtype, requires_grad=True)
    mass = lorentz.mass(p)
    mass.sum().backward()
    assert mass.tolist() == [0, 0]
    assert p.grad is not None
    assert not p.grad.any()
