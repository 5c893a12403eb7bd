"""The report of an image: slices, views, how sure it is, and which muons it was made from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from diffdet.core.errors import FileDamagedError
from diffdet.report import citations, slices
from diffdet.report.collect import RunRecord
from diffdet.report.numbers import count, decimals_for, duration, fixed
from diffdet.report.optimise import STATUS_WORDS

IMAGE = "image.h5"


def context(record: RunRecord) -> dict[str, Any]:
    """Everything that `image.html.j2` shows.

    Args:
        record: Content of the run folder.

    Returns:
        Values by the names that the template uses.
    """
    result = record.result
    status = str(result.get("status", "running"))
    counts = result.get("counts") or {}
    hits = Path(str(result.get("hits_file")))
    return {
        "title": str(result.get("name", "image")).replace("_", " "),
        "description": f"Radiation lengths from {count(result.get('muons'))} muons of {hits.name}.",
        "status": status,
        "status_words": STATUS_WORDS.get(status, status),
        "reason": result.get("reason", ""),
        "warnings": result.get("warnings") or [],
        "highlights": _highlights(result),
        "facts": _facts(result),
        "pictures": _pictures(record),
        "counts": counts,
        "lost": [(reason, count(number)) for reason, number in (counts.get("dropped") or {}).items()],
        "used": count(counts.get("used")),
        "events": count(counts.get("events")),
        "commands": _commands(result),
        "versions": list((result.get("versions") or {}).items()),
        "works": [(*work, citations.link(work[2])) for work in citations.works(record.config, optimised=False)],
        "folder": shlex.quote(str(record.folder)),
    }


def _highlights(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    figures = result.get("image") or {}
    found = []
    densest = figures.get("densest") or {}
    if densest.get("x0_m") is not None:
        error = densest.get("x0_unc_m")
        decimals = decimals_for([error], -3, most=2) if error is not None else 1
        value = fixed(densest["x0_m"], decimals, -3) + (f" ± {fixed(error, decimals, -3)}" if error is not None else "")
        place = ", ".join(f"{axis:g}" for axis in densest["position_m"])
        found.append((value, "mm", f"radiation length of the densest matter, at ({place}) m"))
    if figures.get("voxels_crossed") is not None:
        share = figures["voxels_crossed"] / figures["voxels"]
        found.append((f"{100 * share:.0f}", "%", f"of {count(figures['voxels'])} voxels were crossed by muons"))
    if figures.get("median_muons_a_voxel") is not None:
        found.append((count(figures["median_muons_a_voxel"]), "muons", "in the median crossed voxel"))
    return found


def _facts(result: dict[str, Any]) -> list[tuple[str, str]]:
    settings = result.get("settings") or {}
    figures = result.get("image") or {}
    facts = [("method", str(result.get("method", "–"))), ("muons used", count(result.get("muons")))]
    if settings.get("voxel_m") is not None:
        facts.append(("voxel", f"{settings['voxel_m'] * 100:g} cm"))
    momentum = settings.get("momentum_gev")
    facts.append(("momentum", "as recorded" if momentum is None else f"{momentum:g} GeV for all"))
    if figures.get("exposure_per_m2") is not None:
        facts.append(("exposure", f"{count(figures['exposure_per_m2'])} muons/m²"))
    facts += [("time", duration(result.get("wall_seconds")))]
    if result.get("finished"):
        facts.append(("finished", str(result["finished"]).replace("T", " ")[:16]))
    return facts


def _pictures(record: RunRecord) -> list[tuple[str, str]]:
    """Views and slices, as the page's own figures."""
    path = record.folder / IMAGE
    if not path.is_file():
        return []
    import h5py
    import numpy as np

    try:
        with h5py.File(path, "r") as opened:
            file: Any = opened
            cubes = {
                name: np.asarray(file[name][()], dtype=float) for name in ("inverse_x0", "inverse_x0_unc", "counts")
            }
            edges = tuple(np.asarray(file[f"edges_{axis}"][()], dtype=float) for axis in "xyz")
    except (OSError, KeyError) as error:
        raise FileDamagedError(f"{path}: expected a voxel image, given a file that is not: {error}") from error
    density, unc, crossed = cubes["inverse_x0"], cubes["inverse_x0_unc"], cubes["counts"]
    if not (crossed > 0).any():
        return []
    where = (edges[0], edges[1], edges[2])
    known = np.where(crossed > 0, 1.0, np.nan)
    density_row = slices.Rows(
        {"image": np.where(density > 0, density, np.nan), "uncertainty": unc * known}, "1/X₀ [1/m]"
    )
    muons_row = slices.Rows({"muons": crossed * known}, "muons", logarithmic=False)
    return [
        ("Scattering density 1/X₀, averaged along the line of sight", slices.views(density, where, "mean 1/X₀ [1/m]")),
        (
            "Scattering density in slices from the lowest to the highest, and one standard deviation of it in the same "
            "colours. Plain where no muon went, or where the density came out below zero",
            slices.draw(density_row, where, "Image in horizontal slices"),
        ),
        ("Muons in each voxel", slices.draw(muons_row, where, "Muons in horizontal slices")),
    ]


def _commands(result: dict[str, Any]) -> str:
    return str(result.get("command", ""))
