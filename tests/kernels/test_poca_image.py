"""Image sums: a twin that loops over muons and voxels, gradients, and independence of how muons are dealt out."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from diffdet.kernels import poca_image, voxels

EDGES = (
    torch.linspace(0, 0.4, 5, dtype=torch.float64),
    torch.linspace(0, 0.3, 4, dtype=torch.float64),
    torch.linspace(0.2, 0.4, 3, dtype=torch.float64),
)


def muons(n, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def draw(rows, low, high):
        return low + (high - low) * torch.rand((rows, n), generator=generator, dtype=dtype)

    return [draw(3, 0.0, 0.45), draw(3, 0.01, 0.1), draw(4, 0.05, 1.0), draw(3, 0.01, 0.1), draw(1, 0.1, 1.0)[0]]


def phi(t):
    return 0.5 * math.erfc(-t / math.sqrt(2))


def summed_by_hand(poca, poca_sigma, values, sigmas, efficiency):
    shape = (8, len(EDGES[2]) - 1, len(EDGES[0]) - 1, len(EDGES[1]) - 1)
    sums = torch.zeros(shape, dtype=torch.float64)
    for m in range(poca.shape[1]):
        for _, z, x, y in torch.ones(1, *shape[1:]).nonzero().tolist():
            p = 1.0
            for axis, k in enumerate((x, y, z)):
                mean, sigma = float(poca[axis, m]), float(poca_sigma[axis, m]) + poca_image.SIGMA_FLOOR
                low, high = EDGES[axis][k : k + 2].tolist()
                p *= phi((high - mean) / sigma) - phi((low - mean) / sigma)
            for v in range(4):
                value = float(values[v, m])
                weight = float(efficiency[m]) * (p + poca_image.PROBABILITY_FLOOR)
                if v < 3:
                    weight /= (2 * value * float(sigmas[v, m])) ** 2
                sums[v, z, x, y] += weight * value**2
                sums[4 + v, z, x, y] += weight
    return sums


def test_agrees_with_one_muon_and_one_voxel_at_a_time():
    rows = muons(12)
    sums = poca_image.voxel_sums(*rows, *EDGES)
    assert sums.dtype == torch.float64
    torch.testing.assert_close(sums, summed_by_hand(*rows), rtol=1e-10, atol=1e-18)


def test_masses_of_all_axes_at_once_are_those_of_each_axis():
    poca, sigma, *_ = muons(200)
    together = poca_image.axis_masses(poca, sigma, *EDGES)
    for k in range(3):
        alone = voxels.interval_mass(poca[k], sigma[k] + poca_image.SIGMA_FLOOR, EDGES[k])
        torch.testing.assert_close(together[k], alone, rtol=1e-12, atol=1e-16)


def test_float32_masses_far_from_the_mean_keep_their_digits():
    """At 7 sigma a mass is 1e-12: a difference of two values near one would leave nothing of it in float32."""
    poca, sigma = torch.full((3, 1), 0.0), torch.full((3, 1), 0.05)
    edges = torch.tensor([0.35, 0.36])
    mass = poca_image.axis_masses(poca, sigma, edges, edges, edges)[0].item()
    wide = 0.05 + poca_image.SIGMA_FLOOR
    assert mass == pytest.approx(0.5 * (math.erfc(0.35 / wide / 2**0.5) - math.erfc(0.36 / wide / 2**0.5)), rel=1e-3)


def test_gradients():
    rows = [r.requires_grad_() for r in muons(5)]
    # the sums span many orders of magnitude; their logarithms are what the image is made of
    assert gradcheck(lambda *r: poca_image.voxel_sums(*r, *EDGES, block=2).log(), rows, rtol=1e-3)


def test_sums_do_not_depend_on_how_whole_blocks_are_dealt_out():
    rows = [r.float() for r in muons(7 * 64 + 10)]
    edges = [e.float() for e in EDGES]
    whole = poca_image.voxel_sums(*rows, *edges, block=64)
    for cut in (64, 128, 5 * 64):
        first = poca_image.voxel_sums(*(r[..., :cut] for r in rows), *edges, block=64)
        both = poca_image.voxel_sums(*(r[..., cut:] for r in rows), *edges, block=64, onto=first)
        assert torch.equal(both, whole)


def test_a_variable_known_exactly_to_be_zero_has_no_weight():
    rows = muons(3)
    rows[2][0, 1] = 0.0
    sums = poca_image.voxel_sums(*rows, *EDGES)
    others = poca_image.voxel_sums(*(r[..., [0, 2]] for r in rows), *EDGES)
    assert torch.isfinite(sums).all()
    torch.testing.assert_close(sums[[0, 4]], others[[0, 4]], rtol=1e-12, atol=0)


def test_no_muons_make_empty_sums():
    sums = poca_image.voxel_sums(*(r[..., :0] for r in muons(1)), *EDGES)
    assert sums.shape == (8, 2, 4, 3)
    assert not sums.any()


def test_rms_of_equal_values_is_that_value():
    rows = muons(50)
    rows[2] = torch.tensor([0.1, 0.2, 0.3, 5.0], dtype=torch.float64)[:, None].expand(4, 50)
    rms = poca_image.rms_from_sums(poca_image.voxel_sums(*rows, *EDGES))
    torch.testing.assert_close(rms, rows[2][:, :1, None, None].expand_as(rms), rtol=1e-12, atol=0)
    nothing = poca_image.rms_from_sums(torch.zeros_like(poca_image.voxel_sums(*rows, *EDGES)).requires_grad_())
    assert not nothing.any()


def test_edges_follow_the_type_of_the_muons():
    rows = muons(20)
    single = poca_image.voxel_sums(*(r.float() for r in rows), *EDGES)
    torch.testing.assert_close(single, poca_image.voxel_sums(*rows, *EDGES), rtol=1e-3, atol=1e-12)


def test_what_is_kept_from_inference_mode_can_be_differentiated_through():
    edges = [torch.linspace(0, 1, n) for n in (12, 13, 14)]
    with torch.inference_mode():
        poca_image.voxel_sums(*(r.float() for r in muons(5)), *edges)
    rows = [r.float().requires_grad_() for r in muons(5)]
    poca_image.voxel_sums(*rows, *edges).sum().backward()
    assert rows[0].grad.isfinite().all()
