"""Course of trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffdet.core.errors import InputError
from diffdet.nn.plotting._figures import colours, drawing, finish
from diffdet.nn.plotting.plot_settings import PlotSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_train_history"]


def plot_train_history(
    histories: Sequence[Mapping[str, Any]] | Mapping[str, Any],
    savename: str | None = None,
    ignore_trn: bool = False,
    settings: PlotSettings | None = None,
    show: bool = True,
    xlow: int = 0,
    log_y: bool = False,
) -> Figure:
    """Draw losses and metrics by epoch, one line for each model.

    Args:
        histories: What `train_models` returns as histories, one or several: ``{"losses": {...}, "metrics": {...}}``; or
            losses alone by name.
        savename: Name of the file, without suffix.
        ignore_trn: Whether to leave out training losses.
        settings: Appearance; by default that of `PlotSettings`.
        show: Unused; a figure is shown where somebody can see it.
        xlow: First epoch to draw.
        log_y: Whether losses have a logarithmic axis.

    Returns:
        The figure.

    Raises:
        InputError: If there is nothing to draw.
    """
    del show
    settings = settings or PlotSettings()
    several = [histories] if isinstance(histories, Mapping) else list(histories)
    told = [history if "losses" in history else {"losses": history, "metrics": {}} for history in several]
    losses = dict.fromkeys(name for history in told for name in history["losses"])
    metrics = dict.fromkeys(name for history in told for name in history.get("metrics") or {})
    if ignore_trn:
        losses = dict.fromkeys(name for name in losses if "train" not in name.lower())
    if not any(len(history["losses"].get(name, ())) for history in told for name in losses):
        raise InputError("`histories` must hold losses; got none")
    with drawing(settings, settings.w_mid, settings.h_mid * (1 if not metrics else 0.6 + 0.5 * len(metrics))) as figure:
        rows = figure.subplots(1 + len(metrics), 1, sharex=True, squeeze=False)[:, 0]
        palette = colours(settings.cat_palette, len(losses))
        for colour, name in zip(palette, losses, strict=True):
            for k, history in enumerate(told):
                _line(rows[0], history["losses"].get(name, ()), xlow, colour, name if k == 0 else None, len(told))
        for axes, name in zip(rows[1:], metrics, strict=True):
            colour = palette[-1]
            for history in told:
                _line(axes, (history.get("metrics") or {}).get(name, ()), xlow, colour, None, len(told))
            axes.set_ylabel(name)
        if log_y:
            rows[0].set_yscale("log")
        rows[0].set(ylabel="Loss", title=settings.title)
        rows[0].legend(loc=settings.leg_loc)
        rows[-1].set_xlabel("Epoch")
        for axes in rows:
            axes.margins(x=0.02)
            axes.xaxis.get_major_locator().set_params(integer=True)
        return finish(figure, savename, settings)


def _line(axes: Any, values: Sequence[float], xlow: int, colour: Any, label: str | None, n: int) -> None:
    found = np.asarray(values, dtype=np.float64)[xlow:]
    if len(found):
        epochs = np.arange(xlow + 1, xlow + 1 + len(found))
        axes.plot(epochs, found, color=colour, label=label, alpha=1 if n == 1 else 0.6, lw=2 if n < 6 else 1.2)
