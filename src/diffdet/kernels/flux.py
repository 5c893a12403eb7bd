"""Cosmic muons at sea level: two published spectra, and sampling from any tabulated one.

Energies are total energies in GeV, theta is the zenith angle in rad. Both spectra include cos t, because a horizontal
surface is seen under that angle, and sin t, the solid angle of a ring in theta: so they are densities in (E, theta) of
the muons that cross a horizontal surface, up to the 2 pi of the azimuth.

Sampling inverts the cumulative distribution of a table of cells: theta from its marginal, then energy from the row of
that theta. Cells are integrated, not evaluated, so their widths count and coarse tables are accurate; inside a cell
theta and log E are uniform, so samples are continuous. With 200 x 200 cells the cumulative distributions are right to
1e-4.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from diffdet.core.errors import InputError, ShapeError

__all__ = ["FluxTable", "grid", "guan_2015", "sample_energy", "sample_theta", "shukla_2016", "tabulate"]

GUAN_P1, GUAN_P2, GUAN_P3, GUAN_P4, GUAN_P5 = 0.102573, -0.068287, 0.958633, 0.0407253, 0.817285
"""Parameters of the curvature of the Earth in Guan et al. (2015)."""


def guan_2015(
    energy: Float[Tensor, "..."],
    theta: Float[Tensor, "..."],
    *,
    p1: float = GUAN_P1,
    p2: float = GUAN_P2,
    p3: float = GUAN_P3,
    p4: float = GUAN_P4,
    p5: float = GUAN_P5,
) -> Float[Tensor, "..."]:
    """Gaisser's spectrum, modified at low energy and large angle, times cos t sin t.

    I = 0.14 [E (1 + 3.64 / (E c^1.29))]^-2.7 [1 / (1 + 1.1 E c / 115) + 0.054 / (1 + 1.1 E c / 850)] with the effective
    cosine c^2 = (cos^2 t + p1^2 + p2 cos^p3 t + p4 cos^p5 t) / (1 + p1^2 + p2 + p4).

    Differentiable in: energy (> 0), theta (in [0, pi/2)). Zero from pi/2 on.

    Args:
        energy: Total energy, GeV.
        theta: Zenith angle, rad; broadcast against the energy.
        p1: Parameter of the effective cosine.
        p2: Likewise.
        p3: Likewise.
        p4: Likewise.
        p5: Likewise.

    Returns:
        I cos t sin t, cm^-2 s^-1 sr^-1 GeV^-1.

    Reference: M. Guan et al., "A parametrization of the cosmic-ray muon flux at sea-level", arXiv:1509.06176 (2015).
    """
    falls, cosine = _falling_cosine(theta)
    numerator = cosine.square() + p1**2 + p2 * cosine**p3 + p4 * cosine**p5
    effective = torch.sqrt(numerator / (1 + p1**2 + p2 + p4))
    # E (1 + 3.64 / (E c^1.29)) = E + 3.64 / c^1.29
    spectrum = 0.14 * (energy + 3.64 * effective**-1.29) ** -2.7
    pions = 1 / (1 + 1.1 * energy * effective / 115)
    kaons = 0.054 / (1 + 1.1 * energy * effective / 850)
    return torch.where(falls, spectrum * (pions + kaons) * cosine * torch.sin(theta), torch.zeros_like(spectrum))


def shukla_2016(
    energy: Float[Tensor, "..."],
    theta: Float[Tensor, "..."],
    *,
    i_0: float = 88.0,
    n: float = 3,
    norm: float = 38.1938,
    e_0: float = 3.87,
    epinv: float = 1 / 854,
    rod: float = 174.0,
) -> Float[Tensor, "..."]:
    """Power law with an offset in energy, and a path through a curved atmosphere, times cos t sin t.

    I = I_0 N (E_0 + E)^-n (1 + E/epsilon)^-1 D^-(n - 1) with D = sqrt((R/d)^2 cos^2 t + 2 R/d + 1) - (R/d) cos t.

    Differentiable in: energy (> 0), theta (in [0, pi/2)). Zero from pi/2 on.

    Args:
        energy: Total energy, GeV.
        theta: Zenith angle, rad; broadcast against the energy.
        i_0: Vertical flux above the cut-off energy E_c, m^-2 s^-1 sr^-1.
        n: Exponent.
        norm: N = (n - 1) (E_0 + E_c)^(n - 1), GeV^(n - 1); the default has E_c = 0.5 GeV.
        e_0: Offset that accounts for energy loss in the air, GeV.
        epinv: 1 / epsilon, for the decay of mesons, 1/GeV.
        rod: R/d, radius of the Earth over vertical path of the muon.

    Returns:
        I cos t sin t, m^-2 s^-1 sr^-1 GeV^-1.

    Reference: P. Shukla and S. Sankrith, "Energy and angular distributions of atmospheric muons at the Earth", Int. J.
        Mod. Phys. A 33 (2018) 1850175, arXiv:1606.06907.
    """
    falls, cosine = _falling_cosine(theta)
    # sqrt(a^2 + b) - a loses digits for the large a = (R/d) cos t of steep muons; b / (sqrt(a^2 + b) + a) does not.
    steep = rod * cosine
    path = (2 * rod + 1) / (torch.sqrt(steep.square() + 2 * rod + 1) + steep)
    spectrum = i_0 * norm * (e_0 + energy) ** -n / (1 + energy * epinv) * path ** -(n - 1)
    return torch.where(falls, spectrum * cosine * torch.sin(theta), torch.zeros_like(spectrum))


def _falling_cosine(theta: Tensor) -> tuple[Tensor, Tensor]:
    """Whether muons fall, and the cosine of theta, replaced by 1 where they do not."""
    cosine = torch.cos(theta)
    falls = (cosine > 0) & (theta.abs() < math.pi / 2)
    return falls, torch.where(falls, cosine, torch.ones_like(cosine))


class FluxTable(NamedTuple):
    """Cumulative distributions of a flux over cells in theta and log E. All in float64.

    Attributes:
        theta_edges: ``(theta + 1,)`` edges of the cells in theta, rad.
        theta_cdf: ``(theta + 1,)`` probability below each edge, from 0 to 1.
        log_energy_edges: ``(energy + 1,)`` edges of the cells in ln(E / GeV).
        energy_cdf: ``(theta, energy + 1)`` probability below each edge, one row per cell in theta.
        integral: Integral of the flux over the table, flux unit times GeV rad.
    """

    theta_edges: Tensor
    theta_cdf: Tensor
    log_energy_edges: Tensor
    energy_cdf: Tensor
    integral: float


def grid(low: float | int, high: float | int, n: int, *, geometric: bool = False) -> Float[Tensor, " node"]:
    """Edges and middles of ``n`` cells: the nodes at which `tabulate` wants the flux.

    Args:
        low: Lower end.
        high: Upper end, above ``low``.
        n: Number of cells, at least 1.
        geometric: Equal ratios instead of equal differences; then ``low`` must be positive.

    Returns:
        ``2 n + 1`` increasing numbers, float64: the even ones are edges, the odd ones middles.

    Raises:
        InputError: If the range is empty or has no logarithm, or ``n`` is below 1.
    """
    if n < 1:
        raise InputError(f"`n` must be at least 1; got {n}")
    if not low < high or not math.isfinite(high - low) or (geometric and not low > 0):
        wanted = "0 < low < high" if geometric else "low < high"
        raise InputError(f"the range must satisfy {wanted} and be finite; got low = {low!r}, high = {high!r}")
    ends = (math.log(low), math.log(high)) if geometric else (low, high)
    nodes = torch.linspace(*ends, 2 * n + 1, dtype=torch.float64)
    return nodes.exp() if geometric else nodes


def tabulate(
    flux: Tensor,
    theta: Float[Tensor, " theta_node"],
    energy: Float[Tensor, " energy_node"],
) -> FluxTable:
    """Integrate a flux over cells by Simpson's rule, in theta and in ln E, and accumulate.

    Args:
        flux: ``(theta_node, energy_node)`` density in (E, theta) at every pair of nodes, >= 0, any unit.
        theta: Nodes from `grid`, rad.
        energy: Nodes from `grid` with ``geometric=True``, GeV.

    Returns:
        Table to sample from.

    Raises:
        ShapeError: If the flux does not have one value per pair of nodes.
        InputError: If a value is negative or not finite, or none is positive.
    """
    if flux.shape != (len(theta), len(energy)):
        raise ShapeError(
            f"`flux` must have shape {(len(theta), len(energy))}, theta by energy; got {tuple(flux.shape)}"
        )
    flux = flux.double()
    if not bool((flux.isfinite() & (flux >= 0)).all()):
        raise InputError(
            f"`flux` must be finite and not negative; got values from {flux.min():.6g} to {flux.max():.6g}"
        )
    # dE = E d(ln E)
    cells = _simpson(_simpson(flux * energy.double(), energy.double().log()).T, theta.double()).T
    rows = cells.sum(1)
    integral = float(rows.sum())
    if not integral > 0:
        raise InputError("`flux` must be positive somewhere in the range; got zero everywhere")
    # A row without flux is never sampled; any distribution will do for it.
    cells = torch.where(rows[:, None] > 0, cells, torch.ones_like(cells))
    edges, log_energy_edges = theta[::2].double().contiguous(), energy[::2].double().log()
    return FluxTable(edges, _cumulate(rows), log_energy_edges, _cumulate(cells), integral)


def _simpson(values: Tensor, nodes: Tensor) -> Tensor:
    """Integral over each cell of values ``(..., 2 n + 1)`` at nodes ``(2 n + 1,)``."""
    width = nodes[2::2] - nodes[:-2:2]
    return (values[..., :-2:2] + 4 * values[..., 1::2] + values[..., 2::2]) * width / 6


def _cumulate(mass: Tensor) -> Tensor:
    """Probability below each edge, with 0 in front and exactly 1 at the end, for masses along the last axis."""
    sums = torch.nn.functional.pad(mass.cumsum(-1), (1, 0))
    return sums / sums[..., -1:]


def _position(cdf: Tensor, cell: Tensor, uniform: Tensor) -> Tensor:
    """Position in [0, 1] within cells of a flattened cumulative distribution; the middle of a cell without mass."""
    low, high = cdf[cell], cdf[cell + 1]
    mass = high - low
    empty = mass <= 0
    return torch.where(empty, 0.5, (uniform - low) / torch.where(empty, torch.ones_like(mass), mass)).clamp(0, 1)


def sample_theta(table: FluxTable, uniform: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Zenith angles from uniform numbers.

    Args:
        table: From `tabulate`, on the device of ``uniform``.
        uniform: Numbers in [0, 1).

    Returns:
        theta, rad, in the dtype of ``uniform``; increases with ``uniform``.
    """
    u = uniform.double().contiguous()
    last = len(table.theta_edges) - 2
    cell = (torch.searchsorted(table.theta_cdf, u, right=True) - 1).clamp(0, last)
    step = table.theta_edges[1:] - table.theta_edges[:-1]
    return (table.theta_edges[cell] + step[cell] * _position(table.theta_cdf, cell, u)).to(uniform.dtype)


