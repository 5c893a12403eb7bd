"""The report of a training: what the template shows, from what the run folder holds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from diffdet.report import train_curves, train_figures, train_works
from diffdet.report.citations import link
from diffdet.report.collect import CONFIG, RunRecord
from diffdet.report.numbers import common_power, count, decimals_for, duration, fixed, power_label, significant
from diffdet.report.optimise import STATUS_WORDS
from diffdet.report.train_data import Judged, read_predictions

__all__ = ["context"]

LABELS = {
    "log_loss": "log loss",
    "accuracy": "accuracy",
    "roc_auc": "area under ROC",
    "resolution": "spread of errors",
    "bias": "mean error",
    "mean_abs_error": "mean |error|",
}
"""Figures in words."""

MAIN = {"classification": "roc_auc", "multiclass": "roc_auc", "regression": "resolution"}
"""What each objective is judged by."""


def context(record: RunRecord) -> dict[str, Any]:
    """Everything that `train.html.j2` shows.

    Args:
        record: Content of the run folder.

    Returns:
        Values by the names that the template uses.

    Raises:
        FileDamagedError: If the predictions cannot be read.
    """
    config, result = record.config, record.result
    status = str(result.get("status", "running"))
    judged = read_predictions(record)
    return {
        "title": str(config.get("name", "training")).replace("_", " "),
        "description": config.get("description", ""),
        "status": status,
        "status_words": STATUS_WORDS.get(status, status),
        "reason": result.get("reason", ""),
        "warnings": result.get("warnings") or [],
        "highlights": _highlights(result, judged),
        "facts": _facts(record),
        "comparison": _comparison(result),
        "models": _models(result),
        "curves": train_curves.figures(record.metrics),
        "judged": train_figures.figures(judged) if judged is not None else [],
        "judged_text": _judged_text(judged),
        "importance": train_figures.importance_figure(result.get("importance") or []),
        "network": _network(config),
        "commands": _commands(record),
        "versions": list((result.get("versions") or config.get("versions") or {}).items()),
        "works": [(*work, link(work[2])) for work in train_works.works(config)],
        "folder": shlex.quote(str(record.folder)),
    }


def _value(figures: Mapping[str, Any], key: str) -> tuple[str, str]:
    """A figure and its standard error, as they are read."""
    power = common_power([figures[key]]) if key == "resolution" else 0
    error = figures.get(f"{key}_se")
    decimals = decimals_for([error], power)
    return fixed(figures[key], decimals, power), fixed(error, decimals, power)


def _highlights(result: Mapping[str, Any], judged: Judged | None) -> list[tuple[str, str, str]]:
    final, objective = result.get("final"), str(result.get("objective", ""))
    key = MAIN.get(objective)
    if not final or key is None or final.get(key) is None:
        return []
    value, error = _value(final, key)
    shown = [(f"{value} ± {error}", "", f"{LABELS[key]} on {count(result.get('test_events'))} test events")]
    constant = (result.get("baselines") or {}).get("constant") or {}
    if objective == "regression":
        if constant.get(key) and final[key] > 0:
            shown.append((significant(constant[key] / final[key], 2), "times", "smaller than without any feature"))
        bias, error = _value(final, "bias")
        shown.append((f"{bias} ± {error}", "", "mean error"))
    else:
        value, error = _value(final, "accuracy")
        shown.append((f"{value} ± {error}", "", "accuracy"))
        if judged is not None and judged.best_cut is not None:
            z, error = judged.best_cut.significance, judged.best_cut.error
            shown.append((f"{fixed(z, 1)} ± {fixed(error, 1)}", "σ", "significance expected at the best cut"))
    return shown


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    config, result = record.config, record.result
    schedule = config.get("schedule") or {}
    epochs = max((entry.get("epoch", 0) for entry in record.metrics), default=0)
    facts = [("seed", str(config.get("seed", "–"))), ("device", str(result.get("device", config.get("device", "–"))))]
    models = int(schedule.get("models") or 1)
    facts.append(
        ("epochs", f"{epochs} of {schedule.get('epochs', '–')}" + (f", {models} models" if models > 1 else ""))
    )
    told = result.get("models") or []
    if told:
        facts.append(("parameters", count(told[0].get("parameters"))))
    if result:
        facts += [
            ("time", duration(result.get("wall_seconds"))),
            ("events trained on", count(result.get("events_trained"))),
            ("test events", count(result.get("test_events"))),
        ]
    if result.get("finished"):
        facts.append(("finished", str(result["finished"]).replace("T", " ")[:16]))
    return facts


def _comparison(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Figures of the network beside those of a constant."""
    final = result.get("final")
    if not final:
        return None
    rows = {"network": final, **(result.get("baselines") or {})}
    keys = [key for key in final if f"{key}_se" in final]
    heads, columns = [], []
    for key in keys:
        errors = [figures.get(f"{key}_se") for figures in rows.values()]
        power = common_power([figures.get(key) for figures in rows.values()]) if key in ("resolution",) else 0
        decimals = decimals_for([error for error in errors if error], power)
        heads.append({"name": LABELS.get(key, key.replace("_", " ")), "unit": power_label(power)})
        columns.append(
            [
                {
                    "value": fixed(_no_dust(figures.get(key), error), decimals, power),
                    "error": fixed(error, decimals, power) if error else "",
                }
                for figures, error in zip(rows.values(), errors, strict=True)
            ]
        )
    names = {"network": "network", "constant": "no feature at all"}
    return {
        "heads": heads,
        "rows": [
            {
                "key": "final" if name == "network" else "baseline_1",
                "name": names.get(name, name.replace("_", " ")),
                "cells": [column[number] for column in columns],
            }
            for number, name in enumerate(rows)
        ],
    }


