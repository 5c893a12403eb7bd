"""Voxel images on disk: HDF5 to keep and read again, VTK for ParaView and its relatives."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from diffdet._version import __version__
from diffdet.core.errors import InputError, StorageError
from diffdet.core.storage import write_bytes
from diffdet.tomography.imaging.image import VoxelImage, make_grid
from diffdet.tomography.io.formats.base import reading
from diffdet.tomography.io.formats.hdf5 import checked_dataset

__all__ = ["FORMAT_VERSION", "image_to_bytes", "read_image", "save_image", "save_vtk"]

FORMAT_VERSION: Final = 1
"""Version of the layout of image files."""

_CUBES: Final = {
    "x0": ("m", "radiation length; infinite where the density is not positive, NaN where no muon went"),
    "x0_unc": ("m", "standard deviation of x0, to first order"),
    "inverse_x0": ("1/m", "scattering density, the estimate proper; may be negative by chance"),
    "inverse_x0_unc": ("1/m", "standard deviation of inverse_x0"),
    "counts": ("1", "muons that crossed the voxel"),
    "path_length": ("m", "path of all muons in the voxel together"),
}


def image_to_bytes(image: VoxelImage) -> bytes:
    """The HDF5 file of an image.

    Datasets ``x0``, ``x0_unc``, ``inverse_x0``, ``inverse_x0_unc``, ``counts`` and ``path_length`` are ordered (z, x,
    y), lowest layer first, each with a checksum; ``edges_x``, ``edges_y`` and ``edges_z`` are the faces of the voxels
    in m. Attributes say the method and its settings, units, muons used, and the exposure in muons per m^2.
    """
    import h5py

    buffer = io.BytesIO()
    # Written to memory and then in one go, because the HDF5 library may crash the process when a disk is full.
    with h5py.File(buffer, "w", libver=("v110", "v110")) as file:
        for name, (unit, text) in _CUBES.items():
            _put(file, name, getattr(image, name), unit, text)
        for axis, edges in zip("xyz", image.edges, strict=True):
            _put(file, f"edges_{axis}", edges, "m", f"faces of the voxels in {axis}")
        file.attrs.update(
            {
                "method": image.method,
                "units": "m",
                "axes": "z, x, y",
                "muons": image.n_muons,
                "exposure": image.exposure,
                "exposure_units": "muons / m^2",
                "settings": json.dumps(image.settings),
                "voxel": image.grid.size,
                "format": "diffdet voxel image",
                "format_version": FORMAT_VERSION,
                "diffdet": __version__,
            }
        )
    return buffer.getvalue()


def _put(file: Any, name: str, values: Tensor, unit: str, text: str) -> None:
    array = values.detach().cpu().numpy()
    dataset = file.create_dataset(
        name, data=array, chunks=array.shape, compression="gzip", shuffle=True, fletcher32=True
    )
    dataset.attrs.update({"units": unit, "description": text})


def save_image(image: VoxelImage, path: str | Path) -> None:
    """Write an image as HDF5, whole or not at all.

    Raises:
        StorageError: If it cannot be written.
    """
    write_bytes(path, image_to_bytes(image))


def read_image(path: str | Path) -> VoxelImage:
    """Read an image that `save_image` wrote.

    Raises:
        StorageError: If there is no such file; `FileDamagedError` if it cannot be read.
        InputError: If it is no voxel image, or of a later version.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise StorageError(f"image {path} does not exist")
    with reading(path, "HDF5"), h5py.File(path, "r", locking=False) as file:
        attributes: dict[str, Any] = dict(file.attrs)
        if attributes.get("format") != "diffdet voxel image":
            raise InputError(f"{path} must be a voxel image that diffdet wrote; its attribute `format` says otherwise")
        version = int(attributes["format_version"])
        if version > FORMAT_VERSION:
            written = attributes.get("diffdet", "a later version")
            raise InputError(
                f"{path} was written by diffdet {written} in format {version}; this one reads {FORMAT_VERSION}"
            )
        arrays: dict[str, Any] = {
            name: checked_dataset(file, name, path)[()]
            for name in (*_CUBES, "edges_x", "edges_y", "edges_z")
            if name not in ("x0", "x0_unc")
        }
        edges = [arrays[f"edges_{axis}"] for axis in "xyz"]
        grid = make_grid([e[0] for e in edges], [e[-1] for e in edges], float(attributes["voxel"]))
        settings = json.loads(attributes["settings"])
        method, n_muons = str(attributes["method"]), int(attributes["muons"])
    nx, ny, nz = grid.counts
    for name in _CUBES:
        if name in arrays and arrays[name].shape != (nz, nx, ny):
            raise InputError(
                f"{path}: `{name}` must have shape {(nz, nx, ny)}, as the edges say; got {arrays[name].shape}"
            )
    return VoxelImage(
        grid=grid,
        **{name: torch.from_numpy(arrays[name]) for name in _CUBES if name in arrays},
        method=method,
        n_muons=n_muons,
        settings=settings,
    )


def save_vtk(image: VoxelImage, path: str | Path) -> None:
    """Write an image as a legacy VTK file of structured points, which ParaView, VisIt and PyVista read.

    Values belong to cells: ``x0`` and ``x0_unc`` in m (NaN where unknown or infinite), ``inverse_x0`` in 1/m,
    ``counts``.

    Raises:
        StorageError: If it cannot be written.
    """
    nx, ny, nz = image.grid.counts
    low, size = image.grid.low, image.grid.size
    header = [
        "# vtk DataFile Version 3.0",
        f"diffdet {__version__} voxel image, method {image.method}, {image.n_muons} muons, lengths in m",
        "BINARY",
        "DATASET STRUCTURED_POINTS",
        f"DIMENSIONS {nx + 1} {ny + 1} {nz + 1}",
        f"ORIGIN {low[0]!r} {low[1]!r} {low[2]!r}",
        f"SPACING {size!r} {size!r} {size!r}",
        f"CELL_DATA {image.grid.n_voxels}",
    ]
    parts = ["\n".join(header).encode() + b"\n"]
    for name in ("x0", "x0_unc", "inverse_x0", "counts"):
        values = getattr(image, name).detach().cpu().numpy().astype(np.float64)
        values = np.where(np.isfinite(values), values, np.nan)
        # VTK runs over x fastest, then y, then z, and is big-endian.
        parts.append(f"SCALARS {name} double 1\nLOOKUP_TABLE default\n".encode())
        parts.append(values.transpose(0, 2, 1).astype(">f8").tobytes() + b"\n")
    write_bytes(path, b"".join(parts))
