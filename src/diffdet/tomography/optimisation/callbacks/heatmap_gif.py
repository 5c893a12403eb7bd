"""An animation of how a heat-map detector changes while it is optimised."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffdet.core import storage
from diffdet.core.errors import InputError
from diffdet.tomography.optimisation.callbacks.callback import Callback

__all__ = ["HeatMapGif"]

_SECONDS_PER_FRAME = 0.5


class HeatMapGif(Callback):
    """Notes the first heat map of the first detector before every epoch of training and at the end, and writes an
    animation.

    It is written to the fit's ``cb_savepath``. A fit that was resumed shows all epochs.

    Args:
        gif_filename: Name of the file.

    Raises:
        InputError: When the fit begins, if the first detector has no heat map.
    """

    saved = ("history",)

    def __init__(self, gif_filename: str = "heatmap.gif") -> None:
        self.gif_filename = gif_filename
        self.history: list[dict[str, Tensor]] = []

    def on_train_begin(self) -> None:
        """Begin a new history."""
        super().on_train_begin()
        self._heat_map()
        self.history = []

    def on_epoch_begin(self) -> None:
        """Note the map before an epoch of training."""
        if self._fit.state == "train":
            self._note()

    def on_train_end(self) -> None:
        """Note the map, and write the animation."""
        from matplotlib.figure import Figure

        from diffdet.tomography.plotting.animation import animated_gif

        self._note()
        shown = copy.deepcopy(self._heat_map())
        frames: list[bytes] = []
        for number, state in enumerate(self.history):
            shown.load_state_dict(state, strict=False)
            figure = Figure(figsize=(4, 4), layout="constrained")
            axes = figure.add_subplot()
            shown.draw_map(axes)
            axes.set_title(f"after {number} epochs")
            picture = io.BytesIO()
            figure.savefig(picture, format="png", dpi=100)
            frames.append(picture.getvalue())
        folder = storage.make_folder(Path("." if self._fit.cb_savepath is None else self._fit.cb_savepath))
        storage.write_bytes(folder / self.gif_filename, animated_gif(frames, _SECONDS_PER_FRAME * len(frames)))

    @torch.no_grad()
    def _note(self) -> None:
        """Add the map's parameters to the history."""
        families = self._heat_map().named_parameters()
        self.history.append({name: parameter.detach().cpu().clone() for name, parameter in families})

    def _heat_map(self) -> Any:
        """The first panel of the first detector that can draw its map."""
        detectors = self._wrapper.volume.get_detectors()
        for panel in detectors[0].yield_panels() if detectors else ():
            if hasattr(panel, "draw_map"):
                return panel
        raise InputError("`HeatMapGif` needs a volume whose first detector has a map to draw, such as DetectorHeatMap")
