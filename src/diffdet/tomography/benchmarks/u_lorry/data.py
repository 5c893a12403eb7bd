"""Layouts of a lorry loaded with scrap, in which uranium may be hidden."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from diffdet.core.checks import check_in_range, check_positive
from diffdet.core.errors import InputError
from diffdet.core.materials import material
from diffdet.kernels import voxels
from diffdet.tomography.optimisation.data.layouts import VoxelLayout
from diffdet.tomography.optimisation.data.passives import AbsPassiveGenerator, Passive, draw_index, draw_uniform

if TYPE_CHECKING:
    from diffdet.tomography.volume.volume import Volume

__all__ = ["ULorryPassiveGenerator"]


class ULorryPassiveGenerator(AbsPassiveGenerator):
    """Lorries with or without a cuboid of uranium. The target is 1 with and 0 without, ``(1,)`` int64.

    The lowest layer is the lorry's floor. Above it, up to a part of the block's height, every voxel is of a random
    scrap material, and the rest is air. The cuboid has a given volume, whole voxels as edges, a random shape and
    orientation among those that fit, and lies anywhere above the floor.

    Args:
        volume: Volume that the layouts are for.
        u_volume: Volume of the uranium, m^3: that of a cuboid of whole voxels.
        u_prob: Probability that there is uranium.
        fill_frac: Height of the scrap, floor included, over the height of the block.
        x0_lorry: Radiation length of the floor, m.
        bkg_materials: Names of the scrap materials, each as likely.

    Attributes:
        shapes: Edges (z, x, y) of the cuboids that are drawn, in voxels.
        n_filled: Layers that hold the floor and scrap.

    Raises:
        InputError: If no cuboid of whole voxels has that volume and fits, a number is out of range, or a material is
            not known.
    """

    def __init__(
        self,
        volume: Volume,
        u_volume: float,
        u_prob: float = 0.5,
        fill_frac: float = 0.8,
        x0_lorry: float = 0.01757,
        bkg_materials: Sequence[str] = ("air", "iron"),
    ) -> None:
        super().__init__(volume, bkg_materials)
        check_positive("u_volume", u_volume)
        check_in_range("u_prob", u_prob, 0.0, 1.0)
        check_in_range("fill_frac", fill_frac, 0.0, 1.0)
        check_positive("x0_lorry", x0_lorry)
        self.u_volume, self.u_prob, self.fill_frac, self.x0_lorry = u_volume, u_prob, fill_frac, float(x0_lorry)
        self.shapes = self._cuboids(u_volume)
        # Layers that are full to their top, the floor among them.
        self.n_filled = int(voxels.snap(torch.tensor(fill_frac * self.n_zxy[0], dtype=torch.float64)))

    def _cuboids(self, u_volume: float) -> list[tuple[int, int, int]]:
        """Edges (z, x, y) in voxels of every cuboid of a volume that fits above the floor."""
        n_z, n_x, n_y = self.n_zxy
        every = itertools.product(range(1, n_z), range(1, n_x + 1), range(1, n_y + 1))
        by_count: dict[int, list[tuple[int, int, int]]] = {}
        for edges in every:
            by_count.setdefault(edges[0] * edges[1] * edges[2], []).append(edges)
        wanted = u_volume / self.size**3
        count = round(wanted)
        # A volume in m^3 is a whole number of voxels to within rounding only.
        if abs(wanted - count) > 1e-4 * wanted or count not in by_count:
            near = sorted(sorted(by_count, key=lambda n: abs(n - wanted))[:3])
            listing = ", ".join(f"{n * self.size**3:.6g}" for n in near)
            raise InputError(
                f"`u_volume` must be the volume of a cuboid of whole voxels ({self.size:g} m) that fits; "
                f"got {u_volume:g} m^3. Nearest: {listing or 'none, there is no room'}"
            )
        return by_count[count]

    def _generate(self, generator: torch.Generator) -> Passive:
        n_z, n_x, n_y = self.n_zxy
        cube = torch.full(self.n_zxy, material("air").x0, dtype=self.lw.dtype)
        scrap = torch.tensor(self.x0s, dtype=self.lw.dtype)
        cube[: self.n_filled] = scrap[torch.randint(len(scrap), (self.n_filled, n_x, n_y), generator=generator)]
        cube[0] = self.x0_lorry
        hidden = draw_uniform(0.0, 1.0, generator) < self.u_prob
        d_z, d_x, d_y = self.shapes[draw_index(len(self.shapes), generator)]
        z = 1 + draw_index(n_z - d_z, generator)
        x, y = draw_index(n_x - d_x + 1, generator), draw_index(n_y - d_y + 1, generator)
        if hidden:
            cube[z : z + d_z, x : x + d_x, y : y + d_y] = material("uranium").x0
        layout = VoxelLayout(cube.to(self.lw.device), self.z_range[0])
        return layout, torch.tensor([int(hidden)], device=self.lw.device)
