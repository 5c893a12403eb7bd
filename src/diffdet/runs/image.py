"""The job `image`: from a table of hits, simulated or recorded by somebody else, to an image of radiation lengths.

Everything is read, checked and computed before the run folder is touched, so bad input leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from diffdet.core.checks import check_choice, check_positive
from diffdet.core.errors import InputError, NoMuonsWarning, PhysicsWarning, StorageError
from diffdet.runs.config import RunConfig, as_mapping, load_config, to_yaml
from diffdet.runs.doctor import versions
from diffdet.runs.folder import CONFIG, REPORT, RESULT, RunFolder
from diffdet.runs.signals import stopping
from diffdet.runs.tasks.base import Progress
from diffdet.runs.threads import keep_to_one_thread

if TYPE_CHECKING:
    from diffdet.tomography.imaging import MuonTracks, VoxelGrid, VoxelImage
    from diffdet.tomography.io import HitsReader, HitTable

__all__ = ["IMAGE", "LAYERS", "SAVE_KINDS", "SLICES", "VTK", "image"]

IMAGE, SLICES, LAYERS, VTK = "image.h5", "slices.png", "layers.png", "image.vtk"
SAVE_KINDS: Final = ("vtk",)
"""What the image can be saved as besides HDF5."""

_RESULT_VERSION: Final = 1
_FEW: Final = 0.5
"""Part of the events below which the used ones are worth a warning."""


@dataclass
class _Source:
    """The muons of a file, counted the first time that they are gone through, told about every time."""

    reader: HitsReader
    make: Callable[[HitTable], MuonTracks]
    progress: Progress
    counted: bool = False
    events: int = 0
    rows: int = 0
    used: int = 0
    dropped: Counter[str] = field(default_factory=Counter[str])

    def read(self) -> Iterator[MuonTracks]:
        """Tracks, chunk by chunk."""
        for table in self.reader.chunks():
            tracks = self.make(table)
            if not self.counted:
                self.events += table.n_events
                self.rows += table.n_rows
                self.used += len(tracks)
                self.dropped += tracks.dropped
                self.progress(self.events, None, "reading")
            yield tracks
        self.counted = True


def image(
    hits: str | Path,
    config: RunConfig | str | Path | None,
    method: str,
    out: str | Path,
    *,
    voxel: float | None = None,
    columns: Any = None,
    save: Sequence[str] = (),
    momentum: float | None = None,
    max_angle: float | None = None,
    options: Mapping[str, int] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make an image of radiation lengths and write it into a run folder.

    Args:
        hits: Table of hits: Parquet, HDF5, ROOT, CSV or NPZ.
        config: The design in which they were recorded, its file, or the name of a built-in one; None for the default.
            The box of its passive blocks is what is imaged, and its coordinates are those of the hits.
        method: How the image is made, a key of `diffdet.tomography.imaging.METHODS`.
        out: The run folder; new or empty.
        voxel: Edge of the image's voxels, m; the design's where None.
        columns: Column map for foreign tables: a YAML file or its content.
        save: Other formats to save the image in, from `SAVE_KINDS`.
        momentum: Momentum of the muons where the table has none, GeV; the design's where None.
        max_angle: Muons that scattered by more are dropped, rad; None for no limit.
        options: Arguments of the method, such as ``{"iterations": 100}``.
        overwrite: Whether an image that the folder holds may be replaced.
        progress: Told ``(done, total, text)``.

    Returns:
        Content of `result.json`.

    Raises:
        InputError: If an argument, the configuration or the hits cannot be used; nothing has been written.
        StorageError: If the hits cannot be read, or the folder cannot be written.
        MissingExtraError: If the format needs a library that is not installed.
    """
    from diffdet.tomography.imaging import METHODS, make_grid

    started = time.monotonic()
    keep_to_one_thread()
    found = config if isinstance(config, RunConfig) else load_config(config)
    check_choice("--method", method, METHODS)
    for kind in save:
        check_choice("--save", kind, SAVE_KINDS)
    for name, number in (("--voxel", voxel), ("--momentum", momentum), ("max_angle", max_angle)):
        if number is not None:
            check_positive(name, number)
    folder = RunFolder(Path(out))
    _check_folder(folder, overwrite)
    low, high = (0.0, 0.0, found.volume.passive_z[0]), (*found.volume.lw, found.volume.passive_z[1])
    grid = make_grid(low, high, found.volume.passives[0].voxel if voxel is None else voxel)
    with stopping():
        source, picture, assumed = _make(
            hits, columns, found, grid, method, momentum, max_angle, options, progress or _silent
        )
    notes = _warnings(source, assumed, Path(hits))
    result: dict[str, Any] = {
        "format_version": _RESULT_VERSION,
        "kind": "image",
        "status": "complete",
        "reason": "" if source.used else "no muon could be used, so the image is empty",
        "name": found.name,
        "method": method,
        "settings": picture.settings | {"voxel_m": grid.size, "max_angle_rad": max_angle, "momentum_gev": assumed},
        "hits_file": str(hits),
        "columns": str(columns) if isinstance(columns, str | Path) else columns,
        "command": _command(hits, method, out, voxel, columns, save, momentum),
        "counts": {
            "rows": source.rows,
            "events": source.events,
            "used": source.used,
            "dropped": dict(source.dropped.most_common()),
        },
        "muons": source.used,
        "volume": {"low_m": list(low), "high_m": list(high), "voxels_xyz": list(grid.counts)},
        "image": _figures(picture),
        "warnings": notes,
    }
    return _save(folder, found, picture, result, save, overwrite, started)


