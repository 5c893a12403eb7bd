"""Materials: radiation length and density, each with its source, and mixtures of them.

The order of `MATERIALS` is part of the interface: "all materials" means this order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from diffdet.core.checks import check_finite, check_in_range, check_positive, did_you_mean
from diffdet.core.errors import InputError

_PDG: Final = "Particle Data Group, Atomic and Nuclear Properties of Materials"
_MIX: Final = "mixture of the published TomOpt material table"


@dataclass(frozen=True, slots=True)
class Material:
    """A material as multiple scattering sees it.

    Attributes:
        name: Its name.
        x0: Radiation length, m.
        density: Density, kg/m^3; None where it is not known.
        source: Where the numbers come from.

    Raises:
        InputError: If the radiation length or the density is not positive.
    """

    name: str
    x0: float
    density: float | None
    source: str

    def __post_init__(self) -> None:
        check_positive("x0", self.x0)
        if self.density is not None:
            check_positive("density", self.density)


MATERIALS: Final[tuple[Material, ...]] = (
    Material("beryllium", 0.3528, 1848.0, _PDG),
    Material("graphite", 0.1932, 2210.0, _PDG),
    Material("silicon", 0.0937, 2329.0, _PDG),
    Material("aluminium", 0.08897, 2699.0, _PDG),
    Material("iron", 0.01757, 7874.0, _PDG),
    Material("copper", 0.01436, 8960.0, _PDG),
    Material("lead", 0.005612, 11350.0, _PDG),
    Material("uranium", 0.003141, 19100.0, f"{_PDG}: 6.00 g/cm^2, at the density of pure metal"),
    Material("air", 303.9, 1.205, f"{_PDG}: dry, 1 atm, 20 degrees"),
    Material("water", 0.3608, 1000.0, _PDG),
    Material("SiO2", 0.1229, 2200.0, _PDG),
    Material("Al2O3", 0.07038, 3970.0, _PDG),
    Material("Fe2O3", 0.03242, 5200.0, _PDG),
    Material("MgO", 0.07828, 3580.0, _PDG),
    Material("CaO", 0.05760, 3300.0, _PDG),
    Material("toluene", 0.5068, 866.9, _PDG),
    Material("benzene", 0.4984, 878.7, _PDG),
    Material("K2O", 0.08147, 2320.0, _PDG),
    Material("Na2O", 0.1285, 2270.0, _PDG),
    Material("soft tissue", 0.3763, 1000.0, f"{_PDG}: ICRU four-component"),
    Material("steel", 0.01782, 7818.0, _MIX),
    Material("hot liquid steel", 0.01991, 7000.0, _MIX),
    Material("slag", 0.08211, 2700.0, _MIX),
)
"""Every known material, in the order that "all materials" means."""

_BY_NAME: Final = MappingProxyType({material.name: material for material in MATERIALS})

X0: Final[dict[str, float]] = {material.name: material.x0 for material in MATERIALS}
"""Radiation length of every material by its name, m."""

DENSITIES: Final[dict[str, float]] = {m.name: m.density for m in MATERIALS if m.density is not None}
"""Density of every material that has one by its name, kg/m^3."""


def material(name: str) -> Material:
    """Look up a material.

    Args:
        name: One of the names in `MATERIALS`.

    Raises:
        InputError: If there is no such material; the message names the nearest and lists all.
    """
    try:
        return _BY_NAME[name]
    except (KeyError, TypeError):
        hint = did_you_mean(str(name), _BY_NAME)
        raise InputError(f"`name` must be a known material: {', '.join(_BY_NAME)}; got {name!r}{hint}") from None


def mixture_x0_density(
    x0s: Sequence[float],
    densities: Sequence[float],
    *,
    weight_fractions: Sequence[float] | None = None,
    volume_fractions: Sequence[float] | None = None,
) -> tuple[float, float]:
    """Radiation length and density of a mixture of materials that are not chemically bonded.

    With weight fractions w_i of sum 1, 1 / (X0 rho) = sum_i w_i / (X0_i rho_i) and 1 / rho = sum_i w_i / rho_i. Volume
    fractions v_i count as weights rho_i v_i.

    Args:
        x0s: Radiation lengths, m.
        densities: Densities, kg/m^3.
        weight_fractions: Parts by weight; need not add up to 1.
        volume_fractions: Parts by volume; need not add up to 1. Exactly one of the two must be given.

    Returns:
        Radiation length of the mixture, m, and its density, kg/m^3.

    Raises:
        InputError: If not exactly one kind of fraction is given, the lengths differ, or a value is out of range.

    Reference: PDG Review 2024, section 34.4.2, eq. 34.27 (Bragg additivity of radiation lengths).
    """
    if (weight_fractions is None) == (volume_fractions is None):
        raise InputError(
            "exactly one of `weight_fractions` and `volume_fractions` must be given; got "
            + ("neither" if weight_fractions is None else "both")
        )
    fractions_name = "volume_fractions" if weight_fractions is None else "weight_fractions"
    fractions = volume_fractions if weight_fractions is None else weight_fractions
    assert fractions is not None
    if not len(x0s) == len(densities) == len(fractions) or len(x0s) == 0:
        raise InputError(
            f"`x0s`, `densities` and `{fractions_name}` must have equal lengths of at least 1; "
            f"got {len(x0s)}, {len(densities)}, {len(fractions)}"
        )
    for i, (x0, density, fraction) in enumerate(zip(x0s, densities, fractions, strict=True)):
        check_positive(f"x0s[{i}]", float(x0))
        check_positive(f"densities[{i}]", float(density))
        check_in_range(f"{fractions_name}[{i}]", float(fraction), 0.0)
    if weight_fractions is None:
        weights = [float(density) * float(fraction) for density, fraction in zip(densities, fractions, strict=True)]
    else:
        weights = [float(fraction) for fraction in fractions]
    total = math.fsum(weights)
    check_positive(f"sum of {fractions_name}", total)
    check_finite(f"sum of {fractions_name}", total)
    shares = [weight / total for weight in weights]
    density = 1 / math.fsum(share / float(rho) for share, rho in zip(shares, densities, strict=True))
    mass_x0 = 1 / math.fsum(
        share / (float(x0) * float(rho)) for share, x0, rho in zip(shares, x0s, densities, strict=True)
    )
    return mass_x0 / density, density


def mix(
    name: str,
    parts: Sequence[Material],
    *,
    weight_fractions: Sequence[float] | None = None,
    volume_fractions: Sequence[float] | None = None,
) -> Material:
    """Mix materials that are not chemically bonded.

    Args:
        name: Name of the mixture.
        parts: What it consists of; every part must have a density.
        weight_fractions: Parts by weight; need not add up to 1.
        volume_fractions: Parts by volume; need not add up to 1. Exactly one of the two must be given.

    Raises:
        InputError: If a part has no density, or as `mixture_x0_density` says.
    """
    densities: list[float] = []
    for part in parts:
        if part.density is None:
            raise InputError(f"`parts` must have densities to be mixed; got {part.name!r} without one")
        densities.append(part.density)
    x0, density = mixture_x0_density(
        [part.x0 for part in parts], densities, weight_fractions=weight_fractions, volume_fractions=volume_fractions
    )
    kind = "weight" if weight_fractions is not None else "volume"
    return Material(name, x0, density, f"mixture by {kind} of {', '.join(part.name for part in parts)}")
