"""How muons scatter in passive layers. Models run without a graph."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import TYPE_CHECKING

import torch

from diffdet.core.checks import check_choice
from diffdet.core.constants import SCATTER_COEF_A, SCATTER_COEF_B
from diffdet.core.errors import GeometryError
from diffdet.kernels import scattering, transport

if TYPE_CHECKING:
    from diffdet.tomography.muon.muon_batch import MuonBatch
    from diffdet.tomography.volume.layer import PassiveLayer

__all__ = ["SCATTER_MODELS", "AbsScatterModel", "PdgScatterModel", "PdgStepScatterModel", "get_scatter_model"]

# A muon so flat that it needs more steps than this to leave its layer is a fault of the input, not of the physics.
_MAX_STEPS = 100_000


class AbsScatterModel(metaclass=ABCMeta):
    """Carries a batch of muons through (part of) a passive layer.

    To add a model, inherit, implement ``carry``, and pass an instance as ``PassiveLayer(scatter_model=...)``.
    """

    @abstractmethod
    def carry(self, mu: MuonBatch, layer: PassiveLayer, top: float, thickness: float) -> None:
        """Move all muons from height ``top`` to ``top - thickness``, scattering them on the way.

        Args:
            mu: muons, all moving down; changed in place. Those that turn upwards are left for the caller to remove.
            layer: supplies 1/X0 of its voxels (``per_length``, ``bordered_per_length``, 1/m), ``size`` and ``step_sz``.
            top: upper face, m.
            thickness: vertical distance, m, > 0.
        """


class PdgScatterModel(AbsScatterModel):
    """Gaussian multiple scattering of the PDG, with the path added up in radiation lengths.

    Highland's formula gives the width behind a total thickness, so the width of a muon's angle after everything it has
    crossed is the formula's own, whatever the layers and steps in between; displacement and angle are correlated as
    they should (coefficient +sqrt(3)/2 in a homogeneous layer). ``step_sz`` only says in how fine a raster (of
    depth) the voxels along the path are looked up. beta is not taken to be 1.
    """

    def carry(self, mu: MuonBatch, layer: PassiveLayer, top: float, thickness: float) -> None:  # noqa: D102
        n_cells = max(1, round(thickness / layer.step_sz))
        out = transport.cross_slab(
            mu.position,
            mu.direction,
            mu.beta_momentum,
            mu.n_rad,
            mu.draw_normal("scatter", (4,)),
            layer.bordered_per_length,
            top=top,
            thickness=thickness,
            size=layer.size,
            n_cells=n_cells,
        )
        mu.set_state(*out)


class PdgStepScatterModel(AbsScatterModel):
    """The older way: Highland's formula applied to every step on its own, with beta = 1.

    Kept for comparison. Because of the formula's logarithm the total width then depends on the step: 8 to 13 % too
    narrow for 1 cm steps through 10 cm. The sign of the displacement is right here, unlike in the original.
    """

    def carry(self, mu: MuonBatch, layer: PassiveLayer, top: float, thickness: float) -> None:  # noqa: D102
        mu.propagate_to_z(top)
        bottom = top - thickness
        position, direction = mu.position.clone(), mu.direction.clone()
        n_rad = mu.n_rad.clone()
        table = torch.cat([layer.per_length.reshape(-1), layer.per_length.new_zeros(1)])
        nx, ny = layer.per_length.shape
        purpose = mu.next_use("scatter-step")
        eps = torch.finfo(position.dtype).eps * max(1.0, abs(top))
        for _ in range(_MAX_STEPS):
            left = (position[2] - bottom) / -direction[2]
            active = (left > eps) & (direction[2] < 0)
            if not bool(active.any()):
                break
            step = torch.where(active, left.clamp_max(layer.step_sz), torch.zeros_like(left))
            ix, iy = torch.floor(position[0] / layer.size), torch.floor(position[1] / layer.size)
            inside = (ix >= 0) & (ix < nx) & (iy >= 0) & (iy < ny)
            n = step * table.take(torch.where(inside, ix * ny + iy, torch.full_like(ix, nx * ny)).to(torch.int64))
            safe = n.clamp_min(torch.finfo(n.dtype).tiny)
            width = SCATTER_COEF_A / mu.mom * torch.sqrt(n) * (1 + SCATTER_COEF_B * torch.log(safe)).clamp_min(0)
            moments = scattering.PathMoments(step / 2, step / 12**0.5)
            angle, shift = scattering.correlated_draw(mu.draw_normal(purpose, (4,)), width, moments)
            e1, e2 = scattering.transverse_frame(direction)
            position = position + direction * step + shift[0] * e1 + shift[1] * e2
            direction = torch.where(active, scattering.deflect(direction, e1, e2, angle), direction)
            n_rad = n_rad + n
        else:
            raise GeometryError(
                f"a muon needs more than {_MAX_STEPS} steps of `step_sz` = {layer.step_sz} m to cross "
                f"{thickness} m: it flies almost "
                f"horizontally (smallest |cos theta| {float(direction[2].abs().min()):.2g}). Limit "
                f"`theta_range` or take larger steps"
            )
        mu.set_state(transport.fall_to(position, direction, bottom), direction, n_rad)


SCATTER_MODELS: dict[str, AbsScatterModel] = {"pdg": PdgScatterModel(), "pdg-step": PdgStepScatterModel()}
"""Scatter models by the name that ``PassiveLayer`` takes."""


def get_scatter_model(model: str | AbsScatterModel) -> AbsScatterModel:
    """A scatter model by name, or the given instance.

    Raises:
        InputError: there is no model of that name.
    """
    if isinstance(model, AbsScatterModel):
        return model
    check_choice("scatter_model", model, SCATTER_MODELS)
    return SCATTER_MODELS[model]