def _make(
    hits: str | Path,
    columns: Any,
    config: RunConfig,
    grid: VoxelGrid,
    method: str,
    momentum: float | None,
    max_angle: float | None,
    options: Mapping[str, int] | None,
    told: Progress,
) -> tuple[_Source, VoxelImage, float | None]:
    """Read the hits and make the image; nothing is written."""
    from diffdet.tomography.imaging import METHODS, MuonTracks, TrackStore, make_image
    from diffdet.tomography.io import HitsReader

    try:
        with HitsReader(hits, columns, split_z=0.5 * sum(grid.z_range)) as reader:
            assumed = _assumed_momentum(reader, config, momentum)

            def tracks_of(table: HitTable) -> MuonTracks:
                return MuonTracks.from_hits(table, grid, momentum=assumed, max_angle=max_angle)

            source = _Source(reader, tracks_of, told)

            def passed(done: int, total: int | None, text: str) -> None:
                if source.counted and total:
                    told(done * source.events, total * source.events, text)

            picture = make_image(
                TrackStore(source.read, METHODS[method].keep_bytes),
                grid,
                method,
                progress=passed,
                **dict(options or {}),
            )
    except StorageError as error:
        # Hits that cannot be read are bad input: the command ends as for other bad input.
        error.nothing_written = True  # type: ignore[attr-defined]
        raise
    return source, picture, assumed


def _silent(done: int, total: int | None, text: str) -> None:
    """Progress that nobody asked for."""


def _assumed_momentum(reader: HitsReader, config: RunConfig, momentum: float | None) -> float | None:
    """The momentum to take where the hits have none; None where they have one."""
    if "momentum" in reader.columns:
        return None
    chosen = config.muons.momentum if momentum is None else momentum
    if chosen is None:
        raise InputError(
            f"{reader.path} has no column `momentum`, and the design {config.name!r} has muons of all momenta: say "
            "which to assume by --momentum, GeV"
        )
    return chosen


def _warnings(source: _Source, assumed: float | None, hits: Path) -> list[str]:
    """What a reader of the result should know, also issued as warnings."""
    notes = []
    if assumed is not None:
        notes.append(
            f"{hits} has no column `momentum`: all muons were taken to have {assumed:g} GeV. Radiation lengths go with "
            "its square, and a spread of momenta makes matter look denser and noisier"
        )
    reasons = ", ".join(f"{count} {reason}" for reason, count in source.dropped.most_common())
    if not source.used:
        what = (
            f"none of the {source.events} events of {hits} could be used: {reasons}"
            if source.events
            else f"{hits} has no rows"
        )
        notes.append(f"{what}. The image is empty")
    elif source.used < _FEW * source.events:
        notes.append(f"only {source.used} of {source.events} events could be used: {reasons}")
    for place, note in enumerate(notes):
        empty = place == len(notes) - 1 and not source.used
        warnings.warn(note, NoMuonsWarning if empty else PhysicsWarning, stacklevel=3)
    return notes


