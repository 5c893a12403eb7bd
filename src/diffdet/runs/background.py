"""The job `background sample`: events of a generator, written as digits."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final

from diffdet.core.checks import check_choice
from diffdet.core.errors import InputError
from diffdet.runs.background_files import check_writable, writer
from diffdet.runs.doctor import versions
from diffdet.runs.signals import stopping
from diffdet.runs.tasks.base import Progress
from diffdet.runs.threads import keep_to_one_thread

__all__ = ["BLOCK_EVENTS", "sample"]

BLOCK_EVENTS: Final = 25
"""Events generated at a time. It bounds the memory; events do not depend on it."""


def sample(
    n_events: int,
    out: str | Path,
    *,
    model: str = "clusters",
    checkpoint: str | Path | None = None,
    seed: int = 0,
    experiment: int = 0,
    run: int = 0,
    start: int = 0,
    threads: int | None = None,
    scale: float | None = None,
    missing: tuple[str, ...] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Generate events and write their digits.

    Args:
        n_events: How many.
        out: File to write; its suffix says the format: ``.root``, ``.h5`` or ``.parquet``.
        model: Name of the generator.
        checkpoint: Its weights; those of the package, where it has some, when None.
        seed: With `experiment`, `run` and its number, all that an event depends on.
        experiment: Number of the experiment.
        run: Number of the run.
        start: Number of the first event.
        threads: Events of `clusters` that are drawn at the same time; as many as cores when None.
        scale: Factor on all rates; `clusters` only.
        missing: Names of sensors that are absent, such as ``"2.1.1"``.
        overwrite: Whether a file that exists may be replaced.
        progress: Told ``(done, total, text)``.

    Returns:
        What was done: numbers of events and digits, seconds, what the generator was trained on.

    Raises:
        InputError: If an argument cannot be used; nothing has been written.
        CheckpointError: If the weights do not fit, or there are none.
        StorageError: If the file cannot be written; what was there before is untouched.
        MissingExtraError: If the format needs a library that is not installed.
    """
    started = time.monotonic()
    path, told = Path(out), progress or _silent
    if isinstance(n_events, bool) or not isinstance(n_events, int) or n_events < 1:
        raise InputError(f"`n_events` must be a whole number of at least 1; got {n_events!r}")
    check_writable(path, overwrite)
    keep_to_one_thread()
    from diffdet.overlay.conditions import Conditions
    from diffdet.overlay.generator import GENERATORS, make_generator

    check_choice("--model", model, GENERATORS)
    options: dict[str, Any] = {"conditions": Conditions(missing=tuple(missing))}
    if model == "clusters":
        options |= {"threads": threads or os.cpu_count() or 1, "scale": 1.0 if scale is None else scale}
    elif scale is not None:
        raise InputError(f"--scale: the generator {model!r} has no rates to scale; 'clusters' has")
    generator = make_generator(model, checkpoint, **options)
    about = generator.describe()
    metadata = {
        **about,
        "source": "generated",
        "seed": seed,
        "experiment": experiment,
        "run": run,
        "threshold": 7,
        "versions": versions(),
    }
    counts, n_done = 0, 0
    drawing = 0.0
    with stopping(), writer(path, metadata) as file:
        told(0, n_events, "")
        first = time.monotonic()
        for block in generator.blocks(
            n_events, seed=seed, experiment=experiment, run=run, start=start, block=BLOCK_EVENTS
        ):
            drawing += time.monotonic() - first
            file.write(block)
            counts += len(block)
            n_done += block.n_events
            told(n_done, n_events, "")
            first = time.monotonic()
    wall = time.monotonic() - started
    return {
        "kind": "background_sample",
        "status": "complete",
        "file": str(path),
        "model": model,
        "trained_on": str(about["trained_on"]),
        "weights_sha256": about["weights_sha256"],
        "seed": seed,
        "experiment": experiment,
        "run": run,
        "start": start,
        "events": n_events,
        "digits": counts,
        "bytes": path.stat().st_size,
        "wall_seconds": round(wall, 3),
        "generating_seconds": round(drawing, 3),
        "events_per_second": round(n_events / max(drawing, 1e-9), 1),
        "versions": versions(),
    }


def _silent(done: int, total: int | None, text: str) -> None:
    """Progress that nobody asked for."""
