"""Overlay files of Belle II's software: digits of background, one entry of a TTree `tree` an event.

They are read without Belle II's software and without its dictionaries: an array of digits that was written split has
one branch for each member, and four of them are all that is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from diffdet.core.errors import DiffdetError, FileDamagedError, NotSupportedError, StorageError
from diffdet.core.extras import require
from diffdet.overlay.digits import Digits, tidy_columns
from diffdet.overlay.io.source import BLOCK, EventSource
from diffdet.overlay.sensors import PXD

__all__ = ["MEMBERS", "OverlaySource", "holds_overlay"]

MEMBERS: Final = {"sensor": "m_sensorID", "u": "m_uCellID", "v": "m_vCellID", "charge": "m_charge"}
"""Members of a digit that are read; others are left alone."""

_ARRAY: Final = "PXDDigits"
_EXTRA: Final = "root"


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    uproot = require("uproot", _EXTRA, "reading ROOT files")
    try:
        with uproot.open(path) as file:
            yield file
    except DiffdetError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise FileDamagedError(f"`{path}` is not a whole ROOT file: {reason}") from error


def holds_overlay(path: Path) -> bool:
    """Whether a ROOT file is one of Belle II's software: it has a TTree with an array of digits, or a `persistent` one.

    Raises:
        FileDamagedError: If it is no whole ROOT file.
        MissingExtraError: If uproot is not installed.
    """
    with _opened(path) as file:
        keys = {key.partition(";")[0] for key in file.keys()}  # noqa: SIM118
        if "persistent" in keys:
            return True
        return "tree" in keys and any(name.startswith(_ARRAY) for name in file["tree"].keys())  # noqa: SIM118


class OverlaySource(EventSource):
    """Events in an overlay file.

    What is faulty is mended and counted: unknown sensors and cells outside are dropped, charges of one pixel added,
    charges clipped to 255 ADU; see `tidy_columns`.

    Args:
        path: The file.
        array: Name of the array of digits, for example ``"PXDDigits_beamBG"``; the only one, when None.

    Raises:
        FileDamagedError: If it is truncated.
        StorageError: If it has no array of digits, or several and no name is given.
        NotSupportedError: If it is a file for mixing, or its array was written unsplit.
        MissingExtraError: If uproot is not installed.
    """

    kind = "overlay file of Belle II's software"

    def __init__(self, path: str | Path, array: str | None = None) -> None:
        super().__init__(path)
        with _opened(self.path) as file:
            keys = {key.partition(";")[0] for key in file.keys()}  # noqa: SIM118
            if "persistent" in keys and "BackgroundMetaData" in self._names(file["persistent"]):
                raise NotSupportedError(
                    f"`{self.path}` holds simulated hits for mixing (it has BackgroundMetaData), not digits for "
                    "overlay: run the digitisers of Belle II's software over it first"
                )
            if "tree" not in keys:
                raise StorageError(
                    f"`{self.path}` must have a TTree `tree`; it has {', '.join(sorted(keys)) or 'none'}"
                )
            tree = file["tree"]
            self._n_events = int(tree.num_entries)
            self._branches = self._found(tree, array)
            self._event_branch = next((n for n in tree.keys(recursive=True) if n.endswith("m_event")), None)
        self.metadata = {"source": "geant4-overlay or random-trigger: the file does not say", "file": self.path.name}

    @staticmethod
    def _names(tree: Any) -> set[str]:
        return {str(name).partition("/")[0] for name in tree.keys()}  # noqa: SIM118

    def _found(self, tree: Any, array: str | None) -> dict[str, str]:
        """Branch of every member, by our name."""
        arrays = sorted({name.partition(".")[0] for name in self._names(tree) if name.startswith(_ARRAY)})
        if array is not None:
            arrays = [name for name in arrays if name == array]
        if len(arrays) != 1:
            there = ", ".join(sorted(self._names(tree))) or "none"
            wanted = repr(array) if array else f"one whose name begins with {_ARRAY}"
            raise StorageError(f"`{self.path}` must have one array of digits, {wanted}; it has branches {there}")
        name = arrays[0]
        inside = [key for key in tree.keys(recursive=True) if key.startswith((f"{name}/", f"{name}."))]
        if not inside:
            raise NotSupportedError(
                f"`{self.path}` holds {name} as {tree[name].typename}, written unsplit: its members cannot be told "
                "apart without the software that wrote it. Write it again with split level 99, as overlay files are: "
                "RootOutput(splitLevel=99)"
            )
        branches = {}
        for ours, member in MEMBERS.items():
            found = [key for key in inside if key.rpartition(".")[2].partition("[")[0] == member]
            if len(found) != 1:
                raise StorageError(
                    f"`{self.path}` must have a branch {name}.{member}; it has {', '.join(sorted(inside))}"
                )
            branches[ours] = found[0]
        return branches

    @property
    def n_events(self) -> int:
        """How many events there are."""
        return self._n_events

    def blocks(self, block: int = BLOCK) -> Iterator[Digits]:
        """The events in order; see `EventSource.blocks`."""
        awkward = require("awkward", _EXTRA, "reading ROOT files")
        self._new_pass(block)
        for first in range(0, self._n_events, block):
            stop = min(first + block, self._n_events)
            with _opened(self.path) as file:
                tree = file["tree"]
                members = {
                    ours: tree[branch].array(entry_start=first, entry_stop=stop)
                    for ours, branch in self._branches.items()
                }
                sizes = {ours: awkward.to_numpy(awkward.num(column)) for ours, column in members.items()}
                if any((size != sizes["sensor"]).any() for size in sizes.values()):
                    raise FileDamagedError(f"`{self.path}` is damaged: members of digits differ in number")
                # Old versions of the class hold charges as floating point numbers.
                columns = {
                    ours: torch.from_numpy(awkward.to_numpy(awkward.flatten(column)).astype("int64"))
                    for ours, column in members.items()
                }
                numbers = self._numbers(tree, first, stop)
            event = torch.repeat_interleave(torch.from_numpy(sizes["sensor"].astype("int64")))
            sensor = PXD.indices_of_vxdids(columns["sensor"])
            digits, counts = tidy_columns(event, sensor, columns["u"], columns["v"], columns["charge"], numbers=numbers)
            self.counts = self.counts + counts
            yield digits

    def _numbers(self, tree: Any, first: int, stop: int) -> torch.Tensor:
        """Numbers of events: those of the file's event data where it has them, else those of the entries."""
        if self._event_branch is not None:
            found = tree[self._event_branch].array(entry_start=first, entry_stop=stop, library="np")
            if found.dtype.kind in "iu" and found.ndim == 1:
                return torch.from_numpy(found.astype("int64"))
        return torch.arange(first, stop)
