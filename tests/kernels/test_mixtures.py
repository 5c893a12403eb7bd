"""Gaussian mixtures: density, response, and cost."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from diffdet.kernels import mixtures


def clusters(*batch, k=4, seed=16):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.rand(*batch, k, 2, generator=generator, dtype=torch.float64)
    sigma = torch.rand(*batch, k, 2, generator=generator, dtype=torch.float64) + 0.1
    xy = torch.rand(*batch, 2, 9, generator=generator, dtype=torch.float64)
    return xy, mean, sigma


def test_density_equals_the_slow_twin():
    xy, mean, sigma = clusters()
    found = mixtures.log_density(xy, mean, sigma).exp()
    for i in range(9):
        total = 0.0
        for m, s in zip(mean.tolist(), sigma.tolist(), strict=True):
            pull = sum(((p - a) / b) ** 2 for p, a, b in zip(xy[:, i].tolist(), m, s, strict=True))
            total += math.exp(-pull / 2) / (2 * math.pi * s[0] * s[1]) / 4
        assert found[i].item() == pytest.approx(total, rel=1e-12)


def test_density_integrates_to_one():
    _, mean, sigma = clusters()
    axis = torch.linspace(-8, 9, 400, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).reshape(2, -1)
    step = (axis[1] - axis[0]).item()
    assert mixtures.log_density(grid, mean, sigma).exp().sum().item() * step**2 == pytest.approx(1, rel=1e-9)


def test_one_cluster_is_a_gaussian_panel():
    mean, sigma = torch.zeros(1, 2).double(), torch.full((1, 2), 0.5).double()
    xy = torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.0, 0.5]], dtype=torch.float64)
    wanted = torch.exp(-0.25 * (xy / 0.5).square().sum(0))
    torch.testing.assert_close(mixtures.response(xy, mean, sigma, 1.0), wanted)
    torch.testing.assert_close(mixtures.response(xy, mean, sigma, 0.25), wanted / 2)


def test_order_and_place_of_clusters_do_not_matter():
    xy, mean, sigma = clusters()
    reference = mixtures.response(xy, mean, sigma, 1.0)
    turned = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(mixtures.response(xy, mean[turned], sigma[turned], 1.0), reference)
    torch.testing.assert_close(mixtures.response(xy + 3, mean + 3, sigma, 1.0), reference)


def test_far_tails_are_finite_with_finite_gradients():
    _, mean, sigma = clusters()
    xy = torch.tensor([[1e4, 0.5], [0.0, 0.5]], dtype=torch.float32, requires_grad=True)
    mean, sigma = mean.float().requires_grad_(), sigma.float().requires_grad_()
    response = mixtures.response(xy, mean, sigma, 1.0)
    assert response[0] == 0
    assert all(g.isfinite().all() for g in torch.autograd.grad(response.sum(), (xy, mean, sigma)))
    assert mixtures.resolution(response, 1e4, 1e-10)[:, 0].tolist() == pytest.approx([1e-10, 1e-10])
    assert mixtures.efficiency(response, 0.9)[0] == 0


def test_efficiency_is_clipped():
    assert mixtures.efficiency(torch.tensor([0.5, 1.0, 1.2]), 0.8).tolist() == pytest.approx([0.2, 0.8, 0.8])


def test_gradients():
    xy, mean, sigma = (t.requires_grad_() for t in clusters(k=3))
    norm = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    assert gradcheck(mixtures.log_density, (xy, mean, sigma))
    assert gradcheck(mixtures.log_peak, (mean, sigma))
    assert gradcheck(mixtures.response, (xy, mean, sigma, norm))
    assert gradcheck(lambda s: mixtures.cost(s, 2.0), (sigma,))
    response = torch.tensor([0.1, 0.7, 1.3], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda r: mixtures.resolution(r, 10.0, 1e-10), (response,))
    assert gradcheck(lambda r: mixtures.efficiency(r, 0.9), (response,))


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
def test_batches_of_detectors(batch):
    xy, mean, sigma = clusters(*batch)
    response = mixtures.response(xy, mean, sigma, 1.0)
    assert response.shape == (*batch, 9)
    assert mixtures.resolution(response, 1e4, 1e-10).shape == (*batch, 2, 9)
    assert mixtures.cost(sigma, 1.0).shape == batch
    if batch == (2, 3):
        torch.testing.assert_close(response[1, 2], mixtures.response(xy[1, 2], mean[1, 2], sigma[1, 2], 1.0))
