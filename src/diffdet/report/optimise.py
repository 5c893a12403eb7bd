"""The report of an optimisation: what the template shows, from what the run folder holds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from diffdet.report import citations, curves, detector, families, models, predictions
from diffdet.report.collect import CONFIG, RunRecord
from diffdet.report.numbers import common_power, count, decimals_for, duration, fixed, power_label, significant
from diffdet.report.predictions import name_of

STATUS_WORDS = {"complete": "complete", "interrupted": "interrupted", "failed": "failed", "running": "no result yet"}

_LABELS = {"mse": "mean squared error", "abs_bias": "mean |error|", "loss": "loss", "error": "error", "cost": "cost"}
_UNITS = {"m2": "m²", "m": "m", "rad": "rad", "gev": "GeV"}


def context(record: RunRecord) -> dict[str, Any]:
    """Everything that `optimise.html.j2` shows.

    Args:
        record: Content of the run folder.

    Returns:
        Values by the names that the template uses.
    """
    config, result = record.config, record.result
    status = str(result.get("status", "running"))
    space = detector.geometry(config)
    shown = {
        "title": str(config.get("name", "optimisation")).replace("_", " "),
        "description": config.get("description", ""),
        "status": status,
        "status_words": STATUS_WORDS.get(status, status),
        "reason": result.get("reason", ""),
        "warnings": result.get("warnings") or [],
        "highlights": _highlights(result),
        "facts": _facts(record),
        "comparison": _comparison(result),
        "curves": _curves(record, space),
        "models": models.section(result, _split),
        "task_plots": [],
        "task_wide": False,
        "commands": _commands(record),
        "versions": [
            (name, version) for name, version in (result.get("versions") or config.get("versions") or {}).items()
        ],
        "works": [(*work, citations.link(work[2])) for work in citations.works(config, optimised=True)],
        "folder": shlex.quote(str(record.folder)),
        **_detector(record, space),
    }
    found = result.get("predictions")
    if found:
        wide = found["kind"] == "x0"
        shown |= {
            "task_plots": predictions.x0_figure(found) if wide else predictions.scalar_figures(found),
            "task_wide": wide,
        }
    return shown


def _split(key: str) -> tuple[str, str]:
    """A figure's key such as ``mse_m2`` as its name and unit in words."""
    base, _, unit = key.rpartition("_")
    if base and unit in _UNITS:
        return _LABELS.get(base, base.replace("_", " ")), _UNITS[unit]
    return _LABELS.get(key, key.replace("_", " ")), "unit currency" if key == "cost" else ""


