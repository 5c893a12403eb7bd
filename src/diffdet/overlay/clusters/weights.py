"""What the generator `clusters` has learned, as tensors in one safetensors file with a description."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from diffdet.core.errors import CheckpointError, InputError
from diffdet.core.storage import replacing
from diffdet.overlay.clusters.roles import N_ROLES, SIZE_CLASSES
from diffdet.overlay.sensors import PXD

__all__ = ["FORMAT", "N_DRAWS", "N_GROUPS", "N_QUANTILES", "U_BINS", "V_BINS", "ClusterWeights", "default_path"]

FORMAT: Final = "diffdet-clusters/1"

N_GROUPS: Final = 4
"""Kinds of sensors: layer and side."""

N_DRAWS: Final = 1 << 17
"""Probabilities of shapes are multiples of one over this."""

N_QUANTILES: Final = 256
"""Charges to a role, at equal steps of a normal number from -4 to 4."""

U_BINS: Final = 25
V_BINS: Final = 48
"""Bins of the profiles of positions; the step of the pitch lies on an edge of them."""

_SHAPES: Final = {
    "rate": (torch.float32, (len(PXD),)),
    "mixing": (torch.float32, (len(PXD), len(PXD))),
    "profile_u": (torch.float32, (N_GROUPS, U_BINS)),
    "profile_v": (torch.float32, (N_GROUPS, V_BINS)),
    "shape_draws": (torch.int32, (N_GROUPS, None)),
    "shape_size": (torch.int16, (None,)),
    "shape_u": (torch.uint8, (None,)),
    "shape_v": (torch.uint8, (None,)),
    "charge": (torch.uint8, (N_GROUPS, N_ROLES, N_QUANTILES)),
    "common": (torch.float32, (N_GROUPS, len(SIZE_CLASSES))),
    "opposed": (torch.float32, (N_GROUPS, len(SIZE_CLASSES))),
}


@dataclass(frozen=True)
class ClusterWeights:
    """Learned distributions.

    Attributes:
        rate: ``(sensor,)`` mean number of clusters in an event.
        mixing: ``(sensor, sensor)`` matrix that turns independent normal numbers of an event into changes of the rates:
            its square is the covariance between sensors beyond that of independent clusters.
        profile_u: ``(group, bin)`` share of clusters along u.
        profile_v: ``(group, bin)`` likewise along v.
        shape_draws: ``(group, shape)`` probability of every shape in units of 1 / `N_DRAWS`.
        shape_size: ``(shape,)`` pixels.
        shape_u: ``(shape pixel,)`` place of every pixel along u in the box of the shape.
        shape_v: ``(shape pixel,)`` likewise along v.
        charge: ``(group, role, quantile)`` charge, ADU.
        common: ``(group, size class)`` weight of what all pixels of a cluster share.
        opposed: ``(group, size class)`` weight of what neighbours share with opposite sign.
        about: Model card: data, metrics, licence, versions.
    """

    rate: Tensor
    mixing: Tensor
    profile_u: Tensor
    profile_v: Tensor
    shape_draws: Tensor
    shape_size: Tensor
    shape_u: Tensor
    shape_v: Tensor
    charge: Tensor
    common: Tensor
    opposed: Tensor
    about: Mapping[str, Any]

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {one.name: getattr(self, one.name).contiguous() for one in fields(self) if one.name != "about"}

    def save(self, path: str | Path) -> str:
        """Write a file.

        Returns:
            Its SHA-256.
        """
        from safetensors.torch import save_file

        with replacing(path) as temporary:
            save_file(self.tensors(), str(temporary), {"format": FORMAT, "about": json.dumps(dict(self.about))})
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()

    @classmethod
    def load(cls, path: str | Path | None = None) -> ClusterWeights:
        """Read a file; nothing in it is executed.

        Args:
            path: The file; the weights that ship with the package where None.

        Raises:
            InputError: If there is no such file.
            CheckpointError: If it is damaged, of another kind, or its tensors are not those expected; the message lists
                those that are missing, unexpected or misshaped.
        """
        from safetensors import SafetensorError, safe_open

        found = default_path() if path is None else Path(path)
        if not found.is_file():
            raise InputError(f"`path` must be a file of weights of the generator 'clusters'; got {str(found)!r}")
        try:
            with safe_open(str(found), framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            about = json.loads(metadata.get("about", "{}"))
        except (SafetensorError, ValueError, OSError) as error:
            raise CheckpointError(f"{found}: expected weights of 'clusters' as safetensors: {error}") from error
        if metadata.get("format") != FORMAT:
            raise CheckpointError(f"{found}: expected the format {FORMAT!r}, found {metadata.get('format')!r}")
        _check(found, tensors)
        return cls(**tensors, about=about)


def default_path() -> Path:
    """Where the weights lie that ship with the package."""
    return Path(str(resources.files("diffdet.overlay.clusters") / "clusters.safetensors"))


def _check(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not those expected, and values with which nothing can be drawn."""
    wrong = [f"missing {name}" for name in _SHAPES if name not in tensors]
    wrong += [f"unexpected {name}" for name in tensors if name not in _SHAPES]
    for name, (dtype, shape) in _SHAPES.items():
        tensor = tensors.get(name)
        if tensor is None:
            continue
        fits = len(shape) == tensor.ndim and all(
            want in (None, have) for want, have in zip(shape, tensor.shape, strict=True)
        )
        if not fits or tensor.dtype != dtype:
            shown = tuple("any" if size is None else size for size in shape)
            wrong.append(f"{name}: expected {dtype} of shape {shown}, found {tensor.dtype} of {tuple(tensor.shape)}")
        elif dtype.is_floating_point and not bool(torch.isfinite(tensor).all()):
            wrong.append(f"{name}: expected finite numbers")
    if not wrong:
        draws, size = tensors["shape_draws"], tensors["shape_size"]
        if draws.shape[1] != len(size) or bool((draws < 0).any()) or bool((draws.sum(1) != N_DRAWS).any()):
            wrong.append(f"shape_draws: expected {len(size)} counts a group that sum to {N_DRAWS}")
        n_pixels = int(size.to(torch.int64).sum())
        if bool((size < 1).any()) or not len(tensors["shape_u"]) == len(tensors["shape_v"]) == n_pixels:
            wrong.append(f"shape_u, shape_v: expected the {n_pixels} pixels that shape_size counts")
        if bool((tensors["rate"] < 0).any()):
            wrong.append("rate: expected numbers of at least 0")
        if any(bool((tensors[name] < 0).any()) for name in ("profile_u", "profile_v")):
            wrong.append("profile_u, profile_v: expected numbers of at least 0")
        if bool((tensors["common"].square() + tensors["opposed"].square() > 1).any()):
            wrong.append("common, opposed: expected squares that sum to at most 1")
    if wrong:
        raise CheckpointError(f"{path} does not hold weights of 'clusters': {'; '.join(wrong)}")
