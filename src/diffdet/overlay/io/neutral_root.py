"""The neutral format in ROOT files: a TTree `tree`, or an RNTuple `events`, beside a text `metadata`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from diffdet.core.errors import DiffdetError, FileDamagedError
from diffdet.core.extras import require
from diffdet.core.storage import replacing
from diffdet.overlay.digits import Digits
from diffdet.overlay.io.neutral import checked, metadata_from_text
from diffdet.overlay.io.source import BLOCK, EventSource

__all__ = ["RootSource", "write_root"]

_COLUMNS: Final = {"sensor": "uint8", "ucell": "uint8", "vcell": "uint16", "charge": "uint8"}
_OURS: Final = {"sensor": "sensor", "ucell": "u", "vcell": "v", "charge": "charge"}
_EXTRA: Final = "root"


class _Writer:
    def __init__(self, awkward: Any, numpy: Any, file: Any, kind: str) -> None:
        self._awkward, self._numpy, self._file, self._kind = awkward, numpy, file, kind
        self._table: Any = None

    def write(self, digits: Digits) -> None:
        """Append events."""
        awkward = self._awkward
        offsets = awkward.index.Index64(digits.offsets.cpu().numpy())

        def lists(name: str) -> Any:
            column = getattr(digits, _OURS[name]).cpu().numpy().astype(_COLUMNS[name])
            content = awkward.contents.NumpyArray(column)
            return awkward.Array(awkward.contents.ListOffsetArray(offsets, content))

        columns = {name: lists(name) for name in _COLUMNS}
        events = {"event": digits.numbers.cpu().numpy().astype("uint64")}
        if self._kind == "ttree":
            # One record, so that all lists share one counter: branches digits_sensor, digits_ucell, ...
            events["digits"] = awkward.zip(columns)
        else:
            events |= columns
        if self._table is None:
            kinds = {name: self._type_of(value) for name, value in events.items()}
            make = self._file.mktree if self._kind == "ttree" else self._file.mkrntuple
            self._table = make("tree" if self._kind == "ttree" else "events", kinds)
        if digits.n_events:
            self._table.extend(events)

    def _type_of(self, value: Any) -> Any:
        """What a column is, without its length."""
        return value.dtype if isinstance(value, self._numpy.ndarray) else self._awkward.type(value).content


@contextmanager
def write_root(path: str | Path, text: str, *, kind: str) -> Iterator[_Writer]:
    """A file that appears whole when the block ends; see `neutral.digits_writer`."""
    uproot = require("uproot", _EXTRA, "writing ROOT files")
    awkward = require("awkward", _EXTRA, "writing ROOT files")
    numpy = require("numpy", _EXTRA, "writing ROOT files")
    compression = uproot.ZSTD(3)
    with replacing(path) as temporary, uproot.recreate(temporary, compression=compression) as file:
        file["metadata"] = text
        writer = _Writer(awkward, numpy, file, kind)
        yield writer
        if writer._table is None:
            writer.write(Digits.empty())


class RootSource(EventSource):
    """Events in a ROOT file of the neutral format, as TTree or RNTuple.

    Args:
        path: The file.

    Raises:
        FileDamagedError: If it is truncated or not of this format.
        MissingExtraError: If uproot is not installed.
    """

    kind = "neutral format in ROOT"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        with self._opened() as file:
            keys = {key.partition(";")[0]: kind for key, kind in file.classnames().items()}
            if "metadata" not in keys or not {"tree", "events"} & set(keys):
                there = ", ".join(f"{name} ({kind})" for name, kind in keys.items()) or "nothing"
                raise FileDamagedError(
                    f"`{self.path}` must be an overlay file (a TTree `tree` with branches PXDDigits) or hold "
                    f"`metadata` and a TTree `tree` or an RNTuple `events`; it holds {there}"
                )
            self.metadata = metadata_from_text(str(file["metadata"]), self.path)
            self._name = "tree" if "tree" in keys else "events"
            self.kind = f"{type(self).kind} ({'TTree' if self._name == 'tree' else 'RNTuple'})"
            self._prefix = "digits_" if self._name == "tree" else ""
            table = file[self._name]
            missing = [name for name in self._names() if name not in set(table.keys())]
            if missing:
                raise FileDamagedError(f"`{self.path}` must have the columns {', '.join(missing)}; it has not")
            self._n_events = int(table.num_entries)

    def _names(self) -> list[str]:
        return ["event", *(f"{self._prefix}{name}" for name in _COLUMNS)]

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        uproot = require("uproot", _EXTRA, "reading ROOT files")
        try:
            with uproot.open(self.path) as file:
                yield file
        except DiffdetError:
            raise
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError) as error:
            raise FileDamagedError(f"`{self.path}` is not a whole ROOT file: {_first_line(error)}") from error

    @property
    def n_events(self) -> int:
        """How many events there are."""
        return self._n_events

    def blocks(self, block: int = BLOCK) -> Iterator[Digits]:
        """The events in order; see `EventSource.blocks`."""
        awkward = require("awkward", _EXTRA, "reading ROOT files")
        self._new_pass(block)
        for first in range(0, self._n_events, block):
            with self._opened() as file:
                stop = min(first + block, self._n_events)
                events = file[self._name].arrays(self._names(), entry_start=first, entry_stop=stop)
                numbers = torch.from_numpy(awkward.to_numpy(events["event"]).astype("int64"))
                sizes = torch.from_numpy(awkward.to_numpy(awkward.num(events[f"{self._prefix}sensor"])).astype("int64"))
                offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
                columns = {
                    name: torch.from_numpy(
                        awkward.to_numpy(awkward.flatten(events[f"{self._prefix}{name}"])).astype("int32")
                    )
                    for name in _COLUMNS
                }
            digits = checked(self.path, numbers, offsets, columns)
            self.counts.kept += len(digits)
            yield digits


def _first_line(error: Exception) -> str:
    """The first line of what a library says: some say a page."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