def _figures(picture: VoxelImage) -> dict[str, Any]:
    """The image in a few numbers."""
    from diffdet.tomography.plotting.voxel_image import densest

    seen = picture.counts > 0
    figures: dict[str, Any] = {
        "voxels": picture.grid.n_voxels,
        "voxels_crossed": int(seen.sum()),
        "exposure_per_m2": round(picture.exposure, 3),
    }
    if not bool(seen.any()):
        return figures
    at = densest(picture)
    x, y, z = (0.5 * (edges[:-1] + edges[1:]) for edges in picture.edges)
    x0, unc = float(picture.x0[at]), float(picture.x0_unc[at])
    figures |= {
        "median_muons_a_voxel": float(picture.counts[seen].double().median()),
        "mean_inverse_x0_per_m": float((picture.inverse_x0 * picture.path_length).nansum() / picture.path_length.sum()),
        "densest": {
            "position_m": [round(float(axis[k]), 6) for axis, k in zip((x, y, z), (at[1], at[2], at[0]), strict=True)],
            "x0_m": x0 if math.isfinite(x0) else None,
            "x0_unc_m": unc if math.isfinite(unc) else None,
        },
    }
    return figures


def _check_folder(folder: RunFolder, overwrite: bool) -> None:
    """Refuse a folder that cannot take the image, before anything is read."""
    if overwrite and folder.state() == "started" and folder.read_result().get("kind") == "image":
        return
    folder.check_new()
    place = folder.path.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise InputError(f"--out: expected a folder that can be written, given {str(folder.path)!r}; {place} cannot")


def _save(
    folder: RunFolder,
    config: RunConfig,
    picture: VoxelImage,
    result: dict[str, Any],
    save: Sequence[str],
    overwrite: bool,
    started: float,
) -> dict[str, Any]:
    """Write the run folder; `result.json` comes last but for the report, so that it speaks of what is there."""
    from diffdet.report import write_report
    from diffdet.tomography.imaging import save_image, save_vtk
    from diffdet.tomography.plotting import appearance
    from diffdet.tomography.plotting.voxel_image import layers_figure, slices_figure

    lock = folder.lock()
    try:
        _check_folder(folder, overwrite)
        for name in (IMAGE, SLICES, LAYERS, VTK, CONFIG, RESULT, REPORT):
            (folder.path / name).unlink(missing_ok=True)
        folder.write_config(to_yaml(as_mapping(config) | {"versions": versions()}))
        save_image(picture, folder.path / IMAGE)
        title = f"{picture.method}, {picture.n_muons:,} muons"
        appearance.save(slices_figure(picture, title=title), folder.path / SLICES)
        appearance.save(layers_figure(picture, title=title), folder.path / LAYERS)
        written = [IMAGE, SLICES, LAYERS]
        if "vtk" in save:
            save_vtk(picture, folder.path / VTK)
            written.append(VTK)
        wall = time.monotonic() - started
        result |= {
            "files": {name: hashlib.sha256((folder.path / name).read_bytes()).hexdigest() for name in written},
            "wall_seconds": round(wall, 3),
            "muons_per_second": round(result["counts"]["events"] / wall, 1),
            "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": versions(),
        }
        result = folder.write_result(result)
        write_report(folder.path)
    finally:
        lock.release()
    return result


def _command(
    hits: str | Path,
    method: str,
    out: str | Path,
    voxel: float | None,
    columns: Any,
    save: Sequence[str],
    momentum: float | None,
) -> str:
    """The command that makes this image again from the folder's own configuration."""
    import shlex

    words = ["diffdet", "image", str(hits), "--config", str(Path(out) / CONFIG), "--method", method, "--out", "AGAIN"]
    words += [] if voxel is None else ["--voxel", f"{voxel:g}"]
    words += ["--columns", str(columns)] if isinstance(columns, str | Path) else []
    words += [] if momentum is None else ["--momentum", f"{momentum:g}"]
    for kind in save:
        words += ["--save", kind]
    return shlex.join(words)
