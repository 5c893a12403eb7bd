"""The job `background evaluate`: how near a sample of background is to another, with a noise floor and baselines."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from diffdet.core.errors import InputError
from diffdet.core.storage import write_json
from diffdet.runs.doctor import versions
from diffdet.runs.folder import RunFolder, finite
from diffdet.runs.signals import stopping
from diffdet.runs.tasks.base import Progress
from diffdet.runs.threads import keep_to_one_thread

if TYPE_CHECKING:
    from torch import Tensor

    from diffdet.overlay.digits import Digits
    from diffdet.overlay.fidelity.summary import Summary

__all__ = ["COLUMNS", "FIGURES", "STANDIN", "evaluate"]

FIGURES: Final = "figures.json"
"""What the report draws: histograms and matrices of every column."""

STANDIN: Final = "standin"
"""In place of a file: events of the stand-in simulation."""

COLUMNS: Final = {
    "sample": "the sample",
    "floor": "noise floor: the other half of the real events",
    "bootstrap": "baseline: sensors of different real events put together",
    "library": "baseline: real clusters thrown at random",
}
"""What is compared with one half of the real events."""

PICTURED: Final = (0, 16)
"""Sensors that are shown: 1.1.1 and 2.1.1."""

_BLOCK: Final = 20
_RESULT_VERSION: Final = 1


@dataclass(frozen=True)
class Source:
    """Where events come from.

    Attributes:
        text: What it is called in the report.
        blocks: Its events.
        trained_on: What a generator was trained on, where that is known.
    """

    text: str
    blocks: Iterator[Digits]
    trained_on: str | None = None


def evaluate(
    sample: str | Path | None,
    out: str | Path,
    *,
    against: str | Path = STANDIN,
    events: int = 100,
    seed: int = 0,
    command: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare a sample with real events, and write figures and a report.

    The real events are split in two: one half is what everything is compared with; the other gives the noise floor, and
    the baselines learn from it.

    Args:
        sample: File of digits, or the name of a generator; the default generator where None.
        out: The run folder; new or empty.
        against: File of digits, or ``"standin"``.
        events: How many events to take of the sample, and twice as many of the real ones, as far as there are.
        seed: Of generated events, of the stand-in, the baselines and the classifier.
        command: What the report says was called.
        progress: Told ``(done, total, text)``.

    Returns:
        Content of `result.json`.

    Raises:
        InputError: If an argument cannot be used, or there are fewer than two events of the sample or four of the real
            ones; nothing has been written.
        StorageError: If a file cannot be read, or the folder cannot be written.
    """
    started = time.monotonic()
    keep_to_one_thread()
    folder = RunFolder(Path(out))
    _check(folder, events)
    with stopping():
        result, figures = _compare(sample, against, events, seed, progress or _silent)
    result |= {
        "out": str(out),
        "command": command or f"diffdet background evaluate --out {out}",
        "wall_seconds": round(time.monotonic() - started, 3),
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": versions(),
    }
    from diffdet.report import write_report

    lock = folder.lock()
    try:
        folder.check_new()
        write_json(folder.path / FIGURES, finite(figures), indent=None)
        result = folder.write_result(result)
        write_report(folder.path)
    finally:
        lock.release()
    return result


def _check(folder: RunFolder, events: int) -> None:
    if isinstance(events, bool) or not isinstance(events, int) or events < 2:
        raise InputError(f"`events` must be a whole number of at least 2; got {events!r}")
    if folder.result.is_file():
        raise InputError(
            f"--out: expected a new or empty folder, given {str(folder.path)!r}, which holds a result already"
        )
    folder.check_new()
    place = folder.path.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise InputError(f"--out: expected a folder that can be written, given {str(folder.path)!r}; {place} cannot")


def _compare(
    sample: str | Path | None, against: str | Path, events: int, seed: int, told: Progress
) -> tuple[dict[str, Any], dict[str, Any]]:
    """All figures; nothing is written."""
    from diffdet.core.random import Stream
    from diffdet.overlay.digits import Digits
    from diffdet.overlay.fidelity import baselines
    from diffdet.overlay.fidelity.metrics import METRICS, TARGETS, compare, missed
    from diffdet.overlay.fidelity.published import PUBLISHED, against_published, reference
    from diffdet.overlay.fidelity.summary import Summary

    examined, real_source = _sample_source(sample, events, seed), _real_source(against, 2 * events, seed)
    total = 5 * events
    done = 0
    real = {half: Summary(half) for half in ("half", "floor")}
    learnt: list[Digits] = []
    for number, block in enumerate(real_source.blocks):
        half = "half" if number % 2 == 0 else "floor"
        real[half].add(block)
        if half == "floor":
            learnt.append(block)
        done += block.n_events
        told(done, total, "reading the real events")
    summaries = {"sample": Summary("sample"), "floor": real["floor"]}
    for block in examined.blocks:
        summaries["sample"].add(block)
        done += block.n_events
        told(done, total, "reading the sample")
    n_sample, n_half, n_floor = (one.n_events for one in (summaries["sample"], real["half"], real["floor"]))
    if n_sample < 2 or n_half < 2 or n_floor < 2:
        raise InputError(
            f"expected at least 2 events of the sample and 4 of the real ones, given {n_sample} and {n_half + n_floor}"
        )
    stream, library = Stream("overlay-evaluate", seed), Digits.concatenate(learnt)
    for name, make in (("bootstrap", baselines.bootstrap), ("library", baselines.library)):
        summaries[name] = Summary(name)
        for block in make(library, n_floor, stream.child(name)):
            summaries[name].add(block)
            done += block.n_events
            told(done, total, "making the baselines")
    told(done, total, "comparing")
    figures = {name: compare(one, real["half"], seed=seed) for name, one in summaries.items()}
    published = reference()
    result = {
        "format_version": _RESULT_VERSION,
        "kind": "background",
        "status": "complete",
        "reason": "",
        "name": examined.text,
        "sample": examined.text,
        "real": real_source.text,
        "trained_on": examined.trained_on,
        "seed": seed,
        "events": {"sample": n_sample, "half": n_half, "floor": n_floor},
        "metrics": METRICS,
        "targets": TARGETS,
        "columns": COLUMNS,
        "figures": figures,
        "missed": missed(figures["sample"], figures["floor"]),
        "published": {
            "metrics": PUBLISHED,
            "source": published["source"],
            "sample": against_published(summaries["sample"]),
            "real": against_published(_both(real)),
            "networks": published["published"],
        },
    }
    return result, {"half": _drawn(real["half"])} | {name: _drawn(one) for name, one in summaries.items()}


