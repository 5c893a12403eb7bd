"""Generation of muons: keyed draws, spectra, ranges, rates, and fluxes that users write."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn

from diffdet.core.constants import MUON_MASS
from diffdet.core.errors import InputError, NotSupportedError
from diffdet.core.random import MUON_BLOCK, Stream
from diffdet.tomography.muon.generation import AbsMuonGenerator, MuonGenerator2015, MuonGenerator2016
from diffdet.tomography.muon.muon_batch import MuonBatch
from diffdet.tomography.volume.layer import PanelDetectorLayer, PassiveLayer
from diffdet.tomography.volume.panel import DetectorPanel
from diffdet.tomography.volume.volume import Volume

UNIT = (0.0, 1.0)
MODELS = [MuonGenerator2015, MuonGenerator2016]
STREAM = Stream(3, "generation").muons()


class FakeVolume:
    """As much of a volume as a generator looks at: the ladle furnace's geometry."""

    lw = torch.tensor([1.0, 1.0], dtype=torch.float64)
    h = torch.tensor([1.8])
    passive_size = 0.1

    def get_passive_z_range(self):
        return torch.tensor([0.4]), torch.tensor([1.4])


@pytest.mark.parametrize("model", MODELS)
def test_documented_numbers_are_given_back_in_kind(model):
    generator = model(UNIT, UNIT)
    wanted = {MuonGenerator2016: 1.2344202605681, MuonGenerator2015: 1.1039752953e-4}[model]
    single = generator.flux(5.0, 0.3)
    assert isinstance(single, float)
    assert single == pytest.approx(wanted, rel=1e-7)
    array = generator.flux(np.array([5.0, 5.0]), np.array([0.3, 0.3]))
    assert isinstance(array, np.ndarray)
    assert array.tolist() == [single, single]
    tensor = generator.flux(torch.tensor([5.0]).double(), torch.tensor([0.3]).double())
    assert tensor.tolist() == pytest.approx([single])


def test_columns_lie_in_their_ranges():
    generator = MuonGenerator2016((-1.0, 2.0), (5.0, 6.0), None, (1.0, 10.0), (0.1, 0.5))
    muons = generator(5000, stream=STREAM)
    assert muons.shape == (5000, 5)
    assert muons.dtype == torch.get_default_dtype()
    momenta = tuple(math.sqrt(e**2 - MUON_MASS**2) for e in (1, 10))
    for column, (low, high) in zip(muons.T, [(-1, 2), (5, 6), momenta, (0.1, 0.5), (0, 2 * math.pi)], strict=True):
        assert low - 1e-5 <= column.min() <= column.max() <= high + 1e-5
        # 5000 uniform or steeper numbers come within a hundredth of the range of its lower end, but for one in 1e21.
        assert column.min() < low + 0.01 * (high - low)
    assert (muons[:, 4] < 2 * math.pi).all()


@pytest.mark.parametrize("start", [0, 1, MUON_BLOCK - 1, MUON_BLOCK, 5000])
def test_a_muon_is_the_same_whatever_is_drawn_with_it(start):
    generator = MuonGenerator2015(UNIT, UNIT, None)
    whole = generator(7000, stream=STREAM)
    assert torch.equal(generator.generate_set(37, stream=STREAM, start=start), whole[start : start + 37])
    assert torch.equal(MuonGenerator2015(UNIT, UNIT, None)(7000, stream=STREAM), whole)


def test_fixing_the_momentum_keeps_everything_else():
    free, fixed = (MuonGenerator2015(UNIT, UNIT, p)(100, stream=STREAM) for p in (None, 3.0))
    assert torch.equal(free[:, [0, 1, 3, 4]], fixed[:, [0, 1, 3, 4]])
    assert (fixed[:, 2] == 3).all()


def test_other_streams_give_other_muons_and_torch_seeds_the_default():
    generator = MuonGenerator2016(UNIT, UNIT)
    assert not torch.equal(generator(10, stream=STREAM), generator(10, stream=Stream(4).muons()))
    torch.manual_seed(1)
    first, second = generator(10), generator(10)
    torch.manual_seed(1)
    assert torch.equal(generator(10), first)
    assert not torch.equal(first, second)


