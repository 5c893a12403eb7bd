"""First-order propagation: closed forms against reverse passes, against full Jacobians, and against repetition."""

import pytest
import torch
from torch.autograd import gradcheck

from diffdet.core.errors import InputError
from diffdet.kernels import lines, scatter_angles, uncertainty
from diffdet.kernels.lines import Lines

F64 = {"dtype": torch.float64}


def fitted(n, seed=0):
    """Lines (4, n) and the hits, heights, weights and widths that they come from."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.tensor([[0.99, 0.95, 0.90, 0.85], [0.15, 0.10, 0.05, 0.01]], **F64)[:, :, None, None]
    slope = torch.rand((1, 1, 2, n), generator=generator, **F64) - 0.5
    kink = torch.tensor([-0.01, 0.01], **F64)[:, None, None, None]
    xy = 0.5 + (slope + kink) * (z - 0.5)
    xy = xy + 1e-4 * torch.randn(xy.shape, generator=generator, **F64)
    weight, sigma = (1 + torch.rand(xy.shape, generator=generator, **F64) for _ in range(2))
    return xy, z, weight, 1e-4 * sigma


def fit(xy, z, weight, sigma):
    own = lines.fit_weighted(xy, z, weight, sigma)
    return lines.at_plane(Lines(*(t.flatten(0, 1) for t in own)), torch.tensor(0.5, **F64))


def test_closed_form_equals_propagation_from_the_hits():
    xy, z, weight, sigma = fitted(40)

    def variables(given):
        line = fit(given, z, weight, sigma)
        approach = lines.closest_approach(line.position, line.slope, line.z_ref)
        angle = scatter_angles.total_scatter(line.slope)[0]
        theta = scatter_angles.polar(line.slope[:2])[0]
        phi = scatter_angles.azimuth(line.slope[2:])[0]
        return torch.cat([approach.xyz, approach.gap, angle[None], theta[None], phi[None]])

    propagated = uncertainty.propagate(variables, xy, sigma)
    line = fit(xy, z, weight, sigma)
    approach = lines.closest_approach(line.position, line.slope, line.z_ref)
    sides = [Lines(*(t[rows] for t in line[:5]), line.z_ref) for rows in (slice(0, 2), slice(2, 4))]
    closed = torch.cat(
        [
            uncertainty.line_variance(approach.d_position, approach.d_slope, line),
            uncertainty.line_variance(None, scatter_angles.total_scatter(line.slope)[1], line)[None],
            uncertainty.line_variance(None, scatter_angles.polar(line.slope[:2])[1], sides[0])[None],
            uncertainty.line_variance(None, scatter_angles.azimuth(line.slope[2:])[1], sides[1])[None],
        ]
    )
    torch.testing.assert_close(closed.sqrt(), propagated, rtol=1e-8, atol=0)


def test_propagation_is_the_diagonal_of_the_full_jacobian():
    x, sigma = (torch.rand((3, 2, 7), generator=torch.Generator().manual_seed(k), **F64) for k in range(2))

    def function(t):
        return torch.stack([(t[0] * t[1]).sum(0), t[2].prod(0), torch.sin(t).sum((0, 1))])

    full = torch.autograd.functional.jacobian(function, x)  # (component, muon, 3, 2, muon)
    by_hand = torch.stack([(full[:, m, :, :, m] * sigma[..., m]).square().sum((1, 2)).sqrt() for m in range(7)], 1)
    torch.testing.assert_close(uncertainty.propagate(function, x, sigma), by_hand, rtol=1e-12, atol=0)


def test_propagation_works_without_grad_and_leaves_no_graph():
    x = torch.rand((2, 3), requires_grad=True)
    with torch.no_grad():
        out = uncertainty.propagate(lambda t: t.square().sum(0, keepdim=True), x, torch.ones_like(x))
    assert not out.requires_grad
    assert x.grad is None
    torch.testing.assert_close(out[0], (2 * x.detach()).norm(dim=0))


def test_propagation_can_be_differentiated():
    x = (torch.rand((2, 3), generator=torch.Generator().manual_seed(2), **F64) + 0.5).requires_grad_()
    sigma = (torch.rand((2, 3), generator=torch.Generator().manual_seed(3), **F64) + 0.5).requires_grad_()
    assert gradcheck(
        lambda a, s: uncertainty.propagate(lambda t: t.prod(0, keepdim=True), a, s, create_graph=True), (x, sigma)
    )


def test_covariance_matrix_is_symmetric_positive_and_has_the_variances_on_its_diagonal():
    line = fit(*fitted(50))
    approach = lines.closest_approach(line.position, line.slope, line.z_ref)
    matrix = uncertainty.line_covariance(approach.d_position, approach.d_slope, line).permute(2, 0, 1)
    torch.testing.assert_close(matrix, matrix.mT, rtol=1e-12, atol=0)
    variance = uncertainty.line_variance(approach.d_position, approach.d_slope, line)
    torch.testing.assert_close(matrix.diagonal(dim1=1, dim2=2).T, variance, rtol=1e-10, atol=0)
    scale = variance.sqrt().T
    correlation = matrix / (scale[:, :, None] * scale[:, None])
    assert torch.linalg.eigvalsh(correlation).min() > -1e-9
    # the errors of a point of closest approach lie along the tracks: x and z go together
    assert (correlation[:, 0, 2].abs() > 0.9).double().mean() > 0.5


def test_variance_is_additive_over_independent_lines():
    line = fit(*fitted(5))
    generator = torch.Generator().manual_seed(5)
    by_position, by_slope = (torch.randn((4, 5), generator=generator, **F64) for _ in range(2))
    parts = []
    for k in range(4):
        only = torch.zeros(4, 1, **F64)
        only[k] = 1
        parts.append(uncertainty.line_variance(by_position * only, by_slope * only, line))
    torch.testing.assert_close(sum(parts), uncertainty.line_variance(by_position, by_slope, line), rtol=1e-10, atol=0)
    on_position = uncertainty.line_variance(by_position, None, line)
    torch.testing.assert_close(on_position, uncertainty.line_variance(by_position, 0 * by_slope, line))


def test_gradients():
    line = [t.detach().clone().requires_grad_() for t in fit(*fitted(2))[:5]]
    generator = torch.Generator().manual_seed(6)
    by_position, by_slope = (torch.randn((2, 4, 2), generator=generator, **F64).requires_grad_() for _ in range(2))

    def both(p, s, *rows):
        lines_ = Lines(*rows, torch.tensor(0.5, **F64))
        return uncertainty.line_variance(p, s, lines_), uncertainty.line_covariance(p, s, lines_)

    assert gradcheck(both, (by_position, by_slope, *line))


def test_a_function_of_nothing_is_refused():
    with pytest.raises(InputError, match="derivatives"):
        uncertainty.line_variance(None, None, fit(*fitted(1)))
