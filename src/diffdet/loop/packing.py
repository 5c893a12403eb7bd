"""Nested Python values as flat tensors and JSON, and back: what checkpoints consist of. Never pickle.

A tree is built of dicts, lists, tuples, None, booleans, integers, floats, strings, tensors and NumPy arrays. `pack`
takes the tensors out into one flat dict and leaves a JSON value behind that says where they go; `unpack` puts them
back. Everything returns exactly as it was: floats to the last bit, tuples as tuples, dicts with integer keys.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from diffdet._version import __version__
from diffdet.core import storage
from diffdet.core.errors import CheckpointError, FileDamagedError, StorageError, VersionError

__all__ = [
    "load_file",
    "looks_like_safetensors",
    "pack",
    "read_bytes",
    "save_file",
    "tensors_from_bytes",
    "tensors_to_bytes",
    "unpack",
]

FILE_FORMAT: Final = "diffdet-state"
FILE_VERSION: Final = 1

_MARK: Final = "$"
"""First character of the keys by which the JSON tells what JSON itself cannot."""


def pack(tree: Any, where: str = "state") -> tuple[dict[str, Tensor], Any]:
    """Take a tree apart.

    Args:
        tree: Nested dicts, lists and tuples of None, bool, int, float, str, tensors and NumPy arrays or scalars.
        where: Name of the tree, for messages.

    Returns:
        Tensors by name (detached, on the CPU, each with its own memory), and a value that `json.dumps` takes.

    Raises:
        CheckpointError: If something else is in the tree; the message says where and what.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _pack(tree, where, tensors)


def _pack(node: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, np.generic):
        node = node.item()
    if node is None or isinstance(node, bool | str):
        return node
    if isinstance(node, int):
        return int(node)
    if isinstance(node, float):
        return float(node) if math.isfinite(node) else {"$float": repr(float(node))}
    if isinstance(node, Tensor):
        tensors[where] = node.detach().to("cpu", copy=True).contiguous()
        return {"$tensor": where}
    if isinstance(node, np.ndarray):
        tensors[where] = torch.from_numpy(node.copy())
        return {"$array": where}
    if isinstance(node, Mapping):
        if all(isinstance(key, str) and not key.startswith(_MARK) for key in node):
            return {key: _pack(value, f"{where}.{key}", tensors) for key, value in node.items()}
        pairs = [[_pack(k, f"{where}.key", tensors), _pack(v, f"{where}.{k}", tensors)] for k, v in node.items()]
        return {"$items": pairs}
    if isinstance(node, list | tuple):
        items = [_pack(value, f"{where}.{i}", tensors) for i, value in enumerate(node)]
        return items if isinstance(node, list) else {"$tuple": items}
    raise CheckpointError(
        f"`{where}` cannot be saved: expected numbers, strings, tensors, arrays, and dicts, lists or tuples of them; "
        f"given {type(node).__name__}"
    )


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put a tree together again; the inverse of `pack`.

    Raises:
        CheckpointError: If a tensor that the JSON names is missing, or the JSON says something unknown.
    """
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if not any(key.startswith(_MARK) for key in value):
        return {key: unpack(item, tensors) for key, item in value.items()}
    if len(value) != 1:
        raise CheckpointError(f"a saved state holds an unknown entry with the keys {sorted(value)}")
    ((mark, content),) = value.items()
    if mark == "$float":
        return float(content)
    if mark == "$tuple":
        return tuple(unpack(item, tensors) for item in content)
    if mark == "$items":
        return {unpack(key, tensors): unpack(item, tensors) for key, item in content}
    if mark in ("$tensor", "$array"):
        if content not in tensors:
            raise CheckpointError(f"a saved state names the tensor {content!r}, which is not there")
        return tensors[content].clone() if mark == "$tensor" else tensors[content].clone().numpy()
    raise CheckpointError(f"a saved state holds an entry of the unknown kind {mark!r}")


def tensors_to_bytes(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Tensors as the content of a safetensors file."""
    return safetensors.torch.save(tensors, metadata)


def tensors_from_bytes(data: bytes, path: Path) -> dict[str, Tensor]:
    """Tensors from the content of a safetensors file.

    Args:
        data: Content of the file.
        path: Where it came from, for messages.

    Raises:
        FileDamagedError: If it is no safetensors file, or a truncated one.
    """
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError, OverflowError) as error:
        raise FileDamagedError(f"`{path}` is damaged or no safetensors file: {error}") from error