# Momenta and angles of the spectra by adaptive quadrature, with the default ranges. The published package leaves out
# the widths of its energy bins and samples mean 1.69 and median 1.05 GeV from the 2016 model, 2.03 and 1.16 GeV from
# the 2015 model.
def exact_means(model):
    generator = model(UNIT, UNIT)

    def density(log_energy, theta):
        return generator.flux(math.exp(log_energy), theta) * math.exp(log_energy)

    def integral(weight, highest=500.0):
        return integrate.dblquad(
            lambda log_energy, theta: density(log_energy, theta) * weight(math.exp(log_energy), theta),
            0, math.radians(70), math.log(0.5), math.log(highest), epsrel=1e-6,
        )[0]  # fmt: skip

    total = integral(lambda _e, _t: 1)
    momentum = integral(lambda e, _t: math.sqrt(e**2 - MUON_MASS**2)) / total
    theta = integral(lambda _e, t: t) / total

    def fraction_below(momentum):
        return integral(lambda _e, _t: 1, highest=math.hypot(momentum, MUON_MASS)) / total

    return momentum, theta, fraction_below


@pytest.mark.parametrize(
    ("model", "mean", "median"), [(MuonGenerator2015, 6.77, 3.06), (MuonGenerator2016, 4.68, 2.30)]
)
def test_mean_and_median_are_those_of_the_spectrum(model, mean, median):
    n = 400_000
    muons = model(UNIT, UNIT, None, dtype=torch.float64)(n, stream=STREAM)
    momentum, theta = muons[:, 2], muons[:, 3]
    exact_momentum, exact_theta, fraction_below = exact_means(model)
    assert exact_momentum == pytest.approx(mean, rel=2e-3)
    # Four standard errors: one false alarm in 16,000.
    assert momentum.mean().item() == pytest.approx(exact_momentum, abs=4 * momentum.std().item() / math.sqrt(n))
    assert theta.mean().item() == pytest.approx(exact_theta, abs=4 * theta.std().item() / math.sqrt(n))
    found = momentum.median().item()
    assert found == pytest.approx(median, rel=0.01)
    assert fraction_below(found) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(n))


@pytest.mark.parametrize("column", [0, 1, 4])
def test_positions_and_azimuth_are_uniform_ks_p_above_1_in_1000(column):
    muons = MuonGenerator2016(UNIT, UNIT, dtype=torch.float64)(100_000, stream=STREAM)
    sample = muons[:, column] / (2 * math.pi if column == 4 else 1)
    assert stats.kstest(sample.numpy(), "uniform").pvalue > 1e-3


def test_columns_are_independent():
    muons = MuonGenerator2016(UNIT, UNIT, None, dtype=torch.float64)(100_000, stream=STREAM)
    muons[:, 2] = muons[:, 2].log()
    correlation = torch.corrcoef(muons.T) - torch.eye(5)
    # Ten pairs, each within 4.4 / sqrt(n): one false alarm in 10,000.
    assert correlation.abs().max() < 4.4 / math.sqrt(1e5)


def test_kinematics_are_continuous():
    muons = MuonGenerator2016(UNIT, UNIT, None, dtype=torch.float64)(10_000, stream=STREAM)
    assert [column.unique().numel() for column in muons.T] == [10_000] * 5


@pytest.mark.parametrize(("model", "wanted"), [(MuonGenerator2015, 115.4), (MuonGenerator2016, 136.2)])
def test_rate_is_the_integral_over_the_hemisphere(model, wanted):
    generator = model(UNIT, UNIT)
    exact = integrate.dblquad(
        lambda log_energy, theta: generator.flux(math.exp(log_energy), theta) * math.exp(log_energy),
        0, math.radians(70), math.log(0.5), math.log(500), epsrel=1e-6,
    )[0]  # fmt: skip
    assert generator.rate() == pytest.approx(2 * math.pi * exact * generator.flux_unit, rel=1e-5)
    assert generator.rate() == pytest.approx(wanted, rel=1e-3)
    assert generator.rate(2.5) == pytest.approx(2.5 * generator.rate())
    # PDG Review, "Cosmic rays": about 1 per cm^2 and minute through a horizontal detector, all momenta and angles.
    assert 0.6 < generator.rate(1e-4) * 60 < 1.0


class NumpyFlux(AbsMuonGenerator):
    def flux(self, energy, theta):
        return np.power(energy, -2) * np.where(theta < 0.5, 1.0, 0.0)


class TorchFlux(AbsMuonGenerator):
    def flux(self, energy, theta):
        return torch.pow(energy, -2) * torch.where(theta < 0.5, 1.0, 0.0)


