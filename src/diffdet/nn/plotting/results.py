"""Predictions as pictures: receiver operating characteristics, scores by class, scores by sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import InputError, ShapeError
from diffdet.core.random import Stream
from diffdet.kernels.classifier_scores import area_under_roc
from diffdet.kernels.score_curves import interpolate, roc_band, roc_curve
from diffdet.nn.plotting._figures import colours, drawing, finish, weighted_hist
from diffdet.nn.plotting.plot_settings import PlotSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_binary_class_pred", "plot_roc", "plot_sample_pred"]


def plot_roc(
    data: Any,
    pred_name: str = "pred",
    targ_name: str = "gen_target",
    wgt_name: str | None = None,
    labels: str | Sequence[str] | None = None,
    plot_params: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    n_bootstrap: int = 100,
    log_x: bool = False,
    plot_baseline: bool = True,
    savename: str | None = None,
    settings: PlotSettings | None = None,
    *,
    seed: int = 0,
) -> dict[str, float | tuple[float, float]]:
    """Draw receiver operating characteristics: background kept across, signal kept upwards, with bands of one sigma.

    Args:
        data: A table, or several, with predictions and targets.
        pred_name: Column of the predictions.
        targ_name: Column of the targets, 1 for signal.
        wgt_name: Column of the weights; all 1 where None.
        labels: Name of each table.
        plot_params: Arguments of matplotlib's `plot` for each table.
        n_bootstrap: Resamplings that bands and uncertainties come from; 0 for none.
        log_x: Whether background kept has a logarithmic axis.
        plot_baseline: Whether to draw what guessing gives.
        savename: Name of the file, without suffix.
        settings: Appearance; by default that of `PlotSettings`.
        seed: Seed of the resampling.

    Returns:
        Area under each curve by label; with its uncertainty as a tuple where there are resamplings.

    Raises:
        InputError: If a column is missing, or a table lacks signal or background.
    """
    settings = settings or PlotSettings()
    tables = list(data) if isinstance(data, list | tuple) else [data]
    given = (
        [labels]
        if isinstance(labels, str)
        else list(labels or ["" if len(tables) == 1 else f"{k}" for k in range(len(tables))])
    )
    params = list(plot_params) if isinstance(plot_params, Sequence) else [plot_params or {}] * len(tables)
    if not len(tables) == len(given) == len(params):
        raise ShapeError(
            f"`labels` and `plot_params` must be one for each of {len(tables)} tables; got {len(given)}, {len(params)}"
        )
    areas: dict[str, float | tuple[float, float]] = {}
    grid = torch.cat([torch.zeros(1), torch.logspace(-5, 0, 301)]).to(torch.float64)
    with drawing(settings, 1.25 * settings.h_mid, settings.h_mid) as figure:
        axes = figure.subplots()
        for k, (table, label, colour) in enumerate(
            zip(tables, given, colours(settings.cat_palette, len(tables)), strict=True)
        ):
            scores, signal, weights = _classified(table, pred_name, targ_name, wgt_name)
            area = area_under_roc(scores, signal, weights).item()
            background, kept = roc_curve(scores, signal, weights)
            name = f"{label}: " if label else ""
            text = f"{name}area {area:.4f}"
            areas[label] = area
            style = {"color": colour, **params[k]}
            if n_bootstrap:
                rate = torch.ones(n_bootstrap, len(scores))
                counts = torch.poisson(rate, generator=Stream(seed, "roc", k).generator()).long()
                band = roc_band(scores, signal, weights, grid, counts)
                resampled = [area_under_roc(scores, signal, weights * count).item() for count in counts]
                error = float(np.nanstd(resampled))
                areas[label] = (area, error)
                text = f"{name}area {area:.4f} ± {error:.4f}"
                middle, spread = interpolate(grid, background, kept).numpy(), np.nanstd(band.numpy(), axis=0)
                low, high = np.maximum(middle - spread, 0), np.minimum(middle + spread, 1)
                axes.fill_between(grid.numpy(), low, high, color=style["color"], alpha=0.25, lw=0)
            axes.plot(background.numpy(), kept.numpy(), label=text, **style)
        if plot_baseline:
            axes.plot(grid[1:].numpy(), grid[1:].numpy(), color="black", ls="--", lw=1.5, label="guessing: area 0.5")
        if log_x:
            axes.set(xscale="log", xlim=(1e-4, 1))
        else:
            axes.set(xlim=(0, 1))
        axes.set(ylim=(0, 1.01), xlabel="Background kept", ylabel="Signal kept", title=settings.title)
        if settings.leg_loc == "best":  # bands leave no room inside on a logarithmic axis
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1))
        else:
            axes.legend(loc=settings.leg_loc)
        finish(figure, savename, settings)
    return areas


def plot_binary_class_pred(
    df: Any,
    pred_name: str = "pred",
    targ_name: str = "gen_target",
    wgt_name: str | None = None,
    wgt_scale: float = 1,
    log_y: bool = False,
    lim_x: tuple[float, float] = (0, 1),
    density: bool = True,
    savename: str | None = None,
    settings: PlotSettings | None = None,
    *,
    bins: int = 50,
) -> Figure:
    """Draw the distribution of a prediction for each class.

    Args:
        df: Table with predictions and targets.
        pred_name: Column of the predictions.
        targ_name: Column of the targets.
        wgt_name: Column of the weights; all 1 where None.
        wgt_scale: Factor on the weights.
        log_y: Whether heights have a logarithmic axis.
        lim_x: Limits of the predictions.
        density: Whether to bring each area to 1.
        savename: Name of the file, without suffix.
        settings: Appearance; by default that of `PlotSettings`.
        bins: Number of bins.

    Returns:
        The figure.

    Raises:
        InputError: If a column is missing.
    """
    settings = settings or PlotSettings()
    scores, targets, weights = _table(df, [pred_name, targ_name, *([wgt_name] if wgt_name else [])])
    edges = np.linspace(*lim_x, bins + 1)
    with drawing(settings, settings.w_mid, settings.h_mid) as figure:
        axes = figure.subplots()
        classes = np.unique(targets)
        for value, colour in zip(classes, colours(settings.cat_palette, len(classes)), strict=True):
            chosen = targets == value
            w = np.ones(int(chosen.sum())) if weights is None else weights[chosen]
            heights, errors = weighted_hist(scores[chosen], wgt_scale * w, edges, density)
            name = settings.targ2class.get(int(value), str(value)) if value == int(value) else str(value)
            axes.stairs(heights, edges, color=colour, lw=2, label=name)
            axes.stairs(
                heights + errors, edges, baseline=np.maximum(heights - errors, 0), color=colour, fill=True, alpha=0.3
            )
        _heights(axes, log_y)
        axes.set(
            xlim=lim_x,
            xlabel="Class prediction",
            ylabel=_height_label(density, wgt_scale, weights),
            title=settings.title,
        )
        axes.legend(loc=settings.leg_loc)
        return finish(figure, savename, settings)


def plot_sample_pred(
    df: Any,
    pred_name: str = "pred",
    targ_name: str = "gen_target",
    wgt_name: str | None = "gen_weight",
    sample_name: str = "gen_sample",
    wgt_scale: float = 1,
    bins: int | Sequence[float] = 35,
    log_y: bool = True,
    lim_x: tuple[float, float] = (0, 1),
    density: bool = False,
    zoom_args: Mapping[str, Any] | None = None,
    savename: str | None = None,
    settings: PlotSettings | None = None,
) -> Figure:
    """Draw the distribution of a prediction with backgrounds stacked by sample, and signals as lines.

    Args:
        df: Table with predictions, targets, and names or numbers of samples.
        pred_name: Column of the predictions.
        targ_name: Column of the targets, 1 for signal.
        wgt_name: Column of the weights; all 1 where None.
        sample_name: Column of the samples.
        wgt_scale: Factor on the weights.
        bins: Number of bins, or their edges.
        log_y: Whether heights have a logarithmic axis.
        lim_x: Limits of the predictions.
        density: Whether to bring the area of all backgrounds, and of each signal, to 1.
        zoom_args: Limits of a second picture beside: ``x``, and where wanted ``y``.
        savename: Name of the file, without suffix.
        settings: Appearance; by default that of `PlotSettings`.

    Returns:
        The figure.

    Raises:
        InputError: If a column is missing.
    """
    settings = settings or PlotSettings()
    scores, targets, weights = _table(df, [pred_name, targ_name, *([wgt_name] if wgt_name else [])])
    (samples,) = _columns(df, [sample_name])
    weights = wgt_scale * (np.ones(len(scores)) if weights is None else weights)
    edges = np.linspace(*lim_x, bins + 1) if isinstance(bins, int) else np.asarray(bins, dtype=np.float64)
    kinds = [(s, bool(targets[samples == s].mean() > 0.5)) for s in np.unique(samples)]
    numbers = settings.sample2col or {str(s): k for k, (s, _) in enumerate(kinds)}
    palette = colours(settings.cat_palette, max(numbers.values(), default=0) + 1)
    backgrounds = sorted((s for s, signal in kinds if not signal), key=lambda s: weights[samples == s].sum())
    with drawing(settings, settings.w_mid, settings.h_mid) as figure:
        panels = list(
            figure.subplots(
                1, 1 if zoom_args is None else 2, squeeze=False, width_ratios=(2, 1)[: 1 + bool(zoom_args)]
            )[0]
        )
        main = panels[0]
        total = sum(weights[samples == s].sum() for s in backgrounds)
        scale = 1 / (total * np.diff(edges)) if density and total > 0 else np.ones(len(edges) - 1)
        for axes in panels:
            below = np.zeros(len(edges) - 1)
            squares = np.zeros(len(edges) - 1)
            for s in backgrounds:
                chosen = samples == s
                heights, errors = weighted_hist(scores[chosen], weights[chosen], edges)
                colour = palette[numbers.get(str(s), 0)]
                axes.stairs(
                    (below + heights) * scale, edges, baseline=below * scale, fill=True, color=colour, label=str(s)
                )
                below, squares = below + heights, squares + errors**2
            spread = np.sqrt(squares)
            axes.stairs(
                *((below + spread) * scale, edges),
                baseline=np.maximum(below - spread, 0) * scale,
                fill=True,
                facecolor="none",
                edgecolor="0.3",
                hatch="///",
                lw=0,
                label="statistical uncertainty" if backgrounds else None,
            )
            for s in (s for s, signal in kinds if signal):
                chosen = samples == s
                heights, _ = weighted_hist(scores[chosen], weights[chosen], edges, density)
                axes.stairs(heights, edges, baseline=None, color=palette[numbers.get(str(s), 0)], lw=2.5, label=str(s))
            _heights(axes, log_y)
        main.set(
            xlim=lim_x,
            xlabel="Class prediction",
            ylabel=_height_label(density, wgt_scale, weights),
            title=settings.title,
        )
        if zoom_args is not None:
            limits = {"ylim": zoom_args["y"]} if "y" in zoom_args else {}
            panels[1].set(xlim=zoom_args["x"], xlabel="Class prediction", **limits)
        if settings.leg_loc == "best":  # a stack leaves no room inside
            main.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=max(2, len(kinds) // 2 + 1))
        else:
            main.legend(loc=settings.leg_loc)
        return finish(figure, savename, settings)


def _heights(axes: Any, log_y: bool) -> None:
    if log_y:
        axes.set_yscale("log", nonpositive="clip")
    else:
        axes.set_ylim(bottom=0)


def _height_label(density: bool, scale: float, weights: Any) -> str:
    if density:
        return "Density"
    return "Events" if weights is None and scale == 1 else "Weighted events"


def _columns(df: Any, names: Sequence[str]) -> list[np.ndarray]:
    known = [str(name) for name in (df.columns if hasattr(df, "columns") else df)]
    for name in names:
        if name not in known:
            raise InputError(
                f"the table must have a column {name!r}; it has {', '.join(known)}{did_you_mean(name, known)}"
            )
    return [np.asarray(df[name]) for name in names]


def _table(df: Any, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    found = [column.reshape(-1).astype(np.float64) for column in _columns(df, names)]
    if len({len(column) for column in found}) > 1 or not len(found[0]):
        raise ShapeError(f"columns {list(names)} must have one value for each event; got {[len(c) for c in found]}")
    for name, column in zip(names, found, strict=True):
        if not np.isfinite(column).all():
            raise InputError(f"column {name!r} must be finite; {int((~np.isfinite(column)).sum())} values are not")
    return found[0], found[1], found[2] if len(found) > 2 else None


def _classified(
    df: Any, pred_name: str, targ_name: str, wgt_name: str | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    scores, targets, weights = _table(df, [pred_name, targ_name, *([wgt_name] if wgt_name else [])])
    signal = targets > 0.5
    if signal.all() or not signal.any():
        raise InputError(f"there must be signal and background; got {int(signal.sum())} of {len(signal)} signal")
    w = np.ones(len(scores)) if weights is None else weights
    return torch.from_numpy(scores), torch.from_numpy(signal), torch.from_numpy(w)
