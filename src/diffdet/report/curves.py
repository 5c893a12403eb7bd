"""Curves of a run: loss and its parts, and how the panels moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffdet.report import svg

_PHASES = (("train", "training"), ("valid", "validation"))


def _series(metrics: Sequence[dict[str, Any]], phase: str, key: str) -> tuple[list[int], list[float]]:
    found = [
        (entry["epoch"], entry[key]) for entry in metrics if entry["phase"] == phase and entry.get(key) is not None
    ]
    return [epoch for epoch, _ in found], [value for _, value in found]


def _mark_warmup(axes: Any, metrics: Sequence[dict[str, Any]]) -> None:
    """Shade the epochs in which the detector stood still."""
    warmup = [entry["epoch"] for entry in metrics if entry["phase"] == "warmup"]
    if warmup:
        axes.axvspan(min(warmup) - 0.5, max(warmup) + 0.5, color=svg.RULE, alpha=0.45, lw=0)
        axes.annotate(
            "warm-up", (min(warmup) - 0.3, 0.03), xycoords=("data", "axes fraction"), color=svg.SOFT, fontsize=9
        )


def _whole_epochs(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.grid(False, axis="x")


def loss_figure(metrics: Sequence[dict[str, Any]]) -> str | None:
    """Loss by epoch in training and validation."""
    if not any(entry.get("loss") is not None for entry in metrics):
        return None
    with svg.style():
        figure, axes = svg.new()
        _mark_warmup(axes, metrics)
        values: list[float] = []
        for phase, name in _PHASES:
            epochs, losses = _series(metrics, phase, "loss")
            values += losses
            if epochs:
                marker = "o" if len(epochs) < 40 else None
                axes.plot(
                    epochs,
                    losses,
                    color=svg.SERIES[phase],
                    marker=marker,
                    ms=3,
                    label=name,
                    ls="-" if phase == "train" else (0, (4, 2)),
                )
        epochs, losses = _series(metrics, "warmup", "loss")
        axes.plot(epochs, losses, color=svg.FINAL, marker="o", ms=3, lw=1, alpha=0.6)
        if values and min(values) > 0 and max(values) > 8 * min(values):
            axes.set_yscale("log")
            _plain_log(axes)
        svg.label(axes, x="epoch", y="loss")
        axes.legend(loc="upper right")
        _whole_epochs(axes)
        return svg.to_svg(figure, "Loss by epoch in training and validation")


def _plain_log(axes: Any) -> None:
    """Decimal labels on a logarithmic axis, because powers of ten need a font of their own."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_ylim()
    if high / low < 1000:
        from matplotlib.ticker import LogLocator

        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))


def cost_figure(detectors: Sequence[dict[str, Any]], config: dict[str, Any]) -> str | None:
    """Cost of the detector by epoch, where it is free to change."""
    epochs, costs = [entry["epoch"] for entry in detectors], [entry["cost"] for entry in detectors]
    # With a fixed budget the sum over panels changes by rounding only.
    if not epochs or max(costs) - min(costs) <= 1e-4 * max(map(abs, costs)):
        return None
    target = (config.get("loss") or {}).get("target_budget")
    with svg.style():
        figure, axes = svg.new()
        axes.plot(epochs, costs, color=svg.FINAL, marker="o" if len(epochs) < 40 else None, ms=3)
        if target is not None:
            axes.axhline(target, color=svg.SOFT, lw=1, ls=(0, (4, 2)))
            axes.annotate(f"budget {target:g}", (epochs[0], target), va="bottom", color=svg.SOFT, fontsize=9)
        svg.label(axes, x="epoch", y="cost [unit currency]")
        _whole_epochs(axes)
        return svg.to_svg(figure, "Cost of the detector by epoch")


def panel_figures(detectors: Sequence[dict[str, Any]], space: dict[str, Any]) -> list[tuple[str, str]]:
    """How the panels moved: height, distance of their centres from the middle, and area.

    Returns:
        ``(caption, svg)`` for each figure.
    """
    if len(detectors) < 2:
        return []
    epochs = [entry["epoch"] for entry in detectors]
    n_panels = min(len(entry["panels"]) for entry in detectors)
    middle = [side / 2 for side in space["lw"]]

    def curve(number: int, what: str) -> list[float]:
        values = []
        for entry in detectors:
            (x, y, z), (dx, dy) = entry["panels"][number]["xyz_m"], entry["panels"][number]["span_m"]
            values.append({"z": z, "r": ((x - middle[0]) ** 2 + (y - middle[1]) ** 2) ** 0.5, "a": dx * dy}[what])
        return values

    figures = []
    kinds = (
        ("z", "height of each panel [m]"),
        ("r", "distance of each panel from the middle [m]"),
        ("a", "area of each panel [m²]"),
    )
    for what, title in kinds:
        with svg.style():
            figure, axes = svg.new()
            for number in range(n_panels):
                position = detectors[0]["panels"][number]["position"]
                colour, dash = (svg.ABOVE, "-") if position == "above" else (svg.BELOW, (0, (5, 1.5)))
                axes.plot(epochs, curve(number, what), color=colour, ls=dash, lw=1.2)
            if what == "z":
                axes.axhspan(*space["passive"], color=svg.RULE, alpha=0.45, lw=0)
                axes.annotate(
                    "passive volume", (epochs[0], sum(space["passive"]) / 2), color=svg.SOFT, fontsize=9, va="center"
                )
            else:
                from matplotlib.lines import Line2D

                handles = [
                    Line2D([], [], color=svg.ABOVE, label="above"),
                    Line2D([], [], color=svg.BELOW, ls=(0, (5, 1.5)), label="below"),
                ]
                axes.legend(handles=handles, loc="best")
                if what == "r":
                    axes.set_ylim(bottom=0)
            svg.label(axes, x="epoch", y=title)
            _whole_epochs(axes)
            figures.append((title, svg.to_svg(figure, f"{title}, by epoch")))
    return figures