def _no_dust(value: float | None, error: float | None) -> float | None:
    """A value, or 0 where rounding is all that is left of it."""
    return 0.0 if value is not None and error and abs(value) < 1e-9 * error else value


def _models(result: Mapping[str, Any]) -> list[list[str]]:
    """Rows about each model, where there are several."""
    told = result.get("models") or []
    if len(told) < 2:
        return []
    rows = []
    for entry in told:
        weight = entry.get("weight")
        rows.append(
            [
                str(entry.get("model")),
                str(entry.get("validation_fold")),
                str(entry.get("epochs")),
                significant(entry.get("best_loss"), 4),
                "–" if weight is None else fixed(weight, 3),
                str(entry.get("reason", "")),
            ]
        )
    return rows


def _judged_text(judged: Judged | None) -> str:
    if judged is None:
        return ""
    n = count(len(judged.target))
    text = f"All {n} events below were kept from training and validation. "
    text += "Bands and bars are standard errors, from resampling these events."
    return text


def _network(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The parts of the network in words."""
    network = config.get("network") or {}
    rows = [(part, _spec(network.get(part))) for part in ("head", "body", "tail") if network.get(part)]
    loss = config.get("loss")
    rows.append(("loss", _spec(loss) if loss else f"the usual one for {network.get('objective', 'the objective')}"))
    optimiser = config.get("optimiser") or {}
    if optimiser:
        rows.append(("optimiser", f"{optimiser.get('class', 'adam')}, learning rate {optimiser.get('lr')}"))
    schedule = config.get("schedule") or {}
    rows.append(("batch", f"{count(schedule.get('batch_size'))} events"))
    return [(name, text) for name, text in rows if text]


def _spec(spec: Any) -> str:
    """A class and its arguments, ``Class(width=64)``; classes within are shown likewise."""
    if isinstance(spec, str):
        return spec
    if not isinstance(spec, Mapping):
        return ""
    args = spec.get("args") or {}
    parts = []
    for key, value in args.items():
        inner = _spec(value) if isinstance(value, Mapping) and "class" in value else value
        parts.append(f"{key}={inner}")
    return f"{spec.get('class', '')}({', '.join(parts)})" if parts else str(spec.get("class", ""))


def _commands(record: RunRecord) -> str:
    again = f"diffdet train {shlex.quote(str(record.folder / CONFIG))} --out AGAIN"
    command = record.result.get("command")
    return f"# as it was called\n{command}\n\n# from this folder\n{again}" if command else again
