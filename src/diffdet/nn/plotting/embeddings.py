"""Embeddings of categories as grids of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diffdet.nn.plotting._figures import drawing, finish
from diffdet.nn.plotting.plot_settings import PlotSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_embedding"]


def plot_embedding(
    feat: str, embedding: Any, savename: str | None = None, settings: PlotSettings | None = None, *, names: Any = None
) -> Figure:
    """Draw an embedding: categories down, dimensions across, each number in its cell.

    Args:
        feat: Name of the feature.
        embedding: Weights, (category, dimension).
        savename: Name of the file, without suffix.
        settings: Appearance; by default that of `PlotSettings`.
        names: What the categories are called; their codes where None.

    Returns:
        The figure.
    """
    settings = settings or PlotSettings()
    weights = np.asarray(embedding, dtype=np.float64)
    n_codes, n_dims = weights.shape
    reach = max(float(np.abs(weights).max(initial=0)), 1e-12)
    height = max(settings.h_small, 0.5 * n_codes + 1.5)
    with drawing(settings, settings.w_small, height) as figure:
        axes = figure.subplots()
        axes.grid(False)
        image = axes.imshow(weights, cmap=settings.div_palette, vmin=-reach, vmax=reach, aspect="auto")
        for row in range(n_codes):
            for column in range(n_dims):
                pale = abs(weights[row, column]) < 0.6 * reach
                axes.text(
                    *(column, row, f"{weights[row, column]:.1f}"),
                    ha="center",
                    va="center",
                    color="black" if pale else "white",
                    size=0.8 * settings.tk_sz,
                )
        axes.set_xticks(range(n_dims))
        axes.set_yticks(range(n_codes), [str(v) for v in (range(n_codes) if names is None else names)])
        axes.set(xlabel="Embedding", ylabel=feat, title=settings.title)
        figure.colorbar(image, ax=axes)
        return finish(figure, savename, settings)
