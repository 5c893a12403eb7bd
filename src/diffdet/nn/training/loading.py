"""Weights into networks, with a message for every key that does not fit; and files that hold weights, never code."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from diffdet.core.errors import CheckpointError, FileDamagedError
from diffdet.loop import packing

__all__ = ["FOREIGN", "compare_keys", "load_state", "read_foreign", "read_state"]

FOREIGN: Final = (b"PK\x03\x04", b"\x80")
"""How files begin that `torch.save` wrote: a zip archive, or in older versions a bare pickle."""


def compare_keys(module: nn.Module, state: Mapping[str, Any]) -> list[str]:
    """What is different between the keys of a module and those of a saved state, one line for each.

    Args:
        module: Where the state is to go.
        state: The state.

    Returns:
        Lines about missing, unexpected and misshaped keys; empty where everything fits.
    """
    own = module.state_dict()
    lines = [f"missing {key!r}: expected shape {tuple(own[key].shape)}" for key in own if key not in state]
    for key, value in state.items():
        shape = tuple(value.shape) if isinstance(value, Tensor) else None
        if key not in own:
            lines.append(f"unexpected {key!r}" + (f": shape {shape}" if shape is not None else ""))
        elif shape is None:
            lines.append(f"misshaped {key!r}: expected a tensor, got {type(value).__name__}")
        elif shape != tuple(own[key].shape):
            lines.append(f"misshaped {key!r}: expected shape {tuple(own[key].shape)}, got {shape}")
    return lines


def load_state(module: nn.Module, state: Mapping[str, Any], where: str) -> None:
    """Give a module its saved parameters and buffers; it is untouched where they do not fit.

    Args:
        module: Where the state is to go.
        state: The state.
        where: Where it came from, for the message.

    Raises:
        CheckpointError: If keys are missing, unexpected or misshaped; every one is listed.
    """
    before = {key: value.clone() for key, value in module.state_dict().items()}
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        module.load_state_dict(before)  # torch fills what fits before it refuses
        lines = compare_keys(module, state) or [str(error)]
        raise CheckpointError(f"`{where}` does not fit the network:\n  " + "\n  ".join(lines)) from error


def read_foreign(data: bytes, path: Path) -> Any:
    """Content of a file of `torch.save`: tensors, arrays of numbers and plain values. Nothing in it is executed.

    Raises:
        FileDamagedError: If it is broken or holds anything else.
    """
    types = [type(np.dtype(kind)) for kind in (*np.typecodes["AllInteger"], *np.typecodes["Float"], "?")]
    scalar = np.float64(0.0).__reduce__()[0]  # how NumPy rebuilds a number, and an array, from its bytes
    rebuild = np.zeros(1).__reduce__()[0]
    names = {"scalar": scalar, "_reconstruct": rebuild}
    allowed: list[Any] = [np.dtype, np.ndarray, scalar, rebuild, *types]
    allowed += [(function, f"numpy.core.multiarray.{name}") for name, function in names.items()]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch raises for a file that is broken or holds more than that
        raise FileDamagedError(f"`{path}` is damaged, or holds more than tensors and plain values: {error}") from error


def read_state(path: str | Path, kind: str) -> Any:
    """Content of a file that the library saved, or that `torch.save` wrote.

    Args:
        path: The file.
        kind: What it must hold, for example ``"nn model"``.

    Raises:
        StorageError: If it is missing or cannot be read.
        FileDamagedError: If it is broken or holds more than weights.
        CheckpointError: If it holds something else.
    """
    place = Path(path)
    data = packing.read_bytes(place)
    if data.startswith(FOREIGN) and not packing.looks_like_safetensors(data):
        return read_foreign(data, place)
    return packing.load_file(place, kind)
