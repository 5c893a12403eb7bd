"""diffdet: differentiable detectors, from the particle to the design that measures it best.

Its wings are `diffdet.tomography`, muon tomography whose detector is optimised by gradient descent; `diffdet.nn`,
network blocks for physics data and their training; and `diffdet.overlay`, the background of a pixel detector generated
on the fly. A wing is loaded when it is first named, so that the command line can answer `--help` without loading torch;
nothing heavier than torch is ever loaded by importing a wing.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from diffdet._version import __version__ as __version__

if TYPE_CHECKING:
    from diffdet import nn as nn
    from diffdet import overlay as overlay
    from diffdet import tomography as tomography

WINGS: tuple[str, ...] = ("nn", "overlay", "tomography")
"""Names of the wings that this release contains, each importable as `diffdet.<wing>`."""


def __getattr__(name: str) -> ModuleType:
    """Load a wing when it is first named."""
    if name in WINGS:
        return importlib.import_module(f"diffdet.{name}")
    raise AttributeError(f"module 'diffdet' has no attribute {name!r}; its wings are {', '.join(WINGS)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *WINGS])
