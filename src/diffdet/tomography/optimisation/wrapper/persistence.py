"""Detectors and optimisers in one file."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch.optim import Optimizer

from diffdet.core.errors import CheckpointError, FileDamagedError
from diffdet.loop import packing
from diffdet.loop.update import load_optimisers
from diffdet.tomography.optimisation.step import load_volume
from diffdet.tomography.volume.volume import Volume

__all__ = ["load_wrapper", "save_wrapper"]

KIND: Final = "volume wrapper"

_FOREIGN = (b"PK\x03\x04", b"\x80")
"""How files begin that `torch.save` wrote: a zip archive, or in older versions a bare pickle."""


def save_wrapper(name: str | Path, volume: Volume, opts: Mapping[str, Optimizer]) -> None:
    """Save a volume's parameters and its optimisers; see `AbsVolumeWrapper.save`."""
    state = {"volume": volume.state_dict(), "opts": {name: opt.state_dict() for name, opt in opts.items()}}
    packing.save_file(name, state, KIND)


def load_wrapper(name: str | Path, volume: Volume, opts: Mapping[str, Optimizer]) -> None:
    """Load a volume's parameters and its optimisers; see `AbsVolumeWrapper.load`."""
    path = Path(name)
    data = packing.read_bytes(path)
    foreign = data.startswith(_FOREIGN) and not packing.looks_like_safetensors(data)
    state = _read_foreign(data, path) if foreign else packing.load_file(path, KIND)
    # The volume is loaded last: a file whose optimisers do not fit leaves it as it was.
    load_optimisers(opts, state["opts"])
    load_volume(volume, state["volume"])


def _read_foreign(data: bytes, path: Path) -> dict[str, Any]:
    """State of a wrapper that `torch.save` wrote: the volume, and optimisers under their names beside it.

    Nothing in the file is executed: only tensors and plain values are accepted.
    """
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch raises for a file that is broken or holds more than tensors
        raise FileDamagedError(f"`{path}` is damaged, or holds more than tensors and plain values: {error}") from error
    if not isinstance(state, dict) or "volume" not in state:
        raise CheckpointError(f"`{path}` must hold the state of a wrapper: a dict with the key 'volume'")
    opts = {name: value for name, value in state.items() if isinstance(value, dict) and "param_groups" in value}
    return {"volume": state["volume"], "opts": opts}
