"""From a configuration to the passive volumes that a detector learns from and is judged by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffdet.core.errors import DiffdetError, InputError
from diffdet.core.random import Stream
from diffdet.runs.config import LayoutConfig, RunConfig
from diffdet.runs.messages import at
from diffdet.runs.registry import construct, resolve, searching

if TYPE_CHECKING:
    from diffdet.tomography.optimisation.data.passives import PassiveYielder
    from diffdet.tomography.volume.volume import Volume


def build_passives(config: RunConfig, volume: Volume, split: str) -> PassiveYielder | None:
    """Build the passive volumes of a phase.

    Volumes that are kept are drawn here, each from a stream of its own, so that neither their number nor their order
    changes what they are.

    Args:
        config: The configuration.
        volume: The volume that they are for.
        split: ``"train"`` or ``"valid"``; another word gives as many as `valid`, or as `train` where there is none,
            and different ones.

    Returns:
        The passive volumes; None for a validation of no volumes.

    Raises:
        InputError: If one cannot be built.
    """
    passives = config.passives
    count = {"train": passives.train, "valid": passives.valid}.get(split, passives.valid or passives.train)
    return yield_passives(config, volume, split, count) if count else None


def yield_passives(config: RunConfig, volume: Volume, split: str, count: int) -> PassiveYielder:
    """Passive volumes of the configuration's kind, as many as wanted; see `build_passives`."""
    from diffdet.tomography.optimisation.data.passives import PassiveYielder

    passives = config.passives
    shuffle = passives.shuffle and split == "train"
    if passives.generator is None:
        layouts = [build_layout(layout, volume, f"passives.layouts[{k}]") for k, layout in enumerate(passives.layouts)]
        return PassiveYielder(layouts * count, shuffle=shuffle)
    spec = passives.generator
    with searching(config.search_path):
        found = resolve("passive generator", spec.class_, "passives.generator.class")
        generator = construct(found, "passives.generator", {"volume": volume}, spec.args)
    if passives.fresh and split == "train":
        return PassiveYielder(generator, n_passives=count)
    stream = Stream(config.seed, "passives", split)
    kept = []
    for k in range(count):
        for variant, options in enumerate(spec.variants or [{}]):
            path = f"passives.generator.variants[{variant}]" if options else "passives.generator"
            kept.append(_draw(generator, stream.generator(k, variant), options, path))
    return PassiveYielder(kept, shuffle=shuffle)


def _draw(generator: Any, randomness: torch.Generator, options: dict[str, Any], where: str) -> Any:
    """One volume from a generator, with the keyword arguments of a variant."""
    with at(where):
        try:
            return generator.get_data(generator=randomness, **options)
        except TypeError as error:
            raise InputError(
                f"expected arguments that {type(generator).__name__} takes, given {options}: {error}"
            ) from error


def build_layout(layout: LayoutConfig, volume: Volume, where: str) -> tuple[Callable[..., Tensor], Tensor | None]:
    """Build a passive volume that is the same every time.

    Args:
        layout: Its configuration.
        volume: The volume that it is for.
        where: Path of the section, for messages.

    Returns:
        The function that gives the radiation lengths of a layer, and the target.

    Raises:
        InputError: If a material is unknown, a file cannot be used, or a block lies outside.
    """
    from diffdet.tomography.optimisation.data.layouts import VoxelLayout

    cube = (
        _read_cube(Path(layout.file), volume.n_zxy, where) if layout.file is not None else _fill(layout, volume, where)
    )
    like = volume.lw
    target = (
        None
        if layout.target is None
        else torch.as_tensor(layout.target, dtype=like.dtype, device=like.device).reshape(-1)
    )
    return VoxelLayout(cube.to(like), volume.passive_box[0][2]), target


def _x0(material: str | None, x0: float | None, where: str) -> float:
    from diffdet.core.materials import material as find

    if x0 is not None:
        return x0
    assert material is not None
    with at(where):
        return find(material).x0


def _fill(layout: LayoutConfig, volume: Volume, where: str) -> Tensor:
    """Radiation lengths (z, x, y) of a background with blocks, m."""
    centres = [(edges[:-1] + edges[1:]).double().cpu() / 2 for edges in volume.voxel_edges()]
    key = "background" if layout.background is not None else "background_x0"
    cube = torch.full(volume.n_zxy, _x0(layout.background, layout.background_x0, f"{where}.{key}"), dtype=torch.float64)
    slack = 1e-6 * volume.passive_size
    for number, block in enumerate(layout.blocks):
        path = f"{where}.blocks[{number}]"
        x, y, z = (
            (c >= low - slack) & (c < high - slack) for c, low, high in zip(centres, block.low, block.high, strict=True)
        )
        inside = z[:, None, None] & x[None, :, None] & y[None, None, :]
        if not bool(inside.any()):
            low, high = volume.passive_box
            raise InputError(
                f"{path}: expected a block that holds the centre of a voxel between {list(low)} and {list(high)}, "
                f"given {list(block.low)} to {list(block.high)}"
            )
        cube[inside] = _x0(block.material, block.x0, f"{path}.material")
    return cube


def _read_cube(path: Path, shape: tuple[int, int, int], where: str) -> Tensor:
    """Radiation lengths from an NPZ or HDF5 file, m."""
    import numpy as np

    field = f"{where}.file"
    if not path.is_file():
        raise InputError(f"{field}: expected an NPZ or HDF5 file, given {str(path)!r}, which does not exist")
    try:
        if path.suffix == ".npz":
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
                array = np.asarray(content["x0"]) if "x0" in content else None
        elif path.suffix in (".h5", ".hdf5"):
            import h5py

            with h5py.File(path, "r") as archive:
                found = archive.get("x0")
                array = np.asarray(found[()]) if isinstance(found, h5py.Dataset) else None
        else:
            raise InputError(f"{field}: expected a file ending in .npz, .h5 or .hdf5, given {str(path)!r}")
    except DiffdetError:
        raise
    except Exception as error:
        raise InputError(
            f"{field}: expected a file that can be read, given {str(path)!r}: {type(error).__name__}: {error}"
        ) from error
    if array is None:
        raise InputError(f"{field}: expected an array named x0 (z, x, y), given {str(path)!r}, which has none")
    if array.shape != shape or array.dtype.kind not in "fiu":
        raise InputError(
            f"{field}: expected numbers of shape {shape} (z, x, y), given {array.dtype} of shape {array.shape} in "
            f"{str(path)!r}"
        )
    cube = torch.from_numpy(array.astype("float64"))
    if not bool((torch.isfinite(cube) & (cube > 0)).all()):
        bad = cube[~(torch.isfinite(cube) & (cube > 0))]
        raise InputError(
            f"{field}: expected radiation lengths that are finite and above 0, given {bad[0].item()} in {str(path)!r}"
        )
    return cube
