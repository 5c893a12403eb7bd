"""Where muons hit the panels, and where they scattered."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from diffdet.core.errors import InputError, ShapeError
from diffdet.tomography.plotting import appearance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["density_figure", "plot_hit_density", "plot_scatter_density"]


class Table(Protocol):
    """Columns by name: a mapping, or a pandas DataFrame."""

    def __getitem__(self, name: str, /) -> Any: ...

    def __contains__(self, name: object, /) -> bool: ...


Record = Table | Tensor

_MAX_COLUMNS = 4
_MAP = 3.0
# Bins across the longer side: as many as leave this many entries a bin on average, within limits.
_ENTRIES_PER_BIN = 5
_BINS = (8, 60)
# Recorded positions have tails without end (a hit beside a panel is measured to kilometres): the range is that of this
# fraction of them, and what lies outside is counted in the title.
_CORE = 0.98


class _Layer(NamedTuple):
    label: str
    xy: Tensor  # (n, 2)


def plot_hit_density(hit_df: Record, savename: str | os.PathLike[str] | None = None) -> None:
    """Draw where muons hit each panel, and show it where there is somebody to show it to.

    Args:
        hit_df: What `HitRecord.get_record` returns: a table with columns ``x``, ``y`` and ``layer`` (a DataFrame or any
            mapping of columns; ``z`` is quoted, if it is there), or a ``(muon, hit, 3)`` tensor, highest hit first; m.
        savename: File to save the figure to.

    Raises:
        InputError: If a column is missing, or there is nothing to draw.
        ShapeError: If the columns or the tensor have another shape.
    """
    appearance.present(density_figure(hit_df, "hits"), savename)


def plot_scatter_density(scatter_df: Record, savename: str | os.PathLike[str] | None = None) -> None:
    """Draw where muons were scattered, layer by layer, and show it where there is somebody to show it to.

    Args:
        scatter_df: What `ScatterRecord.get_record` returns: a table with columns ``x``, ``y`` and ``layer`` (a
            DataFrame or any mapping of columns), or a ``(muon, 3)`` tensor, drawn as one layer; m.
        savename: File to save the figure to.

    Raises:
        InputError: If a column is missing, or there is nothing to draw.
        ShapeError: If the columns or the tensor have another shape.
    """
    appearance.present(density_figure(scatter_df, "PoCAs"), savename)


def density_figure(record: Record, what: str) -> Figure:
    """One histogram of x and y for every layer, in ascending order, all with one range and one scale of colours.

    Args:
        record: See `plot_hit_density`.
        what: What is counted, for the labels: "hits" or "PoCAs".

    Returns:
        The figure.

    Raises:
        InputError: If a column is missing, or there is nothing to draw.
        ShapeError: If the columns or the tensor have another shape.
    """
    layers = _layers(record)
    everything = torch.cat([layer.xy for layer in layers])
    if everything.shape[0] == 0:
        raise InputError(f"there must be at least one finite position to draw the density of {what}; got none")
    x_range, y_range = (_range(everything[:, k]) for k in range(2))
    n_columns = min(_MAX_COLUMNS, len(layers))
    n_rows = -(-len(layers) // n_columns)
    longer = max(x_range[1] - x_range[0], y_range[1] - y_range[0])
    wide, high = (_MAP * (r[1] - r[0]) / longer for r in (x_range, y_range))
    edges = _edges(everything.shape[0] / len(layers), x_range, y_range, longer)
    counts = [torch.histogramdd(layer.xy, list(edges)).hist for layer in layers]
    most = max(1.0, *(float(c.max()) for c in counts))
    with appearance.style(0.55):
        figure = appearance.new_figure(n_columns * (wide + 0.35) + 1.9, n_rows * (high + 0.65) + 0.7)
        grid = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(layers) :]:
            axes.remove()
        colours = None
        for place, (axes, layer, count) in enumerate(zip(grid.flat, layers, counts, strict=False)):
            colours = axes.pcolormesh(*(e.numpy() for e in edges), count.T.numpy(), vmin=0, vmax=most, rasterized=True)
            beyond = layer.xy.shape[0] - int(count.sum())
            title = f"{layer.label}\n{layer.xy.shape[0]:,} {what}" + (f", {beyond:,} outside" if beyond else "")
            axes.set_title(title, fontsize=10)
            axes.set(aspect="equal", xlim=x_range, ylim=y_range)
            axes.grid(visible=False)
            if place >= len(layers) - n_columns:
                axes.set_xlabel("x [m]")
                axes.tick_params(labelbottom=True)
            if place % n_columns == 0:
                axes.set_ylabel("y [m]")
        assert colours is not None  # there is at least one layer
        width, depth = (float(e[1] - e[0]) * 100 for e in edges)
        figure.colorbar(
            colours, ax=list(grid.flat[: len(layers)]), label=f"{what} per {width:.2g} cm × {depth:.2g} cm", aspect=25
        )
    return figure


def _layers(record: Record) -> list[_Layer]:
    """Finite positions by layer, ascending."""
    if isinstance(record, Tensor):
        return _layers_of_tensor(record)
    try:
        columns = {name: _column(record[name]) for name in ("x", "y", "layer")}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        names = list(getattr(record, "keys", list)())
        raise InputError(
            f"the record must be a table with columns 'x', 'y' and 'layer', or a tensor; got {type(record).__name__}"
            + (f" with {', '.join(map(repr, names))}" if names else "")
        ) from error
    sizes = {name: column.shape[0] for name, column in columns.items()}
    if len(set(sizes.values())) != 1:
        raise ShapeError(f"columns of the record must have one length; got {sizes}")
    heights = _column(record["z"]) if "z" in record else None
    xy = torch.stack([columns["x"], columns["y"]], 1)
    out = []
    for number in columns["layer"][columns["layer"].isfinite()].unique().tolist():
        of_layer = columns["layer"] == number
        label = f"Layer {number:g}"
        if heights is not None and (z := heights[of_layer]).numel() and float(z.max() - z.min()) < 1e-6:
            label += f", z = {float(z[0]):.3g} m"
        out.append(_Layer(label, _finite(xy[of_layer])))
    return out or [_Layer("Layer 0", xy.new_zeros((0, 2)))]


def _layers_of_tensor(record: Tensor) -> list[_Layer]:
    if record.ndim not in (2, 3) or record.shape[-1] != 3:
        raise ShapeError(f"the record must have shape (muon, 3) or (muon, hit, 3); got {tuple(record.shape)}")
    record = record.detach().cpu().double()
    if record.ndim == 2:
        return [_Layer("All layers", _finite(record[:, :2]))]
    return [_Layer(f"Layer {k}", _finite(record[:, k, :2])) for k in range(record.shape[1])]


def _column(values: Any) -> Tensor:
    """A column as numbers; a DataFrame's column as well as a list or a tensor."""
    if not isinstance(values, Tensor):
        values = torch.as_tensor(getattr(values, "to_numpy", lambda: values)())
    return values.detach().cpu().double().flatten()


def _finite(xy: Tensor) -> Tensor:
    return xy[xy.isfinite().all(1)]


def _range(values: Tensor) -> tuple[float, float]:
    """Range of the bulk of the values, with a little room; all of them where there are no tails."""
    ordered = values.sort().values
    last = ordered.numel() - 1
    tail = 0.5 * (1 - _CORE)
    low, high = float(ordered[round(tail * last)]), float(ordered[round((1 - tail) * last)])
    room = 0.25 * (high - low) or 0.5
    return max(float(ordered[0]), low - room), min(float(ordered[-1]), high + room) + 1e-9


def _edges(
    n_per_layer: float, x_range: tuple[float, float], y_range: tuple[float, float], longer: float
) -> tuple[Tensor, Tensor]:
    """Edges of about square bins."""
    area = (x_range[1] - x_range[0]) * (y_range[1] - y_range[0]) / longer**2
    across = (n_per_layer / (_ENTRIES_PER_BIN * max(area, 1e-6))) ** 0.5
    n = min(max(round(across), _BINS[0]), _BINS[1])
    x, y = (
        torch.linspace(*r, max(1, round(n * (r[1] - r[0]) / longer)) + 1, dtype=torch.float64)
        for r in (x_range, y_range)
    )
    return x, y
