"""How muons scatter in passive layers. Models run without a graph."""

from __future__ import annotations

import math
import os
from abc import ABCMeta, abstractmethod
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from diffdet.core.checks import check_choice
from diffdet.core.constants import SCATTER_COEF_A, SCATTER_COEF_B
from diffdet.core.errors import GeometryError, InputError
from diffdet.kernels import scattering, tabulated_scattering, transport
from diffdet.tomography.volume._scatter_table import ScatterTable, read_scatter_table

if TYPE_CHECKING:
    from diffdet.tomography.muon.muon_batch import MuonBatch
    from diffdet.tomography.volume.layer import PassiveLayer

__all__ = [
    "PGEANT_SCATTER_MODEL",
    "SCATTER_MODELS",
    "AbsScatterModel",
    "PdgScatterModel",
    "PdgStepScatterModel",
    "PgeantScatterModel",
    "get_scatter_model",
]

# Within a cell scattering counts as uniform, but Highland's logarithm lets it grow with depth. With a single cell to a
# layer displacements are 3 % (lead) to 5 % (air) too large, with five 0.5 %.
_FEWEST_CELLS = 5
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
    they should (coefficient +sqrt(3)/2 in a homogeneous layer, but for the formula's logarithm). ``step_sz`` only says
    in how fine a raster (of depth) the voxels along the path are looked up, at least five times to a layer. beta is
    not taken to be 1.
    """

    def carry(self, mu: MuonBatch, layer: PassiveLayer, top: float, thickness: float) -> None:  # noqa: D102
        n_cells = max(_FEWEST_CELLS, round(thickness / layer.step_sz))
        with torch.inference_mode():  # a sixth quicker than without a graph; the result is copied into the batch
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


class PgeantScatterModel(AbsScatterModel):
    """Scattering drawn from a table of simulated muons, tails included.

    The table holds sizes of projected angles and displacements behind one thickness (``deltaz``, usually 1 cm) of
    several materials, in bins of momentum; see ``load`` for the file. Muons make steps of that depth, whatever the
    layer's ``step_sz``, and a shorter one at the end where the layer is no multiple of it.

    What the table does not hold is scaled from the nearest that it does: to another X0 by Highland's width; within a
    bin of momenta, and beyond the last, by 1 / (beta p); to the path of an inclined muon by its root for angles and the
    file's power for displacements. Angle and displacement of a step are correlated by about sqrt(3)/2.

    Use it where the tails matter, that is, where single large scatters decide; "pdg" is several times faster. Steps are
    independent, so variances add: unlike with "pdg", the width behind a block is what the tabulated thickness makes of
    it.

    Args:
        path: File to load; None waits for ``load``.

    Raises:
        StorageError: See ``load``.
        InputError: See ``load``.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._table: ScatterTable | None = None
        self._as: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}
        if path is not None:
            self.load(path)

    def load(self, path: str | os.PathLike[str]) -> Self:
        """Load a table, in place of one that was loaded before.

        Args:
            path: HDF5 file with the datasets

                - ``model/dtheta`` and ``model/dxy``: ``(material, momentum bin, rank)`` sizes of projected angles [rad]
                  and displacements [m], ascending along the last axis;
                - ``meta_data/mom_bins``: lower edges of the momentum bins, ascending, GeV; the last bin, which has no
                  upper edge, is not used;
                - ``meta_data/deltaz``: thickness, m; ``meta_data/exp_disp_model``: power of the path that displacements
                  grow with; ``meta_data/n_mom``, ``meta_data/n_rnd``: numbers of bins and ranks;
                - ``meta_data/x02id``: JSON object, index of a material by its X0 in m.

        Returns:
            The model.

        Raises:
            StorageError: There is no such file, it cannot be opened, or it is not HDF5.
            InputError: A dataset is missing, not part of the file, or holds something else than it should.
        """
        self._table = read_scatter_table(path)
        self._as = {}
        return self

    @property
    def table(self) -> ScatterTable:
        """The table.

        Raises:
            InputError: None was loaded.
        """
        if self._table is None:
            raise InputError(
                'the scatter model "pgeant" needs a table of simulated scattering, and none was loaded: call '
                "`PGEANT_SCATTER_MODEL.load(path)` (in diffdet.tomography.volume.scatter_model), or pass "
                "`scatter_model=PgeantScatterModel(path)` to the layer"
            )
        return self._table

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Tables are large and never written to, and a copied volume must find what is loaded later.
        return self

    def _quantiles(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Angles and displacements, one row per material and momentum bin."""
        if (dtype, device) not in self._as:
            table = self.table
            angle, shift = (t.flatten(0, 1).to(dtype=dtype, device=device) for t in (table.angle, table.shift))
            self._as[dtype, device] = angle, shift
        return self._as[dtype, device]

    def carry(self, mu: MuonBatch, layer: PassiveLayer, top: float, thickness: float) -> None:  # noqa: D102
        table = self.table
        angles, shifts = self._quantiles(mu.dtype, mu.device)
        edges = table.mom_bins.to(mu.position)
        mom_bin = torch.bucketize(mu.mom, edges[1:-1], right=True)
        centre = tabulated_scattering.bin_centre(edges[:-1], edges[1:])[mom_bin]
        by_momentum = scattering.beta_momentum(centre) / scattering.beta_momentum(mu.mom)

        # Voxels by number; one more for everything outside the footprint, which does not scatter.
        per_length = torch.cat([layer.per_length.reshape(-1), layer.per_length.new_zeros(1)]).to(mu.position)
        known = table.x0.to(mu.position)
        material = tabulated_scattering.nearest_in_log(1 / per_length, known)
        by_material = tabulated_scattering.strength_ratio(table.deltaz * per_length, table.deltaz / known[material])
        nx, ny = layer.per_length.shape

        mu.propagate_to_z(top)
        position, direction, n_rad = mu.position.clone(), mu.direction.clone(), mu.n_rad.clone()
        n_steps = max(1, math.ceil(thickness / table.deltaz - 1e-4))
        for step in range(n_steps):
            bottom = top - min((step + 1) * table.deltaz, thickness)
            falling = direction[2] < 0
            path = torch.where(falling, (position[2] - bottom) / -direction[2], torch.zeros_like(centre))
            place = torch.floor(position[:2] / layer.size)
            inside = (place >= 0).all(0) & (place[0] < nx) & (place[1] < ny)
            voxel = torch.where(inside, place[0] * ny + place[1], torch.full_like(path, nx * ny)).long()
            drawn = tabulated_scattering.draw(
                mu.draw_normal("scatter-table", (4,)),
                angles,
                shifts,
                material[voxel] * len(edges) + mom_bin,
                by_momentum * by_material[voxel],
                path / table.deltaz,
                table.shift_power,
            )
            e1, e2 = scattering.transverse_frame(direction)
            position = position + direction * path + drawn.shift[0] * e1 + drawn.shift[1] * e2
            direction = torch.where(falling, scattering.deflect(direction, e1, e2, drawn.angle), direction)
            n_rad = n_rad + path * per_length[voxel]
            still = direction[2] < 0  # those that turn up stay where they are, for the caller to remove
            position = torch.where(still, transport.fall_to(position, direction, bottom), position)
        mu.set_state(position, direction, n_rad)


PGEANT_SCATTER_MODEL = PgeantScatterModel()
"""The model behind ``PassiveLayer(scatter_model="pgeant")``; load a table into it before muons fly."""

SCATTER_MODELS: dict[str, AbsScatterModel] = {
    "pdg": PdgScatterModel(),
    "pdg-step": PdgStepScatterModel(),
    "pgeant": PGEANT_SCATTER_MODEL,
}
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
