"""Where muons come from: positions uniform in a rectangle, directions and momenta from a spectrum of cosmic muons."""

from __future__ import annotations

import math
from abc import ABCMeta, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from diffdet.core.checks import check_finite, check_in_range, check_positive
from diffdet.core.constants import MUON_MASS
from diffdet.core.errors import InputError, NotSupportedError
from diffdet.core.random import MuonStream, Stream
from diffdet.kernels import flux as spectra

if TYPE_CHECKING:
    from diffdet.tomography.volume.volume import Volume

__all__ = ["AbsMuonGenerator", "MuonGenerator2015", "MuonGenerator2016"]

Numbers = TypeVar("Numbers", float, np.ndarray, Tensor)

# 70 degrees; fixed as a number because it is the documented default.
_THETA_MAX = 1.2217304763960306
# 15 degrees
_MIN_ANGLE = 0.2617993877991494


class AbsMuonGenerator(metaclass=ABCMeta):
    """Source of muons: call it, or its `generate_set`, with a number of muons.

    x and y are uniform over their ranges and phi over [0, 2 pi), independent of each other and of all else. theta
    follows the flux through a horizontal surface; so does the momentum, unless it is fixed.

    To add a source, inherit and write `flux`, the density of muons in energy and theta; say in ``flux_unit`` what it is
    counted in, if you know. The flux is tabulated at the first draw, on ``n_theta_bins`` x ``n_energy_bins`` cells that
    are integrated (so their widths count) and sampled continuously.

    The kinematics of a muon depend on its identity only, stream and number, never on how many are drawn with it.

    Args:
        x_range: Lowest and highest x at the start, m, in the frame of the volume.
        y_range: Lowest and highest y at the start, m.
        fixed_mom: Momentum of all muons, GeV; None samples it from the flux.
        energy_range: Lowest and highest total energy, GeV. With a fixed momentum, theta follows the flux integrated
            over this range.
        theta_range: Lowest and highest theta, rad, within [0, pi/2].

    Raises:
        InputError: If a range is empty or not finite, or a value lies outside what is possible.
    """

    n_energy_bins: ClassVar[int] = 200
    n_theta_bins: ClassVar[int] = 200

    flux_unit: ClassVar[float | None] = None
    """What one unit of `flux` is in m^-2 s^-1 sr^-1 GeV^-1; None where that is not known. Needed by `rate` only."""

    def __init__(
        self,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        fixed_mom: float | None = 5.0,
        energy_range: tuple[float, float] = (0.5, 500),
        theta_range: tuple[float, float] = (0, _THETA_MAX),
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.x_range = _range("x_range", x_range)
        self.y_range = _range("y_range", y_range)
        self.energy_range = _range("energy_range", energy_range)
        self.theta_range = _range("theta_range", theta_range)
        if fixed_mom is not None:
            check_positive("fixed_mom", fixed_mom)
        self.fixed_mom = fixed_mom
        check_in_range("energy_range", self.energy_range[0], MUON_MASS, low_open=True, unit="GeV (the muon's mass)")
        for end in self.theta_range:
            check_in_range("theta_range", end, 0.0, math.pi / 2, unit="rad")
        self.device = device
        self.dtype = dtype
        self._table: spectra.FluxTable | None = None

    @abstractmethod
    def flux(self, energy: Numbers, theta: Numbers) -> Numbers:
        """Density of the muons that cross a horizontal surface, in energy and theta.

        It includes cos(theta), under which the surface is seen, and sin(theta), the solid angle of a ring.

        Args:
            energy: Total energies, GeV: a number, or an array or tensor of any shape.
            theta: Angles to the vertical, rad, of the same kind and shape.

        Returns:
            Flux for every pair, >= 0, of the same kind and shape. Any unit; see ``flux_unit``.
        """

    @classmethod
    def from_volume(
        cls,
        volume: Volume,
        min_angle: float = _MIN_ANGLE,
        fixed_mom: float | None = 5.0,
        energy_range: tuple[float, float] = (0.5, 500),
        theta_range: tuple[float, float] = (0, _THETA_MAX),
    ) -> Self:
        """Source above a volume, wider than its passive block by a margin on every side.

        The margin is d = tan(min_angle) (h - z_low + size): a muon that starts at its outer edge reaches the lowest
        passive layer only if its theta is at least about ``min_angle``. A wider margin is more realistic and wastes
        more muons.

        Args:
            volume: Volume through which the muons will pass.
            min_angle: Smallest theta with which a muon from the outermost start reaches the block, rad, in [0, pi/2).
            fixed_mom: Momentum of all muons, GeV; None samples it from the flux.
            energy_range: Lowest and highest total energy, GeV.
            theta_range: Lowest and highest theta, rad.

        Returns:
            Generator whose muons have the device and dtype of the volume.
        """
        check_in_range("min_angle", min_angle, 0.0, math.pi / 2, high_open=True, unit="rad")
        length, width = (float(extent) for extent in volume.lw)
        z_low = float(volume.get_passive_z_range()[0])
        margin = math.tan(min_angle) * (float(volume.h) - z_low + float(volume.passive_size))
        generator = cls(
            x_range=(-margin, length + margin),
            y_range=(-margin, width + margin),
            fixed_mom=fixed_mom,
            energy_range=energy_range,
            theta_range=theta_range,
        )
        # Set afterwards, so that subclasses with the documented constructor alone can be built too.
        generator.device, generator.dtype = volume.lw.device, volume.lw.dtype
        return generator

    def __repr__(self) -> str:
        def show(limits: tuple[float, float], unit: str) -> str:
            return f"from {limits[0]:.4g} to {limits[1]:.4g} {unit}"

        energy = (
            f"total energy {show(self.energy_range, 'GeV')}"
            if self.fixed_mom is None
            else f"momentum {self.fixed_mom:.4g} GeV"
        )
        return (
            f"{type(self).__name__}: x {show(self.x_range, 'm')}, y {show(self.y_range, 'm')}, "
            f"theta {show(self.theta_range, 'rad')}, {energy}"
        )

    def __call__(self, n_muons: int, *, stream: MuonStream | None = None, start: int = 0) -> Tensor:
        """Same as `generate_set`."""
        return self.generate_set(n_muons, stream=stream, start=start)

    def generate_set(self, n_muons: int, *, stream: MuonStream | None = None, start: int = 0) -> Tensor:
        """Draw muons.

        Args:
            n_muons: How many, >= 0.
            stream: Where their random numbers come from; None makes a stream from torch's default generator.
            start: Number of the first muon in the stream: sets that follow on one another are parts of one sequence.

        Returns:
            ``(n_muons, 5)`` x [m], y [m], momentum [GeV], theta [rad], phi [rad].

        Raises:
            InputError: If a number is negative, or the flux is not usable.
        """
        if n_muons < 0 or start < 0:
            raise InputError(f"`n_muons` and `start` must not be negative; got {n_muons} and {start}")
        stream = Stream.from_torch().muons() if stream is None else stream
        dtype = torch.get_default_dtype() if self.dtype is None else self.dtype
        x, y, phi, theta, energy = stream.uniform("kinematics", (5,), start, start + n_muons, dtype=dtype)
        table = self._flux_table()
        theta = spectra.sample_theta(table, theta)
        if self.fixed_mom is None:
            energy = spectra.sample_energy(table, theta, energy)
            momentum = torch.sqrt((energy - MUON_MASS) * (energy + MUON_MASS))
        else:
            momentum = torch.full_like(theta, self.fixed_mom)
        columns = (_stretch(x, self.x_range), _stretch(y, self.y_range), momentum, theta, 2 * math.pi * phi)
        return torch.stack(columns, dim=1).to("cpu" if self.device is None else self.device)

    def rate(self, area: float = 1.0) -> float:
        """Muons per second that cross a horizontal surface, within the ranges of energy and theta.

        The spectrum counts even where the momentum is fixed. Real rates vary by tens of percent with altitude, weather
        and the Sun.

        Args:
            area: Area of the surface, m^2.

        Returns:
            Rate, Hz.

        Raises:
            NotSupportedError: If the unit of the flux is not known.
        """
        check_positive("area", area)
        if self.flux_unit is None:
            raise NotSupportedError(
                f"{type(self).__name__} does not say what its flux is counted in; set its attribute `flux_unit` to "
                "what one unit is in m^-2 s^-1 sr^-1 GeV^-1"
            )
        return 2 * math.pi * self._flux_table().integral * self.flux_unit * area

    def _flux_table(self) -> spectra.FluxTable:
        """The flux in the ranges of this generator, ready to sample from; made at first use."""
        if self._table is None:
            theta = spectra.grid(*self.theta_range, self.n_theta_bins)
            energy = spectra.grid(*self.energy_range, self.n_energy_bins, geometric=True)
            self._table = spectra.tabulate(self._evaluate_flux(theta, energy), theta, energy)
        return self._table

    def _evaluate_flux(self, theta: Tensor, energy: Tensor) -> Tensor:
        """`flux` at all pairs of nodes, ``(theta, energy)``, whether it was written for arrays or for tensors."""
        thetas, energies = torch.meshgrid(theta, energy, indexing="ij")
        try:
            values: Any = self.flux(energies.numpy(), thetas.numpy())
        except TypeError:  # functions of torch refuse arrays
            values = self.flux(energies, thetas)
        values = torch.as_tensor(values, dtype=torch.float64)
        if values.shape != thetas.shape:
            raise InputError(
                f"`{type(self).__name__}.flux` must return one value per pair, shape {tuple(thetas.shape)}; "
                f"got {tuple(values.shape)}"
            )
        return values


def _range(name: str, value: tuple[float, float]) -> tuple[float, float]:
    """The two ends as floats, after refusing what is no range."""
    try:
        low, high = (float(end) for end in value)
    except (TypeError, ValueError):
        raise InputError(f"`{name}` must be two numbers, lowest and highest; got {value!r}") from None
    check_finite(name, low)
    check_finite(name, high)
    if not low < high:
        raise InputError(f"`{name}` must be (lowest, highest) with lowest < highest; got {value!r}")
    return low, high


def _stretch(uniform: Tensor, limits: tuple[float, float]) -> Tensor:
    """Numbers uniform in [0, 1) to numbers uniform between limits."""
    return limits[0] + (limits[1] - limits[0]) * uniform


def _like_given(kernel: Any, energy: Any, theta: Any, **constants: float) -> Any:
    """A kernel's value for numbers, arrays or tensors, as the kind that was given."""
    if isinstance(energy, Tensor) or isinstance(theta, Tensor):
        like = energy if isinstance(energy, Tensor) else theta
        return kernel(
            torch.as_tensor(energy, dtype=like.dtype, device=like.device),
            torch.as_tensor(theta, dtype=like.dtype, device=like.device),
            **constants,
        )
    energies, thetas = (torch.from_numpy(np.array(value, dtype=np.float64)) for value in (energy, theta))
    values = kernel(energies, thetas, **constants).numpy()
    return float(values) if values.ndim == 0 else values


class MuonGenerator2015(AbsMuonGenerator):
    """Muons after Guan et al., arXiv:1509.06176: Gaisser's formula, modified for low energies and large angles.

    Valid at sea level from a few hundred MeV; angle and energy are correlated. Constants are class attributes that can
    be overridden.

    Args:
        x_range: See `AbsMuonGenerator`, as for all others.
        y_range: Likewise.
        fixed_mom: Likewise.
        energy_range: Likewise.
        theta_range: Likewise.
    """

    P1 = spectra.GUAN_P1
    P2 = spectra.GUAN_P2
    P3 = spectra.GUAN_P3
    P4 = spectra.GUAN_P4
    P5 = spectra.GUAN_P5

    flux_unit = 1e4  # the formula counts muons per cm^2

    def flux(self, energy: Numbers, theta: Numbers) -> Numbers:
        """Flux through a horizontal surface, cm^-2 s^-1 sr^-1 GeV^-1 times sin(theta)."""
        return _like_given(spectra.guan_2015, energy, theta, p1=self.P1, p2=self.P2, p3=self.P3, p4=self.P4, p5=self.P5)


class MuonGenerator2016(AbsMuonGenerator):
    """Muons after Shukla and Sankrith, arXiv:1606.06907: a power law with an offset, and a curved atmosphere.

    Energy and angle are independent in this model. Constants are class attributes that can be overridden; ``N`` is
    (n - 1) (E_0 + E_c)^(n - 1) and has to be set together with them.

    Args:
        x_range: See `AbsMuonGenerator`, as for all others.
        y_range: Likewise.
        fixed_mom: Likewise.
        energy_range: Likewise.
        theta_range: Likewise.
    """

    I_0 = 88.0
    n = 3
    E_0 = 3.87
    E_c = 0.5
    epinv = 1 / 854
    Rod = 174.0
    N = (n - 1) * (E_0 + E_c) ** (n - 1)

    flux_unit = 1.0  # the formula counts muons per m^2

    def flux(self, energy: Numbers, theta: Numbers) -> Numbers:
        """Flux through a horizontal surface, m^-2 s^-1 sr^-1 GeV^-1 times sin(theta)."""
        return _like_given(
            spectra.shukla_2016,
            energy,
            theta,
            i_0=self.I_0,
            n=self.n,
            norm=self.N,
            e_0=self.E_0,
            epinv=self.epinv,
            rod=self.Rod,
        )
