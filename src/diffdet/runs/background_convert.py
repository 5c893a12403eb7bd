"""The jobs `background convert` and `background inspect`: other kinds of files of digits, and what is in one."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffdet.core.errors import InputError, StorageError
from diffdet.runs.background_files import check_writable
from diffdet.runs.doctor import versions
from diffdet.runs.signals import stopping
from diffdet.runs.tasks.base import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from diffdet.overlay.digits import Digits
    from diffdet.overlay.io.source import EventSource

__all__ = ["convert", "inspect"]

BLOCK_EVENTS = 25
"""Events that are read at a time. It bounds the memory; the result does not depend on it."""


def convert(
    source: str | Path,
    out: str | Path,
    *,
    kind: str | None = None,
    array: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the events of a file in another kind of file.

    Args:
        source: Overlay file of Belle II's software, file of the neutral format, or folder with pictures.
        out: File to write, whose suffix says the kind, or a folder for pictures.
        kind: ``"ttree"``, ``"rntuple"``, ``"parquet"``, ``"hdf5"`` or ``"png"``; by the suffix when None.
        array: Name of the array of digits in an overlay file that has several.
        overwrite: Whether a file that exists may be replaced.
        progress: Told ``(done, total, text)``.

    Returns:
        Numbers of events and digits, and what was mended on the way, by name.

    Raises:
        InputError: If an argument cannot be used; nothing has been written.
        StorageError: If the source cannot be read or the file not be written.
        MissingExtraError: If a library is not installed that is needed for a kind of file.
    """
    started, path, told = time.monotonic(), Path(out), progress or _silent
    pictures = kind == "png" or (kind is None and not path.suffix)
    if pictures:
        _check_folder(path, overwrite)
    else:
        from diffdet.overlay.io.neutral import KINDS

        if kind is not None and KINDS.get(kind) not in (path.suffix, None):
            raise InputError(f"--out: expected a name that ends in {KINDS[kind]} for {kind}, given {str(path)!r}")
        check_writable(path, overwrite)
    events = _open(source, array)
    blocks = _told(events.blocks(BLOCK_EVENTS), events.n_events, told)
    n_events = 0
    with stopping():
        if pictures:
            from diffdet.overlay.io.pictures import export_pictures

            n_events = export_pictures(path, blocks)
        else:
            from diffdet.overlay.io.neutral import digits_writer

            metadata = {**_inherited(events), "versions": versions()}
            with digits_writer(path, metadata, kind=kind) as file:
                for block in blocks:
                    file.write(block)
                    n_events += block.n_events
    return {
        "kind": "background_convert",
        "status": "complete",
        "source": str(source),
        "source_kind": events.kind,
        "file": str(path),
        "events": n_events,
        "digits": events.counts.kept,
        "mended": events.counts.problems,
        "wall_seconds": round(time.monotonic() - started, 3),
        "versions": versions(),
    }


def inspect(source: str | Path, *, array: str | None = None, limit: int | None = None) -> dict[str, Any]:
    """Say what a file of events holds.

    Args:
        source: As for `convert`.
        array: As for `convert`.
        limit: Events to look at; all when None.

    Returns:
        Kind of file, numbers of events and digits, faults by name, mean occupancy and charge of each layer and sensor,
        and what the file says about itself.

    Raises:
        StorageError: If the source cannot be read.
        MissingExtraError: If a library is not installed that is needed for this kind of file.
    """
    import torch

    from diffdet.overlay.sensors import PXD

    events = _open(source, array)
    counts = torch.zeros(len(PXD), dtype=torch.int64)
    spectrum = torch.zeros(256, dtype=torch.int64)
    charge = torch.zeros(len(PXD), dtype=torch.float64)
    squared = torch.zeros(len(PXD), dtype=torch.float64)
    n_events = n_digits = 0
    numbers: list[int] = []
    for whole in events.blocks(BLOCK_EVENTS):
        left = whole.n_events if limit is None else min(whole.n_events, limit - n_events)
        if limit is not None and left <= 0:
            break
        block = whole.select(0, left)
        each = block.counts()
        counts += each.sum(0)
        squared += each.to(torch.float64).square().sum(0)
        spectrum += torch.bincount(block.charge, minlength=256)
        charge.index_add_(0, block.sensor, block.charge.to(torch.float64))
        n_events += block.n_events
        n_digits += len(block)
        if block.n_events:
            numbers += [int(block.numbers[0]), int(block.numbers[-1])]
    mean = counts / max(n_events, 1)
    lit = counts.clamp(min=1)
    variance = squared / max(n_events, 1) - mean.square()
    charges = torch.arange(256)
    seen = charges[spectrum > 0]
    return {
        "kind": "background_inspect",
        "file": str(source),
        "file_kind": events.kind,
        "events": n_events,
        "events_in_file": events.n_events,
        "first_event": numbers[0] if numbers else None,
        "last_event": numbers[-1] if numbers else None,
        "digits": n_digits,
        "digits_per_event": round(n_digits / n_events, 1) if n_events else None,
        "mended": events.counts.problems,
        "occupancy_percent": round(100 * float(mean.mean()) / PXD.n_pixels, 4),
        "charge_adu": {
            "mean": round(float((spectrum * charges).sum() / max(n_digits, 1)), 3),
            "least": int(seen.min()) if len(seen) else None,
            "most": int(seen.max()) if len(seen) else None,
        },
        "layers": [
            {
                "layer": layer,
                "occupancy_percent": round(100 * float(mean[index].mean()) / PXD.n_pixels, 4),
                "mean_charge_adu": round(float(charge[index].sum() / lit[index].sum()), 3),
                "variance_over_mean": round(float((variance[index] / mean[index].clamp(min=1e-9)).mean()), 2),
            }
            for layer in sorted({sensor.layer for sensor in PXD})
            for index in [[sensor.index for sensor in PXD if sensor.layer == layer]]
        ],
        "sensors": [
            {
                "sensor": sensor.name,
                "occupancy_percent": round(100 * float(mean[sensor.index]) / PXD.n_pixels, 4),
                "mean_charge_adu": round(float(charge[sensor.index] / lit[sensor.index]), 3),
            }
            for sensor in PXD
        ],
        "metadata": events.metadata,
    }


def _open(source: str | Path, array: str | None) -> EventSource:
    from diffdet.overlay.io.source import open_events

    try:
        if array is not None:
            from diffdet.overlay.io.overlay_root import OverlaySource

            return OverlaySource(source, array)
        return open_events(source)
    except StorageError as error:
        # What cannot be read is bad input: the command ends as for other bad input.
        error.nothing_written = True  # type: ignore[attr-defined]
        raise


def _inherited(events: EventSource) -> dict[str, Any]:
    """What the new file says about its events: what the old one said, and where it was."""
    written = ("format", "format_version", "geometry", "sensors", "writer")
    return {
        **{name: value for name, value in events.metadata.items() if name not in written},
        "converted_from": events.path.name,
        "converted_from_kind": events.kind,
    }


def _told(blocks: Iterator[Digits], total: int, told: Progress) -> Iterator[Digits]:
    done = 0
    told(0, total, "")
    for block in blocks:
        yield block
        done += block.n_events
        told(done, total, "")


def _check_folder(path: Path, overwrite: bool) -> None:
    if path.is_file():
        raise InputError(f"--out: expected a folder for pictures, given the file {str(path)!r}")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise InputError(f"--out: expected a new or empty folder, given {str(path)!r}; --overwrite writes into it")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"--out: expected a place in a folder that exists and can be written, given {str(path)!r}")


def _silent(done: int, total: int | None, text: str) -> None:
    """Progress that nobody asked for."""