def _both(real: dict[str, Summary]) -> Summary:
    """The two halves of the real events together, as far as the comparison with published figures needs them."""
    import torch

    from diffdet.overlay.fidelity.summary import Summary

    half, floor = real["half"], real["floor"]
    return Summary("real", digits=torch.cat((half.digits, floor.digits)), charges=half.charges + floor.charges)


def _sample_source(sample: str | Path | None, events: int, seed: int) -> Source:
    """Events of a file, or of a generator by its name."""
    from diffdet.overlay.generator import DEFAULT, GENERATORS, make_generator

    if sample is None or str(sample) in GENERATORS:
        generator = make_generator(DEFAULT if sample is None else str(sample))
        about = generator.describe()
        text = f"generator {about['generator']!r}"
        return Source(text, generator.blocks(events, seed=seed, block=_BLOCK), str(about["trained_on"]))
    return _file_source(sample, events)


def _real_source(against: str | Path, events: int, seed: int) -> Source:
    """Events of a file, or of the stand-in, in blocks that can be dealt out to two halves."""
    if str(against) == STANDIN:
        return Source("stand-in simulation of diffdet, not Belle II data", _standin(events, seed))
    return _file_source(against, events, block=5)


def _standin(events: int, seed: int, block: int = 5) -> Iterator[Digits]:
    from diffdet.overlay.standin.sample import simulate_digits

    # Numbers far from those of the shipped weights' sample: what is compared with must not have been learnt.
    first = 1_000_000
    for start in range(0, events, block):
        numbers = range(first + start, first + min(start + block, events))
        yield simulate_digits(numbers, seed=seed)


def _file_source(path: str | Path, events: int, block: int = _BLOCK) -> Source:
    from diffdet.runs.background_files import read_blocks

    blocks, about = read_blocks(path, events, block)
    trained_on = about.get("trained_on")
    return Source(str(path), blocks, None if trained_on is None else str(trained_on))


def _drawn(summary: Summary) -> dict[str, Any]:
    """What the report draws of a sample, as plain numbers."""
    from diffdet.kernels.distances import spearman
    from diffdet.overlay.fidelity.metrics import variance_over_mean

    n = summary.n_events
    spread = summary.digits.std(0) / max(n, 1) ** 0.5
    return {
        "events": n,
        "digits": _rounded(summary.digits.mean(0)),
        "digits_se": _rounded(spread),
        "variance_over_mean": _rounded(variance_over_mean(summary)),
        "totals": _rounded(summary.digits.sum(1)),
        "charges": _rounded(_share(summary.charges.sum(0))),
        "sizes": _rounded(_share(summary.sizes)),
        "sizes_u": _rounded(_share(summary.sizes_u)),
        "sizes_v": _rounded(_share(summary.sizes_v)),
        "cluster_charges": _rounded(_share(summary.cluster_charges.sum(0))),
        "classes": _rounded(_share(summary.classes)),
        "profile_u": _rounded(_share(summary.profile_u.reshape(4, 25, 10).sum(2)) * 25),
        "profile_v": _rounded(_share(summary.profile_v.reshape(4, 48, 16).sum(2)) * 48),
        "spearman": _rounded(spearman(summary.digits), 3),
        "picture": [_picture(summary, index) for index in PICTURED],
    }


def _picture(summary: Summary, index: int) -> list[list[int]]:
    """Cells and charges of a sensor in the first event."""
    if not summary.events:
        return [[], [], []]
    event = summary.events[0]
    here = event.sensor == index
    return [column[here].tolist() for column in (event.u, event.v, event.charge)]


def _share(counts: Tensor) -> Tensor:
    return counts / counts.sum(-1, keepdim=True).clamp_min(1)


def _rounded(values: Tensor, digits: int = 6) -> list[Any]:
    """Numbers as plain lists with some significant digits."""

    def short(value: Any) -> Any:
        return [short(one) for one in value] if isinstance(value, list) else round(value, digits)

    return short(values.tolist())


def _silent(done: int, total: int | None, text: str) -> None:
    """Progress that nobody asked for."""
