"""The worker of the published package `lumin`, to be run by the Python of its own virtual environment.

It drives the package through its documented interface only, by the same lines that drive diffdet. Importing its blocks
loads libraries for plotting and interpretation that its own installation does not bring, or not in a version that still
fits; those get empty modules in their place, since no block uses them.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.tracebacklimit = 0  # a failure is reported by its message; the peer's own lines are none of our business
warnings.filterwarnings("ignore")

EMPTY = ("pdpbox", "rfpimp", "statsmodels", "torch_geometric", "seaborn", "fastprogress", "prettytable", "sparse")


class Anything(types.ModuleType):
    """A module in which every name exists and does nothing."""

    __path__: list[str] = []  # noqa: RUF012 - what makes a module a package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda *_, **__: None})


class Empty(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives empty modules in the place of libraries that are not installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """An empty module for a name of the list, whatever else is asked."""
        del path, target
        return importlib.machinery.ModuleSpec(fullname, self) if fullname.split(".")[0] in EMPTY else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """A module in which every name exists."""
        return Anything(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


sys.meta_path.append(Empty())  # behind those that find what is installed

from _nn_worker import serve  # noqa: E402  (the path above comes first)

if __name__ == "__main__":
    serve("lumin.nn", "lumin", "OldInteractionNet")
