"""Passive volumes to learn from: generators of random layouts, and what hands them out volume by volume."""

from __future__ import annotations

import inspect
import itertools
from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffdet.core.checks import check_positive
from diffdet.core.errors import InputError
from diffdet.core.materials import MATERIALS, material
from diffdet.core.random import Stream
from diffdet.tomography.core import RadLengthFunc
from diffdet.tomography.optimisation.data.layouts import BlockLayout, VoxelLayout, layer_shape

if TYPE_CHECKING:
    from diffdet.tomography.volume.volume import Volume

__all__ = [
    "AbsBlockPassiveGenerator",
    "AbsPassiveGenerator",
    "BlockPresentPassiveGenerator",
    "PassiveYielder",
    "RandomBlockPassiveGenerator",
    "VoxelPassiveGenerator",
]

Passive = tuple[RadLengthFunc, Tensor | None]
"""A layout and what is true of it, if anything was said."""


class AbsPassiveGenerator(metaclass=ABCMeta):
    """Source of random layouts of a volume.

    To add a source, inherit and write `_generate`. Draw everything there: the function it returns is called once per
    layer, and whenever the layout is loaded again, and must then give the same layout. Draw from the generator that is
    passed in, so that a seed fixes the layouts.

    Args:
        volume: Volume that the layouts are for; its geometry is read once, here.
        materials: Names of the materials that may occur; None means all that are known, in the order of
            `diffdet.core.materials.MATERIALS`.

    Raises:
        InputError: If a material is not known, or the list is empty.
    """

    def __init__(self, volume: Volume, materials: Sequence[str] | None = None) -> None:
        self.materials = [m.name for m in MATERIALS] if materials is None else list(materials)
        if not self.materials:
            raise InputError("`materials` must name at least one material; got an empty list")
        self.x0s = [material(name).x0 for name in self.materials]
        self.lw = volume.lw.detach().clone()
        self.size = float(volume.passive_size)
        z_low, z_top = volume.get_passive_z_range()
        self.z_range = float(z_low), float(z_top)
        n_x, n_y = layer_shape(self.lw, self.size)
        self.n_zxy = round((self.z_range[1] - self.z_range[0]) / self.size), n_x, n_y

    @abstractmethod
    def _generate(self, generator: torch.Generator) -> Passive:
        """Draw a layout.

        Args:
            generator: CPU generator to draw from. An override that leaves the argument out is called without it.

        Returns:
            A function that gives the X0 of one layer, see `diffdet.tomography.core.RadLengthFunc`, and a target or
            None.
        """

    def generate(self, *, generator: torch.Generator | None = None) -> RadLengthFunc:
        """Draw a layout, without its target. See `get_data`."""
        return self.get_data(generator=generator)[0]

    def get_data(self, *, generator: torch.Generator | None = None) -> Passive:
        """Draw a layout and its target.

        Args:
            generator: CPU generator to draw from; None makes one from torch's default generator.

        Returns:
            A function that gives the X0 of one layer, the same at every call, and the target or None.
        """
        return self._draw(generator)

    def _draw(self, generator: torch.Generator | None, **options: Any) -> Passive:
        """Call `_generate`, also where an override takes no generator."""
        if "generator" not in inspect.signature(self._generate).parameters:
            return self._generate(**options)
        generator = Stream.from_torch().generator() if generator is None else generator
        return self._generate(generator=generator, **options)

    def _target(self, value: float) -> Tensor:
        """A target ``(1,)`` with the dtype and device of the volume."""
        return torch.tensor([value], dtype=self.lw.dtype, device=self.lw.device)

    def _bounds(self) -> list[tuple[float, float]]:
        """Lowest and highest x, y, z of the passive block, m."""
        return [(0.0, float(self.lw[0])), (0.0, float(self.lw[1])), self.z_range]


def draw_index(n: int, generator: torch.Generator) -> int:
    """A whole number from 0 to n - 1, each as likely.

    Args:
        n: How many there are, at least 1.
        generator: CPU generator to draw from.
    """
    return int(torch.randint(n, (), generator=generator))


def draw_uniform(low: float, high: float, generator: torch.Generator) -> float:
    """A number uniform between two others.

    Args:
        low: Lowest.
        high: Highest, not below ``low``.
        generator: CPU generator to draw from.
    """
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


