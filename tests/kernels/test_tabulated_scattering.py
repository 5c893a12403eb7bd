"""Draws from tables: sizes as tabulated, signs even, angle and displacement correlated as physics has it."""

import math

import pytest
import torch
from scipy import stats

from diffdet.kernels import scattering, tabulated_scattering

N = 200_000


def half_normal(n, sigma=1.0):
    """Quantiles of the size of a normal number."""
    ranks = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return sigma * torch.from_numpy(stats.halfnorm.ppf(ranks.numpy()))


def normals(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_quantiles_of_a_normal_return_the_normal():
    z = torch.linspace(-3, 3, 601, dtype=torch.float64)
    table = half_normal(10_000)[None]
    back = tabulated_scattering.signed_quantile(z, table, torch.zeros(601, dtype=torch.long))
    # a step of the table at 3 sigma is 1e-4 / (2 phi(3)) wide
    assert torch.allclose(back, z, atol=0.02)
    assert torch.equal(back.sign()[z != 0], z.sign()[z != 0])


def test_sizes_follow_the_table_and_signs_are_even_ks_at_one_in_a_thousand():
    # an exponential, which has none of a normal's shape; a shift of its scale by 2 % is found with power > 0.99
    n = 4000
    ranks = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    table = -torch.log1p(-ranks)[None]
    drawn = tabulated_scattering.signed_quantile(normals(N), table, torch.zeros(N, dtype=torch.long))
    assert stats.kstest(drawn.abs().numpy()[:20_000], "expon").pvalue > 1e-3
    assert abs(float((drawn > 0).double().mean()) - 0.5) < 4 * 0.5 / math.sqrt(N)


def test_each_muon_draws_from_its_own_row():
    table = torch.stack([half_normal(100), 10 * half_normal(100), 100 * half_normal(100)])
    z = torch.full((3,), 1.0, dtype=torch.float64)
    drawn = tabulated_scattering.signed_quantile(z, table, torch.tensor([2, 0, 1]))
    assert (drawn / drawn[1]).tolist() == pytest.approx([100, 1, 10])


@pytest.mark.parametrize("z", [1e9, -1e9, 0.0])
def test_extreme_ranks_stay_in_the_table(z, dtype):
    table = torch.tensor([[0.25, 0.5, 1.0]], dtype=dtype)
    drawn = tabulated_scattering.signed_quantile(
        torch.tensor([z], dtype=dtype), table, torch.zeros(1, dtype=torch.long)
    )
    assert float(drawn.abs()) == (0.25 if z == 0 else 1.0)
    assert drawn.dtype == dtype


def draw(steps=1.0, strength=1.0, power=1.85, n=N, sigma_angle=2e-3, sigma_shift=1e-5):
    zero = torch.zeros(n, dtype=torch.long)
    full = torch.full((n,), 1.0, dtype=torch.float64)
    return tabulated_scattering.draw(
        normals(4, n, seed=1),
        half_normal(10_000, sigma_angle)[None],
        half_normal(10_000, sigma_shift)[None],
        zero,
        strength * full,
        steps * full,
        power,
    )


def test_angle_and_displacement_of_one_step():
    out = draw()
    # relative error of an RMS of 4e5 numbers is 1.1e-3; the table of 10 000 ranks loses 2e-4
    assert float(out.angle.square().mean().sqrt()) == pytest.approx(2e-3, rel=5e-3)
    assert float(out.shift.square().mean().sqrt()) == pytest.approx(1e-5, rel=5e-3)
    for plane in range(2):
        correlation = float(torch.corrcoef(torch.stack([out.angle[plane], out.shift[plane]]))[0, 1])
        assert correlation == pytest.approx(math.sqrt(3) / 2, abs=4 * 0.25 / math.sqrt(N))
    across = torch.corrcoef(torch.cat([out.angle, out.shift]))[[0, 0, 2], [1, 3, 1]]
    assert float(across.abs().max()) < 4 / math.sqrt(N)


def test_growth_with_path_and_strength():
    one, two = draw(n=1000), draw(steps=4.0, strength=0.5, n=1000)
    assert torch.allclose(two.angle, one.angle * 0.5 * 2)
    assert torch.allclose(two.shift, one.shift * 0.5 * 4**1.85)


def test_nothing_happens_on_no_path_or_in_vacuum():
    for out in (draw(steps=0.0, n=10), draw(strength=0.0, n=10)):
        assert not bool(out.angle.any())
        assert not bool(out.shift.any())


def test_angles_are_limited_on_both_sides():
    out = draw(sigma_angle=10.0, n=1000)
    assert float(out.angle.max()) == pytest.approx(math.pi / 2.2)
    assert float(out.angle.min()) == pytest.approx(-math.pi / 2.2)


def test_nearest_by_ratio_not_by_difference():
    known = torch.tensor([303.9, 0.3608, 0.08897, 0.01757])
    values = torch.tensor([1e3, math.inf, 100.0, 10.0, 0.36, 0.05, 0.03, 1e-4])
    # 0.05 is nearer to 0.01757 by difference, nearer to 0.08897 by ratio
    assert tabulated_scattering.nearest_in_log(values, known).tolist() == [0, 0, 0, 1, 1, 2, 3, 3]


def test_centre_of_a_bin_has_its_mean_inverse_square():
    low, high = 1.0, 1.5
    p = torch.linspace(low, high, 100_001, dtype=torch.float64)
    centre = tabulated_scattering.bin_centre(torch.tensor(low), torch.tensor(high))
    assert float(centre) ** -2 == pytest.approx(float(p.pow(-2).mean()), rel=1e-4)


def test_strength_is_the_ratio_of_highlands_widths():
    n = torch.tensor([0.5, 1.8, 0.0], dtype=torch.float64)
    known = torch.tensor([0.5, 0.5, 0.5], dtype=torch.float64)
    one = torch.ones(3, dtype=torch.float64)
    expected = scattering.highland_width(n, one) / scattering.highland_width(known, one)
    assert torch.allclose(tabulated_scattering.strength_ratio(n, known), expected)
    assert expected[2] == 0
