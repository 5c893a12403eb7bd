"""Course of a training: losses, metrics and learning rates by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffdet.report import svg

__all__ = ["figures"]

_KNOWN = {"model", "epoch", "phase", "loss", "learning_rates", "momenta", "events", "seconds"}
_PHASES = (("train", "training"), ("valid", "validation"))


def figures(metrics: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Loss, each metric, and the learning rate, by epoch.

    Args:
        metrics: Lines of `metrics.jsonl`.

    Returns:
        ``(caption, svg)`` for each figure.
    """
    found: list[tuple[str, str]] = []
    loss = _figure(metrics, "loss", "loss", log=True)
    if loss is not None:
        several = len({entry.get("model") for entry in metrics}) > 1
        found.append(("Loss of every model, thin, and their mean" if several else "", loss))
    names = dict.fromkeys(
        key for entry in metrics for key, value in entry.items() if key not in _KNOWN and isinstance(value, int | float)
    )
    for name in names:
        figure = _figure(metrics, name, name.replace("_", " "), log=False)
        if figure is not None:
            found.append(("", figure))
    rates = [
        {**entry, "rate": next(iter(entry["learning_rates"].values()))}
        for entry in metrics
        if entry.get("phase") == "train" and entry.get("learning_rates")
    ]
    if len({entry["rate"] for entry in rates}) > 1:
        figure = _figure(rates, "rate", "learning rate at the end of the epoch", log=True)
        if figure is not None:
            found.append(("", figure))
    return found


def _figure(metrics: Sequence[dict[str, Any]], key: str, title: str, *, log: bool) -> str | None:
    from diffdet.report.curves import _plain_log, _whole_epochs

    drawn: list[float] = []
    with svg.style():
        figure, axes = svg.new()
        for phase, name in _PHASES:
            lines = [entry for entry in metrics if entry.get("phase") == phase and entry.get(key) is not None]
            models = sorted({int(entry.get("model") or 0) for entry in lines})
            style: dict[str, Any] = {"color": svg.SERIES[phase], "ls": "-" if phase == "train" else (0, (4, 2))}
            by_epoch: dict[int, list[float]] = {}
            for model in models:
                own = [(entry["epoch"], entry[key]) for entry in lines if int(entry.get("model") or 0) == model]
                for epoch, value in own:
                    by_epoch.setdefault(epoch, []).append(value)
                if len(models) > 1:
                    axes.plot(*zip(*own, strict=True), lw=0.7, alpha=0.45, **style)
            if by_epoch:
                epochs = sorted(by_epoch)
                means = [sum(by_epoch[epoch]) / len(by_epoch[epoch]) for epoch in epochs]
                drawn += means
                marker = "o" if len(epochs) < 40 else None
                axes.plot(epochs, means, marker=marker, ms=3, label=name, **style)
        if not drawn:
            return None
        if log and min(drawn) > 0 and max(drawn) > 4 * min(drawn):
            axes.set_yscale("log")
            _plain_log(axes)
        _whole_epochs(axes)
        svg.label(axes, x="epoch", y=title)
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend(loc="best")
        return svg.to_svg(figure, f"{title}, by epoch")
