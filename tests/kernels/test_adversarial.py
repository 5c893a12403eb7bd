"""Losses of networks that train against each other: closed forms, gradients, slow twins."""

from __future__ import annotations

import math

import pytest
import torch

from diffdet.kernels import adversarial


def unit(*shape, seed=0, dtype=torch.float64):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return x / x.norm(dim=-1, keepdim=True)


def test_penalty_vanishes_for_a_critic_of_slope_one_and_is_nine_for_slope_four(dtype):
    direction = unit(12, dtype=dtype)
    real, fake = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    mixing = torch.rand(5, generator=torch.Generator().manual_seed(1), dtype=dtype)
    for slope, wanted in ((1.0, 0.0), (4.0, 9.0)):
        penalty = adversarial.gradient_penalty(lambda x, s=slope: s * x.flatten(1) @ direction, real, fake, mixing)
        assert penalty.item() == pytest.approx(wanted, abs=1e-4)


def test_penalty_has_a_gradient_for_the_critic_also_where_it_is_flat():
    weight = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    x = torch.ones(3, 4, dtype=torch.float64)
    penalty = adversarial.gradient_penalty(lambda images: images @ weight, x, 2 * x, torch.rand(3, dtype=torch.float64))
    penalty.backward()
    assert penalty.item() == pytest.approx(1)
    assert torch.isfinite(weight.grad).all()


def test_hinge_of_a_perfect_discriminator_is_zero(dtype):
    high, low = torch.tensor([1.5, 2.0], dtype=dtype), torch.tensor([-1.0, -3.0], dtype=dtype)
    assert adversarial.hinge_critic(high, low).item() == 0
    assert adversarial.hinge_critic(torch.zeros(2, dtype=dtype), torch.zeros(2, dtype=dtype)).item() == 2


def test_contrastive_loss_is_what_its_formula_says():
    e, p = unit(6, 5), unit(6, 5, seed=1)
    total = 0.0
    for i in range(6):
        s = math.exp(float(e[i] @ p[i]))
        r = sum(math.exp(float(e[i] @ e[j])) for j in range(6) if j != i)
        total -= math.log(s / (s + r))
    assert adversarial.contrastive_2c(e, p).item() == pytest.approx(total / 6)
    assert torch.autograd.gradcheck(adversarial.contrastive_2c, (e.requires_grad_(), p.requires_grad_()))


def test_uniformity_is_zero_for_equal_embeddings_and_minus_eight_for_opposite_ones(dtype):
    one = torch.tensor([[1.0, 0.0]], dtype=dtype)
    assert adversarial.uniformity(torch.cat((one, one))).item() == pytest.approx(0, abs=1e-6)
    assert adversarial.uniformity(torch.cat((one, -one))).item() == pytest.approx(-8)


def test_relations_of_a_real_event_cost_nothing_and_get_no_gradient():
    real, fake = unit(5, 4).requires_grad_(), unit(5, 4, seed=2).requires_grad_()
    assert adversarial.intra_event(real, real.detach()).item() == pytest.approx(0, abs=1e-12)
    loss = adversarial.intra_event(real, fake)
    loss.backward()
    assert loss.item() > 0
    assert real.grad is None
    # turning all embeddings together changes no relation
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    assert adversarial.intra_event(real, fake @ turn).item() == pytest.approx(loss.item())


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (4, 2, 3, 3)])
def test_orthogonal_gradient_is_that_of_half_the_penalty_and_zero_for_orthogonal_rows(shape):
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    rows = weight.flatten(1)
    product = rows @ rows.T
    (0.5 * (product - torch.diag(product.diagonal())).square().sum()).backward()
    assert torch.allclose(adversarial.off_diagonal_gradient(weight.detach()), weight.grad)
    assert adversarial.off_diagonal_gradient(3 * torch.eye(4)).abs().max() == 0
