"""Importance of features as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diffdet.core.errors import InputError
from diffdet.nn.plotting._figures import colours, drawing, finish
from diffdet.nn.plotting.plot_settings import PlotSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_feat_importance", "plot_importance"]


def plot_feat_importance(
    df: Any,
    feat_name: str = "Feature",
    imp_name: str = "Importance",
    unc_name: str = "Uncertainty",
    threshold: float | None = None,
    x_lbl: str = "Relative rise of the loss when permuted",
    savename: str | None = None,
    settings: PlotSettings | None = None,
) -> Figure:
    """Draw the importance of features with its uncertainty, the largest on top.

    Args:
        df: Columns: what `get_nn_feat_importance` returns, or a DataFrame.
        feat_name: Column of the names.
        imp_name: Column of the importance.
        unc_name: Column of its uncertainty.
        threshold: Where to draw a line.
        x_lbl: Label of the axis.
        savename: Name of the file, without suffix.
        settings: Appearance; by default that of `PlotSettings`.

    Returns:
        The figure.

    Raises:
        InputError: If a column is missing or empty.
    """
    settings = settings or PlotSettings()
    known = [str(c) for c in (df.columns if hasattr(df, "columns") else df)]
    missing = [name for name in (feat_name, imp_name, unc_name) if name not in known]
    if missing:
        raise InputError(f"`df` must have columns {missing}; it has {known}")
    names, values, errors = (np.asarray(df[name]) for name in (feat_name, imp_name, unc_name))
    if not len(names):
        raise InputError("`df` must have features; got none")
    order = np.argsort(-values, kind="stable")
    with drawing(settings, settings.w_mid, max(settings.h_small, 0.5 * len(names) + 1.5)) as figure:
        axes = figure.subplots()
        places = np.arange(len(names))
        colour = colours(settings.cat_palette, 1)[0]
        axes.barh(places, values[order], xerr=errors[order], color=colour, ecolor="black", height=0.7)
        axes.set_yticks(places, [str(name) for name in names[order]])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.axvline(0, color="black", lw=1)
        if threshold is not None:
            axes.axvline(threshold, color="black", ls="--", lw=1.5)
        axes.grid(False, axis="y")
        axes.set(xlabel=x_lbl, title=settings.title)
        return finish(figure, savename, settings)


plot_importance = plot_feat_importance
"""The same under its older name."""
