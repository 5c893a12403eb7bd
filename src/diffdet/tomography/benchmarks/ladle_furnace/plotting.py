"""Comparisons of detectors by the fill levels that they predict.

The tables are DataFrames, or any mapping of columns, with one row per furnace: ``gen_target`` true level, ``pred``
prediction, ``bias`` their difference and ``mse`` its square, and ``new_pred``, ``new_bias`` and ``new_mse`` the same
after the linear correction; m and m^2.

Each function writes three PDF files to the folder ``{NAME}_plots``, which is made where it is missing: predictions,
bias and squared error against the true level, as mean and standard deviation of the furnaces of one level.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from diffdet.core.errors import InputError, ShapeError
from diffdet.core.storage import make_folder
from diffdet.tomography.plotting import appearance
from diffdet.tomography.plotting.appearance import PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "compare_init_optimised_2",
    "compare_init_to_optimised",
    "compare_optimised_to_baselines",
    "compare_raw_init_to_bias_corrected_init",
    "comparison_figure",
]


class Table(Protocol):
    """Columns by name: a mapping, or a pandas DataFrame."""

    def __getitem__(self, name: str, /) -> Any: ...


class Series(NamedTuple):
    """What is drawn of one detector.

    Attributes:
        name: For the legend.
        table: The furnaces.
        corrected: Whether predictions after the linear correction are taken.
    """

    name: str
    table: Table
    corrected: bool = True


_QUANTITIES = {
    "predictions": ("pred", "Predicted level [m]"),
    "bias": ("bias", "Bias: predicted − true level [m]"),
    "mse": ("mse", "Squared error [m²]"),
}
_LOOKS = (
    (PALETTE["blue"], "o"),
    (PALETTE["vermillion"], "s"),
    (PALETTE["green"], "^"),
)
# Series stand beside each other, this part of the smallest step between levels apart.
_DODGE = 0.12


def compare_raw_init_to_bias_corrected_init(df_start: Table, NAME: str) -> None:
    """Write ``initial_*.pdf``: the initial detector before and after the linear correction.

    Args:
        df_start: Predictions of the initial detector, see above.
        NAME: Start of the folder's name; it may hold a path.

    Raises:
        InputError: If a column is missing or empty.
        ShapeError: If columns differ in length.
        StorageError: If a file cannot be written.
    """
    _write(
        NAME, "initial", [Series("Initial, raw", df_start, False), Series("Initial, corrected", df_start)], log=False
    )


def compare_init_to_optimised(df_start: Table, df_opt: Table, NAME: str) -> None:
    """Write ``optimised_*.pdf``: the initial and the optimised detector, both corrected.

    Args:
        df_start: Predictions of the initial detector, see above.
        df_opt: Predictions of the optimised detector.
        NAME: Start of the folder's name; it may hold a path.

    Raises:
        InputError: If a column is missing or empty.
        ShapeError: If columns differ in length.
        StorageError: If a file cannot be written.
    """
    _write(NAME, "optimised", [Series("Initial", df_start), Series("Optimised", df_opt)], log=True)


def compare_init_optimised_2(df_start: Table, df_opt_2: Table, NAME: str) -> None:
    """Write ``optimised_2_*.pdf``: the initial detector and that of the second optimisation, both corrected.

    Args:
        df_start: Predictions of the initial detector, see above.
        df_opt_2: Predictions of the detector that was optimised twice.
        NAME: Start of the folder's name; it may hold a path.

    Raises:
        InputError: If a column is missing or empty.
        ShapeError: If columns differ in length.
        StorageError: If a file cannot be written.
    """
    _write(NAME, "optimised_2", [Series("Initial", df_start), Series("Optimised twice", df_opt_2)], log=True)


def compare_optimised_to_baselines(df_bl_1: Table, df_bl_2: Table, df_opt_2: Table, NAME: str) -> None:
    """Write ``baseline_*.pdf``: both baselines and the optimised detector, all corrected.

    Args:
        df_bl_1: Predictions of the first baseline, see above.
        df_bl_2: Predictions of the second baseline.
        df_opt_2: Predictions of the optimised detector.
        NAME: Start of the folder's name; it may hold a path.

    Raises:
        InputError: If a column is missing or empty.
        ShapeError: If columns differ in length.
        StorageError: If a file cannot be written.
    """
    series = [Series("Baseline 1", df_bl_1), Series("Baseline 2", df_bl_2), Series("Optimised", df_opt_2)]
    _write(NAME, "baseline", series, log=True)


def _write(name: str, prefix: str, series: list[Series], *, log: bool) -> None:
    figures = {quantity: comparison_figure(series, quantity, log=log and quantity == "mse") for quantity in _QUANTITIES}
    folder = make_folder(Path(f"{name}_plots"))
    for quantity, figure in figures.items():
        appearance.present(figure, folder / f"{prefix}_{quantity}.pdf")


def comparison_figure(series: list[Series], quantity: str, *, log: bool = False) -> Figure:
    """One quantity against the true level: mean and standard deviation of the furnaces of one level.

    Args:
        series: Detectors, three at most.
        quantity: "predictions", "bias" or "mse".
        log: Whether the quantity's axis is logarithmic.

    Returns:
        The figure.

    Raises:
        InputError: If a column is missing or empty.
        ShapeError: If columns differ in length.
    """
    column, label = _QUANTITIES[quantity]
    with appearance.style(0.9):
        figure = appearance.new_figure(12, 8)
        axes = figure.subplots()
        points = [_by_level(_column(s, "gen_target"), _column(s, column)) for s in series]
        levels = torch.cat([p[0] for p in points]).unique()
        step = float(levels.diff().min()) if len(levels) > 1 else 0.1
        for k, (one, (level, mean, spread), (colour, marker)) in enumerate(zip(series, points, _LOOKS, strict=False)):
            axes.errorbar(
                (level + (k - 0.5 * (len(series) - 1)) * _DODGE * step).tolist(),
                mean.tolist(),
                yerr=spread.tolist(),
                fmt=marker,
                markersize=9,
                capsize=4,
                color=colour,
                label=f"{one.name}: {_summary(one, quantity)}",
            )
        ends = [float(levels[0]) - 0.5 * step, float(levels[-1]) + 0.5 * step]
        if quantity == "predictions":
            axes.plot(ends, ends, color="0.5", linestyle="--", linewidth=1.5, zorder=1, label="prediction = truth")
        elif quantity == "bias":
            axes.axhline(0, color="0.5", linestyle="--", linewidth=1.5, zorder=1)
        axes.set(xlabel="True level [m]", ylabel=label, xlim=ends)
        if log:
            axes.set_yscale("log")
            means = torch.cat([mean for _, mean, _ in points])
            lowest = means[means > 0]
            if len(lowest):  # bars that reach zero end at the rim
                axes.set_ylim(bottom=float(lowest.min()) / 5)
        elif quantity == "mse":
            axes.set_ylim(bottom=0)
        figure.legend(loc="outside upper left", ncols=1)
    return figure


def _summary(series: Series, quantity: str) -> str:
    if quantity == "mse":
        return f"MSE = {float(_column(series, 'mse').mean()):.2E} m²"
    return f"mean |bias| = {float(_column(series, 'bias').abs().mean()):.2E} m"


def _column(series: Series, name: str) -> Tensor:
    """A column as numbers; of the corrected predictions where they are asked for."""
    full = f"new_{name}" if series.corrected and name != "gen_target" else name
    try:
        values = series.table[full]
    except (KeyError, IndexError, ValueError) as error:
        known = ", ".join(map(repr, getattr(series.table, "keys", list)()))
        raise InputError(
            f"the table of {series.name!r} must have a column {full!r}; it has {known or 'none'}"
        ) from error
    if not isinstance(values, Tensor):
        values = torch.as_tensor(getattr(values, "to_numpy", lambda: values)())
    numbers = values.detach().cpu().double().flatten()
    if numbers.numel() == 0:
        raise InputError(f"the table of {series.name!r} must have rows; its column {full!r} is empty")
    return numbers


def _by_level(target: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Levels in ascending order, and mean and standard deviation of the values of each; levels that differ by rounding
    only are one.
    """
    if target.shape != values.shape:
        raise ShapeError(f"columns must have one length; got {target.numel()} targets and {values.numel()} values")
    rounded = (target * 1e6).round() / 1e6
    levels = rounded.unique()
    groups = [values[rounded == level] for level in levels]
    spread = [g.std() if g.numel() > 1 else g.new_zeros(()) for g in groups]
    return levels, torch.stack([g.mean() for g in groups]), torch.stack(spread)
