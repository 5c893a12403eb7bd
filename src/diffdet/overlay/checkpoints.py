"""Where the weights of a generator are: a path, a folder of payloads with checksums, or the package itself.

Needs the standard library only; no torch, no network.
"""

from __future__ import annotations

import hashlib
import os
import re
from importlib import resources
from pathlib import Path
from typing import Final

from diffdet.core.errors import CheckpointError, FileDamagedError, StorageError

__all__ = ["CHECKSUMS", "FOLDER_VARIABLE", "PAYLOAD", "find_checkpoint", "payload_name", "verified_payload"]

PAYLOAD: Final = "PXDBackgroundGenerator_{model}"
"""Name of a payload of the conditions database, by the name of the model."""

CHECKSUMS: Final = "SHA256SUMS"
"""File in a folder of payloads: lines of a checksum in hexadecimal, two spaces and a name, as `sha256sum` writes."""

FOLDER_VARIABLE: Final = "DIFFDET_PXD_PAYLOADS"
"""Variable of the environment that names a folder of payloads."""

_SHIPPED: Final = {"clusters": ("diffdet.overlay.clusters", "clusters.safetensors")}
"""Weights that come with the package: where they lie, by the name of the model."""

_LINE: Final = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")


def payload_name(model: str) -> str:
    """Name of a model's payload in the conditions database.

    Example:
        >>> payload_name("convnet")
        'PXDBackgroundGenerator_convnet'
    """
    return PAYLOAD.format(model=model)


def find_checkpoint(
    model: str, checkpoint: str | os.PathLike[str] | None = None, *, folder: str | os.PathLike[str] | None = None
) -> Path:
    """Where the weights of a model are.

    In this order: the path, if one is given; the folder of payloads, if one is given or named in the environment; the
    package, for models whose weights come with it.

    Args:
        model: Name of the model.
        checkpoint: Path of a file.
        folder: Folder of payloads, as `verified_payload` wants it; that of `FOLDER_VARIABLE` when None.

    Returns:
        The path of a file that exists.

    Raises:
        StorageError: If the file or folder that was named is not there.
        FileDamagedError: If a payload's checksum is not that of the folder's list.
        CheckpointError: If there are no weights anywhere; the message says how to get some.
    """
    if checkpoint is not None:
        path = Path(checkpoint)
        if not path.is_file():
            raise StorageError(f"`checkpoint` must be a file; there is none at `{path}`")
        return path
    folder = folder or os.environ.get(FOLDER_VARIABLE) or None
    if folder is not None:
        return verified_payload(model, folder)
    if model in _SHIPPED:
        package, name = _SHIPPED[model]
        path = Path(str(resources.files(package).joinpath(name)))
        if path.is_file():
            return path
    raise CheckpointError(
        f"no weights of {model!r} come with the package. Give `checkpoint`, a file such as the payload "
        f"{payload_name(model)} of the conditions database (inside basf2 it is found by itself); or set "
        f"{FOLDER_VARIABLE} to a folder with that payload and a list {CHECKSUMS}; or train some: "
        f"diffdet background train. The generator 'clusters' has weights of its own"
    )


def verified_payload(model: str, folder: str | os.PathLike[str]) -> Path:
    """The payload of a model in a folder, after comparing its checksum with the folder's list.

    Args:
        model: Name of the model.
        folder: Holds files called as in `payload_name`, with any suffix, and `CHECKSUMS`.

    Raises:
        StorageError: If the folder, the list or the payload is not there, or the list cannot be read.
        FileDamagedError: If the checksum differs.
    """
    place = Path(folder)
    if not place.is_dir():
        raise StorageError(f"the folder of payloads `{place}` does not exist")
    listed = _checksums(place / CHECKSUMS)
    wanted = payload_name(model)
    names = [name for name in listed if name == wanted or name.startswith(f"{wanted}.")]
    if len(names) != 1:
        found = ", ".join(sorted(listed)) or "nothing"
        problem = "has no payload" if not names else f"has {len(names)} payloads"
        raise StorageError(f"`{place / CHECKSUMS}` {problem} {wanted}; it lists {found}")
    path = place / names[0]
    if Path(names[0]).name != names[0]:
        raise StorageError(f"`{place / CHECKSUMS}` must name files of its own folder; it names {names[0]!r}")
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"cannot read the payload `{path}`: {error.strerror or error}") from error
    if digest != listed[names[0]]:
        raise FileDamagedError(
            f"the payload `{path}` is not the one that `{CHECKSUMS}` lists: its SHA-256 is {digest}, listed is "
            f"{listed[names[0]]}. Fetch it again"
        )
    return path


def _checksums(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(
            f"cannot read the list of checksums `{path}`: {error}. Make it with: sha256sum PXD* > {CHECKSUMS}"
        ) from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise StorageError(f"line {number} of `{path}` must be a SHA-256, two spaces and a name; got {line[:80]!r}")
        found[match[2]] = match[1].lower()
    return found
