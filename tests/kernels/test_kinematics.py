"""Kinematics at colliders: identities, slow twins, edges, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from diffdet.kernels import kinematics as kin

PT, ETA, PHI, MASS = st.floats(0.1, 1e3), st.floats(-5, 5), st.floats(-3.14, 3.14), st.floats(0, 100)


def tensor(*values, **kwargs):
    return torch.tensor(values, dtype=torch.float64, **kwargs)


@given(PT, ETA, PHI)
def test_coordinates_lead_back(pt, eta, phi):
    back = kin.collider_momentum(*kin.cartesian_momentum(tensor(pt), tensor(eta), tensor(phi)))
    for got, wanted in zip(back, (pt, eta, phi), strict=True):
        assert got.item() == pytest.approx(wanted, rel=1e-11, abs=1e-11)


def test_the_azimuth_of_minus_x_is_plus_pi_whatever_the_sign_of_zero():
    _, _, phi = kin.collider_momentum(tensor(-1.0, -1.0), tensor(0.0, -0.0), tensor(0.0, 0.0))
    assert phi.tolist() == [math.pi, math.pi]


def test_along_the_beam_eta_is_infinite_and_the_null_vector_is_at_zero():
    pt, eta, phi = kin.collider_momentum(tensor(0, 0, 0), tensor(0, 0, 0), tensor(2.0, -2.0, 0))
    assert pt.tolist() == [0, 0, 0]
    assert eta.tolist() == [math.inf, -math.inf, 0]
    assert phi.tolist() == [0, 0, 0]


@given(st.floats(-30, 30), st.floats(-30, 30))
def test_delta_phi_is_the_turn_from_a_to_b(a, b):
    turn = kin.delta_phi(tensor(a), tensor(b)).item()
    assert -math.pi <= turn <= math.pi
    assert math.cos(a + turn) == pytest.approx(math.cos(b), abs=1e-12)
    assert math.sin(a + turn) == pytest.approx(math.sin(b), abs=1e-12)


def test_small_differences_keep_their_digits():
    a = torch.tensor([3.0], dtype=torch.float32)
    b = a + 2e-6
    assert kin.delta_phi(a, b).item() == (b - a).item() != 0


def test_separations_have_their_limits():
    assert kin.delta_r(tensor(3.0), tensor(4.0)).item() == 5
    assert kin.twist(tensor(1.0, 0.0, -1.0), tensor(0.0, 1.0, 1.0)).tolist() == [math.pi / 2, 0, math.pi / 4]


@given(PT, PT, PHI, PHI)
def test_transverse_mass_is_the_mass_of_the_shadow(pt_a, pt_b, phi_a, phi_b):
    x = pt_a * math.cos(phi_a) + pt_b * math.cos(phi_b)
    y = pt_a * math.sin(phi_a) + pt_b * math.sin(phi_b)
    wanted = (pt_a + pt_b) ** 2 - x * x - y * y
    got = kin.transverse_mass(tensor(pt_a), tensor(pt_b), tensor(phi_a - phi_b)).item()
    assert got**2 == pytest.approx(wanted, rel=1e-9, abs=1e-9 * (pt_a + pt_b) ** 2)


@given(PT, PT, ETA, ETA, PHI, PHI, MASS, MASS)
def test_pair_mass_equals_the_mass_of_the_sum(pt_a, pt_b, eta_a, eta_b, phi_a, phi_b, m_a, m_b):
    from mpmath import mp, mpf

    with mp.workdps(40):
        total = [mpf(0)] * 4
        for pt, eta, phi, m in ((pt_a, eta_a, phi_a, m_a), (pt_b, eta_b, phi_b, m_b)):
            p = [mpf(pt) * mp.cos(phi), mpf(pt) * mp.sin(phi), mpf(pt) * mp.sinh(eta)]
            e = mp.sqrt(sum(c * c for c in p) + mpf(m) ** 2)
            total = [t + c for t, c in zip(total, [*p, e], strict=True)]
        squared = total[3] ** 2 - sum(c * c for c in total[:3])
        wanted = float(mp.sqrt(max(squared, mpf(0))))
    pairs = [(tensor(a), tensor(b)) for a, b in ((pt_a, pt_b), (eta_a, eta_b), (phi_a, phi_b), (m_a, m_b))]
    assert kin.pair_mass(*pairs).item() == pytest.approx(wanted, rel=1e-11, abs=1e-9)


def test_the_mass_of_a_narrow_pair_keeps_its_digits_in_float32():
    """sqrt(E^2 - p^2) in float32 has no digit left here."""
    one = torch.ones((), dtype=torch.float32)
    got = kin.pair_mass((500 * one, 300 * one), (2 * one, 2.001 * one), (one, one), (0 * one, 0 * one))
    deta = (2.001 * one).double() - 2
    wanted = math.sqrt(2 * 500 * 300 * (math.cosh(deta.item()) - 1))
    assert got.item() == pytest.approx(wanted, rel=1e-3)


def test_turns_about_the_beam_keep_pt_and_move_phi():
    px, py = kin.rotate_azimuth(tensor(1.0, -2.0), tensor(0.5, 0.3), tensor(1.0, 2.0))
    _, _, before = kin.collider_momentum(tensor(1.0, -2.0), tensor(0.5, 0.3), tensor(0.0, 0.0))
    pt, _, after = kin.collider_momentum(px, py, tensor(0.0, 0.0))
    torch.testing.assert_close(pt, torch.hypot(tensor(1.0, -2.0), tensor(0.5, 0.3)))
    torch.testing.assert_close(kin.delta_phi(before, after), tensor(1.0, 2.0))


def test_gradients_are_right_and_finite_at_the_edges():
    p = [tensor(0.5, -3.0, 20.0, requires_grad=True) for _ in range(3)]
    assert gradcheck(kin.collider_momentum, p)
    pair = [tensor(*v, requires_grad=True) for v in ((3.0, 5.0), (1.0, -1.0), (0.3, 3.0), (0.1, 0.0))]

    def mass(pt, eta, phi, m):
        return kin.pair_mass(*[(v[0], v[1]) for v in (pt, eta, phi, m)])

    assert gradcheck(mass, pair)
    assert gradcheck(kin.transverse_mass, (tensor(2.0), tensor(3.0), tensor(0.7, requires_grad=True)))
    zero = tensor(0.0, requires_grad=True)
    pt, _, phi = kin.collider_momentum(zero, zero, tensor(0.0))
    (
        pt + phi + kin.delta_r(zero, zero) + kin.twist(zero, zero) + kin.transverse_mass(zero, zero, zero)
    ).sum().backward()
    assert torch.isfinite(zero.grad).all()
