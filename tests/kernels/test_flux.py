"""Muon spectra and sampling from tables: reference values, laws, and the distribution of samples."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch.autograd import gradcheck

from diffdet.core.errors import InputError, ShapeError
from diffdet.kernels import flux

MODELS = {"guan_2015": flux.guan_2015, "shukla_2016": flux.shukla_2016}
SEVENTY_DEGREES = math.radians(70)


def tensor(*values, **kwargs):
    return torch.tensor(values, dtype=torch.float64, **kwargs)


def table(model, n=200, theta=(0.0, SEVENTY_DEGREES), energy=(0.5, 500.0)):
    thetas, energies = flux.grid(*theta, n), flux.grid(*energy, n, geometric=True)
    return flux.tabulate(model(energies[None], thetas[:, None]), thetas, energies)


def uniforms(n, seed=15, dtype=torch.float64):
    return torch.rand(2, n, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(
    ("model", "wanted"),
    [("shukla_2016", (1.2344202605681, 3.9110005814211)), ("guan_2015", (1.1039752953e-4, 1.7634391974e-4))],
)
def test_reference_values(model, wanted):
    # The published package, in float32, at (E, theta) = (5 GeV, 0.3) and (1 GeV, 1.0).
    found = MODELS[model](tensor(5.0, 1.0), tensor(0.3, 1.0))
    torch.testing.assert_close(found, tensor(*wanted), rtol=1e-7, atol=0)


def test_slow_twins():
    for energy in (0.5, 3.0, 100.0):
        for theta in (0.01, 0.7, 1.4):
            c = math.cos(theta)
            star = math.sqrt(
                (c**2 + 0.102573**2 - 0.068287 * c**0.958633 + 0.0407253 * c**0.817285)
                / (1 + 0.102573**2 - 0.068287 + 0.0407253)
            )
            guan = 0.14 * (energy * (1 + 3.64 / (energy * star**1.29))) ** -2.7
            guan *= 1 / (1 + 1.1 * energy * star / 115) + 0.054 / (1 + 1.1 * energy * star / 850)
            d = math.sqrt(174**2 * c**2 + 2 * 174 + 1) - 174 * c
            shukla = 88 * 2 * (3.87 + 0.5) ** 2 * (3.87 + energy) ** -3 / (1 + energy / 854) * d**-2
            angular = c * math.sin(theta)
            assert flux.guan_2015(tensor(energy), tensor(theta)).item() == pytest.approx(guan * angular, rel=1e-12)
            assert flux.shukla_2016(tensor(energy), tensor(theta)).item() == pytest.approx(shukla * angular, rel=1e-10)


def test_vertical_intensity_is_that_of_the_literature():
    # Integral above the cut-off of 0.5 GeV without meson decay is I_0 by construction.
    energy = flux.grid(0.5, 1e7, 4000, geometric=True)
    small = torch.full_like(energy, 1e-6)
    vertical = flux.shukla_2016(energy, small, epinv=0.0) / 1e-6
    assert torch.trapezoid(vertical * energy, energy.log()).item() == pytest.approx(88.0, rel=1e-5)
    # PDG Review, "Cosmic rays": about 70 m^-2 s^-1 sr^-1 above 1 GeV/c; measurements and models differ by 15 %.
    energy = flux.grid(1.0, 1e5, 2000, geometric=True)
    small = torch.full_like(energy, 1e-6)
    for model, unit in ((flux.shukla_2016, 1.0), (flux.guan_2015, 1e4)):
        vertical = unit * model(energy, small) / 1e-6
        assert torch.trapezoid(vertical * energy, energy.log()).item() == pytest.approx(70, rel=0.15)


@pytest.mark.parametrize("model", MODELS)
def test_nothing_comes_from_the_horizon_or_below(model):
    found = MODELS[model](tensor(1.0, 1.0, 1.0, 1.0), tensor(0.0, math.pi / 2, 2.0, math.pi))
    assert found.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("model", MODELS)
def test_gradients(model):
    energy, theta = tensor(0.7, 5.0, 50.0, requires_grad=True), tensor(0.0, 0.5, 1.3, requires_grad=True)
    assert gradcheck(MODELS[model], (energy, theta))


@pytest.mark.parametrize("model", MODELS)
def test_float32_agrees_with_float64(model):
    energy, theta = flux.grid(0.5, 500, 50, geometric=True), torch.linspace(0, 1.5, 101, dtype=torch.float64)
    exact = MODELS[model](energy, theta)
    torch.testing.assert_close(MODELS[model](energy.float(), theta.float()).double(), exact, rtol=3e-5, atol=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_integral_equals_adaptive_quadrature(model):
    def density(energy, theta):
        return MODELS[model](tensor(energy), tensor(theta)).item()

    exact, _ = integrate.dblquad(
        lambda log_energy, theta: density(math.exp(log_energy), theta) * math.exp(log_energy),
        0, SEVENTY_DEGREES, math.log(0.5), math.log(500), epsrel=1e-7,
    )  # fmt: skip
    assert table(MODELS[model]).integral == pytest.approx(exact, rel=1e-6)
    # Cells are integrated, so the answer hardly depends on how many there are.
    assert table(MODELS[model], n=20).integral == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_energies_and_angles_follow_the_spectrum_ks_p_above_1_in_1000(model):
    n = 100_000
    t = table(MODELS[model])
    u = uniforms(n)
    theta = flux.sample_theta(t, u[0])
    energy = flux.sample_energy(t, theta, u[1])
    fine = flux.grid(0.5, 500, 2000, geometric=True), flux.grid(0, SEVENTY_DEGREES, 2000)
    density = MODELS[model](fine[0][None], fine[1][:, None])
    by_energy = torch.trapezoid(density, fine[1], dim=0) * fine[0]
    by_theta = torch.trapezoid(density * fine[0], fine[0].log(), dim=1)
    for sample, nodes, mass in ((energy.log(), fine[0].log(), by_energy), (theta, fine[1], by_theta)):
        cdf = torch.cat([torch.zeros(1).double(), torch.cumulative_trapezoid(mass, nodes)])
        cdf = (cdf / cdf[-1]).numpy()
        expected = np.interp(np.sort(sample.numpy()), nodes.numpy(), cdf)
        # The sample's cumulative probabilities are uniform if the cumulative distribution is its own.
        found = stats.kstest(expected, "uniform")
        assert found.pvalue > 1e-3


def test_energy_depends_on_angle_where_the_flux_says_so():
    t = table(flux.guan_2015)
    n = 200_000
    u = uniforms(n)[0]
    means = []
    for theta in (0.05, 1.2):
        energy = flux.sample_energy(t, torch.full((n,), theta).double(), u)
        nodes = flux.grid(0.5, 500, 2000, geometric=True)
        mass = flux.guan_2015(nodes, torch.full_like(nodes, theta)) * nodes
        exact = torch.trapezoid(mass * nodes.log(), nodes.log()) / torch.trapezoid(mass, nodes.log())
        # Standard error of the mean of ln E is below 1.2/sqrt(2e5) = 0.0027; four of them.
        assert energy.log().mean().item() == pytest.approx(exact.item(), abs=0.011)
        means.append(energy.log().mean())
    assert means[1] > means[0] + 0.2


def test_samples_are_continuous():
    t = table(flux.shukla_2016)
    u = uniforms(10_000)
    theta = flux.sample_theta(t, u[0])
    energy = flux.sample_energy(t, theta, u[1])
    assert theta.unique().numel() == energy.unique().numel() == 10_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_are_monotonic_in_range_and_of_the_dtype(dtype):
    t = table(flux.guan_2015, n=7)
    u = torch.linspace(0, 1, 1001, dtype=dtype)
    theta = flux.sample_theta(t, u)
    energy = flux.sample_energy(t, torch.full_like(u, 0.4), u)
    for sample, low, high in ((theta, 0, SEVENTY_DEGREES), (energy, 0.5, 500)):
        assert sample.dtype == dtype
        assert (sample.diff() >= 0).all()
        assert sample[0].item() == pytest.approx(low, abs=1e-6)
        assert sample[-1].item() == pytest.approx(high, rel=1e-6)


def test_a_sample_does_not_depend_on_its_neighbours():
    t = table(flux.guan_2015, n=50)
    u = uniforms(100)
    theta = flux.sample_theta(t, u[0])
    alone = torch.stack([flux.sample_energy(t, theta[i], u[1, i]) for i in range(100)])
    assert torch.equal(flux.sample_energy(t, theta, u[1]), alone)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,)])
def test_shape_follows_the_input(shape):
    t = table(flux.shukla_2016, n=5)
    u = torch.full(shape, 0.5)
    theta = flux.sample_theta(t, u)
    assert theta.shape == flux.sample_energy(t, theta, u).shape == shape


def test_cells_without_flux_are_never_sampled():
    thetas, energies = flux.grid(0, 1, 10), flux.grid(1, 100, 10, geometric=True)
    band = ((thetas >= 0.2) & (thetas <= 0.5)).double()[:, None] * ((energies > 9) & (energies < 50)).double()
    t = flux.tabulate(band, thetas, energies)
    u = uniforms(5000)
    theta = flux.sample_theta(t, u[0])
    energy = flux.sample_energy(t, theta, u[1])
    # A cell whose edge carries flux counts with it: one cell beyond the band on either side.
    assert 0.1 <= theta.min() <= theta.max() <= 0.6
    assert energies[6] <= energy.min() <= energy.max() <= energies[18]


def test_nonsense_is_refused():
    with pytest.raises(InputError, match="low < high"):
        flux.grid(1.0, 1.0, 5)
    with pytest.raises(InputError, match="0 < low < high"):
        flux.grid(0.0, 1.0, 5, geometric=True)
    with pytest.raises(InputError, match="`n` must be at least 1"):
        flux.grid(0.0, 1.0, 0)
    thetas, energies = flux.grid(0, 1, 2), flux.grid(1, 2, 3, geometric=True)
    with pytest.raises(ShapeError, match="theta by energy"):
        flux.tabulate(torch.ones(7, 5), thetas, energies)
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="finite and not negative"):
            flux.tabulate(torch.full((5, 7), bad), thetas, energies)
    with pytest.raises(InputError, match="zero everywhere"):
        flux.tabulate(torch.zeros(5, 7), thetas, energies)