class VoxelPassiveGenerator(AbsPassiveGenerator):
    """Layouts in which every voxel is of a random material. There is no target.

    Args:
        volume: See `AbsPassiveGenerator`.
        materials: See `AbsPassiveGenerator`.
    """

    def _generate(self, generator: torch.Generator) -> Passive:
        chosen = torch.randint(len(self.x0s), self.n_zxy, generator=generator)
        cube = torch.tensor(self.x0s, dtype=self.lw.dtype)[chosen].to(self.lw.device)
        return VoxelLayout(cube, self.z_range[0]), None


class AbsBlockPassiveGenerator(AbsPassiveGenerator):
    """Source of layouts with one cuboid (block) somewhere in a background.

    A block of fixed size is turned at random among the orientations that fit. A block of random size has edges that are
    uniform between one voxel and the whole extent, or half of it. Its place is uniform and not tied to the voxels: a
    voxel is of the block's material if its centre is in the block.

    Args:
        volume: See `AbsPassiveGenerator`.
        block_size: Edges of the block, m, in any order; None draws them.
        block_size_max_half: Whether random edges go up to half the extent only. Required where ``block_size`` is None.
        materials: See `AbsPassiveGenerator`.

    Raises:
        InputError: If neither size nor limit is given, a block is thinner than a voxel, or it does not fit into the
            volume.
    """

    def __init__(
        self,
        volume: Volume,
        block_size: tuple[float, float, float] | None,
        block_size_max_half: bool | None = None,
        materials: Sequence[str] | None = None,
    ) -> None:
        super().__init__(volume, materials)
        self.block_size = block_size
        self.block_size_max_half = block_size_max_half
        extents = [high - low for low, high in self._bounds()]
        # An extent that is a whole number of voxels is one to within rounding only.
        slack = 1e-6 * self.size
        if block_size is None:
            if block_size_max_half is None:
                raise InputError("`block_size_max_half` must be True or False where `block_size` is None; got None")
            self._longest = [extent / 2 if block_size_max_half else extent for extent in extents]
            if min(self._longest) < self.size - slack:
                raise InputError(
                    f"blocks of random size must have room for a voxel of {self.size:g} m; got `block_size_max_half` = "
                    f"{block_size_max_half} in a volume of {', '.join(f'{e:g}' for e in extents)} m"
                )
            return
        if len(block_size) != 3:
            raise InputError(f"`block_size` must be three lengths in m, or None; got {block_size!r}")
        for length in block_size:
            check_positive("block_size", float(length))
        if min(block_size) < self.size - slack:
            raise InputError(
                f"`block_size` must be at least a voxel, {self.size:g} m, in every direction; got {block_size!r}"
            )
        turned = sorted(set(itertools.permutations(float(length) for length in block_size)))
        self._orientations = [
            edges for edges in turned if all(d <= e + slack for d, e in zip(edges, extents, strict=True))
        ]
        if not self._orientations:
            raise InputError(
                f"`block_size` must fit into the passive volume of {', '.join(f'{e:g}' for e in extents)} m in some "
                f"orientation; got {block_size!r}"
            )

    def _draw_block(self, x0: float, block_x0: float, generator: torch.Generator) -> BlockLayout:
        """A block of given radiation length at a random place, m."""
        if self.block_size is None:
            edges = [draw_uniform(min(self.size, longest), longest, generator) for longest in self._longest]
        else:
            edges = self._orientations[draw_index(len(self._orientations), generator)]
        corners: list[tuple[float, float]] = []
        for (low, high), edge in zip(self._bounds(), edges, strict=True):
            start = draw_uniform(low, max(low, high - edge), generator)
            corners.append((start, start + edge))
        (x, x_end), (y, y_end), (z, z_end) = corners
        return BlockLayout(x0, block_x0, (x, y, z), (x_end, y_end, z_end))


class RandomBlockPassiveGenerator(AbsBlockPassiveGenerator):
    """Layouts with a block of a random material in a background of a random material. The target is the X0 of the
    block.

    Args:
        volume: See `AbsPassiveGenerator`.
        block_size: See `AbsBlockPassiveGenerator`.
        sort_x0: Whether the material with the smaller X0 always makes the block.
        enforce_diff_mat: Whether block and background are never of the same material.
        block_size_max_half: See `AbsBlockPassiveGenerator`.
        materials: See `AbsPassiveGenerator`.

    Raises:
        InputError: If materials must differ and there is only one; or as `AbsBlockPassiveGenerator` says.
    """

    def __init__(
        self,
        volume: Volume,
        block_size: tuple[float, float, float] | None,
        sort_x0: bool,
        enforce_diff_mat: bool,
        block_size_max_half: bool | None = None,
        materials: Sequence[str] | None = None,
    ) -> None:
        super().__init__(volume, block_size, block_size_max_half, materials)
        self.sort_x0 = sort_x0
        self.enforce_diff_mat = enforce_diff_mat
        if enforce_diff_mat and len(set(self.materials)) < 2:
            raise InputError(
                f"`materials` must name at least two where `enforce_diff_mat` is True; got {self.materials}"
            )

    def _generate(self, generator: torch.Generator) -> Passive:
        background = draw_index(len(self.x0s), generator)
        others = [i for i, name in enumerate(self.materials) if name != self.materials[background]]
        block = (
            others[draw_index(len(others), generator)]
            if self.enforce_diff_mat
            else draw_index(len(self.x0s), generator)
        )
        x0, block_x0 = self.x0s[background], self.x0s[block]
        if self.sort_x0 and block_x0 > x0:
            x0, block_x0 = block_x0, x0
        return self._draw_block(x0, block_x0, generator), self._target(block_x0)


