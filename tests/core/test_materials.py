"""Claims about constants and materials: the published table in its order, and mixtures that obey their limits."""

from __future__ import annotations

import importlib.util
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffdet.core import constants, units
from diffdet.core.errors import InputError
from diffdet.core.materials import DENSITIES, MATERIALS, X0, Material, material, mix, mixture_x0_density

SHARES = st.lists(st.floats(0.01, 10), min_size=1, max_size=5)


def test_table_is_the_specified_one_in_its_order(shared_dir):
    text = (shared_dir / "spec" / "tomography-behaviour.md").read_text()
    table = text.split("| material | X0 [m] | density [kg/m3] |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| ([^|-][^|]*?) \| ([\d.]+) \| ([\d.]+|-) \|$", table, re.MULTILINE)
    assert len(rows) == 23
    assert [name for name, _, _ in rows] == [m.name for m in MATERIALS] == list(X0) == list(DENSITIES)
    for name, x0, density in rows:
        assert X0[name] == float(x0)
        if density != "-":
            assert DENSITIES[name] == float(density)


# Radiation length in g/cm^2, an independent column of the PDG tables (Atomic and Nuclear Properties, 2024).
PDG_G_PER_CM2 = {
    "beryllium": 65.19, "graphite": 42.70, "silicon": 21.82, "aluminium": 24.01, "iron": 13.84, "copper": 12.86,
    "lead": 6.37, "uranium": 6.00, "air": 36.62, "water": 36.08, "SiO2": 27.05,
    "Al2O3": 27.94, "toluene": 43.94, "benzene": 43.79,
}  # fmt: skip


@pytest.mark.parametrize("name", PDG_G_PER_CM2)
def test_radiation_length_times_density_is_the_pdg_mass_thickness(name):
    assert X0[name] * DENSITIES[name] / 10 == pytest.approx(PDG_G_PER_CM2[name], rel=2e-3)


@pytest.mark.parametrize("name", ["steel", "hot liquid steel"])
def test_steel_is_nearly_iron(name):
    assert X0[name] * DENSITIES[name] == pytest.approx(X0["iron"] * DENSITIES["iron"], rel=0.02)


def test_sources_are_given():
    assert all(m.source for m in MATERIALS)


def test_unknown_material_names_the_nearest():
    assert material("lead").x0 == 0.005612
    with pytest.raises(InputError, match=r"got 'Led'. Did you mean 'lead'\?"):
        material("Led")
    with pytest.raises(InputError, match=r"got \['lead'\]"):
        material(["lead"])  # type: ignore[arg-type]


@pytest.mark.parametrize(("x0", "density", "name"), [(0.0, 1.0, "x0"), (math.nan, 1.0, "x0"), (1.0, -1.0, "density")])
def test_impossible_material_is_refused(x0, density, name):
    with pytest.raises(InputError, match=f"`{name}` must be"):
        Material("thing", x0, density, "nowhere")


def test_mixture_of_one_is_itself():
    x0, density = mixture_x0_density([0.3], [1000.0], weight_fractions=[7.0])
    assert x0 == pytest.approx(0.3)
    assert density == pytest.approx(1000.0)


@given(SHARES)
def test_mixture_with_oneself_is_oneself_and_fractions_need_no_norm(shares):
    x0, density = mixture_x0_density([0.3] * len(shares), [900.0] * len(shares), volume_fractions=shares)
    assert x0 == pytest.approx(0.3)
    assert density == pytest.approx(900.0)


@given(st.lists(st.tuples(st.floats(0.001, 1), st.floats(1, 2e4), st.floats(0.01, 1)), min_size=1, max_size=5))
def test_mixture_by_volume_adds_what_a_layered_stack_adds(parts):
    # Slow twin: stack slabs of thickness v_i; their radiation lengths in series and their masses add.
    x0s, densities, volumes = zip(*parts, strict=True)
    total = sum(volumes)
    x0, density = mixture_x0_density(x0s, densities, volume_fractions=volumes)
    assert density == pytest.approx(sum(r * v for r, v in zip(densities, volumes, strict=True)) / total)
    assert total / x0 == pytest.approx(sum(v / x for x, v in zip(x0s, volumes, strict=True)))


def test_weights_and_volumes_agree():
    parts = [material("iron"), material("SiO2")]
    by_volume = mix("slaggy", parts, volume_fractions=[1, 3])
    by_weight = mix("slaggy", parts, weight_fractions=[7874.0, 3 * 2200.0])
    assert by_volume.x0 == pytest.approx(by_weight.x0)
    assert by_volume.density == pytest.approx(by_weight.density)
    assert by_volume.source == "mixture by volume of iron, SiO2"


def test_reference_mixture():
    # Water is 11.19 % hydrogen and 88.81 % oxygen by weight (PDG: 63.04 and 34.24 g/cm^2) and has 36.08 g/cm^2.
    x0, density = mixture_x0_density([0.6304, 0.3424], [1000.0, 1000.0], weight_fractions=[0.1119, 0.8881])
    assert x0 * density / 10 == pytest.approx(36.08, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "got neither"),
        ({"weight_fractions": [1, 1], "volume_fractions": [1, 1]}, "got both"),
        ({"weight_fractions": [1]}, "equal lengths of at least 1; got 2, 2, 1"),
        ({"weight_fractions": [1, -1]}, r"`weight_fractions\[1\]` must lie in"),
        ({"volume_fractions": [0, 0]}, "`sum of volume_fractions` must be greater than 0"),
    ],
)
def test_impossible_mixtures_are_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        mixture_x0_density([0.1, 0.2], [1.0, 2.0], **arguments)


def test_mixing_without_density_is_refused():
    with pytest.raises(InputError, match="got 'aether' without one"):
        mix("thing", [Material("aether", 1.0, None, "nowhere")], weight_fractions=[1])


@pytest.mark.skipif(importlib.util.find_spec("particle") is None, reason="needs the package `particle`")
def test_muon_mass_is_that_of_the_particle_tables():
    from particle import Particle

    mass = Particle.from_pdgid(13).mass
    assert mass is not None
    assert constants.MUON_MASS == pytest.approx(mass * units.MeV, rel=1e-8)


def test_muon_mass_squared_is_the_specified_one():
    assert constants.MUON_MASS**2 == pytest.approx(0.011163692313299002, rel=1e-8)
    assert (constants.SCATTER_COEF_A, constants.SCATTER_COEF_B) == (0.0136, 0.038)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (100 * units.cm, units.m),
        (1000 * units.mm, units.m),
        (1e6 * units.um, units.m),
        (1000 * units.MeV, units.GeV),
        (180 * units.deg, math.pi * units.rad),
        (1000 * units.mrad, units.rad),
        (60 * units.minute, units.hour),
        (1e9 * units.ns, units.s),
        (units.g_per_cm3, 1000 * units.kg_per_m3),
    ],
)
def test_units(one, other):
    assert one == pytest.approx(other, rel=1e-12)
