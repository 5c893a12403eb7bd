"""The neutral format: what its files share, and which file is written for which name.

One entry an event: its number, and lists of `sensor` (0 to 39), `ucell`, `vcell` and `charge` (1 to 255 ADU) sorted by
sensor, v and u. In ROOT files a TTree `tree` or an RNTuple `events`, in Parquet files rows, in HDF5 files flat columns
with offsets. Beside it stands a JSON text that says where the events come from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Protocol

import torch

from diffdet._version import __version__
from diffdet.core.checks import check_choice
from diffdet.core.errors import FileDamagedError, InputError, VersionError
from diffdet.overlay.digits import Digits
from diffdet.overlay.sensors import PXD, SensorLayout

__all__ = [
    "FORMAT",
    "KINDS",
    "DigitsFile",
    "checked",
    "digits_writer",
    "kind_of",
    "metadata_from_text",
    "metadata_text",
]

FORMAT: Final = "diffdet-background"
VERSION: Final = 1

KINDS: Final = {"ttree": ".root", "rntuple": ".root", "parquet": ".parquet", "hdf5": ".h5"}
"""Kinds of files and their suffix."""

_SUFFIXES: Final = {".root": "ttree", ".parquet": "parquet", ".pq": "parquet", ".h5": "hdf5", ".hdf5": "hdf5"}


class DigitsFile(Protocol):
    """A file that takes events, block by block."""

    def write(self, digits: Digits) -> None:
        """Append events."""


def kind_of(path: str | Path) -> str:
    """The kind of file that a name asks for.

    Raises:
        InputError: If the suffix is none of ours.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(f"`path` must end in one of {', '.join(_SUFFIXES)}; got {str(path)!r}")
    return _SUFFIXES[suffix]


def digits_writer(
    path: str | Path,
    metadata: Mapping[str, Any] | None = None,
    *,
    kind: str | None = None,
    layout: SensorLayout = PXD,
) -> AbstractContextManager[DigitsFile]:
    """Write events to a file of the neutral format.

    The file appears when the block ends well, whole; until then, and for ever when it raises, what was there stays.

    Args:
        path: Where to.
        metadata: Where the events come from: anything that JSON can hold. Documented names are `source`
            (``"geant4-overlay"``, ``"random-trigger"``, ``"standin"`` or ``"generated"``), `generator`,
            `weights_sha256`, `seed`, `experiment`, `run`, `luminosity`, `threshold`, `licence` and `conditions`.
        kind: One of `KINDS`; by the suffix when None, and TTree for ``.root``.
        layout: The sensors.

    Returns:
        A context whose value has a method `write`.

    Raises:
        InputError: If neither name nor kind say what to write.
        MissingExtraError: If a library is not installed that is needed for this kind of file.
        StorageError: If the file cannot be written.

    Example:
        >>> import tempfile, pathlib
        >>> from diffdet.overlay.io.source import read_events
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "events.h5"
        >>> with digits_writer(path, {"source": "generated"}) as file:
        ...     file.write(Digits.empty([1, 2]))
        >>> read_events(path).numbers
        tensor([1, 2])
    """
    found = kind_of(path) if kind is None else kind
    check_choice("kind", found, KINDS)
    text = metadata_text(metadata or {}, layout)
    if found in ("ttree", "rntuple"):
        from diffdet.overlay.io.neutral_root import write_root

        return write_root(path, text, kind=found)
    if found == "parquet":
        from diffdet.overlay.io.neutral_parquet import write_parquet

        return write_parquet(path, text)
    from diffdet.overlay.io.neutral_hdf5 import write_hdf5

    return write_hdf5(path, text)


def metadata_text(metadata: Mapping[str, Any], layout: SensorLayout) -> str:
    """The JSON text of a file, with format, version, sensors and the version of this package.

    Raises:
        InputError: If JSON cannot hold the metadata.
    """
    whole = {
        **metadata,
        "format": FORMAT,
        "format_version": VERSION,
        "geometry": layout.name,
        "sensors": list(layout.names),
        "writer": f"diffdet {__version__}",
    }
    try:
        return json.dumps(whole, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"`metadata` must be what JSON can hold: {error}") from error


def metadata_from_text(text: str | None, path: Path) -> dict[str, Any]:
    """What a file says about itself.

    Raises:
        FileDamagedError: If it says nothing, or no JSON.
        VersionError: If a newer version of this package wrote it.
    """
    try:
        found = json.loads(text or "")
    except ValueError as error:
        raise FileDamagedError(f"`{path}` must carry metadata as JSON; it does not: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise FileDamagedError(f"`{path}` must carry metadata of the format {FORMAT!r}; it does not")
    version = found.get("format_version")
    if not isinstance(version, int) or version > VERSION:
        raise VersionError(
            f"`{path}` has format version {version}, written by {found.get('writer')}; this is diffdet {__version__}, "
            f"which reads up to {VERSION}. Install a newer one"
        )
    if found.get("sensors") != list(PXD.names):
        raise InputError(f"`{path}` must hold the sensors of {PXD.name}; it holds others: {found.get('geometry')!r}")
    return found


def checked(path: Path, numbers: torch.Tensor, offsets: torch.Tensor, columns: Mapping[str, torch.Tensor]) -> Digits:
    """Digits of the columns of a block.

    Args:
        path: Of the file, for the message.
        numbers: ``(event,)``.
        offsets: ``(event + 1,)`` where the digits of each event begin.
        columns: `sensor`, `ucell`, `vcell` and `charge`, flat.

    Raises:
        FileDamagedError: If a value is out of range, or offsets and columns do not fit.
    """
    sizes = {len(column) for column in columns.values()}
    counts = offsets.diff()
    if sizes != {int(offsets[-1] - offsets[0])} or bool((counts < 0).any()):
        raise FileDamagedError(f"`{path}` is damaged: columns of {sorted(sizes)} digits do not fit the events' offsets")
    event = torch.repeat_interleave(counts)
    try:
        return Digits.from_columns(
            event, columns["sensor"], columns["ucell"], columns["vcell"], columns["charge"], numbers=numbers
        )
    except InputError as error:
        raise FileDamagedError(f"`{path}` is damaged: {error}") from error