class BlockPresentPassiveGenerator(AbsBlockPassiveGenerator):
    """Layouts with a block of a random material in a background that is always the first material. The target is the X0
    of the block.

    The block's material is drawn among all, the first included: then there is nothing to be seen.

    Args:
        volume: See `AbsPassiveGenerator`.
        block_size: See `AbsBlockPassiveGenerator`.
        block_size_max_half: See `AbsBlockPassiveGenerator`.
        materials: See `AbsPassiveGenerator`; the first is the background.
    """

    def _generate(self, generator: torch.Generator) -> Passive:
        block_x0 = self.x0s[draw_index(len(self.x0s), generator)]
        return self._draw_block(self.x0s[0], block_x0, generator), self._target(block_x0)


class PassiveYielder:
    """Hands out layouts and targets, epoch by epoch: those of a list, or fresh ones of a generator.

    Iterating draws from torch's default generator. `epoch` draws from a stream, so that a seed fixes the order of a
    list, or the layouts of a generator, whatever else was drawn before. The list itself is never changed.

    Args:
        passives: Layout functions, or pairs of a layout function and its target (a tensor or None); or a generator.
        n_passives: Number of layouts in an epoch, for a generator; a list has its own length.
        shuffle: Whether the order of a list changes from epoch to epoch.

    Raises:
        InputError: If the list is empty or holds something else, or a generator comes without ``n_passives``.
    """

    def __init__(
        self,
        passives: Sequence[Passive | RadLengthFunc] | AbsPassiveGenerator,
        n_passives: int | None = None,
        shuffle: bool = True,
    ) -> None:
        self.passives = passives
        self.shuffle = shuffle
        if isinstance(passives, AbsPassiveGenerator):
            if n_passives is None:
                raise InputError("`n_passives` must be given where `passives` is a generator; got None")
            if n_passives < 1:
                raise InputError(f"`n_passives` must be at least 1; got {n_passives}")
            self.n_passives = int(n_passives)
            return
        if len(passives) == 0:
            raise InputError("`passives` must hold at least one layout; got an empty list")
        for i, entry in enumerate(passives):
            _pair(entry, i)
        self.n_passives = len(passives)

    def __len__(self) -> int:
        return self.n_passives

    def __iter__(self) -> Iterator[Passive]:
        return self.epoch(None)

    def epoch(self, stream: Stream | None, *, shuffle: bool | None = None) -> Iterator[Passive]:
        """The layouts and targets of one epoch.

        Args:
            stream: Decides the order of a list, and the layouts of a generator: layout i depends on the stream and on i
                alone. None makes a stream from torch's default generator.
            shuffle: Whether to change the order of a list; None does as the yielder was told.

        Yields:
            Layout function and target, or None where there is no target.
        """
        stream = Stream.from_torch() if stream is None else stream
        if isinstance(self.passives, AbsPassiveGenerator):
            for i in range(self.n_passives):
                yield self.passives.get_data(generator=stream.generator("layout", i))
            return
        order = range(self.n_passives)
        if self.shuffle if shuffle is None else shuffle:
            order = torch.randperm(self.n_passives, generator=stream.generator("order")).tolist()
        for i in order:
            yield _pair(self.passives[i], i)


def _pair(entry: Passive | RadLengthFunc | Callable[..., Tensor], i: int) -> Passive:
    """A layout function and its target, from a pair or a bare function; refuses anything else."""
    if callable(entry):
        return entry, None
    if isinstance(entry, (tuple, list)) and len(entry) == 2 and callable(entry[0]):
        function, target = entry
        if target is None or isinstance(target, Tensor):
            return function, target
    raise InputError(
        f"`passives[{i}]` must be a layout function, or a pair of a layout function and a tensor or None; got {entry!r}"
    )
