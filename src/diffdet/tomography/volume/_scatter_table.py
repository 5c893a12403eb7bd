"""A table of simulated scattering, read from a file."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from diffdet.core.errors import DiffdetError, FileDamagedError, InputError, StorageError

if TYPE_CHECKING:
    import h5py

__all__ = ["ScatterTable", "read_scatter_table"]

# Filters that are part of HDF5 itself, and lzf, which h5py brings; any other would have to be loaded as a plug-in.
_BUILT_IN_FILTERS: Final = {1, 2, 3, 4, 5, 6, 32000}
_MAX_VALUES: Final = 1 << 27
"""Most numbers that one dataset may hold: 512 MiB in single precision, 48 times what the documented table has."""


@dataclass(frozen=True)
class ScatterTable:
    """Quantiles of projected scattering behind one thickness of several materials, in bins of momentum.

    Attributes:
        angle: ``(material, momentum bin, rank)`` sizes of angles, ascending, rad.
        shift: ``(material, momentum bin, rank)`` sizes of displacements, ascending, m.
        x0: ``(material,)`` radiation lengths, m.
        mom_bins: ``(momentum bin,)`` lower edges of the bins, ascending, GeV. The last bin has no upper edge.
        deltaz: Thickness, m.
        shift_power: Power of the path that displacements grow with.
    """

    angle: Tensor
    shift: Tensor
    x0: Tensor
    mom_bins: Tensor
    deltaz: float
    shift_power: float


def read_scatter_table(path: str | os.PathLike[str]) -> ScatterTable:
    """Read a table.

    The file is HDF5 with the datasets ``model/dtheta`` and ``model/dxy`` (material, momentum bin, rank),
    ``meta_data/mom_bins``, ``meta_data/deltaz`` [m], ``meta_data/exp_disp_model``, ``meta_data/x02id`` (JSON: index of
    the material by X0 in m), and ``meta_data/n_mom`` and ``meta_data/n_rnd``, which repeat the numbers of bins and
    ranks. No link to another place is followed, and nothing of the file is executed.

    Args:
        path: The file.

    Raises:
        StorageError: If there is no such file, or it cannot be opened.
        FileDamagedError: If it is no HDF5 file, or cannot be read to its end.
        InputError: If a dataset is missing, is a link, is not stored in the file, or holds something else than it
            should.
    """
    import h5py

    file_path = Path(path)
    if not file_path.is_file():
        raise StorageError(f"there is no scatter table `{file_path}`: give the path of an HDF5 file")
    try:
        with h5py.File(file_path, "r", locking=False) as file:
            return _read(file, file_path)
    except (DiffdetError, MemoryError):
        raise
    except PermissionError as error:
        raise StorageError(f"cannot read the scatter table `{file_path}`: {error.strerror or error}") from error
    except Exception as error:  # whatever h5py raises at what is no HDF5
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise FileDamagedError(
            f"`{file_path}` cannot be read as HDF5: it is damaged, cut short, or of another kind ({reason})"
        ) from error


def _read(file: h5py.File, path: Path) -> ScatterTable:
    angle, shift = (_numbers(file, path, f"model/{name}", ndim=3) for name in ("dtheta", "dxy"))
    mom_bins = _numbers(file, path, "meta_data/mom_bins", ndim=1)
    deltaz, power, n_mom, n_rnd = (
        float(_numbers(file, path, f"meta_data/{name}", ndim=0))
        for name in ("deltaz", "exp_disp_model", "n_mom", "n_rnd")
    )
    x0 = _materials(_dataset(file, path, "meta_data/x02id"), path)
    expected = (len(x0), len(mom_bins), angle.shape[2])
    for name, cube in (("dtheta", angle), ("dxy", shift)):
        if tuple(cube.shape) != expected or 0 in expected:
            raise InputError(
                f"{path}: `model/{name}` must have shape (materials of `x02id`, `mom_bins`, ranks) = {expected}; "
                f"got {tuple(cube.shape)}"
            )
        if not bool(cube.isfinite().all()) or float(cube.min()) < 0:
            raise InputError(f"{path}: `model/{name}` must hold finite sizes, none below 0; got {_span(cube)}")
        if bool((cube.diff(dim=-1) < 0).any()):
            raise InputError(f"{path}: `model/{name}` must ascend along its last axis; it does not everywhere")
    for name, told, found in (("n_mom", n_mom, expected[1]), ("n_rnd", n_rnd, expected[2])):
        if told != found:
            raise InputError(f"{path}: `meta_data/{name}` must agree with `model/dtheta`, {found}; got {told:g}")
    if expected[1] < 2 or not bool((mom_bins.diff() > 0).all()) or not float(mom_bins[0]) > 0:
        raise InputError(f"{path}: `meta_data/mom_bins` must be 2 or more ascending momenta > 0; got {_span(mom_bins)}")
    for name, value in (("deltaz", deltaz), ("exp_disp_model", power)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{path}: `meta_data/{name}` must be finite and greater than 0; got {value}")
    return ScatterTable(angle, shift, x0, mom_bins, deltaz, power)


def _dataset(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    """A dataset that is part of the file and can be read without any other."""
    import h5py

    node: Any = file
    for part in name.split("/"):
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            raise InputError(f"{path}: the dataset `{name}` is missing; there are {', '.join(_names(file)) or 'none'}")
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{path}: `{name}` must be part of the file; it is a link to another place, not followed")
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        raise InputError(f"{path}: `{name}` must be a dataset; it is a group")
    if node.is_virtual or node.external:
        raise InputError(f"{path}: `{name}` must be stored in the file itself; it refers to other files")
    properties = node.id.get_create_plist()
    filters = {properties.get_filter(k)[0] for k in range(properties.get_nfilters())}
    if not filters <= _BUILT_IN_FILTERS:
        foreign = min(filters - _BUILT_IN_FILTERS)
        raise InputError(f"{path}: `{name}` must use filters of HDF5 only; it uses number {foreign}")
    if node.shape is None or math.prod(node.shape) > _MAX_VALUES:
        raise InputError(f"{path}: `{name}` must hold at most {_MAX_VALUES:,} values; its shape is {node.shape}")
    return node


def _names(file: h5py.File) -> list[str]:
    """What there is at the two top levels, for a message; no link is followed."""
    import h5py

    names = []
    for top in file:
        link = file.get(top, getlink=True)
        inside = file[top] if isinstance(link, h5py.HardLink) else None
        names += [f"`{top}/{name}`" for name in inside] if isinstance(inside, h5py.Group) else [f"`{top}`"]
    return names[:20]


def _numbers(file: h5py.File, path: Path, name: str, *, ndim: int) -> Tensor:
    dataset = _dataset(file, path, name)
    if dataset.dtype.kind not in "fiu" or dataset.ndim != ndim:
        raise InputError(
            f"{path}: `{name}` must hold numbers with {ndim} axes; got type {dataset.dtype} and shape {dataset.shape}"
        )
    values: Any = dataset[()]
    native = values.astype(dataset.dtype.newbyteorder("=")) if ndim else float(values)
    tensor = torch.as_tensor(native)
    return tensor if tensor.is_floating_point() else tensor.double()


def _materials(dataset: h5py.Dataset, path: Path) -> Tensor:
    """Radiation lengths in the order of the table, from a JSON object of indices by radiation length."""
    where = f"{path}: `meta_data/x02id` must be a JSON object of indices 0, 1, ... by radiation length in m"
    if dataset.ndim != 0 or dataset.dtype.kind not in "OS":
        raise InputError(f"{where}; got type {dataset.dtype} and shape {dataset.shape}")
    raw: Any = dataset[()]
    try:
        given = json.loads(raw if isinstance(raw, str) else bytes(raw).decode())
        x0_of = {index: float(x0) for x0, index in given.items()}
        x0 = [x0_of[k] for k in range(len(given))]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{where}; got {str(raw)[:200]!r}") from error
    if not all(math.isfinite(value) and value > 0 for value in x0):
        raise InputError(f"{where}, finite and greater than 0; got {x0}")
    return torch.tensor(x0, dtype=torch.float64)


def _span(values: Tensor) -> str:
    return f"{values.numel()} from {float(values.min()):.4g} to {float(values.max()):.4g}" if values.numel() else "none"
