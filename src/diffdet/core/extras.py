"""Optional dependencies: imported when they are needed, with one clear line when they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from diffdet.core.errors import MissingExtraError


def require(module: str, extra: str, what: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: Name of the module, for example ``"uproot"``.
        extra: The extra of this package that brings it, for example ``"root"``.
        what: What it is needed for, for example ``"reading ROOT files"``.

    Returns:
        The module.

    Raises:
        MissingExtraError: If it is not installed; the message ends with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise  # the module is there, but something that it needs is not: that is another problem
        raise MissingExtraError(what, extra) from error
