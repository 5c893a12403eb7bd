"""Weights of networks from files, as tensors only: nothing that a file holds is ever executed.

A file is a bare state dict, as `torch.save` or safetensors write it. Every name and shape has to be right; what is
missing, unexpected or misshaped is listed.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from diffdet.core.checks import check_choice
from diffdet.core.errors import CheckpointError, FileDamagedError, InputError, StorageError
from diffdet.overlay.sensors import PXD, SensorLayout

__all__ = ["LARGEST_FILE", "WeightFile", "class_order_of", "load_weights", "read_weights"]

LARGEST_FILE: Final = 4 << 30
"""Larger files are no weights of ours, bytes."""

_SHOWN: Final = 8
_ZIP: Final = b"PK\x03\x04"
# Names of parts of networks that have been renamed since weights were published.
_RENAMED: Final = {"transG": "RR_G", "transcoder": "RR_D"}


@dataclass(frozen=True)
class WeightFile:
    """What a file of weights holds.

    Attributes:
        path: Of the file.
        state: Tensors by name.
        metadata: Texts by name, where the kind of file has them.
        sha256: Of the whole file, in hexadecimal.
    """

    path: Path
    state: dict[str, Tensor]
    metadata: dict[str, str]
    sha256: str


def read_weights(path: str | Path) -> WeightFile:
    """Read the tensors of a file.

    Args:
        path: Of a state dict that `torch.save` wrote, or of a safetensors file; told apart by what they begin with.

    Raises:
        StorageError: If there is no such file, it cannot be read, or it is too large.
        FileDamagedError: If it is truncated or otherwise not what was written.
        CheckpointError: If it holds anything but tensors by name: such files are refused, not executed.
    """
    place = Path(path)
    try:
        size = place.stat().st_size
        if not place.is_file():
            raise StorageError(f"`{place}` must be a file of weights; it is a folder or device")
        if size > LARGEST_FILE:
            raise StorageError(f"`{place}` has {size:,} bytes; files of weights have at most {LARGEST_FILE:,}")
        with open(place, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            head = file.read(9)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"cannot read `{place}`: {error.strerror or error}") from error
    if len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < size:
        state, metadata = _read_safetensors(place)
    else:
        state, metadata = _read_torch(place, head, size), {}
    return WeightFile(place, state, metadata, sha256)


def _read_safetensors(place: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(place, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, ValueError, json.JSONDecodeError) as error:
        raise FileDamagedError(f"`{place}` is not a whole safetensors file: {error}") from error


def _read_torch(place: Path, head: bytes, size: int) -> dict[str, Tensor]:
    if head.startswith(_ZIP):
        _check_archive(place, size)
    try:
        loaded: object = torch.load(place, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch has no common class for what it refuses; whatever it is, nothing of the file was executed.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if type(error).__name__ == "UnpicklingError" and head.startswith((_ZIP, b"\x80")):
            raise CheckpointError(
                f"`{place}` was refused: it holds something other than tensors, and nothing of it was executed "
                f"({reason}). A file of weights is a bare state dict: torch.save(model.state_dict(), path)"
            ) from error
        raise FileDamagedError(f"`{place}` is not a whole file of weights: {reason}") from error
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"`{place}` must hold tensors by name; it holds {type(loaded).__name__}")
    inner = [name for name, value in loaded.items() if isinstance(value, Mapping)]
    if inner:
        raise CheckpointError(
            f"`{place}` must be a bare state dict; it is a wrapper around {', '.join(map(repr, inner[:_SHOWN]))}. "
            f"Save that part alone: torch.save(torch.load(path, weights_only=True)[{inner[0]!r}], new_path)"
        )
    wrong = [f"{name!r} ({type(value).__name__})" for name, value in loaded.items() if not isinstance(value, Tensor)]
    wrong += [f"{name!r} (a name that is no text)" for name in loaded if not isinstance(name, str)]
    if wrong:
        raise CheckpointError(f"`{place}` must hold tensors by name only; it also holds {_listing(wrong)}")
    return dict(loaded)


def _check_archive(place: Path, size: int) -> None:
    """Refuse archives that unpack to more than they are: `torch.save` compresses nothing."""
    try:
        with zipfile.ZipFile(place) as archive:
            total = sum(member.file_size for member in archive.infolist())
            packed = [member.filename for member in archive.infolist() if member.compress_type != zipfile.ZIP_STORED]
    except zipfile.BadZipFile as error:
        raise FileDamagedError(f"`{place}` is not a whole file of weights: {error}") from error
    if packed or total > size:
        raise CheckpointError(
            f"`{place}` was refused: it unpacks to {total:,} bytes from {size:,}; files of weights are not compressed"
        )


def load_weights(model: nn.Module, weights: WeightFile, *, name: str) -> None:
    """Put the tensors of a file into a network, all of them or none.

    Args:
        model: The network; its own state says what is expected.
        weights: From `read_weights`.
        name: Of the network, for the message.

    Raises:
        CheckpointError: If keys are missing, unexpected or misshaped, or numbers are not finite; the message lists
            them.
    """
    state = {_renamed(key): tensor for key, tensor in weights.state.items()}
    expected = model.state_dict()
    faults = []
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    common = [key for key in expected if key in state]
    misshaped = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in common
        if state[key].shape != expected[key].shape
    ]
    mistyped = [
        f"{key} is {state[key].dtype}, expected {expected[key].dtype}"
        for key in common
        if state[key].is_floating_point() != expected[key].is_floating_point() or state[key].is_complex()
    ]
    for what, found in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("misshaped", misshaped),
        ("of another kind of number", mistyped),
    ):
        if found:
            faults.append(f"{len(found)} {what}: {_listing(found)}")
    if not faults:
        broken = [key for key in common if not bool(torch.isfinite(state[key]).all())]
        negative = [key for key in common if key.endswith("_var") and bool((state[key] < 0).any())]
        if broken:
            faults.append(f"{len(broken)} with numbers that are not finite: {_listing(broken)}")
        if negative:
            faults.append(f"{len(negative)} with negative variances: {_listing(negative)}")
    if faults:
        raise CheckpointError(
            f"`{weights.path}` does not hold the weights of {name} ({len(expected)} keys): {'; '.join(faults)}"
            f"{_hint(missing, unexpected)}"
        )
    model.load_state_dict({key: state[key].to(expected[key].dtype) for key in expected}, strict=True)


def _renamed(key: str) -> str:
    first, dot, rest = key.partition(".")
    return _RENAMED.get(first, first) + dot + rest


def _hint(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """What is probably the matter, where that is plain."""
    for key in unexpected:
        for prefix in ("module.", "model.", "generator.", "_orig_mod."):
            if key.startswith(prefix) and key.removeprefix(prefix) in missing:
                return f". The keys begin with {prefix!r}, which a wrapper around the network added: cut it off"
    return ""


def _listing(found: Sequence[str]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def class_order_of(order: str | Iterable[str], layout: SensorLayout = PXD) -> Tensor:
    """The label that weights use for each sensor.

    Args:
        order: ``"numeric"``: label i is sensor i. ``"lexicographic"``: labels count the names sorted as strings, in
            which ``"2.10.1"`` comes before ``"2.2.1"``; published weights of ieagan do that. Or the names of all
            sensors in the order of their labels.
        layout: The sensors.

    Returns:
        ``(sensor,)`` label of each sensor, int64.

    Raises:
        InputError: If it is no order of all sensors.
    """
    if isinstance(order, str):
        check_choice("class_order", order, ("numeric", "lexicographic"))
        names: Sequence[Any] = layout.names if order == "numeric" else layout.lexicographic_names
    else:
        names = list(order)
    if sorted(map(str, names)) != sorted(layout.names):
        strange = sorted(set(map(str, names)) - set(layout.names))
        absent = sorted(set(layout.names) - set(map(str, names)))
        raise InputError(
            f"`class_order` must name each of the {len(layout)} sensors once; got {len(names)} names"
            + (f", unknown: {_listing(strange)}" if strange else "")
            + (f", absent: {_listing(absent)}" if absent else "")
        )
    label = torch.empty(len(layout), dtype=torch.int64)
    label[torch.tensor([layout.by_name(name).index for name in names])] = torch.arange(len(layout))
    return label