@pytest.mark.parametrize("model", [NumpyFlux, TorchFlux])
def test_users_write_a_flux_for_arrays_or_tensors(model):
    generator = model(UNIT, UNIT, None)
    muons = generator(20_000, stream=STREAM)
    # One cell of 0.0061 rad holds the step at 0.5.
    assert muons[:, 3].max() < 0.5 + 0.0062
    # E^-2 from 0.5 to 500 GeV has its median at 1/(1/2 (1/0.5 + 1/500)) = 0.999; four standard errors of a fraction.
    energy = torch.hypot(muons[:, 2], torch.tensor(MUON_MASS))
    assert (energy < 0.999).double().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(20_000))
    with pytest.raises(NotSupportedError, match="flux_unit"):
        generator.rate()


def test_constants_can_be_overridden():
    class Hard(MuonGenerator2016):
        E_0 = 100.0
        n_energy_bins = 50

    assert Hard(UNIT, UNIT, None)(5000, stream=STREAM)[:, 2].median() > 10


def test_margin_around_a_volume_has_the_reference_value():
    generator = MuonGenerator2016.from_volume(FakeVolume())
    assert generator.x_range == pytest.approx((-0.4019237743, 1.4019237743), abs=1e-7)
    assert generator.y_range == generator.x_range
    assert generator(3, stream=STREAM).dtype == torch.float64
    assert generator.fixed_mom == 5


def test_repr_tells_ranges_and_momentum_or_energy():
    assert "momentum 5 GeV" in repr(MuonGenerator2016(UNIT, UNIT))
    text = repr(MuonGenerator2015((-0.24, 1.24), UNIT, None))
    assert "MuonGenerator2015" in text
    assert "x from -0.24 to 1.24 m" in text
    assert "from 0.5 to 500 GeV" in text


def test_no_muons_are_an_empty_set():
    assert MuonGenerator2016(UNIT, UNIT)(0, stream=STREAM).shape == (0, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x_range": (1.0, 1.0)}, "`x_range` must be"),
        ({"y_range": (2.0, 1.0)}, "`y_range` must be"),
        ({"x_range": 3.0}, "`x_range` must be two numbers"),
        ({"y_range": (0.0, math.nan)}, "`y_range` must be finite"),
        ({"fixed_mom": 0.0}, "`fixed_mom` must be greater than 0"),
        ({"energy_range": (0.1, 5.0)}, "`energy_range`"),
        ({"theta_range": (0.0, 2.0)}, "`theta_range`"),
        ({"theta_range": (-0.1, 1.0)}, "`theta_range`"),
    ],
)
def test_nonsense_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        MuonGenerator2016(**{"x_range": UNIT, "y_range": UNIT, **arguments})


def test_unusable_requests_and_fluxes_are_refused():
    with pytest.raises(InputError, match="`n_muons` and `start`"):
        MuonGenerator2016(UNIT, UNIT)(-1)

    class Negative(AbsMuonGenerator):
        def flux(self, energy, theta):
            return -energy * theta

    class Scalar(AbsMuonGenerator):
        def flux(self, energy, theta):
            return 1.0

    with pytest.raises(InputError, match="not negative"):
        Negative(UNIT, UNIT)(1)
    with pytest.raises(InputError, match=r"Scalar.flux.*one value per pair"):
        Scalar(UNIT, UNIT)(1)


def test_muons_of_a_real_volume_start_above_it_and_can_fly():
    # The original's test volume: a unit cube with a passive block from 0.2 to 0.8 m and voxels of 0.1 m.
    lw = torch.tensor([1.0, 1.0])

    def detector(position, top):
        panel = DetectorPanel(res=1e3, eff=0.9, init_xyz=(0.5, 0.5, top - 0.1), init_xy_span=(1.0, 1.0))
        return PanelDetectorLayer(position, lw=lw, z=top, size=0.2, panels=[panel])

    layers = [detector("above", 1.0), *(PassiveLayer(lw, 0.8 - 0.1 * k, 0.1) for k in range(6)), detector("below", 0.2)]
    volume = Volume(nn.ModuleList(layers))
    generator = MuonGenerator2015.from_volume(volume, fixed_mom=None)
    assert generator.x_range == pytest.approx((-0.2411542684, 1.2411542684), abs=1e-7)
    batch = MuonBatch(generator(100, stream=STREAM, start=2000), volume.h, stream=STREAM, first=2000)
    assert batch.ids.tolist() == list(range(2000, 2100))
    volume(batch)
    assert len(batch) == 100
    assert batch.z.abs().max() < 1e-6
