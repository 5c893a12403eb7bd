"""Thin silicon: mean and most probable loss, ruin of a gambler, read-out."""

from __future__ import annotations

import math

import pytest
import torch

from diffdet.core.units import keV, um
from diffdet.kernels import silicon


@pytest.fixture(scope="module")
def losses():
    """Energy that many particles lose in 75 um, keV."""
    generator = torch.Generator().manual_seed(3)
    n, thickness = 20_000, 75 * um
    soft = torch.zeros(n, dtype=torch.float64)
    for _ in range(15):
        soft += silicon.soft_loss(
            torch.full((n,), thickness / 15, dtype=torch.float64), torch.randn(n, generator=generator)
        )
    number = torch.poisson(silicon.hard_collisions(torch.full((n,), thickness)), generator=generator).to(torch.int64)
    row = torch.repeat_interleave(number)
    hard = silicon.hard_collision(torch.rand(len(row), generator=generator, dtype=torch.float64))
    return soft.index_add(0, row, hard) / keV


def test_mean_loss_is_the_restricted_one_of_a_minimum_ionising_particle(losses):
    error = losses.std() / math.sqrt(len(losses))
    assert abs(losses.mean() - 75 * 0.309) < 4 * error


def test_most_probable_loss_in_75_um_is_25_adu(losses):
    counts = torch.histc(losses.to(torch.float32), 60, 0, 60)
    adu = (counts.argmax().item() + 0.5) / 0.79
    assert adu == pytest.approx(25, abs=3)


def test_soft_loss_has_the_mean_and_variance_that_it_says():
    z = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    length = torch.full_like(z, 5 * um)
    loss = silicon.soft_loss(length, z)
    hard = silicon.XI * math.log(silicon.HARDEST / silicon.HARD_FROM)
    mean = 5 * um * (silicon.DE_DX - hard)
    assert loss.mean().item() == pytest.approx(mean, rel=0.01)
    assert loss.var().item() == pytest.approx(mean * silicon.SOFT_QUANTUM, rel=0.03)


def test_spectrum_of_hard_collisions_ends_where_it_should():
    u = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert (silicon.hard_collision(u) / keV).tolist() == pytest.approx([0.1, 120.0])


def test_charge_on_the_border_goes_either_way_and_charge_beyond_it_stays():
    position = torch.tensor([3.0, 3.0, 3.2, 2.8, 3.05])
    border, uniform = torch.full((5,), 0.1), torch.tensor([0.49, 0.51, 0.9, 0.1, 0.7])
    assert silicon.caught_in(position, border, uniform).tolist() == [3, 2, 3, 2, 3]


def test_probability_of_the_upper_side_rises_in_a_straight_line_across_the_strip():
    generator = torch.Generator().manual_seed(0)
    n = 100_000
    for distance in (-0.08, -0.02, 0.05):
        cell = silicon.caught_in(
            torch.full((n,), 5 + distance), torch.full((n,), 0.1), torch.rand(n, generator=generator)
        )
        share = (cell == 5).double().mean().item()
        assert share == pytest.approx((distance + 0.1) / 0.2, abs=4 * 0.5 / math.sqrt(n))


def test_a_pixel_saturates_at_the_top_of_the_converter_less_its_pedestal():
    charge = torch.tensor([1e6, 1e6, 1517.0, 1300.0])
    pedestal = torch.tensor([100.0, -5.0, 100.0, 100.0])
    charges, read = silicon.converted(charge, torch.zeros(4), pedestal, gain=216.7, threshold=7)
    assert charges.tolist() == [155, 255, 7, 6]
    assert read.tolist() == [True, True, True, False]