def sample_energy(
    table: FluxTable, theta: Float[Tensor, "*shape"], uniform: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Total energies of muons with given zenith angles, from uniform numbers.

    Args:
        table: From `tabulate`, on the device of ``uniform``.
        theta: Zenith angles, rad; the energy follows the row of the cell that holds each.
        uniform: Numbers in [0, 1), independent of those that gave ``theta``.

    Returns:
        Total energy, GeV, in the dtype of ``uniform``; increases with ``uniform``.
    """
    u = uniform.double().contiguous()
    n_rows, width = table.energy_cdf.shape
    row = (torch.searchsorted(table.theta_edges, theta.double().contiguous(), right=True) - 1).clamp(0, n_rows - 1)
    # Rows shifted by their number make one increasing sequence, so that a single search serves all of them.
    shift = torch.arange(n_rows, dtype=torch.float64, device=u.device)
    stacked = (table.energy_cdf + shift[:, None]).reshape(-1)
    start = row * width
    flat = torch.searchsorted(stacked, row + u, right=True) - 1
    flat = torch.minimum(torch.maximum(flat, start), start + width - 2)
    cell = flat - start
    step = table.log_energy_edges[1:] - table.log_energy_edges[:-1]
    position = _position(table.energy_cdf.reshape(-1), flat, u)
    return (table.log_energy_edges[cell] + step[cell] * position).exp().to(uniform.dtype)
