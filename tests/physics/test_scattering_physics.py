"""What multiple scattering must do, whoever computes it: Highland's widths for the whole, whatever the steps, the right
correlation and vertex, symmetry, limits, and Geant4's central angles."""

import csv
import math
from collections import defaultdict

import pytest
import torch

from diffdet.core.materials import X0
from diffdet.kernels import scattering
from diffdet.tomography.volume.layer import PassiveLayer
from scenes import filled, muons, pencil

F64 = {"dtype": torch.float64}
WIDE = torch.tensor([2.0, 2.0], **F64)
N = 60_000
WITHIN = 0.01  # a width of 120,000 numbers is known to 0.2 %


def crossed(material, layers, *, step=0.01, n=N, theta=0.0, phi=0.0, momentum=5.0, key=1, gap=0.0):
    """Muons behind layers of the given thicknesses, the whole ending at z = 0; and where they would be unscattered."""
    top = sum(layers) + gap * (len(layers) - 1)
    given = pencil(n, theta=theta, phi=phi, momentum=momentum, at=(1.0, 1.0))
    mu, straight = muons(given, z=top, key=key), muons(given, z=top, key=key)
    for thickness in layers:
        layout = material if callable(material) else filled(material)
        PassiveLayer(WIDE, top, thickness, layout, step_sz=min(step, thickness))(mu)
        top -= thickness + gap
    straight.propagate_to_z(0.0)
    mu.propagate_to_z(0.0)
    return mu, straight


def planes(mu, straight):
    """Deflections and displacements in two planes through the unscattered direction, ``(2, N)`` each."""
    e1, e2 = scattering.transverse_frame(straight.direction[:, : len(mu)])
    moved = mu.position - straight.position[:, : len(mu)]
    along = straight.direction[:, : len(mu)]
    forward = (mu.direction * along).sum(0)
    angle = torch.stack([torch.atan2((mu.direction * e).sum(0), forward) for e in (e1, e2)])
    return angle, torch.stack([(moved * e).sum(0) for e in (e1, e2)])


def rms(x):
    return x.square().mean().sqrt().item()


def highland(n_rad, p=5.0):
    beta_p = scattering.beta_momentum(torch.tensor(p, **F64))
    return scattering.highland_width(torch.tensor(n_rad, **F64), beta_p).item()


def displaced(n_rad, length, p=5.0):
    """RMS displacement behind a homogeneous block when the variance of the angle grows as Highland's formula says."""
    s = torch.linspace(0, 1, 20_001, **F64)
    power = scattering.highland_variance(s * n_rad).diff()
    arm = length * (1 - 0.5 * (s[1:] + s[:-1]))
    beta_p = scattering.beta_momentum(torch.tensor(p, **F64))
    return (scattering.SCATTER_COEF_A / beta_p * (power * arm * arm).sum().sqrt()).item()


CUTS = {"1 x 10 cm": [0.1], "2 x 5 cm": [0.05] * 2, "5 x 2 cm": [0.02] * 5, "10 x 1 cm": [0.01] * 10}


@pytest.mark.parametrize("material", ["lead", "beryllium", "air"])
@pytest.mark.parametrize("cut", CUTS)
def test_ten_centimetres_scatter_alike_however_they_are_cut(material, cut):
    angle, shift = planes(*crossed(material, CUTS[cut]))
    n_rad = 0.1 / X0[material]
    assert rms(angle) == pytest.approx(highland(n_rad), rel=WITHIN)
    assert rms(shift) == pytest.approx(displaced(n_rad, 0.1), rel=WITHIN)


@pytest.mark.parametrize("step", [0.002, 0.01, 0.02, 0.05, 0.1])
def test_steps_of_two_to_a_hundred_millimetres_scatter_alike(step):
    angle, shift = planes(*crossed("lead", [0.1], step=step))
    assert rms(angle) == pytest.approx(highland(0.1 / X0["lead"]), rel=WITHIN)
    assert rms(shift) == pytest.approx(displaced(0.1 / X0["lead"], 0.1), rel=WITHIN)