def looks_like_safetensors(data: bytes) -> bool:
    """Whether some content begins as a safetensors file does: the length of a JSON object, then that object."""
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8


def read_bytes(path: Path) -> bytes:
    """Content of an ordinary file.

    Raises:
        StorageError: If it is missing, a link or no file, or cannot be read.
    """
    try:
        if path.is_symlink() or not path.is_file():
            kind = "a link" if path.is_symlink() else "a folder" if path.is_dir() else "missing"
            raise StorageError(f"cannot read `{path}`: expected a file, it is {kind}")
        return path.read_bytes()
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"cannot read `{path}`: {error.strerror or error}") from error


def parse_json(text: bytes, path: Path) -> Any:
    """Value of a JSON text; anything wrong with it counts as damage.

    Raises:
        FileDamagedError: If it is no JSON, or nested deeper than Python can follow.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileDamagedError(f"`{path}` is damaged: its text is no JSON ({error})") from error


def check_version(path: Path, found: object, known: int, writer: object) -> None:
    """Refuse a format that a later version wrote.

    Raises:
        VersionError: If the version of the format is not one from 1 to `known`.
    """
    if not isinstance(found, int) or not 1 <= found <= known:
        raise VersionError(
            f"`{path}` was written by diffdet {writer} in format {found}; this is diffdet {__version__}, which reads "
            f"formats up to {known}: needs diffdet >= {writer}"
        )


def _digest(tensors: Mapping[str, Tensor], *texts: str) -> str:
    """SHA-256 over everything that a state file says."""
    sha = hashlib.sha256()
    for text in texts:
        sha.update(f"{len(text)}:{text}".encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        sha.update(f"{len(name)}:{name} {tensor.dtype} {list(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def save_file(path: str | Path, tree: Any, kind: str) -> None:
    """Save a tree as one file, atomically and durably.

    The file is an ordinary safetensors file: tensors under their place in the tree, everything else as JSON in its
    metadata, with a checksum over both and the version of the format.

    Args:
        path: Where to.
        tree: See `pack`.
        kind: What it is, for example ``"volume"``; `load_file` refuses another kind.

    Raises:
        StorageError: If it cannot be written.
        CheckpointError: If the tree holds something that cannot be saved.
    """
    tensors, value = pack(tree, kind)
    state = json.dumps(value, allow_nan=False)
    says = {"format": FILE_FORMAT, "format_version": str(FILE_VERSION), "diffdet": __version__, "kind": kind}
    metadata = {**says, "state": state, "sha256": _digest(tensors, *says.values(), state)}
    storage.write_bytes(path, tensors_to_bytes(tensors, metadata))


def load_file(path: str | Path, kind: str) -> Any:
    """Load a tree that `save_file` saved.

    Args:
        path: Where from.
        kind: What it must be.

    Returns:
        The tree; tensors on the CPU.

    Raises:
        StorageError: If the file is missing or cannot be read.
        FileDamagedError: If it is no such file, or not what was written.
        VersionError: If a later version wrote it.
        CheckpointError: If it is of another kind.
    """
    place = Path(path)
    data = read_bytes(place)
    tensors = tensors_from_bytes(data, place)
    metadata = _metadata(data, place)
    missing = {"format", "format_version", "diffdet", "kind", "state", "sha256"} - metadata.keys()
    if missing or metadata["format"] != FILE_FORMAT:
        raise FileDamagedError(f"`{place}` is damaged or was not written by diffdet: it does not say {sorted(missing)}")
    says = [metadata[key] for key in ("format", "format_version", "diffdet", "kind")]
    if _digest(tensors, *says, metadata["state"]) != metadata["sha256"]:
        raise FileDamagedError(f"`{place}` is damaged: its checksum differs from what was written")
    check_version(place, int(metadata["format_version"]), FILE_VERSION, metadata["diffdet"])
    if metadata["kind"] != kind:
        raise CheckpointError(f"`{place}` must hold the state of a {kind}; it holds that of a {metadata['kind']}")
    return unpack(parse_json(metadata["state"].encode(), place), tensors)


def _metadata(data: bytes, path: Path) -> dict[str, str]:
    """Metadata of a safetensors file whose header has already been found sound."""
    size = int.from_bytes(data[:8], "little")
    header = parse_json(data[8 : 8 + size], path)
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return metadata if isinstance(metadata, dict) else {}
