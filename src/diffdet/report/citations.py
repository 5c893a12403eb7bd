"""The works whose physics and methods a run used."""

from __future__ import annotations

from typing import Any

_WORKS: dict[str, tuple[str, str]] = {
    "method": (
        "G. C. Strong et al., TomOpt: differential optimisation for task- and constraint-aware design of particle "
        "detectors in the "
        "context of muon tomography, Machine Learning: Science and Technology 5 (2024) 035002",
        "arXiv:2309.14027",
    ),
    "scattering": (
        "V. L. Highland, Some practical remarks on multiple scattering, Nuclear Instruments and Methods 129 (1975) "
        "497; "
        "G. R. Lynch and O. I. Dahl, Approximations to multiple Coulomb scattering, Nuclear Instruments and Methods "
        "B 58 (1991) 6",
        "doi:10.1016/0168-583X(91)95671-Y",
    ),
    "pdg": (
        "Particle Data Group, Review of Particle Physics: Passage of particles through matter; atomic and nuclear "
        "properties",
        "pdg.lbl.gov",
    ),
    "MuonGenerator2015": (
        "M. Guan et al., A parametrization of the cosmic-ray muon flux at sea-level (2015)",
        "arXiv:1509.06176",
    ),
    "MuonGenerator2016": (
        "P. Shukla and S. Sankrith, Energy and angular distributions of atmospheric muons at the Earth (2016)",
        "arXiv:1606.06907",
    ),
}


def works(config: dict[str, Any], *, optimised: bool) -> list[tuple[str, str, str]]:
    """Works to cite.

    Args:
        config: The resolved configuration.
        optimised: Whether a detector was optimised.

    Returns:
        ``(what for, work, where)`` for each.
    """
    flux = str((config.get("muons") or {}).get("class", "MuonGenerator2016"))
    found = [("Multiple scattering", *_WORKS["scattering"]), ("Radiation lengths", *_WORKS["pdg"])]
    if flux in _WORKS:
        found.append(("Muon flux", *_WORKS[flux]))
    if optimised:
        found.append(("Optimisation by gradients", *_WORKS["method"]))
    return found


def link(where: str) -> str:
    """Address of an arXiv number, a DOI or a site."""
    for prefix, address in (("arXiv:", "https://arxiv.org/abs/"), ("doi:", "https://doi.org/")):
        if where.startswith(prefix):
            return address + where.removeprefix(prefix)
    return f"https://{where}"
