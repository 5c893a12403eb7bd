"""Layouts with walls buried in soil."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffdet.core.checks import check_in_range, check_positive
from diffdet.core.errors import GeometryError
from diffdet.tomography.optimisation.data.layouts import VoxelLayout
from diffdet.tomography.optimisation.data.passives import AbsPassiveGenerator, Passive, draw_index, draw_uniform

if TYPE_CHECKING:
    from diffdet.tomography.volume.volume import Volume

__all__ = ["SmallWallsPassiveGenerator"]

_MAX_WALLS = 4
# Steps in x and y; the next one turns left, the one before turns right.
_DIRECTIONS = ((1, 0), (0, 1), (-1, 0), (0, -1))


class SmallWallsPassiveGenerator(AbsPassiveGenerator):
    """Soil with one to four walls that stand on one level. The target is the map of walls, ``(z, x, y)`` int64, 1 for
    wall.

    A wall is one voxel thick and wanders: from a random column it goes straight ahead; it turns left or right with
    probability exp(-turn_k / cells since the last turn), and ends with probability exp(-stop_k / its length), at the
    border, or at another wall.

    Args:
        volume: Volume that the layouts are for.
        x0_soil: Radiation length of soil, m; the default is a mixture of quartz, organic matter, water and air.
        x0_wall: Radiation length of walls, m; the default is a mixture of oxides, as in brick.
        stop_k: How long walls are, in cells: larger is longer.
        turn_k: How straight walls are, in cells: larger is straighter.
        min_length: Cells before a wall may end by chance.
        min_height: Height of the lowest wall, in voxels.

    Raises:
        InputError: If a number is not positive.
        GeometryError: If the volume has too few layers for walls of the minimum height.
    """

    def __init__(
        self,
        volume: Volume,
        x0_soil: float = 0.2624248696430881,
        x0_wall: float = 0.08022522418503258,
        stop_k: float = 10,
        turn_k: float = 5,
        min_length: int = 4,
        min_height: int = 4,
    ) -> None:
        super().__init__(volume)
        for name, value in (("x0_soil", x0_soil), ("x0_wall", x0_wall), ("stop_k", stop_k), ("turn_k", turn_k)):
            check_positive(name, value)
        check_in_range("min_length", min_length, 1)
        check_in_range("min_height", min_height, 1)
        self.x0_soil, self.x0_wall = float(x0_soil), float(x0_wall)
        self.stop_k, self.turn_k = float(stop_k), float(turn_k)
        self.min_length, self.min_height = min_length, min_height
        self._n_levels = max(1, self.n_zxy[0] // 2)
        if self._n_levels - 1 + min_height >= self.n_zxy[0]:
            raise GeometryError(
                f"walls of `min_height` = {min_height} voxels on a level in the lower half need more layers; "
                f"got {self.n_zxy[0]}"
            )

    def _generate(self, generator: torch.Generator) -> Passive:
        walls = torch.zeros(self.n_zxy, dtype=torch.bool)
        ground = draw_index(self._n_levels, generator)
        for _ in range(1 + draw_index(_MAX_WALLS, generator)):
            lowest_top = ground + self.min_height
            top = lowest_top + draw_index(self.n_zxy[0] - lowest_top, generator)
            self._build(walls, ground, top, generator)
        x0 = torch.where(walls, self.x0_wall, self.x0_soil).to(self.lw)
        return VoxelLayout(x0, self.z_range[0]), walls.to(torch.int64).to(self.lw.device)

    def _build(self, walls: Tensor, ground: int, top: int, generator: torch.Generator) -> None:
        """Add one wall from layer ``ground`` up to, not including, layer ``top``."""
        x, y = draw_index(self.n_zxy[1], generator), draw_index(self.n_zxy[2], generator)
        ways = [k for k, step in enumerate(_DIRECTIONS) if self._inside(x + step[0], y + step[1])]
        heading = ways[draw_index(len(ways), generator)] if ways else 0
        length = straight = 0
        # Every round fills a column that was empty, so there are at most as many as columns.
        while self._inside(x, y) and not walls[ground, x, y]:
            walls[ground:top, x, y] = True
            length, straight = length + 1, straight + 1
            if length >= self.min_length and self._happens(self.stop_k / length, generator):
                return
            if self._happens(self.turn_k / straight, generator):
                heading, straight = (heading + (1, -1)[draw_index(2, generator)]) % 4, 0
            x, y = x + _DIRECTIONS[heading][0], y + _DIRECTIONS[heading][1]

    def _inside(self, x: int, y: int) -> bool:
        """Whether a column exists."""
        return 0 <= x < self.n_zxy[1] and 0 <= y < self.n_zxy[2]

    @staticmethod
    def _happens(exponent: float, generator: torch.Generator) -> bool:
        """True with probability exp(-exponent)."""
        return draw_uniform(0.0, 1.0, generator) < math.exp(-exponent)
