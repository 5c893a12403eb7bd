"""Layouts of a ladle furnace: a steel vessel with liquid steel up to a level, slag on top of it, and air above."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffdet.core.checks import check_in_range, check_positive
from diffdet.core.errors import GeometryError
from diffdet.kernels import voxels
from diffdet.tomography.core import RadLengthFunc
from diffdet.tomography.optimisation.data.layouts import layer_shape
from diffdet.tomography.optimisation.data.passives import AbsPassiveGenerator, Passive, draw_uniform

if TYPE_CHECKING:
    from diffdet.tomography.volume.volume import Volume

__all__ = ["LadleFurnaceLayout", "LadleFurnacePassiveGenerator"]


@dataclass(frozen=True)
class LadleFurnaceLayout:
    """A furnace filled up to a level. A layer is of the material that reaches its top.

    Floor and walls are one voxel thick and of the furnace's material.

    Attributes:
        fill_z: Level of the fill, m, absolute.
        slag_z: Level of the slag on top of it, m, absolute.
        floor_z: Top of the floor, m, absolute.
        x0_furnace: Radiation length of floor and walls, m.
        x0_fill: Radiation length of the fill, m.
        x0_slag: Radiation length of the slag, m.
        x0_air: Radiation length of what is above, m.
    """

    fill_z: float
    slag_z: float
    floor_z: float
    x0_furnace: float
    x0_fill: float
    x0_slag: float
    x0_air: float

    def __call__(self, *, z: Tensor, lw: Tensor, size: float) -> Tensor:
        """X0 of a layer, ``(nx, ny)`` in m; see `diffdet.tomography.core.RadLengthFunc`."""
        # A level on a layer's top fills it: heights such as 0.6 are not exact in binary, tops in float32 even less.
        top = float(z) - voxels.EDGE_TOLERANCE * size
        inner = self.x0_air
        for level, x0 in ((self.floor_z, self.x0_furnace), (self.fill_z, self.x0_fill), (self.slag_z, self.x0_slag)):
            if top <= level:
                inner = x0
                break
        layer = torch.full(layer_shape(lw, size), self.x0_furnace, dtype=lw.dtype, device=lw.device)
        layer[1:-1, 1:-1] = inner
        return layer


class LadleFurnacePassiveGenerator(AbsPassiveGenerator):
    """Furnaces filled to a random level; the target is that level, m, absolute, ``(1,)``.

    The level is uniform from two voxels above the bottom of the block to its top, and the level of the slag uniform
    from there to the top. Either can be fixed in a draw. The volume shows the level in steps of a voxel.

    Args:
        volume: Volume that the layouts are for.
        x0_furnace: Radiation length of floor and walls, m.
        fill_material: What fills the furnace.
        slag_material: What floats on it.

    Raises:
        InputError: If a material is not known, or the radiation length not positive.
        GeometryError: If the passive block is too small to have a floor, walls, and something inside.
    """

    def __init__(
        self,
        volume: Volume,
        x0_furnace: float = 0.01782,
        fill_material: str = "hot liquid steel",
        slag_material: str = "slag",
    ) -> None:
        super().__init__(volume, [fill_material, slag_material, "air"])
        check_positive("x0_furnace", x0_furnace)
        if min(self.n_zxy) < 3:
            raise GeometryError(f"a furnace needs at least 3 voxels in every direction; got {self.n_zxy} in z, x, y")
        self.x0_furnace = float(x0_furnace)
        self.fill_material = fill_material
        self.slag_material = slag_material
        self.fill_z_range = self.z_range[0] + self.size, self.z_range[1]

    def generate(
        self,
        *,
        generator: torch.Generator | None = None,
        fixed_mat_z: float | None = None,
        fixed_slag_z: float | None = None,
    ) -> RadLengthFunc:
        """Draw a layout, without its target. See `get_data`."""
        return self.get_data(generator=generator, fixed_mat_z=fixed_mat_z, fixed_slag_z=fixed_slag_z)[0]

    def get_data(
        self,
        *,
        generator: torch.Generator | None = None,
        fixed_mat_z: float | None = None,
        fixed_slag_z: float | None = None,
    ) -> Passive:
        """Draw a layout and its target.

        Args:
            generator: CPU generator to draw from; None makes one from torch's default generator.
            fixed_mat_z: Level of the fill, m, absolute, from the top of the floor to the top of the block; None draws
                it.
            fixed_slag_z: Level of the slag, m, absolute, from the level of the fill to the top of the block; None draws
                it.

        Returns:
            A function that gives the X0 of one layer, and the level of the fill, ``(1,)`` m.

        Raises:
            InputError: If a level is not in its range.
        """
        return self._draw(generator, fixed_mat_z=fixed_mat_z, fixed_slag_z=fixed_slag_z)

    def _generate(
        self, generator: torch.Generator, fixed_mat_z: float | None = None, fixed_slag_z: float | None = None
    ) -> Passive:
        floor_z, top_z = self.fill_z_range
        slack = voxels.EDGE_TOLERANCE * self.size
        # Both levels are drawn even where one is fixed, so that fixing one does not change the other.
        drawn_fill = draw_uniform(floor_z + self.size, top_z, generator)
        fraction = draw_uniform(0.0, 1.0, generator)
        fill_z = drawn_fill if fixed_mat_z is None else float(fixed_mat_z)
        check_in_range("fixed_mat_z", fill_z, floor_z - slack, top_z + slack, unit="m")
        slag_z = fill_z + fraction * (top_z - fill_z) if fixed_slag_z is None else float(fixed_slag_z)
        check_in_range("fixed_slag_z", slag_z, fill_z - slack, top_z + slack, unit="m")
        x0_fill, x0_slag, x0_air = self.x0s
        layout = LadleFurnaceLayout(fill_z, slag_z, floor_z, self.x0_furnace, x0_fill, x0_slag, x0_air)
        return layout, self._target(fill_z)
