"""Multiple scattering: Highland's formula and its increments, draws, frames, limits, reference values, gradients."""

import math
from fractions import Fraction

import pytest
import torch
from torch.autograd import gradcheck

from diffdet.core.constants import MUON_MASS
from diffdet.kernels import angles, scattering
from diffdet.kernels.scattering import PathMoments

A, B = scattering.SCATTER_COEF_A, scattering.SCATTER_COEF_B
F64 = {"dtype": torch.float64}


def directions(n, seed=0, max_theta=1.5, dtype=torch.float64):
    draw = torch.rand((2, n), generator=torch.Generator().manual_seed(seed), **F64)
    return angles.direction_from_polar(max_theta * draw[0], 2 * math.pi * draw[1]).to(dtype)


# ---- width


def test_width_of_ten_centimetres_of_lead():
    n = torch.tensor(0.1 / 0.005612, **F64)
    expected = 0.0136 / 5 * math.sqrt(0.1 / 0.005612) * (1 + 0.038 * math.log(0.1 / 0.005612))
    assert scattering.highland_width(n, torch.tensor(5.0, **F64)).item() == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(12.74e-3, abs=5e-6)
    bare = scattering.highland_width(n, torch.tensor(5.0, **F64), log_term=False)
    assert bare.item() == pytest.approx(0.0136 / 5 * math.sqrt(0.1 / 0.005612), rel=1e-12)


def test_width_scales_with_one_over_beta_p_and_grows_with_thickness():
    n = torch.logspace(-11, 4, 200, **F64)
    width = scattering.highland_width(n, torch.tensor(2.0, **F64))
    torch.testing.assert_close(scattering.highland_width(n, torch.tensor(4.0, **F64)), width / 2)
    assert (width.diff() > 0).all()
    torch.testing.assert_close((width * 2 / A).square(), scattering.highland_variance(n), rtol=1e-12, atol=0)


def test_nothing_scatters_nothing_and_thin_layers_nearly_so(dtype):
    n = torch.tensor([0.0, 1e-30, 1e-15, 3e-12], dtype=dtype)
    assert scattering.highland_variance(n).tolist() == pytest.approx([0.0] * 4, abs=1e-18)
    assert scattering.highland_width(n, torch.ones(4, dtype=dtype)).tolist() == pytest.approx([0.0] * 4, abs=1e-9)
    assert scattering.highland_variance(n).isfinite().all()


def test_beta_momentum():
    p = torch.tensor([1e-3, MUON_MASS, 0.5, 5.0, 1e4], **F64)
    beta = p / torch.sqrt(p**2 + MUON_MASS**2)
    torch.testing.assert_close(scattering.beta_momentum(p), beta * p, rtol=1e-14, atol=0)
    assert beta[2].item() == pytest.approx(0.978, abs=1e-3)  # what leaving beta out costs at 0.5 GeV
    single = scattering.beta_momentum(p.float()).double()
    torch.testing.assert_close(single, beta * p, rtol=3e-7, atol=0)


@pytest.mark.parametrize("parts", [1, 2, 7, 100])
def test_increments_of_the_parts_add_up_to_the_formula_for_the_whole(parts):
    total = torch.logspace(-6, 3, 50, **F64)
    step, before, variance = total / parts, torch.zeros_like(total), torch.zeros_like(total)
    for _ in range(parts):
        variance = variance + scattering.variance_increment(before, step)
        before = before + step
    torch.testing.assert_close(variance, scattering.highland_variance(total), rtol=1e-11, atol=0)


def test_the_formula_itself_is_not_additive():
    """Applied step by step, as the original does: 8 % too narrow for 1 cm steps through 10 cm of lead."""
    n = torch.tensor(0.1 / 0.005612, **F64)
    stepwise = (10 * scattering.highland_variance(n / 10)).sqrt() / scattering.highland_variance(n).sqrt()
    assert stepwise.item() == pytest.approx(0.921, abs=2e-3)


def exact_increment(before, step):
    """F(n0 + dn) - F(n0) with logarithms to 40 digits, so that the difference keeps 15."""
    from decimal import Decimal, getcontext

    getcontext().prec = 40

    def variance(n):
        n = Decimal(n.numerator) / Decimal(n.denominator)
        return n * (1 + Decimal("0.038") * n.ln()) ** 2 if n > 0 else Decimal(0)

    return float(variance(Fraction(before) + Fraction(step)) - variance(Fraction(before)))


