"""How far the smooth model of the final detector is from the physical one: a table and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from diffdet.report import svg
from diffdet.report.numbers import common_power, decimals_for, fixed, power_label

_QUANTITIES = {
    "share_used": ("share of muons used", ""),
    "hit_efficiency": ("efficiency of a hit", ""),
    "hit_resolution_m": ("error of a hit in x or y", "m"),
    "angle_in_rad": ("angle to the true track, above", "rad"),
    "angle_out_rad": ("angle to the true track, below", "rad"),
}
_COLUMNS = ("smooth", "physical", "difference")
_STYLES = {"smooth": (svg.INITIAL, "-"), "physical": (svg.FINAL, (0, (5, 1.5)))}
_MANY_SIGMA = 3.0


def section(result: Mapping[str, Any], split: Callable[[str], tuple[str, str]]) -> dict[str, Any] | None:
    """What the template shows of a comparison of models.

    Args:
        result: Content of `result.json`.
        split: Turns the key of a figure of the task into its name and unit in words.

    Returns:
        ``rows``, ``text``, ``notes`` and ``plots``; None where there is no comparison.
    """
    found = result.get("model_comparison")
    if not found:
        return None
    rows = [
        _row(name, unit, found["figures"][key])
        for key, (name, unit) in _QUANTITIES.items()
        if key in found.get("figures", {})
    ]
    for key, row in (found.get("task") or {}).items():
        name, unit = split(key)
        rows.append(_row(name, unit, row))
    return {
        "rows": rows,
        "text": _text(found),
        "notes": found.get("notes") or [],
        "plots": figures(found.get("curves") or {}),
    }


def _row(name: str, unit: str, row: Mapping[str, float | None]) -> dict[str, Any]:
    """One quantity as the table shows it."""
    values = [row.get(key) for key in _COLUMNS]
    errors = [row.get(f"{key}_se") for key in _COLUMNS]
    power = common_power(values[:2])
    decimals = decimals_for(errors, power)
    cells = [
        {"value": fixed(value, decimals, power), "error": "" if error is None else fixed(error, decimals, power)}
        for value, error in zip(values, errors, strict=True)
    ]
    if values[2] is not None and values[2] > 0:
        cells[2]["value"] = f"+{cells[2]['value']}"
    apart = values[2] is not None and errors[2] is not None and abs(values[2]) > _MANY_SIGMA * errors[2]
    return {"name": name, "unit": f"{power_label(power)} {unit}".strip(), "cells": cells, "apart": apart}


def _text(found: Mapping[str, Any]) -> str:
    """What was compared, on what."""
    muons = f"{found.get('muons', 0):,}".replace(",", "\u202f")
    layouts = found.get("layouts", 1)
    where = "one held-out volume" if layouts == 1 else f"{layouts} held-out volumes"
    text = (
        "While it is optimised, a panel responds smoothly, so that its gradient knows where a muon would have hit it; "
        "a real panel ends at its edge. Both models of the final detector, outside the optimisation, on the same "
        f"{muons} muons through {where}: of errors and angles the value below which 68 % lie."
    )
    if found.get("task") and found.get("task_volumes"):
        text += f" The figures of the task come from {found['task_volumes']} held-out volumes."
    return text


def figures(curves: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Pictures of both models.

    Args:
        curves: ``share_used``, ``hit_resolution_m``, ``angle_in_rad`` and ``angle_out_rad``, as far as they are there.

    Returns:
        ``(caption, svg)`` for each.
    """
    drawn = []
    if "share_used" in curves:
        caption = "Share of muons used, by distance from the axis of the volume at half its height"
        drawn.append((caption, _shells(curves["share_used"])))
    for key, caption, unit, factor in (
        ("hit_resolution_m", "Share of hits with an error in x or y below a value", "mm", 1e3),
        ("angle_in_rad", "Share of tracks above with an angle to the true one below a value", "mrad", 1e3),
        ("angle_out_rad", "Share of tracks below, likewise", "mrad", 1e3),
    ):
        if key in curves:
            drawn.append((caption, _cumulative(curves[key], caption, unit, factor)))
    return drawn


def _shells(curve: Mapping[str, Any]) -> str:
    with svg.style():
        figure, axes = svg.new()
        edges: Sequence[float] = curve["edges"]
        for model, (colour, dash) in _STYLES.items():
            values, errors = curve[model]["value"], curve[model]["error"]
            axes.stairs(values, edges, baseline=None, color=colour, lw=1.6, ls=dash, label=model)
            middles = [(low + high) / 2 for low, high in pairwise(edges)]
            axes.errorbar(middles, values, errors, color=colour, ls="", elinewidth=1)
        axes.set_ylim(bottom=0)
        svg.label(axes, x="distance from the axis [m]", y="share of muons used")
        axes.legend(loc="upper right")
        return svg.to_svg(figure, "Share of muons used by distance from the axis, for both models of the detector")


def _cumulative(curve: Mapping[str, Any], description: str, unit: str, factor: float) -> str:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    with svg.style():
        figure, axes = svg.new()
        edges = [edge * factor for edge in curve["edges"]]
        for model, (colour, dash) in _STYLES.items():
            axes.plot(edges, curve[model]["value"], color=colour, ls=dash, label=model)
        axes.axhline(0.6827, color=svg.SOFT, lw=1, ls=(0, (1, 2)))
        axes.annotate("68 %", (edges[0], 0.6827), va="bottom", color=svg.SOFT, fontsize=9)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if edges[-1] / edges[0] > 300 else (1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(0, 1.02)
        what = "error" if unit == "mm" else "angle"
        svg.label(axes, x=f"{what} [{unit}]", y="share below")
        axes.legend(loc="lower right")
        return svg.to_svg(figure, description)