def _detectors_of(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Figures of each detector, in the order of the table."""
    found = {key: result[key] for key in ("initial", "final") if result.get(key)}
    return found | dict(result.get("baselines") or {})


def _main_key(result: Mapping[str, Any]) -> str | None:
    """The figure that the task is judged by: the first that comes with a standard error."""
    figures = result.get("final") or result.get("initial") or {}
    return next((key for key in figures if f"{key}_se" in figures), None)


def _highlights(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    key = _main_key(result)
    initial, final = result.get("initial"), result.get("final")
    if key is None or not initial or not final or final.get(key) is None:
        return []
    name, unit = _split(key)
    power = common_power([final[key]])
    decimals = max(0, decimals_for([final[f"{key}_se"]], power) - 1)
    error = fixed(final[f"{key}_se"], decimals, power)
    unit = f"× {power_label(power)} {unit}" if power else unit
    highlights = [(f"{fixed(final[key], decimals, power)} ± {error}", unit, f"{name} of the optimised detector")]
    if final[key] > 0 and (initial.get(key) or 0) > 0:
        highlights.append((significant(initial[key] / final[key], 2), "times", "smaller than before the optimisation"))
    baselines = {label: figures for label, figures in (result.get("baselines") or {}).items() if figures.get(key)}
    if baselines and final[key] > 0:
        best = min(baselines, key=lambda label: float(baselines[label][key]))
        ratio = float(final[key]) / float(baselines[best][key])
        highlights.append((significant(ratio, 2), "times", f"that of {name_of(best)}, the better of the human designs"))
    return highlights


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    config, result = record.config, record.result
    epochs = {entry["epoch"] for entry in record.metrics}
    facts = [("seed", str(config.get("seed", "–"))), ("device", str(result.get("device", config.get("device", "–"))))]
    facts.append(("epochs", f"{max(epochs, default=0)} of {_total_epochs(config)}"))
    if result:
        facts += [
            ("time", duration(result.get("wall_seconds"))),
            ("muons simulated", count(result.get("muons_simulated"))),
            ("throughput", f"{count(result.get('muons_per_second'))} muons/s"),
        ]
    budget = config["volume"].get("budget")
    if budget is not None:
        facts.append(("budget", f"{budget:g}"))
    if result.get("finished"):
        facts.append(("finished", str(result["finished"]).replace("T", " ")[:16]))
    return facts


def _total_epochs(config: Mapping[str, Any]) -> int:
    schedule = config.get("schedule") or {}
    return sum(int(schedule.get(key) or 0) for key in ("epochs", "warmup_epochs", "cost_warmup_epochs"))


def _comparison(result: Mapping[str, Any]) -> dict[str, Any] | None:
    detectors = _detectors_of(result)
    if not detectors:
        return None
    keys = [key for key in next(iter(detectors.values())) if not key.endswith("_se") and _is_number(detectors, key)]
    # What is the same for all detectors, such as a fixed budget, compares nothing.
    keys = [
        key
        for key in keys
        if f"{key}_se" in next(iter(detectors.values()))
        or len({figures.get(key) for figures in detectors.values()}) > 1
    ]
    heads, columns = [], []
    for key in keys:
        name, unit = _split(key)
        values = [figures.get(key) for figures in detectors.values()]
        errors = [figures.get(f"{key}_se") for figures in detectors.values()]
        power = common_power(values)
        decimals = decimals_for(errors, power) if any(errors) else 2
        heads.append({"name": name, "unit": f"{power_label(power)} {unit}".strip()})
        columns.append(
            [
                {
                    "value": fixed(value, decimals, power),
                    "error": fixed(error, decimals, power) if error is not None else "",
                }
                for value, error in zip(values, errors, strict=True)
            ]
        )
    rows = [
        {"key": key, "name": name_of(key), "cells": [column[number] for column in columns]}
        for number, key in enumerate(detectors)
    ]
    evaluation = result.get("evaluation") or {}
    introduction = (
        evaluation.get("text") or "Figures with their standard errors, on volumes that the optimisation has never seen."
    )
    return {"heads": heads, "rows": rows, "introduction": introduction, "notes": evaluation.get("notes") or []}


def _is_number(detectors: Mapping[str, Mapping[str, Any]], key: str) -> bool:
    return all(isinstance(figures.get(key), (int, float, type(None))) for figures in detectors.values())


def _curves(record: RunRecord, space: dict[str, Any]) -> list[tuple[str, str]]:
    found = [("", curves.loss_figure(record.metrics)), ("", curves.cost_figure(record.detectors, record.config))]
    drawn = [(caption, figure) for caption, figure in found if figure is not None]
    own = families.figures(record.detectors)
    return drawn + [("", figure) for _, figure in [*curves.panel_figures(record.detectors, space), *own]]


def _detector(record: RunRecord, space: dict[str, Any]) -> dict[str, Any]:
    """Pictures and table of the panels."""
    if not record.detectors:
        return {"stills": [], "panels": [], "view": None, "missing_view": False}
    first, last = record.detectors[0], record.detectors[-1]
    snapshots = [first] if first["epoch"] == last["epoch"] else [first, last]
    reach = detector.reach_of([entry["panels"] for entry in snapshots], space)
    stills = []
    for entry in snapshots:
        caption = (
            "Before: the detector that the run started from" if entry is first else f"After epoch {entry['epoch']}"
        )
        stills.append((caption, detector.still(entry["panels"], space, reach, caption)))
    view = detector.interactive(record.detectors, space) if len(record.detectors) > 1 else None
    return {
        "stills": stills,
        "panels": _panel_rows(first, last),
        "view": view,
        "missing_view": len(record.detectors) > 1 and view is None,
    }


def _panel_rows(first: Mapping[str, Any], last: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    numbers: dict[str, int] = {}
    for before, after in zip(first["panels"], last["panels"], strict=False):
        position = before["position"]
        numbers[position] = numbers.get(position, 0) + 1
        pairs = [(before["xyz_m"][axis], after["xyz_m"][axis], 3) for axis in range(3)]
        pairs += [(before["span_m"][axis], after["span_m"][axis], 3) for axis in range(2)]
        pairs.append((before["cost"], after["cost"], 2))
        cells = [(fixed(old, digits), fixed(new, digits)) for old, new, digits in pairs]
        rows.append({"position": position, "name": f"{position} {numbers[position]}", "cells": cells})
    return rows


def _commands(record: RunRecord) -> str:
    again = f"diffdet optimise {shlex.quote(str(record.folder / CONFIG))} --out AGAIN"
    command = record.result.get("command")
    return f"# as it was called\n{command}\n\n# from this folder\n{again}" if command else again