@pytest.mark.parametrize(
    ("before", "step"), [(0, 1e-3), (1e-3, 1e-9), (17.8, 1e-6), (17.8, 1.7), (1e-8, 5.0), (300, 1e-3)]
)
def test_increments_do_not_cancel(before, step, dtype):
    given = [torch.tensor(x, dtype=dtype) for x in (before, step)]
    value = scattering.variance_increment(*given).item()
    assert value == pytest.approx(exact_increment(*(x.item() for x in given)), rel=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("layers", [[0.1], [0.05] * 2, [0.02] * 5, [0.03, 0.07]])
def test_angle_and_displacement_do_not_depend_on_how_a_block_is_cut(layers):
    """A block of lead crossed vertically: moments of angle and displacement at its end, however many layers it is."""
    n_before = torch.zeros(1, **F64)
    angle, displacement, covariance = (torch.zeros(1, **F64) for _ in range(3))
    for thickness in layers:
        cells = torch.full((20, 1), thickness / 20 / 0.005612, **F64)
        path = scattering.path_scattering(cells, n_before, torch.tensor([thickness], **F64))
        arm, spread = path.moments
        # what was there drifts on; what is new adds its own variance, displacement and correlation
        displacement = displacement + 2 * thickness * covariance + thickness**2 * angle
        covariance = covariance + thickness * angle
        angle = angle + path.variance
        displacement = displacement + path.variance * (arm**2 + spread**2)
        covariance = covariance + path.variance * arm
        n_before = path.n_rad
    n = torch.tensor([0.1 / 0.005612], **F64)
    torch.testing.assert_close(angle, scattering.highland_variance(n), rtol=1e-12, atol=0)
    # the continuum: power dF/ds at s, lever arm 0.1 - s
    s = (torch.arange(200_000, **F64) + 0.5) / 200_000
    edges = scattering.highland_variance(torch.arange(200_001, **F64) / 200_000 * n)
    power, arms = edges.diff(), 0.1 * (1 - s)
    assert covariance.item() == pytest.approx((power * arms).sum().item(), rel=2e-3)
    assert displacement.item() == pytest.approx((power * arms**2).sum().item(), rel=2e-3)


# ---- draws


def test_draws_have_the_stated_widths_and_correlation():
    """100,000 muons and two planes: a width is known to 0.16 %, a correlation of 0.87 to 0.0006; five of them."""
    normals = torch.randn((4, 100_000), generator=torch.Generator().manual_seed(1), **F64)
    length, width = 0.1, torch.full((100_000,), 0.01, **F64)
    moments = PathMoments(torch.tensor(length / 2, **F64), torch.tensor(length / math.sqrt(12), **F64))
    angle, shift = scattering.correlated_draw(normals, width, moments)
    assert angle.std().item() == pytest.approx(0.01, rel=8e-3)
    assert shift.std().item() == pytest.approx(length * 0.01 / math.sqrt(3), rel=8e-3)
    for plane in range(2):
        pair = torch.corrcoef(torch.stack([angle[plane], shift[plane]]))[0, 1]
        assert pair.item() == pytest.approx(math.sqrt(3) / 2, abs=5e-3)
        across = torch.corrcoef(torch.stack([angle[plane], shift[1 - plane]]))[0, 1]
        assert abs(across.item()) < 5 / math.sqrt(100_000)


def test_angles_are_limited_on_both_sides_and_displacements_are_not():
    normals = torch.tensor([[1.0, 1.0], [50.0, -50.0], [0.0, 0.0], [0.0, 0.0]], **F64)
    moments = PathMoments(torch.tensor(0.05, **F64), torch.tensor(0.03, **F64))
    angle, shift = scattering.correlated_draw(normals, torch.full((2,), 0.1, **F64), moments)
    assert angle[0].tolist() == pytest.approx([math.pi / 2.2, -math.pi / 2.2])
    assert shift[0].tolist() == pytest.approx([0.1 * (0.05 * 50 + 0.03), 0.1 * (-0.05 * 50 + 0.03)])


# ---- frames


@pytest.mark.parametrize("max_theta", [1e-6, 0.5, 1.57])
def test_frames_are_right_angled_and_of_unit_length(max_theta, dtype):
    u = directions(300, max_theta=max_theta, dtype=dtype)
    u[:, 0] = torch.tensor([0.0, 0.0, -1.0], dtype=dtype)
    frame = torch.stack([*scattering.transverse_frame(u), u])
    product = torch.einsum("icm,jcm->mij", frame, frame)
    tolerance = 40 * torch.finfo(dtype).eps
    torch.testing.assert_close(product, torch.eye(3, dtype=dtype).expand_as(product), rtol=0, atol=tolerance)
    e1, e2 = (e[:, 0].tolist() for e in frame[:2])
    assert (e1, e2) == ([1, 0, 0], [0, 1, 0])


def test_both_frames_span_the_same_plane():
    u = directions(100)
    e1, e2 = scattering.transverse_frame(u)
    components = torch.randn((2, 1, 100), generator=torch.Generator().manual_seed(2), **F64)
    xy, z = scattering.transverse_vectors(u, components)
    vector = torch.cat([xy, z[None]])[:, 0]
    in_frame = (vector * e1).sum(0) * e1 + (vector * e2).sum(0) * e2
    torch.testing.assert_close(in_frame, vector, rtol=1e-10, atol=1e-12)


def test_deflection_by_an_angle_in_one_plane_turns_by_that_angle():
    u = directions(100)
    frame = scattering.transverse_frame(u)
    for plane in range(2):
        angle = torch.zeros((2, 100), **F64)
        angle[plane] = torch.linspace(-1.4, 1.4, 100, **F64)
        turned = scattering.deflect(u, *frame, angle)
        torch.testing.assert_close(turned.norm(dim=0), torch.ones(100, **F64))
        torch.testing.assert_close(angles.angle_between(u, turned), angle[plane].abs(), rtol=1e-10, atol=1e-12)
        assert ((turned * frame[plane]).sum(0) * angle[plane].sign() >= 0).all()


def test_reference_step_of_the_original_with_the_deflection_on_the_side_of_the_displacement():
    """All normals 1, 1 cm of lead, 5 GeV. The published package displaces by these and deflects by minus these."""
    n, s = torch.tensor([0.01 / 0.005612], **F64), 0.01
    width = scattering.highland_width(n, torch.tensor([5.0], **F64))
    assert width.item() == pytest.approx(3.7105686e-3, rel=1e-7)
    moments = PathMoments(torch.tensor(s / 2, **F64), torch.tensor(s / math.sqrt(12), **F64))
    angle, shift = scattering.correlated_draw(torch.ones((4, 1), **F64), width, moments)
    assert shift.flatten().tolist() == pytest.approx([2.9264334e-5] * 2, rel=2e-7)
    vertical = torch.tensor([[0.0], [0.0], [-1.0]], **F64)
    theta_x, theta_y, _ = scattering.deflect(vertical, *scattering.transverse_frame(vertical), angle)
    assert math.atan(theta_x.item()) == pytest.approx(3.7105689e-3, rel=1e-4)
    assert math.atan(theta_y.item()) == pytest.approx(3.7105689e-3, rel=1e-4)

    t, f = torch.tensor([0.4], **F64), torch.tensor([0.7], **F64)
    u = angles.direction_from_polar(t, f)
    e1, e2 = scattering.transverse_frame(u)
    moved = (shift[0] * e1 + shift[1] * e2)[:, 0]
    assert moved.tolist() == pytest.approx([-3.946834e-5, 5.0182e-6, -1.1396070e-5], rel=1e-4)
    before = torch.stack(angles.projected_from_polar(t, f))

    def increments(sign):
        turned = scattering.deflect(u, e1, e2, sign * angle)
        after = angles.projected_from_polar(*angles.polar_from_direction(turned))
        return (torch.stack(after) - before)[:, 0].tolist()

    assert increments(-1) == pytest.approx([5.377263e-3, -2.4569e-4], abs=1e-7)
    ours = increments(+1)
    assert ours == pytest.approx([-5.377263e-3, 2.4569e-4], rel=0.1)  # the same way as the displacement
    assert ours[0] * moved[0].item() > 0


# ---- inversion


def test_radiation_length_from_angles():
    x0 = scattering.x0_from_angles(
        0.1,
        torch.tensor(0.01, **F64),
        torch.tensor((math.cos(0.2) + math.cos(0.25)) / 2, **F64),
        torch.tensor(5.0, **F64),
    )
    assert x0.item() == pytest.approx(0.00759208, rel=1e-6)


def test_inversion_inverts_the_formula_without_logarithm():
    x0 = torch.tensor([0.005612, 0.3528, 303.9], **F64)
    cosine, p = torch.tensor(0.8, **F64), torch.tensor(3.0, **F64)
    width = scattering.highland_width(0.1 / cosine / x0, p, log_term=False)
    torch.testing.assert_close(scattering.x0_from_angles(0.1, width, cosine, p), x0, rtol=1e-12, atol=0)


def test_gradients():
    n = torch.tensor([1e-3, 0.5, 18.0], requires_grad=True, **F64)
    p = torch.tensor([0.5, 2.0, 5.0], requires_grad=True, **F64)
    assert gradcheck(scattering.highland_width, (n, p))
    assert gradcheck(scattering.highland_variance, (n,))
    assert gradcheck(scattering.variance_increment, (n, p))
    assert gradcheck(scattering.beta_momentum, (p,))
    before = torch.tensor([0.2, 1e-3], requires_grad=True, **F64)
    cells = torch.rand((3, 2), generator=torch.Generator().manual_seed(3), **F64).requires_grad_()
    length = torch.tensor([0.1, 0.2], requires_grad=True, **F64)
    assert gradcheck(lambda *a: scattering.path_scattering(*a)[0:1], (cells, before, length))
    assert gradcheck(lambda *a: tuple(scattering.path_scattering(*a).moments), (cells, before, length))
    angle, cosine = torch.tensor([0.01, 0.02], **F64).requires_grad_(), torch.tensor([0.9, 1.0], **F64).requires_grad_()
    assert gradcheck(lambda *a: scattering.x0_from_angles(0.1, *a), (angle, cosine, p[:2].detach().requires_grad_()))


def test_what_is_kept_from_inference_mode_can_be_differentiated_through():
    with torch.inference_mode():
        scattering.path_scattering(torch.rand(13, 2), torch.zeros(2), torch.ones(2))
    cells = torch.rand(13, 2, requires_grad=True)
    scattering.path_scattering(cells, torch.zeros(2), torch.ones(2)).variance.sum().backward()
    assert cells.grad.isfinite().all()
