"""How what panels learn besides position and size changed: the width of a hodoscope's bars, for example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffdet.report import svg
from diffdet.report.curves import _whole_epochs


def figures(detectors: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Curves of the families that have one number a panel.

    Args:
        detectors: Entries of `detectors.jsonl`, one for each epoch.

    Returns:
        ``(caption, svg)`` for each family.
    """
    if len(detectors) < 2:
        return []
    found: dict[str, list[int]] = {}
    for number, panel in enumerate(detectors[0]["panels"]):
        for family, values in panel.get("parameters", {}).items():
            if len(values) == 1:
                found.setdefault(family, []).append(number)
    return [_figure(detectors, family, numbers) for family, numbers in found.items()]


def _figure(detectors: Sequence[dict[str, Any]], family: str, numbers: Sequence[int]) -> tuple[str, str]:
    """One family, a line for each panel that has it."""
    from matplotlib.lines import Line2D

    title = f"{family.replace('_', ' ')} of each panel"
    epochs = [entry["epoch"] for entry in detectors]
    with svg.style():
        figure, axes = svg.new()
        for number in numbers:
            above = detectors[0]["panels"][number]["position"] == "above"
            values = [entry["panels"][number]["parameters"][family][0] for entry in detectors]
            colour, dash = (svg.ABOVE, "-") if above else (svg.BELOW, (0, (5, 1.5)))
            axes.plot(epochs, values, color=colour, ls=dash, lw=1.2)
        handles = [
            Line2D([], [], color=svg.ABOVE, label="above"),
            Line2D([], [], color=svg.BELOW, ls=(0, (5, 1.5)), label="below"),
        ]
        axes.legend(handles=handles, loc="best")
        svg.label(axes, x="epoch", y=title)
        _whole_epochs(axes)
        return title, svg.to_svg(figure, f"{title}, by epoch")
