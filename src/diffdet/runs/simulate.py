"""The job `simulate`: muons through a design, and their hits as a table that anybody can read."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from diffdet.core.errors import InputError, NoMuonsWarning
from diffdet.runs.config import RunConfig, load_config
from diffdet.runs.doctor import versions
from diffdet.runs.signals import stopping
from diffdet.runs.tasks.base import Progress
from diffdet.runs.threads import keep_to_one_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from diffdet.tomography.muon.muon_batch import MuonBatch

__all__ = ["CHUNK_MUONS", "simulate"]

CHUNK_MUONS: Final = 8192
"""Muons simulated at a time. It bounds the memory; results do not depend on it."""


def simulate(
    config: RunConfig | str | Path | None,
    n_muons: int,
    out: str | Path,
    *,
    truth: bool = False,
    seed: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    chunk: int = CHUNK_MUONS,
) -> dict[str, Any]:
    """Send muons through the initial detector and the first passive volume of a design, and write their hits.

    Panels are the physical ones: a muon outside a panel leaves no hit there, and one inside leaves a hit with the
    panel's efficiency. Missing hits are absent rows, so a muon that no panel saw has no row at all. If the design
    resamples muons (`MuonResampler`), so does this: all of them would touch the passive volume. The column `event` is
    the number of the muon, from 0 to ``n_muons - 1``, `momentum` the true momentum. A muon's hits depend on the seed
    and its number only.

    Args:
        config: A configuration, its file, or the name of a built-in design; None for the default one.
        n_muons: How many to send.
        out: File to write; its suffix says the format.
        truth: Whether to write the true positions, too, as `true_x` and `true_y`.
        seed: Replaces the configuration's.
        overwrite: Whether a file that exists may be replaced.
        progress: Told ``(done, total, text)``.
        chunk: Muons simulated at a time.

    Returns:
        What was done: numbers of muons, events and hits, seconds, and warnings.

    Raises:
        InputError: If an argument or the configuration cannot be used; nothing has been written.
        StorageError: If the file cannot be written; what was there before is untouched.
        MissingExtraError: If the format needs a library that is not installed.
    """
    started = time.monotonic()
    path = Path(out)
    found = config if isinstance(config, RunConfig) else load_config(config)
    _check(n_muons, chunk, path, overwrite)
    if seed is not None:
        found = found.model_copy(update={"seed": seed})
    keep_to_one_thread()
    with stopping():
        counts = _write(found, n_muons, path, truth, progress or _silent, chunk)
    wall = time.monotonic() - started
    notes = []
    if not counts["hits"]:
        notes.append(f"no panel of the design {found.name!r} saw any of the {n_muons} muons: {path} has no rows")
        warnings.warn(notes[0], NoMuonsWarning, stacklevel=2)
    return {
        "kind": "simulate",
        "status": "complete",
        "file": str(path),
        "name": found.name,
        "seed": found.seed,
        "truth": truth,
        "muons": n_muons,
        **counts,
        "bytes": path.stat().st_size,
        "wall_seconds": round(wall, 3),
        "muons_per_second": round(n_muons / wall, 1),
        "warnings": notes,
        "versions": versions(),
    }


def _check(n_muons: int, chunk: int, path: Path, overwrite: bool) -> None:
    """Refuse what cannot be simulated or written."""
    from diffdet.tomography.io.reader import format_of

    for name, number in (("n_muons", n_muons), ("chunk", chunk)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InputError(f"`{name}` must be a whole number of at least 1; got {number!r}")
    format_of(path)
    if path.is_dir():
        raise InputError(f"--out: expected a file, given the folder {str(path)!r}")
    if path.exists() and not overwrite:
        raise InputError(f"--out: expected a new file, given {str(path)!r}, which exists; --overwrite replaces it")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"--out: expected a file in a folder that exists and can be written, given {str(path)!r}")


def _write(config: RunConfig, n_muons: int, path: Path, truth: bool, progress: Progress, chunk: int) -> dict[str, int]:
    """Simulate and write."""
    from diffdet.tomography.io import HitsWriter

    optional = ["momentum", *(("true_x", "true_y") if truth else ())]
    counts = {"events": 0, "hits": 0, "hits_above": 0, "hits_below": 0}
    batches = _fly(config, n_muons, chunk)
    first = next(batches)  # whatever cannot be built is refused before the file is touched
    with HitsWriter(path, optional=optional) as writer:
        progress(0, n_muons, "")
        while True:
            done, mu = first
            rows = _rows(mu)
            writer.write(rows)
            below = int(rows["position"].sum())
            counts["hits"] += len(rows["event"])
            counts["hits_below"] += below
            counts["hits_above"] += len(rows["event"]) - below
            counts["events"] += int((rows["event"][1:] != rows["event"][:-1]).sum()) + (len(rows["event"]) > 0)
            progress(done, n_muons, "")
            following = next(batches, None)
            if following is None:
                return counts
            first = following


def _fly(config: RunConfig, n_muons: int, chunk: int) -> Iterator[tuple[int, MuonBatch]]:
    """Batches of muons that have flown, with the number of muons sent so far."""
    import torch

    from diffdet.core.random import Stream
    from diffdet.runs.build import build_muon_generator, build_volume, yield_passives
    from diffdet.tomography.muon.muon_batch import MuonBatch
    from diffdet.tomography.optimisation.callbacks.data_callbacks import MuonResampler

    volume = build_volume(config)
    volume.load_rad_length(*next(iter(yield_passives(config, volume, "simulate", 1))))
    volume.eval()
    source = build_muon_generator(config, volume)
    resample = any(callback.class_ == "MuonResampler" for callback in config.callbacks)
    stream = Stream(config.seed, "simulate").muons()
    for start in range(0, n_muons, chunk):
        stop = min(start + chunk, n_muons)
        with torch.no_grad():
            muons = source(stop - start, stream=stream, start=start)
            if resample:
                muons = MuonResampler.resample(muons, volume, source, stream=stream, first=start)
            mu = MuonBatch(muons, volume.h, device=volume.device, stream=stream, first=start)
            volume(mu)
        yield stop, mu


def _rows(mu: MuonBatch) -> dict[str, NDArray[Any]]:
    """Rows of the hits that were recorded: muons in order, planes from the top within each."""
    import numpy as np
    import torch

    above, below = mu.hit_batch("above"), mu.hit_batch("below")
    n_above = len(above)
    parts: dict[str, list[NDArray[Any]]] = {}
    for side, hits in enumerate((above, below)):
        seen = hits.mask & (mu.draw_uniform(f"recorded/{side}", (len(hits),)) < hits.eff)
        seen &= torch.isfinite(hits.reco_xy).all(1) & torch.isfinite(hits.unc_xy).all(1)
        plane, muon = (index.cpu().numpy() for index in seen.nonzero(as_tuple=True))
        z = hits.z.expand(-1, hits.n_muons)
        columns = {
            "muon": muon,
            "plane": plane + side * n_above,
            "position": np.full(len(muon), side, dtype=np.uint8),
            **{name: _taken(part, seen) for name, part in (("x", hits.reco_xy[:, 0]), ("y", hits.reco_xy[:, 1]))},
            "z": _taken(z, seen),
            **{name: _taken(part, seen) for name, part in (("x_unc", hits.unc_xy[:, 0]), ("y_unc", hits.unc_xy[:, 1]))},
            **{
                name: _taken(part, seen)
                for name, part in (("true_x", hits.gen_xy[:, 0]), ("true_y", hits.gen_xy[:, 1]))
            },
        }
        for name, column in columns.items():
            parts.setdefault(name, []).append(column)
    rows = {name: np.concatenate(columns) for name, columns in parts.items()}
    muon = rows.pop("muon")
    order = np.lexsort((rows["plane"], muon))
    rows["event"] = mu.ids.cpu().numpy()[muon]
    rows["momentum"] = mu.reco_mom.double().cpu().numpy()[muon]
    return {name: column[order] for name, column in rows.items()}


def _taken(values: Any, seen: Any) -> NDArray[Any]:
    """Values of the hits that were recorded, as NumPy numbers in double precision."""
    return values[seen].double().cpu().numpy()


def _silent(done: int, total: int | None, text: str) -> None:
    """Progress that nobody asked for."""
