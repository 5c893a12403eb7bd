"""Panel response: reference profiles, limits, gradients at the centre and the edge, and the cost of panels."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from diffdet.kernels import panel_response as pr


def tensor(*values, **kwargs):
    return torch.tensor(values, dtype=torch.float64, **kwargs)


def along_x(*distances):
    """Positions (2, n) at distances from the centre of a panel of span 1, given in half spans along x."""
    x = tensor(*distances) / 2
    return torch.stack([x, torch.zeros_like(x)])


CENTRE = torch.zeros(2, 1, dtype=torch.float64)
SPAN = torch.ones(2, 1, dtype=torch.float64)

SIGMOID_REFERENCE = {
    # smooth: profile of the published package at 0, 0.5, 1, 1.5 and 2 half spans
    1.0: (1, 0.851449, 0.683940, 0.516430, 0.367879),
    0.5: (1, 0.829997, 0.567668, 0.305339, 0.135335),
    0.1: (1, 0.993352, 0.500023, 0.006693, 4.54e-5),
}


@pytest.mark.parametrize("smooth", SIGMOID_REFERENCE)
def test_sigmoid_has_the_reference_values(smooth):
    profile = pr.sigmoid(along_x(0.0, 0.5, 1.0, 1.5, 2.0), CENTRE, SPAN, smooth)
    torch.testing.assert_close(profile[0], tensor(*SIGMOID_REFERENCE[smooth]).double(), rtol=0, atol=5e-7)
    assert (profile[1] == 1).all()


@pytest.mark.parametrize(("smooth", "wanted"), [(1.0, 0.420996), (0.5, 0.290022), (0.1, 0.225020)])
def test_sigmoid_efficiency_at_a_corner_has_the_reference_value(smooth, wanted):
    profile = pr.sigmoid(tensor([0.5], [0.5]), CENTRE, SPAN, smooth)
    assert pr.efficiency(profile, 0.9).item() == pytest.approx(wanted, abs=1e-6)


def test_gaussian_has_the_reference_values():
    profile = pr.gaussian(along_x(0.0, 0.5, 1.0), CENTRE, SPAN)
    torch.testing.assert_close(profile[0], tensor(1.0, 0.606531, 0.135335), rtol=0, atol=5e-7)
    corner = pr.gaussian(tensor([0.5], [0.5]), CENTRE, SPAN)
    assert pr.efficiency(corner, 0.9).item() == pytest.approx(0.0164841, abs=1e-6)


def test_slow_twin():
    generator = torch.Generator().manual_seed(6)
    xy = torch.randn(2, 20, generator=generator, dtype=torch.float64)
    centre, span = tensor([0.1], [-0.2]), tensor([0.7], [1.3])
    gauss, sig = pr.gaussian(xy, centre, span), pr.sigmoid(xy, centre, span, 0.3)
    hard = pr.hard(xy, centre, span)
    for k in range(2):
        c, w = centre[k].item(), span[k].item()
        for i in range(20):
            p = xy[k, i].item()
            assert gauss[k, i].item() == pytest.approx(math.exp(-((p - c) ** 2) / (2 * (w / 4) ** 2)), rel=1e-12)
            d = abs(p - c) / (w / 2)
            logistic = (1 + math.exp(-1 / 0.3)) / (1 + math.exp(-(1 - d) / 0.3))
            assert sig[k, i].item() == pytest.approx(logistic, rel=1e-12)
    for i in range(20):
        on = all(-span[k] / 2 <= xy[k, i] - centre[k] < span[k] / 2 for k in range(2))
        assert hard[:, i].tolist() == [float(on)] * 2


def test_sigmoid_becomes_the_hard_panel():
    xy = torch.rand(2, 1000, generator=torch.Generator().manual_seed(7), dtype=torch.float64) * 2 - 1
    for smooth in (1e-6, 1e-12, 1e-300):
        soft = pr.sigmoid(xy, CENTRE, SPAN, smooth).prod(0)
        torch.testing.assert_close(soft, pr.hard(xy, CENTRE, SPAN)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("smooth", [1e-6, 1e-3, 0.1, 1.0, 100.0])
def test_sigmoid_is_finite_with_finite_gradients_everywhere(smooth, dtype):
    xy = torch.linspace(-1e4, 1e4, 2001, dtype=dtype).expand(2, -1).clone().requires_grad_()
    centre, span = (t.to(dtype).clone().requires_grad_() for t in (CENTRE, SPAN))
    width = torch.tensor(smooth, dtype=dtype, requires_grad=True)
    profile = pr.sigmoid(xy, centre, span, width)
    assert ((profile >= 0) & (profile <= 1)).all()
    for gradient in torch.autograd.grad(profile.sum(), (xy, centre, span, width)):
        assert gradient.isfinite().all()


def test_hard_panel_includes_its_low_edge_only():
    xy = tensor([-0.5, 0.5, 0.0, 0.0, -0.5], [0.0, 0.0, -0.5, 0.5, -0.5])
    assert pr.inside(xy, CENTRE, SPAN).tolist() == [True, False, True, False, True]


def test_gradient_is_zero_at_the_centre():
    for function in (pr.gaussian, lambda *a: pr.sigmoid(*a, 0.5)):
        xy = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
        centre = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
        gradients = torch.autograd.grad(function(xy, centre, SPAN).sum(), (xy, centre))
        assert [g.abs().max().item() for g in gradients] == [0, 0]


def test_gradients():
    xy = tensor([0.1, 0.5, -0.7, 0.0], [0.3, -0.5, 0.2, 3.0]).requires_grad_()
    centre, span = tensor([0.0], [0.05]).requires_grad_(), tensor([1.0], [0.8]).requires_grad_()
    smooth = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(pr.gaussian, (xy, centre, span))
    # The corner of |p - c|: central differences see the symmetric 0 as well.
    assert gradcheck(pr.sigmoid, (xy, centre, span, smooth))
    profile = torch.rand(2, 3, generator=torch.Generator().manual_seed(8), dtype=torch.float64).requires_grad_()
    res = torch.tensor(50.0, dtype=torch.float64, requires_grad=True)
    eff = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    noise = tensor([0.3, -1.0, 2.0], [1.0, 0.0, -0.5])
    assert gradcheck(lambda p, r: pr.smear(xy[:, :3].detach(), pr.resolution(p, r), noise), (profile, res))
    assert gradcheck(pr.efficiency, (profile, eff))
    assert gradcheck(lambda p, r: pr.sigma(pr.resolution(p, r)), (profile, res))
    widths = tensor([1.0, 0.5], [0.3, 2.0]).requires_grad_()
    budget = tensor(0.7, 1.1).requires_grad_()
    assert gradcheck(lambda b, w: pr.budget_scale(b, 2.0, w), (budget, widths))


def test_floors_hold_far_outside_and_carry_no_gradient():
    xy = along_x(1e3).requires_grad_()
    profile = pr.gaussian(xy, CENTRE, SPAN)
    res = pr.resolution(profile, 1e4)
    assert res[0].item() == pr.RESOLUTION_FLOOR
    assert torch.autograd.grad(res[0].sum(), xy)[0].abs().max() == 0
    assert pr.efficiency(profile, 0.9).item() == 0
    assert pr.efficiency(profile, 0.9, floor=pr.RESOLUTION_FLOOR).item() == pr.RESOLUTION_FLOOR


def test_a_muon_off_the_hard_panel_leaves_no_hit():
    xy = along_x(0.0, 3.0)
    res = pr.resolution(pr.hard(xy, CENTRE, SPAN), 1e4, floor=0.0)
    assert pr.sigma(res)[0].tolist() == [1e-4, math.inf]
    recorded = pr.smear(xy, res, torch.ones_like(xy))
    assert recorded[:, 0].isfinite().all()
    assert recorded[:, 1].isnan().all()


def test_recorded_positions_have_the_stated_width_and_stay_on_the_panel():
    noise = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    xy = torch.zeros_like(noise)
    res = torch.full_like(noise, 20.0)
    recorded = pr.smear(xy, res, noise)
    # Four standard errors of a standard deviation from 200,000 numbers: false alarm 6e-5.
    assert recorded.std().item() == pytest.approx(0.05, rel=4 / math.sqrt(4e5))
    held = pr.smear(xy, res, noise, bounds=(CENTRE - 0.05, CENTRE + 0.05))
    assert held.abs().max().item() == 0.05


def test_a_panel_costs_its_budget():
    span = tensor([1.0, 0.5], [0.3, 2.0])
    scale = pr.budget_scale(tensor(0.7, 1.1), 2.0, span)
    torch.testing.assert_close(pr.cost(span * scale[:, None], 2.0), tensor(0.7, 1.1))
    # Eight panels of 0.8 m x 0.8 m sharing a budget of 6: scale 1.0825317, as in the published study.
    assert pr.budget_scale(6 / 8, 1.0, tensor(0.8, 0.8)).item() == pytest.approx(1.0825317, abs=1e-7)


@pytest.mark.parametrize("batch", [(), (1,), (4,), (2, 3), (0,)])
@pytest.mark.parametrize("n_muons", [0, 1, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_panels_in_one_call(batch, n_muons, dtype):
    generator = torch.Generator().manual_seed(10)
    xy = torch.rand(2, n_muons, generator=generator, dtype=dtype)
    centre, span = (torch.rand(*batch, 2, 1, generator=generator, dtype=dtype) + 0.1 for _ in range(2))
    for model in (pr.gaussian, pr.hard, lambda *a: pr.sigmoid(*a, 0.2)):
        profile = model(xy, centre, span)
        assert profile.shape == (*batch, 2, n_muons)
        assert profile.dtype == dtype
        assert pr.resolution(profile, 1e4).shape == profile.shape
        assert pr.efficiency(profile, 0.9).shape == (*batch, n_muons)
    if batch == (4,):
        together = pr.sigmoid(xy, centre, span, 0.2)
        for k in range(4):
            torch.testing.assert_close(together[k], pr.sigmoid(xy, centre[k], span[k], 0.2))


def test_float32_agrees_with_float64():
    xy = torch.linspace(-1, 1, 101, dtype=torch.float64).expand(2, -1)
    for model in (pr.gaussian, lambda *a: pr.sigmoid(*a, 0.1)):
        single = model(xy.float(), CENTRE.float(), SPAN.float()).double()
        torch.testing.assert_close(single, model(xy, CENTRE, SPAN), rtol=2e-5, atol=1e-7)