def test_displacement_is_nearly_that_of_a_uniform_scatterer():
    """L angle / sqrt 3; the logarithm takes 2.7 % off. The original has 0.85 of it with its default steps."""
    angle, shift = planes(*crossed("lead", [0.1]))
    assert rms(shift) / (0.1 * rms(angle) / math.sqrt(3)) == pytest.approx(0.973, abs=0.006)


@pytest.mark.parametrize("cut", ["1 x 10 cm", "10 x 1 cm"])
def test_muons_are_displaced_to_the_side_they_are_deflected_to(cut):
    """+sqrt(3)/2, within 0.01 for what the logarithm does; the original has the other sign in every step."""
    angle, shift = planes(*crossed("lead", CUTS[cut]))
    for plane in range(2):
        pair = torch.corrcoef(torch.stack([angle[plane], shift[plane]]))[0, 1]
        assert pair.item() == pytest.approx(math.sqrt(3) / 2, abs=0.01)
    across = torch.corrcoef(torch.stack([angle[0], shift[1]]))[0, 1]
    assert abs(across.item()) < 5 / math.sqrt(N)


@pytest.mark.parametrize("cut", ["1 x 10 cm", "10 x 1 cm"])
def test_deflected_muons_seem_to_come_from_the_middle_of_the_block(cut):
    """Displacement over angle: 5 cm above the exit face. The original: 4 cm above, or 5 cm below with one step."""
    angle, shift = planes(*crossed("lead", CUTS[cut]))
    tangent = torch.tan(angle)
    vertex = ((tangent * shift).sum() / (tangent * tangent).sum()).item()
    assert vertex == pytest.approx(0.05, abs=0.002)


def test_gaps_between_layers_add_lever_arm_and_no_width():
    near, far = (planes(*crossed("lead", [0.05, 0.05], gap=gap)) for gap in (0.0, 0.5))
    assert rms(far[0]) == pytest.approx(rms(near[0]), rel=1e-9)
    assert rms(far[1]) > 3 * rms(near[1])


def test_order_of_materials_matters_for_displacement_only():
    def halves(first, second):
        def layout(*, z, lw, size):
            return filled(first if float(z) > 0.075 else second)(z=z, lw=lw, size=size)

        return planes(*crossed(layout, [0.05, 0.05]))

    lead_first, air_first = halves("lead", "air"), halves("air", "lead")
    expected = highland(0.05 / X0["lead"] + 0.05 / X0["air"])
    assert rms(lead_first[0]) == pytest.approx(expected, rel=WITHIN)
    assert rms(air_first[0]) == pytest.approx(expected, rel=WITHIN)
    assert rms(lead_first[1]) > 2 * rms(air_first[1])


@pytest.mark.parametrize("theta", [0.0, 0.3, 0.9])
def test_inclined_muons_scatter_by_their_longer_path(theta):
    """Momentum of 50 GeV keeps angles small, so that what is inclined is the path and not the scattered muon."""
    angle, shift = planes(*crossed("lead", [0.1], theta=theta, phi=2.0, momentum=50.0))
    length = 0.1 / math.cos(theta)
    assert rms(angle) == pytest.approx(highland(length / X0["lead"], 50.0), rel=WITHIN)
    assert rms(shift) == pytest.approx(displaced(length / X0["lead"], length, 50.0), rel=WITHIN)


@pytest.mark.parametrize("phi", [0.0, 1.0, 4.0])
def test_scattering_has_no_preferred_side(phi):
    """Second moments in the plane across the track: round, whatever the azimuth; each known to 0.6 %, five of them."""
    angle, shift = planes(*crossed("lead", [0.1], theta=0.7, phi=phi, momentum=50.0))
    for pair in (angle, shift):
        moments = pair @ pair.T / pair.shape[1]
        assert moments[0, 0].item() == pytest.approx(moments[1, 1].item(), rel=0.03)
        assert abs(moments[0, 1].item()) < 0.03 * moments[0, 0].item()
        assert abs(pair.mean(1)).max() < 5 * pair.std().item() / math.sqrt(pair.shape[1])


@pytest.mark.parametrize("momentum", [0.3, 1.0, 100.0])
def test_width_goes_with_one_over_beta_p(momentum):
    angle, _ = planes(*crossed("beryllium", [0.1], momentum=momentum))
    beta = momentum / math.hypot(momentum, 0.1056584)
    n_rad = 0.1 / X0["beryllium"]
    expected = 0.0136 / (beta * momentum) * math.sqrt(n_rad) * (1 + 0.038 * math.log(n_rad))
    assert rms(angle) == pytest.approx(expected, rel=WITHIN)


