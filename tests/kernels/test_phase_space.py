"""Decays by phase space: conservation, masses, flatness, volume."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from diffdet.kernels.lorentz import mass
from diffdet.kernels.phase_space import breakup_momentum, isotropic, many_body_decay, two_body_decay


def uniform(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def parents(n, m=10.0, seed=1):
    draw = torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 20
    return torch.cat([draw, (draw.square().sum(-1, keepdim=True) + m * m).sqrt()], -1)


def test_breakup_momentum_has_the_values_of_known_decays():
    # Particle Data Group: Z -> mu mu 45.594 GeV, pi -> mu nu 29.79 MeV, K0 -> pi+ pi- 206.0 MeV.
    m = torch.tensor([91.1876, 0.13957039, 0.497611], dtype=torch.float64)
    m_a = torch.tensor([0.1056584, 0.1056584, 0.13957039], dtype=torch.float64)
    m_b = torch.tensor([0.1056584, 0.0, 0.13957039], dtype=torch.float64)
    got = breakup_momentum(m, m_a, m_b)
    assert got.tolist() == pytest.approx([45.5937, 0.029792, 0.20597], rel=1e-4)
    assert breakup_momentum(m[:1], m[:1], m[:1]).item() == 0


def test_directions_are_isotropic():
    u = isotropic(uniform(20_000, 2))
    assert torch.allclose(u.norm(dim=-1), torch.ones(20_000, dtype=torch.float64))
    for component in u.T:
        assert stats.kstest(component.numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_momentum_is_conserved_and_products_keep_their_masses(n):
    p = parents(500)
    masses = torch.linspace(0.1, 1.1, n, dtype=torch.float64).expand(500, n)
    products, weight = many_body_decay(p, masses, uniform(500, 3 * n - 4))
    torch.testing.assert_close(products.sum(-2), p)
    torch.testing.assert_close(mass(products), masses, rtol=1e-7, atol=1e-6)
    assert 0 <= weight.min()
    assert weight.max() <= 1


def test_two_bodies_fly_apart_isotropically_in_the_rest_frame():
    at_rest = torch.tensor([0, 0, 0, 10.0], dtype=torch.float64).expand(20_000, 4)
    half = torch.full((20_000,), 0.5, dtype=torch.float64)
    a, b = two_body_decay(at_rest, half, half, uniform(20_000, 2))
    torch.testing.assert_close(a[:, :3], -b[:, :3])
    assert stats.kstest((a[:, 2] / a[:, :3].norm(dim=-1)).numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3


def test_three_massless_bodies_fill_the_dalitz_plane_evenly():
    """In phase space the energy fractions of two of three massless products are uniform in the triangle that they may
    lie in; so the fraction x of one has the density 2 x."""
    at_rest = torch.tensor([0, 0, 0, 2.0], dtype=torch.float64).expand(60_000, 4)
    products, weight = many_body_decay(at_rest, torch.zeros(60_000, 3, dtype=torch.float64), uniform(60_000, 5))
    kept = uniform(60_000, seed=5) < weight
    assert kept.sum() > 10_000
    for k in range(3):
        assert stats.kstest(products[kept, k, 3].numpy(), lambda x: x * x).pvalue > 1e-3


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_the_mean_weight_is_the_volume_of_massless_phase_space(n):
    """R_n = (pi/2)^(n-1) s^(n-2) / ((n-1)! (n-2)!) for massless products (Byckling and Kajantie, *Particle Kinematics*,
    eq. VI.2.12)."""
    m, samples = 2.0, 200_000
    at_rest = torch.tensor([0, 0, 0, m], dtype=torch.float64).expand(samples, 4)
    _, weight = many_body_decay(at_rest, torch.zeros(samples, n, dtype=torch.float64), uniform(samples, 3 * n - 4))
    # R_n = (1 / 2m) (2 pi)^(n-1) m^(n-2)/(n-2)! <prod p_k>, and every bound p_k is m / 2.
    volume = (
        (2 * math.pi) ** (n - 1) / (2 * m) * m ** (n - 2) / math.factorial(n - 2) * weight.mean() * (m / 2) ** (n - 1)
    )
    wanted = (math.pi / 2) ** (n - 1) * m ** (2 * n - 4) / math.factorial(n - 1) / math.factorial(n - 2)
    error = (weight.std() / weight.mean() / math.sqrt(samples)).item()
    assert volume.item() == pytest.approx(wanted, rel=5 * error + 1e-9)
