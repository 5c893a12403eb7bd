"""The exceptions and warnings that diffdet raises on purpose.

Every message says what was expected, what was given and, where it is known, what to do; arguments stand in backticks.

```
DiffdetError
├── InputError (ValueError)         what the caller gave cannot be used
│   ├── ShapeError                  a tensor has the wrong shape
│   └── GeometryError               layers, panels or voxels do not fit together
├── NoHitsError                     no muon left enough hits to go on
├── NotSupportedError               a combination that has no meaning or no implementation
├── StorageError (OSError)          a file or folder cannot be read or written
│   ├── FileDamagedError            its content is not what was written
│   └── LockedError                 another process holds it
├── CheckpointError                 a checkpoint does not fit what it is loaded into
│   └── VersionError                it was written in a format that this version does not read
├── MissingExtraError (ImportError) an optional dependency is not installed
└── NonFiniteError (ArithmeticError) a number stopped being finite while running

PhysicsWarning (UserWarning)        suspicious physics: the result may not be what was meant
├── NoMuonsWarning                  no muon is left
└── GeometryWarning                 panels outside their layer, gaps, overlaps
```
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class DiffdetError(Exception):
    """Base of everything that diffdet raises on purpose."""


class InputError(DiffdetError, ValueError):
    """What the caller gave cannot be used."""


class ShapeError(InputError):
    """A tensor has the wrong number of axes or the wrong size along one of them."""


class GeometryError(InputError):
    """Layers, panels or voxels do not fit together."""


class NoHitsError(DiffdetError):
    """No muon left enough hits to go on."""


class NotSupportedError(DiffdetError):
    """A combination of arguments that has no meaning or no implementation."""


class StorageError(DiffdetError, OSError):
    """A file or folder cannot be read or written: missing, read-only, full, or not a file of the expected kind."""


class FileDamagedError(StorageError):
    """The content of a file is not what was written: truncated, or its checksum differs."""


class LockedError(StorageError):
    """Another process holds the file or folder."""


class CheckpointError(DiffdetError):
    """A checkpoint does not fit the object that it is loaded into."""


class VersionError(CheckpointError):
    """A file was written in a format that this version does not read."""


class MissingExtraError(DiffdetError, ImportError):
    """An optional dependency is not installed.

    Args:
        what: What cannot be done without it, for example ``"reading ROOT files"``.
        extra: The extra of this package that brings the dependency, for example ``"root"``.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f'{what} needs: pip install "diffdet[{extra}]"')
        self.extra = extra


class NonFiniteError(DiffdetError, ArithmeticError):
    """A number stopped being finite while running.

    Args:
        message: What became non-finite, where, and what caused it.
        details: Whatever helps to reproduce it: operation, muon ids, parameters, the key of the random stream.
    """

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details: dict[str, Any] = dict(details or {})


class PhysicsWarning(UserWarning):
    """Suspicious physics: the computation goes on, but its result may not be what was meant."""


class NoMuonsWarning(PhysicsWarning):
    """No muon is left, so what follows is empty."""


class GeometryWarning(PhysicsWarning):
    """Panels outside their layer, gaps between layers, or muons that start outside the volume."""