def test_extremely_fast_and_extremely_slow_muons():
    fast, straight = crossed("lead", [0.1], momentum=1e12, n=1000)
    torch.testing.assert_close(fast.direction, straight.direction, rtol=0, atol=1e-12)
    slow, _ = crossed("lead", [0.1] * 5, momentum=1e-3, theta=0.8, n=2000)
    assert 0 < len(slow) < 2000  # some turned up
    assert slow.xyz.isfinite().all()
    assert (slow.direction[2] < 0).all()


def test_angles_in_a_plane_are_limited():
    angle, _ = planes(*crossed("lead", [0.1], momentum=0.01, n=2000))
    tangent = math.tan(math.pi / 2.2)
    assert angle.abs().max().item() <= math.atan(tangent) + 1e-9
    assert (angle.abs() > 0.99 * math.pi / 2.2).any()


# ---- Geant4


QUANTILES = {0.5: "q50_rad", 0.68: "q68_rad", 0.95: "q95_rad", 0.99: "q99_rad", 0.999: "q999_rad"}


@pytest.fixture(scope="module")
def ratios(shared_dir):
    """Ours over Geant4's quantiles of |projected angle| behind 1 cm, per material: ``(bin, quantile)``."""
    found = defaultdict(list)
    with (shared_dir / "data" / "geant4_scatter_1cm.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        low, high = float(row["p_low_gev"]), float(row["p_high_gev"])
        if math.isnan(high):
            continue  # no upper edge, so no momentum to compare at
        n = 10_000
        given = pencil(n, at=(1.0, 1.0))
        given[:, 2] = low + (high - low) * (torch.arange(n, **F64) + 0.5) / n
        mu = muons(given, z=0.01, key=len(found) * 1000 + len(found[row["material"]]))
        x0 = float(row["x0_m"])
        PassiveLayer(torch.tensor([2.0, 2.0]), 0.01, 0.01, lambda x0=x0, **_: torch.full((200, 200), x0))(mu)
        angles = mu.theta_xy.abs().flatten()
        level = torch.tensor(list(QUANTILES), **F64)
        reference = torch.tensor([float(row[name]) for name in QUANTILES.values()], **F64)
        found[row["material"]].append(torch.quantile(angles, level) / reference)
    return {material: torch.stack(bins) for material, bins in found.items()}


@pytest.mark.parametrize(
    ("material", "median", "worst"),
    [
        # Highland's formula claims 11 % from 1e-3 to 100 radiation lengths. 1 cm of air is 3.3e-5 of one: below that.
        ("water", 1.01, 0.11),
        ("aluminium", 0.99, 0.07),
        ("lead", 0.945, 0.18),
        ("air", 0.90, 0.06),
    ],
)
def test_central_angles_are_those_of_geant4(ratios, material, median, worst):
    """68 % quantiles, 34 bins of momentum from 0.4 to 400 GeV, samples of 10,000 (a quantile is known to 0.7 %).

    Measured agreement: median over the bins 1.01 in water, 0.99 in aluminium, 0.945 in lead, 0.90 in air; single bins
    within 9, 6, 17 and 4 % of that. The first bin of air is left out: half of Geant4's angles there are a tenth of what
    its neighbour bins have, an artefact of the sample.
    """
    central = ratios[material][:, 1]
    if material == "air":
        central = central[1:]
    assert central.median().item() == pytest.approx(median, abs=0.02)
    assert (central - median).abs().max().item() < worst


@pytest.mark.parametrize("material", ["water", "aluminium", "lead"])
def test_tails_are_thinner_than_those_of_geant4(ratios, material):
    """A Gaussian has no Rutherford tail: the 99 % quantile is 5 to 30 % too small, the 99.9 % one up to 65 %."""
    medians = ratios[material].median(0).values.tolist()
    assert medians[1] > medians[2] > medians[3] > medians[4]
    assert 0.7 < medians[3] < 0.95
    assert 0.3 < medians[4] < 0.9
