"""Thin silicon with pixels: energy loss of charged particles, spread of the charge, read-out.

Lengths in m, energies in GeV, charges in electrons or in units of the converter (ADU). Everything random is handed in
as standard normal or uniform numbers, so that these are functions, and the caller's streams decide.

Energy loss has two parts, as usual for thin layers: many soft collisions, whose sum in a short step has a mean and a
variance, and rare hard ones with Rutherford's spectrum 1/E^2, which make the tail of Landau.
"""

from typing import Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffdet.core.units import keV, um

__all__ = [
    "DE_DX",
    "ENERGY_PER_PAIR",
    "HARDEST",
    "HARD_FROM",
    "SOFT_QUANTUM",
    "XI",
    "caught_in",
    "converted",
    "electron_range",
    "hard_collision",
    "hard_collisions",
    "soft_loss",
]

ENERGY_PER_PAIR: Final = 3.65e-3 * keV
"""Mean energy that makes one electron-hole pair in silicon, GeV."""

XI: Final = 17.8e-3 * keV / um
"""Landau's xi per length for a fast particle of unit charge in silicon, GeV/m: 0.1535 MeV cm^2/g x Z/A x density."""

HARD_FROM: Final = 0.1 * keV
"""Energy from which collisions are drawn one by one, GeV."""

HARDEST: Final = 120.0 * keV
"""Energy above which a knocked-out electron leaves a thin layer with most of its energy, GeV."""

DE_DX: Final = 0.309 * keV / um
"""Mean loss of a minimum-ionising particle in silicon in collisions below `HARDEST`, GeV/m: 0.388 keV/um in all, less
xi ln(10 MeV / `HARDEST`) in the few that are harder. With it the most probable loss in 75 um is 20 keV.
"""

SOFT_QUANTUM: Final = 0.25 * keV
"""Variance over mean of what soft collisions lose, GeV: sets the width of the peak to that measured in thin layers."""


def hard_collisions(length: Float[Tensor, "..."], density: float | Float[Tensor, "..."] = 1.0) -> Float[Tensor, "..."]:
    """Mean number of collisions above `HARD_FROM` on a length: xi l (1 / E_0 - 1 / E_max).

    Args:
        length: l, m.
        density: Energy loss in units of that of a minimum-ionising particle.

    Returns:
        The mean of a Poisson number.

    Reference: Rutherford's cross-section as in L. Landau, J. Phys. USSR 8 (1944) 201.
    """
    return length * density * (XI * (1 / HARD_FROM - 1 / HARDEST))


def hard_collision(uniform: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Energy lost in one hard collision, from the spectrum 1 / E^2 between `HARD_FROM` and `HARDEST`, GeV.

    Args:
        uniform: Uniform in [0, 1).
    """
    return HARD_FROM / (1 - uniform * (1 - HARD_FROM / HARDEST))


def soft_loss(
    length: Float[Tensor, "..."], normal: Float[Tensor, "..."], density: float | Float[Tensor, "..."] = 1.0
) -> Float[Tensor, "..."]:
    """Energy lost in soft collisions on a length, log-normal with the right mean and variance, GeV.

    The mean is what the hard collisions leave of `DE_DX`, the variance is the mean times `SOFT_QUANTUM`.

    Args:
        length: m; above 0.
        normal: Standard normal.
        density: Energy loss in units of that of a minimum-ionising particle.
    """
    hard = XI * torch.log(torch.as_tensor(HARDEST / HARD_FROM, dtype=length.dtype, device=length.device))
    mean = length * density * (DE_DX - hard)
    variance = torch.log1p(SOFT_QUANTUM / mean)
    return mean * torch.exp(torch.sqrt(variance) * normal - 0.5 * variance)


def electron_range(energy: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Range of slow electrons in silicon: 0.032 um (E / keV)^1.67, m; 22 um at 50 keV.

    Args:
        energy: Kinetic energy, GeV.

    Reference: K. Kanaya and S. Okayama, J. Phys. D 5 (1972) 43.
    """
    return 0.0319 * um * (energy / keV) ** 1.67


def caught_in(
    position: Float[Tensor, "..."], border: Float[Tensor, "..."], uniform: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """Cell in which charge ends that drifts down at a position: its own, or a neighbour where it lies near the border.

    Between two internal gates lies a strip in which charge walks at random until it is caught by one or the other. A
    symmetric walk from x in a strip of half width b around the border ends on the upper side with probability (x + b) /
    (2 b): the ruin of a gambler.

    Args:
        position: In units of cells.
        border: b, in units of cells, 0 to 1/2.
        uniform: Uniform in [0, 1).

    Returns:
        Number of the cell, as a float.

    Reference: W. Feller, An Introduction to Probability Theory, vol. 1, chapter XIV.
    """
    nearest = torch.round(position)
    distance = position - nearest
    upper = (distance + border) > 2 * border * uniform
    return torch.where(distance.abs() < border, torch.where(upper, nearest, nearest - 1), torch.floor(position))


def converted(
    charge: Float[Tensor, "..."],
    noise: Float[Tensor, "..."],
    pedestal: Float[Tensor, "..."],
    *,
    gain: float,
    threshold: int,
    top: int = 255,
) -> tuple[Int[Tensor, "..."], Bool[Tensor, "..."]]:
    """Read-out of a pixel: round(q / gain + noise + pedestal), cut at `top`, less round(pedestal), then suppressed.

    So a pixel saturates at `top` less its pedestal, not at `top`.

    Args:
        charge: q, electrons.
        noise: Of the electronics, ADU.
        pedestal: ADU; negative ones count as 0.
        gain: Electrons per ADU.
        threshold: Least charge that is read out, ADU.
        top: Largest code of the converter.

    Returns:
        Charges, ADU, and which of them are read out.
    """
    base = pedestal.clamp_min(0)
    code = torch.round(charge / gain + noise + base).clamp(0, top) - torch.round(base)
    charges = code.to(torch.int64)
    return charges, charges >= threshold
