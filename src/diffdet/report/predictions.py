"""What the detector is for: predictions against the truth, on held-out volumes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from diffdet.report import svg

NAMES = {"initial": "initial", "final": "optimised", "baseline_1": "baseline 1", "baseline_2": "baseline 2"}
_MARKERS = {"initial": "s", "final": "o", "baseline_1": "^", "baseline_2": "D"}


def name_of(key: str) -> str:
    """A detector's name in words."""
    return NAMES.get(key, key.replace("_", " "))


def _by_target(entry: Mapping[str, Sequence[float]]) -> dict[float, list[float]]:
    groups: dict[float, list[float]] = defaultdict(list)
    for target, prediction in zip(entry["target"], entry["prediction"], strict=True):
        groups[target].append(prediction)
    return dict(sorted(groups.items()))


def _colour(key: str) -> str:
    return svg.SERIES.get(key, svg.SOFT)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _spread(values: Sequence[float]) -> float:
    mean = _mean(values)
    return (sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)) ** 0.5


def scalar_figures(predictions: dict[str, Any]) -> list[tuple[str, str]]:
    """Figures for a task that predicts one number of a volume.

    Args:
        predictions: ``quantity``, ``unit`` and for each of ``detectors`` the lists ``target`` and ``prediction``.

    Returns:
        ``(caption, svg)`` for each figure.
    """
    detectors: dict[str, Any] = predictions["detectors"]
    quantity, unit = predictions["quantity"], predictions["unit"]
    return [
        (
            f"Predicted {quantity} against the true one: mean and spread over volumes",
            _against_truth(detectors, quantity, unit),
        ),
        (f"Mean error by true {quantity}, with its standard error", _bias(detectors, quantity, unit)),
        (f"Mean squared error by true {quantity}", _squared(detectors, quantity, unit)),
    ]


def _offsets(detectors: Mapping[str, Any], targets: Sequence[float]) -> dict[str, float]:
    """Sideways shifts that keep error bars of different detectors apart."""
    step = min((b - a for a, b in pairwise(targets)), default=1.0)
    n = len(detectors)
    return {key: 0.13 * step * (k - (n - 1) / 2) for k, key in enumerate(detectors)}


def _targets(detectors: Mapping[str, Any]) -> list[float]:
    return sorted({target for entry in detectors.values() for target in entry["target"]})


def _style(key: str) -> dict[str, Any]:
    return {"color": _colour(key), "marker": _MARKERS.get(key, "v"), "ms": 4, "lw": 1.2, "label": name_of(key)}


def _against_truth(detectors: Mapping[str, Any], quantity: str, unit: str) -> str:
    with svg.style():
        figure, axes = svg.new(height=3.6)
        targets = _targets(detectors)
        axes.plot([targets[0], targets[-1]], [targets[0], targets[-1]], color=svg.SOFT, lw=1, ls=(0, (4, 2)))
        shift = _offsets(detectors, targets)
        for key, entry in detectors.items():
            groups = _by_target(entry)
            means, spreads = [_mean(v) for v in groups.values()], [_spread(v) for v in groups.values()]
            axes.errorbar([t + shift[key] for t in groups], means, spreads, ls="", elinewidth=1, **_style(key))
        svg.label(axes, x=f"true {quantity} [{unit}]", y=f"predicted {quantity} [{unit}]")
        axes.legend(loc="upper left")
        return svg.to_svg(figure, f"Predicted against true {quantity}")


def _bias(detectors: Mapping[str, Any], quantity: str, unit: str) -> str:
    with svg.style():
        figure, axes = svg.new(height=3.6)
        targets = _targets(detectors)
        axes.axhline(0, color=svg.SOFT, lw=1, ls=(0, (4, 2)))
        shift = _offsets(detectors, targets)
        for key, entry in detectors.items():
            groups = _by_target(entry)
            errors = {t: [value - t for value in values] for t, values in groups.items()}
            means = [_mean(v) for v in errors.values()]
            widths = [_spread(v) / len(v) ** 0.5 for v in errors.values()]
            axes.errorbar([t + shift[key] for t in groups], means, widths, ls="", elinewidth=1, **_style(key))
        svg.label(axes, x=f"true {quantity} [{unit}]", y=f"mean error [{unit}]")
        axes.legend(loc="best")
        return svg.to_svg(figure, f"Mean error by true {quantity}")


def _squared(detectors: Mapping[str, Any], quantity: str, unit: str) -> str:
    from diffdet.report.curves import _plain_log

    with svg.style():
        figure, axes = svg.new(height=3.6)
        for key, entry in detectors.items():
            groups = _by_target(entry)
            axes.plot(
                list(groups), [_mean([(v - t) ** 2 for v in values]) for t, values in groups.items()], **_style(key)
            )
        axes.set_yscale("log")
        _plain_log(axes)
        svg.label(axes, x=f"true {quantity} [{unit}]", y=f"mean squared error [{unit}²]")
        axes.legend(loc="best")
        return svg.to_svg(figure, f"Mean squared error by true {quantity}")


def x0_figure(predictions: dict[str, Any]) -> list[tuple[str, str]]:
    """Slices through predicted and true radiation lengths of one volume.

    Args:
        predictions: ``edges`` (x, y, z, m) and cubes (z, x, y) under ``truth``, ``initial`` and ``final``; None where
            unknown.

    Returns:
        ``(caption, svg)`` for one figure.
    """
    import numpy as np

    from diffdet.report.slices import Rows, draw

    names = {"truth": "true", "initial": name_of("initial"), "final": name_of("final")}
    cubes = {name: np.array(predictions[key], dtype=float) for key, name in names.items() if predictions.get(key)}
    edges_x, edges_y, edges_z = (np.array(edge, dtype=float) for edge in predictions["edges"])
    picture = draw(Rows(cubes, "X₀ [m]"), (edges_x, edges_y, edges_z), "Radiation length in horizontal slices")
    return [("Radiation length of the first volume, in slices from the lowest to the highest; shared colours", picture)]
